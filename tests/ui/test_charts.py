"""What is drawn of models: long histories, activity, distributions."""

import json

import numpy as np

from sentinel_core.apps.ui.charts import BARS, POINTS, activity_plot, bars, psi_plot
from sentinel_core.config import MonitorConfig
from sentinel_core.monitoring.assessment import BinShare
from sentinel_core.pipeline.monitored import Activity, OutputHistory

HOUR = 3600


def history(adjusted: np.ndarray) -> OutputHistory:
    """One evaluation an hour."""
    n = len(adjusted)
    names = ("psi", "lower", "upper", "floor", "limit", "p", "n_baseline", "n_current")
    numbers = {name: np.full(n, 0.01) for name in names}
    ones = np.ones(n, np.int64)
    return OutputHistory(
        output=0, hours=HOUR * np.arange(n), adjusted=adjusted, baseline=ones, days=ones, state=["ok"] * n, **numbers
    )  # fmt: skip


def test_a_long_history_keeps_its_worst_hours() -> None:
    """A quarter of a year is thinned, and one bad hour, or a verdict among hours without one, is still there."""
    adjusted = np.full(2160, 0.01)
    adjusted[1000] = 0.7
    adjusted[1500:1600] = np.nan
    adjusted[1550] = 0.02
    plot = psi_plot(history(adjusted), MonitorConfig(), [], 0.0)
    assert plot is not None
    data = json.loads(plot.data)
    values = data["lines"][1]["values"]
    assert len(values) <= POINTS
    assert data["times"][values.index(0.7)] == 1000 * HOUR
    assert 0.02 in values


def test_nothing_was_evaluated() -> None:
    """An empty history has no plot; hours without a verdict still show what chance explains."""
    assert psi_plot(history(np.full(5, np.nan)), MonitorConfig(), [], 0.0) is not None  # the range of chance is known
    nothing = history(np.empty(0))
    assert psi_plot(nothing, MonitorConfig(), [], 0.0) is None


def test_activity_adds_up() -> None:
    """However long the span, every event since the first whole bar is in a bar; no events are no plot."""
    for hours in (24, 168, 720, 2160):
        events = np.arange(hours)
        plot = activity_plot(Activity(HOUR * np.arange(hours), events, 0), HOUR)
        assert plot is not None
        values = json.loads(plot.data)["lines"][0]["values"]
        assert len(values) <= BARS
        assert sum(values) == events[-(hours // (hours // len(values))) * (hours // len(values)) :].sum()
    assert activity_plot(Activity(HOUR * np.arange(24), np.zeros(24, np.int64), 0), HOUR) is None


def test_bars_fill_their_column() -> None:
    """The longest bar of a column is as wide as the column; nothing to draw is no error."""
    first, second = bars([BinShare("a", 0.2, 0.8, 0.5), BinShare("b", 0.0, 0.4, 0.0)])
    assert (first.before, first.after, first.pushed) == (25, 100, 100)
    assert (second.before, second.after, second.pushed) == (0, 50, 0)
    assert bars([]) == []
    assert bars([BinShare("a", 0.0, 0.0, 0.0)])[0].after == 0
