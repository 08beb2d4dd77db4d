"""Quantiles and fractions of classic histograms: series of cumulative counts, one for each upper bound in `le`.

Within a bucket observations are taken to be spread evenly; the lowest begins at 0 where its bound is above. B buckets,
N histograms: one at one step each. Which buckets are there may differ from step to step, so histograms are computed
together that have the same bounds.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from sentinel_core.promql.answer import texts
from sentinel_core.promql.errors import NotSupportedError
from sentinel_core.promql.matching import NAME, Groups
from sentinel_core.promql.values import BoolArray, Labels, Notes, Scalar, Text, Vector, without
from sentinel_core.windows import FloatArray, IntArray

Argument = Scalar | Text | Vector
# Of bounds [B], counts [N, B] and other arguments [N]: a value each, and whether counts that fall were mended.
Compute = Callable[[FloatArray, FloatArray, Sequence[FloatArray]], tuple[FloatArray, BoolArray]]

LABEL = "le"
_BOUND = re.compile(r"[-+]?(\d+\.?\d*(e[-+]?\d+)?|\.\d+(e[-+]?\d+)?|inf|infinity)", re.IGNORECASE | re.ASCII)
_TOLERANCE = 1e-12  # of the sum of two counts: a smaller difference is rounding


def histogram_quantile(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`histogram_quantile(quantile, buckets)`."""
    quantile, vector = args
    assert isinstance(quantile, Scalar)
    assert isinstance(vector, Vector)  # the parser has checked types
    check_quantile(quantile.values, notes)
    return _of_buckets(vector, [quantile.values], notes, quantiles)


