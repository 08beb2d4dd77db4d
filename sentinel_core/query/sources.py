"""One datasource out of what Sentinel knows and what Prometheus has: who answers for which name, and for whom.

A selector that asks for a name by equality is answered by whoever has that name. One that does not is answered by all,
but for Prometheus' copies of our names: it may scrape our /metrics.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sentinel_core.prometheus.decode import Description
from sentinel_core.promql import matchers as matching
from sentinel_core.promql.errors import BadQueryError, ExecutionError, NotSupportedError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.source import Source
from sentinel_core.promql.tree import (
    Aggregation,
    Binary,
    Call,
    MatrixSelector,
    Negation,
    Node,
    Number,
    String,
    Subquery,
    VectorSelector,
)
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.query.sampled import Metadata, joined
from sentinel_core.query.upstream import Upstream, union
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

OF_FORECASTS = r".+_sentinel_predicted(_lower|_upper)?"
OF_QUALITY = r".+_sentinel_(drift_mae|mase|coverage)"
OF_CROSSINGS = r".+_sentinel_(crossing_probability|time_to_threshold_seconds)"
OF_ACTUALS = r".+_sentinel_actual"
OF_SENTINEL = r"sentinel_.*"
_OURS = f"{OF_SENTINEL}|{OF_FORECASTS}|{OF_QUALITY}|{OF_CROSSINGS}|{OF_ACTUALS}"  # as re2 reads it too
_LONGEST_OF_ALL = 86_400_000  # ms
_ALWAYS = 2**52  # ms: later than every sample

Selectors = Sequence[Sequence[Matcher]]


def ours(name: str) -> bool:
    """Whether a name is answered by Sentinel, whatever Prometheus has under it.

    >>> ours("http_requests_sentinel_predicted_upper"), ours("redis_sentinel_masters")
    (True, False)
    """
    return re.fullmatch(_OURS, name) is not None


class OurSource(Source, Protocol):
    """Some of our own series."""

    def metadata(self) -> Metadata:
        """Return type and help of each metric family there is."""
        ...


@dataclass(frozen=True)
class Sources:
    """Everybody who answers.

    production: of the named projects; None: of all
    upstream:   called for every use; None where nothing is passed through
    """

    forecasts: OurSource
    quality: OurSource
    crossings: OurSource
    actuals: OurSource
    production: Callable[[frozenset[str] | None], Sequence[OurSource]]
    own: OurSource
    upstream: Callable[[], Upstream | None]

    def of(self, projects: frozenset[str] | None) -> "View":
        """Return what somebody may see: everything (None), or only the models of these projects."""
        production = [(OF_SENTINEL, source) for source in self.production(projects)]
        if projects is not None:
            return View(production, None)
        others = [
            (OF_FORECASTS, self.forecasts),
            (OF_QUALITY, self.quality),
            (OF_CROSSINGS, self.crossings),
            (OF_ACTUALS, self.actuals),
        ]
        return View([*others, (OF_SENTINEL, self.own), *production], self.upstream())


class View:
    """What one caller sees: a Source, the lists about it, and what is passed on whole.

    upstream: None where nothing is passed through, to nobody or not to this caller
    """

    def __init__(self, parts: Sequence[tuple[str, OurSource]], upstream: Upstream | None) -> None:
        """parts: sources of ours with an expression of the names they may have."""
        self._parts = parts
        self.upstream = upstream

    def read(self, text: str, budget: Budget) -> Node | None:
        """Return the tree of an expression that is evaluated here; None where `upstream` gets the whole request.

        That is one with selectors, none of which asks for any of ours; or one that cannot be read here because it is
        newer, older or of another dialect than our parser, and names none of ours. BadQueryError and NotSupportedError
        for others that cannot be read.
        """
        try:
            node = parse(text)
        except (BadQueryError, NotSupportedError) as error:
            foreign = isinstance(error, NotSupportedError) or "unknown function" in str(error)
            if self.upstream is not None and foreign and "sentinel_" not in text:
                return None
            raise
        asked = [selector.matchers for selector in _selectors(node)]
        if self.upstream is None or not asked or any(self._has(matchers, budget) for matchers in asked):
            return node
        return None

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source."""
        found = [source.vector(one, times, budget, timestamps=timestamps) for source, one in self._asked(matchers)]
        return union(found, len(times))

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source; of all series there are, at most a day."""
        if end - start > _LONGEST_OF_ALL and _is_everything(matchers):
            raise ExecutionError(
                "query processing would load too many samples: more than a day of every series; "
                "name a metric, or ask for a shorter time"
            )
        return joined([source.samples(one, start, end, budget) for source, one in self._asked(matchers)])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        return [labels for source, one in self._asked(matchers) for labels in source.series(one, start, end, budget)]

    def series_of(self, selectors: Selectors, start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series under any of the selectors, sorted, each once."""
        found = set(self._our_series(selectors, start, end, budget))
        if self.upstream is not None and (foreign := _foreign(selectors)):
            found.update(self.upstream.series_of(foreign, start, end, budget))
        return sorted(found)

    def label_names(self, selectors: Selectors, start: int, end: int, budget: Budget) -> list[str]:
        """Return the labels of the series under any of the selectors (none: of all series), sorted."""
        found = {name for labels in self._our_series(selectors or [()], start, end, budget) for name, _ in labels}
        foreign = _foreign(selectors)
        if self.upstream is not None and (foreign or not selectors):
            found.update(self.upstream.label_names(foreign, start, end, budget))
        return sorted(found)

    def label_values(self, name: str, selectors: Selectors, start: int, end: int, budget: Budget) -> list[str]:
        """Return the values of one label under any of the selectors (none: of all series), sorted."""
        series = self._our_series(selectors or [()], start, end, budget)
        found = {value for labels in series for label, value in labels if label == name}
        foreign = _foreign(selectors)
        if self.upstream is not None and (foreign or not selectors):
            others = self.upstream.label_values(name, foreign, start, end, budget)
            found.update(value for value in others if name != "__name__" or not ours(value))
        return sorted(found)

    def metadata(self, metric: str | None, budget: Budget) -> dict[str, list[Description]]:
        """Return what is known of each metric family, or of one, by name."""
        found: dict[str, list[Description]] = {}
        if self.upstream is not None and (metric is None or not ours(metric)):
            described = self.upstream.metadata(metric, budget)
            found |= {name: entries for name, entries in described.items() if not ours(name)}
        for _, source in self._parts:
            for name, (kind, text) in source.metadata().items():
                if metric in (None, name):
                    found[name] = [Description(kind, text)]
        return found

    def _asked(self, matchers: Sequence[Matcher]) -> Iterator[tuple[Source, Sequence[Matcher]]]:
        """Who answers a selector, and the selector that they are asked."""
        for source in self._of_ours(matchers):
            yield source, matchers
        if self.upstream is not None:
            for foreign in _foreign([matchers]):
                yield self.upstream, foreign

    def _of_ours(self, matchers: Sequence[Matcher]) -> list[OurSource]:
        name = _name(matchers)
        return [source for names, source in self._parts if name is None or re.fullmatch(names, name)]

    def _our_series(self, selectors: Selectors, start: int, end: int, budget: Budget) -> Iterator[Labels]:
        for matchers in selectors:
            for source in self._of_ours(matchers):
                yield from source.series(matchers, start, end, budget)

    def _has(self, matchers: Sequence[Matcher], budget: Budget) -> bool:
        name = _name(matchers)
        return ours(name) if name is not None else any(self._our_series([matchers], 0, _ALWAYS, budget))


