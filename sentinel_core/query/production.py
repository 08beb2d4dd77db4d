"""Models in production over time: PSI and what came of it hour by hour, and how many incidents there were."""

from collections.abc import Callable, Collection, Sequence

from sentinel_core.config import SentinelConfig
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples
from sentinel_core.query.sampled import Metadata, SampledSource
from sentinel_core.series import Matcher
from sentinel_core.storage.store import Store

# The names of emitter.production that have a past here; what else there is of models has none, see own_metrics.
NAMES = frozenset(
    {
        "sentinel_model_psi",
        "sentinel_model_psi_adjusted",
        "sentinel_model_psi_lower",
        "sentinel_model_psi_upper",
        "sentinel_model_psi_limit",
        "sentinel_model_state",
        "sentinel_model_evaluated_timestamp_seconds",
    }
)


class ModelSource(SampledSource):
    """NAMES by (project, model), a sample for each evaluated hour at its end; cheap to make."""

    def __init__(
        self, store: Store, config: Callable[[], SentinelConfig], projects: Collection[str] | None = None
    ) -> None:
        """projects: names of those that may be seen; None: all."""
        self._store = store
        self._config = config
        self._projects = projects

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return a sample for each evaluated hour; a stale marker where it had no such value."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """Gauges all."""
        raise NotImplementedError


class IncidentSource(SampledSource):
    """`sentinel_incidents`, labelled as on /metrics: how many there were at any time; cheap to make."""

    def __init__(self, store: Store, now: Callable[[], float], projects: Collection[str] | None = None) -> None:
        """projects: names of those that may be seen; None: all."""
        self._store = store
        self._now = now
        self._projects = projects

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return a sample every minute, as if they had been scraped."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """A gauge."""
        raise NotImplementedError
