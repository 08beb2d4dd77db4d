"""Texts to trees, as Prometheus reads them."""

import pytest

from sentinel_core.promql.errors import BadQueryError, NotSupportedError
from sentinel_core.promql.parse import format_query, parse, parse_selector
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
    VectorSelector,
)
from sentinel_core.series import Matcher


def named(name: str, *others: Matcher, offset: int = 0, at: At = None) -> VectorSelector:
    """A selector by name."""
    return VectorSelector((Matcher("__name__", "=", name), *others), offset, at)


A, B, C = named("a"), named("b"), named("c")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("1e3", Number(1000.0)),
        ("-Inf", Number(float("-inf"))),
        ("017", Number(15.0)),
        ("089", Number(89.0)),
        ("0x1F", Number(31.0)),
        ("5m30s", Number(330.0)),
        ("1_000.5", Number(1000.5)),
        ('("a")', String("a")),
        ("((a))", A),
        ("+a", A),
        ('a{x="1",y!="2",z=~"3.*",w!~`4\\.`,}', named(
            "a", Matcher("x", "=", "1"), Matcher("y", "!=", "2"), Matcher("z", "=~", "3.*"), Matcher("w", "!~", "4\\.")
        )),
        ('{"a.b", "c d"="e"}', named("a.b", Matcher("c d", "=", "e"))),
        ("{__name__=~'a|b'}", VectorSelector((Matcher("__name__", "=~", "a|b"),))),
        ("a[5m]", MatrixSelector(A, 300_000)),
        ("a[1.5]", MatrixSelector(A, 1_500)),
        ("a[1h:]", Subquery(A, 3_600_000)),
        ("a[1h:1m5ms] offset -5m @ end()", Subquery(A, 3_600_000, 60_005, -300_000, "end")),
        ("-a^2", Negation(Binary("^", A, Number(2.0)))),
        ("-a*2", Binary("*", Negation(A), Number(2.0))),
        ("-1^2", Negation(Binary("^", Number(1.0), Number(2.0)))),
        ("a^b^c", Binary("^", A, Binary("^", B, C))),
        ("a-b-c", Binary("-", Binary("-", A, B), C)),
        ("a or b and c", Binary("or", A, Binary("and", B, C))),
        ("a + b * c", Binary("+", A, Binary("*", B, C))),
        ("a == b + c", Binary("==", A, Binary("+", B, C))),
        ("a % b atan2 c", Binary("atan2", Binary("%", A, B), C)),
        ("1 > bool 2", Binary(">", Number(1.0), Number(2.0), True)),
        ("a + on (x, \"y z\") group_left (w) b", Binary(
            "+", A, B, matching=Matching(("x", "y z"), True, "left", ("w",))
        )),
        ("a * ignoring () group_right b", Binary("*", A, B, matching=Matching((), False, "right"))),
        ("a UNLESS on () b", Binary("unless", A, B, matching=Matching((), True))),
        ("sum(a)", Aggregation("sum", A)),
        ("SUM(a) BY (x,)", Aggregation("sum", A, labels=("x",))),
        ("topk without (x) (3, a)", Aggregation("topk", A, Number(3.0), ("x",), True)),
        ('count_values("v", a)', Aggregation("count_values", A, String("v"))),
        ("time()", Call("time", (), "scalar")),
        ("rate(a[1m])", Call("rate", (MatrixSelector(A, 60_000),), "vector")),
        ("vector(1)", Call("vector", (Number(1.0),), "vector")),
    ],
)  # fmt: skip
def test_an_expression_becomes_its_tree(text: str, node: Node) -> None:
    """Precedence, modifiers and literals are Prometheus'."""
    assert parse(text) == node


@pytest.mark.parametrize(
    ("at", "milliseconds"),
    [
        ("-1", -1_000),
        ("- 1.5e0", -1_500),
        ("+2", 2_000),
        ("0.0005", 1),
        ("-0.0005", -1),
        ("0x10", 16_000),
        ("5m", 300_000),
        ("1e9", 1_000_000_000_000),
        ("start()", "start"),
        ("end()", "end"),
    ],
)
def test_the_time_of_at_is_exact(at: str, milliseconds: At) -> None:
    """Seconds of any kind, before 1970 too, are rounded to milliseconds away from zero."""
    assert parse(f"a @ {at} offset 1ms") == named("a", offset=1, at=milliseconds)


