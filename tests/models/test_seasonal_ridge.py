"""The default model: what it must get exactly, what it must survive, and that an update costs and changes little."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from sentinel_core import intervals
from sentinel_core.models import AutoModel
from sentinel_core.models import seasonal_ridge_equations as equations
from sentinel_core.models import seasonal_ridge_features as seen
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.models.seasonal_ridge_averages import averages, newest_averages
from sentinel_core.windows import FloatArray, Window

STEP = 300
DAY = 288
START = 1_700_006_400 // 86_400 * 86_400


def window_of(values: FloatArray, step: int = STEP, start: int = START) -> Window:
    values = np.atleast_2d(np.asarray(values, float))
    return Window(np.arange(len(values)) + 11, start + np.arange(values.shape[1]) * step, values, step)


def model_of(horizon_steps: int = 12, step: int = STEP, **params: object) -> SeasonalRidgeModel:
    return SeasonalRidgeModel(f"{step}s", f"{step * horizon_steps}s", f"{12 * step}s", **params)  # type: ignore[arg-type]


def noisy(n: int, samples: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    day = np.sin(2 * np.pi * np.arange(samples) / DAY)
    wander = rng.normal(size=(n, samples)).cumsum(axis=1) * 0.03
    return np.asarray(5 + day + wander + 0.1 * rng.normal(size=(n, samples)), np.float64)


def mae(model: SeasonalRidgeModel, window: Window, origins: range, lead: int) -> float:
    errors = [
        np.abs(model.predict_window(window.columns(slice(0, o)), lead)[:, -1] - window.values[:, o + lead - 1]).mean()
        for o in origins
    ]
    return float(np.mean(errors))


def test_a_daily_pattern_is_continued_a_day_ahead() -> None:
    """A series that repeats every day is forecast over the whole next day, jumps included."""
    time = np.arange(DAY * 6)
    values = np.stack([np.sin(2 * np.pi * time / DAY), (time % DAY > 100) * 4.0])
    window = window_of(values)
    model = model_of(DAY)
    seen_part = window.columns(slice(0, DAY * 5 - 50))
    model.fit_window(seen_part)
    error = np.abs(model.predict_window(seen_part, DAY) - values[:, DAY * 5 - 50 : DAY * 6 - 50]).mean(axis=1)
    assert (error < [0.03, 0.08]).all(), error


def test_a_weekend_is_forecast_by_the_last_one() -> None:
    """Where two days of the week are different, the profile of the week says so."""
    time = np.arange(24 * 28)
    values = 10 + 3 * np.sin(2 * np.pi * time / 24) - 5.0 * (time // 24 % 7 >= 5)
    values = values + 0.05 * np.random.default_rng(0).normal(size=(4, len(time)))
    window = window_of(values, 3_600)
    model = model_of(24, 3_600)
    origin = 24 * (21 + 5)  # the last hour of a working day
    model.fit_window(window.columns(slice(0, origin)))
    forecast = model.predict_window(window.columns(slice(0, origin)), 24)
    assert np.abs(forecast - values[:, origin : origin + 24]).mean() < 0.5


def test_a_pattern_of_the_hour_is_learnt() -> None:
    """What happens at the same minute of every hour is forecast within the hour."""
    time = np.arange(DAY * 3)
    values = np.where(time % 12 == 3, 10.0, 1.0) + 0.1 * np.random.default_rng(1).normal(size=(4, len(time)))
    window = window_of(values)
    model = model_of(12)
    model.fit_window(window.columns(slice(0, DAY * 2)))
    assert mae(model, window, range(DAY * 2, DAY * 2 + 48, 5), 6) < 1.0


def test_better_than_the_last_value_on_noise_with_a_day() -> None:
    """On wandering daily series the forecast an hour ahead beats repeating the newest value."""
    window = window_of(noisy(8, DAY * 6))
    model = model_of()
    model.fit_window(window.columns(slice(0, DAY * 5)))
    origins = range(DAY * 5, DAY * 6 - 12, 17)
    naive = np.mean([np.abs(window.values[:, o + 11] - window.values[:, o - 1]).mean() for o in origins])
    assert mae(model, window, origins, 12) < 0.7 * naive


@pytest.mark.parametrize("samples", [30, 60, 200])
def test_a_short_history_is_no_worse_than_its_last_value(samples: int) -> None:
    """From thirty samples on, a series without any season yet is forecast as well as by repeating its newest value."""
    window = window_of(noisy(40, samples + 12, seed=3))
    model = model_of()
    known = window.columns(slice(0, samples))
    model.fit_window(known)
    error = np.abs(model.predict_window(known, 12) - window.values[:, samples:]).mean()
    naive = np.abs(window.values[:, samples - 1 : samples] - window.values[:, samples:]).mean()
    assert error < 1.15 * naive


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_scale_and_level_change_nothing_but_themselves(scale: float) -> None:
    """The same series in other units has the same forecast in those units."""
    values = noisy(3, DAY * 4)
    model, other = model_of(24), model_of(24)
    model.fit_window(window_of(values))
    other.fit_window(window_of(values * scale))
    expected = model.predict_window(window_of(values), 24)
    np.testing.assert_allclose(other.predict_window(window_of(values * scale), 24) / scale, expected, rtol=1e-3)


def test_gaps_and_spikes_leave_the_forecast_where_it_was() -> None:
    """A tenth of the samples missing and a few absurd ones: the forecast stays close to that of the clean series."""
    values = noisy(6, DAY * 7, seed=4)
    dirty = values.copy()
    rng = np.random.default_rng(5)
    dirty[rng.random(dirty.shape) < 0.1] = np.nan
    dirty[:, 1_000:1_050] = np.nan
    dirty[:, [300, 777, 1_500]] = 1e4
    dirty[:, -12:] = values[:, -12:]
    clean_model, dirty_model = model_of(DAY), model_of(DAY)
    clean_model.fit_window(window_of(values))
    dirty_model.fit_window(window_of(dirty))
    distance = dirty_model.predict_window(window_of(dirty), DAY) - clean_model.predict_window(window_of(values), DAY)
    assert np.abs(distance).mean() < 0.15


def test_what_was_never_negative_is_not_forecast_below_zero() -> None:
    """Not even where it falls."""
    falling = model_of(DAY)
    ramp = window_of(np.maximum(0, 1_000 - np.arange(990.0)))
    falling.fit_window(ramp)
    assert falling.predict_window(ramp, DAY).min() >= 0


def test_updates_by_the_hour_come_close_to_a_new_fit() -> None:
    """A model that has learnt two days hour by hour forecasts about as well as one fitted on everything."""
    window = window_of(noisy(12, DAY * 9, seed=7))
    model, fresh = model_of(DAY), model_of(DAY)
    model.fit_window(window.columns(slice(0, DAY * 6)))
    for end in range(DAY * 6 + 12, DAY * 8 + 1, 12):
        model.update_window(window.columns(slice(end - DAY * 3, end)), 12)
    known = window.columns(slice(0, DAY * 8))
    fresh.fit_window(known)
    actual = window.values[:, DAY * 8 :]
    updated, fitted = (np.abs(m.predict_window(known, DAY) - actual).mean() for m in (model, fresh))
    assert updated < 1.1 * fitted


def test_the_newest_rows_of_all_leads_are_those_of_each() -> None:
    """An update's rows, made for every lead at once, are what a fit makes of each lead; before the window is none."""
    z = noisy(4, DAY * 2, seed=9).astype(np.float32)
    z[1, 500:560] = np.nan
    z[2, :570] = np.nan
    calendar, leads, count = seen.Calendar(STEP), np.array([1, 7, 288, 570, 600]), 12
    times = START + STEP * np.arange(z.shape[1])
    columns, _ = seen.columns(z, times, 0, calendar, seen.start(4, calendar), np.full(4, -1, np.int64))
    newest = equations.Rows.newest(columns, z, leads, count)
    X, y, known = (part.reshape(4, len(leads), *part.shape[1:]) for part in (newest.X, newest.y, newest.known))
    for k, lead in enumerate(leads.tolist()):
        origins = np.arange(max(0, z.shape[1] - count - lead), max(0, z.shape[1] - lead))
        rows = equations.Rows(columns, z, origins, z.shape[1])
        rows.aim(lead, 0)
        missing = count - len(origins)
        np.testing.assert_array_equal(X[:, k, :, missing:], rows.X)
        np.testing.assert_array_equal(y[:, k, missing:], rows.y)
        np.testing.assert_array_equal(known[:, k, missing:], rows.known)
        assert not known[:, k, :missing].any()


