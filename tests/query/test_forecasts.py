"""Forecast series against a slow reading of the same store, and what a cache may get wrong."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.durations import format_duration
from sentinel_core.emitter.exposition import version_label
from sentinel_core.errors import StoreError
from sentinel_core.promql.errors import BadQueryError, NotSupportedError, QueryTimeoutError, TooBusyError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import look_back
from sentinel_core.promql.values import Labels, Vector, is_stale
from sentinel_core.query import forecast_cache, forecast_matrices, forecasts
from sentinel_core.query.forecast_cache import ForecastCache
from sentinel_core.query.forecast_watches import Watches
from sentinel_core.query.forecasts import ForecastSource
from sentinel_core.series import Matcher, Series
from sentinel_core.storage import forecast_store, watch_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.database import Database
from tests.emitter.fleet import NOW, Fleet, Issue, Opener, many

REQUESTS = WatchConfig(metric="requests", model_class="LinearTrendModel")
HALF = WatchConfig(metric="requests", model_class="LinearTrendModel", granularity="30s")
HOURLY = WatchConfig(metric="load", model_class="LinearTrendModel", granularity="1h", horizon="3h", lookback="12h")
NAME = "requests_sentinel_predicted"
Seen = dict[Labels, dict[int, float]]  # value by time, of each series


def source(fleet: Fleet, **settings: int) -> ForecastSource:
    """A source with the fleet's configuration."""
    return ForecastSource(fleet.store, Watches(fleet.store, lambda: fleet.config), **settings)


def matchers(name: str = NAME, **labels: str) -> list[Matcher]:
    """A selector; label values as in a watch's `labels`."""
    return [Matcher("__name__", "=", name), *(Matcher.parse(label, text) for label, text in labels.items())]


def times(start: int, end: int, step: int = 60) -> np.ndarray:
    """Milliseconds."""
    return np.arange(start, end + 1, step, dtype=np.int64) * 1000


