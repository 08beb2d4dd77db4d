"""The geometry of plots."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.apps.plot import HEIGHT, WIDTH, Curve, axis_texts, draw, nice_range, time_ticks

TIMES = np.arange(0, 600, 60)
AHEAD = np.arange(600, 900, 60)


def curve(actual: np.ndarray, mean: np.ndarray) -> Curve:
    """One series on TIMES and AHEAD, bounds one below and above."""
    return Curve("a", "a", TIMES, actual, AHEAD, mean, mean - 1, mean + 1)


def test_gaps_break_the_line() -> None:
    """A gap ends one stroke and starts another; a lone point stays visible as a dot."""
    actual = np.array([1.0, 2, np.nan, 3, np.nan, 4, 5, 6, 7, 8])
    plot = draw([curve(actual, np.full(5, 8.0))], 540)
    assert plot is not None
    assert plot.lines[0].actual.count("M") == 3
    assert plot.lines[0].actual.count("h0") == 3
    assert "nan" not in plot.lines[0].actual + plot.lines[0].forecast + plot.lines[0].band


def test_the_forecast_starts_where_the_actuals_end() -> None:
    """The forecast's path begins at the last actual point."""
    plot = draw([curve(np.arange(10.0), np.arange(10.0, 15))], 540)
    assert plot is not None
    line = plot.lines[0]
    assert line.actual.endswith(re.match(r"M([\d.]+ [\d.]+)", line.forecast)[1])  # type: ignore[index]


def test_nothing_to_draw() -> None:
    """Without one finite value there is no plot."""
    nothing = np.full(5, np.nan)
    assert draw([curve(np.full(10, np.nan), nothing)], 540) is None


def test_a_series_without_forecast() -> None:
    """Actuals alone are drawn without a forecast and a band."""
    none, empty = np.empty(0), np.empty(0, np.int64)
    plot = draw([Curve("a", "a", TIMES, np.arange(10.0), empty, none, none, none)], 540)
    assert plot is not None
    assert (plot.lines[0].forecast, plot.lines[0].band) == ("", "")


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=10, max_size=10), st.lists(st.floats(-1e12, 1e12), min_size=5, max_size=5)
)
def test_everything_stays_inside(actual: list[float], mean: list[float]) -> None:
    """Whatever the values, every coordinate is inside the picture and every axis has several distinct marks."""
    plot = draw([curve(np.array(actual), np.array(mean))], 540)
    assert plot is not None
    for path in (plot.lines[0].actual, plot.lines[0].forecast, plot.lines[0].band):
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT
    assert len({tick.text for tick in plot.y_ticks}) == len(plot.y_ticks) >= 2


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e-280, 1e-20, 1e16, 1e299])
def test_values_at_the_ends_of_the_scale(value: float) -> None:
    """The smallest and largest numbers are drawn like any other, with marks that fit beside the axis."""
    plot = draw([curve(np.linspace(0, value, 10), np.full(5, -value))], 540)
    assert plot is not None
    assert all(len(tick.text) <= 9 for tick in plot.y_ticks)
    assert len({tick.text for tick in plot.y_ticks}) == len(plot.y_ticks)


def test_an_absurd_value_is_not_drawn() -> None:
    """Where differences overflow there is no plot; an infinity is a gap."""
    assert draw([curve(np.full(10, 1.7e308), np.full(5, -1.7e308))], 540) is None
    plot = draw([curve(np.array([1.0, np.inf, *range(8)]), np.arange(5.0))], 540)
    assert plot is not None
    assert "inf" not in plot.lines[0].actual


@given(st.floats(-1e15, 1e15), st.floats(0, 1e15))
def test_an_axis_covers_its_values(low: float, spread: float) -> None:
    """The marks of an axis ascend and enclose the values, and there are neither too few nor too many."""
    start, stop, marks = nice_range(low, low + spread)
    invisible = 1e-6 * (stop - start)
    assert start <= low + invisible
    assert stop >= low + spread - invisible
    assert marks == sorted(marks)
    assert 2 <= len(marks) <= 9
    assert len(axis_texts(marks)) == len(marks)


def test_ticks_of_long_and_short_spans() -> None:
    """Time marks are round and few, from a minute to a month."""
    for span in (60, 3600, 86_400, 30 * 86_400):
        ticks = time_ticks(1_000_000_000, 1_000_000_000 + span)
        assert 1 <= len(ticks) <= 7
