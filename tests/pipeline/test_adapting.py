"""Bounds that are issued follow the rounds that were judged, until another version serves."""

from collections.abc import Callable

import numpy as np

from sentinel_core import WatchConfig
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.serving import load_serving
from sentinel_core.storage import forecast_store, watch_store
from sentinel_core.storage.parquet import Columns
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def shown(engine: Engine) -> tuple[Columns, np.ndarray]:
    """The newest forecast's rows, and the distances of its bounds as training has found them [rows, 2]."""
    (watch,) = engine.config.watches
    with engine.store.database.read() as conn:
        state = watch_store.states(conn)[watch.slug]
    assert state.forecast_segment_id is not None
    rows = forecast_store.read_segment(engine.store, state.forecast_segment_id)
    serving, _ = load_serving(engine.context, [watch], engine.context.watch_ids())
    fitted, _ = serving[watch.slug]
    trained = fitted.offsets[np.searchsorted(fitted.model.fingerprints, rows["fp"]), rows["lead"] - 1]
    return rows, trained


def factors(rows: Columns, trained: np.ndarray) -> np.ndarray:
    """What the distances of the bounds were multiplied by [rows, 2]."""
    distance = np.stack([rows["lower"] - rows["mean"], rows["upper"] - rows["mean"]], axis=1)
    return distance / trained


def test_bounds_follow_the_judged_rounds_until_a_new_version(world: World, load: Watch) -> None:
    """Each lead's bounds are wider or narrower as the newest round left them; a new version starts from its own."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    np.testing.assert_allclose(factors(*shown(engine)), 1)
    for _ in range(16):
        world.tick(engine)
    with engine.store.database.read() as conn:
        state = watch_store.states(conn)[slug]
    assert state.verified_until is not None
    left = forecast_store.read_widths(engine.store, 60, [state.verified_until])
    assert sorted(set(left["lead"])) == [1, 2, 4, 5]
    assert set(left["version"]) == {1}
    rows, trained = shown(engine)
    found = factors(rows, trained)
    assert np.abs(np.log(found)).max() > 1e-3
    for fp, lead, lower, upper in zip(*(left[name] for name in ("fp", "lead", "lower", "upper")), strict=True):
        at = (rows["fp"] == fp) & (rows["lead"] == lead)
        np.testing.assert_allclose(np.log(found[at]), [[lower, upper]], atol=1e-6)
    between, near, far = (found[rows["lead"] == lead] for lead in (3, 2, 4))
    assert ((between >= np.minimum(near, far) - 1e-9) & (between <= np.maximum(near, far) + 1e-9)).all()
    engine = world.engine(load(lookback="20m"))  # a changed configuration serves, whether or not it is better
    engine.train([slug], kind="retrain", reason="test")
    assert engine.serving(slug).version == 2
    np.testing.assert_allclose(factors(*shown(engine)), 1)
    world.tick(engine)
    rows, trained = shown(engine)
    np.testing.assert_allclose(factors(rows, trained), 1)
