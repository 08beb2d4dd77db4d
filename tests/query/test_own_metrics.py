"""Sentinel's metrics about itself, remembered without anybody who scrapes them."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from sentinel_core.emitter.exposition import PLAIN
from sentinel_core.emitter.production import ModelState, Production
from sentinel_core.emitter.self_metrics import ProductionCollector, SidecarMetrics, SnapshotCollector, encode
from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import is_stale
from sentinel_core.query import own_metrics
from sentinel_core.query.own_metrics import KEPT, ModelsOf, OwnMetrics
from sentinel_core.query.production import NAMES
from sentinel_core.series import Matcher

NOW = 1_800_000_000
EVERYTHING = Matcher("__name__", "=~", ".+")


class World:
    """A gauge by one label, and what remembers it; time goes on by 15 s with each record."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gauge = Gauge("sentinel_gauge", "A gauge.", ["of"], registry=self.registry)
        self.snapshot = Snapshot()
        self.own = OwnMetrics(self.registry, lambda: self.snapshot)
        self.now = float(NOW)

    def record(self, **values: float) -> None:
        """One more record, with these children of the gauge."""
        self.gauge.clear()
        for child, value in values.items():
            self.gauge.labels(child).set(value)
        self.own.record(self.now)
        self.now += 15

    def raw(self, child: str) -> list[tuple[int, float | None]]:
        """What is remembered of a child: seconds since NOW, value; None is a stale marker."""
        found = self.own.samples([Matcher("of", "=", child)], 0, 2**53, Budget())
        values = [None if stale else value for stale, value in zip(is_stale(found.values), found.values, strict=True)]
        return list(zip((found.times // 1000 - NOW).tolist(), values, strict=True))

    def at(self, seconds: float, *matchers: Matcher) -> dict[str, float]:
        """Children and values at a time since NOW."""
        times = np.array([int((NOW + seconds) * 1000)])
        found = self.own.vector([Matcher("__name__", "=", "sentinel_gauge"), *matchers], times, Budget())
        rows = zip(found.labels, found.values[:, 0].tolist(), found.present[:, 0].tolist(), strict=True)
        return {dict(labels)["of"]: value for labels, value, there in rows if there}


@pytest.fixture
def world() -> World:
    """A new one."""
    return World()


def test_what_was_recorded(world: World) -> None:
    """Each record is a sample at its time, that stands for five minutes at most."""
    world.record(a=1.0)
    world.record(a=2.0, b=float("nan"))
    assert world.raw("a") == [(0, 1.0), (15, 2.0)]
    assert [world.at(second).get("a") for second in (-1, 0, 14, 15, 314, 315)] == [None, 1.0, 1.0, 2.0, 2.0, None]
    assert np.isnan(world.at(15)["b"])  # a value like any other
    assert world.at(15, Matcher("of", "=~", "a|c")) == {"a": 2.0}


def test_a_series_that_vanishes_ends(world: World) -> None:
    """With a stale marker at the record that lacks it; it may come back."""
    for values in ({"a": 1.0}, {}, {}, {"a": 4.0}):
        world.record(**values)
    assert world.raw("a") == [(0, 1.0), (15, None), (45, 4.0)]
    assert [world.at(second) for second in (14, 15, 44, 45)] == [{"a": 1.0}, {}, {}, {"a": 4.0}]
    meanwhile = world.own.series([EVERYTHING], NOW * 1000 + 1, NOW * 1000 + 30_000, Budget())
    assert not any(("of", "a") in labels for labels in meanwhile)


def test_a_day_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest record goes when a new one comes, however many there have been."""
    monkeypatch.setattr(own_metrics, "KEPT", 4)
    world = World()
    for value in range(11):
        world.record(a=float(value))
    assert world.raw("a") == [(15 * value, float(value)) for value in range(7, 11)]
    assert KEPT * own_metrics.STEP_SECONDS == 86_400


def test_a_clock_that_goes_back(world: World) -> None:
    """What was recorded under times that have not come yet is forgotten: samples stay in their order."""
    for value in range(4):
        world.record(a=float(value))
    world.now = NOW + 20.0
    world.record(a=9.0)
    assert world.raw("a") == [(0, 0.0), (15, 1.0), (20, 9.0)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more series there are, the shorter is the past of each; none is left out, as counts would be wrong then."""
    monkeypatch.setattr(own_metrics, "MOST_CELLS", 256 * 8)
    world = World()
    for value in range(10):
        world.record(a=float(value))
    assert world.raw("a") == [(15 * value, float(value)) for value in range(2, 10)]
    world.record(a=10.0, **{f"x{number}": float(number) for number in range(500)})
    assert world.raw("a") == [(15 * value, float(value)) for value in range(7, 11)]
    assert len(world.at(150)) == 501


def test_rows_of_series_long_gone_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series may come and go for years without a shorter past for those that stay."""
    monkeypatch.setattr(own_metrics, "MOST_CELLS", 256 * 8)
    world = World()
    for turn in range(40):
        world.record(a=float(turn), **{f"x{turn}_{number}": 1.0 for number in range(20)})
    assert world.raw("a") == [(15 * turn, float(turn)) for turn in range(32, 40)]


def test_the_table_grows(world: World) -> None:
    """Hundreds of series may come at any time."""
    world.record(a=1.0)
    world.record(**{f"x{number}": float(number) for number in range(700)})
    assert world.at(15) == {f"x{number}": float(number) for number in range(700)}
    assert world.at(0) == {"a": 1.0}


def test_everything_of_metrics_is_there() -> None:
    """Under the names and labels that /metrics has, but for what has a longer past; and nothing of the process."""
    metrics = SidecarMetrics("1.2.3")
    metrics.requests.labels("/metrics", "200").inc()
    metrics.request_seconds.labels("/metrics").observe(0.02)
    model = ModelState("default", "fraud", True, 7, NOW - 5, "warn")
    counters = {("sentinel_gaps_total", (("watch", "up-1"),)): 3.0, ("sentinel_forecast_seconds_sum", ()): 0.5}
    incidents = {("default", "psi", "fraud", "open", "warn"): 1}
    snapshot = Snapshot(production=Production((model,), incidents), counters=counters)
    own = OwnMetrics(metrics.registry, lambda: snapshot)
    own.record(NOW)
    found = own.samples([EVERYTHING], 0, 2**53, Budget())
    collectors = (metrics.registry, SnapshotCollector(snapshot, NOW), ProductionCollector(snapshot.production))
    text = "".join(encode(collector, PLAIN).decode() for collector in collectors)
    families = [one for one in parse_plain(text) if one.name.startswith("sentinel_") and one.name not in NAMES]
    samples = [one for family in families for one in family.samples]
    expected = {tuple(sorted({"__name__": one.name, **one.labels}.items())): one.value for one in samples}
    assert dict(zip(found.labels, found.values.tolist(), strict=True)) == expected
    assert len(found.times) == len(expected) > 20
    assert found.times.tolist() == [NOW * 1000] * len(expected)


def test_models_are_read_again_only_when_they_have_changed(world: World) -> None:
    """Between two changes of production every record has the values of the last one."""
    model = ModelState("default", "fraud", True, 7, None, "none")
    world.snapshot = replace(world.snapshot, production=Production((model,)))
    world.record()
    world.record()
    world.snapshot = replace(world.snapshot, production=Production((replace(model, events=9),)))
    world.record()
    events = world.own.samples([Matcher("__name__", "=", "sentinel_model_events_total")], 0, 2**53, Budget())
    assert events.labels == ((("__name__", "sentinel_model_events_total"), ("model", "fraud"), ("project", "default")),)
    assert events.values.tolist() == [7.0, 7.0, 9.0]


def test_a_project_sees_its_models(world: World) -> None:
    """And nothing else: neither other projects' models nor anything about the installation."""
    models = tuple(ModelState(project, "fraud", True, 7, None, "none") for project in ("shop", "bank"))
    world.snapshot = replace(world.snapshot, production=Production(models))
    world.record(a=1.0)
    shop = ModelsOf(world.own, {"shop"})
    names = {"sentinel_model_enabled", "sentinel_model_events_total", "sentinel_model_severity"}
    seen = [dict(labels) for labels in shop.series([EVERYTHING], 0, 2**53, Budget())]
    assert {(one["__name__"], one["project"]) for one in seen} == {(name, "shop") for name in names}
    shown = shop.vector([EVERYTHING], np.array([NOW * 1000]), Budget())
    assert list(map(dict, shown.labels)) == seen
    assert shop.series([Matcher("project", "=", "bank")], 0, 2**53, Budget()) == []
    assert ModelsOf(world.own, set()).series([EVERYTHING], 0, 2**53, Budget()) == []
    assert names < shop.metadata().keys()
    assert "sentinel_gauge" not in shop.metadata()


def test_metadata() -> None:
    """Families as the text format names and types them."""
    metrics = SidecarMetrics("1.2.3")
    own = OwnMetrics(metrics.registry, Snapshot)
    assert own.metadata() == {}
    own.record(NOW)
    found = own.metadata()
    assert found["sentinel_http_requests_total"] == ("counter", "Requests answered.")
    assert found["sentinel_http_request_seconds"] == ("histogram", "Time to the answer.")
    assert found["sentinel_watch_info"][0] == found["sentinel_drift_mae"][0] == "gauge"
    assert not NAMES & found.keys()


def test_too_much_is_refused(world: World) -> None:
    """A day of all series counts like any other samples."""
    world.record(a=1.0)
    with pytest.raises(ExecutionError, match="too many samples"):
        world.own.samples([EVERYTHING], 0, 2**53, Budget(cells=3))
