"""What the sources of our own series share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import look_back
from sentinel_core.promql.values import LOOKBACK, Labels, Samples, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

Metadata = Mapping[str, tuple[str, str]]  # type and help text by name, as /api/v1/metadata tells them
NOTHING = Samples.of((), (), ())


class SampledSource(ABC):
    """A Source (see promql.source) that can give the samples of any span."""

    @property
    def lookback(self) -> int:
        """The longest that one of its samples stands for what comes after it, ms."""
        return LOOKBACK

    @abstractmethod
    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return the samples of start < t <= end at least, of the series that match."""

    @abstractmethod
    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""

    @abstractmethod
    def metadata(self) -> Metadata:
        """Return type and help of each name there may be."""

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return each series' newest sample at each of these times, by look-back."""
        found = self.samples(matchers, int(times[0]) - self.lookback, int(times[-1]), budget)
        return look_back(found, times, budget, timestamps=timestamps)


def named(name: str, labels: Mapping[str, str]) -> Labels:
    """Labels as values of expressions have them.

    >>> named("up", {"pod": "", "job": "api"})
    (('__name__', 'up'), ('job', 'api'))
    """
    return tuple(sorted({"__name__": name, **{label: value for label, value in labels.items() if value}}.items()))


def joined(parts: Sequence[Samples]) -> Samples:
    """Return the series of all parts, one part after the other."""
    firsts = np.cumsum([0, *(len(part.times) for part in parts)])
    offsets = [part.offsets[:-1] + first for part, first in zip(parts, firsts, strict=False)]
    return Samples(
        tuple(labels for part in parts for labels in part.labels),
        np.concatenate([*offsets, firsts[-1:]]),
        np.concatenate([np.empty(0, np.int64), *(part.times for part in parts)]),
        np.concatenate([np.empty(0), *(part.values for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.lookback for part in parts)]),
    )
