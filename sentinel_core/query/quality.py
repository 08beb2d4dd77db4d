"""How good forecasts have been, over time: drift MAE of each series, MASE and coverage of each series and lead.

And how unusual what came was. A forecast is judged at the time that it was about. All but anomaly scores are over the
last `drift_window` scored steps before that, of which the oldest is at most twice as many steps ago, as the drift of a
watch is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.emitter.exposition import ANOMALY
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.promql import matchers as language
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import look_back
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import LOOKBACK, Labels, Samples, Vector
from sentinel_core.query.forecast_watches import HORIZON, Members, Watches, asked
from sentinel_core.query.sampled import Metadata, SampledSource, joined, named
from sentinel_core.series import Matcher
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.storage.forecast_store import LIVE
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import Segment
from sentinel_core.storage.store import Store
from sentinel_core.verification import DAY_SECONDS, seasonal_naive
from sentinel_core.windows import FloatArray, IntArray, Window, grid, positions

DRIFT, MASE, COVERAGE = "_sentinel_drift_mae", "_sentinel_mase", "_sentinel_coverage"
_OF_ALL_LEADS = (DRIFT, ANOMALY)
HELP: Mapping[str, str] = {
    DRIFT: "Rolling error of the forecasts of {name}, in the drift_unit of its watch; of auto in training errors.",
    MASE: "MAE of the forecasts of {name} by that of a seasonal naive forecast, by lead.",
    COVERAGE: "Share of {name} within the bounds of its forecasts, by lead.",
    ANOMALY: "How unusual {name} was: 0 as forecast, 1 at the edge of its bounds.",
}
_BLOCK_CELLS = 4_000_000  # judged at once, or 0.2 GB while it lasts
_OWN_LABELS = (HORIZON, "sentinel_lead")


@dataclass(frozen=True)
class _Asked:
    """Series of one name and watch whose quality is asked for.

    start, until: unix seconds, of the samples
    rows:         of members, ascending
    leads:        steps; none of DRIFT and ANOMALY, which are of all leads
    """

    watch_id: int
    config: WatchConfig
    start: int
    until: int
    members: Members
    name: str
    suffix: str
    rows: IntArray
    leads: tuple[int, ...]

    @property
    def fingerprints(self) -> IntArray:
        return self.members.fingerprints[self.rows]

    @property
    def is_everybody(self) -> bool:
        """Whether these are all series of the watch, so that they need not be named."""
        return len(self.rows) == len(self.members.series)

    @property
    def first(self) -> int:
        """Time of the first step that a sample may depend on."""
        return self.start - 2 * self.config.drift_window * self.config.step_seconds

    @property
    def back(self) -> int:
        """Steps of actuals before the first one, for the naive forecast that MASE compares with."""
        return cycle_steps(self.config.step_seconds, max(self.leads)) if self.suffix == MASE else 0

    @property
    def steps(self) -> int:
        """Of the grid, until the last sample."""
        return (self.until - self.first) // self.config.step_seconds + 1

    @property
    def lookback(self) -> int:
        """A step and what its scoring may take, ms."""
        return self.config.step_seconds * 1000 + LOOKBACK

    def labels(self, place: IntArray) -> list[Labels]:
        """Of some of rows x leads."""
        leads = [{"sentinel_lead": _duration(self.config, lead) if lead else ""} for lead in self.leads]
        own = {HORIZON: self.config.horizon}
        return [
            named(self.name + self.suffix, {**dict(self.members.series[row].labels), **own, **leads[lead]})
            for row, lead in zip(self.rows[place // len(leads)].tolist(), (place % len(leads)).tolist(), strict=True)
        ]


class QualitySource(SampledSource):
    """Series of the names in HELP of the configured watches; threads may share it.

    Labels: the series' own and sentinel_horizon, of MASE and COVERAGE sentinel_lead. Where two watches forecast the
    same series for the same horizon, the first one is told of, as on /metrics.
    """

    def __init__(self, store: Store, config: Callable[[], SentinelConfig], watches: Watches) -> None:
        self._store = store
        self._config = config
        self._watches = watches

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return each series' newest sample at each of these times, by look-back."""
        some = self._asked(matchers, int(times[0]), int(times[-1]), looking_back=True)
        return look_back(self._read(some, budget), times, budget, timestamps=timestamps)

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return a sample for each scored step, at its time; none where the naive forecast made no error."""
        return self._read(self._asked(matchers, start, end), budget)

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that lived in [start, end], of watches that had been scored by then."""
        found = []
        for one in self._asked(matchers, start, end, looking_back=True):
            living = self._watches.living(one.watch_id, start // 1000, end // 1000)
            place = np.flatnonzero(np.repeat(np.isin(one.fingerprints, living), len(one.leads)))
            budget.spend(len(place))
            found += one.labels(place)
        return found

    def metadata(self) -> Metadata:
        """Gauges all."""
        names = sorted({name for watch in self._watches.load() for name in watch.members.names})
        return {name + suffix: ("gauge", text.format(name=name)) for name in names for suffix, text in HELP.items()}

    def _asked(self, matchers: Sequence[Matcher], start: int, end: int, *, looking_back: bool = False) -> list[_Asked]:
        matching = language.compile(matchers)
        config = self._config()
        with self._store.database.read() as connection:
            states = watch_store.states(connection)
        oldest = parse_duration(config.forecast_retention)
        spans: dict[int, tuple[WatchConfig, int, int]] = {}
        for watch in config.watches:
            scored = states[watch.slug].scored_until if watch.slug in states else None
            if scored is None:
                continue
            back = (watch.step_seconds * 1000 + LOOKBACK) if looking_back else 0
            until = min(end // 1000, scored)
            begin = max((start - back) // 1000, until - oldest)
            if begin <= until:
                spans[states[watch.slug].watch_id] = watch, begin, until
        watches = [watch for watch in self._watches.load() if watch.id in spans]
        found: list[_Asked] = []
        for one in asked(watches, matchers, HELP, _OWN_LABELS):
            mine, members = spans[one.watch.id], one.watch.members
            for suffix in one.suffixes:
                leads = _leads(mine[0], matching, suffix)
                if leads:
                    found.append(_Asked(one.watch.id, *mine, members, one.name, suffix, one.rows, leads))
        return found

    def _read(self, asked: Sequence[_Asked], budget: Budget) -> Samples:
        budget.spend(sum(2 * one.steps * len(one.rows) * len(one.leads) for one in asked))
        parts = []
        for one in chain.from_iterable(map(_blocks, asked)):
            budget.check()
            parts.append(self._of_all_leads(one) if one.suffix in _OF_ALL_LEADS else self._by_lead(one))
        return joined(parts)

    def _of_all_leads(self, asked: _Asked) -> Samples:
        """ANOMALY as scored; DRIFT as judged: of each version by itself, whatever was scored of another in between."""
        step, fingerprints = asked.config.step_seconds, asked.fingerprints
        some = None if asked.is_everybody else fingerprints
        scores = forecast_store.read_scores(self._store, step, asked.first, asked.until, fingerprints=some)
        unit = "mae" if asked.config.drift_unit == "mae" else "scaled"
        column = scores["anomaly" if asked.suffix == ANOMALY else unit]
        row, mine = positions(fingerprints, scores["fp"])
        mine &= (scores["watch"] == asked.watch_id) & np.isfinite(column)
        row, ts, version, errors = row[mine], scores["ts"][mine], scores["version"][mine], column[mine]
        if asked.suffix == ANOMALY:
            order = np.lexsort((ts, row))
            return _samples(asked, row[order], ts[order], errors[order])
        order = np.lexsort((ts, version, row))
        row, ts, version = row[order], ts[order], version[order]
        group = np.cumsum(np.append(False, (row[1:] != row[:-1]) | (version[1:] != version[:-1])))[: len(row)]
        (mean,) = rolling_means(group, ts // step, asked.config.drift_window, errors[order])
        again = np.lexsort((ts, row))
        return _samples(asked, row[again], ts[again], mean[again])

    def _by_lead(self, asked: _Asked) -> Samples:
        config, step = asked.config, asked.config.step_seconds
        times = grid(asked.first, asked.until, step)
        shape = len(asked.rows), len(asked.leads), len(times)
        back = asked.back
        window = windows_store.read_window(
            self._store, step, asked.fingerprints, asked.first - back * step, asked.until
        )
        actual = window.values[:, None, back:]
        if asked.suffix == MASE:
            (mean,) = self._forecasts(asked, times, shape, ("mean",))
            judged = [np.abs(actual - mean), np.abs(actual - _naive(window, config, asked.leads, back))]
        else:
            lower, upper = self._forecasts(asked, times, shape, ("lower", "upper"))
            known = np.isfinite(actual) & np.isfinite(lower) & np.isfinite(upper)
            judged = [np.where(known, (actual >= lower) & (actual <= upper), np.nan)]
        scored = np.logical_and.reduce([np.isfinite(one) for one in judged]).reshape(-1, shape[2])
        row, column = np.nonzero(scored)
        means = rolling_means(row, column, config.drift_window, *(one.reshape(scored.shape)[scored] for one in judged))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = means[0] / means[1] if asked.suffix == MASE else means[0]
        known = np.isfinite(values)
        return _samples(asked, row[known], times[column[known]], values[known])

    def _forecasts(
        self, asked: _Asked, times: IntArray, shape: tuple[int, int, int], quantities: Sequence[str]
    ) -> list[FloatArray]:
        """Live forecasts [series, leads, times] of each quantity; NaN where there is none."""
        fingerprints, step = asked.fingerprints, asked.config.step_seconds
        found = [np.full(shape, np.nan) for _ in quantities]
        if not len(times):
            return found
        where = f"watch = {asked.watch_id} and mode = {LIVE} and ts between {times[0]} and {times[-1]}"
        where += f" and lead in ({', '.join(map(str, asked.leads))})"
        if not asked.is_everybody:
            where += f" and fp in ({', '.join(map(str, fingerprints.tolist()))})"
        segments = self._store.segments

        def read(some: list[Segment]) -> Columns:
            return segments.read(some, ("fp", "ts", "lead", *quantities), where)

        rows = segments.live("forecasts", str(step), int(times[0]), int(times[-1]), read)
        row, mine = positions(fingerprints, rows["fp"])
        at = row[mine], np.searchsorted(asked.leads, rows["lead"][mine]), (rows["ts"][mine] - times[0]) // step
        for quantity, matrix in zip(quantities, found, strict=True):
            matrix[at] = rows[quantity][mine]  # the last row wins where a forecast was issued again
        return found


def rolling_means(group: IntArray, place: IntArray, window: int, *values: FloatArray) -> list[FloatArray]:
    """Mean [N] of the last `window` values of the same group, up to each and no further back than 2 * window places.

    group, place: [N], sorted by group, then place; values: finite

    >>> rolling_means(np.array([0, 0, 0, 1]), np.array([1, 2, 9, 9]), 2, np.array([1.0, 3.0, 5.0, 7.0]))
    [array([1., 2., 5., 7.])]
    """
    index = np.arange(len(group))
    span = int(place.max(initial=0)) + 2 * window + 1
    key = group * span + place
    length = np.minimum(index - np.searchsorted(key, key - 2 * window + 1), window - 1) + 1
    means = []
    for sums in values:  # of 1, 2, 4, … values: differences of running totals would lose what is small beside the great
        total, end, size = np.zeros(len(sums)), index.copy(), 1
        while size <= window:
            part = (length & size).astype(bool)
            total[part] += sums[end[part]]
            end[part] -= size
            sums = np.concatenate([sums[:size], sums[size:] + sums[:-size]])
            size *= 2
        means.append(total / length)
    return means


def _duration(config: WatchConfig, lead: int) -> str:
    return format_duration(lead * config.step_seconds)


def _blocks(asked: _Asked) -> Iterator[_Asked]:
    """The same in parts that are not too large."""
    rows = max(1, _BLOCK_CELLS // (asked.steps + asked.back))
    leads = max(1, _BLOCK_CELLS // (asked.steps * min(rows, len(asked.rows))))
    for row in range(0, len(asked.rows), rows):
        for lead in range(0, len(asked.leads), leads):
            yield replace(asked, rows=asked.rows[row : row + rows], leads=asked.leads[lead : lead + leads])


def _leads(config: WatchConfig, matching: Matching, suffix: str) -> tuple[int, ...]:
    """The leads that are asked for; of DRIFT and ANOMALY, which have no such label, one that stands for none."""
    if suffix in _OF_ALL_LEADS:
        return (0,) if matching.of_label("sentinel_lead", "") else ()
    leads = range(1, config.horizon_steps + 1)
    return tuple(lead for lead in leads if matching.of_label("sentinel_lead", _duration(config, lead)))


def _naive(window: Window, config: WatchConfig, leads: Sequence[int], back: int) -> FloatArray:
    """What a seasonal naive forecast would have said for all but the first `back` steps [n, leads, T - back]."""
    end, step = len(window.timestamps), config.step_seconds
    unknown = np.full((len(window.values), end - back), np.nan)
    starts = [back - cycle_steps(step, lead) for lead in leads]
    before = [window.values[:, start : start + end - back] if DAY_SECONDS % step == 0 else unknown for start in starts]
    return seasonal_naive(window, before, leads)


def _samples(asked: _Asked, row: IntArray, ts: IntArray, values: FloatArray) -> Samples:
    """Values by series (and lead) and time, in this order; those before `asked.start` only led to the first ones."""
    wanted = ts >= asked.start
    row, ts, values = row[wanted], ts[wanted], values[wanted]
    found, lengths = np.unique(row, return_counts=True)
    return Samples(
        tuple(asked.labels(found)),
        np.concatenate([[0], np.cumsum(lengths)]),
        ts * 1000,
        values,
        np.full(len(found), asked.lookback),
    )
