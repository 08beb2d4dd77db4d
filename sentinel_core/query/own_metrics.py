"""A day of Sentinel's metrics about itself, in RAM: what /metrics said every 15 seconds, whether anybody scraped or not."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples
from sentinel_core.query.sampled import Metadata, SampledSource
from sentinel_core.series import Matcher

STEP_SECONDS = 15.0


class OwnMetrics(SampledSource):
    """`sentinel_*` but for what has a longer past (models' PSI, incidents); thread-safe.

    Call `record` every STEP_SECONDS, on a thread.
    """

    def __init__(self, registry: CollectorRegistry, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = registry
        self._snapshot = snapshot

    def record(self, now: float) -> None:
        """Remember what /metrics says at `now` (unix seconds), and forget what is older than a day."""
        raise NotImplementedError

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return what was recorded; a stale marker where a series vanished."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """Type and help as on /metrics."""
        raise NotImplementedError
