"""Snapshots of a real store, as ticks and trainings leave it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sentinel_core.config import WatchConfig
from sentinel_core.emitter.snapshot import Forecasts, Snapshot, SnapshotLoader
from sentinel_core.errors import StoreError
from sentinel_core.series import Series
from tests.emitter.fleet import NOW, Fleet, Issue, Opener, many

REQUESTS = WatchConfig(metric="requests", model_class="LinearTrendModel")
MEMORY = WatchConfig(metric="memory", model_class="LinearTrendModel", granularity="5m", horizon="10m")


def loader(fleet: Fleet) -> SnapshotLoader:
    """A loader with the fleet's configuration."""
    return SnapshotLoader(fleet.store, fleet.config)


def blocks(snapshot: Snapshot) -> dict[str, Forecasts]:
    """The snapshot's forecasts by metric name."""
    return {block.name: block for block in snapshot.forecasts}


def values(block: Forecasts) -> dict[str, list[float]]:
    """Means by the series' text."""
    return {series.selector: row.tolist() for series, row in zip(block.series, block.mean, strict=True)}


def test_the_newest_live_forecast_of_every_watch(open_fleet: Opener) -> None:
    """A snapshot holds each watch's newest origin with its leads, bounds and versions, series by series."""
    fleet = open_fleet(REQUESTS, MEMORY)
    requests, memory = many("requests", 2), many("memory", 1)
    fleet.live(REQUESTS, requests)
    fleet.live(MEMORY, memory)
    fleet.forecast(Issue(REQUESTS, requests, np.zeros((2, 5))), origin=NOW - 60)
    mean = np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    fleet.forecast(Issue(REQUESTS, requests, mean, versions=[3, -3], spread=2.0))
    fleet.forecast(Issue(MEMORY, memory, np.array([[7.0, 8.0]]), versions=0))
    snapshot = loader(fleet).load(NOW + 1.0)
    block = blocks(snapshot)["requests"]
    assert values(block) == dict(zip([one.selector for one in requests], mean.tolist(), strict=True))
    assert (block.origin, block.horizon, block.leads.tolist()) == (NOW, "5m", [1, 2, 3, 4, 5])
    assert dict(zip(block.series, block.versions.tolist(), strict=True)) == {
        requests[0]: 3,
        requests[1]: -3,
    }
    assert np.array_equal(block.upper - block.lower, np.full((2, 5), 4.0))
    assert values(blocks(snapshot)["memory"]) == {memory[0].selector: [7.0, 8.0]}
    assert snapshot.read_at == NOW + 1.0


def test_each_series_newest_anomaly_score_is_shown(open_fleet: Opener) -> None:
    """Once it is scored; one that is five minutes old or unknown is not. A new score is seen with the next load."""
    fleet, series = open_fleet(REQUESTS), many("requests", 4)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((4, 5))))
    source = loader(fleet)
    assert np.isnan(blocks(source.load(NOW))["requests"].anomaly).all()
    fleet.score(REQUESTS, series[2:3], np.array([[7.0]]), end=NOW - 300)
    fleet.score(REQUESTS, series, np.array([[0.3, 0.4], [0.5, np.nan], [np.nan, np.nan], [2.0, 3.0]]))
    assert told(source.load(NOW), series) == [0.4, 0.5, None, 3.0]
    fleet.score(REQUESTS, series[:1], np.array([[1.5]]), end=NOW + 240)
    assert told(source.load(NOW + 240), series) == [1.5, None, None, 3.0]


def told(snapshot: Snapshot, series: list[Series]) -> list[float | None]:
    """Anomaly scores of some series of one watch."""
    block = blocks(snapshot)["requests"]
    known = {one: value for one, value in zip(block.series, block.anomaly.tolist(), strict=True) if value == value}
    return [known.get(one) for one in series]


