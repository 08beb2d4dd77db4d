"""Aggregations: many series to one of each group, or to some of each."""

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.tree import Aggregation
from sentinel_core.promql.values import Notes, Scalar, Text, Vector


def aggregate(node: Aggregation, vector: Vector, param: Scalar | Text | None, budget: Budget, notes: Notes) -> Vector:
    """Aggregate the series of each group at each step.

    param: of topk, bottomk, limitk, limit_ratio and quantile a scalar, of count_values the label's name
    """
    raise NotImplementedError
