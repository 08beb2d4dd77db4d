"""Every built-in as a forecaster of plain arrays: the shape in which accuracy harnesses ask.

    forecast(history [n, T] with NaN, step_seconds, horizon, levels) -> mean [n, horizon], lower, upper

lower and upper are `{level in percent: [n, horizon]}`, from residuals of origins held back as training holds them back.
`end_time` is the unix time one step after the newest column, per series or one for all; 0 is unknown.

    anomaly(values [n, T] with NaN, step_seconds) -> scores [n, T], each from what was known before its sample
    python -m benchmarks.accuracy_adapter nab DATA RESULTS: of the Numenta Anomaly Benchmark's data folder
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import anomalies, forecast_drift
from sentinel_core import forecasts, intervals, training
from sentinel_core.models import ARIMAModel, ExponentialSmoothingModel, LinearTrendModel, SGDRegressorModel
from sentinel_core.models.base import BatchModel
from sentinel_core.models.rows import held_back_origins
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.windows import FloatArray, Window

LOOKBACK_STEPS = 36
UNKNOWN_END = 1_704_067_200  # 2024-01-01 00:00 UTC
Bands = dict[int, FloatArray]
Answer = tuple[FloatArray, Bands, Bands]


def default(history: Any, step_seconds: Any, horizon: int, levels: Sequence[int], end_time: Any = 0) -> Answer:
    """SeasonalRidgeModel, which learns the phase of hour, day and week by itself: all series can share one clock."""
    return forecast(SeasonalRidgeModel, history, step_seconds, horizon, levels)


def anomaly(values: Any, step_seconds: Any, end_time: Any = 0) -> FloatArray:
    """The default model's anomaly scores [n, T]: above 1 is an alarm; NaN where nothing could be said."""
    return anomalies.scores(values, step_seconds)


def drift_actions(values: Any, step_seconds: Any) -> NDArray[np.int8]:
    """What drift_unit = "auto" would have done at each step [n, T], knowing none of the later: 1 finetune, 2 retrain.

    Each series is forecast twelve steps ahead, from its third day on; what is trained by the clock is not told.
    """
    return forecast_drift.drift_actions(np.asarray(values, np.float64), max(1, round(float(step_seconds))))


def linear_trend(history: Any, step_seconds: Any, horizon: int, levels: Sequence[int], end_time: Any = 0) -> Answer:
    """LinearTrendModel."""
    return forecast(LinearTrendModel, history, step_seconds, horizon, levels, end_time)


def exponential_smoothing(
    history: Any, step_seconds: Any, horizon: int, levels: Sequence[int], end_time: Any = 0
) -> Answer:
    """ExponentialSmoothingModel."""
    return forecast(ExponentialSmoothingModel, history, step_seconds, horizon, levels, end_time)


def arima(history: Any, step_seconds: Any, horizon: int, levels: Sequence[int], end_time: Any = 0) -> Answer:
    """ARIMAModel."""
    return forecast(ARIMAModel, history, step_seconds, horizon, levels, end_time)


def sgd_regressor(history: Any, step_seconds: Any, horizon: int, levels: Sequence[int], end_time: Any = 0) -> Answer:
    """SGDRegressorModel."""
    return forecast(SGDRegressorModel, history, step_seconds, horizon, levels, end_time)


def forecast(
    model_class: type[BatchModel],
    history: Any,
    step_seconds: Any,
    horizon: int,
    levels: Sequence[int],
    end_time: Any = 0,
    **model_params: Any,
) -> Answer:
    """Fit a model of the class on the history and forecast from its end; without levels no bands, at half the cost."""
    history = np.asarray(history, np.float64)
    step = max(1, round(float(step_seconds)))
    ends = np.broadcast_to(np.asarray(end_time, np.int64), (len(history),))
    ends = np.where(ends > 0, ends, UNKNOWN_END) // step * step
    mean = np.empty((len(history), horizon))
    lower: Bands = {level: np.empty_like(mean) for level in levels}
    upper: Bands = {level: np.empty_like(mean) for level in levels}
    for end in np.unique(ends):  # a window has one clock; series that end together are forecast together
        rows = np.flatnonzero(ends == end)
        timestamps = end + step * np.arange(-history.shape[1], 0, dtype=np.int64)
        window = Window(rows.astype(np.int64), timestamps, history[rows], step)
        lookback = max(2, min(LOOKBACK_STEPS, history.shape[1] // 4))

        def build(lookback: int = lookback) -> BatchModel:
            return model_class(f"{step}s", f"{step * horizon}s", f"{step * lookback}s", **model_params)

        model = build()
        judged = model.fit_and_judge(window) if levels else model.fit_window(window)
        found = model.predict_window(window.newest(model.context_steps), horizon)
        silent = np.isnan(found[:, 0])  # no sample within the lookback: the last value, as the product does
        limits = forecasts.limits(window, ())[:, :, None]
        found = np.where(silent[:, None], forecasts.last_values(window)[:, None], found)
        mean[rows] = np.clip(found, limits[:, 0], limits[:, 1])
        if not levels:
            continue
        errors, leads = judged[:2] if judged else _held_back(build, window)
        found_offsets = intervals.of_levels(errors, [level / 100 for level in levels], leads)
        for level, offsets in zip(levels, found_offsets, strict=True):
            lower[level][rows] = np.clip(mean[rows] + offsets[..., 0], limits[:, 0], limits[:, 1])
            upper[level][rows] = np.clip(mean[rows] + offsets[..., 1], limits[:, 0], limits[:, 1])
    return mean, lower, upper


def _held_back(build: Callable[[], BatchModel], window: Window) -> tuple[FloatArray, None]:
    """Residuals at every lead of a second fit, which has not seen the newest part: as training holds back."""
    model = build()
    leads = np.arange(1, model.horizon_steps + 1)
    origins = held_back_origins(len(window.timestamps), model.lookback_steps, model.horizon_steps)
    if not len(origins):
        return np.empty((len(window.fingerprints), 0, len(leads))), None
    model.fit_window(window.columns(slice(0, int(origins[0]) + 1)))
    return training.residuals(model, window, origins, leads, forecasts.limits(window, ())), None


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["nab", data, results]:
            print(f"{anomalies.nab(Path(data), Path(results))} files scored into {results}/{anomalies.DETECTOR}")
        case _:
            raise SystemExit("usage: python -m benchmarks.accuracy_adapter nab DATA RESULTS")
