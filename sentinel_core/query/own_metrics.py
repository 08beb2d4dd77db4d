"""A day of Sentinel's metrics about itself, in RAM: what /metrics said every 15 s, whether it was scraped or not."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from sentinel_core.emitter.production import per_model
from sentinel_core.emitter.self_metrics import SnapshotCollector
from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.promql import matchers as language
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import LOOKBACK, STALE, BoolArray, Labels, Samples, is_stale
from sentinel_core.query import production
from sentinel_core.query.sampled import Metadata, SampledSource, named
from sentinel_core.series import Matcher
from sentinel_core.windows import FloatArray, IntArray

logger = logging.getLogger(__name__)

STEP_SECONDS = 15.0
KEPT = 5_760  # samples of each series: a day of them
MOST_SERIES = 2_048  # 94 MB; an installation with ten watches has some 400
MOST_MODELS = 250  # in production, with four series each that are nowhere else
_FAMILIES = {"counter": ("_total", "counter"), "info": ("_info", "gauge")}  # what /metrics calls them


class OwnMetrics(SampledSource):
    """Everything `sentinel_*` on /metrics but for production.NAMES, which have a longer past; thread-safe.

    Call `record` every STEP_SECONDS, on a thread.
    """

    def __init__(self, registry: CollectorRegistry, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._metadata: Metadata = {}
        self._lock = threading.Lock()
        self._rows: dict[Labels, int] = {}
        self._values: FloatArray = np.full((256, KEPT), STALE)  # a ring of columns; what is not there is stale
        self._times: IntArray = np.zeros(KEPT, np.int64)
        self._newest = -1  # column
        self._size = 0  # columns in use
        self._full = False

    def record(self, now: float) -> None:
        """Remember what /metrics says at `now` (unix seconds), in place of what it said a day before."""
        families = self._families(now)
        found = {named(one.name, one.labels): one.value for family in families for one in family.samples}
        time = int(now * 1000)
        with self._lock:
            while self._size and self._times[self._newest] >= time:  # a clock that was ahead
                self._newest, self._size = (self._newest - 1) % KEPT, self._size - 1
            self._newest, self._size = (self._newest + 1) % KEPT, min(self._size + 1, KEPT)
            self._values[:, self._newest] = STALE
            self._times[self._newest] = time
            self._make_room([labels for labels in found if labels not in self._rows])
            kept = [labels for labels in found if labels in self._rows]
            self._values[[self._rows[labels] for labels in kept], self._newest] = [found[labels] for labels in kept]
        self._metadata = {
            family.name + suffix: (kind, family.documentation)
            for family in families
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

    def _families(self, now: float) -> list[Metric]:
        snapshot = self._snapshot()
        models = replace(snapshot.production, models=snapshot.production.models[:MOST_MODELS], incidents={})
        every = [*self._registry.collect(), *SnapshotCollector(snapshot, now).collect(), *per_model(models)]
        return [one for one in every if one.name.startswith("sentinel_") and one.name not in production.NAMES]

    def _make_room(self, fresh: Sequence[Labels]) -> None:
        """Give rows to new series, as far as there are any."""
        if not fresh:
            return
        if len(self._rows) + len(fresh) > MOST_SERIES:
            living: BoolArray = np.any(~is_stale(self._values), axis=1)
            self._rows = {labels: row for labels, row in self._rows.items() if living[row]}
        free = sorted(set(range(MOST_SERIES)).difference(self._rows.values()))
        if len(fresh) > len(free) and not self._full:
            self._full = True
            logger.warning("there are more than %d series about Sentinel itself: some are kept no past of", MOST_SERIES)
        self._rows |= zip(fresh, free, strict=False)
        short = max(self._rows.values()) + 1 - len(self._values)
        if short > 0:
            more = min(max(short, len(self._values)), MOST_SERIES - len(self._values))
            self._values = np.concatenate([self._values, np.full((more, KEPT), STALE)])

    def _recorded(
        self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget
    ) -> tuple[tuple[Labels, ...], IntArray, FloatArray]:
        """Series, times [T] of start < t <= end, and values [S, T]."""
        matching = language.compile(matchers)
        with self._lock:
            columns = (self._newest + 1 - self._size + np.arange(self._size)) % KEPT
            times = self._times[columns]
            inside = (times > start) & (times <= end)
            labels = list(self._rows)
            chosen = [labels[at] for at in np.flatnonzero(matching.matches(labels))]
            budget.spend(len(chosen) * int(inside.sum()))
            rows = np.array([self._rows[one] for one in chosen], np.int64)
            return tuple(chosen), times[inside], self._values[np.ix_(rows, columns[inside])]
