"""Run files of Prometheus' promqltest language against our engine: `python -m tests.promqltest [-v] FILE…`.

One `eval` is one case. It has passed where the answer, its warnings and infos are what the file says, and where an
instant query has the same answer in the middle of a range. It is unsupported where we refused to answer: with
NotSupportedError, because the text cannot be read, or in other words than the file expects a refusal. Anything else is
wrong: an answer that differs, an answer where a failure was expected, an error where an answer was. Exits 1 then.
What is no case and cannot be read is shown and counted, and until `clear` every case is unsupported.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sentinel_core.promql.errors import BadQueryError, NotSupportedError, QueryError
from sentinel_core.promql.evaluate import evaluate, times
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import look_back
from sentinel_core.promql.matchers import compile as compile_matchers
from sentinel_core.promql.matchers import pattern
from sentinel_core.promql.parse import parse
from sentinel_core.promql.values import LOOKBACK, Labels, Notes, Samples, Scalar, Text, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray
from tests.promqltest_language import HISTOGRAM, Case, Point, UnreadableError, milliseconds, read_case, read_series

_START = re.compile(r"@st\s+\S")  # a line that gives the points of the next one the times since when they count
Answer = Scalar | Text | Vector | Samples
_OF_QUERY = re.compile(r"\b(start|end|step|range)\s*\(\s*\)")  # what a longer query has others of


@dataclass
class MemorySource:
    """A `Source` of what was loaded: by labels the times (ms) of points and their values.

    refused: by labels and time, what is there that we do not support
    """

    points: dict[Labels, dict[int, float]] = field(default_factory=dict)
    refused: dict[Labels, dict[int, str]] = field(default_factory=dict)

    def load(self, labels: Labels, step: int, points: Sequence[Point]) -> None:
        """Add points, one every `step` milliseconds from 0."""
        for number, point in enumerate(points):
            if point == HISTOGRAM:
                self.refuse(labels, number * step, "native histograms")
            elif point is not None:
                self.points.setdefault(labels, {})[number * step] = float(point)

    def refuse(self, labels: Labels, time: int, what: str) -> None:
        """Whoever looks at this time of this series has no answer."""
        self.refused.setdefault(labels, {})[time] = what

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return each series' newest sample at each of these times."""
        samples = self.samples(matchers, int(times[0]) - LOOKBACK, int(times[-1]), budget)
        return look_back(samples, times, budget, timestamps=timestamps)

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return all samples; NotSupportedError where one of start < t <= end is refused."""
        matching = compile_matchers(matchers)
        named = list(self.refused)
        for row in np.flatnonzero(matching.matches(named)).tolist():
            for time, what in self.refused[named[row]].items():
                if start < time <= end:
                    raise NotSupportedError(what)
        labels = sorted(self.points)
        kept = [labels[row] for row in np.flatnonzero(matching.matches(labels)).tolist()]
        ordered = [sorted(self.points[one].items()) for one in kept]
        return Samples.of(
            kept,
            [np.array([time for time, _ in series], np.int64) for series in ordered],
            [np.array([value for _, value in series], np.float64) for series in ordered],
        )

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a sample in [start, end]."""
        matching = compile_matchers(matchers)
        there = [labels for labels, points in self.points.items() if any(start <= time <= end for time in points)]
        return [there[row] for row in np.flatnonzero(matching.matches(there)).tolist()]


@dataclass(frozen=True)
class Verdict:
    """What became of a case; why is empty where it has passed."""

    case: Case | None
    outcome: str
    why: str = ""


class DifferenceError(Exception):
    """The answer is another one."""


def run(text: str) -> Iterator[Verdict]:
    """Run the commands of one file."""
    source = MemorySource()
    unreadable = ""  # of what was loaded: no answer can be judged then
    lines = [line.strip() for line in text.split("\n")]
    lines = ["" if line.startswith("#") else line for line in lines]
    number = 0
    while number < len(lines):
        first, block = number, []
        number += 1
        command = lines[first]
        if command and command != "clear":
            while number < len(lines) and lines[number]:
                block.append(lines[number])
                number += 1
        try:
            if command == "clear":
                source, unreadable = MemorySource(), ""
            elif command.startswith("load"):
                _load(source, command, block)
            elif command.startswith("eval"):
                case = read_case(first + 1, command, block)
                yield Verdict(case, "unsupported", unreadable) if unreadable else judge(case, source)
            elif command:
                raise UnreadableError("no command of this language")
        except (UnreadableError, ValueError, OverflowError) as error:
            said = f"{first + 1}: {command}: {error}"
            if command.startswith("eval"):
                yield Verdict(None, "unsupported", said)
            else:
                unreadable = said
                yield Verdict(None, "unreadable", said)


