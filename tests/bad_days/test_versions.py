"""Artifacts are damaged, trainings collide or die, rollbacks have nowhere to go: what served goes on serving."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from sentinel_core import WatchConfig, registry
from sentinel_core.errors import ArtifactError, RegistryError
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.deciding import LEASE_SECONDS
from sentinel_core.pipeline.reports import TrainingReport
from sentinel_core.storage import schema
from tests.apps.server import eventually
from tests.bad_days.conftest import serving
from tests.moved_world import World

Watch = Callable[..., WatchConfig]
ROOT = Path(__file__).parents[2]


def retrained(world: World, watch: Watch, trainings: int, **settings: object) -> tuple[Engine, str]:
    """A watch with so many versions; a changed lookback serves whether or not it is better."""
    for k in range(trainings):
        engine = world.engine(watch(lookback=f"{10 + k}m"), watch("zero"), **settings)
        slug, other = engine.sync_watches()
        slugs = [slug] if k else [slug, other]
        reports = engine.train(slugs, kind="retrain" if k else "cold_start", reason="test", run_id=f"run-{k + 1}")
        assert all(report.promoted for report in reports), reports
        world.tick(engine)
    return engine, slug


def artifact(engine: Engine, slug: str, number: int) -> Path:
    with engine.store.database.read() as conn:
        version = registry.version(conn, engine.context.watch_ids()[slug], number)
    return Path(engine.store.segments.folder.address(version.path))


@pytest.mark.parametrize("damage", ["tampered", "truncated", "foreign", "missing"])
def test_a_damaged_artifact_gives_way_to_the_one_before(world: World, watch: Watch, damage: str) -> None:
    """The previous good version serves and status says so; a new training heals it; other watches do not notice."""
    engine, slug = retrained(world, watch, 2)
    path = artifact(engine, slug, 2)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        shutil.copy(artifact(engine, slug, 1), path)
    else:
        path.write_bytes(
            content[: len(content) // 2] if damage == "truncated" else content[:-20] + b"x" + content[-19:]
        )
    engine = world.engine(*engine.config.watches)  # another process
    _, forecast, _ = world.tick(engine)
    assert list(forecast.failures) == [slug]
    status = engine.status()
    assert "Meanwhile v1 serves" in str(status["even"]["last_error"])
    assert ("is missing" if damage == "missing" else "does not match its SHA-256") in str(status["even"]["last_error"])
    assert status["zero"]["last_error"] is None
    with serving(engine) as sidecar:
        eventually(lambda: all('sentinel_version="v1"' in line for line in sidecar.lines("even")))
        assert len(sidecar.lines("even")) == 10
        (report,) = engine.train([slug], kind="retrain", reason="test")
        assert report.promoted
        assert "instead of v2, whose artifact cannot be read" in report.detail
        eventually(lambda: all('sentinel_version="v3"' in line for line in sidecar.lines("even")))
    world.tick(engine)
    assert engine.status()["even"]["last_error"] is None


def test_without_any_good_artifact_the_last_value_stands(world: World, watch: Watch) -> None:
    """It is marked as such, and the sensor's next decision trains the watch anew."""
    engine, slug = retrained(world, watch, 1)
    artifact(engine, slug, 1).unlink()
    engine = world.engine(*engine.config.watches)
    _, forecast, _ = world.tick(engine)
    assert forecast.naive == 2
    world.tick(engine)
    (request,) = engine.decide_actions()
    (report,) = engine.train(request.slugs, kind=request.kind, reason="test")
    assert report.promoted
    assert report.detail.startswith("serves instead of v1, whose artifact cannot be read")


def test_a_rollback_without_predecessor_is_refused(world: World, watch: Watch) -> None:
    """The reason is said, nothing is pinned, and the only version goes on serving."""
    engine, slug = retrained(world, watch, 1)
    with pytest.raises(RegistryError, match="v1 has no predecessor to roll back to: it is the oldest version"):
        engine.roll_back(slug, reason="test")
    assert engine.serving(slug).pinned is False
    _, forecast, _ = world.tick(engine)
    assert (forecast.failures, forecast.naive) == ({}, 0)


