"""`dagster dev -w workspace.yaml` and nothing else: the loop ticks, and a person works from Dagster's UI alone.

Everything is asked and done over the GraphQL that the UI itself speaks.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sentinel_core.config import load_config
from sentinel_dagster.partitions import hour_key
from tests.product.product import Product, eventually, free_ports

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WATCHES = """
[[watches]]
metric = "demo_latency_seconds"
model_class = "ExponentialSmoothingModel"
granularity = "15s"
horizon = "1m"
lookback = "5m"
history = "6h"
[[watches]]
metric = "demo_disk_used_ratio"
model_class = "LinearTrendModel"
horizon = "5m"
history = "6h"
"""
_REPOSITORY = {"repositoryLocationName": "sentinel", "repositoryName": "__repository__"}
_INSTIGATORS = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
  schedules { name scheduleState { status } } sensors { name sensorState { status } } } } } }"""
_RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }"""
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_LAUNCHPAD = """query($job: String!, $key: String!) {
  partitionSetOrError(repositorySelector: {repositoryLocationName: "sentinel", repositoryName: "__repository__"},
    partitionSetName: $job) { __typename ... on PartitionSet { partition(partitionName: $key) {
      runConfigOrError { ... on PartitionRunConfig { yaml } ... on PythonError { message } }
      tagsOrError { ... on PartitionTags { results { key value } } } } } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_BACKFILL_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""
_EVENTS = """query($asset: [String!]!, $key: String!) { assetOrError(assetKey: {path: $asset}) { ... on Asset {
  assetMaterializations(partitions: [$key], limit: 1) { tags { key value } metadataEntries { label
    ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue }
    ... on PipelineRunMetadataEntry { runId } ... on BoolMetadataEntry { boolValue }
    ... on MarkdownMetadataEntry { mdStr } } } } } }"""


class Ui:
    """What a person does in the UI of one Dagster."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask; an error in the answer fails the test."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(self._url, json=body, timeout=60.0, trust_env=False).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def is_up(self) -> bool:
        """Whether our code location is loaded."""
        try:
            return bool(self.ask(_INSTIGATORS)["repositoriesOrError"]["nodes"])
        except (httpx.TransportError, ValueError):
            return False

    def runs(self, **how: Any) -> list[str]:
        """Statuses of runs, newest first."""
        return [run["status"] for run in self.ask(_RUNS, filter=how)["runsOrError"]["results"]]

    def launch(self, job: str, config: object, key: str, assets: list[str] | None = None) -> str:
        """Launch a job, or assets of the implicit one, for a partition, and wait for its success; the run's id."""
        selector: dict[str, Any] = {**_REPOSITORY, "jobName": job}
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
        tags = [{"key": "dagster/partition", "value": key}]
        params = {"selector": selector, "runConfigData": config, "executionMetadata": {"tags": tags}}
        launched = self.ask(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = str(launched["run"]["runId"])
        [status] = eventually(
            f"{job} ends", lambda: [one for one in self.runs(runIds=[run]) if one in ("SUCCESS", "FAILURE")]
        )
        assert status == "SUCCESS"
        return run

    def newest(self, asset: str, key: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Metadata and tags of the newest materialization of an asset's partition."""
        [event] = self.ask(_EVENTS, asset=[asset], key=key)["assetOrError"]["assetMaterializations"]
        values = ("text", "intValue", "floatValue", "runId", "boolValue", "mdStr")
        metadata = {
            entry["label"]: next((entry[name] for name in values if name in entry), None)
            for entry in event["metadataEntries"]
        }
        return metadata, {tag["key"]: tag["value"] for tag in event["tags"]}


@pytest.fixture
def product(tmp_path: Path, target: str) -> Iterator[Product]:
    """`dagster dev` in a folder with a sentinel.toml, as a person starts it."""
    product = Product(tmp_path)
    product.configure(target, WATCHES)
    [port] = free_ports(1)
    product.dagster_port = port
    product.start(sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port))
    try:
        yield product
    finally:
        product.end()


def test_everything_from_the_ui_alone(product: Product, target: str) -> None:
    """It ticks; a person trains, backfills a day as one run, replays over it, and rolls back, seeing why."""
    ui = Ui(product.dagster_port)
    eventually("the location is loaded", ui.is_up)
    [repository] = ui.ask(_INSTIGATORS)["repositoriesOrError"]["nodes"]
    states = {one["name"]: one["scheduleState"]["status"] for one in repository["schedules"]}
    states |= {one["name"]: one["sensorState"]["status"] for one in repository["sensors"]}
    assert len(states) >= 7
    assert set(states.values()) == {"RUNNING"}
    eventually("a tick", lambda: "SUCCESS" in ui.runs(pipelineName="tick"))
    eventually("a cold start", lambda: "SUCCESS" in ui.runs(pipelineName="train"))

    watch = load_config(product.folder / "sentinel.toml").watches[0]
    trained = ui.launch("__ASSET_JOB", {}, watch.slug, ["model_versions"])
    version, tags = ui.newest("model_versions", watch.slug)
    assert tags["dagster/data_version"] == "v2"
    assert (version["version"], version["parent"], version["kind"]) == ("v2", "v1", "retrain")
    assert version["trained_by"] == trained
    assert version["plot"]

    product.configure(
        target, WATCHES.replace("ExponentialSmoothingModel", "LinearTrendModel")
    )  # read at each evaluation

    def serving() -> str:
        return str(ui.newest("active_models", watch.slug)[0]["version"])

    eventually("the edited model serves", lambda: serving() == "v3")

    now = int(time.time())
    hours = [hour_key(now - ago * 3_600) for ago in range(24, 0, -1)]
    for assets in (["scraped_windows"], ["forecasts", "drift_scores"]):
        params = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": hours}
        started = ui.ask(_BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]

        def ended(backfill: str = started) -> bool:
            status = ui.ask(_BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]
            assert not status.startswith("FAILED"), status
            return bool(status == "COMPLETED_SUCCESS")

        eventually(f"the backfill of {assets}", ended)
        runs = ui.runs(tags=[{"key": "dagster/backfill", "value": started}])
        assert set(runs) == {"SUCCESS"}
        assert len(runs) <= len(assets)
        for asset in assets:
            for hour in (hours[0], hours[-1]):
                metadata, _ = ui.newest(asset, hour)
                assert metadata["failures"] == 0

    pad = ui.ask(_LAUNCHPAD, job="rollback_partition_set", key=watch.slug)["partitionSetOrError"]
    assert pad["__typename"] == "PartitionSet", pad
    config = yaml.safe_load(pad["partition"]["runConfigOrError"]["yaml"])
    config["ops"]["active_models"]["config"]["version"] = "v1"
    ui.launch("rollback", config, watch.slug)
    active, tags = ui.newest("active_models", watch.slug)
    assert tags["dagster/data_version"] == "v1"
    assert (active["action"], active["version"], active["previous"]) == ("rollback", "v1", "v3")
    assert active["pinned"]
    assert len(active["sha256"]) == 64
    assert ui.runs(runIds=[active["trained_by"]]) == ["SUCCESS"]
    assert "FAILURE" not in ui.runs(pipelineName="tick")
