import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sentinel_core.monitoring import psi

counts = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(
        st.lists(st.integers(0, 5_000), min_size=bins, max_size=bins),
        st.lists(st.integers(0, 5_000), min_size=bins, max_size=bins),
    )
)


def _slow_psi(baseline: list[int], current: list[int]) -> float:
    """Bin by bin, as the definition reads."""
    used = [(b, c) for b, c in zip(baseline, current, strict=True) if b or c]
    n, m = sum(baseline), sum(current)
    if not n or not m:
        return 0.0
    total = 0.0
    for b, c in used:
        q, p = (b + 0.5) / (n + len(used) / 2), (c + 0.5) / (m + len(used) / 2)
        total += (p - q) * math.log(p / q)
    return total


def _arrays(pair: tuple[list[int], list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(pair[0], float), np.array(pair[1], float)


@given(counts)
def test_psi_equals_the_slow_oracle(pair: tuple[list[int], list[int]]) -> None:
    """PSI is the sum over used bins of (p - q) ln(p / q) with half an event added to each, and never negative."""
    value = float(psi.psi(*_arrays(pair)))
    assert value == pytest.approx(_slow_psi(*pair), abs=1e-12)
    assert value >= 0
    assert (psi.contributions(*_arrays(pair)) >= 0).all()


@given(counts)
def test_identical_histograms_have_no_psi(pair: tuple[list[int], list[int]]) -> None:
    """A histogram compared with itself gives exactly zero."""
    baseline, _ = _arrays(pair)
    assert float(psi.psi(baseline, baseline)) == 0.0


@given(counts, st.randoms(use_true_random=False))
def test_the_order_of_bins_does_not_matter(pair: tuple[list[int], list[int]], random: object) -> None:
    """Permuted bins, and bins that nobody uses in between, give the same PSI and degrees of freedom."""
    baseline, current = _arrays(pair)
    order = list(range(len(baseline)))
    random.shuffle(order)  # type: ignore[attr-defined]
    wide = [np.concatenate([side[order], [0.0, 0.0]]) for side in (baseline, current)]
    assert float(psi.psi(*wide)) == pytest.approx(float(psi.psi(baseline, current)), abs=1e-12)
    assert psi.degrees(*wide) == psi.degrees(baseline, current)


@given(counts)
def test_psi_is_symmetric(pair: tuple[list[int], list[int]]) -> None:
    """It makes no difference which side is the baseline."""
    baseline, current = _arrays(pair)
    assert float(psi.psi(baseline, current)) == pytest.approx(float(psi.psi(current, baseline)), abs=1e-12)


def test_many_histograms_at_once_equal_one_after_the_other() -> None:
    """Leading axes are independent of each other."""
    rng = np.random.default_rng(5)
    baseline, current = rng.poisson(3, (4, 5, 11)).astype(float), rng.poisson(2, (4, 5, 11)).astype(float)
    together = psi.psi(baseline, current)
    for i in range(4):
        for j in range(5):
            assert together[i, j] == pytest.approx(_slow_psi(list(baseline[i, j]), list(current[i, j])), abs=1e-12)


@pytest.mark.parametrize("degrees", range(1, 26))
def test_p_value_is_the_tail_of_chi_squared(degrees: int) -> None:
    """The finite sums equal SciPy's tail, far out too."""
    values = np.concatenate([[0.0], np.geomspace(1e-3, 600, 60)])
    expected = stats.chi2.sf(values, degrees)
    assert psi.p_value(values, np.full(len(values), float(degrees))) == pytest.approx(expected, rel=1e-10, abs=1e-300)


def test_without_degrees_of_freedom_nothing_is_unlikely() -> None:
    """One used bin holds everything on both sides: the p-value is 1 and the interval the value itself."""
    nothing = np.zeros(1)
    assert psi.p_value(np.array([5.0]), nothing) == [1.0]
    assert [end.tolist() for end in psi.interval(nothing, np.ones(1), nothing)] == [[0.0], [0.0]]


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 9, 15, 25])
def test_interval_inverts_noncentral_chi_squared(degrees: int) -> None:
    """By SciPy's exact distribution each end leaves 2.5 % (within 0.5 points), wherever it is not at zero."""
    value, scale = np.geomspace(0.5, 2_000, 40), 0.01
    low, high = psi.interval(value * scale, np.full(40, scale), np.full(40, float(degrees)))
    assert (low <= high).all()
    above = stats.ncx2.sf(value, degrees, np.maximum(low / scale, 1e-12))
    below = stats.ncx2.cdf(value, degrees, np.maximum(high / scale, 1e-12))
    assert np.abs(above[low > 1e-9] - 0.025).max(initial=0) < 0.005
    assert np.abs(below[high > 1e-9] - 0.025).max() < 0.005
    # an end at zero: no noncentrality explains the value that far
    assert (stats.chi2.sf(value, degrees)[low <= 1e-9] > 0.02).all()
    assert (stats.chi2.cdf(value, degrees)[high <= 1e-9] < 0.03).all()


@pytest.mark.parametrize(("n", "m"), [(2_000, 500), (20_000, 4_800)])
@pytest.mark.parametrize("shift", [0.1, 0.3, 0.5])
def test_interval_covers_the_true_psi(n: int, m: int, shift: float) -> None:
    """Of 4,000 simulated windows 93 to 97 % have the true PSI in their interval."""
    rng = np.random.default_rng([n, int(shift * 10)])
    q = np.full(10, 0.1)
    p = np.diff(stats.norm.cdf(stats.norm.ppf(np.linspace(0, 1, 11)) - shift))
    true = float(((p - q) * np.log(p / q)).sum())
    baseline, current = rng.multinomial(n, q, 4_000).astype(float), rng.multinomial(m, p, 4_000).astype(float)
    low, high = psi.interval(psi.psi(baseline, current), np.full(4_000, 1 / n + 1 / m), np.full(4_000, 9.0))
    assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.97


@pytest.mark.parametrize(("n", "m"), [(500, 200), (5_000, 480), (20_000, 4_800)])
def test_noise_is_what_chi_squared_says(n: int, m: int) -> None:
    """Without drift PSI is (B - 1)(1/n + 1/m) on average (within 6 %), and p < 0.01 in about 1 % of windows."""
    rng = np.random.default_rng(n)
    baseline, current = (rng.multinomial(size, np.full(10, 0.1), 20_000).astype(float) for size in (n, m))
    scale = 1 / n + 1 / m
    value = psi.psi(baseline, current)
    assert value.mean() == pytest.approx(9 * scale, rel=0.06)
    assert 0.006 < (psi.p_value(value / scale, np.full(len(value), 9.0)) < 0.01).mean() < 0.016
