"""The feature matrix against a slow loop that is obviously right."""

import datetime
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentinel_core import features
from sentinel_core.windows import Window


def window_of(values: np.ndarray, step: int = 300, start: int = 1_700_000_100) -> Window:
    values = np.asarray(values, float)
    timestamps = start // step * step + np.arange(values.shape[1]) * step
    return Window(np.arange(len(values)), timestamps, values, step)


def slow_row(series: list[float], target: int, lookback: int, timestamp: int) -> list[float]:
    known: list[float] = []
    for value in series[:target]:
        known.append(value if math.isfinite(value) else (known[-1] if known else math.nan))
    lags = known[-lookback:]
    mean = sum(lags) / lookback
    std = math.sqrt(sum((lag - mean) ** 2 for lag in lags) / lookback)
    moment = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    day = 2 * math.pi * (moment.hour + moment.minute / 60 + moment.second / 3600) / 24
    week = 2 * math.pi * moment.weekday() / 7
    return [*lags, mean, std, math.sin(day), math.cos(day), math.sin(week), math.cos(week)]


@given(
    values=st.lists(
        st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=25, max_size=25), min_size=1, max_size=3
    ),
    lookback=st.integers(1, 9),
)
@example([[625_001.0, 0.0, 0.125, *[math.nan] * 22]], 2)
def test_every_row_equals_a_loop_over_time(values: list[list[float]], lookback: int) -> None:
    """Lags, mean, spread and time of each row are what a plain loop computes, gaps and leading gaps included."""
    window = window_of(np.array(values), step=3_600)
    built = features.build(window, lookback)
    assert built.X.shape == (len(values), 25 - lookback, len(features.feature_names(lookback)))
    for i, series in enumerate(values):
        for row in range(25 - lookback):
            target = row + lookback
            expected = slow_row(series, target, lookback, int(window.timestamps[target]))
            tolerance = np.full(len(expected), 1e-3)
            # a spread below a ten-millionth of the distance from the series' level counts as none
            tolerance[lookback + 1] += 2e-7 * max((abs(value) for value in series if math.isfinite(value)), default=0.0)
            assert np.isclose(built.X[i, row], expected, rtol=1e-9, atol=tolerance, equal_nan=True).all()
            assert built.usable[i, row] == (math.isfinite(series[target]) and not math.isnan(expected[0]))


def test_the_target_never_reaches_its_own_features() -> None:
    """Changing a value changes no row up to and including the one that predicts it."""
    values = np.random.default_rng(0).normal(size=(2, 60))
    before = features.build(window_of(values), 5).X
    values[:, 40] += 1e6
    after = features.build(window_of(values), 5).X
    assert np.array_equal(before[:, : 40 - 5 + 1], after[:, : 40 - 5 + 1])
    assert not np.array_equal(before[:, 40 - 5 + 1], after[:, 40 - 5 + 1])


def test_the_newest_row_is_the_next_row_of_the_history() -> None:
    """The row given to a prediction is the row training would build once the next value is known."""
    values = np.random.default_rng(1).normal(size=(3, 80))
    values[1, 20:30] = np.nan
    values[2, 78:80] = np.nan
    whole = window_of(values)
    row = features.newest_row(whole.newest(80).columns(slice(0, 79)), 12)
    np.testing.assert_allclose(row, features.build(whole, 12).X[:, -1], rtol=1e-12, atol=1e-12)


def test_a_short_window_is_completed_with_its_oldest_value() -> None:
    """Fewer samples than the lookback still give a full row; a series without any gives NaN lags."""
    row = features.newest_row(window_of([[np.nan, 3.0, 4.0], [np.nan, np.nan, np.nan]]), 5)
    assert row[0, :5].tolist() == [3.0, 3.0, 3.0, 3.0, 4.0]
    assert np.isnan(row[1, :7]).all()
    assert np.isfinite(row[1, 7:]).all()
    assert features.build(window_of([[1.0, 2.0]]), 5).X.shape == (1, 0, 11)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_spread_survives_every_scale_and_an_old_spike(scale: float) -> None:
    """A spike long ago and a large level leave the rolling spread of a quiet stretch alone."""
    values = scale * (5.0 + np.tile([0.0, 1.0], 100))[None]
    values[0, 3] *= 1e6
    _, std = features.rolling(values, 10)
    np.testing.assert_allclose(std[0, 20:], 0.5 * scale, rtol=1e-3)
    _, flat = features.rolling(np.full((1, 40), 0.1 * scale), 10)
    assert (flat == 0).all()


def test_lags_are_a_view() -> None:
    """No sample is copied to see every lookback of a history."""
    values = np.arange(12.0).reshape(1, -1)
    assert np.shares_memory(features.lags(values, 4), values)
    assert features.lags(values, 4)[0, 1].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_inputs_stay_as_they_were() -> None:
    """Building features writes nothing into the window."""
    values = np.random.default_rng(2).normal(size=(2, 30))
    values[0, 4:6] = np.nan
    window = window_of(values.copy())
    features.build(window, 4)
    features.newest_row(window, 4)
    np.testing.assert_array_equal(window.values, values)
