"""What forecasts are about, as Sentinel read it: on the watch's grid, without gaps, counters as rates, queries too.

So a panel can have both in one panel whatever the watch is, and without asking Prometheus.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sentinel_core.config import SentinelConfig
from sentinel_core.durations import parse_duration
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import LOOKBACK, Labels, Samples
from sentinel_core.query.forecast_watches import Asked, Watches, asked
from sentinel_core.query.sampled import Metadata, SampledSource, joined, named
from sentinel_core.series import Matcher
from sentinel_core.storage import windows_store
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, grid

ACTUAL = "_sentinel_actual"


class ActualSource(SampledSource):
    """Series of ACTUAL with their own labels; threads may share it.

    Where several watches have read a series, the first one is told of.
    """

    def __init__(
        self, store: Store, config: Callable[[], SentinelConfig], watches: Watches, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._config = config
        self._watches = watches
        self._now = now

    @property
    def lookback(self) -> int:
        """That of the coarsest watch."""
        return max([LOOKBACK, *(watch.step_seconds * 1000 for watch in self._watches.load())])

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return every sample that is still kept, at its time."""
        return joined([self._read(one, start, end, budget) for one in asked(self._watches.load(), matchers, [ACTUAL])])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that lived in [start, end]."""
        found = []
        for one in asked(self._watches.load(), matchers, [ACTUAL]):
            living = self._watches.living(one.watch.id, start // 1000, end // 1000)
            budget.spend(len(one.rows))
            alive = one.rows[np.isin(one.watch.members.fingerprints[one.rows], living)]
            found += _labels(one, alive)
        return found

    def metadata(self) -> Metadata:
        """Gauges all."""
        names = sorted({name for watch in self._watches.load() for name in watch.members.names})
        return {name + ACTUAL: ("gauge", f"{name} as Sentinel read it.") for name in names}

    def _read(self, asked: Asked, start: int, end: int, budget: Budget) -> Samples:
        watch, rows = asked.watch, asked.rows
        oldest = self._now() - parse_duration(self._config().window_retention)
        first, last = max(start // 1000, int(oldest)), min(end // 1000, int(self._now()))
        budget.spend(2 * len(rows) * len(grid(first, last, watch.step_seconds)))
        window = windows_store.read_window(
            self._store, watch.step_seconds, watch.members.fingerprints[rows], first, last
        )
        known = np.isfinite(window.values)
        series, place = np.nonzero(known)
        return Samples(
            tuple(_labels(asked, rows)),
            np.searchsorted(series, np.arange(len(rows) + 1)),
            window.timestamps[place] * 1000,
            window.values[known],
            np.full(len(rows), max(LOOKBACK, watch.step_seconds * 1000), np.int64),
        )


def _labels(asked: Asked, rows: IntArray) -> list[Labels]:
    """Of some rows of its watch's members."""
    name, series = asked.name + ACTUAL, asked.watch.members.series
    return [named(name, dict(series[row].labels)) for row in rows.tolist()]
