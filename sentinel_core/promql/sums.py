"""Sums as Prometheus makes them: Kahan's, as Neumaier improved it, so that 1 + 1e100 + 1 - 1e100 is 2."""

import numpy as np

from sentinel_core.windows import FloatArray

PIECE = 128  # values added up one by one; of longer sums, pieces are added up side by side


def add(total: FloatArray, rest: FloatArray, value: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One step of a Kahan-Neumaier sum; `rest` is what rounding took away. Knuth's branchless form of the error."""
    grown = total + value
    taken = grown - total
    return grown, rest + ((total - (grown - taken)) + (value - taken))


def pairs(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum over the first axis: [K, W] -> [W] and [W] of what rounding took away; NaN where the sum is infinite."""
    longest, width = values.shape
    if longest > PIECE:
        pieces = -(-longest // PIECE)
        padded = np.concatenate([values, np.zeros((pieces * PIECE - longest, width))])
        totals, rests = pairs(padded.reshape(pieces, PIECE, width).swapaxes(0, 1).reshape(PIECE, pieces * width))
        total, rest = pairs(totals.reshape(pieces, width))
        return total, rest + rests.reshape(pieces, width).sum(axis=0)
    total, rest = np.zeros(width), np.zeros(width)
    for value in values:
        total, rest = add(total, rest, value)
    return total, rest


def total(values: FloatArray) -> FloatArray:
    """Sum over the first axis, [W]; an infinite one has lost nothing."""
    total, rest = pairs(values)
    return np.where(np.isinf(total), total, total + rest)
