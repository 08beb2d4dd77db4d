"""Quantiles and fractions of classic histograms: series of cumulative counts, one for each upper bound in `le`.

Within a bucket observations are taken to be spread evenly; the lowest begins at 0 where its bound is above. B buckets,
N histograms: one at one step each. Which buckets are there may differ from step to step, so histograms are computed
together that have the same bounds.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from sentinel_core.promql.errors import NotSupportedError
from sentinel_core.promql.matching import NAME, Groups
from sentinel_core.promql.values import Labels, Notes, Scalar, Text, Vector, said, without
from sentinel_core.windows import FloatArray, IntArray

Argument = Scalar | Text | Vector
# Of bounds [B], counts [N, B] and other arguments [N]: a value each, and by how much counts fell [N, B], if any did.
Compute = Callable[[FloatArray, FloatArray, Sequence[FloatArray]], tuple[FloatArray, FloatArray | None]]

LABEL = "le"
_BOUND = re.compile(r"[-+]?(\d+\.?\d*(e[-+]?\d+)?|\.\d+(e[-+]?\d+)?|inf|infinity)", re.IGNORECASE | re.ASCII)
_RFC_3339 = "%Y-%m-%dT%H:%M:%SZ"
_TOLERANCE = 1e-12  # of the sum of two counts: a smaller difference is rounding


def histogram_quantile(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`histogram_quantile(quantile, buckets)`."""
    quantile, vector = args
    assert isinstance(quantile, Scalar)
    assert isinstance(vector, Vector)  # the parser has checked types
    check_quantile(quantile.values, notes)
    return _of_buckets(vector, [quantile.values], times, notes, quantiles)


def histogram_fraction(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`histogram_fraction(lower, upper, buckets)`."""
    lower, upper, vector = args
    assert isinstance(lower, Scalar)
    assert isinstance(upper, Scalar)
    assert isinstance(vector, Vector)
    return _of_buckets(vector, [lower.values, upper.values], times, notes, fractions)


def check_quantile(quantile: FloatArray, notes: Notes) -> None:
    """Warn of quantiles [T] that are none."""
    for wrong in np.unique(quantile[~((quantile >= 0) & (quantile <= 1))]).tolist():
        notes.warn(f"quantile value should be between 0 and 1, got {said(wrong)}")


def quantiles(
    bounds: FloatArray, counts: FloatArray, params: Sequence[FloatArray]
) -> tuple[FloatArray, FloatArray | None]:
    """Return the value below which a share of the observations lies, and how far counts fell that may not.

    bounds: float64 [B], ascending
    counts: float64 [N, B], of what is at or below each bound
    params: the share [N]

    >>> quantiles(np.array([1.0, 2.0, np.inf]), np.array([[1.0, 3.0, 3.0]]), [np.array([2 / 3])])[0].tolist()
    [1.5]
    """
    share = params[0]
    outside = np.where(share < 0, -np.inf, np.where(share > 1, np.inf, np.nan))
    inside = (share >= 0) & (share <= 1)
    if bounds[-1] != np.inf or len(bounds) < 2:
        return outside, None
    counts, falls = _rising(counts)
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
    if falls is not None:
        falls[~inside | (total == 0)] = 0
    return np.where(inside, np.where(total == 0, np.nan, values), outside), falls


def fractions(bounds: FloatArray, counts: FloatArray, params: Sequence[FloatArray]) -> tuple[FloatArray, None]:
    """Return the share of the observations between two values; shapes as of `quantiles`, params: lower and upper [N].

    >>> fractions(np.array([1.0, 2.0, np.inf]), np.array([[1.0, 3.0, 4.0]]), [np.array([0.5]), np.array([1.5])])[0]
    array([0.375])
    """
    lower, upper = params
    if bounds[-1] != np.inf:
        return np.full(len(counts), np.nan), None
    if not (counts[:, 1:] >= counts[:, :-1]).all():
        raise NotSupportedError("histogram_fraction() of buckets whose counts fall or are NaN")
    total = counts[:, -1]
    share = (_at_or_below(bounds, counts, upper) - _at_or_below(bounds, counts, lower)) / total
    known = (total != 0) & ~np.isnan(lower) & ~np.isnan(upper)
    return np.where(known, np.where(lower >= upper, 0.0, share), np.nan), None


def _at_or_below(bounds: FloatArray, counts: FloatArray, values: FloatArray) -> FloatArray:
    """Return how many observations are at or below values [N]."""
    place = np.searchsorted(bounds, np.where(np.isnan(values), np.inf, values))  # the bucket a value lies in
    if (np.isfinite(values) & (values < min(bounds[0], 0))).any():
        raise NotSupportedError("histogram_fraction() within a lowest bucket without a lower bound")
    every = np.arange(len(counts))
    below = np.where(place > 0, counts[every, place - 1], 0.0)
    start = np.where(place > 0, bounds[place - 1], 0.0)
    end = bounds[place]
    part = np.where(np.isinf(end) | np.isneginf(values), 0.0, np.clip((values - start) / (end - start), 0, 1))
    part[values == end] = 1.0
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


def _rising(counts: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Return counts [N, B] that never fall, and how far below the one before each was where that is no rounding."""
    steps = np.diff(counts, axis=1)
    near = _TOLERANCE * (np.abs(counts[:, 1:]) + np.abs(counts[:, :-1]))
    if (steps > near).all(where=steps != 0):
        return counts, None
    counts, falls = counts.copy(), np.zeros(counts.shape)
    previous = counts[:, 0]
    for bucket in range(1, counts.shape[1]):
        current = counts[:, bucket]
        total = np.minimum(np.abs(previous) + np.abs(current), np.finfo(np.float64).max)
        rounding = np.abs(previous - current) / total < _TOLERANCE
        same = (current == previous) | (np.isnan(current) & np.isnan(previous)) | rounding
        lower = ~same & (current < previous)
        falls[lower, bucket] = (previous - current)[lower]
        previous = np.where(same | lower, previous, current)
        counts[:, bucket] = previous
    return counts, falls


@dataclass
class _Falls:
    """What was mended in the histograms of one name: bounds, the deepest fall, how many, and when (ms)."""

    lowest: float
    highest: float
    deepest: float
    samples: int
    first: int
    last: int

    @classmethod
    def of(cls, bounds: FloatArray, falls: FloatArray, times: IntArray) -> "_Falls":
        """Of falls [N, B] that there are, at times [N]."""
        fallen = bounds[(falls > 0).any(axis=0)]
        return cls(
            float(fallen[0]), float(fallen[-1]), float(falls.max()), len(falls), int(times.min()), int(times.max())
        )

    def and_(self, other: "_Falls") -> "_Falls":
        """Both."""
        return _Falls(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.deepest, other.deepest),
            self.samples + other.samples,
            min(self.first, other.first),
            max(self.last, other.last),
        )

    def __str__(self) -> str:
        first, last = [
            datetime.fromtimestamp(int(at / 1000), UTC).strftime(_RFC_3339) for at in (self.first, self.last)
        ]
        return (
            f"from buckets {said(self.lowest)} to {said(self.highest)}, with a max diff of {self.deepest:.2g}, "
            f"over {self.samples} samples from {first} to {last}"
        )


