"""The line, the way back to it, and how both follow new samples."""

import numpy as np
import pytest

from sentinel_core.models import LinearTrendModel
from sentinel_core.models.rows import knots
from sentinel_core.windows import Window


def window(values: np.ndarray, start: int = 0) -> Window:
    values = np.atleast_2d(values)
    return Window(np.arange(len(values)), 60 * (start + np.arange(values.shape[1])), values, 60)


def fitted(values: np.ndarray, horizon: int = 24, lookback: int = 10) -> LinearTrendModel:
    model = LinearTrendModel("1m", f"{horizon}m", f"{lookback}m")
    model.fit_window(window(values))
    return model


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_a_line_is_forecast_exactly_at_every_lead(scale: float) -> None:
    """On lines of any slope and scale, gaps and a late start included, all 288 leads are on the line."""
    slopes = np.array([0.0, 1.0, -3.5, 1e-3])
    t = np.arange(488.0)
    lines = scale * (7 + slopes[:, None] * t)
    seen = lines[:, :200].copy()
    seen[1, :50] = np.nan
    seen[2, ::7] = np.nan
    seen[3, -4:] = np.nan
    forecast = fitted(seen, 288).predict_window(window(seen).newest(10), 288)
    np.testing.assert_allclose(forecast, lines[:, 200:], rtol=1e-8)


def test_the_line_goes_on_hours_after_the_fit() -> None:
    """A model that learnt a line forecasts it from a context long after what it has learnt."""
    t = np.arange(2000.0)
    model = fitted((3 + 0.5 * t)[:200])
    later = window(3 + 0.5 * t).columns(slice(1900, 1910))
    np.testing.assert_allclose(model.predict_window(later, 24)[0], 3 + 0.5 * np.arange(1910, 1934), rtol=1e-9)


def test_deviations_fade_as_they_did() -> None:
    """Around a line with AR(1) deviations of 0.8, the share believed at lead k is about 0.8 ** k."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 6000))
    deviation = np.zeros_like(noise)
    for t in range(1, 6000):
        deviation[:, t] = 0.8 * deviation[:, t - 1] + noise[:, t]
    model = fitted(10 + 0.01 * np.arange(6000) + deviation)
    left = 1 - model.parameters["shares"].sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(left, 0.8 ** knots(24), atol=0.05)


def test_noise_is_no_slope() -> None:
    """A series that wanders without a direction is not extrapolated beyond where it has been."""
    walk = np.cumsum(np.random.default_rng(3).normal(size=(50, 1000)), axis=1)
    forecast = fitted(walk, 288).predict_window(window(walk).newest(10), 288)
    reach = np.ptp(walk, axis=1)
    assert np.all(np.abs(forecast[:, -1] - walk.mean(axis=1)) < 1.5 * reach)


def test_line_agrees_with_a_loop() -> None:
    """The batched least squares is np.polyfit series by series, over the samples that are there."""
    rng = np.random.default_rng(2)
    values = 1e3 + 5.0 * np.arange(100) + rng.normal(size=(6, 100))
    values[rng.random(values.shape) < 0.2] = np.nan
    model = fitted(values)
    for row, series in enumerate(values):
        t = np.flatnonzero(np.isfinite(series))
        slope, level = np.polyfit(t - 99, series[t], 1)
        assert model.parameters["slope"][row] == pytest.approx(slope, rel=1e-4)  # less what noise leaves in doubt
        assert model.parameters["level"][row] == pytest.approx(level, rel=1e-4)


def test_two_halves_teach_the_same_line() -> None:
    """fit on a first part and update with the rest sum up to the line of the whole."""
    values = 5 + 0.3 * np.arange(120) + np.random.default_rng(4).normal(size=(5, 120))
    whole, parts = fitted(values), fitted(values[:, :60])
    parts.update_window(window(values), 60)
    np.testing.assert_allclose(parts.parameters["slope"], whole.parameters["slope"], rtol=1e-2)
    np.testing.assert_allclose(parts.parameters["level"], whole.parameters["level"], rtol=1e-2)


def test_updates_turn_the_line() -> None:
    """When a rise becomes a fall, updates turn the slope, the older samples fading."""
    t = np.arange(1800.0)
    values = np.where(t < 600, t, 1200 - t) + np.random.default_rng(5).normal(size=1800)
    model = fitted(values[:600])
    slopes = []
    for end in range(900, 1801, 300):
        model.update_window(window(values[:end]), 300)
        slopes.append(model.parameters["slope"][0])
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[-1] < -0.4


def test_too_little_is_the_last_value() -> None:
    """One or two samples are no line: the forecast is the last of them."""
    nan = np.nan
    values = np.array([[nan, nan, nan, 4.0], [nan, 1.0, nan, 3.0], [nan, 2.0, 5.0, nan]])
    forecast = fitted(values).predict_window(window(values), 24)
    np.testing.assert_allclose(forecast, np.repeat([[4.0], [3.0], [5.0]], 24, axis=1))
