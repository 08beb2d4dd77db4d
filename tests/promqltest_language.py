"""Prometheus' promqltest language, as its README describes it: what the lines of a file mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sentinel_core.promql.errors import QueryError
from sentinel_core.promql.parse import parse
from sentinel_core.promql.tree import String
from sentinel_core.promql.values import STALE, Labels

HISTOGRAM = "histogram"
Point = float | str | None  # a value, HISTOGRAM, or nothing

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_NUMBER = r"(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|inf(?:inity)?|nan)"
_POINT = re.compile(rf"([-+]?{_NUMBER}|stale)([-+]{_NUMBER})?(?:x(\d+))?", re.IGNORECASE)
_HISTOGRAM = re.compile(r"\{\{.*?\}\}(?:[-+]\{\{.*?\}\})?(?:x(\d+))?")
_QUOTED = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`'
_LABEL = re.compile(rf"\s*(?P<name>{_QUOTED}|[\w.:]+)\s*(?:=\s*(?P<value>{_QUOTED}))?\s*(?P<end>,|$)")
_SERIES = re.compile(rf"(?P<name>[a-zA-Z_:][\w:]*)?(?:\{{(?!\{{)(?P<labels>(?:{_QUOTED}|[^}}\"'`])*)\}})?")
_EVAL = re.compile(
    r"eval(?:_(?P<old>fail|warn|info|ordered))?\s+(?:instant\s+(?:at\s+(?P<at>\S+)\s+)?"
    r"|range\s+from\s+(?P<start>\S+)\s+to\s+(?P<end>\S+)\s+step\s+(?P<step>\S+)\s+)(?P<query>.+)"
)
_EXPECT = re.compile(
    r"expect\s+(?P<what>ordered|fail|warn|no_warn|info|no_info)(?:\s+(?P<how>msg|regex):(?P<text>.*))?"
)
_RANGE = re.compile(r"expect\s+range\s+vector\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)")
_OLD_FAILURE = re.compile(r"expected_fail_(message|regexp)\s+(.+)")


class UnreadableError(ValueError):
    """A line that this runner does not know."""


@dataclass(frozen=True)
class Case:
    """One `eval`: the query and what is expected of it.

    step:     ms, 0 of an instant query
    expected: by labels the points of the answer
    number:   of a scalar answer
    text:     of a string answer
    grid:     start, end and step (ms) of the points of a range vector
    notes:    (fail, warn, no_warn, info, no_info, ordered; msg or regex or ""; the text)
    """

    line: int
    query: str
    start: int
    end: int
    step: int
    expected: dict[Labels, list[Point]] = field(default_factory=dict)
    number: float | None = None
    text: str | None = None
    grid: tuple[int, int, int] | None = None
    notes: tuple[tuple[str, str, str], ...] = ()

    def asks(self, what: str) -> list[tuple[str, str]]:
        """Return the expectations of one kind."""
        return [(how, text) for kind, how, text in self.notes if kind == what]


def milliseconds(text: str) -> int:
    """Read a duration, or a number of seconds.

    >>> milliseconds("1m30s"), milliseconds("-10"), milliseconds("1.5")
    (90000, -10000, 1500)
    """
    sign, bare = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if re.fullmatch(_NUMBER, bare):
        return sign * round(float(bare) * 1000)
    parts = re.findall(r"(\d+)(ms|[smhdwy])", bare)
    if not parts or "".join(amount + unit for amount, unit in parts) != bare:
        raise UnreadableError(f"not a duration: {text}")
    return sign * sum(int(amount) * _UNITS[unit] for amount, unit in parts)


def read_series(line: str) -> tuple[Labels, list[Point]]:
    """Read `name{label="value"} points`."""
    match = _SERIES.match(line)
    if match is None or not match[0] or line[match.end() : match.end() + 1].strip():
        raise UnreadableError(f"not a series: {line}")
    return _read_labels(match["name"], match["labels"] or ""), _read_points(line[match.end() :])


def _read_labels(name: str | None, inner: str) -> Labels:
    labels = {"__name__": name} if name else {}
    done = 0
    while done < len(inner.rstrip()):
        label = _LABEL.match(inner, done)
        if label is None or label.end() == done:
            raise UnreadableError(f"not labels: {inner}")
        key = _read_text(label["name"]) if label["name"][0] in "\"'`" else label["name"]
        if label["value"] is None:
            labels["__name__"] = key
        else:
            labels[key] = _read_text(label["value"])
        done = label.end()
    return tuple(sorted((key, value) for key, value in labels.items() if value))


def _read_text(quoted: str) -> str:
    try:
        node = parse(quoted)
    except QueryError as error:
        raise UnreadableError(f"not a text: {quoted}: {error}") from None
    if not isinstance(node, String):
        raise UnreadableError(f"not a text: {quoted}")
    return node.value


def _read_points(text: str) -> list[Point]:
    points: list[Point] = []
    done = 0
    while (done := len(text) - len(text[done:].lstrip())) < len(text):
        if histogram := _HISTOGRAM.match(text, done):
            points += [HISTOGRAM] * (int(histogram[1] or 0) + 1)
            done = histogram.end()
            continue
        word = text[done:].split(maxsplit=1)[0]
        done += len(word)
        if missing := re.fullmatch(r"_(?:x(\d+))?", word):
            points += [None] * int(missing[1] or 1)
        elif point := _POINT.fullmatch(word):
            value = STALE if point[1] == "stale" else float(point[1])
            step, repeated = point[2], int(point[3] or 0)
            if step is None:
                points += [value] * (repeated + 1)
            else:
                with np.errstate(all="ignore"):
                    points += np.cumsum([value, *[float(step)] * repeated]).tolist()
        else:
            raise UnreadableError(f"not a point: {word}")
    return points


def read_case(line: int, command: str, block: Sequence[str]) -> Case:
    match = _EVAL.fullmatch(command)
    if match is None:
        raise UnreadableError(command)
    if match["step"]:
        span = milliseconds(match["start"]), milliseconds(match["end"]), milliseconds(match["step"])
    else:
        at = milliseconds(match["at"] or "0")
        span = at, at, 0
    case = Case(line, match["query"], *span)
    notes: list[tuple[str, str, str]] = [(match["old"], "", "")] if match["old"] else []
    for one in block:
        if expect := _EXPECT.fullmatch(one):
            notes.append((expect["what"], expect["how"] or "", (expect["text"] or "").strip()))
        elif text := re.fullmatch(rf"expect\s+string\s+({_QUOTED})", one):
            case = replace(case, text=_read_text(text[1]))
        elif grid := _RANGE.fullmatch(one):
            case = replace(case, grid=(milliseconds(grid[1]), milliseconds(grid[2]), milliseconds(grid[3])))
        elif failure := _OLD_FAILURE.fullmatch(one):
            notes.append(("fail", "msg" if failure[1] == "message" else "regex", failure[2].strip()))
        elif re.fullmatch(rf"[-+]?{_NUMBER}", one, re.IGNORECASE):
            case = replace(case, number=float(one))
        elif one.startswith("expect "):
            raise UnreadableError(one)
        else:
            labels, points = read_series(one)
            case.expected[labels] = points
    if not (case.step or case.grid) and any(len(points) != 1 for points in case.expected.values()):
        raise UnreadableError("an instant has one value of each series")
    return replace(case, notes=tuple(notes))
