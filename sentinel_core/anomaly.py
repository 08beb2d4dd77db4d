"""How unusual the newest value of each series is: 0 as forecast, 1 at the edge of the bounds, above 1 beyond them.

A value has been forecast at several leads. Each forecast says how far off it is in units of the distance to the bound
on that side, which makes metrics comparable; they count alike per octave of leads, so that both a jump from the last
values and a departure from the usual day show. After an alarm there is quiet: what lasts, or is smaller, is measured by
the alarm and stays at or below 1; what is worse than it is an alarm of its own.
"""

import numpy as np

from sentinel_core.windows import FloatArray

ALARM = 1.0  # a score above it is an alarm
MOST = 100.0  # of a score: a series that never moved has no width


def scores(errors: FloatArray, widths: FloatArray, earlier: FloatArray) -> FloatArray:
    """Anomaly score of each series at one time [n], 0 or more; NaN where no forecast or no actual is known.

    errors:  [n, leads], actual - forecast for this time, column k made k + 1 steps before; NaN where there is none
    widths:  [n, leads], how far the bound on the error's side is from each forecast, 0 or more
    earlier: [n, steps], what this function said at the steps before, as many as the quiet lasts; NaN where unknown

    >>> bounds = np.full((1, 2), 10.0)
    >>> first = scores(np.array([[20.0, 20.0]]), bounds, np.zeros((1, 3)))
    >>> lasting = scores(np.array([[20.0, 20.0]]), bounds, np.array([[0.0, 0.0, first[0]]]))
    >>> first.tolist(), lasting.tolist()
    ([2.0], [1.0])
    """
    known = np.isfinite(errors) & np.isfinite(widths)
    with np.errstate(all="ignore"):  # a width of 0
        beyond = np.where(errors == 0, 0.0, np.minimum(np.abs(errors) / widths, MOST))
    weights = known / np.arange(1, errors.shape[1] + 1)
    total = weights.sum(axis=1)
    score = np.where(known, beyond * weights, 0.0).sum(axis=1) / np.where(total > 0, total, np.nan)
    alarm = np.fmax.reduce(earlier, axis=1, initial=0.0)
    lasting: FloatArray = np.where((alarm > ALARM) & (score <= alarm), score / np.fmax(alarm, ALARM), score)
    return lasting
