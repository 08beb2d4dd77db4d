"""The population stability index of histograms, what noise alone brings, and how sure one can be of it.

b and c are the counts of the baseline and of the current window over the same bins, n and m their sums, B the number of
bins that either has used. Every function is vectorised over leading axes: counts are [..., bins], the rest is [...].
With noise alone PSI / k is chi-squared with B - 1 degrees of freedom, where k = phi (1/n + 1/m): PSI is a quadratic form
of the differences, and phi says how much more days differ than independent events would (1: not at all).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray

TAIL = 0.025  # of each side of the 95 % interval


def contributions(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """What each bin adds to the PSI, (p - q) ln(p / q) [..., bins], none of it negative.

    Half an event is added to every used bin (Jeffreys' prior), so that an empty one costs no infinity. Bins that
    neither side has used are left out: they hold no information, and each would count as a degree of freedom.

    >>> contributions(np.array([50.0, 50, 0]), np.array([80.0, 20, 0])).round(3).tolist()
    [0.138, 0.267, 0.0]
    """
    raise NotImplementedError


def psi(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """The population stability index [...]; 0 where a side is empty."""
    raise NotImplementedError


def degrees(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """B - 1 [...]: one less than the bins that either side has used, and at least 0."""
    raise NotImplementedError


def interval(value: FloatArray, scale: FloatArray, degrees: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The 95 % interval of the true PSI where `value` was measured: value / scale is noncentral chi-squared.

    scale: k [...], the PSI that one degree of freedom brings
    """
    raise NotImplementedError


def p_value(value: FloatArray, degrees: FloatArray) -> FloatArray:
    """The probability that a chi-squared variable with `degrees` (any positive number) exceeds `value`."""
    raise NotImplementedError
