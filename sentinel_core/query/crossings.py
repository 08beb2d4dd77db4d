"""How likely and when series were said to get across the thresholds of their watches, over time.

Worked out from the stored forecasts, each at its origin, for the thresholds that are configured now. A forecast that
compaction has thinned has no leads between those that it kept, and says nothing: so this goes two days back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.emitter.exposition import CROSSING, PROBABILITY
from sentinel_core.promql import matchers as language
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import LOOKBACK, STALE, Labels, Samples
from sentinel_core.query.forecast_watches import HORIZON, Members, Watches, asked
from sentinel_core.query.sampled import Metadata, SampledSource, joined, named
from sentinel_core.series import Matcher
from sentinel_core.storage import watch_store
from sentinel_core.storage.compaction import ALL_LEADS_SECONDS
from sentinel_core.storage.forecast_store import DAY_SECONDS, LIVE
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import Segment
from sentinel_core.storage.store import Store
from sentinel_core.thresholds import Threshold, crossings
from sentinel_core.windows import FloatArray, IntArray, positions

_BLOCK_CELLS = 2_000_000  # forecasts looked at at once: 50 MB each of mean, lower, upper
_KEPT_SECONDS = ALL_LEADS_SECONDS + DAY_SECONDS  # a day is thinned when it is over for so long
_OWN_LABELS = (HORIZON, "sentinel_threshold")


@dataclass(frozen=True)
class _Asked:
    """Series of one name and watch, and some of its thresholds.

    first, last: origins, unix seconds
    thresholds:  values by side
    suffixes:    of CROSSING
    rows:        of members, ascending
    """

    watch_id: int
    config: WatchConfig
    thresholds: Mapping[str, float]
    first: int
    last: int
    members: Members
    name: str
    suffixes: tuple[str, ...]
    rows: IntArray

    @property
    def cells(self) -> int:
        """Forecasts that it takes."""
        return len(self.rows) * self.config.horizon_steps * ((self.last - self.first) // self.config.step_seconds + 1)

    def labels(self, suffix: str, threshold: Threshold, rows: IntArray) -> list[Labels]:
        """Of some rows of members."""
        own = {HORIZON: self.config.horizon, "sentinel_threshold": str(threshold)}
        name, series = self.name + suffix, self.members.series
        return [named(name, {**dict(series[row].labels), **own}) for row in rows.tolist()]


class CrossingSource(SampledSource):
    """Series of CROSSING of the configured watches with thresholds; threads may share it.

    Labels: the series' own, sentinel_horizon and sentinel_threshold. Where two watches forecast the same series for the
    same horizon, the first one is told of, as on /metrics.
    """

    def __init__(self, store: Store, config: Callable[[], SentinelConfig], watches: Watches) -> None:
        self._store = store
        self._config = config
        self._watches = watches

    @property
    def lookback(self) -> int:
        """That of the coarsest watch."""
        return max([LOOKBACK, *(_lookback(watch) for watch in self._config().watches if watch.thresholds)])

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return a sample for each origin; a stale marker where a time to a threshold begins to be none."""
        some = self._asked(matchers, start, end)
        budget.spend(3 * sum(one.cells for one in some))
        return joined([part for one in some for part in self._read(one, budget)])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that lived in [start, end], of watches that had been forecast by then."""
        found = []
        for one in self._asked(matchers, start - self.lookback, end):
            living = self._watches.living(one.watch_id, start // 1000, end // 1000)
            alive = one.rows[np.isin(one.members.fingerprints[one.rows], living)]
            budget.spend(len(alive) * len(one.suffixes) * len(one.thresholds))
            for suffix, limit in product(one.suffixes, one.thresholds.items()):
                found += one.labels(suffix, Threshold(*limit), alive)
        return found

    def metadata(self) -> Metadata:
        """Gauges all."""
        limited = {watch.slug for watch in self._config().watches if watch.thresholds}
        with self._store.database.read() as connection:
            ids = {number for slug, number in watch_store.watch_ids(connection).items() if slug in limited}
        watches = [watch for watch in self._watches.load() if watch.id in ids]
        names = sorted({name for watch in watches for name in watch.members.names})
        return {name + suffix: ("gauge", text.format(name=name)) for name in names for suffix, text in CROSSING.items()}

    def _asked(self, matchers: Sequence[Matcher], start: int, end: int) -> list[_Asked]:
        matching = language.compile(matchers)
        with self._store.database.read() as connection:
            states = watch_store.states(connection)
        forecast: dict[int, tuple[WatchConfig, int]] = {}
        for config in self._config().watches:
            newest = states[config.slug].forecast_origin if config.slug in states else None
            if newest is not None:
                forecast[states[config.slug].watch_id] = config, newest
        watches = [watch for watch in self._watches.load() if watch.id in forecast]
        found: list[_Asked] = []
        for one in asked(watches, matchers, CROSSING, _OWN_LABELS):
            config, newest = forecast[one.watch.id]
            step = config.step_seconds
            first = -(-max(start // 1000, newest - _KEPT_SECONDS) // step) * step
            last = min(end // 1000, newest) // step * step
            thresholds = _thresholds(config, matching)
            if thresholds and first <= last:
                head = one.watch.id, config, thresholds, first, last
                found.append(_Asked(*head, one.watch.members, one.name, one.suffixes, one.rows))
        return found

    def _read(self, asked: _Asked, budget: Budget) -> Iterator[Samples]:
        n, step = len(asked.rows), asked.config.step_seconds
        times = np.arange(asked.first, asked.last + 1, step) * 1000
        parts = []
        for part in _parts(asked):
            budget.check()
            mean, lower, upper = (matrix.reshape(-1, matrix.shape[2]) for matrix in self._forecasts(part))
            parts.append(crossings(mean, lower, upper, asked.config.level, asked.thresholds, asked.config.bounds))
        for found in zip(*parts, strict=True):  # of one threshold in every part
            likely = np.concatenate([one.probability.reshape(n, -1) for one in found], axis=1)
            soon = np.concatenate([one.seconds(step).reshape(n, -1) for one in found], axis=1)
            known = np.isfinite(likely)
            series, place = np.nonzero(known)
            for suffix in asked.suffixes:
                values = (likely if suffix == PROBABILITY else soon)[known]
                values[np.isnan(values)] = STALE
                yield Samples(
                    tuple(asked.labels(suffix, found[0].threshold, asked.rows)),
                    np.searchsorted(series, np.arange(n + 1)),
                    times[place],
                    values,
                    np.full(n, _lookback(asked.config), np.int64),
                )

    def _forecasts(self, asked: _Asked) -> list[FloatArray]:
        """Live forecasts [series, origins, leads] of mean, lower, upper; NaN where there is none."""
        step, leads = asked.config.step_seconds, asked.config.horizon_steps
        fingerprints = asked.members.fingerprints[asked.rows]
        shape = len(fingerprints), (asked.last - asked.first) // step + 1, leads
        found = [np.full(shape, np.nan) for _ in range(3)]
        where = f"watch = {asked.watch_id} and mode = {LIVE} and origin between {asked.first} and {asked.last}"
        if len(fingerprints) < len(asked.members.series):
            where += f" and fp in ({', '.join(map(str, fingerprints.tolist()))})"
        columns = ("fp", "origin", "lead", "mean", "lower", "upper")

        def read(some: list[Segment]) -> Columns:
            return self._store.segments.read(some, columns, where)

        rows = self._store.segments.live("forecasts", str(step), asked.first + step, asked.last + leads * step, read)
        row, mine = positions(fingerprints, rows["fp"])
        at = row[mine], (rows["origin"][mine] - asked.first) // step, rows["lead"][mine].astype(np.int64) - 1
        for quantity, matrix in zip(columns[3:], found, strict=True):
            matrix[at] = rows[quantity][mine]  # the last row wins where a forecast was issued again
        return found


def _lookback(watch: WatchConfig) -> int:
    """A step and what its forecast may take, ms."""
    return watch.step_seconds * 1000 + LOOKBACK


def _thresholds(watch: WatchConfig, matching: Matching) -> Mapping[str, float]:
    every = watch.thresholds.items()
    return {one[0]: one[1] for one in every if matching.of_label("sentinel_threshold", str(Threshold(*one)))}


def _parts(asked: _Asked) -> Iterator[_Asked]:
    """The same in parts of time that are not too large."""
    step = asked.config.step_seconds
    width = max(1, _BLOCK_CELLS // (len(asked.rows) * asked.config.horizon_steps)) * step
    for first in range(asked.first, asked.last + 1, width):
        yield replace(asked, first=first, last=min(first + width - step, asked.last))
