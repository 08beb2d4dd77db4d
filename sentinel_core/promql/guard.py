"""What happens to a text before the parser sees it: the parser trusts its input, and a deep one ends the process.

Strings are kept from the parser: it compiles expressions, which costs a stranger nothing and us seconds, and it reads
"\\xff" as a letter where Prometheus reads a byte.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sentinel_core.promql.errors import BadQueryError, NotSupportedError
from sentinel_core.promql.limits import MAX_BYTES, MAX_DEPTH, MAX_EXPRESSIONS, MAX_OPERATORS

TOKEN = re.compile(
    r"""
    (?P<blank>  \s+ | \#[^\r\n]* )
  | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | `[^`]*` )
  | (?P<open>   [(\[{] )
  | (?P<close>  [)\]}] )
  | (?P<number> 0[xX]\w* | (?: \d[\d_]*(?:\.[\d_]*)? | \.\d[\d_]* ) (?:[eE][-+]?\d[\d_]*)? \w* )
  | (?P<word>   [a-zA-Z_:][\w:]* )
  | (?P<sign>   == | != | =~ | !~ | >= | <= | [-+*/%^<>] )
  | (?P<other>  . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_OPERATOR_WORDS = {"and", "or", "unless", "atan2"}
_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.?)", re.DOTALL
)
_CONTROL = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_BARE_NAME = re.compile(r'\s*"\$\d+"\s*')


@dataclass(frozen=True)
class Checked:
    """A text that is safe to parse.

    text:    without comments, each string in it as `"$0"`, `"$1"`, …: a name that none can have
    strings: what stood there, unescaped
    negated: by the place in `strings`, `!=` or `!~` of a matcher, for which `text` has `=`: the parser asks a selector
             for a matcher that refuses "", and does not know the strings
    ats:     the time of each @ modifier as it is written, `-1.5e3` or `end`
    """

    text: str
    strings: tuple[str, ...]
    negated: Mapping[int, str]
    ats: tuple[str, ...]

    def restore(self, name: str) -> str:
        """Return what stood where the parser saw this name."""
        return self.strings[int(name[1:])] if name.startswith("$") else name

    def operator(self, value: str, seen: str) -> str:
        """Return the operator of a matcher whose value and operator the parser saw like this."""
        return self.negated.get(int(value[1:]), seen)


def check(text: str) -> Checked:
    """BadQueryError ("parse error: …") where a text is too long, too deep, has too many operators or open quotes.

    >>> check('up{job="api"} @ -1 # why').text
    'up{job="$0"} @ -1  '
    """
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise BadQueryError(f"parse error: the query is longer than {MAX_BYTES:,} bytes; split it or shorten its lists")
    parts: list[str] = []
    strings: list[str] = []
    negated: dict[int, str] = {}
    ats: list[str] = []
    opened: list[str] = []
    operators = expressions = 0
    negation = None  # where `!=` or `!~` of a matcher stands, directly before its string
    at = False  # the @ modifier's time is what comes next
    for token in TOKEN.finditer(text):
        kind, part = token.lastgroup, token[0]
        if kind == "string":
            if negation is not None:
                negated[len(strings)], parts[negation] = parts[negation], "="
            strings.append(_unquote(part))
            part = f'"${len(strings) - 1}"'
        elif kind == "blank":
            part = " "
        elif kind == "number":
            part = _number(part)
        elif kind == "open":
            opened.append(part)
            if len(opened) > MAX_DEPTH:
                raise BadQueryError(f"parse error: nested deeper than {MAX_DEPTH} brackets")
        elif kind == "close":
            del opened[-1:]
        elif kind == "sign" or (kind == "word" and part.lower() in _OPERATOR_WORDS):
            operators += 1
            if operators > MAX_OPERATORS:
                raise BadQueryError(f"parse error: more than {MAX_OPERATORS} operators; split the query")
            expressions += part in ("=~", "!~")
            if expressions > MAX_EXPRESSIONS:
                raise BadQueryError(f"parse error: more than {MAX_EXPRESSIONS} regular expressions; join them with |")
        elif part in "\"'`":
            raise BadQueryError("parse error: unterminated quoted string")
        if kind != "blank":
            negation = len(parts) if part in ("!=", "!~") and opened[-1:] == ["{"] else None
        if at and kind != "blank":
            ats[-1] += part
            at = part in "+-"
        elif part == "@":
            ats.append("")
            at = True
        parts.append(part)
    checked = "".join(parts)
    _check_names(checked)
    return Checked(checked, tuple(strings), negated, tuple(ats))


def _unquote(quoted: str) -> str:
    """Return what a string of Prometheus means, which is one of Go."""
    own = quoted[0].encode()

    def meaning(escape: re.Match[bytes]) -> bytes:
        letter, two, octal, four, eight = escape.groups()
        if letter and (letter not in b"'\"" or letter == own):
            return _CONTROL.get(letter, letter)
        if two or (octal and int(octal, 8) < 256):
            return bytes([int(two, 16) if two else int(octal, 8)])
        if (four or eight) and (point := int(four or eight, 16)) < 0x110000 and not 0xD800 <= point < 0xE000:
            return chr(point).encode()
        raise BadQueryError(f"parse error: unknown escape sequence in the string {quoted}")

    try:
        if own == b"`":
            return quoted[1:-1].replace("\r", "").encode().decode()
        return _ESCAPE.sub(meaning, quoted[1:-1].encode()).decode()
    except UnicodeError:
        raise NotSupportedError("a string that is not UTF-8") from None


def _number(text: str) -> str:
    """Return a number without underscores; what is none is for the parser to say."""
    try:
        value = int(text, 16) if text[:2].lower() == "0x" else float(text)
    except ValueError:
        return text
    if value == math.inf:
        raise BadQueryError(f"parse error: error parsing number: {text[:20]} is out of range")
    return text.replace("_", "")


def _check_names(text: str) -> None:
    """BadQueryError where the braces of one selector name it twice, which the parser lets through."""
    for braces in re.findall(r"\{([^{}]*)\}", text):
        conditions = braces.split(",")
        bare = [one for one in conditions if _BARE_NAME.fullmatch(one)]
        if len(bare) > 1 or (bare and any(one.strip().startswith("__name__") for one in conditions)):
            raise BadQueryError("parse error: metric name must not be set twice")
