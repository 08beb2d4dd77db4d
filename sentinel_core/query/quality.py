"""How good forecasts have been, over time: drift MAE of each series, MASE and coverage of each series and lead."""

from collections.abc import Callable, Sequence

from sentinel_core.config import SentinelConfig
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples
from sentinel_core.query.sampled import Metadata, SampledSource
from sentinel_core.series import Matcher
from sentinel_core.storage.store import Store

SUFFIXES = ("_sentinel_drift_mae", "_sentinel_mase", "_sentinel_coverage")


class QualitySource(SampledSource):
    """`{name}_sentinel_drift_mae`, `{name}_sentinel_mase` and `{name}_sentinel_coverage`; see the module."""

    def __init__(self, store: Store, config: Callable[[], SentinelConfig]) -> None:
        self._store = store
        self._config = config

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return a sample for each scored step, at the time that was forecast."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series of the configured watches that lived in [start, end]."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """Gauges all."""
        raise NotImplementedError
