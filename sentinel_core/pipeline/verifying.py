"""Find out how good the forecasts of the last steps turned out to be, and keep it by watch and lead."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import verification
from sentinel_core.config import WatchConfig
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reading import LATE_SECONDS
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

    done: by watch id, the newest step that was judged before; end: the last one of this round
    """

    step: int
    watches: Mapping[int, WatchConfig]
    done: Mapping[int, int]
    end: int


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
    due: dict[tuple[int, int], dict[int, tuple[WatchConfig, int]]] = {}
    for watch in context.config.watches:
        state, step = states.get(watch.slug), watch.step_seconds
        if state is None or state.forecast_origin is None or state.scraped_until is None:
            continue
        end = state.scraped_until - LATE_SECONDS // step * step
        done = max(state.verified_until or 0, end - DAY_SECONDS)
        young = end - first.get(state.watch_id, end) < verification.bucket_seconds(step)
        each = verification.round_seconds(step, young=young)
        if end // each > done // each:
            due.setdefault((step, end), {})[state.watch_id] = (watch, done)
    for (step, end), some in due.items():
        bucket = verification.bucket_seconds(step)
        begin = min(done for _, done in some.values())
        ends = [*range((begin // bucket + 1) * bucket, end, bucket), end]
        for earlier, until in pairwise([begin, *ends]):
            watches = {one: watch for one, (watch, done) in some.items() if done < until}
            _verify(context, _Round(step, watches, {one: max(earlier, some[one][1]) for one in watches}, until))


def _verify(context: Context, this: _Round) -> None:
    store, now = context.store, context.clock()
    fresh = _judge(context, this)
    day = forecast_store.verified_since(store, this.step, this.end - DAY_SECONDS, this.end, fresh)
    columns = verification.qualities(day)
    rows = _rows(columns, this)
    pending = forecast_store.write_verified(store, this.step, fresh, now=now)
    with store.database.write() as conn:
        states = {state.watch_id: state for state in watch_store.states(conn).values()}
        if any((states[one].verified_until or 0) > done for one, done in this.done.items()):
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


def _judge(context: Context, this: _Round) -> Columns:
    """Rows of the dataset `verified`, of every living series and judged lead that has any."""
    with context.store.database.read() as conn:
        owner, fingerprints = watch_store.live_series(conn)
    mine = np.isin(owner, list(this.watches))
    owner, fingerprints = owner[mine], fingerprints[mine]
    horizons = {one: watch.horizon_steps for one, watch in this.watches.items()}
    leads = unique(np.concatenate([verification.judged_leads(horizon) for horizon in set(horizons.values())]))
    begin = min(this.done.values()) + this.step
    total = np.zeros((len(ADDED), len(owner), len(leads)))
    steps = max(1, BLOCK_CELLS // max(1, len(owner) * len(leads)))
    for first in range(begin, this.end + 1, steps * this.step):
        last = min(first + (steps - 1) * this.step, this.end)
        if len(owner):
            total += _block(context, this, owner, fingerprints, leads, first, last)
    judged = {one: np.isin(leads, verification.judged_leads(horizon)) for one, horizon in horizons.items()}
    ids = unique(owner.astype(np.int64))
    asked = np.stack([judged[one] for one in ids.tolist()]) if len(ids) else np.zeros((0, len(leads)), bool)
    row, column = np.nonzero((total[0] > 0) & asked[np.searchsorted(ids, owner)])
    found: Columns = {
        "watch": owner[row],
        "fp": fingerprints[row],
        "ts": np.full(len(row), this.end, np.int64),
        "lead": leads[column].astype(np.int16),
    }
    for name, sums in zip(ADDED, total, strict=True):
        found[name] = sums[row, column].astype(np.int32 if name in COUNTS else np.float64)
    return found


def _block(
    context: Context,
    this: _Round,
    owner: NDArray[np.int32],
    fingerprints: IntArray,
    leads: IntArray,
    first: int,
    last: int,
) -> FloatArray:
    """Sums over the steps in [first, last], see verification.sums."""
    store, step = context.store, this.step
    distinct = unique(fingerprints)
    place = np.searchsorted(distinct, fingerprints)

    def window(start: int, end: int) -> Window:
        return windows_store.read_window(store, step, distinct, start, end)

    count = (last - first) // step + 1
    cycles = [cycle_steps(step, lead) if DAY_SECONDS % step == 0 else 0 for lead in leads.tolist()]
    seasons = {0: np.full((len(owner), count), np.nan)}
    seasons |= {one: window(first - one * step, last - one * step).values[place] for one in set(cycles) - {0}}
    recent = window(first - (int(leads[-1]) + REACH_STEPS) * step, last)
    recent = Window(fingerprints, recent.timestamps, recent.values[place], step)
    naive = verification.seasonal_naive(recent, [seasons[one] for one in cycles], leads.tolist())
    starts = np.array([this.done[one] for one in owner.tolist()])
    times = grid(first, last, step)
    wanted = times > starts[:, None]  # what was not judged before
    for one, watch in this.watches.items():
        if watch.ignored:
            wanted[owner == one] &= ~inside(times, watch.ignored)
    actual = np.where(wanted, recent.values[:, -count:], np.nan)
    mean, lower, upper = _forecasts(context, this, owner, fingerprints, leads, first, last)
    return verification.sums(actual[:, None], mean, lower, upper, naive)


def _forecasts(
    context: Context,
    this: _Round,
    owner: NDArray[np.int32],
    fingerprints: IntArray,
    leads: IntArray,
    first: int,
    last: int,
) -> list[FloatArray]:
    """mean, lower and upper [n, leads, T] of the live forecasts for [first, last]; NaN where there is none."""
    quantities = ("mean", "lower", "upper")
    shape = len(owner), len(leads), (last - first) // this.step + 1
    found = [np.full(shape, np.nan) for _ in quantities]
    watches = ", ".join(map(str, this.watches))
    where = f"mode = {LIVE} and ts between {first} and {last} and lead in ({', '.join(map(str, leads.tolist()))})"

    def read(some: list[Segment]) -> Columns:
        columns = ("watch", "fp", "ts", "lead", *quantities)
        return context.store.segments.read(some, columns, f"{where} and watch in ({watches})")

    rows = context.store.segments.live("forecasts", str(this.step), first, last, read)
    keys = row_keys(owner, fingerprints)
    order = np.argsort(keys)
    row, mine = positions(keys[order], row_keys(rows["watch"], rows["fp"]))
    at = order[row[mine]], np.searchsorted(leads, rows["lead"][mine]), (rows["ts"][mine] - first) // this.step
    for quantity, matrix in zip(quantities, found, strict=True):
        matrix[at] = rows[quantity][mine]  # the last row wins where a forecast was issued again
    return found
