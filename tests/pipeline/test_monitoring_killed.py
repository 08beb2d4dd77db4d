"""A drain and an evaluation killed (-9) at any line leave what an undisturbed one would have left."""

import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from sentinel_core.storage import event_store, model_store, schema
from sentinel_core.storage.parquet import Columns
from tests.monitored_world import DAY, HOUR, START, MonitoredWorld

ROOT = Path(__file__).parents[2]
NOW = START + 2 * DAY + 60.0
KILLS = 6


def prepared(folder: Path, stack: ExitStack, sql_url: str | None = None) -> MonitoredWorld:
    """A model with its history, and two days in the log, of which the second has drifted."""
    world = MonitoredWorld(folder, stack, sql_url)
    world.grow_up(rate=30.0)
    for hour in range(1, 48):
        world.send(t0=START + hour * HOUR, t1=START + (hour + 1) * HOUR, rate=30.0, mean=2.0 if hour >= 24 else 0.0)
    world.clock.now = NOW
    return world


def left(world: MonitoredWorld) -> tuple[Columns, dict[str, list[Any]]]:
    """Scores, and everything else that the two must agree in."""
    scores = event_store.read_psi(world.store, HOUR, 0, 2**40)
    table = schema.incident_transitions
    with world.store.database.read() as conn:
        (model,) = model_store.models(conn)
        steps = conn.execute(sa.select(table.c.kind, table.c.hour, table.c.reason).order_by(table.c.id)).all()
        states = model_store.states(conn)
    events = event_store.read_events(world.store, 0, 2**40, ["ts", "id"])
    rest = {
        "model": [model.events, model.first_event_at, model.last_event_at, model.baseline_version],
        "steps": [tuple(step) for step in steps],
        "states": [(row.hour, row.state) for row in states.values()],
        "events": sorted(zip(events["ts"].tolist(), events["id"].tolist(), strict=True)),
    }
    return scores, rest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_kills_change_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Killed again and again in between, the same events, scores, transitions and states are there at the end, once."""
    sql_url = None if kind == "sqlite" else request.getfixturevalue("postgres_url")
    rng = random.Random(3)
    with ExitStack() as stack:
        undisturbed = prepared(tmp_path / "undisturbed", stack)
        undisturbed.engine.drain()
        undisturbed.engine.evaluate()
        killed = prepared(tmp_path / "killed", stack, sql_url)
        for number in range(KILLS):
            busy = tmp_path / f"busy{number}"
            url = killed.engine.config.resolved_sql_url
            command = [
                sys.executable,
                "-m",
                "tests.pipeline.monitor_worker",
                url,
                str(killed.folder),
                str(NOW),
                str(busy),
            ]
            worker = subprocess.Popen(command, cwd=ROOT)
            deadline = time.monotonic() + 60
            while not busy.exists():
                assert worker.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(rng.uniform(0.05, 0.8))
            worker.kill()
            worker.wait()
        killed.engine.drain()
        killed.engine.evaluate()
        scores, rest = left(undisturbed)
        found, same = left(killed)
        assert same == rest
        assert rest["steps"]
        for name, column in scores.items():
            np.testing.assert_array_equal(found[name], column, err_msg=name)
