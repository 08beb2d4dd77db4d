"""Sensors: decisions of the core become run requests, once."""

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData  # what an evaluation returns

from sentinel_core.config import SentinelConfig
from sentinel_core.pipeline.reports import ActionRequest, TickPlan
from sentinel_dagster.jobs import LANE_TAG
from tests.dagster.fake_engine import FakeEngine, FakeEngineResource
from tests.dagster.test_assets import TEN


def evaluate(
    defs: dg.Definitions, instance: dg.DagsterInstance, engine: FakeEngineResource, name: str
) -> SensorExecutionData:
    """Evaluate a sensor as its daemon does; what it requests must be runnable."""
    sensor = defs.resolve_sensor_def(name)
    with dg.build_sensor_context(
        instance=instance, resources={"engine": engine}, repository_def=defs.get_repository_def()
    ) as context:
        data = sensor.evaluate_tick(context)
    for request in data.run_requests or []:
        job = defs.resolve_job_def(str(sensor.job_name))
        assert dg.validate_run_config(job, request.run_config)
    return data


def test_each_decision_is_one_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """One run for each kind, the watches in its configuration, the core's own key."""
    fake.actions = [
        ActionRequest("cold_start", "first", tuple(fake.slugs), "cold_start:1:2"),
        ActionRequest("finetune", "drift", (fake.slugs[0],), "finetune:1:3"),
    ]
    requests = evaluate(defs, instance, engine, "actions_sensor").run_requests or []
    assert [request.run_key for request in requests] == ["cold_start:1:2", "finetune:1:3"]
    config = requests[0].run_config["ops"]["train_watches"]["config"]
    assert (config["kind"], config["cause"], config["slugs"]) == ("cold_start", "first", fake.slugs)


def test_nothing_to_train_skips(defs: dg.Definitions, instance: dg.DagsterInstance, engine: FakeEngineResource) -> None:
    """The reason is in the UI."""
    assert evaluate(defs, instance, engine, "actions_sensor").skip_message == "nothing to train"


def test_watches_become_partitions_and_leave(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """New watches are added, removed ones deleted, and a fleet in step is left alone."""
    instance.add_dynamic_partitions("watches", ["gone", fake.slugs[0]])
    added, deleted = evaluate(defs, instance, engine, "watches_sensor").dynamic_partitions_requests or []
    assert (list(added.partition_keys), list(deleted.partition_keys)) == ([fake.slugs[1]], ["gone"])
    instance.add_dynamic_partitions("watches", [fake.slugs[1]])
    instance.delete_dynamic_partition("watches", "gone")
    data = evaluate(defs, instance, engine, "watches_sensor")
    assert data.skip_message == "2 watches, none new, none removed"


def test_a_deleted_model_loses_its_partition(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """Models register themselves and are deleted by people; one that is there keeps its partition."""
    fake.config, fake.models = SentinelConfig(), ["default/fraud"]
    instance.add_dynamic_partitions("models", ["default/fraud", "default/gone"])
    [deleted] = evaluate(defs, instance, engine, "watches_sensor").dynamic_partitions_requests or []
    assert (deleted.partitions_def_name, list(deleted.partition_keys)) == ("models", ["default/gone"])


def test_the_last_watch_leaves_too(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """A configuration without watches still clears the partitions of those that were."""
    instance.add_dynamic_partitions("watches", ["gone"])
    fake.config = SentinelConfig()
    [deleted] = evaluate(defs, instance, engine, "watches_sensor").dynamic_partitions_requests or []
    assert list(deleted.partition_keys) == ["gone"]


def test_quick_watches_do_not_wait_for_the_minute(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """A watch of 15 s is due between minutes; one of a minute is the schedule's, except for its first try."""
    minute, quick = fake.slugs
    fake.ticked = {minute, quick}
    fake.plan = TickPlan((minute,), TEN, TEN)
    assert evaluate(defs, instance, engine, "sub_minute_tick_sensor").skip_message is not None
    fake.plan = TickPlan((minute, quick), TEN, TEN + 15)
    [request] = evaluate(defs, instance, engine, "sub_minute_tick_sensor").run_requests or []
    assert request.run_key == f"tick:{TEN}:{TEN + 15}:sensor"
    fake.ticked = {quick}
    fake.plan = TickPlan((minute,), TEN, TEN)
    [request] = evaluate(defs, instance, engine, "sub_minute_tick_sensor").run_requests or []
    assert request.run_config["ops"]["scraped_windows"]["config"]["slugs"] == [minute]
    fake.failing = {minute: "reading: no such metric"}
    assert evaluate(defs, instance, engine, "sub_minute_tick_sensor").skip_message is not None


def test_quick_ticks_do_not_pile_up(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """While a tick is queued or running there is no other."""
    fake.plan = TickPlan(tuple(fake.slugs), TEN, TEN)
    instance.add_run(dg.DagsterRun("tick", tags={LANE_TAG: "tick"}, status=dg.DagsterRunStatus.STARTED))
    assert "queued or running" in str(evaluate(defs, instance, engine, "sub_minute_tick_sensor").skip_message)


def test_alerts_that_are_owed_are_one_run_at_a_time(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """A run where anything is owed, without watches too; none beside another, and none for nothing."""
    fake.config = SentinelConfig()
    assert evaluate(defs, instance, engine, "outbox_sensor").skip_message == "no alert is owed"
    fake.owed = True
    assert len(evaluate(defs, instance, engine, "outbox_sensor").run_requests or []) == 1
    instance.add_run(dg.DagsterRun("deliver", tags={LANE_TAG: "deliver"}, status=dg.DagsterRunStatus.STARTED))
    assert evaluate(defs, instance, engine, "outbox_sensor").skip_message == "alerts are being sent"


@pytest.mark.parametrize("name", ["actions_sensor", "watches_sensor", "sub_minute_tick_sensor"])
def test_a_wrong_configuration_skips_and_says_so(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource, name: str
) -> None:
    """Nothing crashes over it: the reason and the remedy stand at the evaluation."""
    broken = FakeEngineResource(name=engine.name, broken="watches[0].horizn: unknown field; did you mean horizon?")
    assert "did you mean horizon?" in str(evaluate(defs, instance, broken, name).skip_message)
    fake.config = SentinelConfig()
    assert "no watch is configured" in str(evaluate(defs, instance, engine, name).skip_message)