def seen(vector: Vector, at: np.ndarray) -> Seen:
    """What a vector has, by series and time in seconds."""
    assert len(set(vector.labels)) == len(vector.labels)
    found = {}
    for labels, values, present in zip(vector.labels, vector.values, vector.present, strict=True):
        some = {int(t) // 1000: float(v) for t, v, there in zip(at, values, present, strict=True) if there}
        if some:
            found[labels] = some
    return found


def asked(fleet_source: ForecastSource, selector: Sequence[Matcher], at: np.ndarray) -> Seen:
    """Evaluate a selector at some times."""
    return seen(fleet_source.vector(selector, at, Budget()), at)


def slowly(
    fleet: Fleet,
    watch: WatchConfig,
    series: Sequence[Series],
    at: np.ndarray,
    lead: int = 0,
    origin: int | None = None,
    marks: Mapping[str, str] = {},
    suffix: str = "",
    quantity: str = "mean",
) -> Seen:
    """The same, forecast by forecast."""
    by_fingerprint = {one.fingerprint: one for one in series}
    columns = forecast_store.read_forecasts(fleet.store, watch.step_seconds, watch_ids=[fleet.id(watch)])
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    rows = [row for row in rows if np.isfinite(row[quantity])]
    if origin is not None:
        newest = max((row["origin"] for row in rows if row["origin"] <= origin), default=None)
        rows = [row for row in rows if row["origin"] == newest]
    if lead:
        rows = [row for row in rows if row["lead"] == lead]
    best: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        if best.get((row["fp"], row["ts"]), row)["origin"] <= row["origin"]:
            best[row["fp"], row["ts"]] = row
    found: Seen = {}
    lookback = max(300, watch.step_seconds)
    for fingerprint, one in by_fingerprint.items():
        mine = sorted((ts, row) for (fp, ts), row in best.items() if fp == fingerprint)
        for t in (at // 1000).tolist():
            standing = [row for ts, row in mine if t - lookback < ts <= t]
            if standing:
                own = {"sentinel_horizon": watch.horizon, "sentinel_version": version_label(standing[-1]["version"])}
                name = f"{one.name}_sentinel_predicted{suffix}"
                labels = tuple(sorted({**dict(one.labels), **own, **marks, "__name__": name}.items()))
                found.setdefault(labels, {})[t] = standing[-1][quantity]
    return found


class World:
    """A fleet with ticks that come, fail, are issued again, and lose and find series."""

    def __init__(self, fleet: Fleet, watch: WatchConfig, start: int, seed: int) -> None:
        self.fleet, self.watch, self.origin = fleet, watch, start
        self.random = np.random.default_rng(seed)
        self.series = many(watch.metric or "", 6)
        self.alive = np.ones(6, bool)
        self.version = 1
        fleet.live(watch, self.series)

    def ticks(self, count: int) -> None:
        """Let some ticks pass; those of one call are committed together."""
        parts = []
        for _ in range(count):
            self.origin += self.watch.step_seconds
            chance = self.random.random(4)
            if chance[0] < 0.1:
                self.origin += self.watch.step_seconds * int(self.random.integers(1, 8))
            if chance[1] < 0.1:
                self.alive = self.random.random(6) < 0.7
            if chance[2] < 0.05:
                self.version += 1
            parts.append(self.columns())
            if chance[3] < 0.1:
                self.version += 1
                parts.append(self.columns())  # promoted: issued again
        for some in (parts[:-1], parts[-1:]):
            if some:
                columns = {name: np.concatenate([part[name] for part in some]) for name in some[0]}
                self.commit(columns)

    def columns(self) -> dict[str, np.ndarray]:
        alive = [one for one, lives in zip(self.series, self.alive, strict=True) if lives]
        mean = self.random.normal(size=(len(alive), self.watch.horizon_steps))
        mean[np.random.default_rng(self.origin).random(len(alive)) < 0.05] = np.nan  # a series without a sample yet
        versions = self.random.choice([self.version, -self.version], len(alive), p=[0.9, 0.1]).tolist()
        return Issue(self.watch, alive, mean, versions).columns(self.fleet.id(self.watch), self.origin, 0)

    def commit(self, columns: dict[str, np.ndarray]) -> None:
        pending = forecast_store.write_forecasts(self.fleet.store, self.watch.step_seconds, columns, now=self.origin)
        with self.fleet.store.database.write() as connection:
            self.fleet.store.segments.commit(connection, [pending])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_cached_stays_what_the_store_has(open_fleet: Opener, seed: int) -> None:
    """Through missed ticks, vanishing series, new versions, issues again and merges each view is what it should be."""
    fleet = open_fleet(REQUESTS)
    start = NOW // (256 * 60) * 256 * 60 - 40 * 60  # the end of a chunk is on the way
    world = World(fleet, REQUESTS, start, seed)
    cached = source(fleet)
    for count in (1, 30, 1, 1, 60, 1):
        world.ticks(count)
        if count == 60:
            compact(fleet.store, float(world.origin + 7200))
        at = times(start + 7, world.origin + 700, 60)
        assert asked(cached, matchers(), at) == slowly(fleet, REQUESTS, world.series, at)
        mine = {"sentinel_lead": "3m"}
        expected = slowly(fleet, REQUESTS, world.series, at, lead=3, marks=mine)
        assert asked(cached, matchers(**mine), at) == expected
        asked_at = int(world.random.integers(start, world.origin + 120))
        mine = {"sentinel_origin": datetime.fromtimestamp(asked_at, UTC).isoformat()}
        expected = slowly(fleet, REQUESTS, world.series, at, origin=asked_at, marks=mine)
        assert asked(cached, matchers(**mine), at) == expected
        assert asked(source(fleet), matchers(), at) == asked(cached, matchers(), at)


def test_thinned_forecasts_fill_gaps_with_the_leads_that_are_left(open_fleet: Opener) -> None:
    """What old forecasts have lost is not shown, and the next one that is left stands in."""
    fleet = open_fleet(REQUESTS)
    world = World(fleet, REQUESTS, NOW - 5 * 86_400, 7)
    world.ticks(80)
    compact(fleet.store, float(NOW))
    assert all(segment.thinned for segment in fleet.store.segments.segments("forecasts"))
    at = times(NOW - 5 * 86_400, world.origin + 700, 20)
    assert asked(source(fleet), matchers(), at) == slowly(fleet, REQUESTS, world.series, at)


def test_bounds_are_series_of_their_own(open_fleet: Opener) -> None:
    """The lower and the upper bound have names of their own; a regular expression on the name finds all three."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 2)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.arange(10.0).reshape(2, 5), spread=2.0))
    at = times(NOW, NOW + 300)
    expected = slowly(fleet, REQUESTS, series, at)
    for suffix in ("lower", "upper"):
        expected |= slowly(fleet, REQUESTS, series, at, suffix=f"_{suffix}", quantity=suffix)
    assert len(expected) == 6
    assert asked(source(fleet), [Matcher("__name__", "=~", "requests_.*")], at) == expected


def test_inner_bounds_are_series_of_watches_that_have_an_inner_level(open_fleet: Opener) -> None:
    """A watch without one has neither such series nor such names."""
    narrow = replace(REQUESTS, metric="load", inner_level=0.8)
    fleet, requests, load = open_fleet(REQUESTS, narrow), many("requests", 1), many("load", 1)
    for watch, series in ((REQUESTS, requests), (narrow, load)):
        fleet.live(watch, series)
        fleet.forecast(Issue(watch, series, np.full((1, 5), 7.0), spread=2.0, inner=0.5))
    answers, at = source(fleet), times(NOW + 60, NOW + 300)
    for suffix, quantity in (("_inner_lower", "inner_lower"), ("_inner_upper", "inner_upper")):
        found = asked(answers, matchers(f"load_sentinel_predicted{suffix}"), at)
        assert found == slowly(fleet, narrow, load, at, suffix=suffix, quantity=quantity) != {}
    assert asked(answers, matchers("requests_sentinel_predicted_inner_lower"), at) == {}
    every = [Matcher("__name__", "=~", ".+_sentinel_predicted_inner_.*")]
    found = answers.series(every, NOW * 1000, (NOW + 300) * 1000, Budget())
    assert {dict(labels)["__name__"] for labels in found} == {
        "load_sentinel_predicted_inner_lower",
        "load_sentinel_predicted_inner_upper",
    }
    assert {name for name in answers.metadata() if "inner" in name} == {dict(labels)["__name__"] for labels in found}


def test_labels_choose_series_horizons_and_versions(open_fleet: Opener) -> None:
    """Matchers on the series' labels, on the horizon and on the version choose; an absent label is empty."""
    fleet = open_fleet(REQUESTS)
    series = [*many("requests", 3), Series.of("requests", {"job": "api"})]
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((4, 5)), versions=[1, 1, -1, 0]))
    found, at = source(fleet), times(NOW, NOW + 300)

    def count(**labels: str) -> int:
        return len(asked(found, matchers(**labels), at))

    assert count() == 4
    assert count(instance="10.0.0.1:9090") == 1
    assert count(instance="=~10.*") == 3
    assert count(instance="") == count(job="api") == count(instance="!~1.*") == 1
    assert count(sentinel_horizon="5m") == 4
    assert count(sentinel_horizon="!=5m") == 0
    assert count(sentinel_version="v1") == 2
    assert count(sentinel_version="=~v1.*") == 3
    assert count(sentinel_version="naive") == 1
    assert len(asked(found, matchers("requests"), at)) == 0


