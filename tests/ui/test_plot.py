"""The geometry of plots."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.apps.ui.plot import (
    HEIGHT,
    WIDTH,
    Curve,
    Mark,
    Plot,
    Span,
    Trace,
    axis_texts,
    draw,
    nice_range,
    time_ticks,
)

TIMES = np.arange(0, 600, 60)
AHEAD = np.arange(600, 900, 60)


def drawn(actual: np.ndarray, mean: np.ndarray) -> Plot:
    """The plot of one series on TIMES and AHEAD, bounds one below and above."""
    plot = draw(
        list(
            Curve("a", "a", TIMES, actual, AHEAD, mean, mean - 1, mean + 1, *2 * [np.full(len(mean), np.nan)]).traces(1)
        )
    )
    assert plot is not None
    return plot


def test_gaps_break_the_line() -> None:
    """A gap ends one stroke and starts another; a lone point stays visible as a dot; the browser gets null."""
    plot = drawn(np.array([1.0, 2, np.nan, 3, np.nan, 4, 5, 6, 7, 8]), np.full(5, 8.0))
    assert plot.lines[0].path.count("M") == 3
    assert plot.lines[0].path.count("h0") == 3
    assert "nan" not in "".join(line.path + line.band for line in plot.lines)
    assert json.loads(plot.data)["lines"][0]["values"][:5] == [1.0, 2.0, None, 3.0, None]


def test_the_forecast_starts_where_the_actuals_end() -> None:
    """The forecast's path begins at the last actual point."""
    actual, forecast = drawn(np.arange(10.0), np.arange(10.0, 15)).lines
    assert actual.path.endswith(re.match(r"M([\d.]+ [\d.]+)", forecast.path)[1])  # type: ignore[index]


def test_nothing_to_draw() -> None:
    """Without one finite value, without a trace, or of one time alone there is no plot."""
    assert draw([Trace("a", "a", "psi", TIMES[:1], np.ones(1))]) is None
    assert draw([Trace("a", "a", "actual", TIMES, np.full(10, np.nan))]) is None
    assert draw([]) is None


def test_inner_bounds_are_a_band_on_the_other() -> None:
    """Both begin at the last actual, under the same line."""
    mean = np.full(len(AHEAD), 5.0)
    bounds = mean - 2, mean + 2, mean - 1, mean + 1
    _, outer, inner = Curve("a", "a", TIMES, np.arange(10.0), AHEAD, mean, *bounds).traces(1)
    np.testing.assert_array_equal(inner.values, outer.values)
    assert inner.lower is not None
    assert inner.lower.tolist() == [9.0] + 5 * [4.0]


def test_a_series_without_forecast() -> None:
    """Actuals alone are drawn without a forecast and a band."""
    none, empty = np.empty(0), np.empty(0, np.int64)
    (only,) = Curve("a", "a", TIMES, np.arange(10.0), empty, *5 * [none]).traces(1)
    assert only.lower is None


def test_thresholds_and_spans() -> None:
    """A threshold is inside the picture although no value comes near it; a span is cut at the edges."""
    trace = Trace("PSI", "PSI", "psi", TIMES, np.full(10, 0.01))
    plot = draw([trace], [Mark(0.25, "critical", "bad")], [Span(300, math.inf, "incident", "incident")], zero=True)
    assert plot is not None
    assert plot.top < plot.levels[0].at < plot.bottom
    assert plot.areas[0].at + plot.areas[0].width == plot.right
    assert plot.y_ticks[0].text == "0"


def test_bars_stand_inside() -> None:
    """Bars begin at zero and stay inside the picture, the first and the last one too; one alone has a width."""
    for times in (TIMES, TIMES[:1]):
        plot = draw([Trace("events", "events", "bars", times, np.arange(10.0)[: len(times)] + 1)], zero=True)
        assert plot is not None
        starts = [float(x) for x in re.findall(r"M([\d.-]+) ", plot.lines[0].path)]
        widths = [float(x) for x in re.findall(r"h([\d.]+)", plot.lines[0].path)]
        assert min(starts) >= plot.left - 0.1
        assert max(starts) + widths[0] <= plot.right + 0.1
        assert min(widths) > 0


def test_a_label_cannot_end_the_data() -> None:
    """Markup in a label stays a label in the JSON that the page embeds."""
    plot = draw([Trace("</script><b>", "a", "actual", TIMES, np.arange(10.0))])
    assert plot is not None
    assert "<" not in plot.data
    assert json.loads(plot.data)["lines"][0]["label"] == "</script><b>"


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=10, max_size=10), st.lists(st.floats(-1e12, 1e12), min_size=5, max_size=5)
)
def test_everything_stays_inside(actual: list[float], mean: list[float]) -> None:
    """Whatever the values, every coordinate is inside the picture and every axis has several distinct marks."""
    plot = drawn(np.array(actual), np.array(mean))
    for line in plot.lines:
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", line.path + line.band):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT
    assert len({tick.text for tick in plot.y_ticks}) == len(plot.y_ticks) >= 2


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e-280, 1e-20, 1e16, 1e299])
def test_values_at_the_ends_of_the_scale(value: float) -> None:
    """The smallest and largest numbers are drawn like any other, with marks that fit beside the axis."""
    plot = drawn(np.linspace(0, value, 10), np.full(5, -value))
    assert all(len(tick.text) <= 9 for tick in plot.y_ticks)
    assert len({tick.text for tick in plot.y_ticks}) == len(plot.y_ticks)


def test_an_absurd_value_is_not_drawn() -> None:
    """Where differences overflow there is no plot; an infinity is a gap."""
    assert draw([Trace("a", "a", "actual", TIMES, np.array([-1.7e308, 1.7e308] * 5))]) is None
    assert "inf" not in drawn(np.array([1.0, np.inf, *range(8)]), np.arange(5.0)).lines[0].path


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
