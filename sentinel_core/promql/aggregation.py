"""Aggregations: many series to one of each group, or to some of each, step by step.

Sums are compensated, so that 1e100 and -1e100 leave what else is there; means do not overflow; NaN is the smallest of
values to `quantile`, the last choice of `topk` and `bottomk`, and nothing to `min` and `max` unless it is all there is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from sentinel_core.promql import sums
from sentinel_core.promql.answer import texts
from sentinel_core.promql.errors import ExecutionError, NotSupportedError
from sentinel_core.promql.histograms import check_quantile
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matching import NAME, Groups, dropping, keeping
from sentinel_core.promql.tree import Aggregation
from sentinel_core.promql.values import BoolArray, Labels, Notes, Scalar, Text, Vector, said
from sentinel_core.windows import FloatArray, IntArray, unique

_PIECE = 200_000  # cells at once, so that what is computed of them stays in the cache
# What the series of a group are put in order by before the first of them are chosen; limitk takes any.
_CHOICES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "topk": np.negative,
    "bottomk": np.positive,
    "limitk": np.zeros_like,
}


def aggregate(node: Aggregation, vector: Vector, param: Scalar | Text | None, budget: Budget, notes: Notes) -> Vector:
    """Aggregate the series of each group at each step. At a single step, topk and bottomk order the rows they leave.

    param: of topk, bottomk, limitk, limit_ratio and quantile a scalar, of count_values the label's name
    Raises ExecutionError for a parameter that Prometheus refuses, NotSupportedError for a sample that it takes by hash.
    """
    if isinstance(param, Text):
        return _count_values(node, vector, param.value, budget, notes)
    parameter = np.empty(0) if param is None else param.values
    if node.operator in _CHOICES:
        return _choose(node, vector, parameter, budget)
    if node.operator == "limit_ratio":
        return _limit_ratio(vector, parameter, notes)
    if node.operator == "quantile":
        check_quantile(parameter, notes)
    if not vector.labels:
        return vector
    groups = _groups(node, vector.labels)
    budget.spend(vector.values.size)
    values = np.empty((len(groups.keys), vector.values.shape[1]))
    with np.errstate(all="ignore"):
        for steps, rows in _pieces(vector, groups, budget):
            values[:, steps] = _reduce(node.operator, rows, parameter[steps])
    return Vector(groups.keys, values, groups.occupied(vector.present), _nameless(node, vector, groups))


def _groups(node: Aggregation, labels: Iterable[Labels]) -> Groups[Labels]:
    return Groups.of(map(dropping((NAME, *node.labels)) if node.without else keeping(node.labels), labels))


def _nameless(node: Aggregation, vector: Vector, groups: Groups[Labels]) -> BoolArray:
    """Groups by name lose it in the end where their series do."""
    if node.without or NAME not in node.labels:
        return np.zeros(len(groups.keys), bool)
    of_group = vector.nameless[groups.order[groups.starts]]
    if (of_group[groups.of_row] != vector.nameless).any():
        raise NotSupportedError("aggregation by __name__ of series that keep it and series that lose it")
    return of_group


@dataclass(frozen=True)
class Rows:
    """Some steps of all rows, group after group.

    values: float64 [S, T]; present: bool [S, T]
    starts: int64 [G], where each group begins; of_row: int64 [S], the group of each row
    counts: int64 [G, T], how many rows are there
    """

    values: FloatArray
    present: BoolArray
    starts: IntArray
    of_row: IntArray
    counts: IntArray

    def filled(self, absent: float) -> FloatArray:
        """Values, and something else where there is none."""
        return np.where(self.present, self.values, absent)

    def ordered(self, keys: FloatArray) -> IntArray:
        """Return the rows in the order of their keys, group after group; NaN and what is not there come last."""
        groups = np.broadcast_to(self.of_row[:, None], keys.shape)
        order: IntArray = np.lexsort((np.where(self.present, keys, np.nan), groups), axis=0)
        return order


def _pieces(vector: Vector, groups: Groups[Labels], budget: Budget) -> Iterator[tuple[slice, Rows]]:
    width = max(1, _PIECE // len(vector.labels))
    for first in range(0, vector.values.shape[1], width):
        budget.check()
        steps = slice(first, first + width)
        present = vector.present[groups.order, steps]
        counts = np.add.reduceat(present, groups.starts, axis=0, dtype=np.int64)
        of_row = groups.of_row[groups.order]
        yield steps, Rows(vector.values[groups.order, steps], present, groups.starts, of_row, counts)


# --- One value of each group: [S, T] -> [G, T], anything where nothing is there ---------------------------------------


def _reduce(operator: str, rows: Rows, parameter: FloatArray) -> FloatArray:
    match operator:
        case "sum":
            return _sum(rows)
        case "avg":
            return _mean(rows.filled(0.0), rows)
        case "min":
            return np.fmin.reduceat(rows.filled(np.nan), rows.starts, axis=0)
        case "max":
            return np.fmax.reduceat(rows.filled(np.nan), rows.starts, axis=0)
        case "count":
            return rows.counts.astype(np.float64)
        case "group":
            return np.ones(rows.counts.shape)
        case "stdvar":
            return _variance(rows)
        case "stddev":
            return np.sqrt(_variance(rows))
        case "quantile":
            return _quantile(rows, parameter)
    raise NotSupportedError(f"aggregation {operator}")


def _sums(values: FloatArray, starts: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return sums and what rounding took from them: of pairs of rows, then of pairs of those, and so on."""
    total, rest = values, np.zeros_like(values)
    while len(total) > len(starts):
        sizes = np.diff(starts, append=len(total))
        second = (np.arange(len(total)) - np.repeat(starts, sizes)) % 2 == 1
        left, right = np.flatnonzero(~second), np.flatnonzero(second)
        with_two = np.searchsorted(left, right) - 1
        added, added_rest = sums.add(total[right - 1], rest[right - 1] + rest[right], total[right])
        total, rest = total[left], rest[left]
        total[with_two], rest[with_two] = added, added_rest
        halves = (sizes + 1) // 2
        starts = np.cumsum(halves) - halves
    return total, rest


