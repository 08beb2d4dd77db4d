"""The geometry of one plot over time: lines, bands, bars, thresholds, shaded spans, axes. The markup is the template's.

Every plot comes twice: as SVG paths, which need no JavaScript, and as the numbers, from which the browser draws it
again with a cursor that says what stands where.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np

from sentinel_core.windows import FloatArray, IntArray

WIDTH, HEIGHT = 720, 228
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 28  # room for the labels
SPARK_WIDTH, SPARK_HEIGHT = 140, 34
_LEAST, _MOST = 1e-290, 1e300  # beyond them the arithmetic of an axis leaves what a float64 can hold
_TIME_STEPS = (
    1, 5, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000,
)  # fmt: skip
_DIGITS = 6  # of a number that the browser gets
_Heights = TypeVar("_Heights", float, FloatArray)


@dataclass(frozen=True)
class Trace:
    """One line over time.

    kind:   a class of the style sheet: actual, forecast, psi, bars (drawn from zero), …
    times:  unix seconds, ascending; values, lower and upper are float64 of the same length, gaps are NaN
    lower, upper: the band around it, if it has one
    colour: 1, 2 or 3; lines of one colour belong together
    """

    label: str
    title: str
    kind: str
    times: IntArray
    values: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    colour: int = 1


@dataclass(frozen=True)
class Mark:
    """A threshold: a horizontal line with its name. Its `kind` is a class of the style sheet."""

    value: float
    label: str
    kind: str


@dataclass(frozen=True)
class Span:
    """A shaded stretch of time (unix seconds)."""

    start: float
    end: float
    label: str
    kind: str


@dataclass(frozen=True)
class Curve:
    """One series: actuals on `times`, the forecast on `ahead` (unix seconds, both ascending); gaps are NaN."""

    label: str
    title: str
    times: IntArray
    actual: FloatArray
    ahead: IntArray
    mean: FloatArray
    lower: FloatArray
    upper: FloatArray
    inner_lower: FloatArray
    inner_upper: FloatArray

    def traces(self, colour: int) -> Iterable[Trace]:
        """Its actuals, and its forecast drawn from the last actual on: the two belong together."""
        yield Trace(self.label, self.title, "actual", self.times, self.actual, colour=colour)
        if len(self.ahead):
            known = np.flatnonzero(np.isfinite(self.actual))[-1:]
            ahead = np.append(self.times[known], self.ahead)
            every = (self.mean, self.lower, self.upper, self.inner_lower, self.inner_upper)
            mean, lower, upper, low, high = (np.append(self.actual[known], part) for part in every)
            yield Trace(f"{self.label}, forecast", self.title, "forecast", ahead, mean, lower, upper, colour)
            if np.isfinite(self.inner_lower).any():  # darker, as it lies on the other band
                yield Trace(f"{self.label}, inner bounds", self.title, "forecast", ahead, mean, low, high, colour)


@dataclass(frozen=True)
class Line:
    """One trace's SVG path data; an empty text draws nothing."""

    label: str
    title: str
    kind: str
    colour: int
    path: str
    band: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Area:
    """A shaded stretch: its left edge and its width."""

    at: float
    width: float
    label: str
    kind: str


@dataclass(frozen=True)
class Level:
    """A threshold's height and what stands beside it."""

    at: float
    text: str
    kind: str


