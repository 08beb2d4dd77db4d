"""A day of Sentinel's metrics about itself, in RAM: what /metrics said every 15 s, whether it was scraped or not."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from sentinel_core.emitter.production import Production, per_model
from sentinel_core.emitter.self_metrics import SnapshotCollector
from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.promql import matchers as language
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import LOOKBACK, STALE, BoolArray, Labels, Samples, is_stale
from sentinel_core.query import production
from sentinel_core.query.sampled import Metadata, SampledSource, joined, named
from sentinel_core.series import Matcher
from sentinel_core.windows import FloatArray, IntArray

STEP_SECONDS = 15.0
KEPT = 5_760  # samples of each series: a day of them
MOST_CELLS = 16_000_000  # 128 MB. Ten watches are 400 series; 1,000 models in production have a past of 15 hours so
_FAMILIES = {"counter": ("_total", "counter"), "info": ("_info", "gauge")}  # what /metrics calls them


class OwnMetrics(SampledSource):
    """Everything `sentinel_*` on /metrics but for production.NAMES, which have a longer past; thread-safe.

    Call `record` every STEP_SECONDS, on a thread.
    """

    def __init__(self, registry: CollectorRegistry, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._models: tuple[Production | None, list[Metric], dict[Labels, float]] = (None, [], {})
        self._metadata: Metadata = {}
        self._lock = threading.Lock()
        self._ring = _Ring()

    def record(self, now: float) -> None:
        """Remember what /metrics says at `now` (unix seconds), in place of what it said a day before."""
        snapshot = self._snapshot()
        if snapshot.production is not self._models[0]:  # of 10,000 models it takes half a second
            about = _ours(per_model(replace(snapshot.production, incidents={})))
            self._models = snapshot.production, about, _values(about)
        _, models, of_models = self._models
        families = _ours([*self._registry.collect(), *SnapshotCollector(snapshot, now).collect()])
        with self._lock:
            self._ring.add(int(now * 1000), _values(families) | of_models)
        self._metadata = {
            family.name + suffix: (kind, family.documentation)
            for family in (*families, *models)
            for suffix, kind in [_FAMILIES.get(family.type, ("", family.type))]
        }

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return what was recorded in start < t <= end; a stale marker where a series vanished."""
        labels, times, values = self._recorded(matchers, start, end, budget)
        there = ~is_stale(values)
        kept = there.copy()
        kept[:, 1:] |= there[:, :-1]
        return Samples(
            labels,
            np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
            np.broadcast_to(times, values.shape)[kept],
            values[kept],
            np.full(len(labels), LOOKBACK),
        )

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""
        labels, _, values = self._recorded(matchers, start - 1, end, budget)
        there: BoolArray = np.any(~is_stale(values), axis=1)
        return [one for one, some in zip(labels, there.tolist(), strict=True) if some]

    def metadata(self) -> Metadata:
        """Type and help as on /metrics, of what was recorded last."""
        return self._metadata

    def _recorded(
        self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget
    ) -> tuple[tuple[Labels, ...], IntArray, FloatArray]:
        """Series, times [T] of start < t <= end, and values [S, T]."""
        matching = language.compile(matchers)
        with self._lock:
            return self._ring.read(matching, start, end, budget)


class ModelsOf(SampledSource):
    """What of OwnMetrics is about models of some projects: all that may be seen of it by who may see no others."""

    def __init__(self, own: OwnMetrics, projects: Collection[str]) -> None:
        self._own = own
        self._of_each = [Matcher("project", "=", name) for name in sorted(projects)]

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As OwnMetrics."""
        return joined([self._own.samples([*matchers, one], start, end, budget) for one in self._of_each])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As OwnMetrics."""
        return [found for one in self._of_each for found in self._own.series([*matchers, one], start, end, budget)]

    def metadata(self) -> Metadata:
        """As OwnMetrics."""
        return {name: told for name, told in self._own.metadata().items() if name.startswith("sentinel_model_")}


class _Ring:
    """The last samples of many series, all at the same times: fewer of each, the more series there are."""

    def __init__(self) -> None:
        self._rows: dict[Labels, int] = {}
        self._values: FloatArray = np.empty((0, 0))  # columns are the ring; what is not there is stale
        self._times: IntArray = np.empty(0, np.int64)
        self._newest = -1  # column
        self._size = 0  # columns in use
        self._reshape(256)

    def add(self, time: int, found: Mapping[Labels, float]) -> None:
        """Add a sample of each series; what was added under later times is forgotten: the clock was ahead then."""
        self._make_room([labels for labels in found if labels not in self._rows])
        depth = len(self._times)
        while self._size and self._times[self._newest] >= time:
            self._newest, self._size = (self._newest - 1) % depth, self._size - 1
        self._newest, self._size = (self._newest + 1) % depth, min(self._size + 1, depth)
        self._times[self._newest] = time
        self._values[:, self._newest] = STALE
        self._values[[self._rows[labels] for labels in found], self._newest] = list(found.values())

    def read(
        self, matching: Matching, start: int, end: int, budget: Budget
    ) -> tuple[tuple[Labels, ...], IntArray, FloatArray]:
        """Return series, times [T] of start < t <= end, and values [S, T]."""
        columns = self._columns()
        times = self._times[columns]
        inside = (times > start) & (times <= end)
        chosen = np.flatnonzero(matching.matches(list(self._rows)))
        every = list(self._rows.items())
        budget.spend(len(chosen) * int(inside.sum()))
        rows = np.array([every[at][1] for at in chosen.tolist()], np.int64)
        labels = tuple(every[at][0] for at in chosen.tolist())
        return labels, times[inside], self._values[np.ix_(rows, columns[inside])]

    def _columns(self) -> IntArray:
        """Those in use, the oldest first."""
        return (self._newest + 1 - self._size + np.arange(self._size)) % len(self._times)

    def _make_room(self, fresh: Sequence[Labels]) -> None:
        """Give rows to new series: those of series that are long gone, else more of them."""
        if len(self._rows) + len(fresh) > len(self._values):
            living: BoolArray = np.any(~is_stale(self._values), axis=1)
            self._rows = {labels: row for labels, row in self._rows.items() if living[row]}
        capacity = len(self._values)
        while capacity < len(self._rows) + len(fresh):
            capacity *= 2
        if capacity > len(self._values):
            self._reshape(capacity)
        free = sorted(set(range(capacity)).difference(self._rows.values())) if fresh else []
        self._rows |= zip(fresh, free, strict=False)

    def _reshape(self, capacity: int) -> None:
        """Move to a table of more rows, with as many columns as MOST_CELLS allows."""
        depth = max(1, min(KEPT, MOST_CELLS // capacity))
        columns = self._columns()[-depth:] if self._size else np.empty(0, np.int64)
        values, times = np.full((capacity, depth), STALE), np.zeros(depth, np.int64)
        values[: len(self._values), : len(columns)] = self._values[:, columns]
        times[: len(columns)] = self._times[columns]
        self._values, self._times, self._size, self._newest = values, times, len(columns), len(columns) - 1


def _ours(families: Iterable[Metric]) -> list[Metric]:
    """Those by our names that have no longer past; what every process says of itself is Prometheus'."""
    return [one for one in families if one.name.startswith("sentinel_") and one.name not in production.NAMES]


def _values(families: Iterable[Metric]) -> dict[Labels, float]:
    return {named(one.name, one.labels): one.value for family in families for one in family.samples}
