"""How watches are doing, in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sentinel_core.apps.ui.conditions import condition, sentence
from sentinel_core.config import WatchConfig
from sentinel_core.emitter.snapshot import UNSEEN, Forecasts, WatchView
from sentinel_core.series import Series

NOW = 10_000.0
WATCH = WatchConfig(metric="requests", model_class="LinearTrendModel")


def view(*, forecast: bool = True, unreadable: str | None = None, **state: Any) -> WatchView:
    """A watch that ticked 12 s ago, with these changes of its state."""
    series = (Series.of("requests", {}),)
    one = np.zeros((1, 1))
    block = Forecasts(
        WATCH.slug, "requests", "5m", 60, 9960, series, np.array([series[0].fingerprint]), np.array([1]),
        np.array([1], np.int32), one, one, one, one, one, one[0],
    )  # fmt: skip
    known = replace(UNSEEN, watch_id=1, last_tick_at=NOW - 12, series_live=1, buffer_fill=1.0)
    return WatchView(WATCH, replace(known, **state), forecasts=(block,) if forecast else (), unreadable=unreadable)


@pytest.mark.parametrize(
    ("watch", "name"),
    [
        (view(), "forecasting"),
        (view(severity="low"), "drifting"),
        (view(severity="high"), "drifted"),
        (view(last_tick_at=NOW - 181), "late"),
        (view(scraped_until=9960, forecast_origin=9900), "forecasting"),  # its tick is under way
        (view(scraped_until=9960, forecast_origin=9780), "late"),
        (
            view(scraped_until=9960, forecast_origin=9780, last_error="forecast: full", last_error_at=NOW - 20),
            "failing",
        ),
        (view(unreadable="a file is gone"), "unreadable"),
        (view(last_error="refused", last_error_at=NOW), "failing"),
        (view(last_error="refused", last_error_at=NOW - 60), "forecasting"),
        (view(forecast=False), "waiting"),
        (view(severity="high", last_error="refused", last_error_at=NOW), "failing"),
    ],
)
def test_the_worst_thing_is_said(watch: WatchView, name: str) -> None:
    """A watch's condition is the worst that applies; an error before the last success is history."""
    assert condition(watch, NOW).name == name


@pytest.mark.parametrize(
    ("watch", "words"),
    [
        (view(forecast=False, last_tick_at=None), "first tick"),
        (view(forecast=False, buffer_fill=0.4), "40% of the lookback"),
        (view(forecast=False), "first model to be trained"),
    ],
)
def test_what_a_watch_waits_for(watch: WatchView, words: str) -> None:
    """A watch without a forecast says which step comes next."""
    assert words in condition(watch, NOW).text


@pytest.mark.parametrize(
    ("watches", "said"),
    [
        ([view()], "1 watch, 1 series: forecasting; newest forecast 12 s ago"),
        ([view(), view()], "2 watches, 2 series: all forecasting; newest forecast 12 s ago"),
        ([view(), view(severity="high")], "2 watches, 2 series: 1 drifted, 1 forecasting; newest forecast 12 s ago"),
        ([view(forecast=False)], "1 watch, 1 series: waiting"),
        ([view(scraped_until=9960, forecast_origin=9360)], "1 watch, 1 series: late; newest forecast 10 min ago"),
    ],
)
def test_everything_in_one_sentence(watches: list[WatchView], said: str) -> None:
    """The summary counts watches and series, names conditions worst first, and dates the newest forecast."""
    assert sentence(watches, NOW).replace("\N{NO-BREAK SPACE}", " ") == said
