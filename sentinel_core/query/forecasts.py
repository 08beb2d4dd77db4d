"""Forecasts as series: every forecast step at the time it is about, past ones and those ahead of now."""

from collections.abc import Callable, Sequence

from sentinel_core.config import SentinelConfig
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.query.sampled import Metadata
from sentinel_core.series import Matcher
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray

CACHE_BYTES = 256 * 2**20  # of forecasts kept in RAM


class ForecastSource:
    """A Source of `{name}_sentinel_predicted`, `…_lower` and `…_upper`; threads may share it.

    Labels: the series' own, sentinel_horizon and sentinel_version; by default a time has the newest forecast made for
    it. `sentinel_lead="5m"` asks for the one made that long before, `sentinel_origin="2026-01-31T12:00:00Z"` for all of
    the newest forecast made at or before then; that label is on the series then.
    """

    def __init__(
        self, store: Store, config: Callable[[], SentinelConfig], *, cache_bytes: int = CACHE_BYTES
    ) -> None: ...

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return the newest sample at each of these times, by look-back of 5 minutes or one step."""
        raise NotImplementedError

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return the samples of start < t <= end; a stale marker ends a version's series where another takes over."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a forecast for a time in [start, end]."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """Return type and help of each name."""
        raise NotImplementedError
