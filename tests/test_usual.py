import numpy as np
import pytest

from sentinel_core import drift, usual
from sentinel_core.windows import Window

DAY = 48


def _window(values: np.ndarray) -> Window:
    return Window(np.arange(len(values)), np.arange(values.shape[1]) * 1800, values, 1800)


def _measured(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return usual.measure(errors, 480, _window(values), DAY, drift_window=48)


def test_what_is_usual_equals_the_slow_oracle() -> None:
    """Windows' mean errors vary by SPREAD of their mean, and a series is SEASONAL off its day before."""
    rng = np.random.default_rng(0)
    values, errors = rng.normal(size=(3, 7 * DAY)), rng.normal(size=(3, 80, 2)) * rng.uniform(1, 5, (3, 1, 1))
    values[1, 40:60] = errors[1, 3] = np.nan
    found = _measured(values, errors)
    for row in range(3):
        units = [np.nanmean(np.abs(one) / np.nanmean(np.abs(errors[row]), axis=0)) if np.isfinite(one).all() else np.nan
                 for one in errors[row]]  # fmt: skip
        own = np.std([np.nanmean(units[k : k + 8]) for k in range(0, 80, 8)], ddof=1)
        drawn = (9 * own**2 + usual.ASSUMED_WINDOWS * usual.ASSUMED_SPREAD**2) / (9 + usual.ASSUMED_WINDOWS)
        off = np.abs(values[row, DAY:] - values[row, :-DAY])
        means = [np.nanmean(off[k : k + 48]) for k in range(0, 6 * DAY, 48)]
        spread = max(np.std(means), usual.LEAST_SEASONAL_SPREAD * np.mean(means))
        assert found[row] == pytest.approx([np.sqrt(drawn), np.mean(means), spread])


@pytest.mark.parametrize(("samples", "origins"), [(40, 0), (40, 1), (200, 11)])
def test_little_history_has_what_is_assumed(samples: int, origins: int) -> None:
    """Without a day before there is no seasonal error, and few origins say nothing about windows."""
    values = np.random.default_rng(1).normal(size=(2, samples))
    found = _measured(values, np.ones((2, origins, 3)))
    np.testing.assert_array_equal(found[:, usual.SPREAD], usual.ASSUMED_SPREAD)
    assert np.isnan(found[:, usual.SEASONAL :]).all() == (samples < 2 * DAY)


def test_a_constant_series_can_be_judged() -> None:
    """Nothing divides by zero where a series has never moved: its first move is drift, its standing still is none."""
    expected = _measured(np.full((2, 7 * DAY), 5.0), np.zeros((2, 80, 2)))
    scored, window = np.full(2, 48), np.full(2, 48)
    still, moved = drift.strength(np.array([0.0, 1e12]), np.array([0.0, 5.0]), scored, window, expected)
    assert still == 0
    assert np.isfinite(moved)
    assert moved > 1e6


def test_strength_adds_what_is_worse_and_what_is_farther() -> None:
    """Each counts in its own standard deviations, wider for few scored steps; a spread never measured is assumed."""
    expected = np.array([[0.5, 2.0, 0.5], [0.5, 2.0, 0.5], [0.5, np.nan, np.nan], [np.nan, 2.0, 0.5]])
    scaled, seasonal, scored = np.full(4, 2.0), np.full(4, 3.0), np.array([60, 15, 60, 60])
    found = drift.strength(scaled, seasonal, scored, np.full(4, 60), expected)
    np.testing.assert_allclose(found, [4.0, 2.0, 2.0, 2.0 + 1 / usual.ASSUMED_SPREAD])
    better = drift.strength(np.array([0.2]), np.array([0.1]), scored[:1], np.array([60]), expected[:1])
    assert better[0] == 0


def test_what_is_no_worse_than_free_is_finetuned_at_most() -> None:
    """High drift retrains only what a forecast that costs nothing has outdone."""
    four, judged = np.full(2, 4.0), np.ones(2, bool)
    found = drift.severity(np.full(2, 9.0), judged, four, four, np.array([True, False]))
    assert found.tolist() == [drift.HIGH, drift.LOW]
    auto, few = np.array([True, False]), np.full(2, drift.MIN_SCORED)
    assert drift.judged(few, np.full(2, 60), auto).tolist() == [False, True]
