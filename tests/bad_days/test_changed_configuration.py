"""Watches are removed, renamed, come back or become none at all while everything runs."""

from collections.abc import Callable

import numpy as np

from sentinel_core import WatchConfig
from sentinel_core.storage import watch_store, windows_store
from tests.bad_days.conftest import serving
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def test_a_removed_watch_leaves_and_returns_with_its_model(world: World, watch: Watch) -> None:
    """It leaves /metrics and status, keeps its versions, and goes on with them, what it missed included."""
    both = world.engine(watch(), watch("zero"))
    both.train(both.sync_watches(), kind="cold_start", reason="test")
    world.tick(both)
    began = int(world.clock.now) - 67
    one = world.engine(watch())
    one.sync_watches()
    for _ in range(2):
        world.tick(one, 600)
    assert list(one.status()) == ["even"]
    with serving(one) as sidecar:
        assert len(sidecar.lines("even")) == 10
        assert "zero" not in sidecar.text()
        assert list(sidecar.status()) == ["even"]
    again = world.engine(watch(), watch("zero"))
    assert again.decide_actions() == []  # it needs no training
    _, forecast, _ = world.tick(again)
    assert forecast.failures == {}
    assert (again.status()["zero"]["active_version"], again.status()["zero"]["staleness_seconds"]) == ("v1", 0)
    with serving(again) as sidecar:
        assert len(sidecar.lines("zero")) == 5
    with again.store.database.read() as conn:
        fingerprints = np.unique(watch_store.live_series(conn)[1])
    window = windows_store.read_window(again.store, 60, fingerprints, began, int(world.clock.now) - 60)
    assert np.isfinite(window.values).all()


def test_a_process_with_an_old_configuration_does_not_undo_the_new_one(world: World, watch: Watch) -> None:
    """A training that began before a watch was swapped for another trains the rest; the new set of watches stands."""
    old = world.engine(watch(), watch("zero"))
    slugs = old.sync_watches()
    new = world.engine(watch(), watch("wakes"))
    assert set(new.sync_watches()) == {new.config.watches[0].slug, new.config.watches[1].slug}
    reports = old.train(slugs, kind="cold_start", reason="test")
    assert [report.version for report in reports] == [1, None]
    old.scrape_windows(int(world.clock.now) - 600, int(world.clock.now))
    with new.store.database.read() as conn:
        assert set(watch_store.watch_ids(conn)) == {one.slug for one in new.config.watches}
    world.tick(new)
    assert new.status()["even"]["active_version"] == "v1"


def test_another_granularity_is_another_watch(world: World, watch: Watch) -> None:
    """The watch of the old grid is retired; the new one reads its own history and serves alone."""
    old = world.engine(watch())
    old.train(old.sync_watches(), kind="cold_start", reason="test")
    new = world.engine(watch(granularity="2m", horizon="10m"))
    (request,) = new.decide_actions()
    assert request.kind == "cold_start"
    (report,) = new.train(request.slugs, kind=request.kind, reason="test")
    assert report.promoted, report.detail
    world.tick(new, 120)
    assert new.store.segments.segments("windows", "120")
    with serving(new) as sidecar:
        lines = sidecar.lines("even")
    assert len(lines) == 2 * 5
    assert all('sentinel_horizon="10m"' in line for line in lines)
    assert list(new.status()) == ["even"]


def test_without_watches_nothing_fails(world: World, watch: Watch) -> None:
    """Every step answers with nothing; the watches of before are retired."""
    before = world.engine(watch())
    before.train(before.sync_watches(), kind="cold_start", reason="test")
    engine = world.engine()
    assert engine.sync_watches() == []
    assert engine.due() is None
    now = int(world.clock.now)
    assert engine.scrape_windows(now - 600, now).failures == {}
    assert engine.issue_forecasts(now - 600, now).rows == 0
    assert engine.score_drift(now - 600, now).rows == 0
    assert engine.decide_actions() == []
    assert engine.train([], kind="retrain", reason="test") == []
    assert engine.status() == {}
    engine.maintain()
