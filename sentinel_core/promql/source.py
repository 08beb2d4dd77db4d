"""Where series come from, as the evaluation asks for them."""

from collections.abc import Sequence
from typing import Protocol

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray


class Source(Protocol):
    """Series by matchers. Raises QueryError; asks `budget` before it reads much, and while it goes on.

    Empty matchers on a label that a series lacks match it, as in Prometheus. Offsets and @ are in the times already.
    """

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return each series' newest sample at each of these evenly spaced, ascending times, by look-back.

        timestamps: the samples' own times in seconds instead of their values
        """
        ...

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return the samples of start < t <= end at least; earlier and later ones may be among them."""
        ...

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end], each once, in any order."""
        ...
