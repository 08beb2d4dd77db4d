"""The units in which the default model sees each series: about its median, in its spread, and where spikes begin."""

import numpy as np

from sentinel_core.models import rows
from sentinel_core.windows import FloatArray

SPIKES, SPIKE = 0.01, 3.0  # what is this many times as far out as all but a hundredth is a spike
LARGEST = 1e4  # of a value in units of spread; its square must fit into float32


def level_and_spread(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median and mean absolute distance from it per row; spread 1 where that is nothing but rounding."""
    level = rows.nanmedian(_thinned(values))
    distance = np.abs(values - level[:, None])
    finite = np.isfinite(distance)
    spread = np.where(finite, distance, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return level, np.where(spread > 1e-14 * np.abs(level), spread, 1.0)


def _thinned(values: FloatArray) -> FloatArray:
    """At most about a thousand columns of many, whose quantiles are nearly the same."""
    return values[:, :: max(1, values.shape[1] // 1_000) | 1]


def usual_reach(z: FloatArray) -> FloatArray:
    """The distance beyond which a value [n, T] counts as a spike and is drawn in to, [n]."""
    z = _thinned(z)
    size = np.sort(np.where(np.isfinite(z), np.abs(z), -1.0), axis=1)
    if not size.shape[1]:
        return np.full(len(z), LARGEST)
    count = (size >= 0).sum(axis=1)
    rank = size.shape[1] - 1 - (count * SPIKES).astype(np.int64)
    usual = SPIKE * size[np.arange(len(z)), rank]
    farthest: FloatArray = np.clip(np.where(usual > 0, usual, size[:, -1]), 1.0, LARGEST)
    return farthest
