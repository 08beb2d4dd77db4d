from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift
from benchmarks.drift import DAY, DRIFT, Simulation, Task, simulate
from benchmarks.worlds import WORLDS
from sentinel_core.monitoring.event_columns import EventColumns
from sentinel_core.storage import event_store
from tests.monitored_world import HOUR, START, MonitoredWorld

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world", ["daily", "weekly", "wandering"])
def test_models_that_do_not_drift_open_no_incidents(world: str) -> None:
    """Four models of five months each, from their first event on: one incident at most; the plain rule has many."""
    outcomes = [simulate(Task(world, 5, seed, 3_600)) for seed in range(4)]
    assert sum(len(one.opened) for one in outcomes) <= 1
    assert sum(one.plain for one in outcomes) > 100


def test_lasting_drift_is_found_within_a_day_and_never_healed() -> None:
    """Of twelve models that drift by a PSI of 0.25 at 20 events an hour ten are found in time, and none resolves."""
    span = drift.WARM_UP + drift.WEEK + drift.AFTER
    outcomes = [simulate(Task("daily", 20, seed, span, drift=DRIFT)) for seed in range(12)]
    assert sum(one.found is not None and one.found <= DAY for one in outcomes) >= 10
    assert not any(one.healed for one in outcomes)
    assert all(one.plain_healed for one in outcomes)


def test_the_simulated_path_is_the_products(tmp_path: Path) -> None:
    """Events of a lively world with drift in them, through log, drain, segments and evaluation, give the same PSI."""
    rng = np.random.default_rng(5)
    days, shift = 18, 12 * DAY
    hour, value = WORLDS["lively"](rng, days * DAY, 60)
    value = np.where(hour >= shift, value.astype(float) + 0.15, value.astype(float))
    simulated = Simulation(hour, value)
    simulated.run()
    assert [step for _, step in simulated.steps][:1] == ["opened"]
    with ExitStack() as stack:
        world = MonitoredWorld(tmp_path, stack)
        for week in range(0, days * DAY, 6 * DAY):
            at = np.flatnonzero((hour >= week) & (hour < week + 6 * DAY))
            columns = EventColumns(
                model=np.full(len(at), world.model(), np.int32),
                ts=START + hour[at] * HOUR,
                id=at + 1,
                score=value[at],
                number=np.full(len(at), np.nan),
                label=np.zeros(len(at), np.int64),
                texts={},
            )
            world.append(columns)
            world.live(6 * DAY, rate=0)
        rows = event_store.read_psi(world.store, HOUR, START, START + days * DAY * HOUR)
        evaluated = (rows["ts"] - START) // HOUR
        assert rows["psi"] == pytest.approx(simulated.psi[evaluated], nan_ok=True, abs=1e-9)
        assert np.isfinite(rows["psi"]).sum() == np.isfinite(simulated.psi).sum()
        (incident,) = world.incidents()
        assert incident.opened_at == START + simulated.steps[0][0] * HOUR
        assert incident.active == (simulated.status is not None and simulated.status.active)
