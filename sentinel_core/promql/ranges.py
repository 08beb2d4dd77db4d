"""Ranges of samples: what is counted along a recording, and its ranges as dense matrices, some at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import BoolArray
from sentinel_core.windows import FloatArray, IntArray

BATCH = 1 << 17  # samples of dense matrices: 1 MB each, what stays in a core's cache


@dataclass(frozen=True)
class Recording:
    """Samples of some series one after the other, and what is counted along them. times: ms [N]; values: [N]."""

    times: IntArray
    values: FloatArray

    @cached_property
    def drops(self) -> IntArray:
        """How many samples up to each [N] are below the one before."""
        return _counted(self.values[1:] < self.values[:-1])

    @cached_property
    def unequal(self) -> IntArray:
        """How many samples up to each [N] are not equal to the one before; NaN is equal to nothing."""
        return _counted(self.values[1:] != self.values[:-1])

    @cached_property
    def changes(self) -> IntArray:
        """How many samples up to each [N] are not the same as the one before; NaN is the same as NaN."""
        nan = np.isnan(self.values)
        return _counted((self.values[1:] != self.values[:-1]) & ~(nan[1:] & nan[:-1]))


def _counted(events: BoolArray) -> IntArray:
    """Running count of what happens between neighbours; those of two series are in no range, so they do not matter."""
    return np.concatenate([[0], np.cumsum(events)])


@dataclass(frozen=True)
class Ranges:
    """W ranges with enough samples, and what a function is given with each.

    first:  int64 [W] index of the first sample in the recording
    counts: int64 [W] of samples, at least one
    ends:   int64 [W] ms
    at:     int64 [W] ms of the evaluation
    params: float64 [W] each
    span:   ms, of every range
    """

    recording: Recording
    first: IntArray
    counts: IntArray
    ends: IntArray
    at: IntArray
    params: tuple[FloatArray, ...]
    span: int
    budget: Budget

    @cached_property
    def last(self) -> IntArray:
        """Index [W] of the last sample."""
        return self.first + self.counts - 1

    @property
    def begins(self) -> IntArray:
        """Time [W] of the first sample, ms."""
        return self.recording.times[self.first]

    @property
    def stops(self) -> IntArray:
        """Time [W] of the last sample, ms."""
        return self.recording.times[self.last]

    def within(self, running: IntArray) -> FloatArray:
        """How often [W] what is counted along the recording happens between samples of a range."""
        return (running[self.last] - running[self.first]).astype(np.float64)

    def pick(self, which: IntArray | BoolArray) -> "Ranges":
        """Some of the ranges."""
        return replace(
            self,
            first=self.first[which],
            counts=self.counts[which],
            ends=self.ends[which],
            at=self.at[which],
            params=tuple(param[which] for param in self.params),
        )

    @cached_property
    def index(self) -> IntArray:
        """Indices [K, W] of the samples; a range that is shorter than the longest, K, repeats its last one."""
        return np.minimum(self.first + np.arange(self.counts.max(initial=0))[:, None], self.last)

    @cached_property
    def mask(self) -> BoolArray:
        """Where [K, W] a range has a sample."""
        return np.arange(self.counts.max(initial=0))[:, None] < self.counts

    def dense(self, missing: float) -> FloatArray:
        """Values [K, W], with this one where a range has no sample."""
        return np.where(self.mask, self.recording.values[self.index], missing)

    def densely(self, compute: "Compute") -> FloatArray:
        """Compute some ranges at a time, those of about the same length together, so that matrices are small."""
        result, order, begin = np.empty(len(self.first)), np.argsort(-self.counts, kind="stable"), 0
        while begin < len(order):
            self.budget.check()
            some = order[begin : begin + max(1, BATCH // int(self.counts[order[begin]]))]
            result[some] = compute(self.pick(some))
            begin += len(some)
        return result

    def one_by_one(self) -> Iterator[tuple[int, FloatArray, BoolArray]]:
        """Yield each position with the values of all ranges there and where there are any: for what is recursive."""
        for position in range(int(self.counts.max(initial=0))):
            if not position % 64:
                self.budget.check()
            values = self.recording.values[np.minimum(self.first + position, self.last)]
            yield position, values, position < self.counts


Compute = Callable[[Ranges], FloatArray]  # [W]
