"""High forecast drift that training did not cure is an incident of its watch."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sentinel_core import WatchConfig
from sentinel_core.incidents.findings import forecast_drift
from sentinel_core.storage import schema, watch_store
from tests.monitored_world import HOUR, START, MonitoredWorld

WATCH = WatchConfig(metric="load", model_class="LinearTrendModel")  # a step of a minute, a window of 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MonitoredWorld]:
    """A watch whose drift is high, and no model in production."""
    with ExitStack() as stack:
        world = MonitoredWorld(tmp_path, stack, settings={"watches": [WATCH]})
        world.engine.sync_watches()
        drift(world, "high", scored_until=START)
        yield world


def drift(world: MonitoredWorld, severity: str, *, scored_until: float) -> None:
    """What the scoring has found."""
    with world.store.database.write() as conn:
        watch_id = watch_store.watch_ids(conn)[WATCH.slug]
        found = {"drift_mae": 0.7, "drift_high": int(severity == "high"), "drift_scored": 1}
        watch_store.update_state(conn, watch_id, severity=severity, scored_until=int(scored_until), **found)


def train(world: MonitoredWorld, finished_at: float, **action: Any) -> None:
    """A training that has ended."""
    row = {"kind": "retrain", "cause": "drift", "outcome": "rejected", **action}
    with world.store.database.write() as conn:
        watch_id = watch_store.watch_ids(conn)[WATCH.slug]
        row |= {"watch_id": watch_id, "decided_at": finished_at - 60, "lease_until": finished_at}
        conn.execute(schema.actions.insert().values(**row, finished_at=finished_at))


def hour(world: MonitoredWorld, severity: str = "high") -> None:
    """An hour passes, scored to its end, and is evaluated."""
    world.clock.now += HOUR
    drift(world, severity, scored_until=world.clock.now)
    world.engine.evaluate()


def test_drift_that_outlasts_its_retraining_opens_an_incident_and_resolves(world: MonitoredWorld) -> None:
    """Open once every judged forecast was made after the training; resolved after three evaluations without."""
    hour(world)
    assert world.incidents() == []  # nobody has trained yet
    train(world, world.clock.now)
    hour(world)
    assert world.incidents() == []  # of the last 60 steps some were forecast before
    hour(world)
    (incident,) = world.incidents()
    assert (incident.kind, incident.subject, incident.state, incident.severity) == (
        "forecast",
        WATCH.slug,
        "open",
        "warn",
    )
    found = forecast_drift(incident.assessment)
    assert (found.severity, found.mae, found.threshold, found.series_high) == ("high", 0.7, 0.3, 1)
    for _ in range(2):
        hour(world, "none")
    assert world.incidents()[0].state == "open"
    hour(world, "none")
    assert world.incidents()[0].state == "resolved"


@pytest.mark.parametrize("action", [{"kind": "finetune"}, {"cause": "schedule"}])
def test_other_trainings_prove_nothing(world: MonitoredWorld, action: dict[str, str]) -> None:
    """Only a retraining because of the drift could have cured it."""
    train(world, world.clock.now, **action)
    for _ in range(3):
        hour(world)
    assert world.incidents() == []


def test_an_old_retraining_was_on_another_drift(world: MonitoredWorld) -> None:
    """Where nothing was trained for half a day the drift is a new one, and its own training comes first."""
    train(world, world.clock.now - 12 * HOUR)
    hour(world)
    assert world.incidents() == []


def test_an_incident_ends_with_its_watch_and_with_the_wish(world: MonitoredWorld) -> None:
    """Without the watch, or with forecast_incidents off, nothing is left that could be wrong."""
    train(world, world.clock.now)
    for _ in range(3):
        hour(world)
    assert world.incidents()[0].state == "open"
    unwanted = world.another(forecast_incidents=False)
    for _ in range(2):
        world.clock.now += HOUR
        assert unwanted.monitoring_due() is not None  # though there is no model, and nothing else to follow
        unwanted.evaluate()
    other = world.another(watches=[])
    other.sync_watches()
    world.send(t0=world.clock.now - 60, t1=world.clock.now)
    other.drain()
    world.clock.now += HOUR
    other.evaluate()
    assert world.incidents()[0].state == "resolved"
