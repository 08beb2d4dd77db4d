from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.monitoring import psi
from sentinel_core.monitoring.histograms import WIDTH, Bins, fit_bins, hourly_counts

numbers = st.lists(
    st.one_of(
        st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True),
        st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1.7e308, -1.7e308]),
    ),
    min_size=1,
    max_size=300,
)


def _fit(values: list[float] | np.ndarray, most: int = 10) -> Bins:
    array = np.asarray(values)
    (bins,) = fit_bins(np.zeros(len(array), np.int64), array, [most])
    assert bins is not None
    return bins


def _histogram(bins: Bins, values: list[float] | np.ndarray, fitting: bool = False) -> np.ndarray:
    array = np.asarray(values)
    zeros = np.zeros(len(array), np.int64)
    return hourly_counts([bins], zeros, zeros, array, fitting=fitting).counts[0].astype(float)


def _slow_index(bins: Bins, value: float) -> int:
    if np.isnan(value):
        return len(bins) - 1
    return sum(value > edge for edge in bins.edges)


@given(numbers, st.integers(4, 15), numbers)
def test_every_number_has_its_bin(baseline: list[float], most: int, values: list[float]) -> None:
    """Whatever the baseline: bins fit the width, have a name each, and each value is where the edges say."""
    array = np.array(baseline)
    (bins,) = fit_bins(np.zeros(len(array), np.int64), array, [most])
    if np.isnan(array).all():
        assert bins is None
        return
    assert bins is not None
    assert len(bins) <= WIDTH
    assert np.isfinite(bins.edges).all()
    assert all(one < next_ for one, next_ in pairwise(bins.edges))
    assert len(bins.names({})) == len(bins)
    assert bins.index(np.array(values)).tolist() == [_slow_index(bins, value) for value in values]
    assert Bins.from_json(bins.to_json()) == bins


@given(st.lists(st.integers(-3, 12), min_size=20, max_size=200), st.integers(4, 15))
def test_a_value_that_holds_a_tenth_is_alone(baseline: list[int], most: int) -> None:
    """Nothing shares the bin of a number that a tenth of the baseline is, not even its nearest neighbours."""
    bins = _fit(np.array(baseline, float), most)
    for value, count in Counter(baseline).items():
        if count >= max(2, len(baseline) * 0.1):
            near = np.array([np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)])
            assert len(set(bins.index(near).tolist())) == 3


def test_quantiles_share_a_continuous_baseline_equally() -> None:
    """Ten bins of a thousand distinct numbers hold a hundred each, and none is missing."""
    values = np.random.default_rng(1).lognormal(size=1_000)
    assert _histogram(_fit(values), values)[:11].tolist() == [100.0] * 10 + [0.0]


def test_little_is_left_beside_a_value_of_its_own() -> None:
    """Sixty percent zeros: zero has a bin, the rest four, and no bin holds less than half of what a quantile would."""
    rng = np.random.default_rng(2)
    values = np.where(rng.random(10_000) < 0.6, 0.0, rng.exponential(size=10_000))
    held = _histogram(_fit(values), values)
    assert held[1] == (values == 0).sum()
    assert held[0] == 0  # below zero, open
    assert (held[2:-1][held[2:-1] > 0] >= 500).all()


@pytest.mark.parametrize(
    ("constant", "moved"),
    [(0.5, 0.9), (0.0, 5e-324), (1e15, 1e15 + 0.25), (-1.7e308, 1.7e308), (5e-324, 0.0), (1e-300, 2e-300)],
)
def test_a_constant_that_moves_is_seen(constant: float, moved: float) -> None:
    """However little a constant baseline moves, its PSI is far above any threshold; at rest it is 0."""
    bins = _fit(np.full(500, constant))
    baseline, current = _histogram(bins, np.full(500, constant)), _histogram(bins, np.full(300, moved))
    assert float(psi.psi(baseline, current)) > 5
    assert float(psi.psi(baseline, _histogram(bins, np.full(300, constant)))) == 0


@pytest.mark.parametrize(("offset", "scale"), [(1e12, 1.0), (0.0, 1e-310), (0.0, 1e307), (-1e9, 1e-3)])
def test_offset_and_scale_change_nothing(offset: float, scale: float) -> None:
    """The same shift has the same PSI around a trillion, among subnormal numbers and at the end of the range."""
    rng = np.random.default_rng(3)
    before, after = rng.uniform(-1, 1, 4_000), rng.uniform(-0.5, 1.5, 1_000)
    plain = _fit(before)
    expected = float(psi.psi(_histogram(plain, before), _histogram(plain, after)))
    bins = _fit(before * scale + offset)
    moved = psi.psi(_histogram(bins, before * scale + offset), _histogram(bins, after * scale + offset))
    assert float(moved) == pytest.approx(expected, rel=0.02)


