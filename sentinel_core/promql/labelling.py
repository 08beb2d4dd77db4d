"""Functions that write labels or order by them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.matchers import pattern
from sentinel_core.promql.matching import NAME, merge
from sentinel_core.promql.values import Labels, Notes, Scalar, Text, Vector
from sentinel_core.windows import IntArray

_CHUNK = re.compile(r"\d+|\D+", re.ASCII)
_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")
_LONGEST_NUMBER = 18  # digits; beyond, Prometheus compares them as text

Argument = Scalar | Text | Vector


def label_replace(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`label_replace(v, destination, replacement, source, regex)`: what does not match stays as it is."""
    vector, (destination, replacement, source, expression) = _split(args)
    _check("destination", "label_replace", destination)
    try:
        compiled = pattern(expression)
    except ValueError as error:
        raise ExecutionError(f"invalid regular expression in label_replace(): {error}: {expression}") from None
    parts = _parts(replacement, compiled.groups, dict(compiled.groupindex))

    def written(value: str) -> str | None:
        match = compiled.fullmatch(value)
        return None if match is None else "".join(one if isinstance(one, str) else match[one] or "" for one in parts)

    values = {value: written(value) for value in {dict(labels).get(source, "") for labels in vector.labels}}
    return _written(vector, destination, [values[dict(labels).get(source, "")] for labels in vector.labels])


def label_join(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """`label_join(v, destination, separator, sources…)`."""
    vector, (destination, separator, *sources) = _split(args)
    _check("destination", "label_join", destination)
    for source in sources:
        _check("source", "label_join", source)
    series = [dict(labels) for labels in vector.labels]
    return _written(vector, destination, [separator.join(one.get(source, "") for source in sources) for one in series])


def sort_by_label(*, descending: bool) -> Callable[[Sequence[Argument], IntArray, Notes], Vector]:
    """Return the function that orders an instant query's series by labels, numbers in them as numbers."""

    def apply(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
        vector, names = _split(args)
        if not has_order(times, notes):
            return vector

        def key(row: int) -> tuple[object, ...]:
            values = dict(vector.labels[row])
            return (*[_natural(values.get(name, "")) for name in names], vector.labels[row])

        order = sorted(range(len(vector.labels)), key=key, reverse=descending)
        return vector.rows(np.array(order, np.int64))

    return apply


def has_order(times: IntArray, notes: Notes) -> bool:
    """Whether the order of series matters: those of a range are ordered by labels, whatever sort() does."""
    if len(times) > 1:
        notes.warn("sort is ineffective for range queries since results are always ordered by labels", argument=0)
    return len(times) == 1


def _natural(text: str) -> tuple[tuple[str, int], ...]:
    """Return what orders texts as people do.

    >>> sorted(["v10", "v9", "a"], key=_natural)
    ['a', 'v9', 'v10']
    """
    return tuple(
        ("0", int(chunk)) if chunk.isdigit() and len(chunk) <= _LONGEST_NUMBER else (chunk, 0)
        for chunk in _CHUNK.findall(text)
    )


def _split(args: Sequence[Argument]) -> tuple[Vector, list[str]]:
    vector = args[0]
    assert isinstance(vector, Vector)  # the parser has checked types
    return vector.seen(), [one.value for one in args[1:] if isinstance(one, Text)]


def _check(role: str, function: str, label: str) -> None:
    if not label:
        raise ExecutionError(f"invalid {role} label name in {function}(): {label}")


def _parts(replacement: str, groups: int, named: dict[str, int]) -> list[str | int]:
    """Return a replacement as texts and numbers of groups; a group that there is not is empty, `$$` is a dollar.

    >>> _parts("a$1-${x}$2", 1, {"x": 1})
    ['a', 1, '-', 1, '', '', '']
    """
    parts: list[str | int] = []
    done = 0
    for variable in _VARIABLE.finditer(replacement):
        parts.append(replacement[done : variable.start()])
        done = variable.end()
        name = variable[2] or variable[3]
        if variable[1]:
            parts.append("$")
        elif name.isascii() and name.isdigit() and not (len(name) > 1 and name[0] == "0"):
            parts.append(int(name) if len(name) < 9 and int(name) <= groups else "")
        else:
            parts.append(named.get(name, ""))
    parts.append(replacement[done:])
    return parts


def _written(vector: Vector, destination: str, values: Sequence[str | None]) -> Vector:
    """Return the series with a label set to these values; "" removes it, None leaves it; what became one is joined."""

    def with_value(labels: Labels, value: str | None) -> Labels:
        if value is None:
            return labels
        return tuple(sorted(({**dict(labels), destination: value} if value else _less(labels, destination)).items()))

    nameless = vector.nameless.copy()
    if destination == NAME:
        nameless[[value is not None for value in values]] = False  # a name that somebody gave stays
    return merge(replace(vector, labels=tuple(map(with_value, vector.labels, values)), nameless=nameless))


def _less(labels: Labels, name: str) -> dict[str, str]:
    return {key: value for key, value in labels if key != name}
