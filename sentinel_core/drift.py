"""Drift of forecasts: each is judged against the actual at its own time and lead, per series, over a rolling window."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray, Window

NONE, LOW, HIGH = 0, 1, 2
SEVERITIES = ("none", "low", "high")
MOST_SCALED = 1e12  # a residual in training MAEs; infinite ones would count as unknown
MIN_SCORED = 10  # scored steps before any verdict: below that a mean of absolute errors is mostly luck


@dataclass(frozen=True)
class Scores:
    """Scored steps, one row per (watch, series, time) whose actual is known.

    watch int32, fingerprint int64, timestamp int64, version int32: all [rows]
    mae:    float64 [rows], mean over the leads of |actual - forecast|, in the metric's unit
    scaled: float64 [rows], the same with every lead divided by that lead's held-back training MAE
    """

    watch: NDArray[np.int32]
    fingerprint: IntArray
    timestamp: IntArray
    version: NDArray[np.int32]
    mae: FloatArray
    scaled: FloatArray


def score(
    watch: NDArray[np.int32],
    fingerprint: IntArray,
    timestamp: IntArray,
    version: NDArray[np.int32],
    forecast: FloatArray,
    training_mae: FloatArray,
    serving: NDArray[np.bool_],
    actuals: Window,
) -> Scores:
    """Compare forecasts [rows] (one per watch, series, time and lead) with the actuals at their own timestamps.

    serving: the row's version is the one that serves its series now

    Rows of one (watch, series, time) are averaged over their leads, but only those of one version: the serving one's
    where there are any (a higher number may have been rolled back), else the newest's. Rows without an actual fall
    away.
    """
    residual = np.abs(actuals.at(fingerprint, timestamp) - forecast)
    keep = np.isfinite(residual)
    order = np.flatnonzero(keep)
    preferred = (-version[order], ~serving[order])
    order = order[np.lexsort((*preferred, timestamp[order], fingerprint[order], watch[order]))]
    if not len(order):
        empty = np.empty(0)
        return Scores(watch[:0], fingerprint[:0], timestamp[:0], version[:0], empty, empty)
    keys = watch[order], fingerprint[order], timestamp[order]
    first = np.concatenate([[True], np.logical_or.reduce([key[1:] != key[:-1] for key in keys])])
    starts = np.flatnonzero(first)
    chosen = version[order][starts][np.cumsum(first) - 1] == version[order]
    residual = residual[order]
    count = np.add.reduceat(chosen.astype(float), starts)
    mae = np.add.reduceat(np.where(chosen, residual, 0.0), starts) / count
    with np.errstate(over="ignore"):  # a series that never moved has next to no training MAE
        in_mae = np.minimum(residual / training_mae[order], MOST_SCALED)
    scaled = np.add.reduceat(np.where(chosen, in_mae, 0.0), starts) / count
    return Scores(keys[0][starts], keys[1][starts], keys[2][starts], version[order][starts], mae, scaled)


def rolling_mean(errors: FloatArray, window: IntArray) -> tuple[FloatArray, IntArray]:
    """Mean of the last `window` [n] finite values of each row [n, T], and how many there were; NaN where none."""
    finite = np.isfinite(errors)
    from_the_right = np.cumsum(finite[:, ::-1], axis=1, dtype=np.int32)[:, ::-1]
    used = finite & (from_the_right <= window[:, None])
    count = used.sum(axis=1)
    total = np.where(used, errors, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count.astype(np.int64)


def judged(scored: IntArray, window: IntArray) -> NDArray[np.bool_]:
    """Which series have been scored often enough for a verdict."""
    return scored >= np.minimum(MIN_SCORED, window)


def severity(
    rolling: FloatArray, scored: IntArray, finetune: FloatArray, retrain: FloatArray, window: IntArray
) -> NDArray[np.int8]:
    """NONE below the finetune threshold, LOW from there to below the retrain threshold, HIGH from there on; all [n].

    A series with fewer than min(MIN_SCORED, window) scored steps has no verdict yet: NONE.
    """
    level = np.where(rolling >= retrain, HIGH, np.where(rolling >= finetune, LOW, NONE))
    return np.where(judged(scored, window) & np.isfinite(rolling), level, NONE).astype(np.int8)
