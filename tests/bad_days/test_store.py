"""The disk is full, or the store belongs to a newer Sentinel: what is there stays, and is served."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sentinel_core import WatchConfig
from sentinel_core.cli import main
from sentinel_core.errors import StoreError
from sentinel_core.storage import watch_store
from tests.apps.server import eventually, free_port
from tests.bad_days.conftest import serving
from tests.bad_days.doomed import watches
from tests.moved_world import Clock, World

Watch = Callable[..., WatchConfig]
ROOT = Path(__file__).parents[2]
DISK = "12m"


def test_a_full_disk_is_survived(world: World, tmp_path: Path) -> None:
    """Ticks and trainings fail with the remedy, the last forecasts are served, and with space again it all goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    code = "from tests.bad_days.test_store import live_on_a_small_disk as live; import sys; live(*sys.argv[1:])"
    inner = f'mount -t tmpfs -o size={DISK} none "$0" && exec "{sys.executable}" -c "{code}" "$0" "$1" "$2"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inner, str(disk), world.url, str(world.clock.now)],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def live_on_a_small_disk(disk: str, url: str, now: str) -> None:
    """The test's own process, in which the disk is mounted."""
    with ExitStack() as stack:
        world = World(Path(disk, "store"), url, Clock(float(now)), stack)
        engine = world.engine(*watches())
        slugs = engine.sync_watches()
        engine.train(slugs, kind="cold_start", reason="test")
        world.tick(engine)
        began = world.clock.now
        with serving(engine) as sidecar:
            served = sidecar.lines("even")
            ballast = Path(disk, "ballast")
            fill(ballast)
            words = r"no space left on .*free space or move artifact_store"
            for _ in range(2):
                with pytest.raises(StoreError, match=words):
                    world.tick(engine)
            with pytest.raises(StoreError, match=words):
                engine.train(slugs, kind="retrain", reason="test")
            with pytest.raises(StoreError, match="no space left"):  # a process of its own, as each tick is one
                world.tick(world.engine(*watches()))
            assert sidecar.lines("even") == served
            assert sidecar.status()["even"]["ready"]
            ballast.unlink()
            world.clock.now += 120  # the lease of the training that could not even say how it ended
            scraped, forecast, _ = world.tick(engine)
            assert scraped.failures == forecast.failures == {}
            assert [report.version for report in engine.train(slugs, kind="retrain", reason="test")] == [2, 2]
        with engine.store.database.read() as conn:
            spans = watch_store.coverage(conn, watch_store.watch_ids(conn)[slugs[0]])
        assert len(spans) == 1
        assert spans[0][1] > began


def fill(ballast: Path) -> None:
    """Leave not a byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("command", [["up"], ["status"], ["rollback", "even"]])
def test_a_newer_store_is_left_alone(
    world: World, watch: Watch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Every command says which schema it found and what to do, exit code 1; nothing is started, nothing changed."""
    engine = world.engine(watch())
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    with engine.store.database.write() as conn:
        conn.exec_driver_sql("update alembic_version set version_num = '9999'")
    file = tmp_path / "sentinel.toml"
    file.write_text(f'artifact_store = "{world.folder}"\nemitter_port = {free_port()}\ndagster_port = {free_port()}\n'
                    '[[watches]]\nmetric = "even"\nmodel_class = "LinearTrendModel"\nlookback = "10m"\n')  # fmt: skip
    assert main([*command, "--config", str(file)]) == 1
    said = capsys.readouterr()
    assert "was written by a newer Sentinel (schema 9999, this one knows" in said.err
    assert "upgrade Sentinel, or point artifact_store (sql_url) elsewhere" in said.err
    assert engine.status()["even"]["active_version"] == "v1"


def test_forecasts_that_are_not_taken_make_a_watch_late(
    world: World, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where samples are stored and forecasts are not, status and metrics say how old those are and why."""
    engine = world.engine(watch())
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    world.tick(engine)

    def refuse(*_: object) -> None:
        raise StoreError("the bucket refuses; check its policy")

    with serving(engine) as sidecar:
        with monkeypatch.context() as broken:
            broken.setattr("sentinel_core.storage.forecast_store.write_forecasts", refuse)
            for _ in range(5):
                with pytest.raises(StoreError, match="the bucket refuses"):
                    world.tick(engine)
        status = engine.status()["even"]
        assert (status["staleness_seconds"], status["series"]) == (300, 2)
        assert status["last_error"] == "forecast: the bucket refuses; check its policy"
        eventually(lambda: sidecar.value("sentinel_watch_staleness_seconds{") == 300)
        world.tick(engine)
        status = engine.status()["even"]
        assert (status["staleness_seconds"], status["last_error"]) == (0, None)
