"""Which series a selector means."""

from collections.abc import Sequence

from sentinel_core.promql.values import BoolArray, Labels
from sentinel_core.series import Matcher


class Matching:
    """Compiled matchers."""

    def matches(self, labels: Sequence[Labels]) -> BoolArray:
        """Return bool [S]: which of the series match; an absent label is an empty one."""
        raise NotImplementedError

    def of_name(self, name: str) -> bool:
        """Whether the matchers on `__name__` let this name through, whatever the other labels are."""
        raise NotImplementedError

    def of_label(self, label: str, value: str) -> bool:
        """Whether the matchers on one label let this value through; "" stands for absent."""
        raise NotImplementedError


def compile(matchers: Sequence[Matcher]) -> Matching:
    """Compile once per query; BadQueryError for an expression that re2 refuses."""
    raise NotImplementedError
