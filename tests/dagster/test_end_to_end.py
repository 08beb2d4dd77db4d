"""A real `dagster dev` over a real Prometheus: it starts cold, ticks, trains, rolls back, backfills, and alerts."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

from sentinel_core.alerts import receivers
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.demo.receiver import genuine
from sentinel_core.incidents import store as incidents
from sentinel_core.storage import event_store
from sentinel_core.storage.event_store import REPLAY
from sentinel_core.storage.store import Store
from sentinel_core.workspace import dagster_home, environment, write_workspace
from sentinel_dagster.partitions import hour_key
from tests.dagster.test_assets import checks, events
from tests.model_past import acknowledge
from tests.prometheus_server import PrometheusServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.prometheus,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(dagster_graphql|gql|graphql|requests).*"),
]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
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
        monitor_step="1m",
        alert_networks=["127.0.0.0/8"],
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


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """The URL of a receiver of alerts, and what kinds of them have arrived with a good signature."""
    arrived: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if genuine({name.lower(): value for name, value in self.headers.items()}, body, SECRET, time.time()):
                arrived.append(json.loads(body)["type"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", arrived
        server.shutdown()
        thread.join()


@pytest.fixture
def store(config: SentinelConfig, hook: tuple[str, list[str]]) -> Iterator[Store]:
    """The store, with a receiver, and a model whose scores have moved, of which nothing is drained yet."""
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as opened:
        opened.database.migrate()
        with opened.database.write() as connection:
            receivers.add(connection, 1, "ops", "webhook", {"url": hook[0], "secret": SECRET}, time.time())
        acknowledge(opened, config.hour_seconds)
        yield opened


def test_the_loop_runs_by_itself_and_by_hand(
    config: SentinelConfig, store: Store, hook: tuple[str, list[str]], running: dg.DagsterInstance
) -> None:
    """Cold start, ticks and alerts need nobody; a person retrains, rolls back, and backfills hours in one run."""
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

    def happened() -> list[str]:
        return [str(event.metadata["change"].value) for event in events(running, "monitored_models")]

    arrived = hook[1]
    eventually("the receiver is told", lambda: arrived)
    assert arrived == ["incident.opened"]
    assert set(happened()) == {"registered", "baseline", "opened"}
    assert {event.partition for event in events(running, "monitored_models")} == {"default/fraud"}
    assert checks(running, "psi_scores", "models_in_production") == (False, "ERROR")
    before = len(happened())
    hours = [hour_key(int(time.time()) - ago) for ago in (7_200, 3_600, 0)]
    assets = ("scraped_windows", "forecasts", "drift_scores", "psi_scores")
    backfill = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": hours}
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
    assert len(own) <= 3  # windows and forecasts, the drift of what was forecast, PSI
    for asset in assets:
        assert {event.partition for event in events(running, asset)} >= set(hours)
    assert not runs("tick", dg.DagsterRunStatus.FAILURE)
    assert (len(happened()), arrived) == (before, ["incident.opened"])
    with store.database.read() as connection:
        assert len(incidents.list_incidents(connection)) == 1
    modes = event_store.read_psi(store, 60, 0, int(time.time()))["mode"]
    assert REPLAY in modes
    assert not runs("monitor", dg.DagsterRunStatus.FAILURE)