def _sum(rows: Rows) -> FloatArray:
    values = rows.filled(0.0)
    total, rest = _sums(values, rows.starts)
    exact = np.where(np.isfinite(total), total + rest, total)
    overflown = ~np.isfinite(exact) & np.logical_and.reduceat(np.isfinite(values), rows.starts, axis=0)
    for group in np.flatnonzero(overflown.any(axis=1)):
        # As Prometheus: one after the other, and what overflows on the way stays infinite.
        one_by_one = np.add.accumulate(values[rows.of_row == group], axis=0)[-1]
        exact[group] = np.where(overflown[group], one_by_one, exact[group])
    return exact


def _mean(values: FloatArray, rows: Rows) -> FloatArray:
    def of(scale: float) -> FloatArray:
        total, rest = _sums(values * scale, rows.starts)
        mean = total / rows.counts
        return np.where(np.isfinite(total), mean + rest / rows.counts, mean) / scale

    mean = of(1.0)
    # A power of two takes no digits: what overflows is divided by at least the number of its values beforehand.
    return mean if np.isfinite(mean).all() else np.where(np.isfinite(mean), mean, of(0.5 ** len(values).bit_length()))


def _variance(rows: Rows) -> FloatArray:
    # Distances from the group's first value, so that equal ones vary by 0.0, and not by what rounding leaves.
    places = np.where(rows.present, np.arange(len(rows.values))[:, None], len(rows.values) - 1)
    first = np.minimum.reduceat(places, rows.starts, axis=0)
    centres = rows.values[first, np.arange(first.shape[1])]
    apart = np.where(rows.present, rows.values - centres[rows.of_row], 0.0)
    deviations = np.where(rows.present, apart - _mean(apart, rows)[rows.of_row], 0.0)
    return np.add.reduceat(deviations * deviations, rows.starts, axis=0) / rows.counts


def _quantile(rows: Rows, quantile: FloatArray) -> FloatArray:
    falling = np.take_along_axis(rows.filled(np.nan), rows.ordered(-rows.values), axis=0)
    highest = np.maximum(rows.counts - 1, 0)
    rank = np.clip(np.nan_to_num(quantile), 0, 1) * highest
    lower = np.floor(rank)

    def value(place: FloatArray) -> FloatArray:
        """The value at that place, counted from the lowest; NaN has the lowest places."""
        return falling[rows.starts[:, None] + highest - place.astype(np.int64), np.arange(len(quantile))]

    between = value(lower) * (1 - (rank - lower)) + value(np.minimum(lower + 1, highest)) * (rank - lower)
    between[:, quantile < 0] = -np.inf
    between[:, quantile > 1] = np.inf
    between[:, np.isnan(quantile)] = np.nan
    return between


