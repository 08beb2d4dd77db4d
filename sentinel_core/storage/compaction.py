"""Fewer, larger, younger: merge closed hours and days, thin old forecasts, drop what is past its retention.

Nothing here blocks or loses anybody else's commit. A merge reads some segments, writes their overlay as new files and
replaces them by compare-and-set; whatever was committed meanwhile is not among them and lies above the result, because
the result takes the place of the newest of its inputs in overlay order. That holds only for inputs that are neighbours
in that order, so only neighbours are merged.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sentinel_core.errors import ConflictError
from sentinel_core.storage.event_store import PSI_COLUMNS, add_up, newest_psi, write_rows
from sentinel_core.storage.forecast_store import KEYS, newest_of_each, write_sorted
from sentinel_core.storage.model_store import baseline_versions
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.schema import watch_state
from sentinel_core.storage.segments import DATASETS, Pending, Segment, SegmentGoneError
from sentinel_core.storage.store import Store
from sentinel_core.storage.watch_store import forget_coverage
from sentinel_core.storage.windows_store import overlay, series_in, write_window
from sentinel_core.windows import grid

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
CLOSED_AFTER_SECONDS = 600  # late samples of an hour still come with the next ticks
ALL_LEADS_SECONDS = 2 * DAY_SECONDS
VERIFIED_SECONDS = 2 * DAY_SECONDS  # what is told of forecasts is told of their last day
MERGED_ROWS = {"windows": 8_000_000, "forecasts": 3_000_000, "scores": 4_000_000}  # of one result: about 0.5 GB of RAM
MERGED_ROWS |= {"verified": 4_000_000, "events": 4_000_000, "counts": 1_000_000, "psi": 1_500_000}


Merge = Callable[[Store, Sequence[Segment], float], Pending]


@dataclass(frozen=True)
class Compaction:
    """What one run did, in segments; `conflicts` are merges given up because somebody else was faster."""

    merged: int = 0
    written: int = 0
    thinned: int = 0  # of forecasts some leads went, of counts those of former baselines
    expired: int = 0
    conflicts: int = 0


def compact(
    store: Store,
    now: float,
    *,
    window_retention_seconds: float = 30 * DAY_SECONDS,
    forecast_retention_seconds: float = 90 * DAY_SECONDS,
    event_retention_seconds: float = 42 * DAY_SECONDS,
    count_retention_seconds: float = 43 * DAY_SECONDS,
    psi_retention_seconds: float = 400 * DAY_SECONDS,
) -> Compaction:
    """Bring every dataset to its compact form as of `now`; safe beside ticks, backfills and another compaction.

    What is older than its retention is dropped in whole UTC days. Of forecasts older than 48 hours the leads 1, 2, 4,
    8, … and the longest stay. Of counts those under the models' present baselines stay. Files are deleted later, by
    `collect_garbage`.
    """
    done: Counter[str] = Counter()
    retentions = {"windows": window_retention_seconds, "events": event_retention_seconds}
    retentions |= {"counts": count_retention_seconds, "psi": psi_retention_seconds, "verified": VERIFIED_SECONDS}
    oldest_count = int(now - count_retention_seconds)
    merge_counts = partial(_merge_counts, oldest=oldest_count)
    merges: dict[str, Merge] = {
        "windows": _merge_windows,
        "events": _merge_events,
        "counts": merge_counts,
        "psi": _merge_psi,
    }
    for dataset in DATASETS:
        _expire(store, dataset, now, retentions.get(dataset, forecast_retention_seconds), done)
        merge = merges.get(dataset, _merge_rows)
        segments = sorted(store.segments.segments(dataset), key=lambda segment: (segment.key, segment.position))
        for _, same_key in groupby(segments, key=lambda segment: segment.key):
            for group in mergeable(list(same_key), now, MERGED_ROWS[dataset]):
                done["merged"] += len(group) * _replace(store, group, merge, now, done)
    for segment in store.segments.segments("forecasts", t1=int(now)):
        if not segment.thinned and _day(segment) < (now - ALL_LEADS_SECONDS) // DAY_SECONDS:
            done["thinned"] += _replace(store, [segment], _thin, now, done)
    for segment in store.segments.segments("counts"):
        if segment.t0 < oldest_count - DAY_SECONDS or _outdated(store, segment):
            done["thinned"] += _replace(store, [segment], merge_counts, now, done)
    return Compaction(**done)


def mergeable(segments: Sequence[Segment], now: float, rows: int) -> list[list[Segment]]:
    """Return groups of two or more neighbours (the segments are one key's, by position) that should become one.

    Neighbours of one UTC day are merged by the hour once the hour has closed, and by the day once the day has, up to
    `rows` rows each: larger files would not be read faster, and this bounds the memory of a merge.
    """
    groups = []
    closed = now - CLOSED_AFTER_SECONDS
    for day, members in groupby(sorted(segments, key=lambda s: (_day(s), s.position)), key=_day):
        day_closed = (day + 1) * DAY_SECONDS <= closed
        kind = (lambda s: (0, s.thinned)) if day_closed else (lambda s: (s.t0 // HOUR_SECONDS, s.thinned))
        for (hour, _), neighbours in groupby(members, key=kind):
            if day_closed or (hour + 1) * HOUR_SECONDS <= closed:
                groups += [pack for pack in _packs(neighbours, rows) if len(pack) > 1]
    return groups


def _packs(segments: Iterable[Segment], rows: int) -> Iterable[list[Segment]]:
    pack: list[Segment] = []
    for segment in segments:
        if pack and sum(one.rows for one in pack) + segment.rows > rows:
            yield pack
            pack = []
        pack.append(segment)
    if pack:
        yield pack


def _replace(
    store: Store,
    inputs: Sequence[Segment],
    write: Merge,
    now: float,
    done: Counter[str],
) -> bool:
    """Put what `write` makes in the place of the inputs, all or nothing; False where one was replaced meanwhile."""
    ids = [segment.id for segment in inputs]
    pending = Pending((), now)
    try:
        pending = write(store, inputs, now)
        with store.database.write() as connection:
            new = store.segments.commit(connection, [pending], drop=ids)
            named = watch_state.c.forecast_segment_id.in_(ids)
            connection.execute(watch_state.update().where(named).values(forecast_segment_id=new[0] if new else None))
    except ConflictError:  # compacted or expired by somebody else, perhaps collected while it was read
        store.segments.folder.delete([part.path for part in pending.parts])
        done["conflicts"] += 1
        return False
    done["written"] += len(new)
    return True


def _merge_windows(store: Store, group: Sequence[Segment], now: float) -> Pending:
    """Overlay a day's or an hour's rectangles into one, or into several of bounded size where series come and go."""
    step = int(group[0].key)
    timestamps = grid(min(s.t0 for s in group), max(s.t1 for s in group), step)
    fingerprints = series_in(store, group)
    width = max(1, MERGED_ROWS["windows"] // max(1, len(fingerprints)))
    position = max(segment.position for segment in group)
    pieces = []
    for start in range(0, len(timestamps), width):
        window = overlay(store, group, fingerprints, timestamps[start : start + width], step)
        pieces.append(write_window(store, window, now, position=position))
    return Pending.joined(pieces, now)


def _merge_rows(store: Store, group: Sequence[Segment], now: float) -> Pending:
    """Merge forecasts or scores, keeping the newest of each key."""
    dataset = group[0].dataset
    rows = newest_of_each(store.segments.read(group, tuple(DATASETS[dataset])), KEYS[dataset])
    position = max(segment.position for segment in group)
    return write_sorted(store, dataset, int(group[0].key), rows, now, position=position, thinned=group[0].thinned)


def _merge_events(store: Store, group: Sequence[Segment], now: float) -> Pending:
    """Merge events: all of them stay."""
    rows = store.segments.read(group, tuple(DATASETS["events"]))
    return write_rows(store, "events", group[0].key, rows, now, max(segment.position for segment in group))


def _merge_counts(store: Store, group: Sequence[Segment], now: float, oldest: int) -> Pending:
    """Add up the counts of equal hours, and leave out the old ones and those under former baselines."""
    rows = store.segments.read(group, tuple(DATASETS["counts"]))
    kept = _serving(store, rows) & (rows["ts"] >= oldest)
    added = add_up({name: column[kept] for name, column in rows.items()})
    return write_rows(store, "counts", group[0].key, added, now, max(segment.position for segment in group))


def _merge_psi(store: Store, group: Sequence[Segment], now: float) -> Pending:
    """Merge evaluations, keeping the newest of each hour."""
    rows = newest_psi(store.segments.read(group, PSI_COLUMNS))
    return write_rows(store, "psi", group[0].key, rows, now, max(segment.position for segment in group))


def _outdated(store: Store, segment: Segment) -> bool:
    """Whether a segment holds counts of former baselines."""
    try:
        return not _serving(store, store.segments.read([segment], ["model", "baseline"])).all()
    except SegmentGoneError:
        return False


def _serving(store: Store, rows: Columns) -> NDArray[np.bool_]:
    """Which rows of counts are under their model's present baseline; asked after the segments were listed.

    A version is committed with its counts, so none of a later one can be among them.
    """
    with store.database.read() as connection:
        serving = baseline_versions(connection)
    versions = np.zeros(max(serving, default=0) + 1, np.int64)
    versions[list(serving)] = list(serving.values())
    known = rows["model"] < len(versions)
    same: NDArray[np.bool_] = known & (versions[np.where(known, rows["model"], 0)] == rows["baseline"])
    return same


def _thin(store: Store, inputs: Sequence[Segment], now: float) -> Pending:
    """Keep the leads 1, 2, 4, 8, … and each watch's longest."""
    (segment,) = inputs
    rows = store.segments.read(inputs, tuple(DATASETS["forecasts"]))
    watches, owner = np.unique(rows["watch"], return_inverse=True)
    longest = np.zeros(len(watches), np.int16)
    np.maximum.at(longest, owner, rows["lead"])
    lead = rows["lead"]
    keep = ((lead & (lead - 1)) == 0) | (lead == longest[owner])
    kept = {name: column[keep] for name, column in rows.items()}
    position = segment.position
    return write_sorted(store, "forecasts", int(segment.key), kept, now, position=position, thinned=True)


def _expire(store: Store, dataset: str, now: float, retention_seconds: float, done: Counter[str]) -> None:
    """Drop segments that end before the retention, in whole UTC days, and forget that windows were ever asked for."""
    before = int((now - retention_seconds) // DAY_SECONDS) * DAY_SECONDS
    old = [segment.id for segment in store.segments.segments(dataset, t1=before - 1) if segment.t1 < before]
    if not old and dataset != "windows":
        return
    try:
        with store.database.write() as connection:
            if dataset == "windows":
                forget_coverage(connection, before)
            if old:
                store.segments.drop(connection, old, now)
    except ConflictError:  # another compaction is at work; the next run finds what is left
        done["conflicts"] += 1
    else:
        done["expired"] += len(old)


def _day(segment: Segment) -> int:
    return segment.t0 // DAY_SECONDS
