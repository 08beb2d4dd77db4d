"""Thresholds over time: what was said at each origin, out of the forecasts that are stored."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from sentinel_core.apps.sidecar import create_app
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import is_stale
from sentinel_core.query import crossings as source
from sentinel_core.query.crossings import CrossingSource
from sentinel_core.query.forecast_watches import Watches
from sentinel_core.series import Matcher, Series
from sentinel_core.storage import compaction
from sentinel_core.thresholds import crossings
from tests.apps.server import eventually, running
from tests.emitter.fleet import NOW, Fleet, Issue

STEP, LEADS = 60, 5
DISK = WatchConfig(metric="disk", model_class="LinearTrendModel", horizon="5m", thresholds={"above": 0.9, "below": 0.1})
SERIES = [Series.of("disk", {"instance": f"web-{n}"}) for n in range(3)]
PROBABILITY, TIME = "disk_sentinel_crossing_probability", "disk_sentinel_time_to_threshold_seconds"
Found = dict[tuple[str, str, str], dict[int, float]]


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Opens a fleet of some watches over the same series."""
    opened: list[Fleet] = []

    def open_fleet(*watches: WatchConfig, **settings: object) -> Fleet:
        fleet = Fleet.open(tmp_path, watches, **settings)
        opened.append(fleet)
        for watch in watches:
            fleet.live(watch, SERIES)
        return fleet

    yield open_fleet
    for fleet in opened:
        fleet.store.close()


def source_of(fleet: Fleet, config: SentinelConfig | None = None) -> CrossingSource:
    """What is tested."""
    store, current = fleet.store, config or fleet.config
    return CrossingSource(store, lambda: current, Watches(store, lambda: current))


def issue(fleet: Fleet, minutes: int, mean: np.ndarray, watch: WatchConfig = DISK, mode: int = 0) -> None:
    """A forecast of all series from so many minutes before NOW."""
    fleet.forecast(Issue(watch, SERIES, mean, spread=0.05), origin=NOW - minutes * STEP, mode=mode)


