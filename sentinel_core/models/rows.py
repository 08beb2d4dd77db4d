"""What every built-in asks of its rows: the newest value, a scale, blocks that fit in memory, a memory that fades."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray, Window

BLOCK_FLOATS = 1 << 18  # of one temporary array; a dozen are alive at once, and larger ones leave the caches
SURE = 4.0  # a slope whose squared t value is below this is noise and counts as level
FEW_SAMPLES = 24.0  # beyond a fit's own: with so many, a slope needs twice the certainty it needs with very many
HELD_BACK_SHARE = 0.2
MAX_ORIGINS = 48  # held-back origins a validation forecasts from: bounds at 95 % want a few dozen residuals a lead
MEMORY = 2.0  # a finetune forgets until what was learnt before weighs at most this many times what is new


Parameters = dict[str, NDArray[Any]]


def blocks(n: int, floats_per_row: int) -> Iterator[slice]:
    """Slices of n rows that each need `floats_per_row` float64 in one temporary array; one empty slice for none."""
    size = max(1, BLOCK_FLOATS // max(1, floats_per_row))
    return (slice(start, min(start + size, n)) for start in range(0, max(n, 1), size))


def in_blocks(
    window: Window,
    learn: Callable[[Window, Parameters | None], Parameters],
    old: Parameters | None = None,
    floats_per_row: int | None = None,
) -> Parameters:
    """Call `learn` with some rows of the window and of the `old` parameters at a time, and join what it returns."""
    n, samples = window.values.shape
    parts = []
    for block in blocks(n, floats_per_row or samples):
        index = np.arange(block.start, block.stop)
        parts.append(learn(window.rows(index), None if old is None else {k: v[block] for k, v in old.items()}))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def newest_values(values: FloatArray) -> tuple[FloatArray, IntArray]:
    """The newest finite value of each row (NaN where there is none) and how many steps ago it was.

    >>> newest_values(np.array([[1.0, 2.0, np.nan]]))
    (array([2.]), array([1]))
    """
    if not values.shape[1]:
        return np.full(len(values), np.nan), np.zeros(len(values), np.int64)
    finite = np.isfinite(values)
    age = np.argmax(finite[:, ::-1], axis=1).astype(np.int64)
    rows = np.arange(len(values))
    return np.where(finite[rows, values.shape[1] - 1 - age], values[rows, values.shape[1] - 1 - age], np.nan), age


def middle_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The median and the largest distance from it, per row; scale 1 where the row is constant or empty."""
    middle = nanmedian(values)
    distance = np.abs(values - middle[:, None])
    scale = np.max(np.where(np.isfinite(distance), distance, 0.0), axis=1, initial=0.0)
    return middle, np.where(scale > 0, scale, 1.0)


def nanmedian(values: FloatArray) -> FloatArray:
    """Median of the finite values of each row; 0 where there are none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    ordered = np.sort(np.where(finite, values, np.inf), axis=1)
    rows = np.arange(len(values))
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    if not values.shape[1]:
        return np.zeros(len(values))
    pair = ordered[rows, low] / 2 + ordered[rows, np.minimum(high, values.shape[1] - 1)] / 2
    return np.where(count > 0, pair, 0.0)


def nanmean(values: FloatArray) -> FloatArray:
    """Mean over the last axis, NaN without a warning where nothing is finite."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    return np.where(count > 0, np.where(finite, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def centre_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The newest value and the largest distance from it, per row: (value - centre) / scale is within [-1, 1].

    A constant or empty row has scale 1 and, where empty, centre 0.
    """
    newest, _ = newest_values(values)
    centre = np.where(np.isfinite(newest), newest, 0.0)
    distance = np.abs(values - centre[:, None])
    scale = np.max(np.where(np.isfinite(distance), distance, 0.0), axis=1, initial=0.0)
    return centre, np.where(scale > 0, scale, 1.0)


def trailing_mean(values: FloatArray, lookback: int) -> FloatArray:
    """Mean of the known values among the newest `lookback` at each column [n, T]; 0 where there are none."""
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0), axis=1)
    count = np.cumsum(known, axis=1)
    if values.shape[1] > lookback:
        total[:, lookback:] -= total[:, :-lookback].copy()
        count[:, lookback:] -= count[:, :-lookback].copy()
    mean: FloatArray = total / np.maximum(count, 1)
    return mean


def kept_share(old_weight: FloatArray, new_weight: FloatArray, lookback_steps: int) -> FloatArray:
    """The factor that a finetune applies to what was learnt before, so that MEMORY holds."""
    return np.minimum(1.0, MEMORY * np.maximum(new_weight, lookback_steps) / np.maximum(old_weight, 1.0))


def pooled(values: FloatArray, n: int) -> FloatArray:
    """The median over series, for each of n others."""
    return np.tile(np.median(values, axis=0), (n, *[1] * (values.ndim - 1)))


def held_back_origins(samples: int, lookback: int, horizon: int, fresh: int | None = None) -> IntArray:
    """Column indices to forecast from, newest part of a history of `samples` columns, evenly spread.

    The first is the last column a validation fit may see. A history of exactly lookback + horizon gives one origin.
    Of `fresh` columns that a champion has not seen, a finetune learns the older half and is judged on the newer.

    >>> held_back_origins(35, 30, 5).tolist()
    [29]
    >>> held_back_origins(1000, 30, 5, fresh=24).tolist()
    [987, 988, 989, 990, 991, 992, 993, 994]
    """
    last = samples - horizon - 1
    if last < 0:
        return np.empty(0, np.int64)
    held_back = max(int(samples * HELD_BACK_SHARE), 2 * horizon)
    if fresh is not None:
        held_back = min(held_back, max(fresh // 2, horizon))
    first = max(min(lookback - 1, last), samples - held_back - 1)
    return np.unique(np.linspace(first, last, MAX_ORIGINS).round().astype(np.int64))


def knots(horizon_steps: int) -> IntArray:
    """Leads at which coefficients are learnt, powers of two and the horizon; those between are interpolated.

    >>> knots(12).tolist()
    [1, 2, 4, 8, 12]
    """
    powers = [1 << k for k in range(horizon_steps.bit_length()) if 1 << k < horizon_steps]
    return np.array([*powers, horizon_steps], np.int64)


def between_knots(coefficients: FloatArray, at: IntArray, leads: IntArray) -> FloatArray:
    """Coefficients [n, knots, m] at leads [n, steps] as [n, steps, m], linear in the logarithm of the lead.

    Beyond the last knot its own are kept.
    """
    position = np.interp(np.log(leads), np.log(at), np.arange(len(at)))
    low = position.astype(np.int64)
    high = np.minimum(low + 1, len(at) - 1)
    share = (position - low)[..., None]
    rows = np.arange(len(coefficients))[:, None]
    joined: FloatArray = (1 - share) * coefficients[rows, low] + share * coefficients[rows, high]
    return joined
