"""Series and queries that are rare but right: constants, awkward labels, numbers, nothing, counters that start anew."""

from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sentinel_core import WatchConfig
from sentinel_core.storage import watch_store, windows_store
from tests.bad_days.conftest import UNICODE, serving
from tests.bad_days.gateway import Gateway
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def test_a_constant_zero_is_forecast_as_zero(world: World, watch: Watch) -> None:
    """It is 0 with bounds of 0, and in either unit there is no drift."""
    engine = world.engine(
        *(
            watch("zero", model_class=model, horizon=horizon, drift_unit=unit, drift_finetune_threshold=1.5)
            for model, horizon, unit in (("ARIMAModel", "3m", "mae"), ("ExponentialSmoothingModel", "4m", "scaled"))
        ),
        emit_confidence_bounds=True,
    )
    reports = engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    assert all(report.promoted for report in reports), reports
    for _ in range(12):
        _, _, drift = world.tick(engine)
    assert {one.severity for one in drift.watches} == {"none"}
    with serving(engine) as sidecar:
        lines = [line for line in sidecar.text().splitlines() if line.startswith("zero_sentinel_predicted")]
    assert len(lines) == 3 * (3 + 4)
    assert {abs(float(line.rpartition(" ")[2])) for line in lines} == {0.0}


@pytest.mark.parametrize("unit", ["mae", "scaled"])
def test_a_constant_that_wakes_up_drifts(world: World, watch: Watch, unit: str) -> None:
    """A jump of a series that never moved is drift in either unit, however small its training error."""
    world.clock.now += 3600 - 120
    thresholds = {"drift_finetune_threshold": 0.5, "drift_retrain_threshold": 1.0, "drift_unit": unit}
    engine = world.engine(watch("wakes", model_class="ExponentialSmoothingModel", horizon="30m", **thresholds))
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    for _ in range(14):
        _, _, drift = world.tick(engine)
    assert drift.watches[0].severity == "high"
    (request,) = engine.decide_actions()
    assert request.kind == "retrain"


def test_labels_come_out_as_they_went_in(world: World, watch: Watch) -> None:
    """Quotes, newlines, backslashes and kanji survive store, sidecar and exposition format, and in a selector."""
    engine = world.engine(watch("text"), watch("text", labels={"path": UNICODE}, horizon="3m"))
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    scraped, _, _ = world.tick(engine)
    assert scraped.failures == {}
    with serving(engine) as sidecar:
        families = {family.name: family for family in text_string_to_metric_families(sidecar.text())}
        assert len(sidecar.status()) == 2
    samples = families["text_sentinel_predicted"].samples
    assert len(samples) == 5 + 3
    assert {sample.labels["path"] for sample in samples} == {UNICODE}


def test_queries_of_a_number_and_of_nothing(world: World, watch: Watch) -> None:
    """A scalar is one series without labels; an empty result is no error; what does not parse is named."""
    engine = world.engine(
        watch(None, query="scalar(sum(even))", name="total"),
        watch(None, query="even > 1e9", name="nothing"),
        watch(None, query="sum(even", name="wrong"),
    )
    total, nothing, wrong = engine.sync_watches()
    reports = engine.train([total, nothing, wrong], kind="cold_start", reason="test")
    assert [report.version for report in reports] == [1, None, None]
    scraped, forecast, _ = world.tick(engine)
    assert list(scraped.failures) == [wrong]
    assert "parse error" in scraped.failures[wrong]
    assert forecast.series == 1
    assert engine.status()["nothing"]["series"] == 0
    with serving(engine) as sidecar:
        (first, *_) = sidecar.lines("total")
    assert first.startswith('total_sentinel_predicted{sentinel_horizon="5m",sentinel_step="1",sentinel_version="v1"}')


def test_a_counter_that_starts_anew_is_one_rate(world: World, watch: Watch) -> None:
    """Across restarts the rate is what it was, never negative; drift does not see them."""
    engine = world.engine(watch("hits_total"))
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    for _ in range(3):
        world.tick(engine, 1200)
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    end = int(world.clock.now) // 60 * 60
    window = windows_store.read_window(engine.store, 60, fingerprints, end - 9000, end)
    assert np.isfinite(window.values).all()
    assert (window.values >= 0).all()
    assert (np.abs(window.values - 1.0) < 0.3).all()


def test_a_gauge_that_turns_out_a_counter(world: World, gateway: Gateway, watch: Watch) -> None:
    """By configuration or by its target's metadata: its past is read again as a rate, and the old name leaves."""
    as_gauge = world.engine(watch("hits_total", kind="gauge"))
    (slug,) = as_gauge.sync_watches()
    as_gauge.train([slug], kind="cold_start", reason="test")
    world.tick(as_gauge)
    engine = world.engine(watch("hits_total", kind="counter"))
    world.tick(engine)
    (report,) = engine.train([slug], kind="retrain", reason="test")
    assert report.promoted, report.detail
    for _ in range(8):
        world.tick(engine)
    with serving(engine) as sidecar:
        assert len(sidecar.lines("hits_total_rate")) == 5
        assert sidecar.lines("hits_total") == []


def test_metadata_that_falls_silent_changes_nothing(world: World, gateway: Gateway, watch: Watch) -> None:
    """A counter stays one when Prometheus forgets its type; what is silent at first becomes one when it is said."""
    engine = world.engine(watch("even"))
    (slug,) = engine.sync_watches()

    def kind_after(metadata: str) -> str | None:
        gateway.behave(metadata, lambda endpoint, fields: endpoint == "metadata")
        world.tick(engine, 3600 if engine.status()["even"]["last_tick"] else 60)
        with engine.store.database.read() as conn:
            return watch_store.states(conn)[slug].kind

    world.clock.now -= 2 * 3600
    counter = '{"status":"success","data":{"even":[{"type":"counter","help":"","unit":""}]}}'
    silent = '{"status":"success","data":{}}'
    assert [kind_after(text) for text in (silent, counter, silent)] == ["gauge", "counter", "counter"]
