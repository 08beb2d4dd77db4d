"""One datasource out of what Sentinel knows and what Prometheus has: who answers for which name, and for whom.

A selector that asks for a name by equality is answered by whoever has that name. One that does not is answered by all,
but for Prometheus' copies of our names: it may scrape our /metrics.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.source import Source
from sentinel_core.promql.tree import Node
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.query.upstream import Metadata, Upstream
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

OF_FORECASTS = r".+_sentinel_predicted(_lower|_upper)?"
OF_QUALITY = r".+_sentinel_(drift_mae|mase|coverage)"
OF_SENTINEL = r"sentinel_.*"
_OURS = re.compile(f"{OF_FORECASTS}|{OF_QUALITY}|{OF_SENTINEL}", re.DOTALL)


def ours(name: str) -> bool:
    """Whether a name is answered by Sentinel, whatever Prometheus has under it.

    >>> ours("http_requests_sentinel_predicted_upper"), ours("redis_sentinel_masters")
    (True, False)
    """
    return _OURS.fullmatch(name) is not None


class OurSource(Source, Protocol):
    """Some of our own series."""

    def metadata(self) -> Mapping[str, tuple[str, str]]:
        """Return (type, help) of each metric family there is now."""
        ...


@dataclass(frozen=True)
class Sources:
    """Everybody who answers.

    production: of the named projects; None: of all
    upstream:   called for every use; None where nothing is passed through
    """

    forecasts: OurSource
    quality: OurSource
    production: Callable[[frozenset[str] | None], OurSource]
    own: OurSource
    upstream: Callable[[], Upstream | None]

    def of(self, projects: frozenset[str] | None) -> "View":
        """Return what somebody may see: everything (None), or only the models of these projects."""
        raise NotImplementedError


class View:
    """What one caller sees: a Source, the lists about it, and what is passed on whole.

    upstream: None where nothing is passed through, to nobody or not to this caller
    """

    def __init__(self, parts: Sequence[tuple[str, OurSource]], upstream: Upstream | None) -> None:
        self.upstream = upstream

    def is_foreign(self, node: Node) -> bool:
        """Whether an expression asks only for what `upstream` has, so that it is forwarded as it is.

        Never without `upstream`, nor for an expression without selectors.
        """
        raise NotImplementedError

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source."""
        raise NotImplementedError

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        raise NotImplementedError

    def series_of(self, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series under any of the selectors, sorted, each once."""
        raise NotImplementedError

    def label_names(self, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget) -> list[str]:
        """Return the labels of the series under any of the selectors (none: of all series), sorted."""
        raise NotImplementedError

    def label_values(
        self, name: str, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget
    ) -> list[str]:
        """Return the values of one label under any of the selectors (none: of all series), sorted."""
        raise NotImplementedError

    def metadata(self, metric: str | None, budget: Budget) -> dict[str, list[Metadata]]:
        """Return what is known of each metric family, or of one, by name."""
        raise NotImplementedError
