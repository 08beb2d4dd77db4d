"""What reading makes of a watch's series."""

from collections.abc import Callable
from typing import Any

import pytest

from sentinel_core import WatchConfig
from sentinel_core.pipeline import reading
from sentinel_core.storage import watch_store
from tests.moved_world import World
from tests.prometheus_server import PrometheusServer


def test_a_pause_over_a_hole_loses_no_series(
    world: World, load: Callable[..., WatchConfig], prometheus: PrometheusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catch-up in pieces, of which the first ends in the hole, finds every series alive at its own end."""
    hole, _ = prometheus.history.hole
    world.clock.now = hole - 120 + 7.0
    engine = world.engine(load(max_series=6))
    scraped, _, _ = world.tick(engine)
    assert scraped.new_series == 6
    monkeypatch.setattr(reading, "CHUNK_SAMPLES", 6 * 14)  # from five steps before the hole to its last but one
    scraped, _, _ = world.tick(engine, 1260)
    assert (scraped.new_series, scraped.vanished_series) == (0, 0)
    assert engine.status()["shop_load"]["series"] == 6
    with engine.store.database.read() as conn:
        assert len(watch_store.live_series(conn)[1]) == 6


def test_history_that_a_tick_overtakes_is_known(
    world: World, load: Callable[..., WatchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick registers the series by its few steps while their history is read: training may use all of it."""
    watch = load(history="2h")  # in one piece, up to the very step that the tick reads
    engine = world.engine(watch)
    real, overtaken = reading.scrape, []

    def overtake(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if not overtaken:
            overtaken.append(True)
            world.tick(engine, 0.0)
        return found

    monkeypatch.setattr(reading, "scrape", overtake)
    report = engine.train([watch.slug], kind="cold_start", reason="test", cause="person")[0]
    assert overtaken
    assert report.promoted, report.detail
    with engine.store.database.read() as conn:
        first = watch_store.first_sample(conn, 1)
    assert first is not None
    assert first <= world.clock.now - 3600