def test_the_profiles_do_not_depend_on_how_they_were_reached() -> None:
    """Learning the columns in two calls reads and leaves the same profiles as one call."""
    calendar = seen.Calendar(3_600)
    values = noisy(3, 24 * 30, seed=8).astype(np.float32)
    values[:, 100:150] = np.nan
    times = START + 3_600 * np.arange(values.shape[1])
    never = np.full(3, -1, np.int64)
    whole, after = seen.columns(values, times, 24, calendar, seen.start(3, calendar), never)
    split = 24 * 25 + 7
    _, half = seen.columns(values[:, :split], times[:split], 0, calendar, seen.start(3, calendar), never)
    rest, joined = seen.columns(values[:, split - 24 :], times[split - 24 :], 24, calendar, half, never + times[split])
    for key, value in after.items():
        np.testing.assert_array_equal(value, joined[key])
    np.testing.assert_array_equal(whole.season[0][:, split - 24 :], rest.season[0])


def test_the_newest_averages_are_the_last_of_all() -> None:
    """Whatever the window's length."""
    for samples in (1, 2, 31, 500):
        z = np.random.default_rng(samples).normal(size=(3, samples))
        every = averages(z, seen.MEMORIES)[:, :, -1:]
        np.testing.assert_allclose(newest_averages(z, seen.MEMORIES), every, rtol=1e-9, atol=1e-12)


