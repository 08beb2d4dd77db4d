"""The processes of the crash test, one role each: `python -m tests.storage.crash_worker ROLE SQL_URL DATA_URL`.

Every writer owns a watch. In ONE transaction it commits a minute of samples, a forecast, the coverage that promises
them and a counter; every few minutes it corrects all of its past with a new generation of values. So whatever a reader
sees can be checked exactly: covered means there, not covered means not there, and no generation ever comes back.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, Window
from tests.storage.samples import START, STEP, forecasts, window

SERIES = 20
WRITERS = 3
GRACE_SECONDS = 0.3  # far below the real hour: readers shall meet files that are gone
FOREVER = 1e12


def own_series(writer: int) -> IntArray:
    """Fingerprints of a writer's plain series; one more, the last, carries generations."""
    return np.arange(SERIES, dtype=np.int64) * 10 + writer


def generation_series(writer: int) -> int:
    return 100_000 + writer


def expected(fingerprints: IntArray, timestamps: IntArray) -> np.ndarray:
    return fingerprints[:, None] * 1e6 + (timestamps - START) // STEP


def write(store: Store, writer: int, busy: Path) -> None:
    """Go on where the store says that this writer stands."""
    with store.database.read() as connection:
        watch = watch_store.watch_ids(connection)[f"w{writer}"]
    while True:
        with store.database.read() as connection:
            spans = watch_store.coverage(connection, watch)
            generation = watch_store.states(connection)[f"w{writer}"].unlearnt + 1
        ts = spans[-1][1] + STEP if spans else START
        windows = [window(own_series(writer).tolist(), ts, ts)]
        if generation % 4 == 0 and spans:
            windows.append(window([generation_series(writer)], START, ts - STEP, float(generation)))
        pendings = [windows_store.write_windows(store, STEP, windows)]
        rows = forecasts(watch, own_series(writer).tolist(), ts, 2, mean=float(ts))
        pendings.append(forecast_store.write_forecasts(store, STEP, rows))
        with store.database.write() as connection:
            store.segments.commit(connection, pendings)
            watch_store.add_coverage(connection, watch, ts, ts, STEP)
            watch_store.update_state(connection, watch, unlearnt=generation)
            watch_store.increment(connection, {("commits", ()): 1})
        busy.touch()


def keep_compact(store: Store, busy: Path) -> None:
    while True:
        compact(store, time.time(), window_retention_seconds=FOREVER, forecast_retention_seconds=FOREVER)
        store.segments.collect_garbage(time.time(), GRACE_SECONDS)
        busy.touch()


def verify(store: Store) -> None:
    """Check one writer's samples and forecasts against its coverage; AssertionError for any difference."""
    for writer in range(WRITERS):
        slug = f"w{writer}"
        with store.database.read() as connection:
            watch = watch_store.watch_ids(connection)[slug]
            before = watch_store.coverage(connection, watch)
            generation_before = watch_store.states(connection)[slug].unlearnt
        if not before:
            continue
        assert len(before) == 1
        assert before[0][0] == START
        last = before[0][1]
        fingerprints = np.append(own_series(writer), generation_series(writer))
        found: Window = windows_store.read_window(store, STEP, fingerprints, START, last + 50 * STEP)
        issued = forecast_store.forecasts_for(store, STEP, START, last)
        with store.database.read() as connection:
            after = watch_store.coverage(connection, watch)[0][1]
            generation_after = watch_store.states(connection)[slug].unlearnt
        plain, timestamps = found.values[:-1], found.timestamps
        wanted = expected(own_series(writer), timestamps)
        promised = timestamps <= last
        assert np.array_equal(plain[:, promised], wanted[:, promised]), f"{slug}: a covered sample is missing or wrong"
        assert np.isnan(plain[:, timestamps > after]).all(), f"{slug}: a sample that was never committed"
        there = ~np.isnan(plain)
        assert (plain[there] == wanted[there]).all(), f"{slug}: a wrong sample"
        corrected = generation_before - generation_before % 4
        generations = found.values[-1, timestamps <= last - 4 * STEP]
        if corrected >= 4:
            past = generations[: max(0, corrected - 2)]
            assert (past >= corrected).all(), f"{slug}: an older generation came back"
            assert (past <= generation_after).all(), f"{slug}: a generation that was never committed"
        mine = issued["watch"] == watch
        # of each origin: lead 1 for the next minute, lead 2 for the one after
        steps = (last - START) // STEP
        assert mine.sum() == SERIES * (2 * steps - 1 if steps else 0), f"{slug}: forecasts lost or doubled"
        assert (issued["mean"][mine] == issued["origin"][mine]).all()


def read(store: Store) -> None:
    while True:
        verify(store)
        with store.database.write() as connection:
            watch_store.increment(connection, {("verified", ()): 1})
        time.sleep(0.05)  # leave the writers a processor


def main(role: str, sql_url: str, data_url: str) -> None:
    busy = Path(f"{data_url}.busy.{os.getpid()}")  # a kill before the first round would prove nothing
    with Store.open(sql_url, data_url) as store:
        if role == "compact":
            keep_compact(store, busy)
        elif role == "read":
            read(store)
        else:
            write(store, int(role), busy)


if __name__ == "__main__":
    main(*sys.argv[1:])
