"""SGD: what it must get exactly, what it must survive, and that a finetune goes on from where it was."""

import numpy as np
import pytest

from sentinel_core import features
from sentinel_core.models import daily_profile
from sentinel_core.models.sgd_regressor import SGDRegressorModel
from sentinel_core.windows import FloatArray, Window

STEP = 300
START = 1_700_006_400 // 86_400 * 86_400


def window_of(values: FloatArray, step: int = STEP, start: int = START) -> Window:
    values = np.atleast_2d(np.asarray(values, float))
    return Window(np.arange(len(values)) + 11, start + np.arange(values.shape[1]) * step, values, step)


def model_of(horizon_steps: int = 12, lookback_steps: int = 12, **params: float) -> SGDRegressorModel:
    return SGDRegressorModel("5m", f"{5 * horizon_steps}m", f"{5 * lookback_steps}m", **params)


def noisy(n: int, samples: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    day = np.sin(2 * np.pi * np.arange(samples) / 288)
    wander = rng.normal(size=(n, samples)).cumsum(axis=1) * 0.03
    return np.asarray(5 + day + wander + 0.1 * rng.normal(size=(n, samples)), np.float64)


def mae(model: SGDRegressorModel, window: Window, origins: range, lead: int) -> float:
    errors = [
        np.abs(model.predict_window(window.columns(slice(0, o)), lead)[:, -1] - window.values[:, o + lead - 1]).mean()
        for o in origins
    ]
    return float(np.mean(errors))


def test_a_daily_pattern_is_continued_a_day_ahead() -> None:
    """A series that repeats every day is forecast over the whole next day, jumps included."""
    time = np.arange(288 * 6)
    values = np.stack([np.sin(2 * np.pi * time / 288), (time % 288 > 100) * 4.0])
    window = window_of(values)
    model = model_of(288)
    model.fit_window(window.columns(slice(0, 288 * 5 - 50)))
    forecast = model.predict_window(window.columns(slice(0, 288 * 5 - 50)), 288)
    error = np.abs(forecast - values[:, 288 * 5 - 50 : 288 * 6 - 50]).mean(axis=1)
    assert (error < [0.03, 0.08]).all(), error


def test_a_ramp_goes_on() -> None:
    """A straight line is continued at its slope."""
    window = window_of(np.arange(600.0) * 7 - 3)
    model = model_of()
    model.fit_window(window)
    expected = (600 + np.arange(12.0)) * 7 - 3
    np.testing.assert_allclose(model.predict_window(window, 12)[0], expected, atol=7)


def test_a_short_cycle_is_read_from_the_lags() -> None:
    """A cycle within the lookback needs no clock: its lags tell where it stands."""
    values = 10 + np.sin(2 * np.pi * np.arange(3_000) / 7)
    window = window_of(values)
    model = model_of()
    model.fit_window(window.columns(slice(0, 2_900)))
    assert mae(model, window, range(2_900, 2_980), 12) < 0.1


def test_better_than_the_last_value_on_noise_with_a_day() -> None:
    """On wandering daily series the forecast an hour ahead beats repeating the newest value."""
    window = window_of(noisy(8, 288 * 6))
    model = model_of()
    model.fit_window(window.columns(slice(0, 288 * 5)))
    origins = range(288 * 5, 288 * 6 - 12, 17)
    naive = np.mean([np.abs(window.values[:, o + 11] - window.values[:, o - 1]).mean() for o in origins])
    assert mae(model, window, origins, 12) < 0.7 * naive


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_scale_and_level_change_nothing_but_themselves(scale: float) -> None:
    """Forecasts of a rescaled and shifted series are the rescaled and shifted forecasts."""
    window = window_of(noisy(3, 700))
    moved = window_of(window.values * scale - 40 * scale)
    forecasts = []
    for each in (window, moved):
        model = model_of()
        model.fit_window(each)
        forecasts.append(model.predict_window(each, 12))
    np.testing.assert_allclose(forecasts[1] / scale + 40, forecasts[0], rtol=1e-3, atol=1e-3)


def test_finite_on_everything_and_far_ahead() -> None:
    """Constant, spiky, gappy and absurd series have finite forecasts near their range; NaN only without a value."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 900))
    values[0] = 3.25
    values[1] = np.where(rng.random(900) < 0.002, 1e12, 0.0)
    values[2, :-5] = np.nan
    values[3, rng.random(900) < 0.6] = np.nan
    values[4] = np.nan
    values[5] *= 1e-9
    values[6] = values[6] * 1e12 + 1e12
    values[7, -40:] = np.nan
    values[8] = np.exp(np.arange(900) / 20)
    window = window_of(values)
    model = model_of(288, 30)
    model.fit_window(window)
    for span in (window, window.newest(30), window.newest(3)):
        forecast = model.predict_window(span, 288)
        blind = ~np.isfinite(span.values).any(axis=1)
        assert blind[4]
        assert np.isnan(forecast[blind]).all()
        assert np.isfinite(forecast[~blind]).all()
        assert (forecast[0] == 3.25).all()
        low, high = np.nanmin(values[~blind], axis=1), np.nanmax(values[~blind], axis=1)
        assert (forecast[~blind] >= (low - 0.51 * (high - low) - 1e-9)[:, None]).all()
        assert (forecast[~blind] <= (high + 0.51 * (high - low) + 1e-9)[:, None]).all()


def test_a_late_start_learns_like_a_short_history() -> None:
    """What lies before a series began neither teaches nor disturbs."""
    values = noisy(12, 288 * 4)
    values[:, : 288 * 3] = np.nan
    window = window_of(values)
    origins = range(288 * 4 - 100, 288 * 4 - 12, 7)
    errors = []
    for first in (0, 288 * 3):
        model = model_of()
        model.fit_window(window.columns(slice(first, 288 * 4 - 100)))
        errors.append(mae(model, window, origins, 12))
    assert errors[0] < 1.1 * errors[1]


def test_too_short_to_learn_repeats_the_newest_value() -> None:
    """With fewer samples than the lookback the forecast is the last value."""
    window = window_of([[1.0, 5.0, 2.0]])
    model = model_of()
    model.fit_window(window)
    assert model.predict_window(window, 3).tolist() == [[2.0, 2.0, 2.0]]


def test_other_series_do_not_matter() -> None:
    """A series learns the same alone as among others, and the same seed gives the same weights."""
    window = window_of(noisy(5, 800))
    together, alone = model_of(), model_of()
    together.fit_window(window)
    alone.fit_window(window.rows([3]))
    np.testing.assert_allclose(together.parameters["weights"][3], alone.parameters["weights"][0], atol=1e-5)
    other = model_of(seed=1)
    other.fit_window(window)
    assert not np.array_equal(other.parameters["weights"], together.parameters["weights"])


def test_a_finetune_continues_and_learns_the_new_regime() -> None:
    """Updates start at the current weights, move them little at once, and adapt when the series changes its manner."""
    rng = np.random.default_rng(5)
    values = np.empty((4, 2_000))
    values[:, 0] = 0
    for t in range(1, 2_000):  # first it wanders, later it swings back
        values[:, t] = (0.98 if t < 1_200 else -0.8) * values[:, t - 1] + rng.normal(size=4)
    window = window_of(values)
    model = model_of(3, 6)
    model.fit_window(window.columns(slice(0, 1_200)))
    before = model.parameters["weights"].copy()
    origins = range(1_800, 1_990, 3)
    old = mae(model, window, origins, 1)
    model.update_window(window.columns(slice(0, 1_201)), 1)
    assert np.abs(model.parameters["weights"] - before).max() < 0.2
    for end in range(1_260, 1_801, 60):
        model.update_window(window.columns(slice(end - 200, end)), 60)
    assert mae(model, window, origins, 1) < 0.75 * old


def test_nothing_new_teaches_nothing() -> None:
    """An update without new columns leaves every parameter as it was."""
    window = window_of(noisy(2, 500))
    model = model_of()
    model.fit_window(window)
    before = {key: value.copy() for key, value in model.parameters.items()}
    model.update_window(window, 0)
    for key, value in model.parameters.items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_a_new_series_adopts_the_pool_at_its_own_scale() -> None:
    """Pooled weights forecast a series never seen, a thousand times larger, better than its last value."""
    values = noisy(9, 288 * 5)
    model = model_of()
    model.fit_window(window_of(values[:8, : 288 * 4]))
    whole = window_of(1_000 * values[8:])
    adopted = model.adopt(whole.columns(slice(288 * 3, 288 * 4)))
    origins = range(288 * 4, 288 * 5 - 12, 17)
    naive = np.mean([np.abs(whole.values[:, o + 11] - whole.values[:, o - 1]).mean() for o in origins])
    assert mae(adopted, whole, origins, 12) < naive
    assert adopted.fingerprints.tolist() == whole.fingerprints.tolist()


def test_five_methods_equal_the_batch() -> None:
    """By hand on rows of features the model learns and forecasts the same as in the engine."""
    window = window_of(noisy(1, 600), start=1_704_067_200)
    built = features.build(window, 12)
    model, batch = model_of(), model_of()
    result = model.fit(built.X[0], built.y[0])
    batch.fit_window(window)
    np.testing.assert_allclose(
        model.predict(features.newest_row(window, 12)).values, batch.predict_window(window, 12)[0], rtol=1e-9
    )
    assert result.mae < 0.2
    assert model.partial_fit(built.X[0, -20:], built.y[0, -20:]).training_policy == "finetune"


def test_a_profile_never_saw_the_day_it_is_tried_on() -> None:
    """Each day meets the profile of the days before it; a day without samples changes nothing."""
    z = np.repeat([1.0, 3.0, np.nan, 5.0], 24)[None]
    times = START + np.arange(96) * 3_600
    before, profile, days = daily_profile.learn_by_day(z, times, np.zeros((1, 24)), np.zeros((1, 24)))
    assert np.isnan(before[0, 0]).all()
    assert (before[0, 1] == 1).all()
    assert (before[0, 2] == 2).all()
    assert (before[0, 3] == 2).all()
    assert (profile == 3).all()
    assert (days == 3).all()
