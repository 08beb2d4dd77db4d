"""Bounds hold what they promise, on residuals whose distribution is known."""

from collections.abc import Callable

import numpy as np
import pytest

from sentinel_core import intervals

LEADS = 12


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(4, size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(size=shape) - 1


def residuals(draw: Callable[..., np.ndarray], rng: np.random.Generator, scale: np.ndarray, origins: int) -> np.ndarray:
    """Residuals that grow with the lead as a random walk's do, each series on its own scale."""
    return scale[:, None, None] * np.cumsum(draw(rng, (len(scale), origins, LEADS)), axis=2)


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("series", "origins"), [(1, 48), (1, 8), (30, 3), (30, 8), (30, 48), (200, 200)])
def test_coverage(series: int, origins: int, level: float, draw: Callable[..., np.ndarray]) -> None:
    """Fresh residuals fall inside as often as the level says, or a little more: 92 to 98 % for 95 %, 78 to 86 for 80.

    The bounds allow for change that these residuals, all drawn alike, do not have.
    """
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(max(1, 300 // series)):
        scale = np.exp(2 * rng.normal(size=series))
        offsets = intervals.offsets(residuals(draw, rng, scale, origins), level)
        inside.append(intervals.coverage(residuals(draw, rng, scale, 100), offsets))
    fewest, most = {0.8: (0.78, 0.86), 0.95: (0.92, 0.98)}[level]
    assert fewest <= np.mean(inside) <= most


def test_every_lead_is_covered_alike() -> None:
    """Coverage does not hide a lead that is too narrow behind one that is too wide."""
    rng = np.random.default_rng(1)
    scale = np.ones(100)
    offsets = intervals.offsets(residuals(normal, rng, scale, 100), 0.95)
    fresh = residuals(normal, rng, scale, 200)
    per_lead = [intervals.coverage(fresh[:, :, k : k + 1], offsets[:, k : k + 1]) for k in range(LEADS)]
    assert min(per_lead) > 0.93
    assert max(per_lead) < 0.98


def test_one_gigantic_series_leaves_the_others_their_bounds() -> None:
    """Where a series' residuals are too large to be squared, the other series' bounds are as without it."""
    rng = np.random.default_rng(2)
    errors = residuals(normal, rng, np.ones(41), 48)
    among = errors * np.where(np.arange(41) == 0, 1e200, 1.0)[:, None, None]
    np.testing.assert_allclose(intervals.offsets(among, 0.95)[1:], intervals.offsets(errors, 0.95)[1:], rtol=1e-9)


def test_width_rises_with_the_lead() -> None:
    """The scale of a residual never falls with the lead, so the bounds open (but for the odd quantile)."""
    rng = np.random.default_rng(2)
    width = np.ptp(intervals.offsets(residuals(heavy, rng, np.ones(50), 24), 0.95), axis=2)
    assert np.all(width[:, -1] > 1.5 * width[:, 0])
    assert np.mean(np.diff(width, axis=1) >= 0) > 0.85


def test_bounds_scale_with_the_series() -> None:
    """A series in other units has the same bounds in those units, from 1e-9 to 1e12."""
    errors = residuals(normal, np.random.default_rng(3), np.ones(1), 20)
    one = intervals.offsets(errors, 0.9)
    for scale in (1e-9, 1e12):
        np.testing.assert_allclose(intervals.offsets(scale * errors, 0.9), scale * one, rtol=1e-9)


def test_gaps_do_not_count() -> None:
    """Unknown residuals leave the bounds to the known ones."""
    rng = np.random.default_rng(4)
    errors = residuals(normal, rng, np.ones(40), 60)
    holes = np.where(rng.random(errors.shape) < 0.3, np.nan, errors)
    np.testing.assert_allclose(intervals.offsets(holes, 0.9), intervals.offsets(errors, 0.9), atol=2.5)


def test_nothing_known_is_no_width() -> None:
    """Without residuals, and with residuals of 0, the offsets are 0."""
    empty = np.full((2, 5, 3), np.nan)
    empty[1] = 0.0
    np.testing.assert_array_equal(intervals.offsets(empty, 0.95), np.zeros((2, 3, 2)))
    np.testing.assert_array_equal(intervals.offsets(np.empty((2, 0, 3)), 0.95), np.zeros((2, 3, 2)))
    assert np.isnan(intervals.coverage(empty[:1], np.zeros((1, 3, 2))))


def test_a_single_origin_gives_bounds() -> None:
    """The shortest history that can be trained on has one origin: its bounds are finite and have a width."""
    offsets = intervals.offsets(residuals(normal, np.random.default_rng(5), np.ones(3), 1), 0.95)
    assert np.isfinite(offsets).all()
    assert np.all(offsets[:, :, 0] < offsets[:, :, 1])


def test_quantiles_agree_with_a_loop() -> None:
    """A series' own quantiles are numpy's at the widened rank, series by series, over what is known."""
    rng = np.random.default_rng(6)
    units = rng.normal(size=(5, 30, 4))
    units[rng.random(units.shape) < 0.2] = np.nan
    found = intervals._own_quantiles(units, np.full(5, 30), np.array([0.1, 0.9]))
    for row in range(5):
        known = units[row][np.isfinite(units[row])]
        np.testing.assert_allclose(found[row], np.quantile(known, [1 - 0.9 * 31 / 30, 0.9 * 31 / 30]))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level: float) -> None:
    """A level outside (0, 1) is refused with an example."""
    with pytest.raises(ValueError, match=r"such as 0\.95"):
        intervals.offsets(np.zeros((1, 1, 1)), level)


def test_some_leads_speak_for_those_between() -> None:
    """Residuals of a few leads give bounds at every lead up to the last, close to those from all of them."""
    rng = np.random.default_rng(8)
    errors = residuals(normal, rng, np.ones(60), 100)
    measured = np.array([1, 3, 6, 12])
    some = intervals.offsets(errors[:, :, measured - 1], 0.9, measured)
    every = intervals.offsets(errors, 0.9)
    assert some.shape == every.shape
    np.testing.assert_allclose(np.ptp(some, axis=2), np.ptp(every, axis=2), rtol=0.35)
    fresh = residuals(normal, rng, np.ones(60), 200)
    assert 0.87 < intervals.coverage(fresh, some) < 0.94
    assert intervals.offsets(errors[:, :0, :4], 0.9, measured).shape == (60, 12, 2)


@pytest.mark.parametrize("keep", [0.0, 0.9, 0.98])
def test_neighbouring_origins_that_say_the_same_count_as_few(keep: float) -> None:
    """Bounds from residuals that wander from origin to origin hold what comes later; real ones wander farther."""
    rng = np.random.default_rng(9)
    n, origins = 200, 300
    noise = rng.normal(size=(n, origins))
    errors = np.empty((n, origins, 1))
    state = noise[:, 0]
    for k in range(origins):
        state = keep * state + np.sqrt(1 - keep**2) * noise[:, k]
        errors[:, k, 0] = state
    told = intervals._told(errors[:, :, 0])
    assert told == pytest.approx((1 - keep) / (1 + keep), abs=0.03)
    known, later = errors[:, :100], errors[:, 200:]
    inside = intervals.coverage(later, intervals.offsets(known, 0.8))
    assert 0.76 < inside < 0.93, inside


def test_levels_at_once_are_those_of_each() -> None:
    """Bounds of several levels have what each would have alone."""
    errors = residuals(heavy, np.random.default_rng(10), np.ones(20), 30)
    for level, found in zip((0.8, 0.95), intervals.of_levels(errors, [0.8, 0.95]), strict=True):
        np.testing.assert_allclose(found, intervals.offsets(errors, level))


def test_a_single_origin_borrows_how_the_scale_rises() -> None:
    """The shortest histories have one residual a lead: the first lead of each is judged by the others of its series."""
    rng = np.random.default_rng(11)
    scale = np.exp(2 * rng.normal(size=200))
    offsets = intervals.offsets(residuals(normal, rng, scale, 1), 0.95)
    fresh = residuals(normal, rng, scale, 200)
    first = intervals.coverage(fresh[:, :, :1], offsets[:, :1])
    assert 0.92 < first < 0.98, first


def test_an_accident_of_one_series_does_not_widen_the_others() -> None:
    """Where one of three series once was a thousand times as far off, the others keep bounds like those without it."""
    errors = np.random.default_rng(3).normal(size=(3, 48, 6))
    calm = intervals.offsets(errors, 0.95)
    errors[0, 10:15] -= 3_000.0
    assert np.abs(intervals.offsets(errors, 0.95)[1:]).max() < 3 * np.abs(calm[1:]).max()