def test_replays_are_not_shown(open_fleet: Opener) -> None:
    """A replay of a later origin changes nothing."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))))
    fleet.forecast(Issue(REQUESTS, series, np.full((1, 5), 9.0)), mode=1)
    assert values(blocks(loader(fleet).load(NOW))["requests"]) == {series[0].selector: [1.0] * 5}


def test_thresholds_are_those_that_are_configured_now(open_fleet: Opener) -> None:
    """What meets a threshold is known with the forecast; another threshold needs no new one."""
    watch = replace(REQUESTS, thresholds={"above": 6.5})
    fleet, series = open_fleet(watch), many("requests", 2)
    fleet.live(watch, series)
    fleet.forecast(Issue(watch, series, np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]]), spread=0.5))
    loading = loader(fleet)

    def met() -> dict[str, dict[Series, int]]:
        block = blocks(loading.load(NOW))["requests"]
        return {str(one.threshold): dict(zip(block.series, one.leads.tolist(), strict=True)) for one in block.crossings}

    assert met() == {"above 6.5": {series[0]: 0, series[1]: 2}}
    loading.configure(replace(fleet.config, watches=[replace(watch, thresholds={"below": 1.5})]))
    assert met() == {"below 1.5": {series[0]: 1, series[1]: 0}}
    fleet.vanish(watch, series[0])
    assert met() == {"below 1.5": {series[1]: 0}}
    loading.configure(replace(fleet.config, watches=[REQUESTS]))
    assert met() == {}


def test_a_thinned_forecast_meets_no_threshold(open_fleet: Opener) -> None:
    """Compaction leaves an old forecast a few of its leads: what lay between them is not guessed."""
    watch = replace(REQUESTS, thresholds={"above": 6.0})
    fleet, series = open_fleet(watch), many("requests", 1)
    fleet.live(watch, series)
    fleet.forecast(Issue(watch, series, np.full((1, 4), 9.0)))
    assert blocks(loader(fleet).load(NOW))["requests"].crossings == ()


def test_nothing_is_read_again_while_nothing_is_committed(open_fleet: Opener) -> None:
    """Without a commit a load returns what it had, seen again at the new time."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))))
    loading = loader(fleet)
    first, second = loading.load(NOW), loading.load(NOW + 5.0)
    assert second.watches is first.watches
    assert second.read_at == NOW + 5.0


def test_only_what_changed_is_read_again(open_fleet: Opener) -> None:
    """A tick of one watch leaves the other's forecasts the same objects, and the series keep theirs."""
    fleet = open_fleet(REQUESTS, MEMORY)
    requests, memory = many("requests", 2), many("memory", 1)
    fleet.live(REQUESTS, requests)
    fleet.live(MEMORY, memory)
    fleet.forecast(Issue(REQUESTS, requests, np.ones((2, 5))))
    fleet.forecast(Issue(MEMORY, memory, np.ones((1, 2))))
    loading = loader(fleet)
    before = blocks(loading.load(NOW))
    fleet.forecast(Issue(REQUESTS, requests, np.full((2, 5), 2.0)), origin=NOW + 60)
    after = blocks(loading.load(NOW + 60))
    assert after["memory"] is before["memory"]
    assert after["requests"].origin == NOW + 60
    assert after["requests"].series is before["requests"].series


