"""Prometheus is down, slow, or answers nonsense: the tick says so, serving goes on, and nothing is lost in the end."""

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.errors import PermanentSourceError, TransientSourceError
from sentinel_core.storage import watch_store, windows_store
from tests.apps.server import eventually
from tests.bad_days.conftest import Sidecar, serving
from tests.bad_days.gateway import Gateway, Wanted
from tests.moved_world import World

Watch = Callable[..., WatchConfig]

FAULTS = [
    ("refuse", TransientSourceError, "broke off"),
    ("silence", TransientSourceError, "did not answer .* within 0.3 s; raise scrape_timeout if it is slow"),
    ("503", TransientSourceError, "answers 503: no healthy upstream"),
    ("cut", TransientSourceError, "broke off in the middle of an answer"),
    ("page", PermanentSourceError, "is prometheus_url the address of Prometheus itself"),
]


def test_a_broken_prometheus_is_said_and_survived(world: World, gateway: Gateway, watch: Watch) -> None:
    """Ticks fail with the reason, the last forecasts go on being served with their age; no sample is missing later."""
    engine = world.engine(watch(), watch("zero"), scrape_timeout=0.3)
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    world.tick(engine)
    began = world.clock.now
    with serving(engine) as sidecar:
        for fault, kind, words in FAULTS:
            served = sidecar.lines("even")
            assert len(served) == 2 * 5
            gateway.behave(fault)
            for _ in range(2):
                with pytest.raises(kind, match=words):
                    world.tick(engine)
            assert sidecar.lines("even") == served
            for status in engine.status().values():
                assert status["ready"]
                assert status["staleness_seconds"] == pytest.approx(120)
                assert re.search(words, str(status["last_error"]))
            assert sidecar.status()["even"]["staleness_seconds"] == pytest.approx(120)
            gateway.behave()
            world.tick(engine)
            eventually(functools.partial(is_new, sidecar, served))
            for status in engine.status().values():
                assert status["staleness_seconds"] == 0
                assert status["last_error"] is None
        assert_requests_counted(sidecar)
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    window = windows_store.read_window(
        engine.store, 60, np.unique(fingerprints), int(began) - 600, int(world.clock.now)
    )
    settled = window.timestamps <= world.clock.now - 5
    assert np.isfinite(window.values[:, settled]).all()


def is_new(sidecar: Sidecar, served: list[str]) -> bool:
    return sidecar.lines("even") != served


def assert_requests_counted(sidecar: Sidecar) -> None:
    """What failed is among the self-metrics."""

    def counted() -> bool:
        lines = [line for line in sidecar.text().splitlines() if line.startswith("sentinel_source_requests_total{")]
        return any('outcome="ok"' not in line for line in lines)

    eventually(counted)


def about(metric: str) -> Wanted:
    """Questions that name the metric."""
    return lambda endpoint, fields: any(metric in text for text in fields.values())


def test_one_watch_that_cannot_be_read_fails_alone(world: World, gateway: Gateway, watch: Watch) -> None:
    """Where Prometheus answers for some watches they go on; the other says why, and catches up by itself."""
    engine = world.engine(watch(), watch("zero"), scrape_timeout=0.3)
    slugs = engine.sync_watches()
    engine.train(slugs, kind="cold_start", reason="test")
    world.tick(engine)
    for fault in ("silence", "503", "cut"):
        gateway.behave(fault, about("zero"))
        scraped, forecast, _ = world.tick(engine, 600)
        assert list(scraped.failures) == [slugs[1]]
        assert forecast.failures == {}
        status = engine.status()
        assert (status["even"]["staleness_seconds"], status["even"]["last_error"]) == (0, None)
        assert str(status["zero"]["last_error"]).startswith("reading: Prometheus at")
    gateway.behave()
    scraped, _, _ = world.tick(engine)
    assert scraped.failures == {}
    assert engine.status()["zero"]["last_error"] is None
    with engine.store.database.read() as conn:
        spans = watch_store.coverage(conn, watch_store.watch_ids(conn)[slugs[1]])
    assert len(spans) == 1


def test_a_metric_that_is_not_there_yet(world: World, watch: Watch) -> None:
    """It is named with what to check; once it has series, the next tick has them, and soon a model."""
    engine = world.engine(watch(), watch("late", lookback="5m"), watch("never_seen"))
    even, late, never = engine.sync_watches()
    reports = engine.train([even, late, never], kind="cold_start", reason="test")
    assert [report.version for report in reports] == [1, None, None]
    scraped, forecast, _ = world.tick(engine)
    assert list(scraped.failures) == [never]
    assert "has no series never_seen; check the metric's name and the labels" in scraped.failures[never]
    assert engine.status()["late"]["series"] == 0
    assert forecast.series == 2
    world.tick(engine, 3600 + 20 * 60)
    assert engine.status()["late"]["series"] == 1
    requests = {slug: request.kind for request in engine.decide_actions() for slug in request.slugs}
    assert requests[late] == "cold_start"
    (report,) = engine.train([late], kind="cold_start", reason="test")
    assert report.promoted, report.detail


def test_more_series_than_allowed_are_refused_with_their_number(world: World, watch: Watch) -> None:
    """A watch that suddenly matches too many series keeps its last forecasts and says how many; others go on."""
    world.clock.now += 7200 - 1200
    engine = world.engine(watch(), watch("burst", max_series=20))
    slugs = engine.sync_watches()
    engine.train(slugs, kind="cold_start", reason="test")
    world.tick(engine)
    with serving(engine) as sidecar:
        assert len(sidecar.lines("burst")) == 3 * 5
        scraped, _, _ = world.tick(engine, 900)
        assert list(scraped.failures) == [slugs[1]]
        error = str(engine.status()["burst"]["last_error"])
        assert "burst has 40 series, more than max_series = 20" in error
        assert "raise max_series" in error
        assert len(sidecar.lines("burst")) == 3 * 5
        assert sidecar.status()["burst"]["staleness_seconds"] == 900
    engine = world.engine(watch(), watch("burst", max_series=50))
    world.tick(engine)
    assert engine.status()["burst"]["series"] == 40
    (report,) = engine.train([slugs[1]], kind="cold_start", reason="test")
    assert "of history yet" in report.detail  # the new ones are too young, which is no error of the watch
    assert engine.status()["burst"]["last_error"] is None
