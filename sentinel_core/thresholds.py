"""When a forecast series gets across a threshold: how likely within the horizon, and how soon.

At one lead the value is taken to be normal on either side of the forecast, which is its median, so wide that the bounds
are its quantiles: that honours bounds that are wider above than below, and what is asked for lies near or inside them.

Whether the path of a series gets across at any lead depends on how the errors at neighbouring leads hang together. That
is read from how the bounds widen. If each step adds as much that is new as the first one did, the errors of variance
v[k] and v[k - 1] correlate by sqrt(1 - v[0] / v[k]). Bounds that grow with the square root of the lead are a random
walk's, bounds that stay as they are those of noise that each step has for itself, and between them lies every AR(1)
process: for these it is exact. For a wandering level under noise it errs towards "sooner" (simulated: 0.82 where 0.65
is true at worst, 0.03 more where it is rare).

The path is a Markov chain of normal scores; it is drawn, always with the same random numbers, and what the leads say by
themselves bounds what the draws may say. A bound that was cut off, as a ratio's is at 1, is no quantile any more: there
the other side tells how wide it would be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

PATHS = 2048  # drawn per series: a probability is sure to about 0.01
EVEN = 0.5  # the median time is the first lead by which it is as likely as not
_SEED = 5
_SURE = 1e-3  # where the leads alone say so nearly how likely it is, nothing is drawn
_INSIDE = 0.1  # of the width of the bounds: how near to one of them the median may be
_CERTAIN = 9.0  # a normal score that nothing gets to
_SCORES = np.linspace(-_CERTAIN, _CERTAIN, 4_097)
_BEYOND = np.array([NormalDist().cdf(-score) for score in _SCORES.tolist()])  # between two of them to a millionth
_BLOCK_FLOATS = 1 << 20


@dataclass(frozen=True)
class Threshold:
    """What a watch's values should not get across; they are when they are beyond it.

    >>> str(Threshold("above", 0.9)), str(Threshold("below", -2e6))
    ('above 0.9', 'below -2000000')
    """

    side: str  # above | below
    value: float

    def __str__(self) -> str:
        return f"{self.side} {self.value:.15g}"


@dataclass(frozen=True)
class Crossing:
    """How a threshold will be met by some series.

    probability: float64 [n] of a value beyond it at any lead; NaN where the forecast is not known at every lead
    leads:       int64 [n]: the median of the first such lead, 1 and up; 0 where that is beyond the horizon
    """

    threshold: Threshold
    probability: FloatArray
    leads: IntArray

    def of_series(self, chosen: NDArray[np.bool_]) -> "Crossing":
        """The same of some series, by mask."""
        return Crossing(self.threshold, self.probability[chosen], self.leads[chosen])

    def seconds(self, step_seconds: int) -> FloatArray:
        """The median time from the forecast's origin [n]; NaN where that is beyond the horizon."""
        return np.where(self.leads > 0, self.leads * float(step_seconds), np.nan)


def crossings(
    mean: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    level: float,
    thresholds: Mapping[str, float],
    bounds: Sequence[float] = (),
) -> tuple[Crossing, ...]:
    """How each threshold, as a watch has them, will be met.

    mean, lower, upper: [n, leads], all leads from 1 on
    level:              nominal coverage of the bounds
    bounds:             where a watch's forecasts are cut off; without them at most at 0, from below

    >>> flat = np.full((1, 3), 10.0)
    >>> [found] = crossings(flat + [0, 2, 4], flat + [-1, 1, 3], flat + [1, 3, 5], 0.95, {"above": 12.5})
    >>> found.probability.round(2).tolist(), found.leads.tolist()
    ([1.0], [3])
    """
    found = []
    lowest, highest = bounds or (0.0, np.inf)
    for side, value in sorted(thresholds.items()):
        with np.errstate(all="ignore"):
            if lowest < value < highest:  # what is cut off has still got across
                low, high = _whole(mean, lower, upper, lowest, highest)
            else:  # nothing gets there
                low, high = lower, upper
            if side == "above":
                limits, kept = _limits(mean, low, high, level, value)
            else:  # the mirror image
                limits, kept = _limits(-mean, -high, -low, level, -value)
        known = np.isfinite([mean, lower, upper, limits]).all(axis=(0, 2))
        probability, leads = np.full(len(mean), np.nan), np.zeros(len(mean), np.int64)
        by_lead = _crossed_by(limits[known], kept[known])
        if by_lead.size:
            probability[known] = by_lead[:, -1]
            leads[known] = np.where(by_lead[:, -1] >= EVEN, np.argmax(by_lead >= EVEN, axis=1) + 1, 0)
        found.append(Crossing(Threshold(side, float(value)), probability, leads))
    return tuple(found)


def _whole(
    mean: FloatArray, lower: FloatArray, upper: FloatArray, lowest: float, highest: float
) -> tuple[FloatArray, FloatArray]:
    """The bounds as they would be without cutting off: on that side at least as far away as on the other."""
    low = np.where(lower == lowest, np.minimum(lower, mean - (upper - mean)), lower)
    high = np.where(upper == highest, np.maximum(upper, mean + (mean - lower)), upper)
    return low, high


def _limits(
    mean: FloatArray, lower: FloatArray, upper: FloatArray, level: float, value: float
) -> tuple[FloatArray, FloatArray]:
    """The threshold as a normal score at each lead, and the correlation of each lead's error with the one before."""
    width = upper - lower
    median = np.clip(mean, lower + _INSIDE * width, upper - _INSIDE * width)
    distance = value - median
    spread = np.where(distance >= 0, upper - median, median - lower) / NormalDist().inv_cdf((1 + level) / 2)
    scores = np.where(spread > 0, distance / spread, np.where(distance >= 0, np.inf, -np.inf))
    share = np.where(width > 0, width[:, :1] / width, 0.0)
    return np.clip(scores, -_CERTAIN, _CERTAIN), np.sqrt(1 - np.minimum(share, 1.0) ** 2)


def _crossed_by(limits: FloatArray, kept: FloatArray) -> FloatArray:
    """Probability [n, leads] of a score beyond its limit at that lead or before."""
    alone = np.interp(limits, _SCORES, _BEYOND)
    least = np.maximum.accumulate(alone, axis=1)  # if one error went through all leads
    most = np.minimum(np.cumsum(alone, axis=1), 1.0)  # if never two leads were beyond it together
    open_questions = np.flatnonzero((most - least > _SURE).any(axis=1))
    for start in range(0, len(open_questions), size := max(1, _BLOCK_FLOATS // PATHS)):
        rows = open_questions[start : start + size]
        least[rows] = np.clip(_drawn(limits[rows], kept[rows]), least[rows], most[rows])
    return least


def _drawn(limits: FloatArray, kept: FloatArray) -> FloatArray:
    """The same as shares of drawn paths; at each lead the new errors are normal quantiles, shuffled."""
    rng = np.random.default_rng(_SEED)
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / PATHS) for i in range(PATHS)], np.float32)
    beyond, keep = limits.astype(np.float32), kept.astype(np.float32)
    fresh = np.sqrt(1 - keep**2)
    scores = np.broadcast_to(quantiles, (len(limits), PATHS))
    below = scores <= beyond[:, :1]
    shares = np.empty(limits.shape)
    shares[:, 0] = below.mean(axis=1)
    for lead in range(1, limits.shape[1]):
        column = slice(lead, lead + 1)
        scores = keep[:, column] * scores + fresh[:, column] * rng.permutation(quantiles)
        below &= scores <= beyond[:, column]
        shares[:, lead] = below.mean(axis=1)
    return 1 - shares
