"""Matchers over label sets."""

import re
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql import matchers
from sentinel_core.promql.errors import BadQueryError
from sentinel_core.promql.values import Labels
from sentinel_core.series import Matcher

SERIES: list[Labels] = [
    (("__name__", "up"), ("job", "api")),
    (("__name__", "up"), ("job", "web-api")),
    (("__name__", "down"),),
    (("__name__", "up"), ("job", "a\nb")),
]


@pytest.mark.parametrize(
    ("matcher", "matching"),
    [
        (Matcher("job", "=", "api"), [0]),
        (Matcher("job", "!=", "api"), [1, 2, 3]),
        (Matcher("job", "=", ""), [2]),
        (Matcher("job", "!=", ""), [0, 1, 3]),
        (Matcher("job", "=~", "api"), [0]),
        (Matcher("job", "=~", ".*api"), [0, 1]),
        (Matcher("job", "=~", "api|.*web.*"), [0, 1]),
        (Matcher("job", "=~", "a.b"), [3]),
        (Matcher("job", "=~", ".+"), [0, 1, 3]),
        (Matcher("job", "!~", ".+"), [2]),
        (Matcher("job", "=~", ""), [2]),
        (Matcher("job", "!~", "(?i)API"), [1, 2, 3]),
        (Matcher("nothing", "=~", "x*"), [0, 1, 2, 3]),
        (Matcher("__name__", "=~", "u.|down"), [0, 1, 2, 3]),
    ],
)
def test_a_matcher_is_anchored_and_an_absent_label_is_empty(matcher: Matcher, matching: list[int]) -> None:
    """Expressions match whole values, "." any character, and "" stands for no label."""
    assert matchers.compile([matcher]).matches(SERIES).nonzero()[0].tolist() == matching


def test_all_matchers_hold_at_once() -> None:
    """A series is meant where every matcher says so; without matchers every one is."""
    both = [Matcher("__name__", "=", "up"), Matcher("job", "!~", "web.*")]
    assert matchers.compile(both).matches(SERIES).tolist() == [True, False, False, True]
    assert matchers.compile([]).matches(SERIES).all()
    assert matchers.compile(both).matches([]).shape == (0,)


def test_one_label_can_be_asked_alone() -> None:
    """A name is refused by the matchers on the name, whatever the other labels are."""
    compiled = matchers.compile([Matcher("__name__", "=~", "up.*"), Matcher("job", "=", "api")])
    assert (compiled.of_name("upper"), compiled.of_name("down")) == (True, False)
    assert (compiled.of_label("job", ""), compiled.of_label("env", "")) == (False, True)


@pytest.mark.parametrize("expression", ["(", "a)(b", "*", r"(a)\1", "(?=a)", "a{2000}", r"\pL{1000}", "\ud800"])
def test_an_expression_that_re2_refuses_is_an_error_of_the_query(expression: str) -> None:
    """Broken, unsafe and too large expressions are named."""
    with pytest.raises(BadQueryError, match="error parsing regexp"):
        matchers.compile([Matcher("job", "=~", expression)])


def test_an_unkind_expression_takes_no_exponential_time() -> None:
    """What holds `re` for hours is answered at once."""
    unkind = [Matcher("job", "=~", "(a+)+b|(.{0,30}){30}b"), Matcher("env", "!~", "(x|x)*y")]
    series = [(("env", "x" * 50), ("job", "a" * n)) for n in range(1_000)]
    assert not matchers.compile(unkind).matches(series).any()


_VALUES = st.text(ascii_lowercase[:3], max_size=4)


@given(
    st.lists(_VALUES, max_size=8), st.sampled_from(["a*", "a|b", "[ab]+c?", "", ".", "(ab|c)*"]), st.sampled_from("=!")
)
def test_expressions_match_as_in_python(values: list[str], expression: str, sign: str) -> None:
    """Kind expressions mean what they mean to `re`, one value at a time."""
    series: list[Labels] = [(("x", value),) if value else () for value in values]
    wanted = [(re.fullmatch(expression, value) is not None) == (sign == "=") for value in values]
    matcher = Matcher("x", "=~" if sign == "=" else "!~", expression)
    assert matchers.compile([matcher]).matches(series).tolist() == wanted
