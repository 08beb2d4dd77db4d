"""Windows in segments: one rectangle of (series, time) per tick for all watches of a step, overlaid when read.

A file holds every timestamp of its span for every series in it, sorted by (fp, ts), gaps as NaN. So a read needs no
timestamps and no pivot: a column of values IS a matrix. Where several files have a sample for the same (series, time),
the later commit wins; a gap never hides a sample.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np

from sentinel_core.errors import StoreError
from sentinel_core.storage.segments import Pending, Segment
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray, Window, grid, positions, unique

DATASET = "windows"
DAY_SECONDS = 86_400
_SMALL_ROWS = 200_000  # files below this are read many at a time, row by row; larger ones each as a matrix
_BATCH_ROWS = 2_000_000  # rows of small files held at once (48 MB)
_LISTED_SHARE = 8  # one series in so many, or fewer: name them in the query, so that DuckDB skips the others


def write_windows(store: Store, step_seconds: int, windows: Sequence[Window], *, now: float | None = None) -> Pending:
    """Put the samples of many watches on the disk: a file per UTC day and span; usually one.

    Where two windows have a sample for the same (series, time), the later one in the list wins. Series without a sample
    in the span are left out. Raises StoreError for a full disk.
    """
    now = time.time() if now is None else now
    spans: dict[tuple[int, int], list[Window]] = {}
    for window in windows:
        for part in _days(window):
            spans.setdefault((int(part.timestamps[0]), part.last), []).append(part)
    written = (write_window(store, _united(parts), now) for _, parts in sorted(spans.items()))
    return Pending.joined(list(written), now)


def write_window(store: Store, window: Window, now: float, *, position: int | None = None) -> Pending:
    """Put one rectangle on the disk as it is (within one UTC day), less the series without a sample."""
    values = np.where(np.isfinite(window.values), window.values, np.nan)
    some = ~np.isnan(values).all(axis=1)
    fingerprints, values = window.fingerprints[some], values[some]
    columns = {
        "fp": np.repeat(fingerprints, len(window.timestamps)),
        "ts": np.tile(window.timestamps, len(fingerprints)),
        "v": values.ravel(),
    }
    t0, t1 = int(window.timestamps[0]), window.last
    return store.segments.write(DATASET, str(window.step_seconds), columns, t0, t1, now, position=position)


def read_window(store: Store, step_seconds: int, fingerprints: IntArray, t0: int, t1: int) -> Window:
    """Return a dense window of exactly these series (ascending, unique) on the grid in [t0, t1]; NaN: no sample."""
    if not (fingerprints[1:] > fingerprints[:-1]).all():  # not by difference: that overflows between far fingerprints
        raise ValueError("fingerprints must ascend and be unique")
    timestamps = grid(t0, t1, step_seconds)
    fingerprints = fingerprints.astype(np.int64, copy=False)
    if not len(timestamps) or not len(fingerprints):
        return Window(fingerprints, timestamps, np.full((len(fingerprints), len(timestamps)), np.nan), step_seconds)
    first, last = int(timestamps[0]), int(timestamps[-1])
    return store.segments.live(
        DATASET,
        str(step_seconds),
        first,
        last,
        lambda found: overlay(store, found, fingerprints, timestamps, step_seconds),
    )


def overlay(
    store: Store, segments: Sequence[Segment], fingerprints: IntArray, timestamps: IntArray, step_seconds: int
) -> Window:
    """Lay segments over each other in their order, restricted to some series and times."""
    window = Window(fingerprints, timestamps, np.full((len(fingerprints), len(timestamps)), np.nan), step_seconds)
    for batch in _batches(segments):
        rows = sum(segment.rows for segment in batch)
        width = max((segment.t1 - segment.t0) // step_seconds + 1 for segment in batch)
        few = len(fingerprints) * _LISTED_SHARE <= rows // (width * len(batch))
        if len(batch) == 1 and not few:
            _lay_matrix(store, batch[0], window)
        else:
            _lay_rows(store, batch, window, few)
    return window


def series_in(store: Store, segments: Sequence[Segment]) -> IntArray:
    """Return the fingerprints that occur, ascending and unique."""
    found = [np.empty(0, np.int64)]
    for batch in _batches(segments):  # one row of each series in a rectangle tells enough
        firsts = sorted({segment.t0 for segment in batch})
        read = store.segments.read(batch, ["fp"], f"ts in ({', '.join(map(str, firsts))})")
        found.append(unique(read["fp"]))
    return unique(np.concatenate(found))


def _lay_matrix(store: Store, segment: Segment, window: Window) -> None:
    """A file's rows are whole matrix rows: reshape, no timestamps needed."""
    first, last = max(segment.t0, int(window.timestamps[0])), min(segment.t1, window.last)
    width = (last - first) // window.step_seconds + 1
    column = (first - int(window.timestamps[0])) // window.step_seconds
    where, parameters = "fp between ? and ?", [int(window.fingerprints[0]), int(window.fingerprints[-1])]
    if (first, last) != (segment.t0, segment.t1):
        where, parameters = f"{where} and ts between ? and ?", [*parameters, first, last]
    read = store.segments.read([segment], ["fp", "v"], where, parameters)
    if len(read["fp"]) % width:
        raise _torn(store, segment)
    fp, values = read["fp"].reshape(-1, width), read["v"].reshape(-1, width)
    if (fp[:, 0] != fp[:, -1]).any():
        raise _torn(store, segment)
    rows, known = positions(window.fingerprints, fp[:, 0])
    target = window.values[:, column : column + width]
    if len(rows) == len(target) and known.all():  # the same series: no copies
        np.copyto(target, values, where=~np.isnan(values))
        return
    rows, values = rows[known], values[known]
    target[rows] = np.where(np.isnan(values), target[rows], values)


