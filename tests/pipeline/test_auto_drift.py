"""drift_unit = "auto": what a tick scores beside the forecasts, and what it makes of it."""

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy_adapter import drift_actions
from sentinel_core import WatchConfig
from sentinel_core.pipeline import Engine
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.windows import Window, grid
from tests.moved_world import World

Watch = Callable[..., WatchConfig]
STEP, DAY = 3600, 24


def actuals(engine: Engine, start: int, end: int) -> Window:
    """What is stored of every living series."""
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    return windows_store.read_window(engine.store, 60, np.sort(fingerprints), start, end)


def test_free_forecasts_are_scored_beside_the_models(world: World, load: Watch) -> None:
    """Repeating the last value and the day before are off by what the stored windows say, in the metric's unit."""
    engine = world.engine(load(drift_unit="auto"))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(3):
        world.tick(engine)
    end = int(world.clock.now) // 60 * 60
    scores = forecast_store.read_scores(engine.store, 60, end - 600, end)
    assert len(scores["ts"])
    horizon = engine.context.config.watches[0].horizon_steps
    window = actuals(engine, end - 2 * 86_400, end)
    for row in range(len(scores["ts"])):
        values = window.values[np.searchsorted(window.fingerprints, scores["fp"][row])]
        at = int((scores["ts"][row] - window.timestamps[0]) // 60)
        off = np.abs(values[at] - values[at - np.arange(1, horizon + 1)])
        np.testing.assert_allclose(scores["naive"][row], off.mean(), rtol=0.35)  # at knots of the leads
        np.testing.assert_allclose(scores["seasonal"][row], abs(values[at] - values[at - 1440]))


def test_a_new_level_retrains_and_a_quiet_series_rests(world: World, load: Watch) -> None:
    """What is as usual has no drift; far from it, and worse than what costs nothing, it is high."""
    engine = world.engine(load(drift_unit="auto"))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(24):
        world.tick(engine)
    end = int(world.clock.now) // 60 * 60
    (calm,) = engine.score_drift(end, end).watches
    assert calm.severity == "none"
    assert calm.scored > 0
    times = grid(end - 20 * 60, end, 60)
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    moved = Window(np.sort(fingerprints), times, np.full((len(fingerprints), len(times)), 5_000.0), 60)
    with engine.store.database.write() as conn:
        engine.store.segments.commit(conn, [windows_store.write_windows(engine.store, 60, [moved])])
    engine.score_drift(end - 20 * 60, end, mode="replay")
    engine.score_drift(end, end)
    with engine.store.database.read() as conn:
        (state,) = watch_store.states(conn).values()
    assert state.severity == "high"
    assert state.drift_mae is not None
    assert state.drift_mae > 4


def test_what_drift_would_have_done_knows_nothing_of_later_steps() -> None:
    """A benchmark's series cut short has the same actions until then; a new level is found, noise alone is not."""
    rng = np.random.default_rng(0)
    t = np.arange(8 * DAY)
    values = 10 + 2 * np.sin(2 * np.pi * t / DAY) + rng.normal(0, 0.3, (4, len(t)))
    values[2:, 5 * DAY :] += 30
    done = drift_actions(values, STEP)
    assert (done[:2] != 2).all()
    assert done[2:, 5 * DAY : 6 * DAY].any(axis=1).all()
    cut = 6 * DAY
    np.testing.assert_array_equal(drift_actions(values[:, :cut], STEP), done[:, :cut])
