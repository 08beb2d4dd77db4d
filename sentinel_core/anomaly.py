"""How unusual the newest values of each series are: 0 as forecast, 1 at the edge of the bounds, above 1 an alarm.

A value has been forecast at several leads. Each forecast says how far off it is in units of the distance to the bound
on that side, which makes metrics comparable. These are averaged by their harmonic mean, with leads alike per octave:
only what all of them did not expect is unusual, one that is far out adds little. An average over the newest steps
follows: a single value is an alarm when it is four times as far out as the bounds, what lasts when it is just outside.

After an alarm there is quiet. While it lasts, a score is a share of what would be an alarm of its own: three
times the worst one so far. Without it one disturbance is counted many times.
"""

import numpy as np

from sentinel_core.models.rows import newest_values
from sentinel_core.windows import FloatArray

ALARM = 1.0  # a score above it is an alarm
WORSE = 3.0  # times the worst alarm of the quiet is an alarm of its own
NEW = 0.25  # share of the newest value in the average over steps: half of it is from the newest two or three
MOST = 100.0  # times as far out as the bounds: a series that never moved has none
SOFT = 0.1  # added to each distance: a lead that is right by chance does not rule the others out


def scores(errors: FloatArray, widths: FloatArray, earlier: FloatArray) -> FloatArray:
    """Anomaly score of each series at one time [n], 0 or more; NaN where no forecast or no actual is known.

    errors:  [n, leads], actual - forecast for this time, column k made k + 1 steps before; NaN where there is none
    widths:  [n, leads], how far the bound on the error's side is from each forecast, 0 or more
    earlier: [n, steps], what this function said at the steps before, as many as the quiet lasts, oldest first; NaN
             where unknown

    >>> bounds, said = np.full((1, 2), 10.0), np.zeros((1, 6))
    >>> for error in [20.0, 20.0, 20.0, 20.0]:
    ...     said = np.append(said[:, 1:], scores(np.full((1, 2), error), bounds, said)[:, None], axis=1)
    >>> said.round(2).tolist()
    [[0.0, 0.0, 0.5, 0.88, 1.16, 0.39]]
    """
    worst = np.fmax.reduce(earlier, axis=1, initial=0.0)
    bar = np.where(worst > ALARM, WORSE * worst, ALARM)
    before, _ = newest_values(earlier)
    before = np.where(before > ALARM, before, np.nan_to_num(before) * bar)
    level = before + NEW * (_distances(errors, widths) - before)
    score: FloatArray = np.where(level > bar, level, level / bar)
    return score


def widths(actual: FloatArray, mean: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """How far the bound on the side of each actual is from the forecast; arrays that broadcast, NaN where unknown.

    A bound at 0, or one that the actual lies on, may be where values end (rates, shares), rather than where few are.
    Nothing is ever beyond it, and what lies near it is usual: the distance to the other bound stands in if it is more.

    >>> widths(np.array([7.0, 0.0]), np.array([10.0, 0.5]), np.array([8.0, 0.0]), np.array([15.0, 4.5])).tolist()
    [2.0, 4.0]
    """
    below, above = mean - lower, upper - mean
    ends = np.where(actual < mean, (lower == 0) | (actual == lower), actual == upper)
    return np.where(ends, np.maximum(below, above), np.where(actual < mean, below, above))


def _distances(errors: FloatArray, widths: FloatArray) -> FloatArray:
    """How far out each value is by all its forecasts [n]; as far as every one says where they agree."""
    known = np.isfinite(errors) & np.isfinite(widths)
    with np.errstate(all="ignore"):  # a width of 0
        distance = np.where(errors == 0, 0.0, np.minimum(np.abs(errors) / widths, MOST))
    weights = known / np.arange(1, errors.shape[1] + 1)
    total = weights.sum(axis=1)
    agreed = np.where(known, weights / (distance + SOFT), 0.0).sum(axis=1)
    mean = np.maximum(total / np.where(total > 0, agreed, 1.0) - SOFT, 0.0)
    return np.where(total > 0, mean, np.nan)
