"""Find out how good the forecasts of the last steps turned out to be, and keep it by watch and lead."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import verification
from sentinel_core.adaptation import adapted
from sentinel_core.config import WatchConfig
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.pipeline.adapting import Widths
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reading import LATE_SECONDS
from sentinel_core.pipeline.serving import load_serving
from sentinel_core.storage import forecast_store, quality_store, watch_store, windows_store
from sentinel_core.storage.forecast_store import LIVE, row_keys
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.quality_store import Quality
from sentinel_core.storage.segments import Segment
from sentinel_core.verification import ADDED, COUNTS, DAY_SECONDS
from sentinel_core.windows import FloatArray, IntArray, Window, grid, inside, positions, unique

BLOCK_CELLS = 2_000_000  # of series, leads and steps judged at once: 0.2 GB while it lasts
REACH_STEPS = 12  # a seasonal naive forecast that needs the last value looks for it so far back


@dataclass(frozen=True)
class _Round:
    """What has to be found out about some watches of one granularity, all until the same step.

    done:   by watch id, the newest step that was judged before; end: the last one of this round
    follow: whether the widths of bounds follow it: not one that is only caught up on, as they could not show in it
    """

    step: int
    watches: Mapping[int, WatchConfig]
    done: Mapping[int, int]
    end: int
    follow: bool


def newest(context: Context) -> dict[str, tuple[Quality, ...]]:
    """What the newest round has found out about each configured watch, by lead."""
    ids = context.watch_ids()
    with context.store.database.read() as conn:
        found = quality_store.newest(conn)
    return {watch.slug: found[ids[watch.slug]] for watch in context.config.watches if ids[watch.slug] in found}


def verify_forecasts(context: Context) -> None:
    """Judge the steps of every round that is over.

    A round waits for the samples that may still come late. What is older than a day is not judged any more.
    """
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        first = quality_store.first_rounds(conn)
    first_forecast = cache(partial(_first_forecast, context))
    due: dict[tuple[int, int], dict[int, tuple[WatchConfig, int]]] = {}
    for watch in context.config.watches:
        state, step = states.get(watch.slug), watch.step_seconds
        if state is None or state.forecast_origin is None or state.scraped_until is None:
            continue
        end = state.scraped_until - LATE_SECONDS // step * step
        known = state.verified_until if state.verified_until is not None else first_forecast(step, end)
        begun = max(known, end - verification.reach_seconds(step))
        young = end - first.get(state.watch_id, end) < verification.bucket_seconds(step)
        each = verification.round_seconds(step, young=young)
        if end // each > begun // each:
            due.setdefault((step, end), {})[state.watch_id] = (watch, begun)
    for (step, end), some in due.items():
        bucket = verification.bucket_seconds(step)
        begin = min(begun for _, begun in some.values())
        ends = [*range((begin // bucket + 1) * bucket, end, bucket), end]
        for earlier, until in pairwise([begin, *ends]):
            watches = {one: watch for one, (watch, begun) in some.items() if begun < until}
            done = {one: max(earlier, some[one][1]) for one in watches}
            _verify(context, _Round(step, watches, done, until, follow=until == end))


def _first_forecast(context: Context, step: int, end: int) -> int:
    """The step before the oldest target of the last day's forecasts of a granularity."""
    found = context.store.segments.segments("forecasts", str(step), end - verification.reach_seconds(step), end)
    return min((one.t0 for one in found), default=end) - step


def _verify(context: Context, this: _Round) -> None:
    store, now = context.store, context.clock()
    fresh = _judge(context, this)
    day = forecast_store.verified_since(
        store, this.step, this.end - verification.reach_seconds(this.step), this.end, fresh
    )
    rows = _rows(verification.qualities(day), this)
    pending = forecast_store.write_verified(store, this.step, fresh, now=now)
    with store.database.write() as conn:
        states = {state.watch_id: state for state in watch_store.states(conn).values()}
        kept = {one: done for one, done in this.done.items() if one in states}  # one may be removed at any time
        if any((states[one].verified_until or 0) > done for one, done in kept.items()):
            return  # another process was faster, and has judged the same steps
        store.segments.commit(conn, [pending])
        quality_store.add(conn, [vars(row) for row in rows])
        watch_store.update_states(conn, [{"watch_id": one, "verified_until": this.end} for one in this.watches])