def _lay_rows(store: Store, segments: Sequence[Segment], window: Window, few: bool) -> None:
    """Sample by sample, many files at once; of equal places the last one stays, as numpy assigns in order."""
    if few:
        wanted = f"fp in ({', '.join(map(str, window.fingerprints.tolist()))})"
    else:
        wanted = f"fp between {window.fingerprints[0]} and {window.fingerprints[-1]}"
    span = [int(window.timestamps[0]), window.last]
    read = store.segments.read(segments, ["fp", "ts", "v"], f"{wanted} and ts between ? and ?", span)
    rows, known = positions(window.fingerprints, read["fp"])
    known &= ~np.isnan(read["v"])
    columns = (read["ts"][known] - window.timestamps[0]) // window.step_seconds
    window.values[rows[known], columns] = read["v"][known]


def _batches(segments: Sequence[Segment]) -> Iterable[list[Segment]]:
    """Group neighbours that are small; order is kept, as it decides which sample wins."""
    batch: list[Segment] = []
    rows = 0
    for segment in segments:
        small = segment.rows <= _SMALL_ROWS
        if batch and (not small or rows + segment.rows > _BATCH_ROWS):
            yield batch
            batch, rows = [], 0
        if small:
            batch.append(segment)
            rows += segment.rows
        else:
            yield [segment]
    if batch:
        yield batch


def _days(window: Window) -> Iterable[Window]:
    """Cut at UTC midnight, so that a day can be compacted without touching another."""
    if not len(window.timestamps):
        return
    cuts = np.flatnonzero(np.diff(window.timestamps // DAY_SECONDS)) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(window.timestamps)], strict=True):
        yield window.columns(slice(start, stop))


def _united(windows: Sequence[Window]) -> Window:
    """Many windows of one span as one; later ones win where they have a sample."""
    if len(windows) == 1:
        return windows[0]
    fingerprints = unique(np.concatenate([window.fingerprints for window in windows]))
    values: FloatArray = np.full((len(fingerprints), len(windows[0].timestamps)), np.nan)
    for window in windows:
        rows = np.searchsorted(fingerprints, window.fingerprints)
        values[rows] = np.where(np.isfinite(window.values), window.values, values[rows])
    return Window(fingerprints, windows[0].timestamps, values, windows[0].step_seconds)


def _torn(store: Store, segment: Segment) -> StoreError:
    return StoreError(
        f"{segment.path} in {store.segments.folder.url} is not the rectangle that was written: restore it from a backup"
    )
