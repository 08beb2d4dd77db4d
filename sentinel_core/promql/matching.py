"""Rows of vectors in groups by their labels: which belong together, and which of them is there at a step."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.values import BoolArray, Labels, Vector
from sentinel_core.windows import IntArray

NAME = "__name__"
K = TypeVar("K", bound=Hashable)


def keeping(names: Iterable[str]) -> Callable[[Labels], Labels]:
    """Return a function that leaves only these labels of a series.

    >>> keeping(["job"])((("__name__", "up"), ("job", "api")))
    (('job', 'api'),)
    """
    kept = frozenset(names)
    return lambda labels: tuple([pair for pair in labels if pair[0] in kept])


def dropping(names: Iterable[str]) -> Callable[[Labels], Labels]:
    """Return a function that leaves all but these labels of a series.

    >>> dropping(["job"])((("__name__", "up"), ("job", "api")))
    (('__name__', 'up'),)
    """
    dropped = frozenset(names)
    return lambda labels: tuple([pair for pair in labels if pair[0] not in dropped])


@dataclass(frozen=True)
class Groups(Generic[K]):
    """S rows in G groups, numbered in the order in which they are met.

    keys:   what the rows of each group share [G]
    of_row: int64 [S], the group of each row
    order:  int64 [S], the rows, group after group, ascending within each
    starts: int64 [G], where in `order` each group begins
    """

    keys: tuple[K, ...]
    of_row: IntArray
    order: IntArray
    starts: IntArray

    @classmethod
    def of(cls, keys: Iterable[K]) -> "Groups[K]":
        """Group rows by the key of each.

        >>> Groups.of(["b", "a", "b"]).of_row.tolist()
        [0, 1, 0]
        """
        numbers: dict[K, int] = {}
        of_row = np.fromiter([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
        order = np.argsort(of_row, kind="stable")
        return cls(tuple(numbers), of_row, order, np.searchsorted(of_row[order], np.arange(len(numbers))))

    @property
    def sizes(self) -> IntArray:
        """How many rows each group has [G]."""
        return np.diff(self.starts, append=len(self.order))

    def find(self, keys: Iterable[K]) -> IntArray:
        """Return the number of each key's group, -1 where there is none.

        >>> Groups.of(["b", "a"]).find(["a", "c"]).tolist()
        [1, -1]
        """
        numbers = {key: number for number, key in enumerate(self.keys)}
        return np.fromiter([numbers.get(key, -1) for key in keys], np.int64)

    def occupied(self, present: BoolArray) -> BoolArray:
        """Where any row of each group is there [G, T]; present is [S, T]."""
        if len(self.keys) == len(self.of_row):
            return present
        there: BoolArray = np.logical_or.reduceat(present[self.order], self.starts, axis=0)
        return there

    def crowded(self, present: BoolArray) -> list[int]:
        """Return the rows of one group that are there at the same step, the first such; present is [S, T]."""
        if len(self.keys) == len(self.of_row):
            return []
        counts = np.add.reduceat(present[self.order], self.starts, axis=0, dtype=np.int64)
        steps, groups = np.nonzero((counts > 1).T)
        if not len(steps):
            return []
        return np.flatnonzero(present[:, steps[0]] & (self.of_row == groups[0])).tolist()

    def single(self, vector: Vector) -> Vector:
        """Make one row of each group, of which at most one is there at a step; its labels are those of the first."""
        if len(self.keys) == len(self.of_row):
            return vector
        # The row that is there, by its place in `order`: values are copied, so -0 and the bits of a NaN stay.
        places = np.where(vector.present[self.order], np.arange(len(self.order))[:, None], -1)
        there = np.maximum.reduceat(places, self.starts, axis=0)
        first = self.order[self.starts]
        return Vector(
            tuple([vector.labels[row] for row in first]),
            vector.values[self.order[there], np.arange(there.shape[1])],
            there >= 0,
            vector.nameless[first],
        )


def merge(vector: Vector) -> Vector:
    """Join rows of the same labels; ExecutionError where two of them have a value at the same step.

    Rows whose names are still to be dropped are told from those that keep theirs.
    """
    groups = Groups.of(zip(vector.labels, vector.nameless.tolist(), strict=True))
    if groups.crowded(vector.present):
        raise ExecutionError("vector cannot contain metrics with the same labelset")
    return groups.single(vector)
