"""What reading makes of a watch's series."""

from collections.abc import Callable

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
