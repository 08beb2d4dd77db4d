"""Drift of forecasts: each is judged against the actual at its own time and lead, per series, over a rolling window."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinel_core import usual
from sentinel_core.windows import FloatArray, IntArray, Window

NONE, LOW, HIGH = 0, 1, 2
SEVERITIES = ("none", "low", "high")
IN_WORDS = {"mae": "", "scaled": " times that of training", "auto": " deviations above its usual one"}
MOST_SCALED = 1e12  # a residual in training MAEs; infinite ones would count as unknown
MIN_SCORED = 10  # scored steps before any verdict: below that a mean of absolute errors is mostly luck
MIN_SCORED_AUTO = 20  # where thresholds are as low as chance allows: with 10, a third more false alarms


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


def in_words(unit: str, error: float) -> str:
    """A rolling error in a drift_unit, as people read it.

    >>> [in_words(unit, 3.456) for unit in ("mae", "scaled", "auto")]
    ['3.46', '3.46 times that of training', '3.46 deviations above its usual one']
    """
    return f"{error:.3g}{IN_WORDS[unit]}"


def rolling_mean(errors: FloatArray, window: IntArray) -> tuple[FloatArray, IntArray]:
    """Mean of the last `window` [n] finite values of each row [n, T], and how many there were; NaN where none."""
    finite = np.isfinite(errors)
    from_the_right = np.cumsum(finite[:, ::-1], axis=1, dtype=np.int32)[:, ::-1]
    used = finite & (from_the_right <= window[:, None])
    count = used.sum(axis=1)
    total = np.where(used, errors, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count.astype(np.int64)


def strength(
    scaled: FloatArray, seasonal: FloatArray, scored: IntArray, window: IntArray, expected: FloatArray
) -> FloatArray:
    """How far the last window of each series is from what is usual for it, in standard deviations, [n]; 0: it is not.

    Two things add up: how much worse its forecasts are than in training, and how much farther it is from its own day
    before than it used to be. The second lasts where a forecast follows a new level at once. On 162 operations series
    either alone finds a tenth fewer of the level shifts with as many false alarms (benchmarks/forecast_drift.py).

    scaled, seasonal: rolling means [n], in training MAEs, and of |value - a day before|
    expected:         `Fitted.usual`; assumed where an older release has not measured it
    """
    short = np.sqrt(np.maximum(1.0, window / np.maximum(scored, 1)))  # fewer steps vary more
    spread = np.nan_to_num(expected[:, usual.SPREAD], nan=usual.ASSUMED_SPREAD)
    worse = (scaled - 1.0) / (spread * short)
    farther = (seasonal - expected[:, usual.SEASONAL]) / (expected[:, usual.SEASONAL_SPREAD] * short)
    total: FloatArray = np.maximum(worse, 0.0) + np.maximum(np.nan_to_num(farther), 0.0)
    return np.minimum(total, MOST_SCALED)


def judged(scored: IntArray, window: IntArray, auto: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which series have been scored often enough for a verdict; all [n]."""
    return scored >= np.minimum(np.where(auto, MIN_SCORED_AUTO, MIN_SCORED), window)


def severity(
    rolling: FloatArray,
    judged: NDArray[np.bool_],
    finetune: FloatArray,
    retrain: FloatArray,
    outdone: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """NONE below the finetune threshold, LOW from there on, HIGH from the retrain threshold on; all [n].

    judged:   scored often enough; without that there is no verdict: NONE
    outdone:  a forecast that costs nothing was better; else a retrain would hardly help, and HIGH is LOW
    """
    level = np.where((rolling >= retrain) & outdone, HIGH, np.where(rolling >= finetune, LOW, NONE))
    return np.where(judged & np.isfinite(rolling), level, NONE).astype(np.int8)
