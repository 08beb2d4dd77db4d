"""Processes whose future is known, the two regressions against loops, and orders of every kind."""

import numpy as np
import pytest

from sentinel_core.models import ARIMAModel
from sentinel_core.models import arima as module
from sentinel_core.windows import Window


def window(values: np.ndarray, start: int = 0) -> Window:
    values = np.atleast_2d(values)
    return Window(np.arange(len(values)), 60 * (start + np.arange(values.shape[1])), values, 60)


def fitted(values: np.ndarray, p: int = 3, d: int = 1, q: int = 1, horizon: int = 24, lookback: int = 12) -> ARIMAModel:
    model = ARIMAModel("1m", f"{horizon}m", f"{lookback}m", p=p, d=d, q=q)
    model.fit_window(window(values))
    return model


def forecast(values: np.ndarray, steps: int = 24, **orders: int) -> np.ndarray:
    model = fitted(values, horizon=steps, **orders)
    return model.predict_window(window(values).newest(model.context_steps), steps)


def autoregression(coefficients: list[float], constant: float, start: list[float], steps: int) -> np.ndarray:
    series = list(start)
    for _ in range(steps - len(start)):
        series.append(constant + sum(c * series[-1 - k] for k, c in enumerate(coefficients)))
    return np.array(series)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("orders", [(3, 1, 1), (1, 1, 0), (0, 1, 0), (2, 2, 1), (3, 2, 0)])
def test_a_line_is_forecast_exactly_at_every_lead(scale: float, orders: tuple[int, int, int]) -> None:
    """On lines of any slope and scale, gaps and a late start included, all 288 leads are on the line."""
    slopes = np.array([0.0, 1.0, -3.5, 1e-3])
    lines = scale * (7 + slopes[:, None] * np.arange(488.0))
    seen = lines[:, :200].copy()
    seen[1, :50] = np.nan
    seen[2, ::23] = np.nan
    seen[3, -4:] = np.nan
    p, d, q = orders
    np.testing.assert_allclose(forecast(seen, 288, p=p, d=d, q=q), lines[:, 200:], rtol=1e-5)


@pytest.mark.parametrize(
    ("orders", "coefficients", "constant", "start"),
    [
        ((2, 0, 0), [2 * np.cos(0.3), -1.0], 0.0, [0.0, 1.0]),  # a wave that goes on for ever
        ((2, 0, 0), [2 * 0.99 * np.cos(0.5), -(0.99**2)], 3.0, [0.0, 1.0]),  # one that fades to a level
        ((3, 0, 1), [0.5, 0.3, 0.1], 2.0, [10.0, -5.0, 7.0]),
        ((1, 1, 0), [1.9, -0.9], 0.0, [0.0, 5.0]),  # steps that shrink by a tenth each
        ((3, 1, 1), [1.9, -0.9], 0.0, [0.0, 5.0]),
    ],
)
def test_an_autoregression_without_noise_goes_on(
    orders: tuple[int, int, int], coefficients: list[float], constant: float, start: list[float]
) -> None:
    """The future of a deterministic recursion is found at every lead."""
    series = autoregression(coefficients, constant, start, 124)
    p, d, q = orders
    found = forecast(series[:100], p=p, d=d, q=q)[0]
    np.testing.assert_allclose(found, series[100:], atol=1e-3 * np.ptp(series))


def test_a_parabola_needs_two_differences() -> None:
    """With d=2 and one lag a parabola goes on."""
    t = np.arange(124.0)
    np.testing.assert_allclose(forecast(t[:100] ** 2, p=1, d=2, q=0)[0], t[100:] ** 2, rtol=1e-4)


def test_coefficients_are_recovered() -> None:
    """From a long ARMA(1, 1) process both coefficients come back."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(10, 8000))
    series = np.zeros_like(noise)
    for t in range(1, 8000):
        series[:, t] = 0.7 * series[:, t - 1] + noise[:, t] + 0.4 * noise[:, t - 1]
    p = fitted(series, p=1, d=0, q=1).parameters
    np.testing.assert_allclose(p["ar"].mean(), 0.7, atol=0.02)
    np.testing.assert_allclose(p["ma"].mean(), 0.4, atol=0.03)


def test_the_regression_agrees_with_lstsq() -> None:
    """The batched normal equations give numpy's least squares, series by series, over the complete rows."""
    series = np.cumsum(np.random.default_rng(1).normal(size=(5, 200)), axis=1)
    series[2, 30:34] = np.nan
    model = fitted(series, p=3, d=1, q=0)
    p = model.parameters
    for row in range(5):
        w = np.diff((series[row] - p["centre"][row]) / p["scale"][row])
        X = np.stack([w[2:-1], w[1:-2], w[:-3], np.ones(len(w) - 3)], axis=1)
        complete = np.isfinite(X).all(axis=1) & np.isfinite(w[3:])
        expected = np.linalg.lstsq(X[complete], w[3:][complete], rcond=None)[0]
        np.testing.assert_allclose(p["ar"][row], expected[:3], rtol=1e-6)