# --- Some series of each group ----------------------------------------------------------------------------------------


def _choose(node: Aggregation, vector: Vector, count: FloatArray, budget: Budget) -> Vector:
    """topk, bottomk, limitk."""
    if np.isnan(count).any():
        raise ExecutionError("Parameter value is NaN")
    if count.max() < 1 or not vector.labels:
        return Vector.empty(vector.values.shape[1])
    if count.min() < -(2**63) or count.max() >= 2**63:
        verb, value = ("overflows", count.max()) if count.max() >= 2**63 else ("underflows", count.min())
        raise ExecutionError(f"Scalar value {said(value)} {verb} int64")
    groups = _groups(node, vector.labels)
    budget.spend(vector.values.size)
    keys = _CHOICES[node.operator]
    chosen = np.empty_like(vector.present)
    for steps, rows in _pieces(vector, groups, budget):
        order = rows.ordered(keys(rows.values))
        present = np.take_along_axis(rows.present, order, axis=0)
        met = np.cumsum(present, axis=0)
        met = met - (met - present)[rows.starts][rows.of_row]
        picked = np.empty_like(present)
        np.put_along_axis(picked, order, present & (met <= np.floor(count[steps])), axis=0)
        chosen[groups.order, steps] = picked
    kept = np.flatnonzero(chosen.any(axis=1))
    if chosen.shape[1] == 1:
        kept = kept[np.lexsort((keys(vector.values[kept, 0]), groups.of_row[kept]))]
    return replace(vector, present=chosen).rows(kept)


def _limit_ratio(vector: Vector, ratio: FloatArray, notes: Notes) -> Vector:
    """All or nothing; what is between, Prometheus chooses by its own hash of the labels."""
    if np.isnan(ratio).any():
        raise ExecutionError("Ratio value is NaN")
    for value, limit in ((ratio.max(), 1), (-ratio.min(), -1)):
        if value > 1:
            got = said(value * limit)
            notes.warn(f"ratio value should be between -1 and 1, got {got}, capping to {limit}")
    if np.any((ratio != 0) & (np.abs(ratio) < 1)):
        raise NotSupportedError("limit_ratio with a ratio other than 1, 0 or -1")
    return replace(vector, present=vector.present & (ratio != 0))


# --- Counts of values -------------------------------------------------------------------------------------------------


def _count_values(node: Aggregation, vector: Vector, name: str, budget: Budget, notes: Notes) -> Vector:
    if not name:
        raise ExecutionError('invalid label name ""')
    if node.without and name in (NAME, *node.labels):
        return aggregate(replace(node, operator="count"), vector, None, budget, notes)
    if NAME in node.labels and not node.without and vector.nameless.any():
        raise NotSupportedError("count_values by __name__ of series that lose it")
    steps = vector.values.shape[1]
    budget.spend(3 * vector.values.size)
    groups = _groups(node, map(dropping([name]), vector.labels))
    rows, columns = np.nonzero(vector.present)
    numbers = vector.values[rows, columns]
    numbers[np.isnan(numbers)] = np.nan
    bits = numbers.view(np.int64)
    distinct = unique(bits)
    codes = groups.of_row[rows] * len(distinct) + np.searchsorted(distinct, bits)
    found = unique(codes)
    budget.spend(len(found) * steps)
    cells = np.searchsorted(found, codes) * steps + columns
    counts = np.bincount(cells, minlength=len(found) * steps).reshape(len(found), steps)
    values = [_positional(text.decode()) for text in texts(distinct.view(np.float64))]
    labels = [
        tuple(sorted((*groups.keys[code // len(values)], (name, values[code % len(values)]))))
        for code in found.tolist()
    ]
    return Vector.of(labels, counts.astype(np.float64), counts > 0)


def _positional(text: str) -> str:
    """A number without an exponent, however long.

    >>> _positional("1e-07")
    '0.0000001'
    """
    return f"{Decimal(text):f}" if "e" in text else text