def judge(case: Case, source: MemorySource) -> Verdict:
    """Evaluate one case and compare."""
    try:
        _judge(case, source)
    except (NotSupportedError, UnreadableError) as error:
        return Verdict(case, "unsupported", str(error))
    except DifferenceError as difference:
        return Verdict(case, "wrong", str(difference))
    except Exception as error:
        return Verdict(case, "wrong", f"no answer, but {error!r}")
    return Verdict(case, "passed")


def _judge(case: Case, source: MemorySource) -> None:
    notes = Notes()
    try:
        answer = _answer(case, source, notes)
    except NotSupportedError:
        raise
    except QueryError as error:
        if not case.asks("fail"):
            if isinstance(error, BadQueryError):  # the text cannot be read
                raise UnreadableError(str(error)) from None
            raise DifferenceError(f"failed: {error}") from None
        if not all(_says(str(error), *expected) for expected in case.asks("fail")):
            raise UnreadableError(f"refused in other words: {error}") from None
        return
    if case.asks("fail"):
        raise DifferenceError("an answer where a failure was expected")
    _compare_notes(case, notes)
    _compare(case, answer)
    if case.step or isinstance(answer, Text | Samples) or case.asks("ordered") or _OF_QUERY.search(case.query):
        return
    wide = replace(case, start=case.start - 60_000, end=case.start + 60_000, step=60_000)
    try:
        around = _answer(wide, source, Notes())
    except NotSupportedError:
        raise
    except QueryError as error:
        raise DifferenceError(f"failed as a range: {error}") from None
    if isinstance(around, Vector):
        around = Vector(around.labels, around.values[:, 1:2], around.present[:, 1:2], around.nameless)
    elif isinstance(around, Scalar):
        around = Scalar(around.values[1:2])
    try:
        _compare(case, around)
    except DifferenceError as difference:
        raise DifferenceError(f"as a range: {difference}") from None


def _answer(case: Case, source: MemorySource, notes: Notes) -> Answer:
    node = parse(case.query)
    return evaluate(node, case.start, case.end, case.step, source, Budget(), notes)


def _load(source: MemorySource, command: str, block: Sequence[str]) -> None:
    match = re.fullmatch(r"load(_with_nhcb)?\s+(\S+)", command)
    if match is None:
        raise UnreadableError(command)
    step = milliseconds(match[2])
    starts = [line for line in block if _START.search(line)]
    read = dict([read_series(line) for line in block if line not in starts])  # of a series twice, the last counts
    for line in starts:
        labels, _ = read_series(_START.split(line)[0] + " ")
        for number in range(len(read.get(labels, []))):
            source.refuse(labels, number * step, "start timestamps")
    for labels, points in read.items():
        source.load(labels, step, points)
        if match[1]:  # buckets, sum and count become one native histogram beside them
            rest = {key: value for key, value in labels if key != "le"}
            rest["__name__"] = re.sub(r"_(bucket|sum|count)$", "", rest.get("__name__", ""))
            native = tuple(sorted(rest.items()))
            source.load(native, step, [None if point is None else HISTOGRAM for point in points])


# --- Comparing --------------------------------------------------------------------------------------------------------


def _compare_notes(case: Case, notes: Notes) -> None:
    for kind, said in (("warn", list(notes.warnings)), ("info", list(notes.infos))):
        if said and case.asks(f"no_{kind}"):
            raise DifferenceError(f"unexpected: {said}")
        expected = case.asks(kind)
        for one in expected:
            if not any(_says(text, *one) for text in said):
                raise DifferenceError(f"expected {kind} {one}, but said {said}")
        for text in said:
            if expected and not any(_says(text, *one) for one in expected):
                raise DifferenceError(f"nobody expected {text}")


