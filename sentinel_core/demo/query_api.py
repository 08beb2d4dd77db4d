"""The part of Prometheus' query API that Sentinel's client asks, answered from the demo's signals; the rest is a 422.

This is what makes the demo work on a machine without Prometheus. Samples stand every 15 s, from a week ago until now.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sentinel_core.demo.history import HISTORY_SECONDS
from sentinel_core.demo.signals import SCRAPE_SECONDS, Signal, signals
from sentinel_core.durations import parse_duration
from sentinel_core.series import Matcher, unescape
from sentinel_core.windows import FloatArray, IntArray

MAX_POINTS = 11_000  # per series, as Prometheus
_STALE_SECONDS = 300  # Prometheus' look-back of an instant selector
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w:]))|(?P<name>[a-zA-Z_:][\w:]*)|(?P<duration>(?:\d+(?:ms|[wdhms]))+)
    |(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>=~|!~|!=|[=(){}\[\],]))""",
    re.VERBOSE,
)
_OVER_RANGE = ("rate", "last_over_time", "count_over_time", "present_over_time")
_OVER_SERIES = ("count", "sum", "avg", "min", "max", "quantile", "topk")
_WITH_PARAMETER = ("quantile", "topk")


class QueryError(Exception):
    """A question that cannot be answered: `status` is 400 (malformed) or 422 (not supported here)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Selection:
    """A selector, with the span in square brackets where it has one."""

    matchers: tuple[Matcher, ...]
    span: float | None = None  # seconds


@dataclass(frozen=True)
class Call:
    """A function or an aggregation over one argument; `parameter` is quantile's share and topk's number."""

    function: str
    argument: "Node | None" = None
    parameter: float = math.nan


@dataclass(frozen=True)
class And:
    """The left side where the right side has a value under the same labels."""

    left: "Node"
    right: "Node"


Node = Selection | Call | And
Rows = list[tuple[dict[str, str], FloatArray]]  # labels, and one value per evaluated time: NaN where there is none


# ---- text to tree


@dataclass
class _Parser:
    text: str
    tokens: list[tuple[str, str]] = field(default_factory=list)
    position: int = 0

    def __post_init__(self) -> None:
        place = 0
        while self.text[place:].strip():
            found = _TOKEN.match(self.text, place)
            if not found or not found.lastgroup:
                raise QueryError(422, f"not supported by the demo: {self.text[place:].strip()!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def take(self, *, kind: str | None = None, mark: str | None = None) -> str:
        if self.position == len(self.tokens):
            raise QueryError(400, f"parse error: unexpected end of {self.text!r}")
        found, text = self.tokens[self.position]
        if (kind and found != kind) or (mark and text != mark):
            raise QueryError(422, f"not supported by the demo: {text!r} in {self.text!r}")
        self.position += 1
        return text

    def expression(self) -> Node:
        node = self.operand()
        while self.peek() == "and":
            self.take()
            node = And(node, self.operand())
        return node

    def operand(self) -> Node:
        if self.peek() == "{":
            return self.selection("")
        name = self.take(kind="name")
        if self.peek() != "(":
            return self.selection(name)
        if name not in (*_OVER_RANGE, *_OVER_SERIES, "time"):
            raise QueryError(422, f"not supported by the demo: {name}()")
        self.take(mark="(")
        if name == "time":
            self.take(mark=")")
            return Call("time")
        parameter = math.nan
        if name in _WITH_PARAMETER:
            parameter = float(self.take(kind="number"))
            self.take(mark=",")
        argument = self.expression()
        self.take(mark=")")
        if name in _OVER_RANGE and not (isinstance(argument, Selection) and argument.span):
            raise QueryError(400, f"parse error: {name} expects a range, as metric[5m]")
        return Call(name, argument, parameter)

    def selection(self, name: str) -> Selection:
        matchers = [Matcher("__name__", "=", name)] if name else []
        if self.peek() == "{":
            self.take()
            while self.peek() != "}":
                label = self.take(kind="name")
                operator = self.take(kind="mark")
                matchers.append(Matcher(label, operator, unescape(self.take(kind="text")[1:-1])))
                if self.peek() != "}":
                    self.take(mark=",")
            self.take(mark="}")
        span = None
        if self.peek() == "[":
            self.take()
            span = _seconds(self.take(kind="duration"))
            self.take(mark="]")
        return Selection(tuple(matchers), span)


def _seconds(text: str) -> float:
    milliseconds = re.fullmatch(r"(\d+)ms", text)
    try:
        return int(milliseconds[1]) / 1_000 if milliseconds else float(parse_duration(text))
    except ValueError as error:
        raise QueryError(400, f"parse error: {error}") from None


def parse(text: str) -> Node:
    """The tree of an expression; QueryError names what is not supported."""
    parser = _Parser(text)
    node = parser.expression()
    if parser.peek():
        raise QueryError(422, f"not supported by the demo: {parser.peek()!r} in {text!r}")
    return node


# ---- tree to numbers


def evaluate(node: Node, times: FloatArray, now: float) -> FloatArray | Rows:
    """Values at ascending `times` (unix seconds): one array for a scalar, rows for a vector."""
    if isinstance(node, Selection):
        return [
            (_labels(signal), _over_range("last_over_time", signal, times, node.span or _STALE_SECONDS, now))
            for signal in _matching(node)
        ]
    if isinstance(node, And):
        left, right = evaluate(node.left, times, now), evaluate(node.right, times, now)
        if not isinstance(left, list) or not isinstance(right, list):
            raise QueryError(400, "parse error: and expects vectors")
        there = {_unnamed(labels): ~np.isnan(row) for labels, row in right}
        nowhere = np.zeros(len(times), bool)
        return [(labels, np.where(there.get(_unnamed(labels), nowhere), row, np.nan)) for labels, row in left]
    if node.function == "time":
        return times
    if node.argument is None:
        raise QueryError(400, f"parse error: {node.function} expects an argument")
    if isinstance(node.argument, Selection) and node.function in _OVER_RANGE:
        keeps_name = node.function == "last_over_time"
        span = node.argument.span or 0
        return [
            (_labels(signal, keeps_name), _over_range(node.function, signal, times, span, now))
            for signal in _matching(node.argument)
        ]
    inner = evaluate(node.argument, times, now)
    if not isinstance(inner, list):
        raise QueryError(400, f"parse error: {node.function} expects a vector")
    return _over_series(node, inner)


def _labels(signal: Signal, with_name: bool = True) -> dict[str, str]:
    return {**({"__name__": signal.series.name} if with_name else {}), **dict(signal.series.labels)}


def _unnamed(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in labels.items() if key != "__name__"))


def _matching(selection: Selection) -> list[Signal]:
    for matcher in selection.matchers:
        if matcher.operator in ("=~", "!~"):
            _compiled(matcher)
    return [signal for signal in signals() if all(_matches(matcher, _labels(signal)) for matcher in selection.matchers)]


def _matches(matcher: Matcher, labels: Mapping[str, str]) -> bool:
    value = labels.get(matcher.label, "")
    if matcher.operator in ("=", "!="):
        return (value == matcher.value) == (matcher.operator == "=")
    return bool(_compiled(matcher).fullmatch(value)) == (matcher.operator == "=~")


def _compiled(matcher: Matcher) -> re.Pattern[str]:
    try:
        return re.compile(matcher.value)
    except re.error as error:
        raise QueryError(400, f"parse error: {matcher}: {error}") from None


def _over_range(function: str, signal: Signal, times: FloatArray, span: float, now: float) -> FloatArray:
    """One value per time T from the samples in [T - span, T], as Prometheus 2; NaN where there are too few."""
    newest = math.floor(now / SCRAPE_SECONDS)
    last = np.minimum(np.floor(times / SCRAPE_SECONDS).astype(np.int64), newest)
    first = np.maximum(np.ceil((times - span) / SCRAPE_SECONDS).astype(np.int64), _oldest(now))
    count = np.maximum(0, last - first + 1)
    enough = count >= (2 if function == "rate" else 1)
    result = np.full(len(times), np.nan)
    if function in ("count_over_time", "present_over_time"):
        result[enough] = count[enough] if function == "count_over_time" else 1.0
    elif enough.any():
        result[enough] = _reduce(function, signal, first[enough], last[enough])
    return result


def _oldest(now: float) -> int:
    """Number of the first sample that the demo remembers."""
    return math.ceil((now - HISTORY_SECONDS) / SCRAPE_SECONDS)


def _reduce(function: str, signal: Signal, first: IntArray, last: IntArray) -> FloatArray:
    """Reduce the samples numbered first … last (inclusive, ascending) of each evaluated time."""
    start = int(first.min())
    samples = signal.at(np.arange(start, int(last.max()) + 1, dtype=np.float64) * SCRAPE_SECONDS)
    low, high = first - start, last - start
    if function == "last_over_time":
        return np.asarray(samples[high], np.float64)
    gained = np.diff(
        samples, prepend=samples[0]
    )  # rate: resets added back; on a regular grid Prometheus' extrapolation
    total = np.cumsum(np.where(gained < 0, samples, gained))  # comes to this quotient
    return np.asarray((total[high] - total[low]) / ((high - low) * SCRAPE_SECONDS), np.float64)


def _over_series(call: Call, rows: Rows) -> Rows:
    if not rows:
        return []
    values = np.stack([row for _, row in rows])
    present = ~np.isnan(values)
    some = present.any(axis=0)
    result = np.full(values.shape[1], np.nan)
    inner = values[:, some]
    if call.function == "topk":
        rank = np.argsort(np.argsort(np.where(present, -values, np.inf), axis=0, kind="stable"), axis=0)
        return [
            (labels, np.where(place < call.parameter, row, np.nan))
            for (labels, row), place in zip(rows, rank, strict=True)
        ]
    if call.function == "quantile":
        result[some] = np.nanquantile(inner, call.parameter, axis=0)
    elif call.function == "count":
        result[some] = present[:, some].sum(axis=0)
    elif call.function == "sum":
        result[some] = np.nansum(inner, axis=0)
    elif call.function == "avg":
        result[some] = np.nanmean(inner, axis=0)
    else:
        result[some] = np.nanmin(inner, axis=0) if call.function == "min" else np.nanmax(inner, axis=0)
    return [({}, result)]


# ---- the API


def answer(path: str, parameters: Mapping[str, str], now: float) -> Any:
    """The `data` of an API answer; QueryError for what is malformed or not supported."""
    if path == "/api/v1/query":
        return _instant(parse(parameters.get("query", "")), _number(parameters, "time", now), now)
    if path == "/api/v1/query_range":
        return _range(parameters, now)
    if path == "/api/v1/metadata":
        wanted = parameters.get("metric")
        return {
            name: [{"type": signal.kind, "help": signal.help, "unit": ""}]
            for signal in signals()
            for name in (signal.series.name, signal.family)
            if wanted in (None, name)
        }
    if path == "/api/v1/label/__name__/values":
        selection = parse(parameters.get("match[]", ""))
        return sorted(
            {signal.series.name for signal in _matching(selection)} if isinstance(selection, Selection) else []
        )
    if path == "/api/v1/status/buildinfo":
        return {"version": "2.42.0", "revision": "", "branch": "", "buildUser": "sentinel demo", "goVersion": ""}
    raise QueryError(404, f"not served by the demo: {path}")


def _instant(node: Node, at: float, now: float) -> Any:
    if isinstance(node, Selection) and node.span:
        return {"resultType": "matrix", "result": _samples(node, at, now)}
    found = evaluate(node, np.array([at]), now)
    if not isinstance(found, list):
        return {"resultType": "scalar", "result": [at, _text(found[0])]}
    result = [{"metric": labels, "value": [at, _text(row[0])]} for labels, row in found if not math.isnan(row[0])]
    return {"resultType": "vector", "result": result}


def _samples(selection: Selection, at: float, now: float) -> list[dict[str, Any]]:
    """The raw samples of a range selector, [at - span, at]."""
    first = math.ceil((at - (selection.span or 0)) / SCRAPE_SECONDS)
    times = np.arange(max(first, _oldest(now)), math.floor(min(at, now) / SCRAPE_SECONDS) + 1, dtype=np.float64)
    return [
        _matrix_row(_labels(signal), times * SCRAPE_SECONDS, signal.at(times * SCRAPE_SECONDS))
        for signal in _matching(selection)
    ]


def _range(parameters: Mapping[str, str], now: float) -> Any:
    start, end = _number(parameters, "start"), _number(parameters, "end")
    step = _number(parameters, "step")
    if step <= 0 or end < start:
        raise QueryError(400, "step must be above zero, and end not before start")
    points = math.floor((end - start) / step) + 1
    if points > MAX_POINTS:
        raise QueryError(400, f"exceeded maximum resolution of {MAX_POINTS:,} points per timeseries")
    times = start + step * np.arange(points, dtype=np.float64)
    found = evaluate(parse(parameters.get("query", "")), times, now)
    rows = found if isinstance(found, list) else [({}, found)]
    result = [_matrix_row(labels, times, row) for labels, row in rows if not np.isnan(row).all()]
    return {"resultType": "matrix", "result": result}


def _matrix_row(labels: dict[str, str], times: FloatArray, row: FloatArray) -> dict[str, Any]:
    present = ~np.isnan(row)
    pairs = zip(times[present].tolist(), row[present].tolist(), strict=True)
    return {"metric": labels, "values": [[at, _text(value)] for at, value in pairs]}


def _number(parameters: Mapping[str, str], name: str, default: float | None = None) -> float:
    text = parameters.get(name)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        pass
    try:
        return float(parse_duration(text or ""))
    except ValueError:
        raise QueryError(400, f"invalid parameter {name!r}: {text!r}") from None


def _text(value: float) -> str:
    return repr(int(value)) if value == math.floor(value) and abs(value) < 1e15 else repr(float(value))
