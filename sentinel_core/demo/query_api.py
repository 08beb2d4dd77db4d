"""Prometheus' query API over the shop's past: what makes the demo work on a machine without Prometheus.

Samples stand every 15 s, from a week ago until now.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sentinel_core.demo.history import HISTORY_SECONDS
from sentinel_core.demo.signals import SCRAPE_PHASE, SCRAPE_SECONDS, Signal, signals
from sentinel_core.promql import matchers as matching
from sentinel_core.promql.answer import answer, listing
from sentinel_core.promql.errors import BadQueryError, QueryError
from sentinel_core.promql.evaluate import evaluate, times
from sentinel_core.promql.limits import MAX_POINTS, Budget
from sentinel_core.promql.parse import parse, parse_selector
from sentinel_core.promql.tree import Number
from sentinel_core.promql.values import LOOKBACK, Labels, Notes, Samples, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import FloatArray, IntArray

Form = Mapping[str, Sequence[str]]

_EVERY, _PHASE = SCRAPE_SECONDS * 1_000, SCRAPE_PHASE * 1_000  # ms
_TIMEOUT_SECONDS = 30.0


class UnknownPathError(QueryError):
    """The demo serves nothing there."""

    status, kind = 404, "not_found"


class ShopSource:
    """A Source of the shop's series as they were scraped until `now`, unix seconds. Samples are numbered."""

    def __init__(self, now: float) -> None:
        self._first = -(-(int(now * 1_000) - HISTORY_SECONDS * 1_000 - _PHASE) // _EVERY)
        self._last = (int(now * 1_000) - _PHASE) // _EVERY

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source."""
        found = _matching(matchers)
        budget.spend(len(found) * len(times))
        newest = np.minimum((times - _PHASE) // _EVERY, self._last)
        there = (newest >= self._first) & (_time(newest) > times - LOOKBACK)
        seconds = _time(np.maximum(newest, self._first)) / 1_000
        values = np.tile(seconds, (len(found), 1)) if timestamps else _values(found, seconds)
        return Vector.of([_labels(signal) for signal in found], values, np.tile(there, (len(found), 1)))

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source."""
        found = _matching(matchers)
        stamps = _time(self._between(start + 1, end))
        budget.spend(len(found) * len(stamps))
        values = _values(found, stamps / 1_000)
        return Samples.of([_labels(signal) for signal in found], [stamps] * len(found), list(values))

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        return [_labels(signal) for signal in _matching(matchers)] if len(self._between(start, end)) else []

    def _between(self, start: int, end: int) -> IntArray:
        first, last = max(-(-(start - _PHASE) // _EVERY), self._first), min((end - _PHASE) // _EVERY, self._last)
        return np.arange(first, last + 1)


def respond(path: str, form: Form, now: float) -> bytes:
    """Return the body of an API answer; QueryError for what has none."""
    source, budget = ShopSource(now), Budget(deadline=time.monotonic() + _TIMEOUT_SECONDS)
    match path.removeprefix("/api/v1/").split("/"):
        case ["query"]:
            at = _milliseconds(form, "time", now)
            return _evaluated(form, at, at, 0, source, budget)
        case ["query_range"]:
            start, end, step = (_milliseconds(form, name) for name in ("start", "end", "step"))
            if step <= 0 or end < start:
                raise BadQueryError("step must be above zero, and end not before start")
            if (end - start) // step >= MAX_POINTS:
                raise BadQueryError(f"exceeded maximum resolution of {MAX_POINTS:,} points per timeseries")
            return _evaluated(form, start, end, step, source, budget)
        case ["metadata"]:
            return listing(_metadata(form.get("metric", [None])[-1]))
        case ["status", "buildinfo"]:
            return listing({"version": "3.0.0", "revision": "", "branch": "", "buildUser": "sentinel demo"})
        case ["series"]:
            return listing([dict(labels) for labels in _series(form, source, budget)])
        case ["labels"]:
            return listing(sorted({name for labels in _series(form, source, budget) for name, _ in labels}))
        case ["label", label, "values"]:
            pairs = (pair for labels in _series(form, source, budget) for pair in labels)
            return listing(sorted({value for name, value in pairs if name == label}))
    raise UnknownPathError(f"not served by the demo: {path}")


def _evaluated(form: Form, start: int, end: int, step: int, source: ShopSource, budget: Budget) -> bytes:
    notes = Notes()
    value = evaluate(parse(form.get("query", [""])[-1]), start, end, step, source, budget, notes)
    return b"".join(answer(value, times(start, end, step), notes, ranged=step > 0))


def _series(form: Form, source: ShopSource, budget: Budget) -> set[Labels]:
    """The series under any `match[]`; all where there is none."""
    start, end = _milliseconds(form, "start", 0), _milliseconds(form, "end", 2**40)
    selectors = [parse_selector(text) for text in form.get("match[]", [])] or [()]
    return {labels for one in selectors for labels in source.series(one, start, end, budget)}


def _metadata(metric: str | None) -> dict[str, Any]:
    return {
        name: [{"type": signal.kind, "help": signal.help, "unit": ""}]
        for signal in signals()
        for name in (signal.series.name, signal.family)
        if metric in (None, name)
    }


def _milliseconds(form: Form, name: str, default: float | None = None) -> int:
    """A parameter in seconds, or as a duration."""
    given = form.get(name)
    if given is None and default is not None:
        return int(default * 1_000)
    number = parse(given[-1] if given else "")
    if not isinstance(number, Number):
        raise BadQueryError(f"invalid parameter {name!r}: {given}")
    return round(number.value * 1_000)


def _matching(matchers: Sequence[Matcher]) -> list[Signal]:
    every = signals()
    kept = matching.compile(matchers).matches([_labels(signal) for signal in every])
    return [signal for signal, keep in zip(every, kept.tolist(), strict=True) if keep]


def _labels(signal: Signal) -> Labels:
    return tuple(sorted((("__name__", signal.series.name), *signal.series.labels)))


def _time(number: IntArray) -> IntArray:
    return number * _EVERY + _PHASE


def _values(found: Sequence[Signal], seconds: FloatArray) -> FloatArray:
    return np.array([signal.at(seconds) for signal in found]).reshape(len(found), len(seconds))
