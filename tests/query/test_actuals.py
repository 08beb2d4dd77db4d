"""What was read, as series: the samples of every watch, whichever way they came."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sentinel_core.config import WatchConfig
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.query.actuals import ActualSource
from sentinel_core.query.forecast_watches import Watches
from sentinel_core.series import Matcher, Series
from tests.emitter.fleet import NOW, Fleet

MODEL = "LinearTrendModel"
MINUTES = WatchConfig(metric="hits", model_class=MODEL)
HOURS = WatchConfig(metric="users", model_class=MODEL, granularity="1h", horizon="3h", lookback="6h")
AGAIN = WatchConfig(metric="hits", model_class=MODEL, horizon="10m")
PODS = [Series.of("hits", {"pod": pod}) for pod in "ab"]
USERS = [Series.of("users", {})]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Two watches of one metric and one of another, with samples and a gap."""
    fleet = Fleet.open(tmp_path, [MINUTES, AGAIN, HOURS])
    for watch, series in ((MINUTES, PODS), (AGAIN, PODS), (HOURS, USERS)):
        fleet.live(watch, series)
    fleet.actuals(MINUTES, PODS, np.array([[1.0, np.nan, 3.0], [10.0, 20.0, 30.0]]))
    hour = NOW // 3600 * 3600
    fleet.actuals(HOURS, USERS, np.array([[5.0, 6.0]]), end=hour)
    yield fleet
    fleet.store.close()


def source(fleet: Fleet) -> ActualSource:
    """What is tested, at NOW."""
    watches = Watches(fleet.store, lambda: fleet.config)
    return ActualSource(fleet.store, lambda: fleet.config, watches, lambda: float(NOW))


def name(text: str) -> Matcher:
    """A matcher on the name."""
    return Matcher("__name__", "=", text)


def test_each_series_is_there_once_with_its_samples(fleet: Fleet) -> None:
    """Gaps have no sample, and two watches of a series do not double it."""
    found = source(fleet).samples([name("hits_sentinel_actual")], (NOW - 600) * 1000, NOW * 1000, Budget())
    values = {
        dict(labels)["pod"]: list(
            zip(
                (found.times[slice(*found.offsets[row : row + 2])] // 1000 - NOW).tolist(),
                found.values[slice(*found.offsets[row : row + 2])].tolist(),
                strict=True,
            )
        )
        for row, labels in enumerate(found.labels)
    }
    assert values == {"a": [(-120, 1.0), (0, 3.0)], "b": [(-120, 10.0), (-60, 20.0), (0, 30.0)]}


def test_an_hour_is_bridged_where_samples_are_hourly(fleet: Fleet) -> None:
    """The look-back is the watch's step where that is longer than five minutes."""
    vector = source(fleet).vector([name("users_sentinel_actual")], np.array([NOW * 1000]), Budget())
    assert vector.labels == ((("__name__", "users_sentinel_actual"),),)
    assert vector.present.tolist() == [[True]]
    assert vector.values.tolist() == [[6.0]]


def test_labels_select(fleet: Fleet) -> None:
    """Matchers are on the series' own labels, and the name may be an expression."""
    found = source(fleet).series(
        [Matcher("__name__", "=~", ".+_actual"), Matcher("pod", "!=", "a")], 0, 2**52, Budget()
    )
    assert sorted(found) == [
        (("__name__", "hits_sentinel_actual"), ("pod", "b")),
        (("__name__", "users_sentinel_actual"),),
    ]
    assert set(source(fleet).metadata()) == {"hits_sentinel_actual", "users_sentinel_actual"}


def test_a_budget_ends_what_is_too_much(fleet: Fleet) -> None:
    """It is asked before anything is read."""
    with pytest.raises(ExecutionError, match="too many samples"):
        source(fleet).samples([name("hits_sentinel_actual")], (NOW - 86_400) * 1000, NOW * 1000, Budget(cells=100))