def _says(text: str, how: str, expected: str) -> bool:
    if how == "msg":
        return text == expected
    return how != "regex" or pattern(expected, groups=False).search(text) is not None


def _compare(case: Case, answer: Answer) -> None:
    if isinstance(answer, Text):
        if answer.value != case.text:
            raise DifferenceError(f"expected {case.text!r}, but it is {answer.value!r}")
        return
    if case.text is not None or (case.number is not None) != (isinstance(answer, Scalar) and not case.step):
        raise DifferenceError(f"another kind of answer: {answer}")
    if isinstance(answer, Scalar) and case.number is not None:
        if not _equal(case.number, float(answer.values[0])):
            raise DifferenceError(f"expected {case.number}, but it is {answer.values[0]}")
        return
    got = _points(case, answer)
    if any(point == HISTOGRAM for points in case.expected.values() for point in points):
        raise DifferenceError(f"expected native histograms, but it is {got}")
    start, _, step = case.grid or (case.start, case.end, case.step)
    for labels, expected in case.expected.items():
        wanted = {start + step * number: value for number, value in enumerate(expected) if value is not None}
        found = got.get(labels, {})
        if wanted.keys() != found.keys() or not all(_equal(float(wanted[time] or 0), found[time]) for time in wanted):
            raise DifferenceError(f"expected {dict(labels)} {wanted}, but it is {found} of {got}")
    if unexpected := got.keys() - case.expected.keys():
        raise DifferenceError(f"unexpected {unexpected}: {got}")
    if case.asks("ordered") and list(got) != list(case.expected):
        raise DifferenceError(f"another order: {list(got)}")


def _points(case: Case, answer: Scalar | Vector | Samples) -> dict[Labels, dict[int, float]]:
    """Return the points of an answer by labels and time (ms)."""
    if isinstance(answer, Samples):
        return {
            labels: dict(zip(answer.times[part].tolist(), answer.values[part].tolist(), strict=True))
            for labels, part in zip(answer.labels, map(slice, answer.offsets[:-1], answer.offsets[1:]), strict=True)
        }
    if isinstance(answer, Scalar):
        answer = Vector.of([()], answer.values[None, :])
    if len(set(answer.labels)) < len(answer.labels):
        raise DifferenceError(f"the same labels twice: {answer.labels}")
    at = times(case.start, case.end, case.step)
    return {
        labels: dict(zip(at[there].tolist(), values[there].tolist(), strict=True))
        for labels, values, there in zip(answer.labels, answer.values, answer.present, strict=True)
        if there.any()
    }


def _equal(wanted: float, found: float) -> bool:
    """Within a millionth of their sum, as Prometheus compares; NaN is NaN."""
    if wanted == found or (math.isnan(wanted) and math.isnan(found)):
        return True
    total = abs(wanted) + abs(found)
    if not wanted or not found or total < sys.float_info.min:
        return abs(wanted - found) < 1e-6 * sys.float_info.min
    return abs(wanted - found) / min(total, sys.float_info.max) < 1e-6


def main(arguments: Sequence[str]) -> int:
    """Print what became of each file's cases, and why each wrong one is; -v: each unsupported one too."""
    files, total = [Path(one) for one in arguments if one != "-v"], Counter[str]()
    for path in files:
        outcomes = Counter[str]()
        for verdict in run(path.read_text("utf-8", errors="replace")):
            outcomes[verdict.outcome] += 1
            if verdict.outcome in ("wrong", "unreadable") or ("-v" in arguments and verdict.outcome == "unsupported"):
                where = "" if verdict.case is None else f"{verdict.case.line}: {verdict.case.query}: "
                print(f"  {verdict.outcome} {path.name}:{where}{verdict.why}")
        total += outcomes
        print(f"{path.name}: {_counted(outcomes)}")
    print(f"total: {_counted(total)}")
    return 1 if total["wrong"] or not files else 0


def _counted(outcomes: Counter[str]) -> str:
    shown = ("passed", "wrong", "unsupported", *(["unreadable"] if outcomes["unreadable"] else []))
    return ", ".join(f"{outcomes[one]} {one}" for one in shown)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
