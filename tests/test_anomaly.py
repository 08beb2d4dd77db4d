"""Anomaly scores: comparable across metrics, quiet after an alarm."""

import numpy as np

from sentinel_core.anomaly import scores

QUIET = np.zeros((1, 4))


def one(errors: list[float], widths: list[float], earlier: np.ndarray = QUIET) -> float:
    [score] = scores(np.array([errors]), np.array([widths]), earlier)
    return float(score)


def test_the_edge_of_the_bounds_is_one_whatever_the_metrics_unit() -> None:
    """What lies on the bound of every lead scores 1, in bytes as in shares; as forecast is 0."""
    widths = np.array([[1.0, 2.0, 4.0], [1e9, 2e9, 4e9]])
    assert np.allclose(scores(-widths, widths, np.zeros((2, 4))), 1)
    assert np.allclose(scores(0 * widths, widths, np.zeros((2, 4))), 0)


def test_a_series_that_never_moved_scores_nothing_until_it_moves() -> None:
    """Bounds without a width are no division by zero."""
    assert one([0.0, 0.0], [0.0, 0.0]) == 0
    assert 1 < one([1e-9, 1e-9], [0.0, 0.0]) < np.inf


def test_leads_that_are_not_known_say_nothing() -> None:
    """Of forecasts issued now and then some leads are missing; without any there is no score."""
    assert one([np.nan, 3.0, np.nan], [1.0, 2.0, np.nan]) == 1.5
    assert np.isnan(one([np.nan], [1.0]))


def test_an_alarm_is_followed_by_quiet_unless_it_gets_worse() -> None:
    """What lasts stays at or below 1; what exceeds the alarm is one of its own; after the quiet it counts again."""
    after = np.array([[np.nan, 0.3, 3.0, 0.9]])
    assert one([3.0], [1.0], after) <= 1
    assert one([2.0], [1.0], after) <= 1
    assert one([4.0], [1.0], after) == 4
    assert one([2.0], [1.0], after[:, :2]) == 2
