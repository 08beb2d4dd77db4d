"""A watch that lets each series choose says what they chose, wherever one looks."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from sentinel_core import WatchConfig
from sentinel_core.emitter.self_metrics import per_watch
from sentinel_core.emitter.snapshot import SnapshotLoader
from sentinel_core.models.auto import CANDIDATES
from sentinel_core.pipeline import Engine
from sentinel_core.storage import series_models, watch_store
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def shown(engine: Engine) -> dict[str, float]:
    """Of `sentinel_watch_models`, by model."""
    snapshot = SnapshotLoader(engine.store, engine.config).load(0.0)
    (family,) = (family for family in per_watch(snapshot, 0.0) if family.name == "sentinel_watch_models")
    return {sample.labels["model"]: sample.value for sample in family.samples}


def test_the_choice_is_told(world: World, load: Watch) -> None:
    """The training's report, the status and /metrics count the series of each model, and each series has its own."""
    engine = world.engine(load(model_class="auto"))
    (slug,) = engine.sync_watches()
    (report,) = engine.train([slug], kind="cold_start", reason="test")
    assert report.promoted, report.detail
    assert sum(report.models.values()) == 6
    assert set(report.models) <= {candidate.__name__ for candidate in CANDIDATES}
    assert engine.status()["shop_load"]["models"] == report.models
    assert shown(engine) == report.models
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
        names = series_models.names(conn, 1, fingerprints.tolist())
    assert Counter(names.values()) == report.models


def test_the_choice_is_that_of_what_serves(world: World, load: Watch) -> None:
    """Another model's training changes it, and so does a rollback; what it holds back does not."""
    first = world.engine(load(model_class="ARIMAModel"))
    (slug,) = first.sync_watches()
    first.train([slug], kind="cold_start", reason="test")
    assert shown(first) == {"ARIMAModel": 6}
    engine = world.engine(load())
    (report,) = engine.train([slug], kind="retrain", reason="test")
    assert report.promoted, report.detail
    assert shown(engine) == {"LinearTrendModel": 6}
    engine.roll_back(slug, version=1, reason="test")
    assert shown(engine) == {"ARIMAModel": 6}
    engine.train([slug], kind="retrain", reason="test")
    assert shown(engine) == {"ARIMAModel": 6}
    engine.release(slug, reason="test")
    engine.train([slug], kind="retrain", reason="test")
    assert shown(engine) == {"LinearTrendModel": 6}


def test_what_no_version_has_learnt_has_no_model(world: World, load: Watch) -> None:
    """A series that what serves does not know is forecast by nobody's."""
    engine = world.engine(load())
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    with engine.store.database.write() as conn:
        _, fingerprints = watch_store.live_series(conn)
        series_models.note(conn, 1, fingerprints[:2], np.array(["A", "B"]))
        assert series_models.names(conn, 1, fingerprints.tolist()) == dict(
            zip(fingerprints[:2].tolist(), ["A", "B"], strict=True)
        )
        assert series_models.counts(conn, [1]) == {1: {"A": 1, "B": 1}}
