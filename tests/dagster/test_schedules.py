"""Schedules: what they ask the core, and the run requests they make of its answers."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData  # what an evaluation returns

from sentinel_core.config import SentinelConfig
from sentinel_core.pipeline.reports import MonitorPlan, TickPlan
from sentinel_dagster.jobs import LANE_TAG, tick_request
from sentinel_dagster.partitions import RANGE_END_TAG, RANGE_START_TAG
from tests.dagster.fake_engine import FakeEngine, FakeEngineResource
from tests.dagster.test_assets import FIRST, LAST, TEN, TWELVE

AT = datetime(2026, 3, 1, 10, 2, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule's context opens its own from a reference, which one in memory has not."""
    with dg.instance_for_test() as instance:
        yield instance


def evaluate(
    defs: dg.Definitions, instance: dg.DagsterInstance, engine: FakeEngineResource, name: str
) -> ScheduleExecutionData:
    """Evaluate a schedule as its daemon does; what it requests must be runnable."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=AT,
        resources={"engine": engine},
        repository_def=defs.get_repository_def(),
    ) as context:
        schedule = defs.resolve_schedule_def(name)
        data = schedule.evaluate_tick(context)
    for request in data.run_requests or []:
        assert dg.validate_run_config(defs.resolve_job_def(schedule.job_name), request.run_config)
    return data


def test_tick_covers_what_is_due(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """One run in the hour's partition; the run key names the span and the attempt."""
    fake.plan = TickPlan(tuple(fake.slugs), TEN + 60, TEN + 120)
    [request] = evaluate(defs, instance, engine, "tick_schedule").run_requests or []
    assert request.run_key == f"tick:{TEN + 60}:{TEN + 120}:1002"
    assert request.partition_key == FIRST
    assert request.run_config["ops"]["scraped_windows"]["config"] == {
        "mode": "tick",
        "start": TEN + 60,
        "end": TEN + 120,
    }
    assert request.run_config["ops"]["forecasts"]["config"]["mode"] == "live"
    assert request.run_config["ops"]["drift_scores"]["config"]["mode"] == "live"


def test_a_plan_across_hours_is_a_range() -> None:
    """One run over contiguous hours says so by Dagster's own tags."""
    request = tick_request(TickPlan(("a",), TEN + 1_800, TWELVE), "1200", watches=1)
    assert request.partition_key is None
    assert request.tags == {RANGE_START_TAG: FIRST, RANGE_END_TAG: LAST}


@pytest.mark.parametrize(("settle_delay", "head_start"), [("5s", 5.0), ("1m", 0.0)])
def test_a_step_counts_while_its_run_starts(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    engine: FakeEngineResource,
    settle_delay: str,
    head_start: float,
) -> None:
    """What settles within seconds of the minute is due at the minute; a long delay is waited for by nobody."""
    fake.config = SentinelConfig(watches=fake.config.watches, settle_delay=settle_delay)
    evaluate(defs, instance, engine, "tick_schedule")
    assert fake.calls == [("due", {"now": AT.timestamp() + head_start})]


def test_tick_skips_when_nothing_is_due(
    defs: dg.Definitions, instance: dg.DagsterInstance, engine: FakeEngineResource
) -> None:
    """No run for nothing, and the reason is in the UI."""
    assert evaluate(defs, instance, engine, "tick_schedule").skip_message == "no watch has a new step"


def test_ticks_do_not_pile_up(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """While one is running there is no other, and the core is not even asked."""
    instance.add_run(dg.DagsterRun("tick", tags={LANE_TAG: "tick"}, status=dg.DagsterRunStatus.STARTED))
    fake.plan = TickPlan(tuple(fake.slugs), TEN, TEN)
    assert "queued or running" in str(evaluate(defs, instance, engine, "tick_schedule").skip_message)
    assert not fake.calls


def test_each_cron_retrains_its_own_watches(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """One run for all watches of a cron, whatever their drift."""
    [request] = evaluate(defs, instance, engine, "retrain_anyper30_any_any_any_any").run_requests or []
    assert request.run_key == "cron:*/30 * * * *:2026-03-01T10:02:00+00:00"
    assert request.run_config == {
        "ops": {
            "train_watches": {
                "config": {
                    "kind": "retrain",
                    "cause": "schedule",
                    "reason": "cron */30 * * * *",
                    "slugs": [fake.slugs[1]],
                }
            }
        }
    }


def test_a_cron_that_no_watch_has_any_more_skips(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, engine: FakeEngineResource
) -> None:
    """The applied configuration is read anew: a location that was not reloaded requests nothing stale."""
    fake.config = SentinelConfig(watches=fake.config.watches[:1])
    data = evaluate(defs, instance, engine, "retrain_anyper30_any_any_any_any")
    assert data.skip_message == "no watch has the cron */30 * * * * any more"


@pytest.mark.parametrize("name", ["compact_schedule", "maintain_schedule"])
def test_housekeeping_runs(
    defs: dg.Definitions, instance: dg.DagsterInstance, engine: FakeEngineResource, name: str
) -> None:
    """Each evaluation requests one run."""
    assert len(evaluate(defs, instance, engine, name).run_requests or []) == 1


@pytest.mark.parametrize(
    ("name", "about_watches"),
    [
        ("tick_schedule", True),
        ("retrain_anyper30_any_any_any_any", True),
        ("monitor_schedule", False),
        ("compact_schedule", False),
        ("maintain_schedule", False),
    ],
)
def test_a_wrong_configuration_skips_and_says_so(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    engine: FakeEngineResource,
    name: str,
    about_watches: bool,
) -> None:
    """Nothing crashes over it: the reason and the remedy stand at the evaluation; one without watches is not wrong."""
    broken = FakeEngineResource(name=engine.name, broken="watches[0].horizn: unknown field; did you mean horizon?")
    assert "did you mean horizon?" in str(evaluate(defs, instance, broken, name).skip_message)
    fake.config = SentinelConfig()
    fake.monitoring = MonitorPlan(True, None, None, False)
    data = evaluate(defs, instance, engine, name)
    assert ("no watch is configured" in str(data.skip_message)) is about_watches
    assert bool(data.run_requests) is not about_watches
