"""Which sample stands for a time, against a loop that is obviously right."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import bounds, look_back, to_samples, within
from sentinel_core.promql.values import STALE, Labels, Samples, Vector, is_stale

Row = list[tuple[int, float]]  # one series: (ms, value), ascending


def named(count: int) -> list[Labels]:
    return [(("__name__", "x"), ("i", str(i))) for i in range(count)]


def samples_of(rows: list[Row], lookback: int = 300_000) -> Samples:
    return Samples.of(
        named(len(rows)),
        [np.array([at for at, _ in row], np.int64) for row in rows],
        [np.array([value for _, value in row], float) for row in rows],
        lookback,
    )


def answer(vector: Vector) -> list[list[float | None]]:
    return [
        [value if there else None for value, there in zip(*row, strict=True)]
        for row in zip(vector.values.tolist(), vector.present.tolist(), strict=True)
    ]


def slow(row: Row, time: int, lookback: int, timestamps: bool) -> float | None:
    known = [(at, value) for at, value in row if time - lookback < at <= time]
    if not known or is_stale(np.array([known[-1][1]]))[0]:
        return None
    return known[-1][0] / 1000 if timestamps else known[-1][1]


VALUES = st.sampled_from([1.0, 2.5, math.inf, STALE])
ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 60), VALUES), min_size=1, max_size=8, unique_by=lambda one: one[0]).map(sorted),
    max_size=4,
)
GRID = st.builds(
    lambda start, step, steps: start + step * np.arange(steps),
    st.integers(-5, 70),
    st.integers(1, 20),
    st.integers(1, 6),
)


@given(ROWS, GRID, st.integers(1, 40), st.booleans())
def test_the_newest_sample_within_the_look_back_stands_for_a_time(
    rows: list[Row], times: np.ndarray, lookback: int, timestamps: bool
) -> None:
    """A time has the newest sample of time - look-back < t <= time, unless that is a stale marker."""
    vector = look_back(samples_of(rows, lookback), times, Budget(), timestamps=timestamps)
    assert answer(vector) == [[slow(row, t, lookback, timestamps) for t in times.tolist()] for row in rows]
    assert not vector.nameless.any()


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True).map(sorted),
    st.integers(1, 3),
    GRID,
    st.integers(1, 40),
)
def test_series_that_share_their_times_are_answered_alike(
    at: list[int], count: int, times: np.ndarray, lookback: int
) -> None:
    """Series of the same times, which are looked up once, have what each would have alone."""
    rows = [[(one, float(one + series)) for one in at] for series in range(count)]
    together = answer(look_back(samples_of(rows, lookback), times, Budget()))
    assert together == [[slow(row, t, lookback, False) for t in times.tolist()] for row in rows]


def test_series_without_samples_have_no_value() -> None:
    """A series may be there without samples, alone, before or after others."""
    for rows in ([], [[]], [[], [(0, 1.0)], []]):
        vector = look_back(samples_of(rows), np.array([0]), Budget())
        assert vector.present.sum() == sum(map(len, rows))


def test_every_series_has_its_own_look_back() -> None:
    """An hourly forecast stands for an hour beside a scraped series that stands for five minutes."""
    row = [(0, 1.0)]
    samples = samples_of([row, row])
    samples.lookback[:] = [300_000, 3_600_000]
    times = np.array([0, 299_999, 300_000, 3_599_999, 3_600_000])
    present = [look_back(samples, times[i : i + 1], Budget()).present[:, 0].tolist() for i in range(len(times))]
    assert present == [[True, True], [True, True], [False, True], [False, True], [False, False]]


@given(ROWS, GRID, st.integers(1, 40))
def test_bounds_hold_what_lies_in_a_range(rows: list[Row], times: np.ndarray, span: int) -> None:
    """A range has the samples of time - span < t <= time but for stale markers; its end is in it, its start is not."""
    kept = within(samples_of(rows), int(times[0]) - span, int(times[-1]))
    found = {
        (dict(labels)["i"], time): kept.times[lo:hi].tolist()
        for labels, los, his in zip(kept.labels, *bounds(kept, times, span), strict=True)
        for time, lo, hi in zip(times.tolist(), los, his, strict=True)
    }
    for i, row in enumerate(rows):
        fresh = [at for at, value in row if not math.isnan(value)]
        for time in times.tolist():
            assert found.get((str(i), time), []) == [at for at in fresh if time - span < at <= time]


def test_ranges_that_all_end_at_one_time_are_the_same() -> None:
    """An @ modifier gives every step the same range."""
    lo, hi = bounds(samples_of([[(0, 1.0), (10, 2.0)], [(5, 1.0)]]), np.array([9, 9, 9]), 9)
    assert (lo.tolist(), hi.tolist()) == ([[1, 1, 1], [2, 2, 2]], [[1, 1, 1], [3, 3, 3]])


def test_what_is_within_leaves_series_out_that_have_nothing_there() -> None:
    """Stale markers and samples outside go, and so does a series that had no others."""
    kept = within(samples_of([[(1, STALE), (2, 7.0)], [(0, 1.0), (1, STALE)], []], 60_000), 0, 2)
    assert kept.labels == (named(3)[0],)
    assert (kept.offsets.tolist(), kept.times.tolist(), kept.values.tolist()) == ([0, 1], [2], [7.0])
    assert kept.lookback.tolist() == [60_000]


@given(ROWS, GRID)
def test_a_vector_becomes_samples_at_its_steps(rows: list[Row], times: np.ndarray) -> None:
    """A range over a subquery has one sample for each step at which the expression has a value."""
    vector = look_back(samples_of(rows), times, Budget())
    samples = to_samples(vector, times)
    assert samples.labels == vector.labels
    for i, row in enumerate(answer(vector)):
        span = slice(samples.offsets[i], samples.offsets[i + 1])
        pairs = zip(samples.times[span].tolist(), samples.values[span].tolist(), strict=True)
        assert list(pairs) == [(t, v) for t, v in zip(times.tolist(), row, strict=True) if v is not None]


def test_more_values_than_allowed_are_refused_before_they_are_made() -> None:
    """Two series at two steps are four values, which a budget of three has not."""
    with pytest.raises(ExecutionError, match="too many samples"):
        look_back(samples_of([[(0, 1.0)], [(0, 1.0)]]), np.array([0, 1]), Budget(cells=3))