def test_two_versions_of_a_series_are_never_there_at_once(open_fleet: Opener) -> None:
    """Where another version takes over, the old one's series ends, in steps and in raw samples."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5)), versions=1), origin=NOW - 60)
    fleet.forecast(Issue(REQUESTS, series, np.full((1, 5), 2.0), versions=2))
    at = times(NOW - 60, NOW + 900, 15)
    found = source(fleet).vector(matchers(), at, Budget())
    assert (found.present.sum(axis=0) <= 1).all()
    samples = source(fleet).samples(matchers(), (NOW - 600) * 1000, (NOW + 900) * 1000, Budget())
    ended = dict(zip(samples.labels, np.split(is_stale(samples.values), samples.offsets[1:-1]), strict=True))
    assert {dict(labels)["sentinel_version"]: marks.tolist() for labels, marks in ended.items()} == {
        "v1": [False, True],
        "v2": [False] * 5,
    }
    assert seen(look_back(samples, at, Budget()), at) == seen(found, at)


def test_raw_samples_look_back_as_steps_do(open_fleet: Opener) -> None:
    """Raw samples, looked back from by anybody, are what is answered for steps."""
    fleet = open_fleet(REQUESTS)
    world = World(fleet, REQUESTS, NOW, 11)
    world.ticks(50)
    at = times(NOW, world.origin + 600, 30)
    samples = source(fleet).samples(matchers(), int(at[0]) - 1_200_000, int(at[-1]), Budget())
    assert seen(look_back(samples, at, Budget()), at) == asked(source(fleet), matchers(), at)


def test_hourly_forecasts_have_no_gaps(open_fleet: Opener) -> None:
    """A forecast stands for what comes after it until the next one, up to one step."""
    fleet = open_fleet(HOURLY)
    series = many("load", 1)
    origin = NOW // 3600 * 3600
    fleet.live(HOURLY, series)
    fleet.forecast(Issue(HOURLY, series, np.array([[1.0, 2.0, 3.0]])), origin=origin)
    at = times(origin + 3600, origin + 4 * 3600, 60)
    found = source(fleet).vector(matchers("load_sentinel_predicted"), at, Budget())
    assert found.present[0].tolist() == [True] * 180 + [False]
    assert found.values[0, :180].tolist() == [1.0] * 60 + [2.0] * 60 + [3.0] * 60


def test_timestamps_are_those_of_the_forecasts(open_fleet: Opener) -> None:
    """Instead of the values the times of the samples, in seconds."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))))
    found = source(fleet).vector(matchers(), times(NOW + 90, NOW + 150, 30), Budget(), timestamps=True)
    assert found.values.tolist() == [[NOW + 60, NOW + 120, NOW + 120]]


