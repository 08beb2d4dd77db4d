"""Models in production: what the job asks of the core, what its events say, and in whose partition."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from sentinel_core.pipeline.reports import (
    DrainReport,
    EvaluationReport,
    HourReport,
    ModelChange,
    ModelScore,
    MonitorPlan,
)
from sentinel_dagster.jobs import monitor_request
from sentinel_dagster.metadata import CHANGED_TAG
from sentinel_dagster.partitions import RANGE_END_TAG, RANGE_START_TAG
from tests.dagster.fake_engine import FakeEngine
from tests.dagster.test_assets import FIRST, LAST, TEN, TWELVE, checks, events, rows, run
from tests.dagster.test_jobs import launch

ASSETS = ("prediction_events", "psi_scores")
HOUR = 3_600
AT = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot is three bytes."""
    monkeypatch.setattr("sentinel_core.plots.psi_png", lambda scores: b"png")


def test_an_evaluation_drains_first_and_lands_in_its_hour(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """An hour is called by its end; the events of its run are in the partition that the hour lies in."""
    request = monitor_request(MonitorPlan(True, TEN + HOUR, TEN + HOUR, False), AT)
    assert (request.partition_key, request.asset_selection) == (FIRST, None)
    launch(defs, instance, "monitor", request=request)
    assert fake.calls == [("drain", {}), ("evaluate", {"start": None, "end": None, "mode": "live"})]
    assert [events(instance, asset)[0].partition for asset in ASSETS] == [FIRST] * 2


def test_missed_hours_are_one_run(defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine) -> None:
    """After downtime the run covers a range, with an event in each hour."""
    request = monitor_request(MonitorPlan(False, TEN + HOUR, TWELVE + HOUR, False), AT)
    assert request.tags == {RANGE_START_TAG: FIRST, RANGE_END_TAG: LAST}
    launch(defs, instance, "monitor", request=request)
    assert len(events(instance, "psi_scores")) == 3
    assert [name for name, _ in fake.calls] == ["drain", "evaluate"]


@pytest.mark.parametrize(("late", "evaluates"), [(False, False), (True, True)])
def test_between_the_hours_events_are_only_drained(late: bool, evaluates: bool) -> None:
    """Nothing is evaluated, unless an hour that was is touched again."""
    request = monitor_request(MonitorPlan(True, None, None, late), AT)
    selected = None if request.asset_selection is None else [key.to_user_string() for key in request.asset_selection]
    assert selected == (None if evaluates else ["prediction_events"])
    assert request.partition_key == LAST


def test_a_backfill_replays(defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine) -> None:
    """Hours that a person materializes are evaluated once more; nothing live is touched, whatever the range."""
    run(defs, instance, ("psi_scores",), tags={RANGE_START_TAG: FIRST, RANGE_END_TAG: LAST})
    assert fake.calls == [("evaluate", {"start": TEN + 1, "end": TWELVE + HOUR, "mode": "replay"})]


def test_from_the_launchpad_the_job_is_live(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """A person who launches `monitor` does what the schedule does."""
    launch(defs, instance, "monitor", partition_key=FIRST)
    assert fake.calls[-1][1]["mode"] == "live"


def test_what_happened_to_models_is_in_their_partitions(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Registered by the drain, a baseline and an incident by the evaluation: one event each, with their lineage."""
    fake.drained = DrainReport(50, 2, 0, 3, ("default/new one",), {TEN: 40, TEN - HOUR: 10}, late_hours=1)
    fake.evaluated = EvaluationReport(
        (HourReport(TEN + HOUR, 2, {"critical": 1, "ok": 1}, 1, {"opened": 1}),),
        changes=(
            ModelChange("default/fraud", "baseline", "version 2", TEN + HOUR, 2),
            ModelChange("default/fraud", "opened", "scores have moved", TEN + HOUR, 2, 7, "critical"),
        ),
        states={"critical": 1, "ok": 1},
        worst=(
            ModelScore("default/fraud", "critical", 0.5, 0.4, 0.1, 0.25),
            ModelScore("default/calm", "ok", 0.01, 0.0, 0.1, 0.25),
        ),
    )
    result = launch(defs, instance, "monitor", partition_key=FIRST)
    logged = [
        (event.partition, event.metadata["change"].value) for event in reversed(events(instance, "monitored_models"))
    ]
    assert logged[1:] == [("default/fraud", "baseline"), ("default/fraud", "opened")]
    assert logged[0][0].startswith("default/new_one-")
    assert logged[0][1] == "registered"
    opened = events(instance, "monitored_models")[0]
    assert {name: opened.metadata[name].value for name in ("incident", "severity", "recorded_by")} == {
        "incident": 7,
        "severity": "critical",
        "recorded_by": result.run_id,
    }
    assert (opened.tags or {})["dagster/data_version"] == "v2"
    run_of_it = instance.get_run_by_id(result.run_id)
    assert run_of_it is not None
    assert CHANGED_TAG in run_of_it.tags
    scores = events(instance, "psi_scores")[0]
    assert rows(scores, "worst_models")[0]["model"] == "default/fraud"
    assert scores.metadata["models_critical"].value == 1
    assert "data:image/png;base64,cG5n" in str(scores.metadata["plot"].value)
    drained = events(instance, "prediction_events")[0].metadata
    assert (drained["events"].value, drained["duplicates"].value, drained["hours"].value) == (50, 2, 2)


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ({"ok": 3, "no_data": 1}, (True, "WARN")),
        ({"ok": 3, "warning": 1}, (False, "WARN")),
        ({"warning": 1, "critical": 1}, (False, "ERROR")),
    ],
)
def test_the_check_is_as_bad_as_the_worst_model(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    states: dict[str, int],
    verdict: tuple[bool, str],
) -> None:
    """One model at warning warns, one that is critical fails; too little data is neither."""
    fake.evaluated = EvaluationReport((), states=states)
    run(defs, instance, ("psi_scores",), partition_key=FIRST)
    assert checks(instance, "psi_scores", "models_in_production") == verdict


def test_a_delivery_says_what_became_of_the_alerts(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """One run sends all that is owed; what failed is in the metadata and stays owed."""
    result = launch(defs, instance, "deliver")
    assert fake.calls == [("deliver", {})]
    [output] = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = output.event_specific_data.metadata  # type: ignore[union-attr]
    assert (metadata["delivered"].value, metadata["failed"].value) == (2, 1)
