"""The process of a tick is killed (-9) at any moment: what is stored is whole, and the next tick makes up for it."""

import functools
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sentinel_core.pipeline import Engine
from sentinel_core.storage import watch_store, windows_store
from tests.apps.server import eventually
from tests.bad_days.conftest import serving
from tests.bad_days.doomed import watches
from tests.moved_world import World
from tests.prometheus_server import PrometheusServer

ROOT = Path(__file__).parents[2]
KILLS = 5


def test_ticks_killed_at_any_moment(world: World, odd_prometheus: PrometheusServer, tmp_path: Path) -> None:
    """After each kill the sidecar serves whole forecasts; at the end no sample is missing, doubled or wrong."""
    rng = random.Random(5)
    engine = world.engine(*watches())
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    world.tick(engine)
    began = int(world.clock.now) - 67
    with serving(engine) as sidecar:
        for k in range(KILLS):
            marker = tmp_path / f"ticking-{k}"
            command = [sys.executable, "-m", "tests.bad_days.doomed", "tick", str(world.folder), odd_prometheus.url]
            with subprocess.Popen([*command, str(world.clock.now), str(marker)], cwd=ROOT) as process:
                eventually(marker.exists, 30)
                if k % 2:  # every second one has got somewhere by then, on a busy machine too
                    eventually(functools.partial(has_ticked, engine, world.clock.now), 30)
                time.sleep(rng.uniform(0.05, 0.5))
                process.kill()
            newest = engine.status()["even"]["last_tick"]
            assert isinstance(newest, float)
            world.clock.now = newest
            assert len(sidecar.lines("even")) == 10
            assert len(sidecar.lines("zero")) == 5
            assert "sentinel_watch_readable" in sidecar.text()
            assert sidecar.value("sentinel_store_up ") == 1
    scraped, forecast, drift = world.tick(engine, 120)
    assert scraped.failures == forecast.failures == drift.failures == {}
    assert engine.status()["even"]["last_error"] is None
    with engine.store.database.read() as conn:
        fingerprints = np.unique(watch_store.live_series(conn)[1])
        spans = [watch_store.coverage(conn, one) for one in watch_store.watch_ids(conn).values()]
    assert [len(found) for found in spans] == [1, 1]
    end = spans[0][-1][1]
    assert end - began >= 240  # the killed ones have done something
    ticked = windows_store.read_window(engine.store, 60, fingerprints, began, end)
    other = world.engine(*watches(), artifact_store=str(tmp_path / "other"))
    other.scrape_windows(began, end, mode="backfill")
    once = windows_store.read_window(other.store, 60, fingerprints, began, end)
    np.testing.assert_array_equal(ticked.values, once.values)
    assert np.isfinite(ticked.values).all()


def has_ticked(engine: Engine, since: float) -> bool:
    newest = engine.status()["even"]["last_tick"]
    assert isinstance(newest, float)
    return newest > since
