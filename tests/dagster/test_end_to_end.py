"""A real `dagster dev` over a real Prometheus: it starts cold, ticks, trains, rolls back and backfills."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.workspace import dagster_home, environment, write_workspace
from sentinel_dagster.partitions import hour_key
from tests.dagster.test_assets import events
from tests.prometheus_server import PrometheusServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.prometheus,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(dagster_graphql|gql|graphql|requests).*"),
]

PATIENCE_SECONDS = 180.0
BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


def eventually(what: str, question: Callable[[], Any]) -> Any:
    """Ask until the answer is true; fails with what was waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"not within {PATIENCE_SECONDS:.0f} s: {what}")


@pytest.fixture
def config(own_prometheus: PrometheusServer, tmp_path: Path) -> SentinelConfig:
    """Two watches of what Prometheus says about itself; ports that are free."""
    own_prometheus.wait_for("process_resident_memory_bytes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quick: dict[str, Any] = {
        "model_class": "ExponentialSmoothingModel",
        "granularity": "5s",
        "horizon": "10s",
        "lookback": "20s",
        "history": "10m",
    }
    return SentinelConfig(
        prometheus_url=own_prometheus.url,
        artifact_store=str(tmp_path / "store"),
        dagster_port=port,
        settle_delay="1s",
        watches=[
            WatchConfig(metric="process_resident_memory_bytes", **quick),
            WatchConfig(metric="go_threads", **quick),
        ],
    )


@pytest.fixture
def running(config: SentinelConfig) -> Iterator[dg.DagsterInstance]:
    """`dagster dev` with its own process group, ended with it; yields its instance."""
    workspace = write_workspace(config)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-p", str(config.dagster_port)]
    with (
        dg.DagsterInstance.from_config(str(dagster_home(config))) as instance,  # its tables, before others want them
        (config.store_path / "dagster.log").open("wb") as log,
    ):
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(config, os.environ), start_new_session=True
        )
        try:
            yield instance
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_the_loop_runs_by_itself_and_by_hand(config: SentinelConfig, running: dg.DagsterInstance) -> None:
    """Cold start and ticks need nobody; a person retrains, rolls back, and backfills several hours in one run."""
    from dagster_graphql import DagsterGraphQLClient

    slugs = sorted(watch.slug for watch in config.watches)

    def runs(job: str, status: dg.DagsterRunStatus) -> int:
        return running.get_runs_count(dg.RunsFilter(job_name=job, statuses=[status]))

    def serving(slug: str) -> list[str]:
        tags = [event.tags or {} for event in events(running, "active_models") if event.partition == slug]
        return [one["dagster/data_version"] for one in tags]

    eventually("the watches are partitions", lambda: sorted(running.get_dynamic_partitions("watches")) == slugs)
    eventually("both watches have a model", lambda: all(serving(slug) for slug in slugs))
    eventually("three ticks", lambda: runs("tick", dg.DagsterRunStatus.SUCCESS) >= 3)
    assert {event.partition for event in events(running, "drift_scores")} <= {
        hour_key(int(time.time()) - ago) for ago in (0, 3_600)
    }

    client = DagsterGraphQLClient("127.0.0.1", port_number=config.dagster_port)

    def launch(job: str, **how: Any) -> None:
        run_id = client.submit_job_execution(job, repository_location_name="sentinel", **how)
        eventually(f"{job} ends", lambda: running.get_run_by_id(run_id).is_finished)  # type: ignore[union-attr]
        run = running.get_run_by_id(run_id)
        assert run is not None
        assert run.is_success, running.all_logs(run_id)

    launch("train", run_config={"ops": {"train_watches": {"config": {"slugs": slugs[:1]}}}})
    trained = [event for event in events(running, "model_versions") if event.partition == slugs[0]]
    assert (trained[0].tags or {})["dagster/data_version"] == "v2"

    launch(
        "rollback",
        run_config={"ops": {"active_models": {"config": {"action": "rollback", "version": "v1", "reason": "by hand"}}}},
        tags={"dagster/partition": slugs[0]},
    )
    assert serving(slugs[0])[0] == "v1"

    now = int(time.time())
    hours = [hour_key(now - ago) for ago in (10_800, 7_200, 3_600)]
    backfill = {
        "assetSelection": [{"path": [asset]} for asset in ("scraped_windows", "forecasts", "drift_scores")],
        "partitionNames": hours,
    }
    answer = httpx.post(
        f"http://127.0.0.1:{config.dagster_port}/graphql",
        json={"query": BACKFILL, "variables": {"params": backfill}},
        trust_env=False,
    ).json()
    backfill_id = answer["data"]["launchPartitionBackfill"]["backfillId"]

    def ended() -> bool:
        found = running.get_backfill(backfill_id)
        return found is not None and found.status in BULK_ACTION_TERMINAL_STATUSES

    eventually("the backfill ends", ended)
    own = running.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    assert [run.status for run in own] == [dg.DagsterRunStatus.SUCCESS] * len(own)
    assert len(own) <= 2  # windows and forecasts together, then the drift of what was forecast
    for asset in ("scraped_windows", "forecasts", "drift_scores"):
        assert {event.partition for event in events(running, asset)} >= set(hours)
    assert not runs("tick", dg.DagsterRunStatus.FAILURE)
