"""One datasource out of what Sentinel knows and what Prometheus has: who answers for which name, and for whom.

A selector that asks for a name by equality is answered by whoever has that name. One that does not is answered by all,
but for Prometheus' copies of our names: it may scrape our /metrics.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeVar

from sentinel_core.prometheus.decode import Description
from sentinel_core.promql import matchers as matching
from sentinel_core.promql.errors import BadQueryError, ExecutionError, NotSupportedError, TooBusyError
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
from sentinel_core.query.upstream import Upstream, UpstreamError, union
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

OF_FORECASTS = r".+_sentinel_predicted(_inner)?(_lower|_upper)?"
OF_QUALITY = r".+_sentinel_(drift_mae|mase|coverage|anomaly_score)"
OF_CROSSINGS = r".+_sentinel_(crossing_probability|time_to_threshold_seconds)"
OF_ACTUALS = r".+_sentinel_actual"
OF_SENTINEL = r"sentinel_.*"
_OURS = f"{OF_SENTINEL}|{OF_FORECASTS}|{OF_QUALITY}|{OF_CROSSINGS}|{OF_ACTUALS}"  # as re2 reads it too
_WRONG = (400, 422)  # what is asked, says Prometheus; all else is wrong with itself, or the way there
_LONGEST_OF_ALL = 86_400_000  # ms
_ALWAYS = 2**52  # ms: later than every sample

Selectors = Sequence[Sequence[Matcher]]
EVERYTHING: Selectors = [()]
T = TypeVar("T")


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
        # Actuals first: whether there are any of ours is seldom a question for the slower ones then.
        others = [
            (OF_ACTUALS, self.actuals),
            (OF_FORECASTS, self.forecasts),
            (OF_QUALITY, self.quality),
            (OF_CROSSINGS, self.crossings),
        ]
        return View([*others, (OF_SENTINEL, self.own), *production], self.upstream())


class View:
    """What one caller sees: a Source, the lists about it, and what is passed on whole; for one request.

    Where Prometheus is away, what would be of both is of ours alone, and `warnings` says so.

    upstream: None where nothing is passed through, to nobody or not to this caller
    """

    def __init__(self, parts: Sequence[tuple[str, OurSource]], upstream: Upstream | None) -> None:
        """parts: sources of ours with an expression of the names they may have."""
        self._parts = parts
        self.upstream = upstream
        self.warnings: dict[str, None] = {}  # of what was asked so far; ordered, each once

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
        asked = selectors(node)
        if self.upstream is None or not asked or any(self._has(matchers, budget) for matchers in asked):
            return node
        return None

    def asks_upstream(self, selectors: Selectors) -> bool:
        """Whether Prometheus is asked for any of these."""
        return self.upstream is not None and bool(_foreign(selectors))

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source."""
        found = self._from_all(matchers, lambda source, one: source.vector(one, times, budget, timestamps=timestamps))
        return union(found, len(times))

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source; of all series there are, at most a day."""
        if end - start > _LONGEST_OF_ALL and _is_everything(matchers):
            raise ExecutionError(
                "query processing would load too many samples: more than a day of every series; "
                "name a metric, or ask for a shorter time"
            )
        return joined(self._from_all(matchers, lambda source, one: source.samples(one, start, end, budget)))

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        return list(chain(*self._from_all(matchers, lambda source, one: source.series(one, start, end, budget))))

    def series_of(self, selectors: Selectors, start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series under any of the selectors, sorted, each once."""
        found = set(self._our_series(selectors, start, end, budget))
        foreign = _foreign(selectors)
        with self._theirs(selectors) as upstream:
            if upstream is not None:
                found.update(upstream.series_of(foreign, start, end, budget))
        return sorted(found)

    def label_names(self, selectors: Selectors, start: int, end: int, budget: Budget) -> list[str]:
        """Return the labels of the series under any of the selectors (none: of all series), sorted."""
        series = self._our_series(selectors or EVERYTHING, start, end, budget)
        found = {name for labels in series for name, _ in labels}
        with self._theirs(selectors or EVERYTHING) as upstream:
            if upstream is not None:
                found.update(upstream.label_names(_foreign(selectors), start, end, budget))
        return sorted(found)

    def label_values(self, name: str, selectors: Selectors, start: int, end: int, budget: Budget) -> list[str]:
        """Return the values of one label under any of the selectors (none: of all series), sorted."""
        series = self._our_series(selectors or EVERYTHING, start, end, budget)
        found = {value for labels in series for label, value in labels if label == name}
        with self._theirs(selectors or EVERYTHING) as upstream:
            if upstream is not None:
                others = upstream.label_values(name, _foreign(selectors), start, end, budget)
                found.update(value for value in others if name != "__name__" or not ours(value))
        return sorted(found)

    def metadata(self, metric: str | None, budget: Budget) -> dict[str, list[Description]]:
        """Return what is known of each metric family, or of one, by name."""
        found: dict[str, list[Description]] = {}
        with self._theirs(EVERYTHING if metric is None else [[Matcher("__name__", "=", metric)]]) as upstream:
            if upstream is not None:
                described = upstream.metadata(metric, budget)
                found |= {name: entries for name, entries in described.items() if not ours(name)}
        for _, source in self._parts:
            for name, (kind, text) in source.metadata().items():
                if metric in (None, name):
                    found[name] = [Description(kind, text)]
        return found

    def _from_all(self, matchers: Sequence[Matcher], ask: Callable[[Source, Sequence[Matcher]], T]) -> list[T]:
        """Ask everybody who answers a selector, each for what of it is theirs."""
        found = [ask(source, matchers) for source in self._of_ours(matchers)]
        with self._theirs([matchers]) as upstream:
            if upstream is not None:
                found += [ask(upstream, one) for one in _foreign([matchers])]
        return found

    @contextmanager
    def _theirs(self, selectors: Selectors) -> Iterator[Upstream | None]:
        """Prometheus, where it is asked for any of these; it may be away where any of ours is asked for too."""
        if not self.asks_upstream(selectors):
            yield None
            return
        assert self.upstream is not None
        if not any(self._of_ours(matchers) for matchers in selectors):
            yield self.upstream
            return
        try:
            yield self.upstream.hurried()
        except (TooBusyError, UpstreamError) as error:
            if isinstance(error, UpstreamError) and error.status in _WRONG:  # it is there, and has reason to refuse
                raise
            self.warnings[f"only Sentinel's own series are here: {error}"] = None

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


def selectors(node: Node) -> list[Sequence[Matcher]]:
    """The matchers of every selector of an expression."""
    return [one.matchers for one in _selectors(node)]


def _selectors(node: Node) -> Iterator[VectorSelector]:
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
