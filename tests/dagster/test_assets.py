"""The assets: what they ask of the core, over which span, and what they say about it."""

from typing import Any

import dagster as dg
import pytest

from sentinel_core.pipeline.reports import Quality, WatchDrift
from sentinel_dagster.partitions import RANGE_END_TAG, RANGE_START_TAG
from tests.dagster.fake_engine import FakeEngine

HOURS = ("scraped_windows", "forecasts", "drift_scores")
FIRST, LAST = "2026-03-01-10:00", "2026-03-01-12:00"
TEN, TWELVE = 1_772_359_200, 1_772_366_400


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, assets: tuple[str, ...], *, fails: bool = False, **how: Any
) -> dg.ExecuteInProcessResult:
    """Materialize assets as the UI does, through the implicit job of the location."""
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(asset) for asset in assets], raise_on_error=not fails, **how
    )
    assert result.success is not fails
    return result


def events(instance: dg.DagsterInstance, asset: str) -> list[dg.AssetMaterialization]:
    """The asset's materializations, newest first."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return [record.asset_materialization for record in records if record.asset_materialization is not None]


def rows(event: dg.AssetMaterialization, name: str) -> list[dict[str, Any]]:
    """The rows of a table in an event's metadata."""
    table = event.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def checks(instance: dg.DagsterInstance, asset: str, name: str) -> tuple[bool, str]:
    """Whether the newest evaluation of a check passed, and its severity."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    logged = [record.event.get_dagster_event() for record in history if record.event is not None]
    done = (event for event in logged if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluation = next(done).asset_check_evaluation_data  # a run that has begun is not yet one
    return evaluation.passed, evaluation.severity.value


def test_by_hand_an_hour_is_backfilled_and_replayed(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Without configuration an hour means all of its seconds, read again and replayed: nothing live is touched."""
    run(defs, instance, HOURS, partition_key=FIRST)
    hour = {"start": TEN, "end": TEN + 3_599}
    assert fake.calls == [
        ("scrape_windows", {**hour, "mode": "backfill"}),
        ("issue_forecasts", {**hour, "mode": "replay"}),
        ("score_drift", {**hour, "mode": "replay"}),
    ]


def test_a_range_is_one_run_with_an_event_for_each_hour(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Several hours are one call of the core; every hour shows as materialized."""
    run(defs, instance, HOURS, tags={RANGE_START_TAG: FIRST, RANGE_END_TAG: LAST})
    assert [arguments["end"] for _, arguments in fake.calls] == [TWELVE + 3_599] * 3
    for asset in HOURS:
        assert sorted(str(event.partition) for event in events(instance, asset)) == [
            "2026-03-01-10:00",
            "2026-03-01-11:00",
            "2026-03-01-12:00",
        ]


def test_one_failing_watch_is_named_and_fails_nothing(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The run succeeds, the metadata name the watch and why, and the check warns or, from half of them on, fails."""
    fake.failing = {fake.slugs[0]: "no such metric"}
    run(defs, instance, HOURS, partition_key=FIRST)
    assert rows(events(instance, "scraped_windows")[0], "failed_watches") == [
        {"watch": fake.slugs[0], "error": "no such metric"}
    ]
    assert checks(instance, "scraped_windows", "watches_scraped") == (False, "ERROR")
    assert checks(instance, "forecasts", "watches_forecast") == (False, "ERROR")


def test_a_source_that_is_down_fails_the_run_in_its_own_words(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """No stack of ours: the failure says what the core said, and what comes after does not run."""
    fake.down = True
    result = run(defs, instance, HOURS, fails=True, partition_key=FIRST)
    failure = result.failure_data_for_node("scraped_windows")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == "http://prometheus: connection refused; is it running?"
    assert not events(instance, "forecasts")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1, 0, (True, "WARN")), (10, 0, (False, "WARN")), (0, 10, (False, "ERROR"))],
)
def test_the_fleet_is_judged_by_the_share_that_drifts(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    low: int,
    high: int,
    verdict: tuple[bool, str],
) -> None:
    """A tenth of the series at low drift warns, a tenth at high drift fails; less is the sensor's alone."""
    monkeypatch.setattr("sentinel_core.plots.drift_png", lambda report: b"png")
    fake.drift = (WatchDrift(fake.slugs[0], "high" if high else "low", 0.4, low, high, 100),)
    run(defs, instance, ("drift_scores",), partition_key=FIRST)
    assert checks(instance, "drift_scores", "fleet_drift") == verdict


@pytest.mark.parametrize(("coverage", "passed"), [(0.92, True), (1.0, True), (0.85, False)])
def test_bounds_are_judged_by_their_coverage(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    coverage: float,
    passed: bool,
) -> None:
    """Bounds that held fewer actuals than chance explains warn; those that held more do not."""
    monkeypatch.setattr("sentinel_core.plots.drift_png", lambda report: b"png")
    quality = Quality(1, 0, 300, 2_880, 10, 1.0, 0.8, 0.0, coverage, (1 - coverage) / 2, 0.95, 0.7)
    fake.quality = {fake.slugs[0]: (quality,)}
    run(defs, instance, ("drift_scores",), partition_key=FIRST)
    assert checks(instance, "drift_scores", "bounds_hold") == (passed, "WARN")


