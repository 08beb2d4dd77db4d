"""Anomaly scores of plain arrays, as the product says them tick by tick; and of the Numenta Anomaly Benchmark's files.

    python -m benchmarks.accuracy_adapter nab DATA RESULTS

reads NAB's data folder and writes RESULTS/sentinel/…, as NAB's own `run.py -d sentinel --optimize --score --normalize`
reads them. All files are scored alike, each on its own.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from sentinel_core import anomaly, training
from sentinel_core.forecasts import Fitted
from sentinel_core.models.base import BatchModel
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.windows import FloatArray, Window

HORIZON = 36
QUIET_STEPS = 200
LEVEL = 0.95
FIRST_FIT = 240  # columns; NAB counts nothing in the first 15 % of a file
REFIT_SHARE, REFIT_STEPS = 0.2, (120, 2_016)  # a fit when the history has grown by a fifth; at least, at most so many
HISTORY_STEPS = 4_032
DETECTOR = "sentinel"
START = 1_704_067_200  # 2024-01-01 00:00 UTC; the model learns phases by itself


def scores(values: Any, step_seconds: Any) -> FloatArray:
    """Anomaly score of each sample [n, T] from what was known before it; NaN before a first fit, and of gaps.

    values: [n, T], NaN where missing; series may begin and end anywhere
    """
    values = np.asarray(values, np.float64)
    n, samples = values.shape
    step = max(1, round(float(step_seconds)))
    column = np.arange(samples) + np.argmax(np.isfinite(values), axis=1)[:, None]  # all begin together, to be fitted so
    begun = np.take_along_axis(values, np.minimum(column, samples - 1), axis=1)
    begun[column >= samples] = np.nan
    window = Window(np.arange(n), START // step * step + step * np.arange(samples), begun, step)

    said = np.full((n, samples), np.nan)
    cut = FIRST_FIT
    while cut < samples:
        stop = min(samples, cut + int(np.clip(cut * REFIT_SHARE, *REFIT_STEPS)))
        seen = window.columns(slice(max(0, cut - HISTORY_STEPS), cut))
        errors, widths = _judged(
            training.train(lambda: _model(step), seen, version=1, level=LEVEL).fitted, window, cut, stop
        )
        for t in range(cut, stop):
            earlier = said[:, max(0, t - QUIET_STEPS) : t]
            said[:, t] = anomaly.scores(errors[:, t - cut], widths[:, t - cut], earlier)
        cut = stop
    out = np.full((n, samples), np.nan)
    row, shifted = np.nonzero(column < samples)
    out[row, column[row, shifted]] = said[row, shifted]
    return out


def _model(step: int) -> BatchModel:
    return SeasonalRidgeModel(f"{step}s", f"{step * HORIZON}s", f"{step * HORIZON}s")


def _judged(fitted: Fitted, window: Window, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
    """Errors and widths of columns start … stop [n, columns, leads], by forecasts from the columns before each."""
    leads = np.arange(1, HORIZON + 1)
    first = start - HORIZON
    begin = max(0, first - fitted.model.context_steps)
    part = window.columns(slice(begin, stop))
    mean = fitted.model.forecast_from(part, np.arange(first, stop - 1) - begin, leads)
    at = np.arange(stop - start)[:, None] + HORIZON - leads
    mean = mean[:, at, leads - 1]
    lowest, highest = fitted.limits.T[:, :, None, None]
    mean = np.clip(mean, lowest, highest)
    lower, upper = (np.clip(mean + fitted.offsets[:, None, :, side], lowest, highest) for side in (0, 1))
    actual = window.values[:, start:stop, None]
    return actual - mean, anomaly.widths(actual, mean, lower, upper)


def nab(data: Path, results: Path) -> int:
    """Score every file of NAB's data folder; return how many there are."""
    windows = data.parent / "labels" / "combined_windows.json"
    labels = json.loads(windows.read_text()) if windows.exists() else {}
    files = sorted(data.rglob("*.csv"))
    for path in files:
        name = path.relative_to(data)
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        target = results / DETECTOR / name.parent / f"{DETECTOR}_{name.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows(_scored(rows, labels.get(name.as_posix())))
    return len(files)


def _scored(rows: Sequence[Mapping[str, str]], windows: Sequence[Sequence[str]] | None) -> list[list[Any]]:
    """The lines of a result file: scores from 0 up to 1, which NAB wants; labels where there are any."""
    seconds = np.array([datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows])
    step = max(1.0, float(np.median(np.diff(seconds))))
    order = np.arange(len(rows))
    column = order + np.maximum.accumulate(np.round((seconds - seconds[0]) / step).astype(np.int64) - order)
    values = np.full((1, int(column[-1]) + 1), np.nan)
    values[0, column] = [float(row["value"]) for row in rows]
    found = np.nan_to_num(scores(values, step)[0, column])
    lines: list[list[Any]] = [["timestamp", "value", "anomaly_score"]]
    lines += [
        [row["timestamp"], row["value"], score / (1 + score)] for row, score in zip(rows, found.tolist(), strict=True)
    ]
    if windows is not None:
        spans = [[datetime.fromisoformat(edge).timestamp() for edge in span] for span in windows]
        inside = [any(begin <= moment <= end for begin, end in spans) for moment in seconds]
        lines = [[*line, label] for line, label in zip(lines, ["label", *map(int, inside)], strict=True)]
    return lines
