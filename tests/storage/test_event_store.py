"""Events, counts and scores in segments."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sentinel_core.storage import event_store, model_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.event_store import BINS, PSI_COLUMNS, WIDTH, Wanted
from sentinel_core.storage.model_store import BaselineRow
from sentinel_core.storage.segments import DATASETS, Pending
from sentinel_core.storage.store import Store

HOUR, DAY = 3_600, 86_400
START = 1_767_225_600


def commit(store: Store, *pendings: Pending) -> None:
    with store.database.write() as conn:
        store.segments.commit(conn, list(pendings))


def events(model: list[int], ts: list[int], ids: list[int] | None = None) -> dict[str, NDArray[Any]]:
    count = len(ts)
    return {
        "model": np.array(model, np.int32),
        "ts": np.array(ts, np.int64),
        "id": np.array(ids or [0] * count, np.int64),
        "score": np.arange(count, dtype=float),
        "number": np.full(count, np.nan),
        "label": np.zeros(count, np.int64),
    }


def counts(store: Store, model: list[int], baseline: list[int], hour: list[int], first: list[int]) -> Pending:
    table = np.zeros((len(model), WIDTH), np.int32)
    table[:, 0] = first
    table[:, 3] = 1
    arrays = (np.array(column, np.int64) for column in (model, [0] * len(model), baseline, hour))
    return event_store.write_counts(store, HOUR, *arrays, table, START)


def wanted(model: list[int], version: list[int], block: int = DAY, since: int = 0) -> Wanted:
    size = len(model)
    return Wanted(np.array(model), np.array(version), np.full(size, block), np.full(size, since))


def serving(store: Store, versions: list[int]) -> list[int]:
    """Models that have these versions as their newest."""
    with store.database.write() as conn:
        names = [(1, f"m{index}") for index in range(len(versions))]
        ids = [model_store.register(conn, names, 0.0)[name].id for name in names]
        for one, newest in zip(ids, versions, strict=True):
            for version in range(1, newest + 1):
                row = BaselineRow(one, version, "sliding", 0, 1, "{}", "x", "x", 0.0)
                model_store.add_baselines(conn, [row])
    return ids


def test_events_come_back_by_model_and_time(sqlite_store: Store) -> None:
    """Rows of some models in a span, whichever day they lie in; the end does not belong to it."""
    commit(
        sqlite_store,
        event_store.write_events(
            sqlite_store, events([3, 1, 2, 1, 1], [START, START + DAY, START, START, START + 2 * DAY]), START
        ),
    )
    assert len(sqlite_store.segments.segments("events")) == 3
    found = event_store.read_events(sqlite_store, START, START + 2 * DAY, ["model", "ts"], [1, 3])
    assert sorted(zip(found["model"].tolist(), found["ts"].tolist(), strict=True)) == [
        (1, START),
        (1, START + DAY),
        (3, START),
    ]
    assert not len(event_store.read_events(sqlite_store, START, START + DAY, ["ts"], [])["ts"])


def test_stored_ids_are_found_in_their_hours(sqlite_store: Store) -> None:
    """Digests are looked up among the segments of the events' own times; 0 is nobody's."""
    commit(
        sqlite_store,
        event_store.write_events(sqlite_store, events([1] * 3, [START, START + DAY, START], [5, 6, 0]), START),
    )
    times = np.array([START + 10, START + DAY, START + DAY, START])
    found = event_store.stored_ids(sqlite_store, times, np.array([5, 6, 7, 0]))
    assert sorted(found.tolist()) == [5, 6]
    assert not len(event_store.stored_ids(sqlite_store, times[1:2], np.array([5])))
    assert not len(event_store.stored_ids(sqlite_store, times, np.zeros(4, np.int64)))


def test_blocks_are_sums_of_hours(sqlite_store: Store) -> None:
    """Rows of one hour add up over files; blocks count back from the end; other versions and earlier times are out."""
    commit(sqlite_store, counts(sqlite_store, [1, 1, 2], [1, 1, 4], [START, START + HOUR, START], [10, 20, 7]))
    commit(sqlite_store, counts(sqlite_store, [1, 1], [1, 2], [START, START], [100, 1_000]))
    end = START + 2 * HOUR
    found = event_store.block_sums(sqlite_store, HOUR, START, end, wanted([1, 2], [1, 4], HOUR), 4)
    rows = sorted(zip(found.model.tolist(), found.age.tolist(), found.counts[:, [0, 3]].tolist(), strict=True))
    assert rows == [(1, 0, [20.0, 1.0]), (1, 1, [110.0, 2.0]), (2, 1, [7.0, 1.0])]
    later = event_store.block_sums(sqlite_store, HOUR, START, end, wanted([1], [1], DAY, since=START + HOUR), 4)
    assert later.counts[:, 0].tolist() == [20.0]
    assert not len(event_store.block_sums(sqlite_store, HOUR, START, end, wanted([], []), 4).model)


def test_counts_stay_exact_through_compaction(sqlite_store: Store) -> None:
    """Many small files become one with the same sums; counts of former baselines and deleted models go."""
    one, two = serving(sqlite_store, [2, 1])
    for hour in range(24):
        at = START + hour * HOUR
        commit(sqlite_store, counts(sqlite_store, [one, one, two, 99], [1, 2, 1, 1], [at] * 4, [5, hour, 3, 9]))
        commit(sqlite_store, counts(sqlite_store, [one], [2], [at], [1]))
    asked = START, START + DAY, wanted([one, two], [2, 1])
    before = event_store.block_sums(sqlite_store, HOUR, *asked, 4)
    done = compact(sqlite_store, START + DAY + HOUR)
    assert (done.merged, done.written) == (48, 1)
    (segment,) = sqlite_store.segments.segments("counts")
    assert segment.rows == 48
    after = event_store.block_sums(sqlite_store, HOUR, *asked, 4)
    order = np.argsort(before.model), np.argsort(after.model)
    assert (before.counts[order[0]] == after.counts[order[1]]).all()
    assert compact(sqlite_store, START + DAY + HOUR).written == 0


def test_counts_of_a_former_baseline_are_dropped(sqlite_store: Store) -> None:
    """A lone file is rewritten too where a newer version serves, and where it holds hours past their retention."""
    (one,) = serving(sqlite_store, [2])
    commit(sqlite_store, counts(sqlite_store, [one] * 3, [1, 2, 2], [START, START, START + 50 * DAY], [1, 2, 3]))
    assert compact(sqlite_store, START + 2 * HOUR).thinned == 1
    assert sum(segment.rows for segment in sqlite_store.segments.segments("counts")) == 2
    compact(sqlite_store, START + 60 * DAY, count_retention_seconds=20 * DAY)
    (segment,) = sqlite_store.segments.segments("counts")
    assert (segment.rows, segment.t0) == (1, START + 50 * DAY)


def test_events_are_merged_and_expire_by_day(sqlite_store: Store) -> None:
    """Drains of a day become one file with every event; past the retention whole days go."""
    for minute in range(5):
        rows = events([2, 1], [START + minute * 60, START + minute * 60], [minute + 1, 0])
        commit(sqlite_store, event_store.write_events(sqlite_store, rows, START))
    assert compact(sqlite_store, START + 2 * DAY).merged == 5
    (segment,) = sqlite_store.segments.segments("events")
    assert segment.rows == 10
    found = event_store.read_events(sqlite_store, START, START + DAY, ["model", "id"])
    assert found["model"].tolist() == [1] * 5 + [2] * 5
    assert sorted(found["id"].tolist()) == [0] * 5 + [1, 2, 3, 4, 5]
    assert compact(sqlite_store, START + 3 * DAY, event_retention_seconds=1.5 * DAY).expired == 1


def scores(model: list[int], ts: list[int], psi: float) -> dict[str, NDArray[Any]]:
    rows = {name: np.zeros(len(ts), kind) for name, kind in DATASETS["psi"].items()}
    return rows | {
        "model": np.array(model, np.int32),
        "ts": np.array(ts, np.int64),
        "psi": np.full(len(ts), psi),
    }


def test_the_newest_evaluation_of_an_hour_counts(sqlite_store: Store) -> None:
    """A later row replaces an earlier one of the same model, output and hour, before and after a compaction."""
    hours = [START + HOUR, START + 2 * HOUR]
    commit(sqlite_store, event_store.write_psi(sqlite_store, HOUR, scores([1, 1], hours, 0.1), START))
    commit(sqlite_store, event_store.write_psi(sqlite_store, HOUR, scores([2, 1], hours, 0.2), START))
    for _ in range(2):
        found = event_store.read_psi(sqlite_store, HOUR, START, START + DAY, model_ids=[1])
        assert set(found) == set(PSI_COLUMNS)
        assert found["ts"].tolist() == hours
        assert found["psi"].tolist() == [0.1, 0.2]
        compact(sqlite_store, START + 2 * DAY)
    (segment,) = sqlite_store.segments.segments("psi")
    assert segment.rows == 3


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_is_taken_out_of_every_segment(store: Store, kept: bool) -> None:
    """Files with rows of it are rewritten without them, or dropped where nothing is left; others stay as they are."""
    other = 2 if kept else 1
    commit(
        store,
        event_store.write_events(store, events([1, other, 1], [START, START, START + DAY]), START),
        counts(store, [1, other], [1, 1], [START, START], [1, 2]),
        event_store.write_psi(store, HOUR, scores([3], [START], 0.1), START),
    )
    untouched = store.segments.segments("psi")
    removal = event_store.without_model(store, 1, START)
    assert (removal.segments, removal.rows) == (3, 3 if kept else 5)
    with store.database.write() as conn:
        store.segments.commit(conn, [removal.pending])
        store.segments.drop(conn, removal.drop, START)
    assert len(store.segments.segments("events")) == len(store.segments.segments("counts")) == int(kept)
    assert store.segments.segments("psi") == untouched
    assert not event_store.without_model(store, 1, START).rows


def test_equal_counts_add_up() -> None:
    """Rows of one key become one; the order of the rows does not matter, and none make none."""
    rows = {
        "model": np.array([2, 1, 2], np.int32),
        "output": np.zeros(3, np.int8),
        "baseline": np.ones(3, np.int32),
        "ts": np.array([7, 7, 7]),
        **{name: np.array([1, 2, 3], np.int32) for name in BINS},
    }
    added = event_store.add_up(rows)
    assert added["model"].tolist() == [1, 2]
    assert added["n25"].tolist() == [2, 4]
    assert not len(event_store.add_up({name: column[:0] for name, column in rows.items()})["ts"])
