"""Text -> tree: promql-parser behind the guard, and what it lets through where Prometheus would not."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import promql_parser

from sentinel_core.promql import guard, matchers, positions, spans
from sentinel_core.promql.errors import BadQueryError, NotSupportedError
from sentinel_core.promql.tree import (
    Aggregation,
    At,
    Binary,
    Call,
    Matching,
    MatrixSelector,
    Negation,
    Node,
    Number,
    String,
    Subquery,
    Type,
    VectorSelector,
)
from sentinel_core.series import Matcher, quote

_MAX_MS = (1 << 63) // 1_000_000  # Prometheus' durations are nanoseconds in 64 bits
# By the name of the parser's value, which has no hash.
_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
_TYPES: dict[str, Type] = {
    "ValueType.Vector": "vector",
    "ValueType.Scalar": "scalar",
    "ValueType.Matrix": "matrix",
    "ValueType.String": "string",
}
_GROUPS: dict[str, Literal["left", "right"]] = {
    "VectorMatchCardinality.ManyToOne": "left",
    "VectorMatchCardinality.OneToMany": "right",
}
_UNARY_PLUS = re.compile(r"((?:^|[(,+*/%^=<>-])\s*)\+")
_LOST_PLUS = re.compile(r"\b(timestamp|absent) ?\([ (]*\+")  # there a selector with a plus is no selector
# Valid in newer Prometheus, unknown to the parser; in texts without strings.
_UNKNOWN = {
    "smoothed and anchored": re.compile(r"\b(smoothed|anchored)\b", re.IGNORECASE),
    "arithmetic in durations": re.compile(
        r"\[[^\]\[]*[-+*/%^(][^\[]*\]|\boffset\s*[-+]?\s*(\(|(step|range|min|max)\b)", re.I
    ),
    "native histograms": re.compile(r"</|>/"),
}


def parse(text: str) -> Node:
    """Return the tree of an expression; BadQueryError ("parse error: …"), or NotSupportedError for what we lack.

    >>> parse("-rate(x[5m] offset -1m)").expr.args[0]
    MatrixSelector(selector=VectorSelector(matchers=(Matcher(label='__name__', operator='=', value='x'),), \
offset=-60000, at=None), range=300000)
    """
    checked = guard.check(text)
    return _Conversion(checked, text).node(_parse(checked))


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """Return the matchers of a `match[]`: a selector without range, offset or @; errors as of `parse`.

    >>> [str(one) for one in parse_selector('up{job!="api"}')]
    ['__name__="up"', 'job!="api"']
    """
    node = parse(text)
    if not isinstance(node, VectorSelector) or node.offset or node.at is not None:
        raise BadQueryError('parse error: a selector of series is expected, like up{job="api"}')
    return node.matchers


def format_query(text: str) -> str:
    """Return the expression in its usual form; errors as of `parse`.

    >>> format_query('sum(rate(x{job="api"}[5m] @ -1))by(job)')
    'sum by (job) (rate(x{job="api"}[5m] @ -1))'
    """
    checked = guard.check(text)
    expr = _parse(checked)
    _Conversion(checked, text).node(expr)
    ats = iter(checked.ats)  # the parser writes times before 1970 as 0
    formatted = re.sub(r"@ (?:[\d.]+|\w+(\(\)))", lambda at: f"@ {next(ats)}{at[1] or ''}", expr.prettify())
    return re.sub(
        r'(=?)"?\$(\d+)"?',
        lambda mark: checked.negated.get(int(mark[2]), mark[1]) + quote(checked.strings[int(mark[2])]),
        formatted,
    )


def _parse(checked: guard.Checked) -> promql_parser.Expr:
    if lost := _LOST_PLUS.search(checked.text):
        raise NotSupportedError(f"{lost[1]}() of a unary plus")
    try:
        negated = checked.text
        while (more := _UNARY_PLUS.sub(r"\1-", negated)) != negated:
            negated = more
        if negated != checked.text:
            promql_parser.parse(negated)  # the parser lets a plus stand before anything, a minus only where both may
        return promql_parser.parse(checked.text)
    except BaseException as error:  # a panic of the parser is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        if (text := spans.computed(checked.text)) != checked.text:
            return _parse(replace(checked, text=text))
        bare = re.sub(r"\{[^{}]*\}", "", checked.text)
        for what, pattern in _UNKNOWN.items():
            if pattern.search(bare):
                raise NotSupportedError(what) from None
        message = re.sub(r"\$\d+", lambda mark: checked.restore(mark[0]), str(error))
        raise BadQueryError(f"parse error: {message}") from None


class _Conversion:
    """One text's tree. Each level of nesting is one frame of Python's: 400 operators in a row are 400 levels."""

    def __init__(self, checked: guard.Checked, text: str) -> None:
        self._restore = checked.restore
        self._positions = iter(positions.of_calls(text))
        self._operator = checked.operator
        self._ats: Iterator[str] = iter(checked.ats)  # as written, which is the order in which nodes are left

    def node(self, expr: promql_parser.Expr) -> Node:
        """Return our node of the parser's."""
        if isinstance(expr, promql_parser.ParenExpr):
            return self.node(expr.expr)
        if isinstance(expr, promql_parser.NumberLiteral):
            return Number(expr.val)
        if isinstance(expr, promql_parser.StringLiteral):
            return String(self._restore(expr.val))
        if isinstance(expr, promql_parser.VectorSelector):
            return self._selector(expr)
        if isinstance(expr, promql_parser.MatrixSelector):
            return MatrixSelector(self._selector(expr.vector_selector), _span(expr.range))
        if isinstance(expr, promql_parser.SubqueryExpr):
            inner = self.node(expr.expr)
            step = None if expr.step is None else _span(expr.step)
            return Subquery(inner, _span(expr.range), step, _milliseconds(expr.offset), self._at(expr.at))
        if isinstance(expr, promql_parser.UnaryExpr):
            return Negation(self.node(expr.expr))
        if isinstance(expr, promql_parser.Call):
            places = next(self._positions, ())
            args = tuple([self.node(one) for one in expr.args])
            return Call(expr.func.name, args, _TYPES[repr(expr.func.return_type)], places)
        if isinstance(expr, promql_parser.AggregateExpr):
            places = next(self._positions, ())
            param = None if expr.param is None else self.node(expr.param)
            if isinstance(param, String) and str(expr.op) != "count_values":  # the parser knows not all of them
                raise BadQueryError("parse error: expected type scalar in aggregation parameter, got string")
            return self._aggregation(expr, self.node(expr.expr), param, places)
        if isinstance(expr, promql_parser.BinaryExpr):
            left = self.node(expr.lhs)
            return self._binary(expr, left, self.node(expr.rhs))
        raise NotSupportedError(type(expr).__name__)

    def _selector(self, expr: promql_parser.VectorSelector) -> VectorSelector:
        if expr.matchers.or_matchers:
            raise NotSupportedError("or between matchers")
        wanted = tuple(
            Matcher(
                self._names([one.name])[0],
                self._operator(one.value, _OPERATORS[repr(one.op)]),
                self._restore(one.value),
            )
            for one in expr.matchers.matchers
        )
        if expr.name is not None:
            wanted = (Matcher("__name__", "=", expr.name), *wanted)
        if matchers.compile(wanted).matches([()])[0]:
            raise BadQueryError("parse error: vector selector must contain at least one non-empty matcher")
        return VectorSelector(wanted, _milliseconds(expr.offset), self._at(expr.at))

    def _aggregation(
        self, expr: promql_parser.AggregateExpr, inner: Node, param: Node | None, places: tuple[str, ...]
    ) -> Aggregation:
        clause = expr.modifier
        if clause is None:
            return Aggregation(str(expr.op), inner, param, positions=places)
        labels = self._names(clause.labels)
        without = clause.type == promql_parser.AggModifierType.Without
        return Aggregation(str(expr.op), inner, param, labels, without, places)

    def _binary(self, expr: promql_parser.BinaryExpr, left: Node, right: Node) -> Binary:
        operator, modifier = str(expr.op).strip(), expr.modifier
        if modifier is None:
            return Binary(operator, left, right)
        if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
            raise NotSupportedError("fill modifiers")
        clause = modifier.matching
        matching = Matching(
            labels=() if clause is None else self._names(clause.labels),
            on=clause is not None and clause.type == promql_parser.LabelModifierType.Include,
            group=_GROUPS.get(repr(modifier.card), "none"),
            include=self._names(modifier.group_labels or ()),
        )
        return Binary(operator, left, right, modifier.return_bool, matching)

    def _names(self, names: Sequence[str]) -> tuple[str, ...]:
        restored = tuple(map(self._restore, names))
        if "" in restored:
            raise BadQueryError('parse error: invalid label name ""')
        return restored

    def _at(self, at: promql_parser.AtModifier | None) -> At:
        if at is None:
            return None
        written = next(self._ats)
        if at.type != promql_parser.AtModifierType.At:
            return "start" if at.type == promql_parser.AtModifierType.Start else "end"
        # The parser has no times before 1970, and ends in a panic when it is asked for one.
        literal = promql_parser.parse(written)
        milliseconds = literal.val * 1000 if isinstance(literal, promql_parser.NumberLiteral) else math.nan
        if not abs(milliseconds) < 2**53:
            raise BadQueryError(f"parse error: timestamp out of bounds for @ modifier: {written}")
        return int(math.copysign(math.floor(abs(milliseconds) + 0.5), milliseconds))


def _span(span: timedelta | None) -> int:
    """Return a range or a step in milliseconds."""
    if (milliseconds := _milliseconds(span)) <= 0:
        raise BadQueryError("parse error: duration must be greater than 0")
    return milliseconds


def _milliseconds(span: timedelta | None) -> int:
    if span is None:
        return 0
    milliseconds = int(span / timedelta(milliseconds=1))
    if abs(milliseconds) > _MAX_MS:
        raise BadQueryError("parse error: duration out of range")
    return milliseconds