def test_a_rollback_to_a_damaged_artifact_is_refused(world: World, watch: Watch) -> None:
    """The artifact must prove itself before anything changes; what serves goes on serving."""
    engine, slug = retrained(world, watch, 2)
    artifact(engine, slug, 1).write_bytes(b"something else")
    engine = world.engine(*engine.config.watches)
    with pytest.raises(ArtifactError, match="does not match its SHA-256"):
        engine.roll_back(slug, reason="test")
    assert (engine.serving(slug).pinned, engine.serving(slug).version) == (False, 2)
    _, forecast, _ = world.tick(engine)
    assert forecast.failures == {}


def test_old_artifacts_go_and_what_serves_stays(world: World, watch: Watch) -> None:
    """After many trainings the newest few are on the disk, and one that was rolled back to, however old."""
    engine, slug = retrained(world, watch, 3, max_versions_per_metric=2)
    engine.roll_back(slug, version=2, reason="test")
    for _ in range(3):
        engine.train([slug], kind="retrain", reason="test")
        world.tick(engine)
    folder = artifact(engine, slug, 2).parent
    with engine.store.database.read() as conn:
        known = registry.versions(conn, engine.context.watch_ids()[slug])
    kept = [version.version for version in known if version.deleted_at is None]
    assert 2 in kept
    assert len(kept) <= 2 + 2  # the newest two, what serves, and the last full training
    assert len(list(folder.iterdir())) == len(kept)
    assert engine.serving(slug).version == 2
    assert [version.version for version in known] == list(range(len(known), 0, -1))
    lost = folder / "v9-0123abcd.joblib"
    lost.write_bytes(b"left by a training that was killed")
    (folder / "notes.txt").write_text("a person's")
    world.clock.now = time.time() + 7200
    engine.maintain()
    assert not lost.exists()
    assert len(list(folder.iterdir())) == len(kept) + 1


def test_two_trainings_at_once_are_one(world: World, watch: Watch) -> None:
    """The second finds the watch leased and says so; there is one new version."""
    engines = [world.engine(watch()) for _ in range(2)]
    (slug,) = engines[0].sync_watches()
    reports: list[TrainingReport] = []

    def train(engine: Engine) -> None:
        reports.extend(engine.train([slug], kind="retrain", reason="test", run_id=f"run-{id(engine)}"))

    threads = [threading.Thread(target=train, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.version or 0 for report in reports) == [0, 1]
    (refused,) = [report for report in reports if report.version is None]
    assert refused.detail == "another run is training it"
    world.tick(engines[0])
    assert engines[0].status()["even"]["last_error"] is None


def test_a_training_killed_in_the_middle_leaves_nothing_half(world: World, watch: Watch) -> None:
    """kill -9: what serves goes on serving, the lease lapses, and the next decision trains as if nothing had been."""
    engine, slug = retrained(world, watch, 1)
    marker = world.folder / "training"
    command = [sys.executable, "-m", "tests.bad_days.doomed", "train", str(world.folder), world.url]
    command += [str(world.clock.now), str(marker)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        eventually(marker.exists, 30)
        process.send_signal(signal.SIGKILL)
    with engine.store.database.read() as conn:
        assert len(registry.versions(conn, 1)) == 1
        held = conn.execute(sa.select(schema.actions).where(schema.actions.c.finished_at.is_(None))).all()
    assert [row.run_id for row in held] == ["doomed"]
    (report,) = engine.train([slug], kind="retrain", reason="test")
    assert report.detail == "another run is training it"
    _, forecast, _ = world.tick(engine)
    assert forecast.failures == {}
    assert list(artifact(engine, slug, 1).parent.iterdir()) == [artifact(engine, slug, 1)]
    world.clock.now += LEASE_SECONDS
    (report,) = engine.train([slug], kind="retrain", reason="test")
    assert report.version == 2