def test_replays_are_not_shown(open_fleet: Opener) -> None:
    """What was forecast afterwards was not known then."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))), mode=1)
    assert asked(source(fleet), matchers(), times(NOW, NOW + 600)) == {}


def test_the_lead_is_any_duration_that_a_matcher_lets_through(open_fleet: Opener) -> None:
    """An equality is read as a duration; others see the leads as we write them; what lets "" through means none."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))))
    found, at = source(fleet), times(NOW, NOW + 600)

    def leads(matcher: str) -> set[str]:
        return {dict(labels).get("sentinel_lead", "") for labels in asked(found, matchers(sentinel_lead=matcher), at)}

    assert leads("120s") == {"120s"}
    assert leads("=~[24]m") == {"2m", "4m"}
    assert leads("!=") == {format_duration(60 * lead) for lead in range(1, 6)}
    assert leads("90s") == leads("6m") == set()
    assert leads("=~.*") == leads("!=2m") == {""}
    with pytest.raises(BadQueryError, match="is not a duration"):
        leads("soon")


def test_an_origin_is_one_time(open_fleet: Opener) -> None:
    """A vintage is asked for by an equality with a time of a known zone; what else there is says so."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 1)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((1, 5))))
    found, at = source(fleet), times(NOW, NOW + 600)

    def asked_for(**labels: str) -> int:
        return len(asked(found, matchers(**labels), at))

    assert asked_for(sentinel_origin="2027-01-15T08:00:00.5Z") == 1
    assert asked_for(sentinel_origin="2027-01-15T10:00:00+02:00") == 1
    assert asked_for(sentinel_origin="2027-01-15T07:59:59Z") == 0
    assert asked_for(sentinel_origin="=~.*") == asked_for(sentinel_origin="") == 1
    for wrong in ("yesterday", "2027-01-15T08:00:00", "0001-01-01T00:00:00+14:00x"):
        with pytest.raises(BadQueryError, match="is not a time"):
            asked_for(sentinel_origin=wrong)
    with pytest.raises(NotSupportedError, match="sentinel_origin other than"):
        asked_for(sentinel_origin="=~2027.*")
    with pytest.raises(NotSupportedError, match="in one selector"):
        asked_for(sentinel_origin="2027-01-15T08:00:00Z", sentinel_lead="1m")


def test_the_first_watch_with_a_horizon_wins(open_fleet: Opener) -> None:
    """Of a series that two watches forecast for the same horizon the first one's is there, wherever it is."""
    fleet = open_fleet(REQUESTS, HALF)
    series = many("requests", 2)
    fleet.live(REQUESTS, series[:1])
    fleet.live(HALF, series)
    fleet.forecast(Issue(HALF, series, np.full((2, 10), 2.0)), origin=NOW - 3600)
    fleet.forecast(Issue(REQUESTS, series[:1], np.ones((1, 5))), origin=NOW)
    fleet.forecast(Issue(HALF, series, np.full((2, 10), 2.0)), origin=NOW)
    at = times(NOW + 60, NOW + 300, 30)
    found = {
        dict(labels)["instance"]: set(values.values())
        for labels, values in asked(source(fleet), matchers(), at).items()
    }
    assert found == {"10.0.0.0:9090": {1.0}, "10.0.0.1:9090": {2.0}}
    every = times(NOW - 3600, NOW + 600, 30)
    vector = asked(source(fleet), matchers(), every)
    assert {value for values in vector.values() for value in values.values()} == {1.0, 2.0}
    samples = source(fleet).samples(matchers(), (NOW - 7200) * 1000, (NOW + 600) * 1000, Budget())
    assert seen(look_back(samples, every, Budget()), every) == vector
    assert set(source(fleet).series(matchers(), 0, 2**62, Budget())) == set(vector)


