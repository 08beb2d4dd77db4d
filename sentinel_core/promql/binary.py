"""Operators: arithmetic, comparison and sets, between scalars and vectors.

Two vectors are paired by their labels, but for the name, step by step: what is not there at a step pairs with nothing
and clashes with nothing. Arithmetic and `bool` drop the name, a comparison that filters keeps it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sentinel_core.promql.errors import ExecutionError, NotSupportedError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matching import NAME, Groups, dropping, keeping, merge
from sentinel_core.promql.tree import Binary, Matching
from sentinel_core.promql.values import BoolArray, Labels, Scalar, Vector
from sentinel_core.series import quote
from sentinel_core.windows import FloatArray

ARITHMETIC: dict[str, np.ufunc] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.float_power,
    "atan2": np.arctan2,
}
COMPARISONS: dict[str, np.ufunc] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def combine(node: Binary, left: Scalar | Vector, right: Scalar | Vector, budget: Budget) -> Scalar | Vector:
    """Return `left operator right`; ExecutionError where series cannot be paired."""
    if isinstance(left, Vector) and isinstance(right, Vector):
        of_two = _set if node.operator in ("and", "or", "unless") else _paired
        return of_two(node, left, right, budget)
    vector = left if isinstance(left, Vector) else right
    budget.spend(vector.values.size)
    values, kept = _elements(node, left.values, right.values, vector.values)
    if isinstance(vector, Scalar):
        return Scalar(values)
    drops_name = node.bool or node.operator in ARITHMETIC
    return Vector(vector.labels, values, vector.present & kept, vector.nameless | drops_name)


def negate(value: Scalar | Vector, budget: Budget) -> Scalar | Vector:
    """Return `-value`; series lose their names."""
    budget.spend(value.values.size)
    if isinstance(value, Scalar):
        return Scalar(-value.values)
    return Vector(value.labels, -value.values, value.present, np.ones(len(value.labels), bool))


def _elements(node: Binary, left: FloatArray, right: FloatArray, filtered: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return values and where there is one; a comparison that is no `bool` leaves `filtered` where it holds."""
    with np.errstate(all="ignore"):
        if node.operator in ARITHMETIC:
            values: FloatArray = ARITHMETIC[node.operator](left, right)
            return values, np.ones((), bool)
        holds: BoolArray = COMPARISONS[node.operator](left, right)
    return (holds.astype(np.float64), np.ones((), bool)) if node.bool else (filtered, holds)


def _signature(matching: Matching) -> Callable[[Labels], Labels]:
    """Return what makes of a series' labels those by which it is paired."""
    return keeping(matching.labels) if matching.on else dropping((NAME, *matching.labels))


def _set(node: Binary, left: Vector, right: Vector, budget: Budget) -> Vector:
    """`and`, `or`, `unless`: whether a sample stays depends on whether the other side has its labels."""
    budget.spend(left.values.size + right.values.size)
    if node.operator != "or":
        paired = _has_partner(node.matching, left, right)
        return replace(left, present=left.present & (paired if node.operator == "and" else ~paired))
    return merge(
        Vector(
            left.labels + right.labels,
            np.concatenate([left.values, right.values]),
            np.concatenate([left.present, right.present & ~_has_partner(node.matching, right, left)]),
            np.concatenate([left.nameless, right.nameless]),
        )
    )


def _has_partner(matching: Matching, these: Vector, others: Vector) -> BoolArray:
    """Where the others have a sample with the labels of each of these."""
    signature = _signature(matching)
    groups = Groups.of(map(signature, others.labels))
    there = np.concatenate([groups.occupied(others.present), np.zeros((1, others.present.shape[1]), bool)])
    paired: BoolArray = there[groups.find(map(signature, these.labels))]  # what nobody has is -1, the row of nothing
    return paired


def _paired(node: Binary, left: Vector, right: Vector, budget: Budget) -> Vector:
    """Arithmetic or comparison of series with the same labels, one with one or many with one."""
    matching, signature = node.matching, _signature(node.matching)
    side = "left" if matching.group == "right" else "right"
    many, one = (right, left) if side == "left" else (left, right)
    if NAME in matching.include and (node.bool or many.nameless.any() or one.nameless.any()):
        raise NotSupportedError("group_left or group_right with __name__ that is dropped later")

    ones = Groups.of(map(signature, one.labels))
    # Where the other side has nothing at all, Prometheus does not look.
    if clash := ones.crowded(one.present & many.present.any(axis=0)):
        names = ", ".join(sorted([shown(one.labels[row]) for row in clash[:2]]))
        raise ExecutionError(
            f"found duplicate series for the match group {shown(signature(one.labels[clash[0]]))} on the {side} "
            f"hand-side of the operation: [{names}];many-to-many matching not allowed: matching labels must be unique "
            "on one side"
        )
    # Series of which only one is there at a step become one, unless the result gets other labels from each.
    included = keeping(matching.include)
    alike = Groups.of([(signature(labels), included(labels)) for labels in one.labels])
    one = alike.single(one)
    partners: dict[Labels, list[int]] = {}
    for number, (key, _) in enumerate(alike.keys):
        partners.setdefault(key, []).append(number)

    found = [partners.get(signature(labels), []) for labels in many.labels]
    budget.spend(2 * sum(map(len, found)) * many.values.shape[1])
    pairs = [(row, other) for row, others in enumerate(found) for other in others]
    rows, partner = np.array(pairs, np.int64).reshape(-1, 2).T
    matched = many.present[rows] & one.present[partner]
    sides = many.values[rows], one.values[partner]
    on_left, on_right = sides if many is left else sides[::-1]
    values, kept = _elements(node, on_left, on_right, on_left)
    named = _result(node)
    labels = tuple([named(many.labels[row], one.labels[other]) for row, other in pairs])

    if matching.group == "none":
        if Groups.of([signature(many.labels[row]) for row, _ in pairs]).crowded(matched):
            raise ExecutionError(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            )
    elif (results := Groups.of(labels)).crowded(matched):
        if not results.crowded(matched & kept):
            raise NotSupportedError("a comparison that leaves one of several series with the same labels")
        raise ExecutionError("multiple matches for labels: grouping labels must ensure unique matches")
    nameless = (many.nameless[rows] | node.bool) & (node.operator in COMPARISONS)
    return merge(Vector(labels, values, matched & kept, nameless))


def _result(node: Binary) -> Callable[[Labels, Labels], Labels]:
    """Return what makes of the labels of the many and of the one side those of the result."""
    matching = node.matching
    unnamed = dropping([NAME] if node.operator in ARITHMETIC else [])
    if matching.group == "none":
        rest = keeping(matching.labels) if matching.on else dropping(matching.labels)
        return lambda many, one: rest(unnamed(many))
    own, included = dropping(matching.include), keeping(matching.include)
    return lambda many, one: tuple(sorted(own(unnamed(many)) + included(one)))


def shown(labels: Labels) -> str:
    """Return labels as Prometheus' messages write them.

    >>> print(shown((("__name__", "up"), ("job", "api"))))
    {__name__="up", job="api"}
    """
    return "{" + ", ".join([f"{name}={quote(value)}" for name, value in labels]) + "}"
