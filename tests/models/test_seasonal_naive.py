"""The measure of all models repeats the day before, and honours the contract of a model of many series."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sentinel_core.models import conformance
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.windows import FloatArray, Window

HOUR, DAY = 3_600, 86_400
LEARNING = (conformance.predicts_from_one_sample, conformance.updates_keep_learning)  # it does not


@pytest.mark.parametrize(
    "check", [one for one in conformance.BATCH_CHECKS if one not in LEARNING], ids=lambda check: check.__name__
)
def test_it_conforms(check: Callable[[Any], None]) -> None:
    """It passes every check that is not about learning."""
    check(lambda: SeasonalNaive("1m", "5m", "10m"))


def slowly(values: FloatArray, step_seconds: int, horizon: int) -> FloatArray:
    """One series, lead by lead: back by whole days until the time is known; the last value where that is a gap."""
    last = next(value for value in values[::-1] if np.isfinite(value))
    found = []
    for lead in range(1, horizon + 1):
        at = len(values) - 1 + lead
        while DAY % step_seconds == 0 and at > len(values) - 1:
            at -= DAY // step_seconds
        there = DAY % step_seconds == 0 and at >= 0 and np.isfinite(values[at])
        found.append(values[at] if there else last)
    return np.array(found)


@pytest.mark.parametrize(("step", "horizon"), [("1h", "1h"), ("1h", "12h"), ("1h", "3d"), ("7h", "21h"), ("1d", "3d")])
def test_it_repeats_the_day_before(step: str, horizon: str) -> None:
    """With gaps, beyond a day, and on grids that have no day, it says what a slow loop says."""
    rng = np.random.default_rng(3)
    values = np.where(rng.random((5, 80)) < 0.2, np.nan, rng.normal(size=(5, 80)))
    model = SeasonalNaive(step, horizon, step)
    window = Window(np.arange(5), model.step_seconds * np.arange(80), values, model.step_seconds)
    model.fit_window(window)
    forecast = model.predict_window(window.newest(model.context_steps + 40), model.horizon_steps)
    np.testing.assert_array_equal(forecast, [slowly(row, model.step_seconds, model.horizon_steps) for row in values])
    assert np.isfinite(model.predict_window(window.newest(model.context_steps), model.horizon_steps)).all()
