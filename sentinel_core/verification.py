"""How good forecasts turned out to be: by watch and lead, against what came and against the seasonal naive.

Each round of steps is summed up per series and lead, rounds add up, and what is told is of the sums of a day.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models.rows import knots
from sentinel_core.windows import FloatArray, IntArray, Window

DAY_SECONDS = 86_400
EARLY_ROUNDS = 12  # of a first bucket: a watch's first numbers come after so small a part of it
COUNTS, ERRORS = ("n", "below", "above"), ("error", "bias", "naive")
ADDED = (*COUNTS, *ERRORS)  # what adds up, in this order


def bucket_seconds(step_seconds: int) -> int:
    """How often the quality of forecasts is told anew.

    >>> bucket_seconds(5), bucket_seconds(60), bucket_seconds(7_200)
    (300, 3600, 7200)
    """
    return 60 * step_seconds if step_seconds < 60 else max(3_600, step_seconds)


def round_seconds(step_seconds: int, *, young: bool) -> int:
    """The same for a watch that has no whole bucket behind it yet (`young`), or has; a multiple of the step."""
    bucket = bucket_seconds(step_seconds)
    return -(-bucket // EARLY_ROUNDS // step_seconds) * step_seconds if young else bucket


def reach_seconds(step_seconds: int) -> int:
    """How far back forecasts are judged and told of: a day, or a step that is longer.

    >>> reach_seconds(60), reach_seconds(172_800)
    (86400, 172800)
    """
    return max(DAY_SECONDS, step_seconds)


def judged_leads(horizon_steps: int) -> IntArray:
    """The leads whose quality is kept: powers of two and the horizon, in steps."""
    return knots(horizon_steps)


def seasonal_naive(recent: Window, before: Sequence[FloatArray], leads: Sequence[int]) -> FloatArray:
    """What a seasonal naive forecast would have said of the newest T steps of a window [n, leads, T].

    recent: the T steps, and at least the longest lead before them
    before: per lead, the values [n, T] of a day before the T steps (of more days where one was not over yet), NaN where
    unknown; there the naive forecast is the last value known at its origin
    """
    steps = np.arange(len(recent.timestamps))
    newest = np.maximum.accumulate(np.where(np.isfinite(recent.values), steps, 0), axis=1)
    known = np.take_along_axis(recent.values, newest, axis=1)
    end = len(steps)
    return np.stack(
        [
            np.where(np.isfinite(seasonal), seasonal, known[:, end - seasonal.shape[1] - lead : end - lead])
            for seasonal, lead in zip(before, leads, strict=True)
        ],
        axis=1,
    )


def sums(actual: FloatArray, mean: FloatArray, lower: FloatArray, upper: FloatArray, naive: FloatArray) -> FloatArray:
    """What ADDED names, over T steps [6, n, leads]; a step counts where the actual and all forecasts are known.

    actual: [n, 1, T]; all others [n, leads, T]
    """
    residual, naive_error = mean - actual, np.abs(actual - naive)
    known = np.isfinite(residual) & np.isfinite(lower) & np.isfinite(upper) & np.isfinite(naive_error)
    parts = (known, actual < lower, actual > upper, np.abs(residual), residual, naive_error)
    return np.stack([np.where(known, part, 0.0).sum(axis=2) for part in parts])


def least_coverage(level: float, samples: int, series: int, lead_seconds: int) -> float:
    """The lowest coverage over a day that bounds of a level may have by chance.

    Three standard errors and two points below the level. Few of the samples are independent: forecasts that overlap err
    together, so a series has no more than leads fit into the day, and n series of one watch count as sqrt(n).

    >>> round(least_coverage(0.95, 2_880, 10, 300), 3), round(least_coverage(0.95, 2_880, 10, 86_400), 3)
    (0.908, 0.562)
    """
    independent = min(samples / series, DAY_SECONDS / lead_seconds) * math.sqrt(series)
    return level - 0.02 - 3 * math.sqrt(level * (1 - level) / independent)


def qualities(rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """How good the forecasts of each watch and lead were, as columns sorted by both.

    rows: one per (watch, series, lead), with what was ADDED up for it

    samples:      judged forecasts, of `series` series
    mae, bias:    in the metric's unit, medians over series: of the mean of |forecast - actual| and of forecast - actual
    mase:         median over series of MAE by the seasonal naive's; NaN or infinite where that made no error at all
    coverage:     share of actuals inside the bounds; above: share beyond the upper one
    better_share: of series whose forecasts were better than the seasonal naive's
    """
    judged = rows["n"] > 0
    keys = np.stack([rows["watch"][judged].astype(np.int64), rows["lead"][judged].astype(np.int64)], axis=1)
    (watch, lead), group = _groups(keys)
    n, below, above, error, bias, naive = (rows[name][judged].astype(np.float64) for name in ADDED)
    samples, outside, beyond = (
        np.bincount(group, weights=one, minlength=len(watch)) for one in (n, below + above, above)
    )
    series = np.bincount(group, minlength=len(watch))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = error / naive  # NaN where neither erred: such a series says nothing
    return {
        "watch": watch,
        "lead": lead,
        "samples": samples.astype(np.int64),
        "series": series,
        "mae": _medians(group, series, error / n),
        "mase": _medians(group, series, ratio),
        "bias": _medians(group, series, bias / n),
        "coverage": 1 - outside / samples,
        "above": beyond / samples,
        "better_share": np.bincount(group, weights=error < naive, minlength=len(watch)) / series,
    }


def _groups(keys: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct rows of keys [n, 2] in ascending order, as columns [2, groups], and which of them each row is."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    first = np.ones(len(order), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(first) - 1
    return ordered[first].T, group


def _medians(group: IntArray, sizes: IntArray, values: FloatArray) -> FloatArray:
    """Median of the known values of each group; NaN where there are none."""
    ordered = values[np.lexsort((values, group))]  # NaN comes last within its group
    starts = np.cumsum(sizes) - sizes
    known = np.bincount(group[~np.isnan(values)], minlength=len(sizes))
    middle = (ordered[starts + np.maximum(known - 1, 0) // 2] + ordered[starts + np.minimum(known // 2, sizes - 1)]) / 2
    return np.where(known > 0, middle, np.nan)
