"""The suite that every model passes, ours and yours.

In your own tests, all at once or one test per check:

    from sentinel_core.models import conformance

    def test_my_model() -> None:
        conformance.check_model(MyModel, n_estimators=20)

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    def test_my_model_check(check) -> None:
        check(lambda: MyModel("1m", "5m", "10m", n_estimators=20))

`BATCH_CHECKS` and `check_batch_model` are the same for a `BatchModel`. A check raises AssertionError with what it saw.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentinel_core import features
from sentinel_core.models.base import BaseModel, BatchModel, TrainingResult
from sentinel_core.windows import FloatArray, Window

STEP_SECONDS = 60
START = 1_704_067_200 // STEP_SECONDS  # 2024-01-01 00:00 UTC
SCALES = (1e-9, 1e-3, 1.0, 1e6, 1e12)
SAMPLES = 300

Build = Callable[[], BaseModel]
BuildBatch = Callable[[], BatchModel]


def check_model(
    model_class: Callable[..., BaseModel],
    granularity: str = "1m",
    horizon: str = "5m",
    lookback: str = "10m",
    **model_params: Any,
) -> None:
    """Run every check on a model of one series; AssertionError lists all that failed."""
    _run(CHECKS, lambda: model_class(granularity, horizon, lookback, **model_params))


def check_batch_model(
    model_class: Callable[..., BatchModel],
    granularity: str = "1m",
    horizon: str = "5m",
    lookback: str = "10m",
    **model_params: Any,
) -> None:
    """Run every check on a model of many series; AssertionError lists all that failed."""
    _run(BATCH_CHECKS, lambda: model_class(granularity, horizon, lookback, **model_params))


# ---- a model of one series, by its five methods


def forecasts_one_value_per_lead(build: Build) -> None:
    """predict returns horizon_steps values, and bounds of the same length around them if any."""
    model = build()
    _fit(model, _wave())
    result = model.predict(_newest(model, _wave()))
    _expect(np.shape(result.values) == (model.horizon_steps,), f"values are {np.shape(result.values)}")
    for name, bound, side in (("lower_bound", result.lower_bound, -1), ("upper_bound", result.upper_bound, 1)):
        if bound is not None:
            _expect(np.shape(bound) == (model.horizon_steps,), f"{name} is {np.shape(bound)}")
            _expect(bool(np.all(side * (np.asarray(bound) - result.values) >= 0)), f"{name} is on the wrong side")


def reports_what_it_learnt_from(build: Build) -> None:
    """fit and partial_fit return a TrainingResult with a finite error and the number of samples."""
    model = build()
    X, y = _rows(model, _wave())
    for result in (model.fit(X, y), model.partial_fit(X[-20:], y[-20:])):
        _expect(isinstance(result, TrainingResult), f"returned {type(result).__name__}, not a TrainingResult")
        _expect(np.isfinite(result.mae), f"mae is {result.mae}")
        _expect(0 < result.n_samples <= len(y), f"n_samples is {result.n_samples} of {len(y)}")


def is_finite_on_any_scale(build: Build) -> None:
    """From 1e-9 to 1e12, and far from zero, a forecast is finite."""
    for scale in SCALES:
        for offset in (0.0, 100.0):
            _finite(build(), scale * (_wave() + offset), f"a scale of {scale:g} around {scale * offset:g}")


def is_finite_on_constant_series(build: Build) -> None:
    """A series that never moves is forecast."""
    for value in (0.0, 5.0, -1e9):
        _finite(build(), np.full(SAMPLES, value), f"a constant {value:g}")


def is_finite_on_few_rows(build: Build) -> None:
    """One, two or three rows are enough to answer something."""
    for count in (1, 2, 3):
        model = build()
        _finite(model, _wave()[: model.lookback_steps + count], f"{count} rows")


def is_finite_on_gappy_series(build: Build) -> None:
    """Rows whose target is missing are left out; the rest are learnt."""
    series = _wave()
    series[50:60] = np.nan
    series[np.random.default_rng(3).random(SAMPLES) < 0.1] = np.nan
    _finite(build(), series, "a series with gaps")


def leaves_its_inputs_alone(build: Build) -> None:
    """X and y are the caller's."""
    model = build()
    X, y = _rows(model, _wave())
    before = X.copy(), y.copy()
    model.fit(X, y)
    model.partial_fit(X, y)
    model.predict(X[-1:])
    _expect(np.array_equal(X, before[0]) and np.array_equal(y, before[1]), "X or y has changed")


