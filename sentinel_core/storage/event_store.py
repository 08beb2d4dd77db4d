"""Events, their hourly counts, and PSI in segments.

- `events`: what was drained, a file per drain and UTC day, sorted by (model, ts).
- `counts`: events per hour and bin under a baseline version. Rows of the same hour ADD UP.
- `psi`: a row per model, output and evaluated hour; a later row of the same key replaces an earlier one.

Segment keys: "1" of events (whole seconds), the seconds of an hour of counts and psi.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.storage.forecast_store import LIVE, REPLAY, newest_of_each
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import DATASETS, Pending, Segment
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, unique

__all__ = ["LIVE", "REPLAY"]

HOUR_SECONDS, DAY_SECONDS = 3_600, 86_400
EVENTS_KEY = "1"
WIDTH = 26  # bins of a stored histogram
BINS = tuple(f"n{index:02d}" for index in range(WIDTH))
PSI_COLUMNS = tuple(DATASETS["psi"])
# Files are sorted by these, so that a reader of one model skips what lies beside it.
SORTED_BY: Mapping[str, tuple[str, ...]] = {
    "events": ("model", "ts"),
    "counts": ("model", "output", "ts"),
    "psi": ("model", "output", "ts"),
}
OF_MODELS = tuple(SORTED_BY)


@dataclass(frozen=True)
class Wanted:
    """Whose counts to sum, and how: arrays of one length, one entry per model.

    version:       of the baseline whose bins they were counted in
    block_seconds: length of a block
    since:         no event before this time counts, unix seconds
    """

    model: IntArray
    version: IntArray
    block_seconds: IntArray
    since: IntArray


@dataclass(frozen=True)
class BlockSums:
    """Counts per block: arrays of one length; age 0 is the newest block, counts float64 [n, width]."""

    model: IntArray
    output: IntArray
    age: IntArray
    counts: NDArray[np.float64]


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_events(store: Store, columns: Mapping[str, NDArray[Any]], now: float) -> Pending:
    """Put events (columns of the dataset, any order) on the disk: one file per UTC day."""
    return _by_day(store, "events", EVENTS_KEY, columns, now)


def write_counts(
    store: Store,
    hour_seconds: int,
    model: IntArray,
    output: IntArray,
    baseline: IntArray,
    hour: IntArray,
    counts: NDArray[np.int32],
    now: float,
) -> Pending:
    """Put counts [n, WIDTH] of (model, output, baseline, start of the hour) [n] on the disk as one file."""
    columns: dict[str, NDArray[Any]] = {"model": model, "output": output, "baseline": baseline, "ts": hour}
    columns |= {name: counts[:, index] for index, name in enumerate(BINS)}
    return write_rows(store, "counts", str(hour_seconds), columns, now)


def write_psi(store: Store, hour_seconds: int, columns: Mapping[str, NDArray[Any]], now: float) -> Pending:
    """Put evaluations (columns of the dataset, one row of each key) on the disk: one file per UTC day."""
    return _by_day(store, "psi", str(hour_seconds), columns, now)


def write_rows(
    store: Store, dataset: str, key: str, columns: Mapping[str, NDArray[Any]], now: float, position: int | None = None
) -> Pending:
    """Put rows of one of OF_MODELS on the disk as one file, sorted as its readers want it."""
    if not len(columns["ts"]):
        return Pending((), now)
    order = np.lexsort([columns[name] for name in reversed(SORTED_BY[dataset])])
    ordered = {name: column[order] for name, column in columns.items()}
    t0, t1 = int(columns["ts"].min()), int(columns["ts"].max())
    return store.segments.write(dataset, key, ordered, t0, t1, now, position=position)


def _by_day(store: Store, dataset: str, key: str, columns: Mapping[str, NDArray[Any]], now: float) -> Pending:
    days = np.asarray(columns["ts"], np.int64) // DAY_SECONDS
    found = unique(days)
    if len(found) == 1:
        return write_rows(store, dataset, key, columns, now)
    pendings = []
    for day in found:
        rows = days == day
        part = {name: np.asarray(column)[rows] for name, column in columns.items()}
        pendings.append(write_rows(store, dataset, key, part, now))
    return Pending.joined(pendings, now)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_events(
    store: Store, t0: int, t1: int, columns: Sequence[str], model_ids: Collection[int] | None = None
) -> Columns:
    """Return drained events with t0 <= ts < t1 of some models, or of all; grouped by model within a file only."""
    return _read(store, "events", EVENTS_KEY, t0, t1 - 1, columns, model_ids)


def stored_ids(store: Store, ts: IntArray, ids: IntArray) -> IntArray:
    """Which digests of events (at unix seconds [n]; 0: none) are in the segments of those times."""
    there = ids != 0
    if not there.any():
        return np.empty(0, np.int64)
    hours = unique(ts[there] // HOUR_SECONDS) * HOUR_SECONDS

    def read(segments: list[Segment]) -> IntArray:
        t0, t1 = (np.array([getattr(segment, name) for segment in segments], np.int64) for name in ("t0", "t1"))
        first = np.searchsorted(hours, t0 - HOUR_SECONDS, side="right")  # of the hours that end behind t0
        overlaps = first < np.searchsorted(hours, t1, side="right")
        near = [segment for segment, use in zip(segments, overlaps.tolist(), strict=True) if use]
        if not near:
            return np.empty(0, np.int64)
        sql = "select distinct c.id from {files} as c join asked on c.id = asked.id where c.id <> 0"
        return store.segments.query(near, sql, {"asked": {"id": unique(ids[there])}})["id"]

    return store.segments.live("events", EVENTS_KEY, int(ts.min()), int(ts.max()), read)


def block_sums(store: Store, hour_seconds: int, t0: int, t1: int, wanted: Wanted, width: int) -> BlockSums:
    """Sum the counts of hours in [t0, t1) by model, output and age of the block, of which the newest ends at t1.

    width: how many of the bins are used; the others are not read
    """
    if not len(wanted.model):
        return _no_sums(width)
    sums = ", ".join(f"sum({name})::double as {name}" for name in BINS[:width])
    sql = f"""
        select c.model::bigint as model, c.output::bigint as output,
               ({t1 - 1} - c.ts) // wanted.block_seconds as age, {sums}
        from {{files}} as c join wanted on c.model = wanted.model and c.baseline = wanted.version
        where c.ts >= {t0} and c.ts < {t1} and c.ts >= wanted.since
        group by all"""
    tables = {"wanted": vars(wanted)}

    def read(segments: list[Segment]) -> Columns | None:
        return store.segments.query(segments, sql, tables) if segments else None

    found = store.segments.live("counts", str(hour_seconds), t0, t1 - 1, read)
    if found is None:
        return _no_sums(width)
    counts = np.stack([found[name] for name in BINS[:width]], axis=1)
    return BlockSums(found["model"], found["output"], found["age"], counts)


def _no_sums(width: int) -> BlockSums:
    none = np.empty(0, np.int64)
    return BlockSums(none, none, none, np.empty((0, width)))


def add_up(rows: Columns) -> Columns:
    """Make one row of all counts of the same model, output, baseline and hour."""
    key = ("model", "output", "baseline", "ts")
    order = np.lexsort([rows[name] for name in reversed(key)])
    if not len(order):
        return rows
    ordered = {name: rows[name][order] for name in key}
    first = np.ones(len(order), bool)
    first[1:] = np.any([column[1:] != column[:-1] for column in ordered.values()], axis=0)
    starts = np.flatnonzero(first)
    added = {name: column[starts] for name, column in ordered.items()}
    return added | {name: np.add.reduceat(rows[name][order], starts) for name in BINS}


def read_psi(store: Store, hour_seconds: int, t0: int, t1: int, *, model_ids: Collection[int] | None = None) -> Columns:
    """Return the evaluations of hours that end in [t0, t1], the newest of each, sorted by (model, output, ts)."""
    return newest_psi(_read(store, "psi", str(hour_seconds), t0, t1, PSI_COLUMNS, model_ids))


def no_psi() -> Columns:
    """Columns of no evaluation at all."""
    return {name: np.empty(0, kind) for name, kind in DATASETS["psi"].items()}


def newest_psi(rows: Columns) -> Columns:
    """Keep the last row of each (model, output, ts), sorted by them; rows come in the order of their commits."""
    return newest_of_each(rows, SORTED_BY["psi"], SORTED_BY["psi"])


def _read(
    store: Store, dataset: str, key: str, t0: int, t1: int, columns: Sequence[str], model_ids: Collection[int] | None
) -> Columns:
    where, parameters = "ts between ? and ?", [t0, t1]
    if model_ids is not None:
        if not model_ids:
            return store.segments.read([], columns)
        # the bounds let DuckDB skip row groups, which a list does not
        where += f" and model between {min(model_ids)} and {max(model_ids)}"
        if len(model_ids) <= max(model_ids) - min(model_ids):
            where += f" and list_contains([{', '.join(map(str, sorted(model_ids)))}], model)"

    def read(segments: list[Segment]) -> Columns:
        return store.segments.read(segments, columns, where, parameters)

    return store.segments.live(dataset, key, t0, t1, read)


# ---- a model without a trace -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """Segments rewritten without a model, waiting for their commit."""

    pending: Pending
    drop: tuple[int, ...]
    rows: int  # of the model

    @property
    def segments(self) -> int:
        """How many segments hold rows of the model."""
        return len(self.drop)


def without_model(store: Store, model_id: int, now: float) -> Removal:
    """Write every segment that holds rows of a model anew without them; commit `pending` and drop `drop` together.

    Raises SegmentGoneError where a compaction was faster: ask again.
    """
    pendings, drop, rows = [], [], 0
    for dataset in OF_MODELS:
        for segment in store.segments.segments(dataset):
            mine = len(store.segments.read([segment], ["model"], "model = ?", [model_id])["model"])
            if not mine:
                continue
            kept = store.segments.read([segment], tuple(DATASETS[dataset]), "model <> ?", [model_id])
            pendings.append(write_rows(store, dataset, segment.key, kept, now, segment.position))
            drop.append(segment.id)
            rows += mine
    return Removal(Pending.joined(pendings, now), tuple(drop), rows)
