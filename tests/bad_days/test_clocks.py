"""Prometheus' clock and ours disagree: samples and forecasts live by its clock, ages by ours."""

from collections.abc import Callable

import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.storage import watch_store, windows_store
from tests.apps.server import eventually
from tests.bad_days.conftest import serving
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


@pytest.mark.parametrize(("ahead", "trained_first"), [(600, True), (-600, False)])
def test_ticks_follow_prometheus(world: World, watch: Watch, ahead: int, trained_first: bool) -> None:
    """Ten minutes apart each tick reads and forecasts from Prometheus' newest step; nothing is lost; skew is shown."""
    world.clock.prometheus_ahead = ahead
    engine = world.engine(watch())
    (slug,) = engine.sync_watches()
    if not trained_first:
        plan = engine.due()
        assert plan is not None
        engine.scrape_windows(plan.start, plan.end)
    (report,) = engine.train([slug], kind="cold_start", reason="test")
    assert report.promoted, report.detail
    began = int(world.clock.now) + ahead - 67
    for _ in range(3):
        scraped, forecast, drift = world.tick(engine)
        assert scraped.clock_skew_seconds == ahead
        assert (forecast.series, forecast.origins) == (2, 1)
        newest = (int(world.clock.now) + ahead - 5) // 60 * 60
        with engine.store.database.read() as conn:
            state = watch_store.states(conn)[slug]
        assert (state.scraped_until, state.forecast_origin, state.scored_until) == (newest, newest, newest)
        assert engine.due() is None
    assert drift.rows > 0
    assert engine.status()["even"]["staleness_seconds"] == 0
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    window = windows_store.read_window(engine.store, 60, fingerprints, began, newest)
    assert np.isfinite(window.values).all()
    with serving(engine) as sidecar:
        assert sidecar.value("sentinel_clock_skew_seconds ") == ahead


def test_a_clock_that_is_set_right_costs_nothing(world: World, watch: Watch) -> None:
    """When Prometheus' clock jumps back ten minutes ticks wait for it, and go on where they stood."""
    engine = world.engine(watch())
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    world.clock.prometheus_ahead = 600
    world.clock.now += 60
    now = int(world.clock.now)
    engine.scrape_windows(now - 60, now + 600)
    world.clock.prometheus_ahead = 0
    with serving(engine) as sidecar:
        world.tick(engine)  # it learns of it here
        assert engine.due() is None
        world.clock.now += 540
        assert engine.due() is None
        world.tick(engine)
        eventually(lambda: sidecar.value("sentinel_clock_skew_seconds ") == 0)
        assert sidecar.status()["even"]["staleness_seconds"] == 0
