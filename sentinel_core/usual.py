"""What is usual for a series over a drift window, as its training saw it: what `drift_unit = "auto"` judges against.

A mean over a window of errors varies from window to window, with some series by a few percent and with others by more
than itself. Both that, and how far a series is from its own day before, are measured once, when it is trained.
"""

import numpy as np

from sentinel_core.models.rows import nanmean
from sentinel_core.windows import FloatArray, Window

SPREAD, SEASONAL, SEASONAL_SPREAD = range(3)  # columns of what `measure` returns
ASSUMED_SPREAD = 0.45  # the median of 162 operations series with windows of 60 steps of 5 minutes
ASSUMED_WINDOWS = 6.0  # what is assumed counts as much as so many windows that were seen
FEWEST_ORIGINS = 6  # of one window: its mean is mostly luck with fewer
FEWEST_WINDOWS = 3
LEAST_SEASONAL_SPREAD = 0.25  # of the mean: a few windows may happen to be alike


def measure(errors: FloatArray, span: int, window: Window, cycle: int, drift_window: int) -> FloatArray:
    """What is usual for each series, [n, 3], by columns:

    SPREAD:          of the mean of a window's errors, in multiples of the series' mean error
    SEASONAL:        |value - value a cycle before| in the mean, in the metric's unit; NaN where history is too short
    SEASONAL_SPREAD: of the mean of a window of these; NaN likewise

    errors: held-back residuals [n, origins, leads], oldest origin first, evenly spread
    span:   steps over which the origins are spread
    cycle:  steps of the seasonal naive forecast
    """
    seasonal = np.abs(window.values[:, cycle:] - window.values[:, :-cycle])
    width = min(drift_window, max(1, seasonal.shape[1] // FEWEST_WINDOWS))
    whole = seasonal.shape[1] // width * width
    means = nanmean(seasonal[:, seasonal.shape[1] - whole :].reshape(len(seasonal), whole // width, width))
    known = np.isfinite(means).sum(axis=1) >= FEWEST_WINDOWS
    size = nanmean(np.abs(window.values))
    level = np.maximum(nanmean(means), np.maximum(1e-6 * size, np.finfo(float).tiny))
    spread = np.maximum(_nanstd(means), LEAST_SEASONAL_SPREAD * level)
    return np.stack([_spread(errors, span / drift_window), *(np.where(known, x, np.nan) for x in (level, spread))], 1)


def _spread(errors: FloatArray, windows: float) -> FloatArray:
    """Relative standard deviation of a window's mean error [n], drawn to what is assumed where few windows are seen."""
    size = np.abs(errors)
    scale = nanmean(size.transpose(0, 2, 1))[:, None, :]
    units = nanmean(np.divide(size, scale, out=np.full_like(size, np.nan), where=scale > 0))
    count = int(min(windows, errors.shape[1] // FEWEST_ORIGINS))
    if count < 2:
        return np.full(len(errors), ASSUMED_SPREAD)
    groups = np.array_split(units, count, axis=1)
    means = np.stack([nanmean(group) for group in groups], axis=1)
    seen = np.maximum(np.isfinite(means).sum(axis=1) - 1, 0)
    own = np.nan_to_num(_nanstd(means)) ** 2 * (seen + 1) / np.maximum(seen, 1)
    drawn: FloatArray = np.sqrt((seen * own + ASSUMED_WINDOWS * ASSUMED_SPREAD**2) / (seen + ASSUMED_WINDOWS))
    return drawn


def _nanstd(values: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):  # infinite where its square is: nothing is unusual there
        root: FloatArray = np.sqrt(nanmean((values - nanmean(values)[..., None]) ** 2))
    return root
