"""The geometry of one plot: recent actuals, the forecast with its bounds, axes. The markup is the template's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from sentinel_core.windows import FloatArray, IntArray

WIDTH, HEIGHT = 720, 228
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 28  # room for the labels
_LEAST, _MOST = 1e-290, 1e300  # beyond them the arithmetic of an axis leaves what a float64 can hold
_TIME_STEPS = (1, 5, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


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


@dataclass(frozen=True)
class Line:
    """One curve's SVG path data; an empty text draws nothing."""

    label: str
    title: str
    actual: str
    forecast: str
    band: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """What the template draws; `origin_x` is where the forecast begins."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    origin_x: float
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(curves: Sequence[Curve], origin: int) -> Plot | None:
    """Lay out some curves on common axes, forecasts starting at `origin`; None without a value, or with absurd ones."""
    values = np.concatenate([part for curve in curves for part in (curve.actual, curve.mean, curve.lower, curve.upper)])
    values = values[np.isfinite(values)]
    if not len(values) or np.abs(values).max() > _MOST:
        return None
    times = np.concatenate([part for curve in curves for part in (curve.times, curve.ahead)])
    first, last = int(times.min()), int(times.max())
    low, high, marks = nice_range(float(values.min()), float(values.max()))

    def x(time: FloatArray | IntArray | float) -> FloatArray:
        return LEFT + (np.asarray(time, float) - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: FloatArray | float) -> FloatArray:
        return HEIGHT - BOTTOM - (np.asarray(value, float) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for curve in curves:
        # The forecast is drawn from the last actual on: the two belong together.
        joint = np.isfinite(curve.actual)
        known = (curve.times[joint][-1:], curve.actual[joint][-1:])
        ahead = np.concatenate([known[0], curve.ahead])
        band = _band(x(ahead), y(np.concatenate([known[1], curve.lower])), y(np.concatenate([known[1], curve.upper])))
        lines.append(
            Line(
                curve.label,
                curve.title,
                _path(x(curve.times), y(curve.actual)),
                _path(x(ahead), y(np.concatenate([known[1], curve.mean]))) if len(curve.ahead) else "",
                band,
            )
        )
    summary = (
        f"{len(curves)} series from {clock(first)} to {clock(last)} UTC; forecast from {clock(origin)}; "
        f"values between {short_number(float(values.min()))} and {short_number(float(values.max()))}"
    )
    return Plot(
        tuple(lines),
        tuple(Tick(round(float(x(at)), 1), clock(at)) for at in time_ticks(first, last)),
        tuple(Tick(round(float(y(mark)), 1), text) for mark, text in zip(marks, axis_texts(marks), strict=True)),
        round(float(x(origin)), 1),
        summary,
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
