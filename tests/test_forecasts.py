"""Forecasts and their bounds stay between the limits of what is forecast."""

from collections.abc import Sequence

import numpy as np
import pytest

from sentinel_core import forecasts, training
from sentinel_core.forecasts import Fitted
from sentinel_core.models import LinearTrendModel
from sentinel_core.windows import Window

STEP = 60


def build() -> LinearTrendModel:
    return LinearTrendModel("1m", "20m", "10m")


def window_of(values: np.ndarray) -> Window:
    return Window(np.arange(len(values)), STEP * np.arange(values.shape[1]), values, STEP)


def ramps() -> Window:
    """Two lines with noise (seed 0), one about to fall below 0 and one about to rise above 1."""
    line = np.linspace(0.9, 0.05, 200) + np.random.default_rng(0).normal(0, 0.02, 200)
    return window_of(np.stack([line, 1 - line]))


def trained(window: Window, bounds: Sequence[float] = ()) -> Fitted:
    return training.train(build, window, version=1, level=0.95, bounds=bounds).fitted


@pytest.mark.parametrize(
    ("bounds", "lowest", "highest"),
    [((), 0, np.inf), ((0, 1), 0, 1), ((-np.inf, 1), -np.inf, 1), ((-np.inf, np.inf), -np.inf, np.inf)],
)
def test_forecasts_and_bounds_stay_within(bounds: Sequence[float], lowest: float, highest: float) -> None:
    """Within what is configured, and without it not below 0 for what has never been negative."""
    forecast = forecasts.issue(trained(ramps(), bounds), ramps(), 20)
    for values in (forecast.mean, forecast.lower, forecast.upper):
        assert values.min() >= lowest
        assert values.max() <= highest
    assert np.isneginf(lowest) == (forecast.lower.min() < 0)
    assert np.isposinf(highest) == (forecast.upper.max() > 1)


def test_inner_bounds_hold_their_own_share_and_lie_within_the_others() -> None:
    """Over 400 random walks (seed 3) bounds for 80 % within those for 95 % hold 76-84 % of the next actuals."""
    walks = window_of(np.random.default_rng(3).normal(size=(400, 620)).cumsum(axis=1))
    past = walks.columns(slice(0, 600))
    fitted = training.train(build, past, version=1, level=0.95, inner_level=0.8).fitted
    for forecast in (forecasts.issue(fitted, past, 20), forecasts.issue_unlearnt(fitted, past, 20, 1)):
        assert (forecast.inner_lower >= forecast.lower).all()
        assert (forecast.inner_upper <= forecast.upper).all()
    wider = forecasts.issue(fitted.widened(np.full((400, 20, 2), 1.5)), past, 20)
    forecast, actual = forecasts.issue(fitted, past, 20), walks.values[:, 600:]
    np.testing.assert_allclose(wider.inner_upper - wider.mean, 1.5 * (forecast.inner_upper - forecast.mean))
    inside = (actual >= forecast.inner_lower) & (actual <= forecast.inner_upper)
    assert abs(inside.mean() - 0.8) < 0.04


def test_series_without_an_inner_level_may_be_forecast_beside_others_with_one() -> None:
    """Theirs are not known; where no series has one there are none to keep."""
    window = ramps()
    one = training.train(build, window.rows([0]), version=1, level=0.95, inner_level=0.8).fitted
    other = trained(window.rows([1]))
    assert other.inner.shape == (1, 0, 2)
    forecast = forecasts.issue(one.put(other).widened(np.full((2, 20, 2), 1.1)), window, 20)
    assert np.isfinite(forecast.inner_lower).all(axis=1).tolist() == [True, False]
    assert np.isnan(forecasts.issue(other, window.rows([1]), 20).inner_upper).all()


def test_what_has_been_negative_may_be_again() -> None:
    """One value below 0 in the history and there is no limit."""
    window = ramps()
    window.values[0, 3] = -0.1
    assert trained(window).limits.tolist() == [[-np.inf, np.inf], [0, np.inf]]


def test_a_value_beyond_a_limit_moves_it() -> None:
    """Forecasts follow a series that has left its bounds, from the first such sample on."""
    fitted, after = trained(ramps(), (0, 1)), ramps()
    after.values[0, -10:] = -1.0
    assert -1 <= forecasts.issue(fitted, after, 20).lower.min() < -0.1


def test_residuals_are_those_of_what_is_shown() -> None:
    """A model that leads a falling series below 0 is measured by the 0 that is shown instead."""
    window = window_of(np.maximum(1 - np.arange(200) / 180, 0)[None])
    model = build()
    model.fit_window(window.columns(slice(0, 150)))
    free, limited = (
        training.residuals(model, window, np.array([178]), np.arange(1, 21), np.array([limits]))[0, 0]
        for limits in ([-np.inf, np.inf], [0, np.inf])
    )
    assert free.max() > 0.05
    np.testing.assert_allclose(limited[2:], 0)


def test_a_finetune_remembers_what_was_negative() -> None:
    """It sees only the newest samples, and the version before it saw the older ones."""
    window = ramps()
    window.values[0, 3] = -0.1
    champion, recent = trained(window.columns(slice(0, 180))), window.columns(slice(100, 200))
    candidate = training.train(
        build, recent, version=2, level=0.95, champion=champion, champion_end=179 * STEP, finetune=True
    )
    assert candidate.fitted.limits.tolist() == [[-np.inf, np.inf], [0, np.inf]]


def test_a_series_that_no_version_knows_has_limits_too() -> None:
    """Those of the watch, or 0 where it has not been negative."""
    fitted, recent = trained(ramps()), window_of(np.random.default_rng(2).random((2, 30)))
    for bounds in ((0, 1), ()):
        unlearnt = forecasts.issue_unlearnt(fitted, recent, 20, 1, bounds)
        assert unlearnt.lower.min() == 0
        assert (unlearnt.upper.max() == 1) == bool(bounds)


def test_what_an_older_release_has_trained_has_no_limits() -> None:
    """Its arrays without limits make a model that forecasts as it did."""
    fitted = trained(ramps(), (0, 1))
    older = {name: array for name, array in fitted.measured.items() if name != "limits"}
    assert np.isinf(Fitted.of(fitted.model, older).limits).all()