def test_each_selector_has_its_own_time() -> None:
    """Several @ in one expression, on selectors and around them, go to whom they belong."""
    text = "topk(scalar(a @ 1), sum_over_time((b @ 2 + c @ start())[5m:] @ 4 # @ 5\n)) - c{x='@ 6'} @ -7 + a"
    inner = Binary("+", named("b", at=2_000), named("c", at="start"))
    over = Call("sum_over_time", (Subquery(inner, 300_000, at=4_000),), "vector")
    top = Aggregation("topk", over, Call("scalar", (named("a", at=1_000),), "scalar"))
    assert parse(text) == Binary("+", Binary("-", top, named("c", Matcher("x", "=", "@ 6"), at=-7_000)), A)


def test_a_name_like_those_the_parser_is_given_is_a_name() -> None:
    """Strings are kept from the parser under names that nobody can take from them."""
    assert parse('a{"$1"="$0"}') == named("a", Matcher("$1", "=", "$0"))
    with pytest.raises(BadQueryError, match=r"unexpected character: '\$'"):
        parse("$0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no expression found in input"),
        ("rate(a)", "expected type matrix in call to function 'rate', got vector"),
        ("a[0]", "duration must be greater than 0"),
        ("a[5m:0s]", "duration must be greater than 0"),
        ("a[0.0001]", "duration must be greater than 0"),
        ("a[300y]", "duration out of range"),
        ("a offset 1e12", "duration out of range"),
        ("a[1m1h]", "not a valid duration"),
        ("a @ inf", "timestamp out of bounds"),
        ("a @ 1e30", "timestamp out of bounds"),
        ("1e400", "out of range"),
        ("{}", "at least one non-empty matcher"),
        ('{x=~".*"}', "at least one non-empty matcher"),
        ('{x!="y"}', "at least one non-empty matcher"),
        ('{__name__=""}', "at least one non-empty matcher"),
        ('a{x=~"("}', "error parsing regexp"),
        ('a{__name__="b"}', "metric name must not be set twice"),
        ('{"a", "b"}', "metric name must not be set twice"),
        ('{"a", __name__!="b"}', "metric name must not be set twice"),
        ('sum by ("") (a)', "invalid label name"),
        ('unknown("why")', "unknown function"),
        ("1 > 2", "BOOL modifier"),
        ("a + on (x) group_left (x) b", "x"),
        ("sum(a[5m])", "expected type vector"),
        ('"a', "unterminated quoted string"),
        ("(a", ""),
        ("a)", ""),
        ("a b", ""),
    ],
)
def test_what_prometheus_refuses_is_a_parse_error(text: str, message: str) -> None:
    """The message says what is wrong, after the words a client may look for."""
    with pytest.raises(BadQueryError, match=f"^parse error: .*{message}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a smoothed", "smoothed"),
        ("rate(a[5m] anchored)", "anchored"),
        ("a[step()]", "arithmetic in durations"),
        ("a offset step()", "arithmetic in durations"),
        ("a[max(1m, 2m)]", "arithmetic in durations"),
        ("a + fill (0) b", "fill"),
        ("a + fill_left (0) b", "fill"),
        ('{a="x" or b="y"}', "or between matchers"),
        ("a </ 3", "native histograms"),
        ("timestamp(+a)", "timestamp.. of a unary plus"),  # which of the parser's trees does not tell
        ("absent ((+ a))", "absent.. of a unary plus"),
    ],
)
def test_newer_language_is_not_supported(text: str, what: str) -> None:
    """What Prometheus reads and we do not is named, not called a mistake."""
    with pytest.raises(NotSupportedError, match=what):
        parse(text)


def test_a_selector_alone() -> None:
    """`match[]` takes a selector and nothing around it."""
    assert parse_selector('up{job="api"}') == (Matcher("__name__", "=", "up"), Matcher("job", "=", "api"))
    for text in ("up[5m]", "up offset 5m", "up @ 1", "sum(up)", "1", "-up"):
        with pytest.raises(BadQueryError, match="a selector of series is expected"):
            parse_selector(text)


@pytest.mark.parametrize(
    ("text", "formatted"),
    [
        ("sum(a)by(x)", "sum by (x) (a)"),
        ("a  @ -1.5 + b@end()", "a @ -1.5 + b @ end()"),
        ('a{x="\\"y\\\\"}', r'a{x="\"y\\"}'),
        ('sum by ("x y") (a)', 'sum by ("x y") (a)'),
        ("a[1m5ms] offset -5m", "a[1m5ms] offset -5m"),
        ("(a+b)*c # why", "(a + b) * c"),
    ],
)
def test_a_query_in_its_usual_form(text: str, formatted: str) -> None:
    """Spaces and clauses are put where they usually stand, and the meaning stays."""
    assert format_query(text) == formatted
    assert parse(formatted) == parse(text)