@dataclass(frozen=True)
class Plot:
    """What the template draws; `data` is the same as JSON."""

    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    areas: tuple[Area, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    data: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(
    traces: Sequence[Trace], marks: Sequence[Mark] = (), spans: Sequence[Span] = (), *, zero: bool = False
) -> Plot | None:
    """Lay out some traces on common axes; None without a value, with absurd ones, or where all have one time.

    zero: whether the axis starts at zero; bars always do
    """
    parts = [part for one in traces for part in (one.values, one.lower, one.upper) if part is not None]
    values = np.concatenate([np.empty(0), *parts])
    values = values[np.isfinite(values)]
    if not len(values) or np.abs(values).max() > _MOST:
        return None
    times = np.concatenate([one.times for one in traces])
    room = max((_bar_width(one.times) for one in traces if one.kind == "bars"), default=0) // 2
    first, last = int(times.min()) - room, int(times.max()) + room
    if first == last:
        return None
    heights = [
        float(values.min()),
        float(values.max()),
        *(1.05 * mark.value for mark in marks),
    ]  # its name stands above it
    low, high, ticks = nice_range(min([*heights, 0.0] if zero else heights), max(heights))

    def x(time: FloatArray | IntArray | float) -> FloatArray:
        return LEFT + (np.asarray(time, float) - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: FloatArray | float) -> FloatArray:
        return HEIGHT - BOTTOM - (np.asarray(value, float) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for one in traces:
        across, up = x(one.times), y(one.values)
        if one.kind == "bars":
            width = _bar_width(one.times) / max(1, last - first) * (WIDTH - LEFT - RIGHT)
            path = _bars(across, up, float(y(max(0.0, low))), 0.8 * width)
        else:
            path = _path(across, up)
        band = "" if one.lower is None or one.upper is None else _band(across, y(one.lower), y(one.upper))
        lines.append(Line(one.label, one.title, one.kind, one.colour, path, band))
    areas = []
    for span in spans:
        left, right = (float(x(min(max(at, first), last))) for at in (span.start, span.end))
        if right > left:
            areas.append(Area(round(left, 1), round(right - left, 1), span.label, span.kind))
    shown = [one.title or one.label for one in traces if one.kind != "forecast"]
    summary = (
        f"{', '.join(shown) if len(shown) <= 3 else f'{len(shown)} lines'} from {clock(first)} to {clock(last)} UTC; "
        f"values between {short_number(float(values.min()))} and {short_number(float(values.max()))}"
    )
    return Plot(
        tuple(lines),
        tuple(Level(round(float(y(mark.value)), 1), mark.label, mark.kind) for mark in marks),
        tuple(areas),
        tuple(Tick(round(float(x(at)), 1), clock(at)) for at in time_ticks(first, last)),
        tuple(Tick(round(float(y(mark)), 1), text) for mark, text in zip(ticks, axis_texts(ticks), strict=True)),
        summary,
        _data(traces, marks, spans, (low, high)),
    )


def _data(traces: Sequence[Trace], marks: Sequence[Mark], spans: Sequence[Span], heights: tuple[float, float]) -> str:
    """The numbers of a plot on one common time axis, as JSON that no markup can end."""
    times = np.unique(np.concatenate([one.times for one in traces]))

    def column(one: Trace, values: FloatArray | None) -> list[float | None] | None:
        if values is None:
            return None
        column = np.full(len(times), np.nan)
        column[np.searchsorted(times, one.times)] = values
        return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in column.tolist()]

    content: dict[str, Any] = {
        "times": times.tolist(),
        "heights": heights,
        "lines": [
            {
                "label": one.label, "kind": one.kind, "colour": one.colour, "values": column(one, one.values),
                "lower": column(one, one.lower), "upper": column(one, one.upper),
            }
            for one in traces
        ],
        "marks": marks,
        "spans": spans,
    }  # fmt: skip
    return msgspec.json.encode(content).decode().replace("<", "\\u003c")


def _bar_width(times: IntArray) -> int:
    """The least distance between bars, in seconds."""
    return int(np.diff(times).min()) if len(times) > 1 else 3600


def _bars(x: FloatArray, y: FloatArray, ground: float, width: float) -> str:
    """Upright bars from the ground."""
    return "".join(
        f"M{at - width / 2:.1f} {ground:.1f}V{top:.1f}h{width:.1f}V{ground:.1f}Z"
        for at, top in zip(x.tolist(), y.tolist(), strict=True)
        if math.isfinite(top)
    )


def _path(x: FloatArray, y: FloatArray) -> str:
    """A path through the finite points, broken at gaps; round line caps make a dot of a point between two gaps."""
    parts, pen_down = [], False
    for at, value in zip(x.tolist(), y.tolist(), strict=True):
        if not math.isfinite(value):
            pen_down = False
            continue
        parts.append(f"L{at:.1f} {value:.1f}" if pen_down else f"M{at:.1f} {value:.1f}h0")
        pen_down = True
    return "".join(parts)


def _band(x: FloatArray, lower: FloatArray, upper: FloatArray) -> str:
    finite = np.isfinite(lower) & np.isfinite(upper)
    if finite.sum() < 2:
        return ""
    outline = [*zip(x[finite], upper[finite], strict=True), *zip(x[finite][::-1], lower[finite][::-1], strict=True)]
    return "M" + "L".join(f"{at:.1f} {value:.1f}" for at, value in outline) + "Z"


def nice_range(low: float, high: float, count: int = 4) -> tuple[float, float, list[float]]:
    """Widen a range of values to round marks (1, 2 or 5 times a power of ten), about `count` intervals.

    >>> nice_range(3.2, 96.0)
    (0.0, 100.0, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    """
    largest = max(abs(low), abs(high))
    if high - low <= max(_LEAST, 1e-9 * largest):  # a flat line still needs an axis
        spread = 0.1 * largest if largest > _LEAST else 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.8)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [float(f"{i * step:.12g}") for i in range(start, stop + 1)]
    return marks[0], marks[-1], marks