def is_the_same_after_save_and_load(build: Build) -> None:
    """A fresh instance that loads the file predicts exactly what the saved one does, and both go on learning alike."""
    model, other = build(), build()
    _fit(model, _wave())
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        model.save(path)
        other.load(path)
    _same(model, other, "after load")
    for each in (model, other):
        X, y = _rows(each, _level_shift())
        each.partial_fit(X, y)
    _same(model, other, "after load and partial_fit")


def predicts_the_same_twice(build: Build) -> None:
    """predict changes nothing."""
    model = build()
    _fit(model, _wave())
    row = _newest(model, _wave())
    _expect(np.array_equal(model.predict(row).values, model.predict(row).values), "a second predict differs")


def is_deterministic(build: Build) -> None:
    """Two instances that learn the same predict the same; a model that draws takes a seed from model_params."""
    one, two = build(), build()
    _fit(one, _wave())
    _fit(two, _wave())
    _same(one, two, "of two instances with the same data")


def forgets_on_fit(build: Build) -> None:
    """fit starts from scratch: what was learnt before has no influence."""
    used, fresh = build(), build()
    _fit(used, _level_shift())
    _fit(used, _wave())
    _fit(fresh, _wave())
    _same(used, fresh, "of a refitted and a fresh model")


def keeps_learning(build: Build) -> None:
    """After partial_fit on a new regime, forecasts of that regime are better than before.

    A model on which fit itself makes no difference, such as "the last value", has nothing to learn and passes.
    """
    old, new = _restless(), _level_shift()
    model, learnt = build(), build()
    _fit(model, old)
    _fit(learnt, new[: SAMPLES * 2 // 3])
    before = _error(model, new)
    if before == _error(learnt, new):
        return
    X, y = _rows(model, new[: SAMPLES * 2 // 3])
    model.partial_fit(X, y)
    after = _error(model, new)
    _expect(after < before, f"the mean error on the new regime was {before:.4g} and is {after:.4g}")


CHECKS: tuple[Callable[[Build], None], ...] = (
    forecasts_one_value_per_lead,
    reports_what_it_learnt_from,
    is_finite_on_any_scale,
    is_finite_on_constant_series,
    is_finite_on_few_rows,
    is_finite_on_gappy_series,
    leaves_its_inputs_alone,
    is_the_same_after_save_and_load,
    predicts_the_same_twice,
    is_deterministic,
    forgets_on_fit,
    keeps_learning,
)


# ---- a model of many series


def forecasts_one_row_per_series(build: BuildBatch) -> None:
    """predict_window returns [n, steps] for one step, for the horizon and for any other number."""
    model, window = build(), _window()
    model.fit_window(window)
    for steps in (1, model.horizon_steps, model.horizon_steps + 3):
        shape = model.predict_window(window, steps).shape
        _expect(shape == (len(window.fingerprints), steps), f"{steps} steps of {len(window.fingerprints)} are {shape}")


def is_finite_on_hard_series(build: BuildBatch) -> None:
    """Whatever the scale, gaps, start or length, only a series without any value is NaN."""
    for samples in (1, 2, 3, 12, SAMPLES):
        window = _hard_window(samples)
        model = build()
        model.fit_window(window)
        _only_empty_rows_are_nan(model, window, f"fitted on {samples} samples")
        for steps in (0, 1, samples):
            model.update_window(window, steps)
            _only_empty_rows_are_nan(model, window, f"updated with {steps} of {samples} samples")
        _only_empty_rows_are_nan(model, window.newest(1), f"fitted on {samples} samples, seeing one")
        _only_empty_rows_are_nan(model.adopt(window), window, f"adopted with {samples} samples")


def leaves_windows_alone(build: BuildBatch) -> None:
    """Nothing writes into a window, not even into one that may be written to."""
    model, window = build(), _hard_window(SAMPLES)
    before = window.values.copy(), window.timestamps.copy(), window.fingerprints.copy()
    model.fit_window(window)
    model.update_window(window, 10)
    model.predict_window(window, 3)
    model.adopt(window)
    same = zip(before, (window.values, window.timestamps, window.fingerprints), strict=True)
    _expect(all(np.array_equal(a, b, equal_nan=True) for a, b in same), "the window has changed")


def rows_stand_alone(build: BuildBatch) -> None:
    """take, put and concat move rows about; the forecast of a row stays what it was among the others."""
    model, window = build(), _window()
    model.fit_window(window)
    every = model.predict_window(window, 4)
    some = np.arange(1, len(every), 2)
    rest = np.setdiff1d(np.arange(len(every)), some)
    taken, left = model.take(window.fingerprints[some]), model.take(window.fingerprints[rest])
    _near(taken.predict_window(window.rows(some), 4), every[some], "of a model's rows alone")
    _near(left.put(taken).predict_window(window, 4), every, "after take and put")
    joined = type(model).concat([left, taken])
    order = np.concatenate([rest, some])
    values = Window(window.fingerprints[order], window.timestamps, window.values[order], window.step_seconds)
    _near(joined.predict_window(values, 4), every[order], "after concat")


def adopts_series_it_has_never_seen(build: BuildBatch) -> None:
    """adopt forecasts others from what its own taught it, on their scale, and changes nothing in itself."""
    model, window = build(), _window()
    model.fit_window(window)
    before = model.predict_window(window, 4)
    strange = Window(window.fingerprints + 1_000, window.timestamps, 1e6 * window.values, window.step_seconds)
    context = strange.newest(model.context_steps)
    adopted = model.adopt(context)
    _expect(np.array_equal(adopted.fingerprints, strange.fingerprints), "the adopted series are not the window's")
    forecast = adopted.predict_window(context, 4)
    farthest = np.abs(forecast).max() / np.abs(strange.values).max()
    _expect(farthest < 10, f"an adopted series is forecast {farthest:.3g} times as far out as it ever was")
    _near(model.predict_window(window, 4), before, "of the model itself after adopt")


def predicts_from_now(build: BuildBatch) -> None:
    """A forecast starts from the window it is shown, not from the end of what was learnt."""
    model, window = build(), _window()
    model.fit_window(window)
    later = window.timestamps + 10 * len(window.timestamps) * window.step_seconds
    moved = Window(window.fingerprints, later, window.values + 50.0, window.step_seconds)
    context = moved.newest(model.context_steps)
    distance = np.abs(model.predict_window(context, 1)[:, 0] - context.values[:, -1]).mean()
    _expect(distance < 25, f"after a rise by 50 the forecast is {distance:.3g} from the newest value")


def predicts_from_one_sample(build: BuildBatch) -> None:
    """A context of one column, which is all that a lookback of one step sees, lies on the same grid as a long one."""
    model, missed = build(), 10
    rise = np.maximum(0.0, np.arange(SAMPLES) - SAMPLES // 2)
    window = _one_series(rise)
    model.fit_window(window.columns(slice(0, SAMPLES - missed)))
    forecast = model.predict_window(window.newest(1), 1)[0, 0]
    _expect(
        abs(forecast - rise[-1]) < 2 * missed,
        f"{missed} steps after a rise by 1 a step was learnt, at {rise[-1]:g}, the forecast is {forecast:.4g}",
    )


def names_what_it_sees(build: BuildBatch) -> None:
    """feature_names tells something, and before the first fit what it does after it: a version is recorded with it."""
    model = build()
    names = model.feature_names
    _expect(bool(names) and all(isinstance(name, str) for name in names), f"feature_names are {names!r}")
    model.fit_window(_window())
    _expect(model.feature_names == names, f"feature_names were {names!r} and are {model.feature_names!r}")


def survives_its_parameters(build: BuildBatch) -> None:
    """All that was learnt is in fingerprints and parameters, whose first axis is the series."""
    model, window = build(), _window()
    model.fit_window(window)
    for key, value in model.parameters.items():
        _expect(len(value) == len(window.fingerprints), f"parameters[{key!r}] has {len(value)} rows")
    copy = build().with_rows(model.fingerprints, {key: value.copy() for key, value in model.parameters.items()})
    _near(copy.predict_window(window, 4), model.predict_window(window, 4), "of a model with the same parameters")


def refits_from_scratch(build: BuildBatch) -> None:
    """fit_window forgets, and gives the same result every time."""
    used, fresh, window = build(), build(), _window()
    used.fit_window(_hard_window(SAMPLES))
    used.fit_window(window)
    fresh.fit_window(window)
    _near(used.predict_window(window, 4), fresh.predict_window(window, 4), "of a refitted and a fresh model")


def updates_keep_learning(build: BuildBatch) -> None:
    """After update_window on a new regime, forecasts of that regime are better than before."""
    old, new = (np.stack([make(seed) for seed in range(8)]) for make in (_restless, _level_shift))
    both = np.hstack([old, new])
    timestamps = (START + np.arange(both.shape[1])) * STEP_SECONDS
    window = Window(np.arange(8), timestamps, both, STEP_SECONDS)
    model = build()
    model.fit_window(window.columns(slice(0, SAMPLES)))
    learnt = SAMPLES + SAMPLES * 2 // 3
    before = _window_error(model, window, learnt)
    model.update_window(window.columns(slice(0, learnt)), learnt - SAMPLES)
    after = _window_error(model, window, learnt)
    _expect(after < before, f"the mean error on the new regime was {before:.4g} and is {after:.4g}")


BATCH_CHECKS: tuple[Callable[[BuildBatch], None], ...] = (
    forecasts_one_row_per_series,
    is_finite_on_hard_series,
    leaves_windows_alone,
    rows_stand_alone,
    adopts_series_it_has_never_seen,
    predicts_from_now,
    predicts_from_one_sample,
    names_what_it_sees,
    survives_its_parameters,
    refits_from_scratch,
    updates_keep_learning,
)


# ---- what the checks are made of


def _run(checks: Sequence[Callable[[Any], None]], build: Callable[[], Any]) -> None:
    failures = []
    for check in checks:
        try:
            check(build)
        except Exception as error:  # whatever a model raises is a finding
            failures.append(f"{check.__name__}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError("\n".join([f"{len(failures)} of {len(checks)} checks failed:", *failures]))


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _near(values: FloatArray, expected: FloatArray, which: str) -> None:
    _expect(np.allclose(values, expected, rtol=1e-9, atol=1e-9, equal_nan=True), f"the forecast {which} differs")


def _wave(seed: int = 0) -> FloatArray:
    """A noisy wave around 10."""
    noise = np.random.default_rng(seed).normal(0, 0.2, SAMPLES)
    return 10 + 2 * np.sin(np.arange(SAMPLES) / 9) + noise


def _restless(seed: int = 0) -> FloatArray:
    """Around 10, each value on the other side of the one before."""
    noise = np.random.default_rng(100 + seed).normal(0, 1, SAMPLES)
    series = np.empty(SAMPLES)
    value = 0.0
    for k in range(SAMPLES):
        value = -0.9 * value + noise[k]
        series[k] = 10 + value
    return series


def _level_shift(seed: int = 0) -> FloatArray:
    """Around 50, each value close to the one before."""
    noise = np.random.default_rng(200 + seed).normal(0, 1, SAMPLES)
    series = np.empty(SAMPLES)
    value = 0.0
    for k in range(SAMPLES):
        value = 0.97 * value + noise[k]
        series[k] = 50 + value
    return series


def _one_series(series: FloatArray) -> Window:
    timestamps = (START + np.arange(len(series))) * STEP_SECONDS
    return Window(np.zeros(1, np.int64), timestamps, series[None], STEP_SECONDS)


def _rows(model: BaseModel, series: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = features.build(_one_series(series), model.lookback_steps)
    usable = rows.usable[0]
    return rows.X[0][usable], rows.y[0][usable]


def _newest(model: BaseModel, series: FloatArray) -> FloatArray:
    return features.newest_row(_one_series(series), model.lookback_steps)


def _fit(model: BaseModel, series: FloatArray) -> None:
    X, y = _rows(model, series)
    model.fit(X, y)


def _finite(model: BaseModel, series: FloatArray, what: str) -> None:
    _fit(model, series)
    values = model.predict(_newest(model, series)).values
    _expect(bool(np.isfinite(values).all()), f"{what}: the forecast is {values}")


def _same(one: BaseModel, two: BaseModel, which: str) -> None:
    row = _newest(one, _wave(1))
    left, right = one.predict(row).values, two.predict(row).values
    _expect(np.array_equal(left, right), f"the forecasts {which} differ: {left} and {right}")


def _error(model: BaseModel, series: FloatArray) -> float:
    """Mean absolute error over the last third of a series, all leads."""
    errors = []
    for end in range(SAMPLES * 2 // 3, SAMPLES - model.horizon_steps, 5):
        values = model.predict(_newest(model, series[:end])).values
        errors.append(np.abs(series[end : end + model.horizon_steps] - values).mean())
    return float(np.mean(errors))


def _window_error(model: BatchModel, window: Window, first: int) -> float:
    errors = []
    for end in range(first, len(window.timestamps) - model.horizon_steps, 5):
        context = window.columns(slice(max(0, end - model.context_steps), end))
        values = model.predict_window(context, model.horizon_steps)
        errors.append(np.abs(window.values[:, end : end + model.horizon_steps] - values).mean())
    return float(np.mean(errors))


def _window() -> Window:
    """Seven well-behaved series."""
    values = np.stack([_wave(seed) for seed in range(7)])
    return Window(np.arange(7) * 11, (START + np.arange(SAMPLES)) * STEP_SECONDS, values, STEP_SECONDS)


def _hard_window(samples: int) -> Window:
    """Every scale, constants, gaps, late starts, early ends, one value, no value."""
    wave = _wave()[:samples]
    rows = [scale * wave for scale in SCALES] + [1e12 + wave, np.zeros(samples), np.full(samples, -3e-7)]
    holes = np.random.default_rng(5).random((3, samples)) < np.array([[0.05], [0.3], [0.9]])
    rows += [np.where(hole, np.nan, wave) for hole in holes]
    column = np.arange(samples)
    rows += [np.where(column < samples * 2 // 3, np.nan, wave), np.where(column > samples // 3, np.nan, wave)]
    rows += [np.where(column == samples // 2, wave, np.nan), np.full(samples, np.nan)]
    rows += [np.exp(np.minimum(column / 10, 50)), np.where(column == samples // 3, 1e9, wave)]
    timestamps = (START + np.arange(samples)) * STEP_SECONDS
    return Window(np.arange(len(rows)), timestamps, np.stack(rows), STEP_SECONDS)


def _only_empty_rows_are_nan(model: BatchModel, window: Window, when: str) -> None:
    context = window.newest(model.context_steps)
    forecast = model.predict_window(context, model.horizon_steps)
    empty = ~np.isfinite(context.values).any(axis=1)
    bad = np.flatnonzero(~np.isfinite(forecast).all(axis=1) & ~empty)
    _expect(not len(bad), f"{when}: rows {bad.tolist()} of the hard window are {forecast[bad][:3]}")
