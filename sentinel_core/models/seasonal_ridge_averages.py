"""Averages over the columns of many series at once, and what else looks back along a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]  # float32 to learn, float64 to forecast
CHUNK = 32  # columns that one matrix product averages


def carry(z: Numbers) -> Numbers:
    """Gaps hold the value before them, those at the start the first value; 0 where there is none."""
    if not z.shape[1]:
        return z
    finite = np.isfinite(z)
    index = np.where(finite, np.arange(z.shape[1], dtype=np.int32), np.int32(-1))
    np.maximum.accumulate(index, axis=1, out=index)
    index = np.where(index < 0, np.argmax(finite, axis=1).astype(np.int32)[:, None], index)
    filled: Numbers = np.nan_to_num(np.take_along_axis(z, index.astype(np.int64), axis=1))
    return filled


def averages(z: Numbers, memories: Sequence[int]) -> Numbers:
    """Exponential averages [n, memories, T] of z [n, T] without gaps, each starting from the first value.

    One product with a triangular matrix averages CHUNK columns; what was before them fades in afterwards.
    """
    n, samples = z.shape
    count = len(memories)
    keep = 1 - 1 / np.asarray(memories, np.float64)
    chunks = -(-samples // CHUNK)
    missing = chunks * CHUNK - samples
    padded = np.concatenate([np.repeat(z[:, :1], missing, axis=1), z], axis=1) if missing else z
    column = np.arange(CHUNK)
    age = column[None, :] - column[:, None]
    kernel = np.where(age >= 0, (1 - keep)[:, None, None] * keep[:, None, None] ** np.maximum(age, 0), 0.0)
    product = padded.reshape(n * chunks, CHUNK) @ kernel.transpose(1, 0, 2).reshape(CHUNK, -1).astype(z.dtype)
    part = product.reshape(n, chunks, count, CHUNK)
    fading = (keep[:, None] ** (column + 1)).astype(z.dtype)
    state = np.repeat(z[:, :1], count, axis=1)
    for k in range(chunks):
        part[:, k] += fading * state[:, :, None]
        state = part[:, k, :, -1]
    joined: Numbers = part.transpose(0, 2, 1, 3).reshape(n, count, chunks * CHUNK)[:, :, missing:]
    return joined


def newest_averages(z: Numbers, memories: Sequence[int]) -> Numbers:
    """The newest of the `averages` [n, memories, 1], by a weight for each column."""
    keep = 1 - 1 / np.asarray(memories, np.float64)
    weights = keep ** np.arange(z.shape[1])[::-1, None]
    weights[1:] *= 1 - keep
    newest: Numbers = (z @ weights.astype(z.dtype))[:, :, None]
    return newest


def moving_mean(values: Numbers, reach: int) -> Numbers:
    """The mean of the known among the `reach` columns on either side, NaN where none is."""
    samples = values.shape[1]
    if reach < 1 or not samples:
        return values
    known = np.isfinite(values)
    if known.all():
        column = np.arange(samples)
        count = np.minimum(column, reach) + np.minimum(samples - 1 - column, reach) + 1
        mean: Numbers = _sums(values, reach) / count.astype(values.dtype)
        return mean
    number = _sums(known.astype(values.dtype), reach)
    total = _sums(np.where(known, values, values.dtype.type(0)), reach)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(values.dtype)


def _sums(values: Numbers, reach: int) -> Numbers:
    """Each column with the `reach` columns on either side, [n, T]: sums of 1, 2, 4, 8 ... columns, joined."""
    n, samples = values.shape
    doubled = np.zeros((n, samples + 2 * reach), values.dtype)
    doubled[:, reach : reach + samples] = values
    total = np.zeros_like(values)
    width, offset = 1, 0
    while True:
        if (2 * reach + 1) & width:
            total += doubled[:, offset : offset + samples]
            offset += width
        if 2 * width > 2 * reach + 1:
            return total
        doubled = doubled[:, :-width] + doubled[:, width:]
        width *= 2


def delayed(values: Numbers, steps: int) -> Numbers:
    return np.concatenate([np.repeat(values[:, :1], min(steps, values.shape[1]), axis=1), values[:, :-steps]], axis=1)
