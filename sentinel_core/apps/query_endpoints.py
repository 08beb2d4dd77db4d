"""The endpoints of the query API, each a generator of an answer's bytes that runs on a thread."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sentinel_core.apps.query_form import EARLIEST, LATEST, Form, label_name
from sentinel_core.apps.query_threads import BOTH, OURS, THEIRS
from sentinel_core.promql import answer, evaluate, parse
from sentinel_core.promql.errors import BadQueryError, NotSupportedError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import LOOKBACK, Notes
from sentinel_core.query.sources import EVERYTHING, View, selectors
from sentinel_core.series import Matcher

JSON = "application/json"
READ, ASK = ("GET", "HEAD"), ("GET", "HEAD", "POST")


@dataclass
class Ask:
    """One request, on its way through threads; what is answered may be changed until the first piece of it."""

    form: Form
    view: View
    budget: Budget
    now: int  # ms
    endpoint: str
    label: str = ""  # of label/{name}/values
    status: int = 200
    media_type: str = JSON
    lane: str = OURS  # of query_threads
    gone: bool = False  # the client is

    def notes(self) -> Notes:
        """For what is evaluated; NotSupportedError for a parameter that would change the numbers."""
        if self.form.text("lookback_delta"):
            raise NotSupportedError("lookback_delta")
        return Notes()

    def selectors(self) -> list[tuple[Matcher, ...]]:
        """Return the matchers of every match[]."""
        return [parse.parse_selector(text) for text in self.form.all("match[]")]

    def span(self) -> tuple[int, int]:
        """Start and end of a list, milliseconds; all of time where nothing is said.

        A series that ended within the look-back before it still has a value there, so it is listed.
        """
        start, end = self.form.time("start", EARLIEST), self.form.time("end", LATEST)
        if end < start:
            raise BadQueryError('invalid parameter "end": end timestamp must not be before start time')
        return start - LOOKBACK, end

    def move(self, lane: str) -> Iterator[bytes]:
        """Go on with the work on other threads."""
        self.lane = lane
        yield b""

    def about(self, selectors: Sequence[Sequence[Matcher]]) -> Iterator[bytes]:
        """Go on where it may take as long as Prometheus takes, if Prometheus is asked for any of these."""
        if self.view.asks_upstream(selectors):
            yield from self.move(BOTH)

    def forward(self) -> Iterator[bytes]:
        """Pass the whole request on."""
        assert self.view.upstream is not None
        yield from self.move(THEIRS)
        with self.view.upstream.forward(self.endpoint, self.form.pairs, self.budget) as forwarded:
            self.status, self.media_type = forwarded.status, forwarded.content_type
            yield from forwarded.pieces


def query(ask: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/query: an expression at one time."""
    node = ask.view.read(_expression(ask.form), ask.budget)
    at, limit, notes = ask.form.time("time", ask.now), ask.form.limit(), ask.notes()
    if node is None:
        yield from ask.forward()
        return
    yield from ask.about(selectors(node))
    value = evaluate.evaluate(node, at, at, 0, ask.view, ask.budget, notes)
    notes.warnings |= ask.view.warnings
    yield from answer.answer(value, evaluate.times(at, at, 0), notes, ranged=False, limit=limit)


def query_range(ask: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/query_range: an expression at every step from start to end."""
    start, end, step = ask.form.steps()
    node = ask.view.read(_expression(ask.form), ask.budget)
    limit, notes = ask.form.limit(), ask.notes()
    if node is None:
        yield from ask.forward()
        return
    if node.type not in ("scalar", "vector"):
        kind = {"matrix": "range vector"}.get(node.type, node.type)
        raise BadQueryError(
            f'invalid parameter "query": invalid expression type "{kind}" for range query, '
            "must be Scalar or instant Vector"
        )
    yield from ask.about(selectors(node))
    value = evaluate.evaluate(node, start, end, step, ask.view, ask.budget, notes)
    notes.warnings |= ask.view.warnings
    yield from answer.answer(value, evaluate.times(start, end, step), notes, ranged=True, limit=limit)


def labels(ask: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/labels: which labels there are."""
    (start, end), asked, limit = ask.span(), ask.selectors(), ask.form.limit()
    yield from ask.about(asked or EVERYTHING)
    yield _listed(ask, ask.view.label_names(asked, start, end, ask.budget), limit)


def label_values(ask: Ask) -> Iterator[bytes]:
    """GET /api/v1/label/{name}/values: which values a label has."""
    name = label_name(ask.label)
    (start, end), asked, limit = ask.span(), ask.selectors(), ask.form.limit()
    yield from ask.about(asked or EVERYTHING)
    yield _listed(ask, ask.view.label_values(name, asked, start, end, ask.budget), limit)


def series(ask: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/series: which series there are."""
    (start, end), asked, limit = ask.span(), ask.selectors(), ask.form.limit()
    if not asked:
        raise BadQueryError("no match[] parameter provided")
    yield from ask.about(asked)
    yield _listed(ask, list(map(dict, ask.view.series_of(asked, start, end, ask.budget))), limit)


def metadata(ask: Ask) -> Iterator[bytes]:
    """GET /api/v1/metadata: type and help of each metric."""
    limit, of_each = ask.form.limit(), ask.form.limit("limit_per_metric")
    yield from ask.about(EVERYTHING)
    found = ask.view.metadata(ask.form.text("metric") or None, ask.budget)
    names = list(found)[: limit or None]
    yield answer.listing({name: found[name][: of_each or None] for name in names}, list(ask.view.warnings))


def rules(_: Ask) -> Iterator[bytes]:
    """GET /api/v1/rules: Sentinel evaluates none."""
    yield answer.listing({"groups": []})


def query_exemplars(_: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/query_exemplars: there are none."""
    yield answer.listing([])


def format_query(ask: Ask) -> Iterator[bytes]:
    """GET and POST /api/v1/format_query: the expression in its usual form."""
    yield answer.listing(parse.format_query(_expression(ask.form)))


def _expression(form: Form) -> str:
    text = form.text("query")
    if not text.strip():
        raise BadQueryError('invalid parameter "query": unknown position: parse error: no expression found in input')
    return text


def _listed(ask: Ask, found: Sequence[Any], limit: int) -> bytes:
    truncated = [answer.TRUNCATED] if limit and len(found) > limit else []
    return answer.listing(found[: limit or None], [*ask.view.warnings, *truncated])


ENDPOINTS: tuple[tuple[str, tuple[str, ...], Callable[[Ask], Iterator[bytes]]], ...] = (
    ("query", ASK, query),
    ("query_range", ASK, query_range),
    ("labels", ASK, labels),
    ("label/{name:path}/values", READ, label_values),
    ("series", ASK, series),
    ("metadata", READ, metadata),
    ("rules", READ, rules),
    ("query_exemplars", ASK, query_exemplars),
    ("format_query", ASK, format_query),
)
