"""Before a start: ends runs whose worker is gone, so that they do not hold their lane for ever.

    python -m sentinel_dagster.reconcile

When everything is killed in the middle of a run (power, OOM), nobody is left to report it: the run stays STARTED and
its lane full. Runs of workers that outlived their daemon go on. Queued runs are left to the daemon.
"""

import os
import sys
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType
from dagster._core.launcher import DefaultRunLauncher  # the only public name of it is in dagster.yaml

_WITH_WORKER = [
    dg.DagsterRunStatus.NOT_STARTED,  # created, then killed before it was queued
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def reconcile(instance: dg.DagsterInstance) -> list[str]:
    """Fail every unfinished run of this machine whose worker is gone; returns their ids.

    Call it only while no daemon runs on the instance: a run that is being launched has no worker yet. Runs that another
    launcher put elsewhere (Kubernetes, Docker) are its own business.
    """
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return []
    gone = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=_WITH_WORKER))
        if not _worker_lives(instance, run.run_id)
    ]
    for run in gone:
        instance.report_run_failed(run, "Its worker was gone when Sentinel started; the next tick or retry takes over.")
    return [run.run_id for run in gone]


def _worker_lives(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the newest process that said it worked on the run is still that same process."""
    for record in reversed(instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = record.get_dagster_event()
        pid = event.engine_event_data.metadata.get("pid")
        if pid is not None:
            started = _started_at(int(str(pid.value)))
            return started is not None and started <= record.timestamp
    return False


def _started_at(pid: int) -> float | None:
    """When a process of this machine started, unix seconds; None where there is none, and 0 where nobody can say."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():  # not Linux
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        return None
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return int(boot.split()[1]) + int(fields[19]) / _CLOCK_TICKS


def main() -> int:
    """Reconcile the instance of DAGSTER_HOME and say how many runs it was."""
    with dg.DagsterInstance.get() as instance:
        print(f"{len(reconcile(instance))} unfinished runs had lost their worker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
