"""Levels and trends of every parameter set, and how they are weighed."""

import numpy as np
import pytest

from sentinel_core.models import ExponentialSmoothingModel
from sentinel_core.models import exponential_smoothing as holt
from sentinel_core.windows import Window


def window(values: np.ndarray, start: int = 0) -> Window:
    values = np.atleast_2d(values)
    return Window(np.arange(len(values)), 60 * (start + np.arange(values.shape[1])), values, 60)


def fitted(values: np.ndarray, horizon: int = 24, lookback: int = 10) -> ExponentialSmoothingModel:
    model = ExponentialSmoothingModel("1m", f"{horizon}m", f"{lookback}m")
    model.fit_window(window(values))
    return model


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_a_line_is_forecast_exactly_at_every_lead(scale: float) -> None:
    """On lines of any slope and scale, gaps and a late start included, all 288 leads are on the line."""
    slopes = np.array([0.0, 1.0, -3.5, 1e-3])
    lines = scale * (7 + slopes[:, None] * np.arange(488.0))
    seen = lines[:, :200].copy()
    seen[1, :50] = np.nan
    seen[2, ::7] = np.nan
    seen[3, -4:] = np.nan
    forecast = fitted(seen, 288).predict_window(window(seen).newest(10), 288)
    np.testing.assert_allclose(forecast, lines[:, 200:], rtol=1e-7)


def test_a_trend_that_has_turned_is_followed() -> None:
    """Long after a rise has become a fall, the fall goes on, whatever the slope of the whole history."""
    t = np.arange(624.0)
    series = np.where(t < 200, t, 400 - t)
    forecast = fitted(series[:600]).predict_window(window(series[:600]).newest(10), 24)[0]
    np.testing.assert_allclose(forecast, series[600:], atol=0.5)


def scalar_states(
    series: np.ndarray, slope: float, alpha: float, beta: float, phi: float
) -> tuple[float, float, float]:
    """Holt's recursion for one series and one parameter set, a sample at a time."""
    began = int(np.flatnonzero(np.isfinite(series))[0])
    wander = alpha**2 / (1 - alpha) if alpha < 1 else holt.WANDERING
    level, trend, variance = series[began], slope, 1.0
    for value in series[began + 1 :]:
        trend *= phi
        level += trend
        variance += wander
        if np.isfinite(value):
            gain = variance / (variance + 1)
            error = value - level
            level += gain * error
            trend += alpha * beta * error
            variance = gain
    return level, trend, variance


def test_states_agree_with_a_loop() -> None:
    """All sets of all series at once follow the same recursion as one set of one series does, gaps included."""
    values = np.cumsum(np.random.default_rng(1).normal(size=(4, 60)), axis=1)
    values[1, :13] = np.nan
    values[2, 20:25] = np.nan
    values[3, -3:] = np.nan
    p = fitted(values).parameters
    for row in range(4):
        z = (values[row] - p["centre"][row]) / p["scale"][row]
        for k, (alpha, beta, phi) in enumerate(zip(holt._ALPHA[:, 0], holt._BETA[:, 0], holt._PHI[:, 0], strict=True)):
            expected = scalar_states(z, p["slope"][row], alpha, beta, phi)
            found = p["level"][row, k], p["trend"][row, k], p["variance"][row, k]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_gain_settles_at_alpha() -> None:
    """After many samples the gain of a set is its alpha; the first sample after a long silence counts for more."""
    p = fitted(np.random.default_rng(0).normal(size=2000)).parameters
    np.testing.assert_allclose(p["variance"][0], holt._ALPHA[:, 0], rtol=1e-2)


def test_following_in_two_parts_is_following_at_once() -> None:
    """A context that overlaps what was learnt adds only its newer samples to the states."""
    values = np.cumsum(np.random.default_rng(2).normal(size=(3, 100)), axis=1)
    whole, parts = fitted(values), fitted(values[:, :60])
    parts.update_window(window(values).columns(slice(40, 100)), 40)
    for row in range(3):
        first, second = (
            model.parameters["centre"][row] + model.parameters["scale"][row] * model.parameters["level"][row]
            for model in (whole, parts)
        )
        forgetful = (holt._ALPHA[:, 0] >= 0.2) & (holt._PHI[:, 0] < 1)  # the others remember their first slope
        np.testing.assert_allclose(first[forgetful], second[forgetful], atol=1e-3)


def test_noise_is_smoothed_and_a_walk_is_not() -> None:
    """White noise is forecast near its mean, a random walk near its newest value."""
    rng = np.random.default_rng(3)
    noise, walk = rng.normal(size=(20, 600)), np.cumsum(rng.normal(size=(20, 600)), axis=1)
    far_noise = fitted(noise).predict_window(window(noise).newest(10), 24)
    far_walk = fitted(walk).predict_window(window(walk).newest(10), 24)
    assert np.abs(far_noise).mean() < 0.4
    assert np.abs(far_walk[:, :1] - walk[:, -1:]).mean() < 0.5


def test_updates_move_the_weights() -> None:
    """When noise turns into a walk, updates shift the weights to sets that follow faster."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=600), np.cumsum(rng.normal(size=300))])
    model = fitted(values[:600])
    before = model.parameters["weights"][0, 0] @ holt._ALPHA[:, 0]
    model.update_window(window(values), 300)
    assert model.parameters["weights"][0, 0] @ holt._ALPHA[:, 0] > before + 0.3


def test_too_little_is_the_last_value() -> None:
    """One or two samples are no trend: the forecast is the last of them."""
    nan = np.nan
    values = np.array([[nan, nan, nan, 4.0], [nan, 1.0, nan, 3.0], [nan, 2.0, 5.0, nan]])
    forecast = fitted(values).predict_window(window(values), 24)
    np.testing.assert_allclose(forecast, np.repeat([[4.0], [3.0], [5.0]], 24, axis=1))
