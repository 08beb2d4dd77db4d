"""The jobs, run as Dagster runs them, on an instance in memory."""

from typing import Any

import dagster as dg
import pytest

from sentinel_core.pipeline.deciding import LEASE_SECONDS
from sentinel_core.pipeline.reports import TickPlan
from sentinel_dagster.jobs import LANE_TAG, RETRIED_TAG, RETRY_TAG, in_flight, tick_request, train_request
from tests.dagster.fake_engine import FakeEngine
from tests.dagster.test_assets import FIRST, HOURS, TEN, TWELVE, events, rows


def launch(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    *,
    fails: bool = False,
    request: dg.RunRequest | None = None,
    **how: Any,
) -> dg.ExecuteInProcessResult:
    """Run a job, or a request for one, to its end."""
    if request is not None:
        how = {"run_config": request.run_config, "partition_key": request.partition_key, "tags": dict(request.tags)}
    result = defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=not fails, **how)
    assert result.success is not fails
    return result


def test_a_tick_covers_its_plan_and_lands_in_its_hour(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """One run for every watch: live, over the planned span, one event in each asset's hour."""
    request = tick_request(TickPlan(tuple(fake.slugs), TEN + 60, TEN + 120), "1002", watches=2)
    launch(defs, instance, "tick", request=request)
    span = {"start": TEN + 60, "end": TEN + 120}
    assert fake.calls == [
        ("scrape_windows", {**span, "mode": "tick"}),
        ("issue_forecasts", {**span, "mode": "live"}),
        ("score_drift", {**span, "mode": "live"}),
    ]
    assert [events(instance, asset)[0].partition for asset in HOURS] == [FIRST] * 3


def test_a_tick_after_downtime_is_one_run_over_every_missed_hour(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The plan crosses hours: the same one run, with an event in each of them."""
    request = tick_request(TickPlan(tuple(fake.slugs), TEN + 1_800, TWELVE), "1200", watches=2)
    launch(defs, instance, "tick", request=request)
    assert fake.calls[0] == ("scrape_windows", {"start": TEN + 1_800, "end": TWELVE, "mode": "tick"})
    assert len(events(instance, "drift_scores")) == 3


def test_a_tick_leaves_watches_alone_that_are_not_due(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """A watch that is due more often than the others is read and forecast by itself."""
    request = tick_request(TickPlan((fake.slugs[1],), TEN, TEN), "1002", watches=2)
    launch(defs, instance, "tick", request=request)
    assert [arguments.get("slugs") for _, arguments in fake.calls] == [[fake.slugs[1]], [fake.slugs[1]], None]


def test_a_decision_that_was_answered_is_no_failure(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The run of a decision that another run has answered ends well and records nothing."""
    fake.answered = set(fake.slugs)
    request = train_request(kind="retrain", cause="drift", reason="high drift", slugs=fake.slugs, run_key="k")
    launch(defs, instance, "train", request=request)
    assert [arguments["cause"] for _, arguments in fake.calls] == ["drift", "drift"]
    assert not events(instance, "model_versions")


def test_training_logs_an_event_for_each_watch(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Any set in one run, also of watches that have no partition yet; a watch that fails stops no other."""
    good, bad = fake.slugs
    fake.failing = {bad: "no such metric"}
    config = {"ops": {"train_watches": {"config": {"slugs": [bad, good], "kind": "cold_start", "reason": "new"}}}}
    result = launch(defs, instance, "train", run_config=config)
    assert [event.partition for event in events(instance, "model_versions")] == [good]
    assert [event.partition for event in events(instance, "active_models")] == [good]
    assert events(instance, "model_versions")[0].metadata["trained_by"].value == result.run_id
    assert set(instance.get_dynamic_partitions("watches")) == {good, bad}


@pytest.mark.parametrize(("watches", "plotted"), [(20, True), (21, False)])
def test_a_fleet_is_trained_without_plots(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, watches: int, plotted: bool
) -> None:
    """Trainings are kept for ever, so a large set leaves its pictures out."""
    fake.promotes = False
    slugs = [f"w{i}" for i in range(watches)]
    launch(defs, instance, "train", run_config={"ops": {"train_watches": {"config": {"slugs": slugs}}}})
    trained = events(instance, "model_versions")
    assert len(trained) == watches
    assert all(("plot" in event.metadata) is plotted for event in trained)


def test_a_retry_waits_until_the_hold_of_the_dead_worker_has_lapsed(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster retries within seconds; the watches are free after two minutes, and the retry is the only one."""
    waits: list[float] = []
    monkeypatch.setattr("sentinel_dagster.jobs.time.sleep", waits.append)
    config = {"ops": {"train_watches": {"config": {"slugs": fake.slugs}}}}
    launch(defs, instance, "train", run_config=config, tags={RETRY_TAG: "1", RETRIED_TAG: "dead"})
    assert waits == [LEASE_SECONDS]


def test_a_retry_does_not_repeat_what_was_trained(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watches that the dead worker recorded are left alone."""
    monkeypatch.setattr("sentinel_dagster.jobs.time.sleep", lambda seconds: None)
    trained, other = fake.slugs
    config = {"ops": {"train_watches": {"config": {"slugs": [trained]}}}}
    first = launch(defs, instance, "train", run_config=config)
    config = {"ops": {"train_watches": {"config": {"slugs": [trained, other]}}}}
    tags = {RETRY_TAG: "1", RETRIED_TAG: first.run_id}
    launch(defs, instance, "train", run_config=config, tags=tags)
    assert [arguments["slugs"] for _, arguments in fake.calls] == [[trained], [other]]


def test_training_fails_where_every_watch_did(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The run says which and why."""
    fake.failing = dict.fromkeys(fake.slugs, "no such metric")
    config = {"ops": {"train_watches": {"config": {"slugs": fake.slugs}}}}
    result = launch(defs, instance, "train", fails=True, run_config=config)
    failure = result.failure_data_for_node("train_watches")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert fake.slugs[1] + ": no such metric" in str(failure.user_failure_data.description)


def test_rollback_serves_the_previous_version_and_holds_it(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """From the launchpad as it opens: the previous version, pinned; `release` ends the hold."""
    slug = fake.slugs[0]
    fake.versions[slug] = [1, 2]
    instance.add_dynamic_partitions("watches", fake.slugs)
    launch(defs, instance, "rollback", partition_key=slug)
    metadata = events(instance, "active_models")[0].metadata
    assert [metadata[name].value for name in ("action", "version", "previous", "pinned", "reason")] == [
        "rollback",
        "v1",
        "v2",
        True,
        "rolled back by hand",
    ]
    launch(defs, instance, "release", partition_key=slug)
    assert events(instance, "active_models")[0].metadata["pinned"].value is False


def test_rollback_to_a_named_version(defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine) -> None:
    """The version as its label shows it, and the person's reason."""
    slug = fake.slugs[0]
    fake.versions[slug] = [1, 2, 3]
    instance.add_dynamic_partitions("watches", fake.slugs)
    config = {"ops": {"active_models": {"config": {"action": "rollback", "version": "v1", "reason": "too nervous"}}}}
    launch(defs, instance, "rollback", partition_key=slug, run_config=config)
    [active] = events(instance, "active_models")
    assert (active.metadata["version"].value, active.metadata["reason"].value) == ("v1", "too nervous")


@pytest.mark.parametrize(
    ("version", "problem"),
    [("", "has no version before the one that serves"), ("latest", "'latest' is not a version; write v3")],
)
def test_a_rollback_that_cannot_be_says_why(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, version: str, problem: str
) -> None:
    """No predecessor, or no such version: the run fails with the remedy, and nothing is recorded."""
    slug = fake.slugs[0]
    fake.versions[slug] = [1]
    instance.add_dynamic_partitions("watches", fake.slugs)
    config = {"ops": {"active_models": {"config": {"action": "rollback", "version": version}}}}
    result = launch(defs, instance, "rollback", fails=True, partition_key=slug, run_config=config)
    failure = result.failure_data_for_node("active_models")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert problem in str(failure.user_failure_data.description)
    assert not events(instance, "active_models")


def test_maintenance_keeps_the_store_and_the_event_log(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The daily job asks the core once and then purges."""
    result = launch(defs, instance, "maintain")
    assert fake.calls == [("maintain", {})]
    assert {event.step_key for event in result.all_events if event.event_type_value == "STEP_SUCCESS"} == {
        "maintain_store",
        "purge_event_log",
    }


def test_every_job_is_in_a_lane_and_cannot_hang(defs: dg.Definitions) -> None:
    """Lanes keep training from starving ticks; a run that hangs is ended."""
    lanes = {}
    for name in ("tick", "train", "rollback", "release", "monitor", "deliver", "compact", "maintain"):
        tags = defs.resolve_job_def(name).run_tags
        lanes[name] = tags[LANE_TAG]
        assert int(tags["dagster/max_runtime"]) > 0
    assert lanes == {
        "tick": "tick",
        "train": "train",
        "rollback": "activate",
        "release": "activate",
        "monitor": "monitor",
        "deliver": "deliver",
        "compact": "maintain",
        "maintain": "maintain",
    }


def test_a_tick_in_flight_is_seen(instance: dg.DagsterInstance) -> None:
    """Queued or running counts; finished does not, and neither do other lanes."""
    instance.add_run(dg.DagsterRun("train", tags={LANE_TAG: "train"}, status=dg.DagsterRunStatus.STARTED))
    assert not in_flight(instance, "tick")
    tick = instance.add_run(dg.DagsterRun("tick", tags={LANE_TAG: "tick"}, status=dg.DagsterRunStatus.STARTED))
    assert in_flight(instance, "tick")
    instance.report_run_failed(tick)
    assert not in_flight(instance, "tick")


def test_an_evaluation_shows_table_plot_and_advice(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """One watch's models by lead; what could not be measured is empty, the plot is a picture in the event."""
    slug, failing = fake.slugs
    instance.add_dynamic_partitions("watches", fake.slugs)
    config = {"ops": {"model_evaluations": {"config": {"since": "7d"}}}}
    launch(defs, instance, "evaluate", partition_key=slug, run_config=config)
    assert fake.calls == [("backtest", {"slugs": [slug], "since_seconds": 7 * 86_400})]
    [event] = events(instance, "model_evaluations")
    assert event.partition == slug
    shown = {name: event.metadata[name].value for name in ("advice", "model_class", "series", "series_of_the_watch")}
    assert shown == {"advice": "Take B.", "model_class": "B", "series": 3, "series_of_the_watch": 9}
    table = rows(event, "models")
    assert [(row["model"], row["lead"], row["mase"]) for row in table] == [
        ("B", "1m", 0.25),
        ("B", "5m", None),
        ("A", "1m", 0.25),
        ("A", "5m", None),
    ]
    assert [(row["cpu_ms"], row["problem"]) for row in table[1:3]] == [(1.5, None), (None, "hung")]
    assert str(event.metadata["plot"].value).startswith("![errors and coverage by lead](data:image/png;base64,iVBOR")
    fake.failing = {failing: "no series has 40m of history"}
    result = launch(defs, instance, "evaluate", fails=True, partition_key=failing)
    failure = result.failure_data_for_node("model_evaluations")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == f"{failing}: no series has 40m of history"


def test_an_evaluation_of_no_duration_is_refused(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Before anything is asked."""
    instance.add_dynamic_partitions("watches", fake.slugs)
    config = {"ops": {"model_evaluations": {"config": {"since": "soon"}}}}
    launch(defs, instance, "evaluate", fails=True, partition_key=fake.slugs[0], run_config=config)
    assert fake.calls == []
