"""The population stability index of histograms, what noise alone brings, and how sure one can be of it.

b and c are the counts of the baseline and of the current window over the same bins, n and m their sums, B the number of
bins that either has used. Every function is vectorised over leading axes: counts are [..., bins], the rest is [...].
With noise alone PSI / k is about chi-squared with B - 1 degrees of freedom, where k = phi (1/n + 1/m): PSI is nearly a
quadratic form of the differences, and phi says how much more days differ than independent events would (1: not at all).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray

TAIL_Z = 1.959963984540054  # of a standard normal, 2.5 % are above it
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def contributions(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """What each bin adds to the PSI, (p - q) ln(p / q) [..., bins], none of it negative.

    Half an event is added to every used bin (Jeffreys' prior), so that an empty one costs no infinity. Bins that
    neither side has used are left out: they hold no information, and each would count as a degree of freedom.

    >>> contributions(np.array([50.0, 50, 0]), np.array([80.0, 20, 0])).round(3).tolist()
    [0.139, 0.268, 0.0]
    """
    q, p, used = _shares(baseline, current)
    return np.where(used, (p - q) * np.log(p / q), 0.0)


def psi(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """The population stability index [...]; 0 where either side is empty: nothing was compared."""
    compared = (baseline.sum(axis=-1) > 0) & (current.sum(axis=-1) > 0)
    return np.where(compared, contributions(baseline, current).sum(axis=-1), 0.0)


def degrees(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """B - 1 [...]: one less than the bins that either side has used, and at least 0."""
    return np.asarray(np.maximum(((baseline + current) > 0).sum(axis=-1) - 1.0, 0.0))


def p_value(value: FloatArray, degrees: FloatArray) -> FloatArray:
    """P(X > value) of chi-squared X with whole `degrees` [...]; 1 where there are none.

    The finite sums of Abramowitz and Stegun, 26.4.4 and 26.4.5: exact, and a chi-squared of PSI never has more than 25
    degrees of freedom.
    """
    value, degrees = np.broadcast_arrays(np.asarray(value, float), degrees)
    half = np.minimum(value / 2, 740.0)  # exp of less is 0
    odd = degrees % 2 == 1
    tail = np.where(odd, _erfc(np.sqrt(half)), 0.0)
    term = np.where(odd, np.sqrt(half / math.pi) * 2, 1.0) * np.exp(-half)
    for k in range(int(degrees.max(initial=0)) // 2 + 1):
        tail = tail + np.where(2 * k + 1 + odd <= degrees, term, 0.0)
        term = term * half / (k + 1 + 0.5 * odd)
    return np.where(degrees > 0, np.minimum(tail, 1.0), 1.0)


def interval(value: FloatArray, scale: FloatArray, degrees: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The 95 % interval of the true PSI where `value` was measured, [...] each; both ends are `value` without degrees.

    scale: k [...], what one degree of freedom of noise brings on average

    value / scale is noncentral chi-squared, with true PSI / scale as its noncentrality: the ends are those that would
    give a value as high (as low) in 2.5 % of windows. They are found by bisection.
    """
    value, scale, degrees = np.broadcast_arrays(np.asarray(value, float), scale, degrees)
    known = (degrees > 0) & (scale > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = np.where(known, value / scale, 1.0)
    freedom = np.where(known, degrees, 1.0)
    ends = []
    for z in (TAIL_Z, -TAIL_Z):
        low = np.zeros(measured.shape)
        high = measured + 40 + 10 * np.sqrt(measured)
        for _ in range(40):  # 1e-12 of the first bracket
            middle = (low + high) / 2
            below = _normal_score(measured, freedom, middle) > z
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        ends.append(np.where(known, low * scale, value))
    return ends[0], ends[1]


def _normal_score(value: FloatArray, degrees: FloatArray, noncentrality: FloatArray) -> FloatArray:
    """Standard normal score of a noncentral chi-squared value (Sankaran 1963): its P is right to 0.005."""
    mean = degrees + noncentrality
    twice = mean + noncentrality
    h = 1 - 2 * mean * (mean + 2 * noncentrality) / (3 * twice**2)
    p = twice / mean**2
    m = (h - 1) * (1 - 3 * h)
    expected = 1 + h * p * (h - 1 - (2 - h) * m * p / 2)
    return ((value / mean) ** h - expected) / (h * np.sqrt(2 * p) * (1 + m * p / 2))


def _shares(baseline: FloatArray, current: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    used = (baseline + current) > 0
    bins = used.sum(axis=-1, keepdims=True)
    q = (baseline + 0.5) / (baseline.sum(axis=-1, keepdims=True) + np.maximum(bins, 1) / 2)
    p = (current + 0.5) / (current.sum(axis=-1, keepdims=True) + np.maximum(bins, 1) / 2)
    return q, p, used
