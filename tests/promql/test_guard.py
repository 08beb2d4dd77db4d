"""Texts of strangers: none ends the process, holds it, or raises anything but a QueryError."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql import guard
from sentinel_core.promql.errors import BadQueryError, NotSupportedError, QueryError
from sentinel_core.promql.limits import MAX_BYTES, MAX_DEPTH, MAX_EXPRESSIONS, MAX_OPERATORS
from sentinel_core.promql.parse import format_query, parse, parse_selector

WORDS = (
    *("foo", "sum", "by", "without", "on", "group_left", "rate", "offset", "and", "or", "bool", "smoothed", "end()"),
    *("5m", "1", "-1", "1e3", "0x", "$0", "é", "_", ".", '"a"', "'('", '"$9"', "\\", "\n", "\0"),
    *"@()[]{}:,=~!<>+-^#'`\"",
)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "1" + ")" * 100_000,
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "abs(" * (MAX_DEPTH + 1) + "foo" + ")" * (MAX_DEPTH + 1),
        "[" * 4_000,
        "{" * 4_000,
        "+".join(["1"] * 10_000),
        "+".join(["1"] * 4_000),
        "-" * 8_000 + "1",
        " and ".join(["a"] * (MAX_OPERATORS + 2)),
        "a^" * (MAX_OPERATORS + 1) + "a",
        "0xe-" * 2_000 + "1",
        "1and " * 1_600 + "1",
        "x" * 1_000_000,
        "é" * (MAX_BYTES // 2 + 1),
        '"' + "a" * 8_000,
        "'\\" * 2_000,
        '"' * 7_999,
        "`" * 7_999,
        "foo{" + ",".join(f'a=~"x{n}"' for n in range(MAX_EXPRESSIONS + 1)) + "}",
        "\0",
        "foo\0",
        'foo{a="\\q"}',
        'foo{a="\ud800"}',
        "\ud800",
        "foo @ 1e400",
        "9" * 400,
    ],
)
def test_a_hostile_text_is_refused(text: str) -> None:
    """Too long, too deep, too many operators, open quotes: an error of the query, not the end of the process."""
    with pytest.raises((BadQueryError, NotSupportedError)):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "+".join(["1"] * (MAX_OPERATORS + 1)),
        "-" * MAX_OPERATORS + "foo",
        "^".join(["a"] * (MAX_OPERATORS + 1)),
        "(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH,
        "foo" + " " * (MAX_BYTES - 3),
        'foo{a="' + "(" * 500 + '"} # ' + "((((" * 100,
    ],
)
def test_what_is_within_the_limits_is_parsed(text: str) -> None:
    """The limits themselves are allowed, and what stands in strings and comments does not count."""
    parse(text)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)))
def test_any_text_gives_a_tree_or_an_error_of_the_query(text: str) -> None:
    """Whatever is sent, nothing but QueryError is raised."""
    for read in (parse, parse_selector, format_query):
        with contextlib.suppress(QueryError):
            read(text)


@pytest.mark.parametrize(
    ("text", "checked", "strings"),
    [
        ("a{b='c'}# d\n+e", 'a{b="$0"}  +e', ("c",)),
        (r'"a\"b" + `\n`', '"$0" + "$1"', ('a"b', "\\n")),
        ("1_000 + 0x_F", "1000 + 0xF", ()),
    ],
)
def test_the_parser_sees_no_strings_comments_or_underscores(text: str, checked: str, strings: tuple[str, ...]) -> None:
    """What the parser reads wrongly or at a cost is taken out before."""
    seen = guard.check(text)
    assert (seen.text, seen.strings) == (checked, strings)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (r'"\a\b\f\n\r\t\v\\\""', '\a\b\f\n\r\t\v\\"'),
        (r"'\''", "'"),
        (r'"\x41\101\u00e4\U0001F600"', "AAä😀"),
        (r'"\xc3\xa4"', "ä"),
        ("`\\n\"'`", "\\n\"'"),
    ],
)
def test_strings_are_those_of_go(text: str, meaning: str) -> None:
    """Escapes mean what they mean in Go, where \\x is a byte."""
    assert guard.check(text).strings == (meaning,)


@pytest.mark.parametrize("text", [r'"\'"', r"'\"'", r'"\400"', r'"\x4"', r'"\ud800"', r'"\U00110000"', r'"\q"'])
def test_an_escape_that_go_has_not_is_an_error(text: str) -> None:
    """A string that Prometheus refuses is refused."""
    with pytest.raises(BadQueryError, match="unknown escape sequence"):
        guard.check(text)


def test_a_string_that_is_no_text_is_not_supported() -> None:
    """A byte that is no UTF-8 is never taken for the letter of that number."""
    with pytest.raises(NotSupportedError, match="not UTF-8"):
        parse(r'foo{a="\xff"}')
