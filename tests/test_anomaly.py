"""Anomaly scores: comparable across metrics, quiet after an alarm, few where nothing happens."""

import numpy as np

from sentinel_core.anomaly import scores, widths

LEADS = 12


def over_time(distances: np.ndarray, quiet: int = 12, unit: float = 1.0) -> np.ndarray:
    """Scores [n, steps] of values that all leads [n, steps, leads] say are so many bounds away."""
    said = np.zeros((len(distances), 0))
    for now in range(distances.shape[1]):
        errors = unit * distances[:, now]
        fresh = scores(errors, np.full_like(errors, unit), said[:, max(0, now - quiet) :])
        said = np.append(said, fresh[:, None], axis=1)
    return said


def agreed(*distances: float) -> np.ndarray:
    """One series that is so far out at each step, by all of its leads."""
    return np.repeat(np.array(distances)[None, :, None], LEADS, axis=2)


def test_what_stays_at_the_edge_of_the_bounds_scores_one_whatever_the_metrics_unit() -> None:
    """In bytes as in shares, above as below; what is as forecast scores 0."""
    edge = agreed(*[-1.0] * 40)
    assert np.allclose(over_time(edge)[:, -1], 1, atol=1e-4)
    assert np.allclose(over_time(edge), over_time(edge, unit=1e9))
    assert np.all(over_time(0 * edge) == 0)


def test_a_single_value_must_be_far_out_and_a_lasting_one_just_outside() -> None:
    """One step at three times the bounds is no alarm, at five it is; 1.5 times is one after a few steps."""
    assert over_time(agreed(0, 3, 0, 0)).max() < 1
    assert over_time(agreed(0, 5, 0, 0)).max() > 1
    assert np.argmax(over_time(agreed(*[1.5] * 8))[0] > 1) in range(2, 6)


def test_an_alarm_is_followed_by_quiet_unless_it_gets_much_worse() -> None:
    """What lasts is one alarm; three times the worst is another; after the quiet the same is one again."""
    assert (over_time(agreed(*[6.0] * 12)) > 1).sum() <= 2  # where it starts, and when it is fully there
    worse = over_time(agreed(5, 0, 0, 0, 20, 0))[0]
    assert worse[0] > 1
    assert worse[1:4].max() <= 1 < worse[4]
    again = over_time(agreed(5, *[0] * 14, 5), quiet=12)[0]
    assert again[-1] > 1
    assert over_time(agreed(5, *[0] * 8, 5), quiet=12)[0, -1] <= 1


def test_only_what_no_lead_expected_is_unusual() -> None:
    """A value that the last one or the usual day explains scores as little as that forecast says."""
    known_far = np.concatenate([np.full((1, 6, 6), 9.0), np.full((1, 6, 6), 0.05)], axis=2)
    known_near = known_far[:, :, ::-1]
    assert over_time(known_far).max() < 1
    assert over_time(known_near).max() < 1


def test_leads_that_are_not_known_say_nothing() -> None:
    """Of forecasts issued now and then some leads are missing; without any there is no score."""
    everything = agreed(*[2.0] * 6)
    some = everything.copy()
    some[:, :, ::2] = np.nan
    assert np.allclose(over_time(some), over_time(everything))
    some[:, 3] = np.nan
    said = over_time(some)[0]
    assert np.isnan(said[3])
    assert np.isclose(said[4], over_time(everything)[0, 3])


def test_a_series_that_never_moved_scores_nothing_until_it_moves() -> None:
    """Bounds without a width are no division by zero."""
    errors, none = np.array([[0.0, 0.0], [1e-6, 1e-6]]), np.zeros((2, 2))
    still, moved = scores(errors, none, np.zeros((2, 4)))
    assert still == 0
    assert 1 < moved < np.inf


def test_a_bound_where_values_end_does_not_make_the_usual_unusual() -> None:
    """A mostly idle counter at 0, under a forecast just above it, is as far out as the bound above says."""
    mean, lower, upper = np.array([0.4]), np.array([0.0]), np.array([4.4])
    assert widths(np.array([0.0]), mean, lower, upper) == 4
    assert widths(np.array([2.0]), mean, lower, upper) == 4
    assert widths(np.array([6.0]), mean + 5, lower + 5, upper + 5) == 4
    assert np.allclose(widths(np.array([5.2]), mean + 5, lower + 5, upper + 5), 0.4)


def test_few_alarms_where_nothing_happens_and_one_where_it_does() -> None:
    """Heavy-tailed noise alarms less than once in 500 steps; a level shift is found within five in 95 % of series.

    Simulated with seed 8: residuals of all leads share their shock, as they do for one value.
    """
    rng = np.random.default_rng(8)
    shocks = rng.standard_t(4, (60, 1_500, 1)) / 2.8  # the bound holds 95 %
    own = rng.standard_t(4, (60, 1_500, LEADS)) / 2.8
    distances = 0.9 * shocks + 0.3 * own
    assert (over_time(distances, quiet=72) > 1).mean() < 1 / 500
    shifted = distances[:, :150].copy()
    shifted[:, 100:] += 4
    assert (over_time(shifted, quiet=72)[:, 100:105] > 1).any(axis=1).mean() > 0.95  # some are in a quiet