def test_the_past_of_a_retired_watch_stays(open_fleet: Opener) -> None:
    """A watch that is not configured any more keeps its series, under the horizon that it had."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 2)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series, np.ones((2, 5))))
    at = times(NOW, NOW + 600)
    before = asked(source(fleet), matchers(), at)
    assert before
    with fleet.store.database.write() as connection:
        watch_store.sync_watches(connection, [], NOW + 60)
    config = SentinelConfig(artifact_store=fleet.config.artifact_store)
    left = ForecastSource(fleet.store, Watches(fleet.store, lambda: config))
    assert asked(left, matchers(), at) == before


def test_series_are_those_with_a_forecast_in_the_span(open_fleet: Opener) -> None:
    """The series of a span are those of its samples, both ends inside; of a view of bounds too."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 2)
    fleet.live(REQUESTS, series)
    fleet.forecast(Issue(REQUESTS, series[:1], np.ones((1, 5))), origin=NOW - 3600)
    fleet.forecast(Issue(REQUESTS, series, np.ones((2, 5)), versions=2))
    found = source(fleet)

    def count(start: int, end: int, *selector: Matcher) -> int:
        return len(found.series(selector or matchers(), start * 1000, end * 1000, Budget()))

    assert count(NOW - 3540, NOW - 3540) == 1
    assert count(NOW - 3539, NOW - 3481) == 0
    assert count(NOW + 300, NOW + 300) == 2
    assert count(NOW + 301, NOW + 400) == 0
    assert count(NOW - 3600, NOW + 600) == 3
    assert count(0, 2**52) == 3
    assert count(NOW, NOW + 600, Matcher("__name__", "=~", ".+"), Matcher("job", "=", "")) == 6
    assert count(NOW, NOW + 600, *matchers("requests_sentinel_predicted_upper", sentinel_lead="1m")) == 2


