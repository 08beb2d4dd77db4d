"""Compaction changes how numbers lie, never what a reader sees, and never what others commit meanwhile."""

import numpy as np
import pytest

from sentinel_core.storage import compaction, forecast_store, watch_store, windows_store
from sentinel_core.storage.compaction import Compaction, compact, mergeable
from sentinel_core.storage.segments import DATASETS, Pending, Segment
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window
from tests.storage.samples import DAY, START, STEP, commit, forecasts, window

HOUR = 3600
FINGERPRINTS = [1, 2, 3]


def tick(store: Store, index: int, value: float | None = None) -> None:
    """Write what one minute's tick writes."""
    ts = START + index * STEP
    commit(store, windows_store.write_windows(store, STEP, [window(FINGERPRINTS, ts, ts, value)], now=ts))


def issue(store: Store, index: int, horizon: int = 5, **columns: float) -> int:
    rows = forecasts(1, FINGERPRINTS, START + index * STEP, horizon, **columns)
    (segment,) = commit(store, forecast_store.write_forecasts(store, STEP, rows, now=START))
    return segment


def read(store: Store, t0: int = START, t1: int = START + DAY - STEP) -> Window:
    return windows_store.read_window(store, STEP, np.array(FINGERPRINTS), t0, t1)


def spans(store: Store, dataset: str = "windows") -> list[tuple[int, int]]:
    return [(s.t0 - START, s.t1 - START) for s in store.segments.segments(dataset)]


def test_closed_hours_become_one_segment_and_open_ones_wait(store: Store) -> None:
    """Ninety minutes of ticks: after the first hour has closed and settled it is one file; the rest stays as it is."""
    for index in range(90):
        tick(store, index)
    before = read(store)
    assert compact(store, START + HOUR + 300) == Compaction()  # late samples may still come
    assert compact(store, START + HOUR + 600) == Compaction(merged=60, written=1)
    assert spans(store)[0] == (0, HOUR - STEP)
    assert len(spans(store)) == 31
    np.testing.assert_array_equal(read(store).values, before.values)
    assert compact(store, START + HOUR + 600) == Compaction()


def test_closed_days_become_one_segment(store: Store) -> None:
    """Hours, stray ticks and backfills of a past day end in one file."""
    for index in (0, 1, 61, 62, 63, 1439):
        tick(store, index)
    compact(store, START + 3 * HOUR)
    before = read(store)
    compact(store, START + DAY + 600)
    assert spans(store) == [(0, DAY - STEP)]
    np.testing.assert_array_equal(read(store).values, before.values)


def test_a_backfill_that_commits_during_a_merge_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not among the inputs, and it lies above the result although the result is committed later."""
    for index in range(60):
        tick(store, index, value=1.0)
    real = windows_store.write_window

    def write_slowly(*arguments: object, **named: object) -> Pending:
        pending = real(*arguments, **named)
        tick(store, 5, value=99.0)
        return pending

    monkeypatch.setattr(compaction, "write_window", write_slowly)
    assert compact(store, START + 2 * HOUR).merged == 60
    assert read(store).values[:, 5].tolist() == [99.0] * 3
    monkeypatch.undo()
    compact(store, START + 2 * HOUR)
    assert len(spans(store)) == 1
    assert read(store).values[:, 5].tolist() == [99.0] * 3


def test_of_two_compactions_at_once_one_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one gives up by compare-and-set, deletes what it wrote, and nothing is there twice."""
    for index in range(60):
        tick(store, index)
    real = windows_store.write_window

    def write_late(*arguments: object, **named: object) -> Pending:
        monkeypatch.undo()
        assert compact(store, START + 2 * HOUR).merged == 60
        return real(*arguments, **named)

    before = read(store)
    monkeypatch.setattr(compaction, "write_window", write_late)
    assert compact(store, START + 2 * HOUR) == Compaction(conflicts=1)
    assert len(spans(store)) == 1
    assert len(list(store.segments.folder.files())) == 61  # sixty dropped ones, until the collector comes
    np.testing.assert_array_equal(read(store).values, before.values)


def test_a_merge_is_bounded_and_still_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little room, several files come out, none much above the bound, and nothing is lost."""
    monkeypatch.setitem(compaction.MERGED_ROWS, "windows", 30)
    for index in range(60):
        tick(store, index)
    commit(store, windows_store.write_windows(store, STEP, [window([7, 8, 9], START, START + 59 * STEP)], now=START))
    before = windows_store.read_window(store, STEP, np.array([1, 7]), START, START + HOUR)
    compact(store, START + 2 * HOUR)
    assert max(segment.rows for segment in store.segments.segments("windows")[:-1]) <= 30
    after = windows_store.read_window(store, STEP, np.array([1, 7]), START, START + HOUR)
    np.testing.assert_array_equal(after.values, before.values)


def test_series_that_come_and_go_cost_bounded_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disjoint series over disjoint times would make a large empty rectangle: it is cut, and gaps are not stored."""
    for index in range(8):
        ts = START + index * STEP
        commit(store, windows_store.write_windows(store, STEP, [window([index], ts, ts, 1.0)], now=ts))
    monkeypatch.setitem(compaction.MERGED_ROWS, "windows", 16)
    compact(store, START + 2 * HOUR)
    found = windows_store.read_window(store, STEP, np.arange(8), START, START + 7 * STEP)
    np.testing.assert_array_equal(found.values, np.where(np.eye(8) == 1, 1.0, np.nan))
    assert sum(segment.rows for segment in store.segments.segments("windows")) <= 16


