"""Which series a selector means: its matchers over label sets, without the exponential time of `re`."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import re2

from sentinel_core.promql.errors import BadQueryError
from sentinel_core.promql.values import BoolArray, Labels
from sentinel_core.series import Matcher

# Bytes of one expression. 8 KiB of alternatives are compiled in 1 ms, what just passes in 6 ms. While it matches it may
# remember more: `(.{0,30}){30}` then takes 13 µs a value, and 280 µs within the first limit.
_MAX_PROGRAM, _MAX_MEMORY = 1 << 19, 1 << 22


class Matching:
    """Compiled matchers: what each says of a label's value; an absent label has the value ""."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._conditions = [(one.label, _condition(one)) for one in matchers]

    def matches(self, labels: Sequence[Labels]) -> BoolArray:
        """Return bool [S]: which of the series match. Each distinct value of a label is tested once."""
        keep = np.ones(len(labels), bool)
        series = [dict(one) for one in labels]
        for label, condition in self._conditions:
            values = [one.get(label, "") for one in series]
            verdicts = {value: condition(value) for value in dict.fromkeys(values)}
            keep &= np.fromiter(map(verdicts.__getitem__, values), bool, len(values))
        return keep

    def of_label(self, label: str, value: str) -> bool:
        """Whether the matchers on one label let this value through, whatever the other labels are."""
        return all(condition(value) for asked, condition in self._conditions if asked == label)

    def of_name(self, name: str) -> bool:
        """Whether the matchers on `__name__` let this name through, whatever the other labels are."""
        return self.of_label("__name__", name)


def compile(matchers: Sequence[Matcher]) -> Matching:
    """Compile once per query; BadQueryError for an expression that re2 refuses.

    >>> compile([Matcher("job", "=~", "api|web"), Matcher("env", "!=", "test")]).matches(
    ...     [(("job", "api"),), (("job", "apis"),), (("env", "test"), ("job", "web"))]
    ... ).tolist()
    [True, False, False]
    """
    return Matching(matchers)


def _condition(matcher: Matcher) -> Callable[[str], bool]:
    wanted = matcher.value
    match matcher.operator:
        case "=":
            return lambda value: value == wanted
        case "!=":
            return lambda value: value != wanted
        case "=~":
            matches = _compiled(wanted)
            return lambda value: matches(value) is not None
        case "!~":
            refuses = _compiled(wanted)
            return lambda value: refuses(value) is None
    raise BadQueryError(f"unknown matcher {matcher}; write =, !=, =~ or !~")


def _compiled(expression: str) -> Callable[[str], object | None]:
    try:
        matches: Callable[[str], object | None] = pattern(expression, groups=False).fullmatch
    except ValueError as error:
        raise BadQueryError(f"parse error: error parsing regexp {expression[:100]!r}: {error}") from None
    return matches


@lru_cache(maxsize=32)  # a query compiles its own at least twice, and a dashboard sends the same ones again
def pattern(expression: str, *, groups: bool = True) -> re2._Regexp:
    """Compile an expression in bounded memory; ValueError with the reason where re2 refuses it.

    groups: whether it tells what its groups matched; whoever asks only whether it matches is answered 100 times faster

    >>> pattern("(a+)-(?P<rest>.*)").fullmatch("aa-b")["rest"]
    'b'
    """
    options = re2.Options()
    options.dot_nl = True  # as Prometheus, where "." is any character
    options.never_capture = not groups
    options.log_errors = False
    try:
        for options.max_mem in (_MAX_PROGRAM, _MAX_MEMORY):
            # Not re2.compile, which remembers another 128: up to 4 MB each.
            compiled = re2._Regexp(expression, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(reason) from None
    return compiled