def _of_buckets(
    vector: Vector, params: Sequence[FloatArray], times: IntArray, notes: Notes, compute: Compute
) -> Vector:
    """Compute one series of each histogram among the buckets: of what is equal but for `le`."""
    vector = vector.seen()
    written = [dict(labels).get(LABEL, "") for labels in vector.labels]
    known = np.array([_BOUND.fullmatch(text) is not None for text in written], bool)
    for row in np.flatnonzero(~known).tolist():
        said = f'"{LABEL}" is missing or has a malformed value of "{written[row]}"{_of_name(vector.labels[row])}'
        notes.warn(f"bucket label {said}", argument=-1)
    vector = vector.rows(known)
    bounds = np.array([float(text) for text in written if _BOUND.fullmatch(text)])
    groups = Groups.of(without(labels, LABEL) for labels in vector.labels)
    values = np.full((len(groups.keys), len(times)), np.nan)
    mended: dict[str, _Falls] = {}
    with np.errstate(all="ignore"):  # infinities and NaN go through as in Go
        for rows, of_groups in _alike(groups, bounds):
            labels = [groups.keys[one] for one in of_groups.tolist()]
            for buckets, found, histogram, step, falls in _computed(vector, bounds[rows[0]], rows, params, compute):
                values[of_groups[histogram], step] = found
                if falls is None:
                    continue
                for name, fallen in _fallen(labels, histogram, falls):
                    more = _Falls.of(buckets, falls[fallen], times[step[fallen]])
                    mended[name] = mended[name].and_(more) if name in mended else more
    for name, every in mended.items():
        notes.inform(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/"
            f"prometheus/latest/querying/functions/#histogram_quantile){name}, {every}",
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


def _computed(
    vector: Vector, bounds: FloatArray, rows: IntArray, params: Sequence[FloatArray], compute: Compute
) -> Iterator[tuple[FloatArray, FloatArray, IntArray, IntArray, FloatArray | None]]:
    """Yield the bounds, values [N], which histogram and which step each is, and how counts fell.

    Those together that have the same buckets at a step; rows: int64 [H, B].
    """
    present = vector.present[rows].transpose(0, 2, 1).reshape(-1, len(bounds))  # [H T, B]
    here = present.sum(axis=1)
    partly = np.flatnonzero((here > 0) & (here < len(bounds)))
    patterns, pattern_of = np.unique(present[partly], axis=0, return_inverse=True)
    cells = [np.flatnonzero(here == len(bounds)), *[partly[pattern_of == number] for number in range(len(patterns))]]
    for there, of_pattern in zip([np.ones(len(bounds), bool), *patterns], cells, strict=True):
        if not len(of_pattern):
            continue
        histogram, step = np.divmod(of_pattern, vector.values.shape[1])
        buckets, starts = np.unique(bounds[there], return_index=True)
        counts = vector.values[rows[histogram][:, there], step[:, None]]
        counts = np.add.reduceat(counts, starts, axis=1)  # equal bounds that are written differently are one bucket
        found, falls = compute(buckets, counts, [param[step] for param in params])
        yield buckets, found, histogram, step, falls


def _fallen(labels: Sequence[Labels], histogram: IntArray, falls: FloatArray) -> Iterator[tuple[str, IntArray]]:
    """Yield names, as notes say them, and which of the N have one and fell."""
    where = np.flatnonzero((falls > 0).any(axis=1))
    names = [_of_name(one) for one in labels]
    for name in dict.fromkeys(names):
        named = np.array([one == name for one in names], bool)
        if (of_name := where[named[histogram[where]]]).size:
            yield name, of_name


def _of_name(labels: Labels) -> str:
    name = dict(labels).get(NAME, "")
    return f' for metric name "{name}"' if name else ""
