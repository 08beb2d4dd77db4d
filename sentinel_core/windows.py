"""Regular windows of many series: the one shape in which samples travel through the house."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """Samples of n series on a regular grid of T timestamps; gaps are NaN, infinities too.

    fingerprints: int64 [n], ascending and unique
    timestamps:   int64 [T], unix seconds, multiples of step_seconds, ascending by step_seconds
    values:       float64 [n, T]
    """

    fingerprints: IntArray
    timestamps: IntArray
    values: FloatArray
    step_seconds: int

    def __post_init__(self) -> None:
        shape = (len(self.fingerprints), len(self.timestamps))
        if self.values.shape != shape:
            raise ValueError(f"values are {self.values.shape}, but fingerprints and timestamps say {shape}")

    @property
    def last(self) -> int:
        """The newest timestamp, unix seconds."""
        return int(self.timestamps[-1])

    def at(self, fingerprints: IntArray, timestamps: IntArray) -> FloatArray:
        """The value of each (series, time) [rows]; NaN where it is a gap or outside of the window."""
        found = np.full(len(fingerprints), np.nan)
        if self.values.size:
            row, known = positions(self.fingerprints, fingerprints)
            column = (timestamps - self.timestamps[0]) // self.step_seconds
            known &= (column >= 0) & (column < len(self.timestamps))
            found[known] = self.values[row[known], column[known]]
        return found

    def until(self, timestamp: int) -> "Window":
        """The part at or before `timestamp` (views, no copies)."""
        return self.columns(slice(0, int(np.searchsorted(self.timestamps, timestamp, side="right"))))

    def newest(self, steps: int) -> "Window":
        """The last `steps` columns, or all there are."""
        return self.columns(slice(max(0, len(self.timestamps) - steps), None))

    def columns(self, span: slice) -> "Window":
        """A span of time, by column index."""
        return replace(self, timestamps=self.timestamps[span], values=self.values[:, span])

    def rows(self, index: Sequence[int] | slice | IntArray | NDArray[np.bool_]) -> "Window":
        """Some series, by ascending row index or by mask."""
        return replace(self, fingerprints=self.fingerprints[index], values=self.values[index])

    def without(self, spans: Sequence[tuple[int, int]]) -> "Window":
        """With gaps at the times that lie within one of the spans, as `inside` has them."""
        hidden = inside(self.timestamps, spans)
        return replace(self, values=np.where(hidden, np.nan, self.values)) if hidden.any() else self


def inside(timestamps: IntArray, spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which of some times [T], in any order, lie within one of the spans: [first, last], ascending and apart.

    >>> inside(np.array([60, 120, 180, 240]), [(0, 60), (121, 180)]).tolist()
    [True, False, True, False]
    """
    if not spans:
        return np.zeros(len(timestamps), bool)
    edges = np.array(spans, np.int64)
    place = np.searchsorted(edges[:, 0], timestamps, side="right") - 1
    found: NDArray[np.bool_] = (place >= 0) & (timestamps <= edges[place, 1])
    return found


def unique(values: IntArray) -> IntArray:
    """Ascending distinct values. By sorting: numpy 2's hashing `unique` is ten times slower on half a million integers.

    >>> unique(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(values)
    distinct: IntArray = ordered[np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]])]
    return distinct


def positions(haystack: IntArray, needles: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Index of each needle in the ascending haystack, which is not empty, and whether it is really there.

    >>> index, there = positions(np.array([3, 5]), np.array([5, 4, 9]))
    >>> index[there].tolist(), there.tolist()
    ([1], [True, False, False])
    """
    index = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    return index, haystack[index] == needles


def grid(start: int, end: int, step_seconds: int) -> IntArray:
    """Every multiple of the step in [start, end], unix seconds.

    >>> grid(61, 180, 60).tolist()
    [120, 180]
    """
    first = -(-start // step_seconds) * step_seconds
    return np.arange(first, end + 1, step_seconds, dtype=np.int64)