def test_missing_scores_are_drift() -> None:
    """A fifth of the scores missing, where none was before, is a PSI near 1."""
    values = np.random.default_rng(4).normal(size=5_000)
    bins = _fit(values)
    gone = np.where(np.arange(5_000) % 5 == 0, np.nan, values)
    assert float(psi.psi(_histogram(bins, values), _histogram(bins, gone))) > 0.8


def test_infinities_are_numbers_at_the_ends() -> None:
    """Infinite scores lie in the open bins and bring no infinite edge."""
    bins = _fit(np.array([-np.inf] * 50 + [0.0, 1.0, 2.0] * 20 + [np.inf] * 50))
    assert np.isfinite(bins.edges).all()
    assert bins.index(np.array([-np.inf, np.inf])).tolist() == [0, len(bins) - 2]


def test_labels_have_bins_by_frequency() -> None:
    """The most frequent labels come first, then other, new and missing; a label of one share is other, not a bin."""
    values = np.array([11] * 500 + [22] * 300 + [-33] * 196 + [44] * 4 + [0] * 10)
    bins = _fit(values)
    assert bins.labels == (11, 22, -33)
    assert bins.names({11: "approve", 22: "refuse"}) == [
        "approve", "refuse", "label ffffffffffffffdf", "other", "new", "missing",
    ]  # fmt: skip
    assert bins.index(np.array([22, 44, 55, 0, -33])).tolist() == [1, 3, 4, 5, 2]
    assert Bins.from_json(bins.to_json()) == bins


def test_there_are_at_most_twenty_labels() -> None:
    """Of fifty equally frequent labels twenty have a bin, and the rest is other."""
    values = np.repeat(np.arange(1, 51), 20)
    assert len(_fit(values)) == 23
    assert _histogram(_fit(values), values)[20] == 600


def test_a_baseline_of_one_label_sees_another() -> None:
    """One label throughout has no PSI with itself and a large one with any other."""
    bins = _fit(np.full(400, 7))
    baseline = _histogram(bins, np.full(400, 7), fitting=True)
    assert float(psi.psi(baseline, _histogram(bins, np.full(300, 7)))) == 0
    assert float(psi.psi(baseline, _histogram(bins, np.array([7] * 150 + [9] * 150)))) > 1


def test_rare_labels_that_the_baseline_missed_are_no_drift() -> None:
    """Two thousand labels by Zipf's law without drift: PSI stays near its noise floor thanks to labels seen once."""
    rng = np.random.default_rng(6)
    shares = 1 / np.arange(1, 2_001)
    draw = rng.choice(np.arange(1, 2_001), (20, 5_500), p=shares / shares.sum())
    values, naive = [], []
    for row in draw:
        bins = _fit(row[:5_000])
        current = _histogram(bins, row[5_000:])
        values.append(float(psi.psi(_histogram(bins, row[:5_000], fitting=True), current)))
        naive.append(float(psi.psi(_histogram(bins, row[:5_000]), current)))
    assert np.mean(values) < 0.08
    assert np.mean(naive) > 4 * np.mean(values)


@pytest.mark.parametrize("hours", [24, 10**8])
def test_hourly_counts_equal_the_slow_oracle(hours: int) -> None:
    """Rows of many subjects in any order are counted by subject, hour and bin; subjects without bins fall away."""
    rng = np.random.default_rng(7)
    subject, hour = rng.integers(0, 5, 3_000), rng.integers(0, 24, 3_000) * (hours // 24)
    values = np.where(rng.random(3_000) < 0.1, np.nan, rng.normal(size=3_000))
    values[subject == 3] = np.nan
    bins = fit_bins(subject, values, [10, 4, 15, 10, 10])
    assert bins[3] is None
    expected: Counter[tuple[int, int, int]] = Counter()
    for one, at, value in zip(subject.tolist(), hour.tolist(), values.tolist(), strict=True):
        chosen = bins[one]
        if chosen is not None:
            expected[one, at, _slow_index(chosen, value)] += 1
    found = hourly_counts(bins, subject, hour, values)
    assert found.counts.sum() == expected.total()
    for one, at, row in zip(found.subject.tolist(), found.hour.tolist(), found.counts, strict=True):
        assert {i: c for i, c in enumerate(row.tolist()) if c} == {
            key[2]: count for key, count in expected.items() if key[:2] == (one, at)
        }
    order = np.lexsort((found.hour, found.subject))
    assert (order == np.arange(len(order))).all()


def test_nothing_counts_as_nothing() -> None:
    """No rows, or none with bins, give no histograms."""
    none = np.empty(0, np.int64)
    assert len(hourly_counts([None], none, none, np.empty(0)).counts) == 0
    assert len(hourly_counts([None], np.zeros(3, np.int64), np.arange(3), np.ones(3)).counts) == 0
    assert fit_bins(none, np.empty(0), [10, 10]) == [None, None]