def test_the_worst_watches_come_first_and_at_most_twenty(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table stays small, whatever the number of watches, and a replay carries its plot."""
    monkeypatch.setattr("sentinel_core.plots.drift_png", lambda report: b"png")
    fake.drift = tuple(
        WatchDrift(f"w{i}", "high" if i == 7 else "none", None if i == 3 else 0.1, 0, int(i == 7), 10)
        for i in range(50)
    )
    run(defs, instance, ("drift_scores",), partition_key=FIRST)
    metadata = events(instance, "drift_scores")[0].metadata
    worst = rows(events(instance, "drift_scores")[0], "worst_watches")
    assert worst[0]["watch"] == "w7"
    assert len(worst) == 20
    assert "data:image/png;base64,cG5n" in str(metadata["plot"].value)


@pytest.mark.parametrize(("end", "plotted"), [(TEN + 3_585, True), (TEN + 3_570, False), (TEN + 3_600, False)])
def test_a_tick_plots_when_an_hour_closes(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    end: int,
    plotted: bool,
) -> None:
    """The tick with the hour's last step of the quickest watch (15 s) draws; the others stay small."""
    monkeypatch.setattr("sentinel_core.plots.drift_png", lambda report: b"png")
    fake.drift = (WatchDrift(fake.slugs[0], "none", 0.1, 0, 0, 10),)
    config = {"ops": {"drift_scores": {"config": {"mode": "live", "start": end, "end": end}}}}
    run(defs, instance, ("drift_scores",), partition_key=FIRST, run_config=config)
    assert ("plot" in events(instance, "drift_scores")[0].metadata) is plotted


def test_materializing_a_watch_retrains_it(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """By hand: one call of the core; the version with its pedigree, and what it now serves."""
    slug = fake.slugs[0]
    instance.add_dynamic_partitions("watches", fake.slugs)
    result = run(defs, instance, ("model_versions",), partition_key=slug)
    assert fake.calls == [
        (
            "train",
            {
                "slugs": [slug],
                "kind": "retrain",
                "reason": "materialized by hand",
                "cause": "person",
                "run_id": result.run_id,
            },
        )
    ]
    [version], [active] = events(instance, "model_versions"), events(instance, "active_models")
    assert version.partition == active.partition == slug
    assert version.tags is not None
    assert version.tags["dagster/data_version"] == "v1"
    assert version.tags["sentinel/promoted"] == "true"
    assert version.metadata["trained_by"].value == result.run_id
    assert version.metadata["trained_on"].value == dg.AssetKey("scraped_windows")
    assert version.metadata["span_start"].value == 1_700_000_000
    assert (version.metadata["mae"].value, version.metadata["champion_mae"].value) == (0.5, 0.6)
    assert version.metadata["models"].value == {"ARIMAModel": 3, "SeasonalNaive": 2}
    assert "data:image/png;base64,iVBORw0KGgo=" in str(version.metadata["plot"].value)
    assert (active.metadata["action"].value, active.metadata["version"].value) == ("promote", "v1")


def test_a_candidate_that_is_worse_changes_nothing_that_serves(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """Its version is recorded as not promoted; `active_models` has no event."""
    fake.promotes = False
    instance.add_dynamic_partitions("watches", fake.slugs)
    run(defs, instance, ("model_versions",), partition_key=fake.slugs[0])
    [version] = events(instance, "model_versions")
    assert version.metadata["promoted"].value is False
    assert not events(instance, "active_models")


def test_a_training_that_yields_nothing_fails_in_its_own_words(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """The person who materialized it sees which watch and why."""
    slug = fake.slugs[0]
    fake.failing = {slug: "5 steps of history; lookback and horizon need 35"}
    instance.add_dynamic_partitions("watches", fake.slugs)
    result = run(defs, instance, ("model_versions",), fails=True, partition_key=slug)
    failure = result.failure_data_for_node("model_versions")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == f"{slug}: 5 steps of history; lookback and horizon need 35"


def test_confirming_records_what_serves(defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine) -> None:
    """Materialized as it is, `active_models` changes nothing and points to the run that trained what serves."""
    slug = fake.slugs[0]
    fake.versions[slug] = [1, 2]
    instance.add_dynamic_partitions("watches", fake.slugs)
    run(defs, instance, ("active_models",), partition_key=slug)
    [active] = events(instance, "active_models")
    assert active.metadata["action"].value == "confirm"
    assert active.metadata["trained_by"].value == "the-run-that-trained-it"
    assert active.tags is not None
    assert active.tags["dagster/data_version"] == "v2"


def test_a_named_version_is_rolled_back_to(
    defs: dg.Definitions, instance: dg.DagsterInstance, fake: FakeEngine
) -> None:
    """A person who writes only the version into the configuration gets that version, not a record of what serves."""
    slug = fake.slugs[0]
    fake.versions[slug] = [1, 2]
    instance.add_dynamic_partitions("watches", fake.slugs)
    config = {"ops": {"active_models": {"config": {"version": "v1"}}}}
    run(defs, instance, ("active_models",), partition_key=slug, run_config=config)
    [active] = events(instance, "active_models")
    assert active.metadata["action"].value == "rollback"
    assert active.metadata["version"].value == "v1"