def _rows(columns: Mapping[str, NDArray[Any]], this: _Round) -> list[Quality]:
    found = []
    names = ("samples", "series", "mae", "mase", "bias", "coverage", "above", "better_share")
    values = zip(*(columns[name].tolist() for name in ("watch", "lead", *names)), strict=True)
    for watch_id, lead, *rest in values:
        if watch_id not in this.watches:
            continue  # its own round is not over
        told = dict(zip(names, rest, strict=True))
        if not np.isfinite(told["mase"]):
            told["mase"] = None
        level = this.watches[watch_id].level
        found.append(Quality(watch_id, this.end, lead * this.step, level=level, **told))
    return found


@dataclass(frozen=True)
class _Judged:
    """The living series of a round, sorted by watch, then fingerprint; all arrays [n], but leads [L].

    versions: what last fitted each series, 0 where nothing has; watch: index into `ids`
    asked:    bool [n, L], the leads that are kept of its watch
    """

    ids: IntArray
    watch: IntArray
    fingerprints: IntArray
    versions: NDArray[np.int32]
    leads: IntArray
    asked: NDArray[np.bool_]

    @property
    def owner(self) -> NDArray[np.int32]:
        return self.ids[self.watch].astype(np.int32)


def _living(context: Context, this: _Round) -> _Judged:
    with context.store.database.read() as conn:
        owner, fingerprints = watch_store.live_series(conn)
    mine = np.isin(owner, list(this.watches))
    ids, watch = np.unique(owner[mine], return_inverse=True)
    fingerprints = fingerprints[mine]
    kept = [verification.judged_leads(this.watches[one].horizon_steps) for one in ids.tolist()]
    leads = unique(np.concatenate([np.ones(1, np.int64), *kept]))
    asked = np.array([np.isin(leads, one) for one in kept], bool).reshape(len(ids), len(leads))
    versions = np.zeros(len(fingerprints), np.int32)
    configured = {one: this.watches[one] for one in ids.tolist()}
    models, _ = load_serving(context, list(configured.values()), {w.slug: one for one, w in configured.items()})
    for index, one in enumerate(configured.values()):
        if one.slug in models:
            fitted = models[one.slug][0]
            rows = np.flatnonzero(watch == index)
            order = np.argsort(fitted.model.fingerprints)
            place, known = positions(fitted.model.fingerprints[order], fingerprints[rows])
            versions[rows[known]] = fitted.versions[order[place[known]]]
    return _Judged(ids.astype(np.int64), watch, fingerprints, versions, leads, asked[watch])