def test_metadata_names_every_family(open_fleet: Opener) -> None:
    """Each name is a gauge with a help text."""
    fleet = open_fleet(REQUESTS)
    assert source(fleet).metadata() == {}
    fleet.live(REQUESTS, many("requests", 1))
    fleet.forecast(Issue(REQUESTS, many("requests", 1), np.ones((1, 5))))
    assert source(fleet).metadata() == {
        NAME: ("gauge", "Forecast of requests, at the time that it is about."),
        f"{NAME}_lower": ("gauge", "Lower bound of the forecast of requests, at the time that it is about."),
        f"{NAME}_upper": ("gauge", "Upper bound of the forecast of requests, at the time that it is about."),
    }


def test_nothing_is_read_while_nothing_is_committed(open_fleet: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second query asks neither SQL nor the segments."""
    fleet = open_fleet(REQUESTS)
    fleet.live(REQUESTS, many("requests", 2))
    fleet.forecast(Issue(REQUESTS, many("requests", 2), np.ones((2, 5))))
    found, at = source(fleet), times(NOW - 600, NOW + 600)
    first = asked(found, matchers(), at)

    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(Database, "read", refuse)
    monkeypatch.setattr(type(fleet.store.segments), "read", refuse)
    assert asked(found, matchers(), at) == first


def test_only_what_is_new_is_read(open_fleet: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a tick only its segment is read, also when an hour of them has been merged."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 2)
    fleet.live(REQUESTS, series)
    for tick in range(5):
        fleet.forecast(Issue(REQUESTS, series, np.full((2, 5), tick)), origin=NOW + 60 * tick)
    found, at = source(fleet), times(NOW, NOW + 1200)
    asked(found, matchers(), at)
    compact(fleet.store, NOW + 86_400.0)
    last = fleet.forecast(Issue(REQUESTS, series, np.full((2, 5), 9.0)), origin=NOW + 300)
    read = []
    reading = type(fleet.store.segments).read

    def note(self: object, segments: list, *rest: object) -> object:
        read.extend(segment.id for segment in segments)
        return reading(self, segments, *rest)

    monkeypatch.setattr(type(fleet.store.segments), "read", note)
    assert asked(found, matchers(), at) == slowly(fleet, REQUESTS, series, at)
    assert read[0] == last
    assert len(set(read)) == 2  # the other one is read by the slow way


def test_files_that_were_collected_are_looked_for_anew(open_fleet: Opener) -> None:
    """A listing that names files of before a compaction is made anew."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 2)
    fleet.live(REQUESTS, series)
    for tick in range(3):
        fleet.forecast(Issue(REQUESTS, series, np.full((2, 5), tick)), origin=NOW + 60 * tick)
    found = source(fleet)
    found._cache.listing()
    compact(fleet.store, NOW + 86_400.0)
    fleet.store.segments.collect_garbage(NOW + 864_000.0)
    at = times(NOW, NOW + 600)
    expected = slowly(fleet, REQUESTS, series, at)
    found._cache._token = fleet.store.database.change_token()  # as if the compaction came just after it had looked
    assert asked(found, matchers(), at) == expected


def test_memory_is_bounded(open_fleet: Opener) -> None:
    """What was not asked for lately makes room, and is read again."""
    fleet = open_fleet(REQUESTS)
    world = World(fleet, REQUESTS, NOW - 86_400, 3)
    world.ticks(700)
    found = source(fleet, cache_bytes=50_000)
    for start in (NOW - 86_400, NOW - 60_000, NOW - 86_400):
        at = times(start, start + 3600)
        assert asked(found, matchers(), at) == slowly(fleet, REQUESTS, world.series, at)
        assert 0 < found._cache.bytes <= 50_000
    assert found._cache.bytes == sum(chunk.bytes for chunk in found._cache._chunks.values())


def test_parts_and_blocks_make_no_difference(open_fleet: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches that are split into parts, and spans that are read piece by piece, answer as others do."""
    fleet = open_fleet(REQUESTS)
    world = World(fleet, REQUESTS, NOW - 6000, 5)
    world.ticks(90)
    at = times(NOW - 6000, NOW + 1200, 45)
    expected = slowly(fleet, REQUESTS, world.series, at)
    monkeypatch.setattr(forecast_matrices, "PART_BITS", 1)
    for module in (forecast_cache, forecasts):
        monkeypatch.setattr(module, "LOAD_CELLS", 500)
    found = source(fleet)
    assert asked(found, matchers(), at) == expected
    one = matchers(instance="10.0.0.3:9090")
    assert asked(source(fleet), one, at) == {
        labels: values for labels, values in expected.items() if ("instance", "10.0.0.3:9090") in labels
    }
    world.ticks(1)
    assert asked(found, matchers(), at) == slowly(fleet, REQUESTS, world.series, at)
    assert set(found.series(matchers(), int(at[0]), int(at[-1]), Budget())) >= set(expected)


def test_new_series_are_found(open_fleet: Opener) -> None:
    """A series that a tick has registered is there with its first forecast."""
    fleet = open_fleet(REQUESTS)
    series = many("requests", 3)
    fleet.live(REQUESTS, series[:2])
    fleet.forecast(Issue(REQUESTS, series[:2], np.ones((2, 5))))
    found, at = source(fleet), times(NOW, NOW + 600)
    assert len(asked(found, matchers(), at)) == 2
    fleet.live(REQUESTS, series[2:])
    fleet.forecast(Issue(REQUESTS, series, np.ones((3, 5))), origin=NOW + 60)
    assert len(asked(found, matchers(), at)) == 3


def test_threads_wait_for_each_other(open_fleet: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that ask for the same at once one reads it, and all are answered."""
    fleet = open_fleet(REQUESTS)
    world = World(fleet, REQUESTS, NOW, 13)
    world.ticks(20)
    found, at = source(fleet), times(NOW, world.origin + 600)
    expected = slowly(fleet, REQUESTS, world.series, at)
    loads = []
    loading = ForecastCache._load

    def note(*given: Any) -> None:
        loads.append(given)
        loading(*given)

    monkeypatch.setattr(ForecastCache, "_load", note)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: asked(found, matchers(), at), range(8)))
    assert all(answer == expected for answer in answers)
    assert len(loads) == 1


def test_budgets_hold(open_fleet: Opener) -> None:
    """A query spends for what it answers, and ends in time."""
    fleet = open_fleet(REQUESTS)
    fleet.live(REQUESTS, many("requests", 3))
    fleet.forecast(Issue(REQUESTS, many("requests", 3), np.ones((3, 5))))
    budget = Budget()
    source(fleet).vector(matchers(), times(NOW, NOW + 540), budget)
    assert budget.spent == 30
    with pytest.raises(QueryTimeoutError):
        source(fleet).vector(matchers(), times(NOW, NOW + 600), Budget(deadline=0.0))


def test_a_store_that_does_not_answer_is_busy(open_fleet: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store refuses with is said, as 503."""
    fleet = open_fleet(REQUESTS)

    def refuse(*_: object) -> None:
        raise StoreError("the disk is on fire")

    monkeypatch.setattr(Database, "change_token", refuse)
    with pytest.raises(TooBusyError, match="the disk is on fire"):
        source(fleet).vector(matchers(), times(NOW, NOW), Budget())