def segment(identity: int, t0: int, rows: int = 10, position: int | None = None, thinned: bool = False) -> Segment:
    return Segment(identity, "windows", "60", t0, t0 + 60, f"{identity}", rows, 1, position or identity, thinned)


def test_only_neighbours_in_overlay_order_are_merged() -> None:
    """A segment of another hour between two of the same one keeps them apart until the day closes."""
    found = [segment(1, START), segment(2, START + HOUR), segment(3, START + 60), segment(4, START + 120)]
    assert [[s.id for s in group] for group in mergeable(found, START + 4 * HOUR, 100)] == [[3, 4]]
    assert [[s.id for s in group] for group in mergeable(found, START + 2 * DAY, 100)] == [[1, 2, 3, 4]]
    assert mergeable(found, START + HOUR, 100) == []


def test_large_segments_are_left_alone() -> None:
    """A merge never grows beyond its bound, and single segments are not rewritten."""
    found = [
        segment(1, START, 60),
        segment(2, START + 60, 50),
        segment(3, START + 120, 40),
        segment(4, START + 180, 90),
    ]
    assert [[s.id for s in group] for group in mergeable(found, START + 2 * DAY, 100)] == [[2, 3]]


def test_forecasts_keep_every_row_but_superseded_ones(store: Store) -> None:
    """What is read before and after is the same; re-issued origins shrink to the newest issue."""
    for index in range(30):
        issue(store, index)
    issue(store, 7, mean=5.0)
    issue(store, 7, mode=1, mean=8.0)
    before = forecast_store.read_forecasts(store, STEP, mode=None)
    assert compact(store, START + 3 * HOUR).merged == 32
    assert sum(s.rows for s in store.segments.segments("forecasts")) == 31 * 15
    after = forecast_store.read_forecasts(store, STEP, mode=None)
    for name, column in before.items():
        np.testing.assert_array_equal(after[name], column)


def test_scores_keep_the_newest_of_each_key(store: Store) -> None:
    """Two scorings of the same minute become the later one."""
    for mae in (1.0, 2.0):
        rows = {"watch": 1, "fp": 10, "ts": START, "version": 1, "mae": mae, "scaled": mae}
        rows |= dict.fromkeys(("naive", "seasonal", "anomaly"), mae)
        columns = {name: np.array([value]) for name, value in rows.items()}
        commit(store, forecast_store.write_scores(store, STEP, columns, now=START))
    compact(store, START + 2 * HOUR)
    assert [s.rows for s in store.segments.segments("scores")] == [1]
    assert forecast_store.read_scores(store, STEP, START, START)["mae"].tolist() == [2.0]


def test_a_watchs_newest_forecast_is_followed_to_where_it_went(store: Store) -> None:
    """watch_state names the merged segment, in the same transaction that replaced the old one."""
    with store.database.write() as connection:
        ids = watch_store.sync_watches(connection, [("a", "a")], START)
    for index in range(3):
        newest = issue(store, index)
    with store.database.write() as connection:
        watch_store.update_state(connection, ids["a"], forecast_segment_id=newest, forecast_origin=START + 2 * STEP)
    compact(store, START + 3 * HOUR)
    with store.database.read() as connection:
        state = watch_store.states(connection)["a"]
    assert state.forecast_segment_id not in (None, newest)
    rows = forecast_store.read_segment(store, state.forecast_segment_id, origin=state.forecast_origin)
    assert len(rows["fp"]) == 15


def test_old_forecasts_keep_a_few_leads(store: Store) -> None:
    """After 48 hours: 1, powers of two, and each watch's longest; once, and readers of lead 1 notice nothing."""
    for index in range(3):
        issue(store, index, horizon=11)
    compact(store, START + 2 * DAY)
    assert set(forecast_store.read_forecasts(store, STEP)["lead"].tolist()) == set(range(1, 12))
    assert compact(store, START + 3 * DAY + HOUR).thinned == 1
    assert set(forecast_store.read_forecasts(store, STEP)["lead"].tolist()) == {1, 2, 4, 8, 11}
    assert compact(store, START + 3 * DAY + HOUR) == Compaction()


def test_retention_drops_whole_days_and_what_was_covered(store: Store) -> None:
    """Past the retention the samples go, and the coverage with them, so that a backfill may ask again."""
    with store.database.write() as connection:
        watch = watch_store.sync_watches(connection, [("a", "a")], START)["a"]
        watch_store.add_coverage(connection, watch, START, START + DAY + HOUR, STEP)
    for index in (0, 1440):
        tick(store, index)
        issue(store, index)
    done = compact(store, START + 3 * DAY, window_retention_seconds=2 * DAY, forecast_retention_seconds=10 * DAY)
    assert done.expired == 1
    assert spans(store) == [(DAY, DAY)]
    assert len(store.segments.segments("forecasts")) == 2
    with store.database.read() as connection:
        assert watch_store.coverage(connection, watch) == [(START + DAY, START + DAY + HOUR)]
    done = compact(store, START + 20 * DAY, window_retention_seconds=2 * DAY, forecast_retention_seconds=10 * DAY)
    assert not any(store.segments.segments(dataset) for dataset in DATASETS)
