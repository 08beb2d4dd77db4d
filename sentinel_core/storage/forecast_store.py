"""Forecasts and their scores in segments; a later issue or score replaces an earlier one of the same key when read.

Keys: (watch, fp, origin, ts, mode) of a forecast, (watch, fp, ts) of a score. Files are sorted by (ts, watch, fp), as
every tick asks for all forecasts of one target time.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import DATASETS, Pending, Segment
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, unique

FORECAST_COLUMNS = tuple(DATASETS["forecasts"])
LIVE, REPLAY = 0, 1
DAY_SECONDS = 86_400

KEYS: Mapping[str, tuple[str, ...]] = {
    "forecasts": ("watch", "fp", "origin", "ts", "mode"),
    "scores": ("watch", "fp", "ts"),
    "verified": ("watch", "fp", "ts", "lead"),
}
_MIX = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd: spreads keys over 64 bits


def write_forecasts(
    store: Store, step_seconds: int, columns: Mapping[str, NDArray[Any]], *, now: float | None = None
) -> Pending:
    """Put forecasts on the disk (columns of FORECAST_COLUMNS, any row order): one file for rows of one origin, else
    one per UTC day. Raises StoreError for a full disk."""
    # By the day of lead 1, which is also what a file's t0 says: equal keys always lie in the same day.
    days = (np.asarray(columns["origin"], np.int64) + step_seconds) // DAY_SECONDS
    return _write(store, "forecasts", step_seconds, columns, days, now)


def write_scores(
    store: Store, step_seconds: int, columns: Mapping[str, NDArray[Any]], *, now: float | None = None
) -> Pending:
    """Put scores on the disk (columns of the dataset `scores`, any row order): one file per UTC day."""
    return _write(store, "scores", step_seconds, columns, np.asarray(columns["ts"], np.int64) // DAY_SECONDS, now)


def write_verified(
    store: Store, step_seconds: int, columns: Mapping[str, NDArray[Any]], *, now: float | None = None
) -> Pending:
    """Put what a round has found on the disk (columns of the dataset `verified`, any row order)."""
    return _write(store, "verified", step_seconds, columns, np.asarray(columns["ts"], np.int64) // DAY_SECONDS, now)


def verified_since(
    store: Store, step_seconds: int, after: int, until: int, fresh: Mapping[str, NDArray[Any]]
) -> Mapping[str, NDArray[Any]]:
    """Add up what rounds that ended in (after, until) have found, and a fresh one: a row per (watch, fp, lead)."""
    sums = ", ".join(f"sum({name})::double as {name}" for name in ("n", "below", "above", "error", "bias", "naive"))
    columns = "watch, fp, lead, n, below, above, error, bias, naive"
    stored = f"select {columns} from {{files}} where ts > {after} and ts < {until}"
    sql = f"select watch, fp, lead, {sums} from ({stored} union all select {columns} from fresh) group by all"

    def read(some: list[Segment]) -> Mapping[str, NDArray[Any]]:
        return store.segments.query(some, sql, {"fresh": fresh}) if some else fresh

    return store.segments.live("verified", str(step_seconds), after, until, read)


def read_widths(store: Store, step_seconds: int, ends: Collection[int]) -> Columns:
    """Return what rounds that ended at some times have left of the widths of bounds, the newest last."""
    columns = ("watch", "fp", "ts", "lead", "version", "lower", "upper")
    wanted = sorted(set(ends))

    def read(some: list[Segment]) -> Columns:
        return store.segments.read(some, columns, f"ts in ({', '.join(map(str, wanted))})")

    if not wanted:
        return store.segments.read([], columns)
    rows = store.segments.live("verified", str(step_seconds), wanted[0], wanted[-1], read)
    order = np.argsort(rows["ts"], kind="stable")
    return {name: column[order] for name, column in rows.items()}


def read_forecasts(
    store: Store,
    step_seconds: int,
    *,
    watch_ids: Sequence[int] | None = None,
    fingerprints: Sequence[int] | IntArray | None = None,
    origin: int | None = None,
    ts_range: tuple[int, int] | None = None,
    mode: int | None = LIVE,
) -> Columns:
    """Return forecasts by any condition, FORECAST_COLUMNS, newest issue of each key; `mode=None`: live and replays.

    ts_range: of target times, inclusive. Older forecasts may have lost leads (see compaction).
    """
    t0, t1 = ts_range if ts_range is not None else (-(2**62), 2**62)
    conditions, parameters = ["ts between ? and ?"], [t0, t1]
    if origin is not None:
        t0 = max(t0, origin + 1)
        conditions, parameters = [*conditions, "origin = ?"], [*parameters, origin]
    if mode is not None:
        conditions, parameters = [*conditions, "mode = ?"], [*parameters, mode]
    for column, wanted in (("watch", watch_ids), ("fp", fingerprints)):
        if wanted is not None:
            conditions.append(f"list_contains({_listed(wanted)}, {column})" if len(wanted) else "false")
    return _read(store, "forecasts", step_seconds, t0, t1, " and ".join(conditions), parameters)


def forecasts_for(store: Store, step_seconds: int, ts0: int, ts1: int, *, mode: int = LIVE) -> Columns:
    """Return every forecast whose target time is in [ts0, ts1], the newest issue of each key: what a tick scores."""
    return read_forecasts(store, step_seconds, ts_range=(ts0, ts1), mode=mode)


def read_segment(
    store: Store, segment_id: int, *, watch_ids: Sequence[int] | None = None, origin: int | None = None
) -> Columns:
    """Return the rows of one forecast segment, as `watch_state.forecast_segment_id` names it.

    Raises SegmentGoneError where it was compacted since: read the state again, compaction has moved it along.
    """
    conditions, parameters = ["true"], []
    if origin is not None:
        conditions, parameters = ["origin = ?"], [origin]
    if watch_ids is not None:
        conditions.append(f"list_contains({_listed(watch_ids)}, watch)" if len(watch_ids) else "false")
    segment = store.segments.get(segment_id)
    return store.segments.read([segment], FORECAST_COLUMNS, " and ".join(conditions), parameters)


def read_scores(
    store: Store, step_seconds: int, ts0: int, ts1: int, *, fingerprints: Sequence[int] | IntArray | None = None
) -> Columns:
    """Return the scores of [ts0, ts1], the newest of each key, sorted by (ts, watch, fp)."""
    condition = "ts between ? and ?"
    if fingerprints is not None:
        condition += f" and list_contains({_listed(fingerprints)}, fp)" if len(fingerprints) else " and false"
    return _read(store, "scores", step_seconds, ts0, ts1, condition, [ts0, ts1])


def newest_of_each(
    columns: Mapping[str, NDArray[Any]], key: Sequence[str], order_by: Sequence[str] = ("ts", "watch", "fp")
) -> Columns:
    """Keep the last row of each key, sorted by some of its columns; rows come in the order of their commits.

    >>> rows = {"watch": [1, 1], "fp": [7, 7], "ts": [60, 60], "mae": [0.5, 0.4]}
    >>> kept = newest_of_each({k: np.array(v) for k, v in rows.items()}, ("watch", "fp", "ts"))
    >>> kept["mae"].tolist()
    [0.4]
    """
    rest = [name for name in key if name not in order_by]
    order = np.lexsort([columns[name] for name in (*rest, *reversed(order_by))])  # stable: later commits stay later
    if _has_repeats(columns, key):
        ordered = [columns[name][order] for name in key]
        last = np.ones(len(order), bool)
        last[:-1] = np.any([column[1:] != column[:-1] for column in ordered], axis=0)
        order = order[last]
    return {name: column[order] for name, column in columns.items()}


def _has_repeats(columns: Mapping[str, NDArray[Any]], key: Sequence[str]) -> bool:
    """Tell whether some key may occur twice: usually none does, and a hash tells so in 3 ms per 50,000 rows.

    A false alarm costs a comparison of neighbours; a repeat is never missed.
    """
    mixed = row_keys(*(columns[name] for name in key))
    return len(unique(mixed)) < len(mixed)


def row_keys(*columns: NDArray[Any]) -> IntArray:
    """Rows of several integer columns as one integer each: equal rows have equal keys, others practically never."""
    mixed = np.zeros(len(columns[0]), np.int64)
    with np.errstate(over="ignore"):
        for column in columns:
            mixed = (mixed ^ column.astype(np.int64, copy=False)) * _MIX
            mixed ^= mixed >> 31
    return mixed


def _write(
    store: Store,
    dataset: str,
    step_seconds: int,
    columns: Mapping[str, NDArray[Any]],
    days: NDArray[Any],
    now: float | None,
) -> Pending:
    now = time.time() if now is None else now
    pendings = []
    for day in unique(days):
        rows = days == day
        part = {name: np.asarray(column)[rows] for name, column in columns.items()}
        pendings.append(write_sorted(store, dataset, step_seconds, newest_of_each(part, KEYS[dataset]), now))
    return Pending.joined(pendings, now)


def write_sorted(
    store: Store,
    dataset: str,
    step_seconds: int,
    columns: Mapping[str, NDArray[Any]],
    now: float,
    *,
    position: int | None = None,
    thinned: bool = False,
) -> Pending:
    """Put rows that are sorted by (ts, watch, fp) on the disk as one file."""
    if not len(columns["ts"]):
        return Pending((), now)
    t0, t1 = int(columns["ts"][0]), int(columns["ts"][-1])
    key = str(step_seconds)
    return store.segments.write(dataset, key, columns, t0, t1, now, position=position, thinned=thinned)


def _read(
    store: Store, dataset: str, step_seconds: int, t0: int, t1: int, where: str, parameters: Sequence[Any]
) -> Columns:
    def read(segments: list[Segment]) -> Columns:
        return store.segments.read(segments, tuple(DATASETS[dataset]), where, parameters)

    return newest_of_each(store.segments.live(dataset, str(step_seconds), t0, t1, read), KEYS[dataset])


def _listed(values: Sequence[int] | IntArray) -> str:
    return f"[{', '.join(str(int(value)) for value in values)}]"
