"""Windows written in any order and compacted at any time read back as a slow overlay says."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_core.storage import windows_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window, grid
from tests.storage.samples import DAY, NOW, START, STEP, SlowOverlay, commit, window


def read(store: Store, fingerprints: list[int], t0: int, t1: int, step: int = STEP) -> Window:
    return windows_store.read_window(store, step, np.array(fingerprints, np.int64), t0, t1)


def test_a_window_comes_back_as_it_was_written(store: Store) -> None:
    """Values, gaps and negative fingerprints survive the round trip bit for bit."""
    values = [[0.1, np.nan, -0.0], [np.nan, 1e-310, 1.7e308]]
    commit(store, windows_store.write_windows(store, STEP, [window([-5, 7], START, START + 2 * STEP, values)]))
    found = read(store, [-5, 7], START, START + 2 * STEP)
    assert found.timestamps.tolist() == [START, START + STEP, START + 2 * STEP]
    np.testing.assert_array_equal(found.values, values)


def test_unknown_series_and_times_are_gaps(store: Store) -> None:
    """A dense answer for whatever is asked; grids of other steps do not mix in."""
    commit(store, windows_store.write_windows(store, STEP, [window([3], START, START + STEP, 1.0)]))
    found = read(store, [2, 3, 4], START - STEP, START + 2 * STEP)
    np.testing.assert_array_equal(found.values[1], [np.nan, 1.0, 1.0, np.nan])
    assert np.isnan(found.values[[0, 2]]).all()
    assert np.isnan(read(store, [3], START, START + STEP, step=30).values).all()


def test_nothing_asked_is_an_empty_window(store: Store) -> None:
    """No series, or a span without a grid point."""
    assert read(store, [], START, START + STEP).values.shape == (0, 2)
    assert read(store, [1], START + 1, START + 2).values.shape == (1, 0)


def test_fingerprints_must_ascend(store: Store) -> None:
    """Duplicates would be filled once and read twice."""
    with pytest.raises(ValueError, match="ascend"):
        read(store, [2, 2], START, START + STEP)


def test_infinities_are_gaps(store: Store) -> None:
    """What is not a number does not enter the store."""
    commit(store, windows_store.write_windows(store, STEP, [window([1], START, START + STEP, [[np.inf, -np.inf]])]))
    assert np.isnan(read(store, [1], START, START + STEP).values).all()


def test_a_later_gap_never_hides_a_sample_and_a_later_sample_wins(store: Store) -> None:
    """A backfill merges; it cannot destroy."""
    for values in ([[1.0, 2.0, np.nan]], [[np.nan, 5.0, 6.0]]):
        commit(store, windows_store.write_windows(store, STEP, [window([1], START, START + 2 * STEP, values)]))
    assert read(store, [1], START, START + 2 * STEP).values.tolist() == [[1.0, 5.0, 6.0]]


def test_watches_of_one_tick_share_a_file_and_a_series(store: Store) -> None:
    """Equal spans become one segment; where two watches have the same series, a sample wins over a gap."""
    one = window([1, 2], START, START + STEP, [[1.0, 1.0], [np.nan, 1.0]])
    two = window([2, 3], START, START + STEP, [[2.0, np.nan], [2.0, 2.0]])
    pending = windows_store.write_windows(store, STEP, [one, two])
    assert len(pending.parts) == 1
    commit(store, pending)
    assert read(store, [1, 2, 3], START, START + STEP).values.tolist() == [[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]]


def test_a_span_over_midnight_is_cut(store: Store) -> None:
    """Each UTC day has its own files, so that it can be compacted on its own; one commit shows both."""
    over = window([1], START - 2 * STEP, START + STEP)
    pending = windows_store.write_windows(store, STEP, [over])
    assert [(part.t0, part.t1) for part in pending.parts] == [(START - 120, START - 60), (START, START + 60)]
    commit(store, pending)
    np.testing.assert_array_equal(read(store, [1], START - 120, START + 60).values, over.values)


def test_many_series_take_the_matrix_path_and_few_the_named_one(sqlite_store: Store) -> None:
    """Large files are read as matrices, or by name when one in eight series or fewer is asked for: the same numbers."""
    store = sqlite_store
    rng = np.random.default_rng(0)
    fingerprints = np.unique(rng.integers(-(2**62), 2**62, 400)).tolist()
    whole = window(fingerprints, START, START + DAY - STEP, rng.normal(size=(len(fingerprints), 1440)))
    whole.values[rng.random(whole.values.shape) < 0.1] = np.nan
    commit(store, windows_store.write_windows(store, STEP, [whole]))
    assert store.segments.segments("windows")[0].rows > 200_000
    for rows in (slice(None), slice(3, 300), slice(0, None, 3), slice(0, None, 100), slice(7, 8)):
        for span in (slice(None), slice(100, 160), slice(1439, None)):
            wanted = whole.rows(np.arange(len(fingerprints))[rows]).columns(span)
            ts = wanted.timestamps
            found = windows_store.read_window(store, STEP, wanted.fingerprints, int(ts[0]), int(ts[-1]))
            np.testing.assert_array_equal(found.values, wanted.values)


FINGERPRINTS = [-9, -2, 1, 4, 30]
LAST = 3 * 3600 // STEP  # steps of the property test: three hours around midnight
SPAN = (START - 3600, START - 3600 + LAST * STEP)


@st.composite
def writes(draw: st.DrawFn) -> list[Window]:
    """A few windows on any part of the span, with gaps."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        own = sorted(draw(st.sets(st.sampled_from(FINGERPRINTS), min_size=1)))
        first = draw(st.integers(0, LAST))
        last = min(LAST, first + draw(st.sampled_from([0, 1, 5, 70])))
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        values = rng.normal(size=(len(own), last - first + 1))
        values[rng.random(values.shape) < 0.3] = np.nan
        found.append(window(own, SPAN[0] + first * STEP, SPAN[0] + last * STEP, values))
    return found


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.one_of(writes(), st.sampled_from(["hours", "days", "garbage"])), min_size=1, max_size=12),
    asked=st.sets(st.sampled_from([*FINGERPRINTS, 77]), min_size=1),
    ends=st.tuples(st.integers(0, LAST), st.integers(0, LAST)),
)
def test_any_history_reads_like_the_slow_overlay(
    steps: list[list[Window] | str], asked: set[int], ends: tuple[int, int]
) -> None:
    """Whatever was written, compacted and collected in whatever order: the dictionary and the store agree."""
    slow = SlowOverlay()
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/s.db", f"{folder}/data") as store:
        store.database.migrate()
        for step in steps:
            if step == "garbage":
                store.segments.collect_garbage(NOW + 10_000, grace_seconds=0)
            elif step == "hours":
                compact(store, SPAN[1] + 1800)
            elif step == "days":
                compact(store, START + 2 * DAY)
            else:
                assert not isinstance(step, str)
                # Equal spans share a file, others are ordered by span; within one tick a series has one value per time.
                for one in step:
                    slow.lay([one])
                    commit(store, windows_store.write_windows(store, STEP, [one], now=NOW))
        t0, t1 = SPAN[0] + min(ends) * STEP, SPAN[0] + max(ends) * STEP
        fingerprints = np.array(sorted(asked), np.int64)
        found = windows_store.read_window(store, STEP, fingerprints, t0, t1)
        np.testing.assert_array_equal(found.values, slow.values(fingerprints, grid(t0, t1, STEP)))
        assert Path(folder, "data").exists() or not slow.samples


def test_threads_share_one_store(sqlite_store: Store) -> None:
    """The sidecar reads from many threads while others write; everybody gets whole answers."""
    store = sqlite_store

    def work(index: int) -> None:
        one = window([index], START, START + 9 * STEP, float(index))
        commit(store, windows_store.write_windows(store, STEP, [one], now=NOW))
        np.testing.assert_array_equal(read(store, [index], START, START + 9 * STEP).values, one.values)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