def test_a_vanished_series_leaves_at_once(open_fleet: Opener) -> None:
    """A series that vanished after the forecast was issued is not shown any more; the others are."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 3)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((3, 5))))
    loading = loader(fleet)
    loading.load(NOW)
    fleet.vanish(REQUESTS, series[1])
    assert set(values(blocks(loading.load(NOW))["requests"])) == {series[0].selector, series[2].selector}
    assert set(values(blocks(loader(fleet).load(NOW))["requests"])) == {series[0].selector, series[2].selector}


def test_a_new_series_comes_with_the_next_forecast(open_fleet: Opener) -> None:
    """A series found later is shown once a forecast has it."""
    fleet = open_fleet(REQUESTS)
    old, new = many("requests", 1), [Series.of("requests", {"instance": "new"})]
    fleet.live(REQUESTS, old)
    fleet.forecast(Issue(REQUESTS, old, np.ones((1, 5))))
    loading = loader(fleet)
    loading.load(NOW)
    fleet.live(REQUESTS, new)
    assert len(blocks(loading.load(NOW))["requests"].series) == 1
    fleet.forecast(Issue(REQUESTS, [*old, *new], np.ones((2, 5)), versions=[1, 0]), origin=NOW + 60)
    assert len(blocks(loading.load(NOW))["requests"].series) == 2


def test_a_watch_that_left_the_configuration_is_not_shown(open_fleet: Opener) -> None:
    """Only configured watches are in a snapshot, whatever the store holds."""
    fleet = open_fleet(REQUESTS, MEMORY)
    series = many("memory", 1)
    fleet.live(MEMORY, series)
    fleet.forecast(Issue(MEMORY, series, np.ones((1, 2))))
    loading = loader(fleet)
    assert "memory" in blocks(loading.load(NOW))
    loading.configure(replace(fleet.config, watches=[REQUESTS]))
    snapshot = loading.load(NOW)
    assert blocks(snapshot) == {}
    assert [watch.config.slug for watch in snapshot.watches] == [REQUESTS.slug]


def test_a_series_of_two_watches_is_shown_once(open_fleet: Opener) -> None:
    """Where watches with one horizon overlap, the first in the configuration shows the series; the rest is counted."""
    first = WatchConfig(metric="requests", labels={"job": "api"}, model_class="LinearTrendModel")
    fleet = open_fleet(first, REQUESTS)
    api, web = (Series.of("requests", {"job": job}) for job in ("api", "web"))
    fleet.live(first, [api])
    fleet.live(REQUESTS, [api, web])
    fleet.forecast(Issue(first, [api], np.ones((1, 5))), Issue(REQUESTS, [web, api], np.full((2, 5), 2.0)))
    snapshot = loader(fleet).load(NOW)
    shown = [(block.slug, series.selector) for block in snapshot.forecasts for series in block.series]
    assert shown == [(first.slug, api.selector), (REQUESTS.slug, web.selector)]
    assert snapshot.dropped == 1


def test_a_series_with_two_horizons_is_shown_twice(open_fleet: Opener) -> None:
    """Watches that differ in their horizon do not collide."""
    far = WatchConfig(metric="requests", model_class="LinearTrendModel", horizon="10m")
    fleet = open_fleet(REQUESTS, far)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.live(far, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))), Issue(far, series, np.ones((1, 10))))
    snapshot = loader(fleet).load(NOW)
    assert [block.horizon for block in snapshot.forecasts] == ["5m", "10m"]
    assert snapshot.dropped == 0


def test_a_lost_file_leaves_the_other_watches_alone(open_fleet: Opener) -> None:
    """A watch whose newest segment is gone keeps its older forecast and says so; it recovers when the file is back."""
    fleet = open_fleet(REQUESTS, MEMORY)
    requests, memory = many("requests", 1), many("memory", 1)
    fleet.live(REQUESTS, requests)
    fleet.live(MEMORY, memory)
    fleet.forecast(Issue(REQUESTS, requests, np.ones((1, 5))))
    loading = loader(fleet)
    loading.load(NOW)
    segment = fleet.forecast(Issue(REQUESTS, requests, np.full((1, 5), 2.0)), origin=NOW + 60)
    file = Path(fleet.store.segments.folder.address(fleet.store.segments.get(segment).path))
    hidden = file.rename(file.with_suffix(".hidden"))
    fleet.forecast(Issue(MEMORY, memory, np.full((1, 2), 3.0)))
    snapshot = loading.load(NOW + 60)
    assert values(blocks(snapshot)["requests"]) == {requests[0].selector: [1.0] * 5}
    assert values(blocks(snapshot)["memory"]) == {memory[0].selector: [3.0] * 2}
    assert "restore it from a backup" in (snapshot.watches[0].unreadable or "")
    assert snapshot.watches[1].unreadable is None
    hidden.rename(file)
    recovered = loading.load(NOW + 66)
    assert values(blocks(recovered)["requests"]) == {requests[0].selector: [2.0] * 5}
    assert recovered.watches[0].unreadable is None


def test_a_compacted_segment_is_found_by_its_time(open_fleet: Opener) -> None:
    """When the segment that the state names was merged into another, the forecast is read from that one."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    issue = Issue(REQUESTS, series, np.arange(5.0)[None])
    fleet.live(REQUESTS, series)
    first = fleet.forecast(issue)
    fleet.forecast(issue)
    fleet.state(REQUESTS, forecast_segment_id=first)
    with fleet.store.database.write() as connection:
        fleet.store.segments.drop(connection, [first], float(NOW))
    assert values(blocks(loader(fleet).load(NOW))["requests"]) == {series[0].selector: [0.0, 1, 2, 3, 4]}


def test_a_store_without_tables_is_an_error_with_a_remedy(tmp_path: Path, open_fleet: Opener) -> None:
    """Before the first `sentinel up` a load raises StoreError, which says what to do."""
    fleet = open_fleet(REQUESTS)
    for file in tmp_path.glob("sentinel.db*"):
        file.unlink()
    fleet.store.close()
    with pytest.raises(StoreError, match="sentinel up"):
        loader(fleet).load(NOW)


def test_a_watch_that_the_store_never_saw(open_fleet: Opener) -> None:
    """A configured watch is in the snapshot before any tick registered it."""
    fleet = open_fleet(REQUESTS)
    snapshot = SnapshotLoader(fleet.store, replace(fleet.config, watches=[REQUESTS, MEMORY])).load(NOW)
    assert [watch.state.last_tick_at for watch in snapshot.watches] == [None, None]
