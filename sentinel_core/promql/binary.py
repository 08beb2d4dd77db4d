"""Operators: arithmetic, comparison and sets, between scalars and vectors."""

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.tree import Binary
from sentinel_core.promql.values import Scalar, Vector


def combine(node: Binary, left: Scalar | Vector, right: Scalar | Vector, budget: Budget) -> Scalar | Vector:
    """Return `left operator right`; ExecutionError where series cannot be paired."""
    raise NotImplementedError


def negate(value: Scalar | Vector, budget: Budget) -> Scalar | Vector:
    """Return `-value`; series lose their names."""
    raise NotImplementedError
