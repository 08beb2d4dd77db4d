"""Arithmetic in durations, `foo[5m * 2]` and `foo offset (1h / 2)`: computed for the parser, which has none."""

import math
import re

import numpy as np
import promql_parser

from sentinel_core.promql.binary import ARITHMETIC
from sentinel_core.promql.errors import BadQueryError, NotSupportedError

_BRACKETS = re.compile(r"\[([^\[\]:]*)(:?)([^\[\]:]*)\]")
_ARITHMETIC = re.compile(r"[-+*/%^(]")
_OPERATORS = frozenset("+-*/%^")
_OTHERS = "arithmetic in durations with more than numbers"
_OFFSET = re.compile(r"\boffset(\s*[-+]?\s*)\(", re.IGNORECASE)


def computed(text: str) -> str:
    """Return an expression with a number of milliseconds for each computed duration; errors as of `parse.parse`.

    text: without strings and comments

    >>> computed("rate(foo[(5+2) * 1m:30s]) - foo offset -(1h / 2)")
    'rate(foo[420000ms:30s]) - foo offset -1800000ms'
    """
    text = _BRACKETS.sub(lambda found: f"[{_span(found[1])}{found[2]}{_span(found[3])}]", text)
    while offset := _OFFSET.search(text):
        end = _closed(text, offset.end())
        milliseconds = _milliseconds(text[offset.end() : end])
        milliseconds = -milliseconds if "-" in offset[1] else milliseconds
        written = f"offset {milliseconds}ms" if milliseconds else ""  # the parser has no offset 0
        text = text[: offset.start()] + written + text[end + 1 :]
    return text


def _span(text: str) -> str:
    if not _ARITHMETIC.search(text):
        return text
    if (milliseconds := _milliseconds(text)) <= 0:
        raise BadQueryError("parse error: duration must be greater than 0")
    return f"{milliseconds}ms"


def _closed(text: str, start: int) -> int:
    """Return where the bracket that was opened before `start` ends."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise BadQueryError("parse error: unclosed left parenthesis")


def _milliseconds(text: str) -> int:
    try:
        expr = promql_parser.parse(text)
    except ValueError as error:
        if "(" in text:
            raise NotSupportedError(_OTHERS) from None
        raise BadQueryError(f"parse error: {error} in the duration {text}") from None
    seconds = _seconds(expr)
    if not abs(seconds) < 2**43:
        raise BadQueryError(f"parse error: duration out of range: {text}")
    return int(math.copysign(math.floor(abs(seconds) * 1000 + 0.5), seconds))


def _seconds(expr: promql_parser.Expr) -> float:
    if isinstance(expr, promql_parser.ParenExpr):
        return _seconds(expr.expr)
    if isinstance(expr, promql_parser.NumberLiteral):
        return expr.val
    if isinstance(expr, promql_parser.UnaryExpr):
        return -_seconds(expr.expr)
    if isinstance(expr, promql_parser.BinaryExpr) and (operator := str(expr.op).strip()) in _OPERATORS:
        left, right = _seconds(expr.lhs), _seconds(expr.rhs)
        if operator in "/%" and not right:
            raise BadQueryError("parse error: a duration is divided by zero")
        with np.errstate(all="ignore"):
            return float(ARITHMETIC[operator](left, right))
    raise NotSupportedError(_OTHERS)
