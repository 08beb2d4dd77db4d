"""Deletes old runs of all that comes by the clock, and vain trainings; Dagster's own retention covers evaluations only.

A tick leaves some 100 KB, 1,440 times a day. `delete_run` deletes the events, and with them the materializations of the
hours, but leaves the run's own files and the results of its checks; hence the newest successful run of each hour stays
much longer, so that the hours still show what happened. So do runs in which something happened to a model in
production, whose timeline is in the store in any case. Trainings that made a version, activations and assets that a
person materialized are never touched: they are what a version's lineage points to.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage  # see _delete_checks
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

from sentinel_dagster.metadata import CHANGED_TAG
from sentinel_dagster.partitions import RANGE_END_TAG, RANGE_START_TAG

BY_THE_CLOCK = ["tick", "monitor", "deliver", "maintain"]  # lanes
KEEP_DAYS = 2.0
KEEP_HOURLY_DAYS = 90.0
LOOK_BACK_DAYS = 30.0  # a month without housekeeping leaves vain trainings behind

_BATCH = 500
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_HOUR_TAGS = ("dagster/partition", RANGE_START_TAG, RANGE_END_TAG)


@dataclass(frozen=True)
class Purged:
    """How many runs went, and the bytes of their files."""

    runs: int
    bytes: int


def purge_runs(
    instance: dg.DagsterInstance, *, now: datetime, keep_days: float = KEEP_DAYS, keep_hourly_days: float
) -> Purged:
    """Delete finished runs older than `keep_days` in the lanes of `BY_THE_CLOCK`, and in `train` those in vain.

    The newest successful run of each lane and hour (or range of hours) among them stays for `keep_hourly_days`, and so
    does one that logged what happened to a model.
    """
    oldest_hourly = (now - timedelta(days=keep_hourly_days)).timestamp()
    before = (now - timedelta(days=keep_days)).astimezone(UTC)
    old = instance.get_run_records(
        dg.RunsFilter(tags={"lane": BY_THE_CLOCK}, statuses=_FINISHED, created_before=before)
    )  # newest first
    kept: set[tuple[str, ...]] = set()
    gone: list[str] = []
    for record in old:
        run = record.dagster_run
        hour = tuple(run.tags.get(tag, "") for tag in _HOUR_TAGS)
        young = record.create_timestamp.replace(tzinfo=UTC).timestamp() >= oldest_hourly
        of_lane = run.tags["lane"], *hour
        if young and (CHANGED_TAG in run.tags or (run.is_success and any(hour) and of_lane not in kept)):
            kept.add(of_lane)
            continue
        gone.append(run.run_id)
    gone += _vain_trainings(instance, before)
    for run_id in gone:
        instance.delete_run(run_id)
    _delete_checks(instance, gone)
    return Purged(len(gone), sum(_delete_files(instance, run_id) for run_id in gone))


def _vain_trainings(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Finished trainings from before a time that logged no version: they failed, or had nothing to train.

    Only of the last weeks: those that are older were asked already, and each question is a query.
    """
    since = before - timedelta(days=LOOK_BACK_DAYS)
    trainings = instance.get_run_records(
        dg.RunsFilter(tags={"lane": "train"}, statuses=_FINISHED, created_after=since, created_before=before)
    )
    made = dg.DagsterEventType.ASSET_MATERIALIZATION
    run_ids = [record.dagster_run.run_id for record in trainings]
    return [run_id for run_id in run_ids if not instance.get_records_for_run(run_id, of_type=made, limit=1).records]


def _delete_checks(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Delete the runs' check results: nothing public does, and they would grow by 8,600 rows a day."""
    if isinstance(instance.event_log_storage, SqlEventLogStorage):
        table = AssetCheckExecutionsTable
        with instance.event_log_storage.index_connection() as conn:
            for first in range(0, len(run_ids), _BATCH):  # the table has no index by run: a scan for each batch
                conn.execute(table.delete().where(table.c.run_id.in_(run_ids[first : first + _BATCH])))


def _delete_files(instance: dg.DagsterInstance, run_id: str) -> int:
    """Delete what `delete_run` leaves behind; returns its bytes."""
    home = Path(instance.root_directory)
    events = list((home / "history" / "runs").glob(f"{run_id}.db*"))  # SQLite's -wal and -shm too
    logs = home / "storage" / run_id
    size = sum(path.stat().st_size for path in [*events, *logs.rglob("*")] if path.is_file())
    for path in events:
        path.unlink(missing_ok=True)
    shutil.rmtree(logs, ignore_errors=True)
    return size