def _judge(context: Context, this: _Round) -> Columns:
    """Rows of the dataset `verified`, of every living series and judged lead that has any."""
    some = _living(context, this)
    begin = min(this.done.values()) + this.step
    total = np.zeros((len(ADDED) + len(COUNTS), *some.asked.shape))
    steps = max(1, BLOCK_CELLS // max(1, some.asked.size))
    for first in range(begin, this.end + 1, steps * this.step):
        last = min(first + (steps - 1) * this.step, this.end)
        if len(some.fingerprints):
            total += _block(context, this, some, first, last)
    added, current = total[: len(ADDED)], np.where(some.asked, total[len(ADDED) :], 0.0)
    widths = Widths.read(context.store, this.step, this.done.values()).of(
        some.owner, some.fingerprints, some.versions, some.leads
    )
    if this.follow:
        bucket = verification.bucket_seconds(this.step)
        levels = np.array([this.watches[one].level for one in some.ids.tolist()])[some.watch]
        share = (this.end - begin + this.step) / bucket
        widths = adapted(widths, current, levels, some.watch, some.leads, bucket // this.step, min(1.0, share))
    row, column = np.nonzero(((added[0] > 0) | (widths != 0).any(axis=2)) & some.asked)
    found: Columns = {
        "watch": some.owner[row],
        "fp": some.fingerprints[row],
        "ts": np.full(len(row), this.end, np.int64),
        "lead": some.leads[column].astype(np.int16),
        "version": some.versions[row],
        "lower": widths[row, column, 0],
        "upper": widths[row, column, 1],
    }
    for name, sums in zip(ADDED, added, strict=True):
        found[name] = sums[row, column].astype(np.int32 if name in COUNTS else np.float64)
    return found


def _block(context: Context, this: _Round, some: _Judged, first: int, last: int) -> FloatArray:
    """Sums over the steps in [first, last], see verification.sums; then COUNTS of the serving versions' forecasts."""
    step, leads = this.step, some.leads
    distinct = unique(some.fingerprints)
    place = np.searchsorted(distinct, some.fingerprints)

    def window(start: int, end: int) -> Window:
        return windows_store.read_window(context.store, step, distinct, start, end)

    count = (last - first) // step + 1
    cycles = [cycle_steps(step, lead) if DAY_SECONDS % step == 0 else 0 for lead in leads.tolist()]
    seasons = {0: np.full((len(place), count), np.nan)}
    seasons |= {one: window(first - one * step, last - one * step).values[place] for one in set(cycles) - {0}}
    recent = window(first - (int(leads[-1]) + REACH_STEPS) * step, last)
    recent = Window(some.fingerprints, recent.timestamps, recent.values[place], step)
    naive = verification.seasonal_naive(recent, [seasons[one] for one in cycles], leads.tolist())
    starts = np.array([this.done[one] for one in some.ids.tolist()])[some.watch]
    times = grid(first, last, step)
    actual = np.where(times > starts[:, None], recent.values[:, -count:], np.nan)  # what was not judged before
    for index, one in enumerate(some.ids.tolist()):
        if ignored := this.watches[one].ignored:
            actual[np.ix_(some.watch == index, inside(times, ignored))] = np.nan
    mean, lower, upper, version = _forecasts(context, this, some, first, last)
    of_version = np.where(version == some.versions[:, None, None], mean, np.nan)
    counts = verification.sums(actual[:, None], of_version, lower, upper, naive)[: len(COUNTS)]
    return np.concatenate([verification.sums(actual[:, None], mean, lower, upper, naive), counts])


def _forecasts(context: Context, this: _Round, some: _Judged, first: int, last: int) -> list[FloatArray]:
    """mean, lower, upper and version [n, leads, T] of the live forecasts for [first, last]; NaN where there is none."""
    quantities = ("mean", "lower", "upper", "version")
    leads = ", ".join(map(str, some.leads.tolist()))
    found = [np.full((*some.asked.shape, (last - first) // this.step + 1), np.nan) for _ in quantities]
    where = f"mode = {LIVE} and ts between {first} and {last} and lead in ({leads})"
    where += f" and watch in ({', '.join(map(str, this.watches))})"

    def read(segments: list[Segment]) -> Columns:
        return context.store.segments.read(segments, ("watch", "fp", "ts", "lead", *quantities), where)

    rows = context.store.segments.live("forecasts", str(this.step), first, last, read)
    keys = row_keys(some.owner, some.fingerprints)
    order = np.argsort(keys)
    row, mine = positions(keys[order], row_keys(rows["watch"], rows["fp"]))
    at = order[row[mine]], np.searchsorted(some.leads, rows["lead"][mine]), (rows["ts"][mine] - first) // this.step
    for quantity, matrix in zip(quantities, found, strict=True):
        matrix[at] = rows[quantity][mine]  # the last row wins where a forecast was issued again
    return found
