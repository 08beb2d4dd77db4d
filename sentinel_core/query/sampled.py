"""A source that knows how to give samples, from which everything else that is asked of a source follows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

Metadata = Mapping[str, tuple[str, str]]  # type and help text by name, as /api/v1/metadata tells them


class SampledSource(ABC):
    """A Source (see promql.source) over `samples`."""

    longest_lookback: int  # ms: no sample of this source stands for longer than that

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
        raise NotImplementedError
