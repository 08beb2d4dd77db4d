"""Old runs of ticks go with their files; runs that lost their worker end before a start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData  # what a run's worker reports itself with

from sentinel_core.config import SentinelConfig
from sentinel_core.workspace import dagster_home, write_workspace
from sentinel_dagster.jobs import LANE_TAG
from sentinel_dagster.metadata import CHANGED_TAG
from sentinel_dagster.reconcile import reconcile
from sentinel_dagster.retention import purge_runs

CHECK = dg.AssetCheckKey(dg.AssetKey("something"), "well")
HOUR = "2026-03-01-10:00"


@pytest.fixture(params=["as it comes", "as Sentinel writes it"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A DAGSTER_HOME: an event log with a file for each run, or our dagster.yaml's with one for all."""
    if request.param == "as Sentinel writes it":
        config = SentinelConfig(artifact_store=str(tmp_path))
        write_workspace(config)
        return dagster_home(config)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


@pytest.fixture
def stored(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, as `dagster dev` has one."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def finished(instance: dg.DagsterInstance, *, lane: str | None = "tick", hour: str = HOUR, fails: bool = False) -> str:
    """Run a one-asset job to its end, logs and all; returns the run's id."""

    @dg.asset(
        partitions_def=dg.HourlyPartitionsDefinition(start_date="2026-03-01-00:00"),
        check_specs=[dg.AssetCheckSpec(CHECK.name, asset=CHECK.asset_key)],
    )
    def something(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        print("a line in the run's own log")
        if fails:
            raise dg.Failure("on purpose", allow_retries=False)
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

    tags = {LANE_TAG: lane} if lane else {}
    result = dg.materialize([something], instance=instance, partition_key=hour, tags=tags, raise_on_error=False)
    return str(result.run_id)


def files(home: Path, run_id: str) -> list[Path]:
    """What a run has left on disk."""
    return [path for path in home.rglob("*") if run_id in str(path) and path.is_file()]


def test_purge_thins_ticks_to_one_an_hour_and_deletes_their_files(home: Path, stored: dg.DagsterInstance) -> None:
    """The newest successful tick of an hour stays, older and failed ones go; trainings and people's runs are kept."""
    older, newer = finished(stored), finished(stored)
    failed = finished(stored, fails=True)
    next_hour = finished(stored, hour="2026-03-01-11:00")
    training, by_hand = finished(stored, lane="train"), finished(stored, lane=None)
    assert files(home, older)
    purged = purge_runs(stored, now=datetime.now(UTC) + timedelta(days=3), keep_days=2, keep_hourly_days=90)
    assert purged.runs == 2
    assert purged.bytes > 0
    assert {run.run_id for run in stored.get_runs()} == {newer, next_hour, training, by_hand}
    assert not files(home, older)
    assert not files(home, failed)
    checked = stored.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
    assert {record.run_id for record in checked} == {newer, next_hour, training, by_hand}
    assert all(files(home, kept) for kept in (newer, next_hour, training, by_hand))


def test_purge_ends_after_the_hourly_retention(home: Path, stored: dg.DagsterInstance) -> None:
    """Beyond it no tick is kept, so that the event log does not grow without bound."""
    tick, training = finished(stored), finished(stored, lane="train")
    assert purge_runs(stored, now=datetime.now(UTC) + timedelta(days=91), keep_hourly_days=90).runs == 1
    assert [run.run_id for run in stored.get_runs()] == [training]
    assert not files(home, tick)


def test_each_lane_has_its_own_newest_run_of_an_hour(stored: dg.DagsterInstance) -> None:
    """Beside a tick the newest evaluation of its hour stays, and every one that logged what happened to a model."""
    changing, older, newer, tick = (finished(stored, lane=lane) for lane in ("monitor", "monitor", "monitor", "tick"))
    delivery = finished(stored, lane="deliver", hour="2026-03-01-11:00")
    stored.add_run_tags(changing, {CHANGED_TAG: "changed"})
    for days, kept in ((3, {changing, newer, tick, delivery}), (91, set())):
        purge_runs(stored, now=datetime.now(UTC) + timedelta(days=days), keep_days=2, keep_hourly_days=90)
        assert {run.run_id for run in stored.get_runs()} == kept, older


def test_purge_deletes_trainings_that_made_nothing(home: Path, stored: dg.DagsterInstance) -> None:
    """One that failed goes after `keep_days`; one that logged what it made stays."""
    failed, training = finished(stored, lane="train", fails=True), finished(stored, lane="train")
    purge_runs(stored, now=datetime.now(UTC) + timedelta(days=1), keep_days=2, keep_hourly_days=90)
    assert len(stored.get_runs()) == 2
    assert purge_runs(stored, now=datetime.now(UTC) + timedelta(days=3), keep_days=2, keep_hourly_days=90).runs == 1
    assert [run.run_id for run in stored.get_runs()] == [training]
    assert not files(home, failed)


def test_purge_leaves_young_and_unfinished_runs(stored: dg.DagsterInstance) -> None:
    """What is younger than the retention, or has not ended, is not touched."""
    young = finished(stored)
    stored.add_run(dg.DagsterRun("tick", tags={LANE_TAG: "tick"}, status=dg.DagsterRunStatus.STARTED))
    assert purge_runs(stored, now=datetime.now(UTC), keep_hourly_days=90).runs == 0
    purge_runs(stored, now=datetime.now(UTC) + timedelta(days=400), keep_hourly_days=90)
    assert young not in [run.run_id for run in stored.get_runs()]
    assert len(stored.get_runs()) == 1


def unfinished(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, pid: int | None = None) -> str:
    """A run in flight, said to be worked on by a process."""
    run = instance.add_run(dg.DagsterRun("tick", tags={LANE_TAG: "tick"}, status=status))
    if pid is not None:
        message = f"Started process for run (pid: {pid})."
        instance.report_engine_event(message, run, EngineEventData({"pid": dg.MetadataValue.text(str(pid))}))
    return run.run_id


def test_runs_that_lost_their_worker_end(stored: dg.DagsterInstance) -> None:
    """Whether they had a worker that is gone or never got one, they fail and free their lane."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    gone = {
        unfinished(stored, dg.DagsterRunStatus.STARTED, process.pid),
        unfinished(stored, dg.DagsterRunStatus.STARTING),
        unfinished(stored, dg.DagsterRunStatus.CANCELING),
        unfinished(stored, dg.DagsterRunStatus.NOT_STARTED),
    }
    assert set(reconcile(stored)) == gone
    assert all(stored.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE for run_id in gone)  # type: ignore[union-attr]
    assert reconcile(stored) == []


def test_a_worker_that_outlived_its_daemon_goes_on(stored: dg.DagsterInstance) -> None:
    """Its run is left alone."""
    unfinished(stored, dg.DagsterRunStatus.STARTED, os.getpid())
    assert reconcile(stored) == []


def test_a_process_that_got_the_number_of_a_dead_worker_is_not_it(
    stored: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that began after the run's worker did is somebody else."""
    run_id = unfinished(stored, dg.DagsterRunStatus.STARTED, os.getpid())
    later = datetime.now(UTC).timestamp() + 60
    monkeypatch.setattr("sentinel_dagster.reconcile._started_at", lambda pid: later)
    assert reconcile(stored) == [run_id]


def test_reconcile_says_how_many(home: Path, stored: dg.DagsterInstance) -> None:
    """As the supervisor calls it, on the instance of DAGSTER_HOME."""
    unfinished(stored, dg.DagsterRunStatus.STARTED)
    command = [sys.executable, "-m", "sentinel_dagster.reconcile"]
    result = subprocess.run(
        command, env={**os.environ, "DAGSTER_HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert result.stdout == "1 unfinished runs had lost their worker\n"
