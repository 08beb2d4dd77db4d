"""From raw samples to steps: which sample of a series stands for a time, and which lie in the range before it.

Ranges are open on the left, as in Prometheus 3: a sample at s belongs to time t where t - range < s <= t. S series, T
steps, N samples; times are milliseconds, evenly spaced: ascending, or all the same where @ says so.
"""

import numpy as np

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import LOOKBACK, BoolArray, Samples, Vector, is_stale
from sentinel_core.windows import FloatArray, IntArray


def look_back(samples: Samples, times: IntArray, budget: Budget, *, timestamps: bool = False) -> Vector:
    """Return each series' newest sample at each time, as far back as its look-back; a stale marker ends a series.

    times:      int64 [T]
    timestamps: the samples' own times in seconds instead of their values
    """
    steps = len(times)
    budget.spend(len(samples.labels) * steps)
    if not len(samples.times):
        return Vector.empty(steps)
    newest = until(samples, times) - 1
    there = newest >= samples.offsets[:-1, None]
    newest[~there] = 0
    at = samples.times[newest]
    there &= at > times - samples.lookback[:, None]
    values = samples.values[newest]
    there &= ~is_stale(values)
    return Vector.of(samples.labels, at / 1000 if timestamps else values, there)


def within(samples: Samples, start: int, end: int) -> Samples:
    """Return the samples of start < t <= end but for stale markers; series without any are left out."""
    kept: BoolArray = (samples.times > start) & (samples.times <= end) & ~is_stale(samples.values)
    if kept.all() and (samples.offsets[1:] > samples.offsets[:-1]).all():
        return samples
    offsets = np.concatenate([[0], np.cumsum(kept)])[samples.offsets]
    there = offsets[1:] > offsets[:-1]
    return Samples(
        tuple(labels for labels, some in zip(samples.labels, there.tolist(), strict=True) if some),
        np.concatenate([[0], offsets[1:][there]]),
        samples.times[kept],
        samples.values[kept],
        samples.lookback[there],
    )


def bounds(samples: Samples, times: IntArray, span: int) -> tuple[IntArray, IntArray]:
    """Return int64 [S, T] lo and hi: the samples lo … hi - 1 of all are those in the range that ends at a time.

    samples: without stale markers, as from `within`
    span:    of the range, ms
    """
    return until(samples, times - span), until(samples, times)


def until(samples: Samples, times: IntArray) -> IntArray:
    """Return int64 [S, T]: where in all samples the first one of a series after a time is, or would be."""
    starts, lengths, steps = samples.offsets[:-1], np.diff(samples.offsets), len(times)
    series, length = len(lengths), int(lengths.max(initial=0))
    if (lengths == length).all() and (samples.times.reshape(series, length) == samples.times[:length]).all():
        shared: IntArray = np.searchsorted(samples.times[:length], times, side="right")
        return starts[:, None] + shared
    if steps > 1 and times[0] == times[1]:
        return np.repeat(until(samples, times[:1]), steps, axis=1)
    # Each sample counts from the first step at or after it: O(N + S T), where searching would take a logarithm more.
    step = int(times[1] - times[0]) if steps > 1 else 1
    first = np.clip(-((times[0] - samples.times) // step), 0, steps) + np.repeat(
        np.arange(series) * (steps + 1), lengths
    )
    new = np.bincount(first, minlength=series * (steps + 1)).reshape(series, steps + 1)
    counts: IntArray = new[:, :-1].cumsum(axis=1)
    return starts[:, None] + counts


def to_samples(vector: Vector, times: IntArray) -> Samples:
    """Return a vector's values at its times as samples, for a range function over a subquery; names stay."""
    at, lengths = np.broadcast_to(times, vector.present.shape)[vector.present], vector.present.sum(axis=1)
    values: FloatArray = vector.values[vector.present]
    return Samples(
        vector.labels,
        np.concatenate([[0], np.cumsum(lengths)]),
        at,
        values,
        np.full(len(vector.labels), LOOKBACK, np.int64),
    )