def found(fleet: Fleet, *matchers: Matcher, config: SentinelConfig | None = None) -> Found:
    """Values by minutes before NOW, by metric, instance and threshold; what is stale is left out."""
    asked = source_of(fleet, config)
    selector = matchers or (Matcher("__name__", "=~", "disk_.*"),)
    raw = asked.samples(selector, (NOW - 4 * 86_400) * 1000, NOW * 1000, Budget())
    values: Found = {}
    for row, labels in enumerate(raw.labels):
        mine = slice(raw.offsets[row], raw.offsets[row + 1])
        there = ~is_stale(raw.values[mine])
        minutes = (NOW - raw.times[mine] // 1000) // STEP
        text = dict(labels)
        assert text["sentinel_horizon"] == "5m"
        key = text["__name__"], text["instance"], text["sentinel_threshold"]
        values[key] = dict(zip(minutes[there].tolist(), raw.values[mine][there].tolist(), strict=True))
    return values


def test_every_origin_says_what_its_forecast_says(
    fleets: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series by series and origin by origin, in however many parts; replays and what is not asked for stay out."""
    fleet, rng = fleets(DISK), np.random.default_rng(1)
    means = {minutes: rng.uniform(0, 1, (3, 1)) + rng.normal(0, 0.05, (3, LEADS)) for minutes in (9, 5, 4, 2, 0)}
    for minutes, mean in means.items():
        issue(fleet, minutes, mean)
    issue(fleet, 3, np.full((3, LEADS), 2.0), mode=1)
    monkeypatch.setattr(source, "_BLOCK_CELLS", 3 * LEADS * (3 * 1440 - 3))  # of three days and a minute
    values = found(fleet)
    assert len(values) == 2 * 3 * 2
    for row, series in enumerate(SERIES):
        for column, side in enumerate(("above", "below")):
            key = dict(series.labels)["instance"], f"{side} {DISK.thresholds[side]}"
            for minutes, mean in means.items():
                one = mean[row : row + 1]
                expected = crossings(one, one - 0.05, one + 0.05, 0.95, DISK.thresholds)[column]
                assert values[(PROBABILITY, *key)].pop(minutes) == expected.probability[0]
                seconds = expected.seconds(STEP)[0]
                assert values[(TIME, *key)].pop(minutes, np.nan) == pytest.approx(seconds, nan_ok=True)
            assert values[(PROBABILITY, *key)] == values[(TIME, *key)] == {}
    few = found(
        fleet,
        Matcher("__name__", "=", TIME),
        Matcher("instance", "=", "web-1"),
        Matcher("sentinel_threshold", "=~", "above.*"),
    )
    assert list(few) == [(TIME, "web-1", "above 0.9")]
    assert found(fleet, Matcher("__name__", "=", TIME), Matcher("sentinel_horizon", "=", "1h")) == {}


def test_the_thresholds_are_those_of_now(fleets: Callable[..., Fleet]) -> None:
    """Other thresholds make another past; without any there is none."""
    fleet = fleets(DISK)
    issue(fleet, 1, np.full((3, LEADS), 0.5))
    other = replace(fleet.config, watches=[replace(DISK, thresholds={"above": 0.4})])
    values = found(fleet, config=other)
    assert {key[2] for key in values} == {"above 0.4"}
    assert values[PROBABILITY, "web-0", "above 0.4"] == {1: pytest.approx(1.0, abs=1e-3)}
    assert values[TIME, "web-0", "above 0.4"] == {1: 60.0}
    assert found(fleet, config=replace(fleet.config, watches=[replace(DISK, thresholds={})])) == {}


def test_the_first_of_two_watches_is_told_of(fleets: Callable[..., Fleet]) -> None:
    """As on /metrics: a series that an earlier watch forecasts for the same horizon is that one's."""
    first = replace(DISK, labels={"instance": "=~web-.*"}, thresholds={})
    fleet = fleets(first, DISK)
    for watch in (first, DISK):
        issue(fleet, 0, np.full((3, LEADS), 0.95), watch)
    assert found(fleet) == {}
    other = replace(fleet.config, watches=[DISK, replace(first, thresholds={"above": 0.5})])
    assert {key[2] for key in found(fleet, config=other)} == {"above 0.9", "below 0.1"}


def test_thinned_forecasts_say_nothing(fleets: Callable[..., Fleet]) -> None:
    """Once compaction has taken leads away, what happened between the others is not guessed."""
    fleet = fleets(DISK)
    for days in (3, 0):
        issue(fleet, days * 1440, np.full((3, LEADS), 0.95))
    assert set(found(fleet)[PROBABILITY, "web-0", "above 0.9"]) == {0, 3 * 1440}
    compaction.compact(fleet.store, float(NOW))
    assert set(found(fleet)[PROBABILITY, "web-0", "above 0.9"]) == {0}


def test_a_query_has_its_limits(fleets: Callable[..., Fleet]) -> None:
    """What would take too many forecasts is refused before they are read."""
    fleet = fleets(DISK)
    issue(fleet, 1000, np.full((3, LEADS), 0.5))
    issue(fleet, 0, np.full((3, LEADS), 0.5))
    asked = source_of(fleet)
    with pytest.raises(ExecutionError, match="too many samples"):
        asked.samples([Matcher("__name__", "=", TIME)], (NOW - 86_400) * 1000, NOW * 1000, Budget(cells=10_000))


def test_queries_and_scrapes_agree(fleets: Callable[..., Fleet]) -> None:
    """What /metrics shows is what an instant query answers; a time that is over has ended; the lists know the names."""
    fleet = fleets(DISK, query_passthrough=False)
    issue(fleet, 1, np.array([[0.95], [0.5], [0.05]]) + np.zeros((3, LEADS)))
    issue(fleet, 0, np.array([[0.5], [0.95], [0.89]]) + np.zeros((3, LEADS)))
    with running(create_app(fleet.config, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)) as client:
        eventually(lambda: PROBABILITY in client.get("/metrics").text)
        text = client.get("/metrics").text
        for name, count in ((PROBABILITY, 6), (TIME, 2)):
            answer = asked(client, "query", query=name, time=NOW + 30)["result"]
            assert len(answer) == count
            for one in answer:
                labels = one["metric"]
                inner = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels) if key != "__name__")
                assert f"{name}{{{inner}}} {float(one['value'][1])}\n" in text
        names = asked(client, "label/__name__/values", start=NOW - 60, end=NOW + 30)
        assert {PROBABILITY, TIME} <= set(names)
        assert asked(client, "metadata", metric=TIME)[TIME][0]["type"] == "gauge"
        thresholds = asked(client, "label/sentinel_threshold/values", start=NOW - 60, end=NOW + 30)
        assert thresholds == ["above 0.9", "below 0.1"]


def asked(client: httpx.Client, endpoint: str, **form: object) -> object:
    """The data of an answer."""
    answer = client.get(f"/api/v1/{endpoint}", params=form)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]