def _name(matchers: Sequence[Matcher]) -> str | None:
    """The name that a selector asks for by equality, if it does."""
    return next((one.value for one in matchers if (one.label, one.operator) == ("__name__", "=")), None)


def _is_everything(matchers: Sequence[Matcher]) -> bool:
    """Whether matchers refuse next to nothing, as `{__name__=~".+"}`: a value that nobody has passes them all."""
    strange: Labels = tuple((one.label, "\N{SYMBOL FOR NULL}") for one in matchers)
    return bool(matching.compile(matchers).matches([strange])[0])


def _foreign(selectors: Selectors) -> list[Sequence[Matcher]]:
    """What is left of selectors for Prometheus: none of our names."""
    found: list[Sequence[Matcher]] = []
    for matchers in selectors:
        name = _name(matchers)
        if name is None:
            found.append([*matchers, Matcher("__name__", "!~", _OURS)])
        elif not ours(name):
            found.append(matchers)
    return found


def _selectors(node: Node) -> Iterator[VectorSelector]:
    """Every selector of an expression."""
    match node:
        case VectorSelector():
            yield node
        case MatrixSelector(selector):
            yield selector
        case Number() | String():
            pass
        case Call(_, args):
            for one in args:
                yield from _selectors(one)
        case Binary(_, left, right):
            yield from _selectors(left)
            yield from _selectors(right)
        case Aggregation(_, expr, param):
            yield from _selectors(expr)
            if param is not None:
                yield from _selectors(param)
        case Subquery(expr) | Negation(expr):
            yield from _selectors(expr)
