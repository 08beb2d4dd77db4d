"""What a model sees: the lookback's lags, their mean and spread, and the time of the target. Never the target itself.

A row belongs to one target: its lags end one step before it and its hour and weekday are the target's own (UTC), at
training and at prediction alike. A gap holds the last value known before it, so that every lag stays in its own column;
rows are never dropped from the middle of a history, `Features.usable` says which of them have a real target instead.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray, Window

DAY_SECONDS = 86_400
TIME_COLUMNS = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")


@dataclass(frozen=True)
class Features:
    """Rows of n series, R targets each: X [n, R, F], y [n, R] (NaN in gaps), usable [n, R], timestamps [R] of y."""

    X: FloatArray
    y: FloatArray
    usable: NDArray[np.bool_]
    timestamps: IntArray


def feature_names(lookback_steps: int) -> tuple[str, ...]:
    """The columns in their order.

    >>> feature_names(2)
    ('lag_2', 'lag_1', 'rolling_mean', 'rolling_std', 'hour_sin', 'hour_cos', 'weekday_sin', 'weekday_cos')
    """
    lags = tuple(f"lag_{lag}" for lag in range(lookback_steps, 0, -1))
    return (*lags, "rolling_mean", "rolling_std", *TIME_COLUMNS)


def build(window: Window, lookback_steps: int) -> Features:
    """Every row of a window: R = T - lookback_steps, none where the window is shorter.

    Memory is n x R x F doubles, 29 GB for 10,000 series of 10,000 samples and 36 features: pass a block of series at a
    time. Rows whose lags reach back before a series began hold NaN and are not usable.
    """
    filled = carry_forward(window.values)
    rows = max(0, len(window.timestamps) - lookback_steps)
    X = np.empty((len(filled), rows, lookback_steps + 2 + len(TIME_COLUMNS)))
    y = window.values[:, len(window.timestamps) - rows :]
    timestamps = window.timestamps[len(window.timestamps) - rows :]
    if rows:
        history = filled[:, :-1]
        X[:, :, :lookback_steps] = lags(history, lookback_steps)
        X[:, :, lookback_steps], X[:, :, lookback_steps + 1] = rolling(history, lookback_steps)
        X[:, :, lookback_steps + 2 :] = time_columns(timestamps)
    return Features(X, y, np.isfinite(y) & np.isfinite(X[:, :, 0]), timestamps)


def newest_row(window: Window, lookback_steps: int) -> FloatArray:
    """The row [n, F] whose target is one step after the window's end.

    Lags from before a series began hold its first value; all lags of a series without any value are NaN.
    """
    newest = complete_context(window.values, lookback_steps)
    time = time_columns(window.timestamps[-1:] + window.step_seconds)
    mean, std = rolling(newest, lookback_steps)
    return np.hstack([newest, mean, std, np.broadcast_to(time, (len(newest), len(TIME_COLUMNS)))])


def complete_context(values: FloatArray, lookback_steps: int) -> FloatArray:
    """The newest lookback_steps columns without a hole: gaps carry the last value, the time before it the first one."""
    filled = carry_forward(values)
    if filled.shape[1] < lookback_steps:
        missing = np.full((len(filled), lookback_steps - filled.shape[1]), np.nan)
        filled = np.hstack([missing, filled])
    newest = filled[:, -lookback_steps:]
    began = np.isfinite(newest)
    first = np.take_along_axis(newest, began.argmax(axis=1)[:, None], axis=1)
    return np.where(began, newest, first)


def lags(values: FloatArray, lookback_steps: int) -> FloatArray:
    """A read-only view [n, T - lookback_steps + 1, lookback_steps], oldest lag first: no sample is copied."""
    return sliding_window_view(values, lookback_steps, axis=1)


def rolling(values: FloatArray, lookback_steps: int) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation of each row of `lags`, both [n, T - lookback_steps + 1].

    Each window is the tail of one chunk of lookback_steps samples and the head of the next, so two cumulative sums per
    chunk give every sum in one pass, and a spike long ago leaves no rounding error behind as one long sum would. A
    window that holds a NaN is NaN.
    """
    # Around the series' own level, or squares of 1e12 +- 1 would cancel to nothing.
    level = np.nan_to_num(values[np.arange(len(values)), np.isfinite(values).argmax(axis=1)])[:, None]
    centred = values - level
    mean = _window_sums(centred, lookback_steps) / lookback_steps
    square = _window_sums(centred * centred, lookback_steps) / lookback_steps
    spread = square - mean * mean
    # Below the rounding of its own terms a variance is zero: a constant lookback has no spread.
    spread = np.where(spread > 1e-14 * square, spread, np.where(np.isnan(spread), np.nan, 0.0))
    return mean + level, np.sqrt(spread)


def time_columns(timestamps: IntArray) -> FloatArray:
    """Sine and cosine of the UTC hour (with its fraction) and of the weekday (Monday is 0), [T, 4]."""
    hour = 2 * np.pi * (timestamps % DAY_SECONDS) / DAY_SECONDS
    weekday = 2 * np.pi * ((timestamps // DAY_SECONDS + 3) % 7) / 7  # 1970-01-01 was a Thursday
    return np.stack([np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday)], axis=-1)


def second_of_week(columns: FloatArray) -> IntArray:
    """The inverse of `time_columns`: seconds since Monday 00:00 UTC, from [..., 4] to [...].

    >>> second_of_week(time_columns(np.array([1_700_000_000]))).tolist() == [(1_700_000_000 + 3 * 86_400) % 604_800]
    True
    """
    turn = 2 * np.pi
    second = np.rint(np.arctan2(columns[..., 0], columns[..., 1]) / turn * DAY_SECONDS).astype(np.int64) % DAY_SECONDS
    weekday = np.rint(np.arctan2(columns[..., 2], columns[..., 3]) / turn * 7).astype(np.int64) % 7
    return weekday * DAY_SECONDS + second


def carry_forward(values: FloatArray) -> FloatArray:
    """Each gap holds the last finite value before it; NaN (and infinities) before a series' first value are NaN."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    newest = np.maximum.accumulate(np.where(finite, np.arange(values.shape[1]), -1), axis=1)
    filled = np.take_along_axis(values, np.maximum(newest, 0), axis=1)
    filled[newest < 0] = np.nan
    return filled


def _window_sums(values: FloatArray, width: int) -> FloatArray:
    n, length = values.shape
    chunks = -(-length // width)
    padded = np.zeros((n, chunks * width))
    padded[:, :length] = values
    cube = padded.reshape(n, chunks, width)
    head = np.cumsum(cube, axis=2).reshape(n, -1)
    tail = (np.cumsum(cube[:, :, ::-1], axis=2)[:, :, ::-1]).reshape(n, -1)
    starts = np.arange(length - width + 1)
    sums = head[:, width - 1 : length].copy()
    inside = starts % width != 0
    sums[:, inside] += tail[:, starts[inside]]
    return sums