def axis_texts(marks: Sequence[float]) -> list[str]:
    """The marks of an axis in one unit and with the decimals that tell them apart.

    >>> axis_texts([0.0, 500.0, 1000.0]), axis_texts([-0.1, 0.0, 0.1])
    (['0', '0.5k', '1.0k'], ['-0.1', '0', '0.1'])
    >>> axis_texts([0.0, 5e-21, 1e-20, 1.5e-20])
    ['0', '5e-21', '1e-20', '1.5e-20']
    """
    highest, step = max(abs(mark) for mark in marks), marks[1] - marks[0]
    if not 1e-4 <= highest < 1e15:
        digits = 1 + math.floor(math.log10(highest)) - math.floor(math.log10(step))
        return [f"{mark:.{digits}g}" for mark in marks]
    size, letter = _unit(highest)
    decimals = max(0, -math.floor(math.log10(step / size) + 1e-9))
    return [f"{mark / size:.{decimals}f}{letter}" if mark else "0" for mark in marks]


def time_ticks(first: int, last: int, count: int = 6) -> list[int]:
    """Round times in [first, last], at most about `count`.

    >>> time_ticks(60, 3600)
    [600, 1200, 1800, 2400, 3000, 3600]
    """
    span = max(1, last - first)
    step = next((size for size in _TIME_STEPS if span / size <= count), _TIME_STEPS[-1])
    return list(range(-(-first // step) * step, last + 1, step))


def clock(time: int) -> str:
    """Hours and minutes in UTC; with seconds or with the day where that is what tells times apart.

    >>> clock(3600), clock(3605), clock(86400)
    ('01:00', '01:00:05', '2 Jan')
    """
    moment = datetime.fromtimestamp(time, UTC)
    if time % 86400 == 0:
        return f"{moment.day} {moment:%b}"
    return f"{moment:%H:%M:%S}" if time % 60 else f"{moment:%H:%M}"


def short_number(value: float) -> str:
    """A number in at most about four digits, with k, M, G or T.

    >>> [short_number(value) for value in (0, 0.25, 12.5, 1500, -2.5e6)]
    ['0', '0.25', '12.5', '1.5k', '-2.5M']
    """
    size, letter = _unit(abs(value))
    return f"{value / size:.4g}{letter}"


def _unit(magnitude: float) -> tuple[float, str]:
    units = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(((size, letter) for size, letter in units if magnitude >= size), (1.0, ""))


def sparkline(times: IntArray, values: FloatArray, start: int, end: int, low: float, high: float) -> str:
    """A path in a box of SPARK_WIDTH x SPARK_HEIGHT for a line without axes.

    >>> sparkline(np.array([0, 10]), np.array([0.0, 1.0]), 0, 10, 0.0, 1.0)
    'M0.0 33.0h0L140.0 1.0'
    """
    x = (times - start) / max(1, end - start) * SPARK_WIDTH
    return _path(x, spark_height(values, low, high))


def spark_height(value: _Heights, low: float, high: float) -> _Heights:
    """Where a value stands in the box of a sparkline."""
    return SPARK_HEIGHT - 1 - (value - low) / ((high - low) or 1.0) * (SPARK_HEIGHT - 2)
