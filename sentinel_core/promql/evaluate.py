"""A tree and a source make values: every node is evaluated for all series and all steps at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from sentinel_core.promql import binary
from sentinel_core.promql.aggregation import aggregate
from sentinel_core.promql.errors import BadQueryError, NotSupportedError
from sentinel_core.promql.functions import FUNCTIONS, absent
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import to_samples, within
from sentinel_core.promql.matching import NAME, merge
from sentinel_core.promql.over_time import OVER_TIME, over_time
from sentinel_core.promql.source import Source
from sentinel_core.promql.tree import (
    Aggregation,
    At,
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
from sentinel_core.promql.values import Labels, Notes, Samples, Scalar, Text, Vector, without
from sentinel_core.windows import IntArray

V = TypeVar("V", Scalar, Vector, Scalar | Text | Vector)

SUBQUERY_STEP = 60_000  # ms: of a subquery that names none, as Prometheus' evaluation_interval
_OWN_TIME = frozenset({"time", "timestamp", "predict_linear"})  # a step's own time counts, whatever the arguments say
_OF_QUERY: Mapping[str, Callable[[int, int, int], int]] = {
    "start": lambda start, end, step: start,
    "end": lambda start, end, step: end,
    "range": lambda start, end, step: end - start,
    "step": lambda start, end, step: step,
}
_METADATA = frozenset({"__type__", "__unit__"})


def times(start: int, end: int, step: int) -> IntArray:
    """Return the steps of a query, milliseconds: start, start + step, … up to end; one where step is 0.

    >>> times(1000, 2500, 500).tolist(), times(1000, 1000, 0).tolist()
    ([1000, 1500, 2000, 2500], [1000])
    """
    return np.arange(start, end + 1, step, dtype=np.int64) if step else np.array([start], np.int64)


def evaluate(
    node: Node,
    start: int,
    end: int,
    step: int,
    source: Source,
    budget: Budget,
    notes: Notes,
    *,
    subquery_step: int = SUBQUERY_STEP,
) -> Scalar | Text | Vector | Samples:
    """Return what an expression is from `start` to `end` every `step` milliseconds.

    start == end with step 0 is an instant query: only there may the whole expression be a text (Text) or a range
    (Samples, without stale markers, in start - range < t <= start). A Vector holds no two series with equal labels,
    no series without a value, and no name that an operation took away (`nameless` is all False); its rows are ordered
    by labels, but for an instant query, whose order is that of sort, topk or the source.
    Raises QueryError; warnings and infos go to `notes`.
    """
    evaluation = _Evaluation(start, end, step, source, budget, notes, subquery_step)
    evaluation.find_constant(node)
    if isinstance(node, String | MatrixSelector | Subquery):
        if step:
            kind = "string" if isinstance(node, String) else "range vector"
            raise BadQueryError(f'invalid expression type "{kind}" for range query, must be Scalar or instant Vector')
        return Text(node.value) if isinstance(node, String) else evaluation.range_at(node)
    value = evaluation.value(node, times(start, end, step))
    if not isinstance(value, Vector):
        return value
    vector = _named(value)
    return vector.rows(_by_labels(vector.labels)) if step else vector


@dataclass(frozen=True)
class _Evaluation:
    """One query. `value` is one frame of Python's for each level of a tree, which may be 500 deep."""

    start: int
    end: int
    step: int
    source: Source
    budget: Budget
    notes: Notes
    subquery_step: int
    constant: set[int] = field(default_factory=set)  # ids of nodes that are the same at every step

    def value(self, node: Node, at: IntArray) -> Scalar | Text | Vector:
        """Return what a node is at these times, evenly spaced and ascending."""
        steps = len(at)
        if steps > 1 and id(node) in self.constant:
            at = at[:1]
        result: Scalar | Text | Vector
        match node:
            case Number():
                result = Scalar(np.full(len(at), node.value))
            case String():
                result = Text(node.value)
            case VectorSelector():
                result = self._selected(node, at)
            case Negation():
                result = binary.negate(_no_text(self.value(node.expr, at)), self.budget)
            case Binary():
                left = _no_text(self.value(node.left, at))
                result = binary.combine(node, left, _no_text(self.value(node.right, at)), self.budget)
            case Aggregation():
                param = None if node.param is None else self.value(node.param, at)
                assert not isinstance(param, Vector)  # the parser has checked types
                vector = self.value(node.expr, at)
                assert isinstance(vector, Vector)
                result = aggregate(node, vector, param, self.budget, self.notes.of(node.positions))
            case Call():
                args: list[Scalar | Text | Vector] = []
                ranged: MatrixSelector | Subquery | None = None
                for arg in node.args:
                    if isinstance(arg, MatrixSelector | Subquery):
                        ranged = arg
                    elif node.function != "timestamp" or not isinstance(arg, VectorSelector):
                        args.append(self.value(arg, at))
                result = self._called(node, args, ranged, at)
            case _:
                raise NotSupportedError(f"a range where a value is wanted ({type(node).__name__})")
        return _spread(result, steps, self.budget) if len(at) < steps else result

    def find_constant(self, node: Node) -> bool:
        """Find out which nodes do not depend on the step, because of @ or because they are made of numbers."""
        match node:
            case Number() | String():
                return True  # as cheap to make as to repeat
            case VectorSelector():
                constant = node.at is not None
            case MatrixSelector():
                return node.selector.at is not None
            case Subquery():
                self.find_constant(node.expr)
                return node.at is not None
            case Negation():
                constant = self.find_constant(node.expr)
            case Binary():
                left, right = self.find_constant(node.left), self.find_constant(node.right)
                constant = left and right
            case Aggregation():
                of_param = node.param is None or self.find_constant(node.param)
                constant = self.find_constant(node.expr) and of_param
            case Call():
                constant = bool(node.args) and node.function not in _OWN_TIME
                for arg in node.args:
                    of_arg = self.find_constant(arg)
                    constant = constant and of_arg
        if constant:
            self.constant.add(id(node))
        return constant

    def range_at(self, node: MatrixSelector | Subquery) -> Samples:
        """Return the samples of a range at the query's one time, as an answer."""
        samples, ends, nameless = self._range(node, np.array([self.start], np.int64))
        samples = within(samples, int(ends[0]) - node.range, int(ends[0]))
        named: list[Labels] = [without(one, NAME) if one in nameless else one for one in samples.labels]
        if len(set(named)) < len(named):
            raise NotSupportedError("a range of series that differ only by a name which goes")
        order = _by_labels(named)
        starts, stops = samples.offsets[:-1][order].tolist(), samples.offsets[1:][order].tolist()
        slices = [slice(*one) for one in zip(starts, stops, strict=True)]
        return replace(
            Samples.of(
                [named[row] for row in order],
                [samples.times[one] for one in slices],
                [samples.values[one] for one in slices],
            ),
            lookback=samples.lookback[order],
        )

    def _selected(self, node: VectorSelector, at: IntArray, *, timestamps: bool = False) -> Vector:
        ends = self._ends(node.offset, node.at, at)
        constant = node.at is not None
        vector = self.source.vector(node.matchers, ends[:1] if constant else ends, self.budget, timestamps=timestamps)
        _check_labels(vector.labels)
        return _spread(vector, len(at), self.budget) if constant and len(at) > 1 else vector

    def _ends(self, offset: int, pinned: At, at: IntArray) -> IntArray:
        """Return the times that a selector or subquery is about: offset and @ say so."""
        if pinned is None:
            return at - offset
        moment = self.start if pinned == "start" else self.end if pinned == "end" else pinned
        return np.full(len(at), moment - offset, np.int64)

    def _range(self, node: MatrixSelector | Subquery, at: IntArray) -> tuple[Samples, IntArray, set[Labels]]:
        """Return samples, where the ranges of the steps end [T], and the series whose names go at the end."""
        if isinstance(node, MatrixSelector):
            ends = self._ends(node.selector.offset, node.selector.at, at)
            first, last = int(ends[0]) - node.range, int(ends[-1])
            samples = self.source.samples(node.selector.matchers, first, last, self.budget)
            _check_labels(samples.labels)
            return samples, ends, set()
        ends = self._ends(node.offset, node.at, at)
        step = node.step or self.subquery_step
        first, last = ((int(ends[0]) - node.range) // step + 1) * step, int(ends[-1])  # multiples, wherever it starts
        self.budget.spend(max(0, (last - first) // step + 1))
        inner = np.arange(first, last + 1, step, dtype=np.int64)
        vector = self.value(node.expr, inner) if len(inner) else Vector.empty(0)
        assert isinstance(vector, Vector)  # the parser has checked types
        vector = vector.seen()
        _check_names(vector)
        self.budget.spend(int(vector.present.sum()))
        names = set(vector.rows(vector.nameless).labels)
        return to_samples(vector, inner), ends, names

    def _called(
        self, node: Call, args: Sequence[Scalar | Text | Vector], ranged: MatrixSelector | Subquery | None, at: IntArray
    ) -> Scalar | Vector:
        if ranged is not None:
            return self._over_time(node, ranged, args, at)
        if node.function in _OF_QUERY:
            if not np.array_equal(at, times(self.start, self.end, self.step)):
                raise NotSupportedError(f"{node.function}() in a subquery")
            return Scalar(np.full(len(at), _OF_QUERY[node.function](self.start, self.end, self.step) / 1000))
        if node.function == "timestamp" and not args:
            asked = node.args[0]
            assert isinstance(asked, VectorSelector)
            vector = self._selected(asked, at, timestamps=True)
            return replace(vector, nameless=np.ones(len(vector.labels), bool))
        if node.function == "absent":
            argument, selector = args[0], node.args[0]
            assert isinstance(argument, Vector)
            return absent(argument.present, selector.matchers if isinstance(selector, VectorSelector) else ())
        if node.function not in FUNCTIONS:
            raise NotSupportedError(f"{node.function}()")
        for arg in args:
            if isinstance(arg, Vector):
                self.budget.spend(arg.values.size)
        return FUNCTIONS[node.function](args, at, self.notes.of(node.positions))

    def _over_time(
        self, node: Call, ranged: MatrixSelector | Subquery, args: Sequence[Scalar | Text | Vector], at: IntArray
    ) -> Vector:
        function, notes = node.function, self.notes.of(node.positions)
        samples, ends, names = self._range(ranged, at)
        params = [arg.values for arg in args if isinstance(arg, Scalar)]
        if function == "absent_over_time":
            vector = over_time("present_over_time", samples, ends, ranged.range, [], self.budget, notes)
            return absent(vector.present, ranged.selector.matchers if isinstance(ranged, MatrixSelector) else ())
        if function not in OVER_TIME:
            raise NotSupportedError(f"{function}()")
        vector = over_time(function, samples, ends, ranged.range, params, self.budget, notes, at=at)
        if not names:
            return vector
        gone = np.array([labels in names for labels in vector.labels], bool)
        return replace(vector, nameless=vector.nameless | gone)


def _spread(value: V, steps: int, budget: Budget) -> V:
    """Return what is the same at every step at each of them."""
    if isinstance(value, Scalar):
        return replace(value, values=np.repeat(value.values, steps))
    if isinstance(value, Vector):
        budget.spend(len(value.labels) * steps)
        values, present = np.repeat(value.values, steps, axis=1), np.repeat(value.present, steps, axis=1)
        return replace(value, values=values, present=present)
    return value


def _named(vector: Vector) -> Vector:
    """Return the answer: names that operations took away go now, and series that became one are joined."""
    vector = vector.seen()
    _check_names(vector)
    labels = tuple(
        [
            without(one, NAME) if nameless else one
            for one, nameless in zip(vector.labels, vector.nameless.tolist(), strict=True)
        ]
    )
    return merge(replace(vector, labels=labels, nameless=np.zeros(len(labels), bool)))


def _check_names(vector: Vector) -> None:
    """Refuse what is one series to Prometheus, as the names that go are still there, and two to us."""
    if len(set(vector.labels)) < len(vector.labels):
        raise NotSupportedError("series that have a name at some steps and none at others")


def _by_labels(labels: Sequence[Labels]) -> IntArray:
    return np.array(sorted(range(len(labels)), key=labels.__getitem__), np.int64)


def _check_labels(labels: Sequence[Labels]) -> None:
    if not _METADATA.isdisjoint({name for one in labels for name, _ in one}):
        raise NotSupportedError("series with the labels __type__ or __unit__")


def _no_text(value: Scalar | Text | Vector) -> Scalar | Vector:
    assert not isinstance(value, Text)  # the parser has checked types
    return value
