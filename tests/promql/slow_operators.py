"""Aggregation and operators one step at a time over dictionaries: slow, and obviously what Prometheus says it does.

A step of a vector is a list of (labels as a dictionary, nameless, value), in the order of its rows.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from sentinel_core.promql.tree import Aggregation, Binary, Matching
from sentinel_core.promql.values import Vector
from tests.promql.slow_over_time import kahan, mean, quantile, variance

Sample = tuple[dict[str, str], bool, float]


class Refused(Exception):  # noqa: N818 - what is expected, not what went wrong
    """Prometheus would answer with an error."""


def steps_of(vector: Vector) -> Iterator[list[Sample]]:
    """Take a vector apart."""
    for step in range(vector.values.shape[1]):
        yield [
            (dict(labels), bool(nameless), float(values[step]))
            for labels, nameless, values, present in zip(
                vector.labels, vector.nameless, vector.values, vector.present, strict=True
            )
            if present[step]
        ]


def extreme(choose: Callable[[list[float]], float], values: list[float]) -> float:
    """The least or greatest that is a number."""
    numbers = [value for value in values if not math.isnan(value)]
    return choose(numbers) if numbers else math.nan


def aggregated(node: Aggregation, samples: list[Sample], parameter: float) -> list[Sample]:
    """Return a step's samples of the result."""
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        if node.without:
            key = [pair for pair in sample[0].items() if pair[0] not in ("__name__", *node.labels)]
        else:
            key = [pair for pair in sample[0].items() if pair[0] in node.labels]
        groups.setdefault(tuple(sorted(key)), []).append(sample)
    result: list[Sample] = []
    for key, members in groups.items():
        values = [value for _, _, value in members]
        if node.operator in ("topk", "bottomk"):
            sign = -1 if node.operator == "topk" else 1
            members.sort(key=lambda sample: (math.isnan(sample[2]), sign * sample[2]))
            result += members[: max(0, int(parameter))]
            continue
        value = {
            "sum": kahan,
            "avg": mean,
            "min": lambda values: extreme(min, values),
            "max": lambda values: extreme(max, values),
            "count": len,
            "group": lambda values: 1,
            "stdvar": variance,
            "stddev": lambda values: math.sqrt(variance(values)),
            "quantile": lambda values: quantile(parameter, values),
        }[node.operator](values)
        result.append((dict(key), False, value))
    return result


ARITHMETIC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISONS = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def signature(matching: Matching, labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What a series is paired by."""
    if matching.on:
        return tuple(sorted(pair for pair in labels.items() if pair[0] in matching.labels))
    return tuple(sorted(pair for pair in labels.items() if pair[0] not in ("__name__", *matching.labels)))


def combined(node: Binary, left: list[Sample], right: list[Sample]) -> list[Sample]:
    """Return a step's samples of the result, or raise Refused."""
    matching = node.matching
    if node.operator in ("and", "or", "unless"):
        lefts, rights = ({signature(matching, labels) for labels, _, _ in side} for side in (left, right))
        if node.operator == "or":
            return left + [sample for sample in right if signature(matching, sample[0]) not in lefts]
        wanted = node.operator == "and"
        return [sample for sample in left if (signature(matching, sample[0]) in rights) == wanted]
    if not left or not right:
        return []
    many, one = (right, left) if matching.group == "right" else (left, right)
    ones: dict[tuple[tuple[str, str], ...], Sample] = {}
    for sample in one:
        if ones.setdefault(signature(matching, sample[0]), sample) is not sample:
            raise Refused("found duplicate series for the match group")
    result: list[Sample] = []
    met: set[tuple[object, ...]] = set()
    for labels, nameless, value in many:
        key = signature(matching, labels)
        if key not in ones:
            continue
        other = ones[key]
        operands = (other[2], value) if matching.group == "right" else (value, other[2])
        drops = node.operator in ARITHMETIC
        named = {name: text for name, text in labels.items() if not (drops and name == "__name__")}
        if matching.group == "none":
            named = {name: text for name, text in named.items() if (name in matching.labels) == matching.on}
        for name in matching.include:
            named.pop(name, None)
            if name in other[0]:
                named[name] = other[0][name]
        identity = (key,) if matching.group == "none" else (key, *sorted(named.items()))
        if identity in met:
            raise Refused("multiple matches for labels")
        met.add(identity)
        with np.errstate(all="ignore"):
            if drops:
                result.append((named, False, float(ARITHMETIC[node.operator](*operands))))
            elif node.bool:
                result.append((named, True, float(COMPARISONS[node.operator](*operands))))
            elif COMPARISONS[node.operator](*operands):
                result.append((named, nameless, operands[0]))
    if len({(*sorted(labels.items()), dropped) for labels, dropped, _ in result}) < len(result):
        raise Refused("vector cannot contain metrics with the same labelset")
    return result