def test_nothing_is_learnt_from_no_series() -> None:
    """A window without series makes a model that forecasts none."""
    model = SeasonalRidgeModel("5m", "1h", "1h")
    window = Window(np.empty(0, np.int64), np.arange(600) * 300, np.empty((0, 600)), 300)
    model.fit_window(window)
    model.update_window(window, 12)
    assert model.predict_window(window, 12).shape == (0, 12)


def test_averages_are_those_of_a_loop() -> None:
    """Averaging by blocks is averaging one value after the other."""
    values = np.random.default_rng(9).normal(size=(2, 101))
    found = averages(values, (2, 12))
    for m, memory in enumerate((2, 12)):
        state = values[:, 0].copy()
        for k in range(values.shape[1]):
            state = state + (values[:, k] - state) / memory
            np.testing.assert_allclose(found[:, m, k], state, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("step", [5, 60, 420, 3_600, 86_400, 259_200])
def test_any_grid_will_do(step: int) -> None:
    """From five seconds to days, with or without a season, forecasts are finite and near the series."""
    rng = np.random.default_rng(10)
    values = 100 + rng.normal(size=(3, 400)).cumsum(axis=1) * 0.1
    model = model_of(30, step)
    model.fit_window(window_of(values, step, START // step * step))
    forecast = model.predict_window(window_of(values, step, START // step * step), 30)
    assert np.isfinite(forecast).all()
    assert np.abs(forecast - values[:, -1:]).max() < 10


def test_forecasts_from_many_origins_are_those_of_each() -> None:
    """`forecast_from` says in one pass what `predict_window` says at each origin, within float32."""
    window = window_of(noisy(5, DAY * 6, seed=11))
    model = model_of(36)
    split = DAY * 5
    model.fit_window(window.columns(slice(0, split)))
    origins = np.array([split - 1, split + 17, split + 200])
    leads = np.array([1, 5, 36])
    found = model.forecast_from(window, origins, leads)
    for k, origin in enumerate(origins):
        one = model.predict_window(window.columns(slice(0, origin + 1)).newest(model.context_steps), 36)
        np.testing.assert_allclose(found[:, k], one[:, leads - 1], atol=0.08)


def test_judging_costs_no_other_fit() -> None:
    """`fit_and_judge` fits as `fit_window` does, and its residuals have the size of later ones."""
    window = window_of(noisy(20, DAY * 7, seed=12))
    past = window.columns(slice(0, DAY * 6))
    model, plain = model_of(12), model_of(12)
    errors, leads, span = model.fit_and_judge(past)
    plain.fit_window(past)
    for key, value in plain.parameters.items():
        np.testing.assert_array_equal(model.parameters[key], value)
    assert errors.shape[::2] == (20, len(leads))
    assert DAY * 4.5 < span < DAY * 6
    short = model_of(12).fit_and_judge(window.columns(slice(0, 160)))
    assert 30 <= short.span <= 50  # the newest quarter alone
    origins = np.arange(DAY * 6, DAY * 7 - 12, 11)
    later = window.values[:, origins[:, None] + leads] - plain.forecast_from(window, origins, leads)
    ratio = np.nanmean(np.abs(errors), axis=(0, 1)) / np.abs(later).mean(axis=(0, 1))
    assert (np.abs(np.log(ratio)) < 0.25).all(), ratio


def test_a_new_level_is_followed_by_updates() -> None:
    """After a rise to a thousand times the level, a few hourly updates forecast the new level."""
    values = 1 + 0.1 * np.random.default_rng(13).normal(size=(3, 2_000))
    values[:, 1_500:] *= 1_000
    window = window_of(values)
    model = model_of(12)
    model.fit_window(window.columns(slice(0, 1_500)))
    for end in range(1_512, 1_801, 12):
        model.update_window(window.columns(slice(0, end)), 12)
    forecast = model.predict_window(window.columns(slice(0, 1_800)), 12)
    assert np.abs(forecast - 1_000).mean() < 150


def test_blocks_do_not_change_what_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by blocks of series, and a series learns the same in a block of its own."""
    window = window_of(noisy(6, DAY * 3, seed=14))
    model, alone = model_of(24), model_of(24)
    model.fit_window(window)
    monkeypatch.setattr("sentinel_core.models.rows.BLOCK_FLOATS", 1)
    alone.fit_window(window)
    alone.update_window(window, 12)
    model.update_window(window, 12)
    expected = model.predict_window(window, 24)
    np.testing.assert_allclose(alone.predict_window(window, 24), expected, atol=0.05)


def test_the_error_is_nearly_the_least_absolute_one() -> None:
    """A few cheap steps come within 3 % of what a hundred reweighted solutions reach, spikes in the targets or not."""
    window = window_of(noisy(5, DAY * 5, seed=15))
    window.values[:, ::97] += 20
    calendar = seen.Calendar(STEP)
    z = (window.values - 5).astype(np.float32)
    never = np.full(5, -1, np.int64)
    columns, _ = seen.columns(z, window.timestamps, 0, calendar, seen.start(5, calendar), never)
    learnt = equations.Rows(columns, z, np.arange(200, 1_300, 2), z.shape[1])
    learnt.aim(7, 0)
    prior = np.zeros((5, equations.F), np.float32)
    _, unit, found, _ = equations.learn(learnt, prior, learnt.first_unit(prior), 7, prior)
    _, _, found, _ = equations.learn(learnt, found, unit, 7, prior)  # as a fit does, after the older rows
    best = prior
    for _ in range(100):
        weights, unit = learnt.weights(learnt.residual(best))
        best = equations.candidates_of(learnt.equations(weights), unit, 7, prior, [1.0])[0]
    error, least = (np.abs(learnt.residual(each) * learnt.known).sum(axis=1) for each in (found, best))
    assert (error < 1.03 * least).all(), error / least


def working_week(end: datetime, days: int, seed: int = 3) -> Window:
    """Hourly series that are busy by day from Monday to Friday and idle at weekends and German holidays."""
    rng = np.random.default_rng(seed)
    times = int(end.timestamp()) + 3600 * np.arange(-24 * days, 0)
    free = {date(2024, 3, 29), date(2024, 4, 1), date(2024, 5, 1)}
    moments = [datetime.fromtimestamp(time, UTC) for time in times.tolist()]
    busy = np.array([moment.weekday() < 5 and moment.date() not in free for moment in moments])
    hour = np.array([moment.hour for moment in moments])
    wave = 10 + np.where(busy, 8.0, 1.0) * np.sin(np.pi * (hour - 6) / 14).clip(0)
    return Window(np.arange(20), times, wave + rng.normal(0, 0.3, (20, len(times))), 3600)


def error_of_day(
    end: datetime, holidays: str | None, build: type[SeasonalRidgeModel | AutoModel] = SeasonalRidgeModel
) -> float:
    """MAE of the day that begins at `end`, forecast when it does, with eight weeks of history."""
    window = working_week(end + timedelta(days=1), 57)
    model = build("1h", "1d", "6h", holidays=holidays)
    model.fit_window(window.columns(slice(0, -24)))
    return float(np.abs(model.predict_window(window.columns(slice(0, -24)), 24) - window.values[:, -24:]).mean())


@pytest.mark.parametrize("build", [SeasonalRidgeModel, AutoModel])
def test_a_holiday_is_forecast_as_a_sunday(build: type[SeasonalRidgeModel | AutoModel]) -> None:
    """Wednesday 1 May 2024: known as a holiday it is idle; a model that knows no holidays expects work."""
    wednesday = datetime(2024, 5, 1, tzinfo=UTC)
    assert error_of_day(wednesday, "DE", build) < 0.2 * error_of_day(wednesday, None)


def test_a_holiday_does_not_spoil_the_same_weekday_of_the_next_week() -> None:
    """The Wednesday after it is forecast as the Wednesdays before it were."""
    next_week = datetime(2024, 5, 8, tzinfo=UTC)
    assert error_of_day(next_week, "DE") < 0.6 * error_of_day(next_week, None)


def test_without_a_holiday_in_sight_its_setting_changes_nothing() -> None:
    """A history and a horizon of ordinary days give the very same forecast."""
    end = datetime(2024, 2, 28, tzinfo=UTC)
    assert error_of_day(end, "DE") == error_of_day(end, None)


def test_yesterdays_outage_is_not_todays_forecast_where_it_is_ignored() -> None:
    """Four hours at nothing, the day before the same hours are forecast: hidden, they are forecast as ever."""
    day = np.sin(2 * np.pi * np.arange(DAY * 11) / DAY)
    values = 5 + day + 0.2 * np.random.default_rng(11).normal(size=(20, DAY * 11))
    clean = window_of(values)
    outage = slice(DAY * 9 + 96, DAY * 9 + 144)
    hurt = window_of(np.where(np.isin(np.arange(DAY * 11), np.arange(DAY * 11)[outage]), 0.0, values))
    now = DAY * 10 + 84  # an hour before the time of day at which it began
    ignored = hurt.without([(int(clean.timestamps[outage.start]), int(clean.timestamps[outage.stop - 1]))])
    error = {}
    for name, window in (("clean", clean), ("hurt", hurt), ("ignored", ignored)):
        model = model_of(DAY)
        model.fit_window(window.columns(slice(0, now)))
        forecast = model.predict_window(window.columns(slice(0, now)), 60)[:, 12:]
        error[name] = np.abs(forecast - values[:, now + 12 : now + 60]).mean()
    assert error["ignored"] < 1.05 * error["clean"]
    assert error["hurt"] > 1.5 * error["ignored"]


@pytest.mark.parametrize("series", [60, 10])
def test_bounds_hold_at_every_lead_for_a_fleet_and_for_a_few(series: int) -> None:
    """What comes later is within 80 and 95 % bounds about as often as they say, up to a day ahead, however few series.

    A daily pattern, a level that wanders, and noise; seeds from 16 on.
    """
    inside = []
    for seed in range(16, 16 + 60 // series):
        window = window_of(noisy(series, DAY * 9, seed=seed))
        past = window.columns(slice(0, DAY * 7))
        model = model_of(DAY)
        judged = model.fit_and_judge(past)
        assert judged is not None
        origins = np.arange(DAY * 7 - 1, DAY * 8 - 1, 29)
        leads = np.array([1, 12, 144, DAY])
        later = window.values[:, origins[:, None] + leads] - model.forecast_from(window, origins, leads)
        found = intervals.of_levels(judged[0], [0.8, 0.95], judged[1])
        at_leads = [each[:, None, leads - 1] for each in found]
        inside.append([((later >= at[..., 0]) & (later <= at[..., 1])).mean(axis=(0, 1)) for at in at_leads])
    found_coverage = np.mean(inside, axis=0)
    allowed = [[0.04, 0.04, 0.07, 0.07], [0.02, 0.02, 0.035, 0.035]]  # far ahead, a series is one sample
    assert (np.abs(found_coverage - [[0.8], [0.95]]) < allowed).all(), found_coverage


def test_residuals_know_the_whole_history() -> None:
    """A calibration sees rows of the first days too, as large as those of the newest rows, which were not learnt."""
    window = window_of(noisy(20, DAY * 14, seed=17))
    judged = model_of(12).fit_and_judge(window)
    assert judged is not None
    size = np.abs(judged[0])
    assert size.shape[1] > 600
    ratio = np.nanmean(size[:, :400], axis=(0, 1)) / np.nanmean(size[:, -150:], axis=(0, 1))
    assert (np.abs(np.log(ratio)) < 0.1).all(), ratio