def test_the_recursion_agrees_with_a_loop() -> None:
    """Gaps filled, innovations and forecasts of all series at once are those of one series, a sample at a time."""
    series = np.cumsum(np.random.default_rng(2).normal(size=(4, 60)), axis=1)
    series[1, :7] = np.nan
    series[2, 20:23] = np.nan
    model = fitted(series, p=2, d=1, q=2)
    p = model.parameters
    z = (series - p["centre"][:, None]) / p["scale"][:, None]
    filled, innovations = model._follow(z, p)
    for row in range(4):
        a, b = p["ar"][row]
        ar = [1 + a, b - a, -b]  # (1 - aB - bB^2)(1 - B)
        began = int(np.flatnonzero(np.isfinite(z[row]))[0])
        known, shocks = [z[row, began]] * 3, [0.0, 0.0]
        for t in range(began, 60):
            expected = p["constant"][row] + ar[0] * known[-1] + ar[1] * known[-2] + ar[2] * known[-3]
            expected += p["ma"][row] @ [shocks[-1], shocks[-2]]
            value = z[row, t] if np.isfinite(z[row, t]) else expected
            shock = value - expected if t >= began + 3 else 0.0
            known.append(value)
            shocks.append(shock)
            assert filled[row, t] == pytest.approx(value)
            assert innovations[row, t] == pytest.approx(shock, abs=1e-12)


def test_responses_are_the_recursion() -> None:
    """The forecast from an origin as a linear function is the forecast by running the recursion on."""
    series = np.cumsum(np.random.default_rng(3).normal(size=(4, 80)), axis=1)
    model = fitted(series, p=3, d=1, q=2)
    p = model.parameters
    z = (series - p["centre"][:, None]) / p["scale"][:, None]
    filled, innovations = model._follow(z, p)
    run_on = model._follow(np.hstack([z, np.full((4, 8), np.nan)]), p)[0][:, 80:]
    for response, lead in zip(model._responses(p, np.array([1, 2, 8])), (1, 2, 8), strict=True):
        found = response.forecast(filled, innovations, slice(79, 80))[:, 0]
        np.testing.assert_allclose(found, run_on[:, lead - 1], rtol=1e-9)


def test_roots_are_pulled_back() -> None:
    """A recursion that would explode keeps its shape with its largest root on the bound; others are left alone."""
    explosive, calm = np.array([2.2, -1.21, 0.0]), np.array([0.5, 0.2, -0.1])
    found = module._pulled_back(np.stack([explosive, calm]), 1.0)
    assert np.abs(np.roots([1, *-found[0]])).max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(found[1], calm)


@pytest.mark.parametrize("orders", [(3, 1, 1), (5, 0, 2), (2, 2, 2), (0, 1, 1), (12, 1, 6)])
def test_a_day_ahead_stays_sane(orders: tuple[int, int, int]) -> None:
    """On walks, bursts and growth, 1,440 steps ahead stay within a few times of what the series has covered."""
    rng = np.random.default_rng(4)
    walk = np.cumsum(rng.normal(size=(20, 400)), axis=1)
    bursts = rng.exponential(size=(20, 400)) ** 4
    growth = np.exp(np.linspace(0, 5, 400)) * (1 + 0.05 * rng.normal(size=(20, 400)))
    values = np.vstack([walk, bursts, growth])
    p, d, q = orders
    model = fitted(values, p=p, d=d, q=q, horizon=1440)
    found = model.predict_window(window(values).newest(model.context_steps), 1440)
    reach = np.abs(found - values.mean(axis=1, keepdims=True)).max(axis=1) / np.ptp(values, axis=1)
    assert np.isfinite(found).all()
    assert np.median(reach) < 2


@pytest.mark.parametrize("wrong", [{"p": -1}, {"d": 3}, {"q": 1.0}, {"p": True}, {"q": 7}])
def test_impossible_orders_are_refused(wrong: dict[str, int]) -> None:
    """An order that is no small whole number is refused by name, with the remedy."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*use a whole number from 0"):
        ARIMAModel("1m", "5m", "10m", **wrong)


def test_too_little_is_the_last_value() -> None:
    """One to three samples teach nothing: the forecast is the last of them."""
    nan = np.nan
    values = np.array([[nan, nan, nan, 4.0], [nan, 1.0, nan, 3.0], [1.0, 2.0, 5.0, nan]])
    np.testing.assert_allclose(forecast(values), np.repeat([[4.0], [3.0], [5.0]], 24, axis=1))