def histogram_fraction(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`histogram_fraction(lower, upper, buckets)`."""
    lower, upper, vector = args
    assert isinstance(lower, Scalar)
    assert isinstance(upper, Scalar)
    assert isinstance(vector, Vector)
    return _of_buckets(vector, [lower.values, upper.values], notes, fractions)


def check_quantile(quantile: FloatArray, notes: Notes) -> None:
    """Warn of quantiles [T] that are none."""
    for text in texts(np.unique(quantile[~((quantile >= 0) & (quantile <= 1))])):
        notes.warn(f"quantile value should be between 0 and 1, got {text.decode()}")


def quantiles(bounds: FloatArray, counts: FloatArray, params: Sequence[FloatArray]) -> tuple[FloatArray, BoolArray]:
    """Return the value below which a share of the observations lies, and whether counts had to be mended.

    bounds: float64 [B], ascending
    counts: float64 [N, B], of what is at or below each bound
    params: the share [N]

    >>> quantiles(np.array([1.0, 2.0, np.inf]), np.array([[1.0, 3.0, 3.0]]), [np.array([2 / 3])])[0].tolist()
    [1.5]
    """
    share = params[0]
    outside = np.where(share < 0, -np.inf, np.where(share > 1, np.inf, np.nan))
    inside = (share >= 0) & (share <= 1)
    if bounds[-1] != np.inf:
        return outside, np.zeros(len(counts), bool)
    counts, mended = _rising(counts)
    mended &= inside
    if len(bounds) < 2:
        return outside, mended
    total = counts[:, -1]
    rank = share * total
    last = len(bounds) - 1
    found = _search(counts[:, :last], rank)
    every = np.arange(len(counts))
    below = np.where(found > 0, counts[every, found - 1], 0.0)
    start = np.where(found > 0, bounds[found - 1], 0.0)
    width = np.where(found < last, bounds[found], 0.0) - start
    values = start + width * ((rank - below) / (counts[every, found] - below))
    values = np.where((found == 0) & (bounds[0] <= 0), bounds[0], values)
    values = np.where(found == last, bounds[last - 1], values)
    return np.where(inside, np.where(total == 0, np.nan, values), outside), mended


def fractions(bounds: FloatArray, counts: FloatArray, params: Sequence[FloatArray]) -> tuple[FloatArray, BoolArray]:
    """Return the share of the observations between two values; shapes as of `quantiles`, params: lower and upper [N].

    >>> fractions(np.array([1.0, 2.0, np.inf]), np.array([[1.0, 3.0, 4.0]]), [np.array([0.5]), np.array([1.5])])[0]
    array([0.375])
    """
    lower, upper = params
    unmended = np.zeros(len(counts), bool)
    if bounds[-1] != np.inf:
        return np.full(len(counts), np.nan), unmended
    if not (counts[:, 1:] >= counts[:, :-1]).all():
        raise NotSupportedError("histogram_fraction() of buckets whose counts fall or are NaN")
    total = counts[:, -1]
    share = (_at_or_below(bounds, counts, upper) - _at_or_below(bounds, counts, lower)) / total
    known = (total != 0) & ~np.isnan(lower) & ~np.isnan(upper)
    return np.where(known, np.where(lower >= upper, 0.0, share), np.nan), unmended


def _at_or_below(bounds: FloatArray, counts: FloatArray, values: FloatArray) -> FloatArray:
    """Return how many observations are at or below values [N]."""
    place = np.searchsorted(bounds, np.where(np.isnan(values), np.inf, values))  # the bucket a value lies in
    lowest = (place == 0) & np.isfinite(values)
    if bounds[0] <= 0 and (lowest & (values < bounds[0])).any():
        raise NotSupportedError("histogram_fraction() within a lowest bucket without a lower bound")
    every = np.arange(len(counts))
    below = np.where(place > 0, counts[every, place - 1], 0.0)
    start = np.where(place > 0, bounds[place - 1], 0.0)
    end = bounds[place]
    part = np.where(np.isinf(end), 0.0, np.clip((values - start) / (end - start), 0, 1))
    here: FloatArray = below + (counts[every, place] - below) * part
    return np.where(np.isposinf(values), counts[:, -1], here)


def _search(counts: FloatArray, rank: FloatArray) -> IntArray:
    """Return the first bucket with at least `rank` [N] at or below it; halving, as NaN leads Prometheus' search."""
    low, high = np.zeros(len(counts), np.int64), np.full(len(counts), counts.shape[1])
    every = np.arange(len(counts))
    while (open_ := low < high).any():
        middle = (low + high) // 2
        enough = counts[every, np.minimum(middle, counts.shape[1] - 1)] >= rank
        high = np.where(open_ & enough, middle, high)
        low = np.where(open_ & ~enough, middle + 1, low)
    return low


def _rising(counts: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return counts [N, B] that never fall, and where one fell by more than rounding does."""
    steps, mended = np.diff(counts, axis=1), np.zeros(len(counts), bool)
    near = _TOLERANCE * (np.abs(counts[:, 1:]) + np.abs(counts[:, :-1]))
    if (steps > near).all(where=steps != 0):
        return counts, mended
    counts = counts.copy()
    previous = counts[:, 0]
    for bucket in range(1, counts.shape[1]):
        current = counts[:, bucket]
        total = np.minimum(np.abs(previous) + np.abs(current), np.finfo(np.float64).max)
        rounding = np.abs(previous - current) / total < _TOLERANCE
        same = (current == previous) | (np.isnan(current) & np.isnan(previous)) | rounding
        falls = ~same & (current < previous)
        mended |= falls
        previous = np.where(same | falls, previous, current)
        counts[:, bucket] = previous
    return counts, mended


def _of_buckets(vector: Vector, params: Sequence[FloatArray], notes: Notes, compute: Compute) -> Vector:
    """Compute one series of each histogram among the buckets: of what is equal but for `le`."""
    vector = vector.seen()
    texts = [dict(labels).get(LABEL, "") for labels in vector.labels]
    known = np.array([_BOUND.fullmatch(text) is not None for text in texts], bool)
    for row in np.flatnonzero(~known).tolist():
        _warn_of_label(vector.labels[row], texts[row], notes)
    vector = vector.rows(known)
    bounds = np.array([float(text) for text in texts if _BOUND.fullmatch(text)])
    groups = Groups.of(without(labels, LABEL) for labels in vector.labels)
    shape = (len(groups.keys), vector.values.shape[1])
    values, mended = np.full(shape, np.nan), np.zeros(shape, bool)
    with np.errstate(all="ignore"):  # infinities and NaN go through as in Go
        for rows, of_groups in _alike(groups, bounds):
            _compute_alike(vector, bounds[rows[0]], rows, of_groups, params, compute, values, mended)
    for group in np.flatnonzero(mended.any(axis=1)).tolist():
        name = dict(groups.keys[group]).get(NAME, "")
        notes.inform(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/"
            "prometheus/latest/querying/functions/#histogram_quantile)"
            + (f' for metric name "{name}"' if name else ""),
            argument=-1,
        )
    return Vector(groups.keys, values, groups.occupied(vector.present), np.ones(len(groups.keys), bool))


def _alike(groups: Groups[Labels], bounds: FloatArray) -> list[tuple[IntArray, IntArray]]:
    """Return the histograms that have the same bounds: their rows [H, B] by ascending bound, their numbers [H]."""
    together: dict[tuple[float, ...], list[tuple[list[int], int]]] = {}
    for number, rows in enumerate(np.split(groups.order, groups.starts[1:])):
        ordered = sorted(rows.tolist(), key=bounds.__getitem__)
        together.setdefault(tuple(bounds[ordered].tolist()), []).append((ordered, number))
    return [
        (np.array([rows for rows, _ in members]), np.array([number for _, number in members]))
        for key, members in together.items()
        if key
    ]


def _compute_alike(
    vector: Vector,
    bounds: FloatArray,
    rows: IntArray,
    of_groups: IntArray,
    params: Sequence[FloatArray],
    compute: Compute,
    values: FloatArray,
    mended: BoolArray,
) -> None:
    """Write what histograms with the same bounds have into values and mended [G, T]."""
    present = vector.present[rows]  # [H, B, T]
    patterns, pattern_of = np.unique(present.transpose(0, 2, 1).reshape(-1, len(bounds)), axis=0, return_inverse=True)
    pattern_of = pattern_of.reshape(len(rows), -1)  # [H, T]
    for number, there in enumerate(patterns):
        if not there.any():
            continue
        histogram, step = np.nonzero(pattern_of == number)
        buckets, starts = np.unique(bounds[there], return_index=True)
        counts = vector.values[rows[histogram][:, there], step[:, None]]
        counts = np.add.reduceat(counts, starts, axis=1)  # equal bounds that are written differently are one bucket
        found, fixed = compute(buckets, counts, [param[step] for param in params])
        values[of_groups[histogram], step] = found
        mended[of_groups[histogram], step] = fixed


def _warn_of_label(labels: Labels, text: str, notes: Notes) -> None:
    name = dict(labels).get(NAME, "")
    notes.warn(
        f'bucket label "{LABEL}" is missing or has a malformed value of "{text}"'
        + (f' for metric name "{name}"' if name else ""),
        argument=-1,
    )
