"""The location as a whole: it loads, whatever the configuration, with everything on."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from sentinel_core.config import SentinelConfig
from sentinel_dagster.definitions import build_defs
from sentinel_dagster.partitions import hour_key, hours
from sentinel_dagster.schedules import retrain_name
from tests.dagster.fake_engine import watch


def test_loads(defs: dg.Definitions) -> None:
    """Every asset, job, schedule and sensor resolves."""
    dg.Definitions.validate_loadable(defs)


def test_everything_is_on(defs: dg.Definitions) -> None:
    """Schedules and sensors run from the first start, one retraining schedule for each distinct cron."""
    repository = defs.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "tick_schedule",
        "monitor_schedule",
        "compact_schedule",
        "maintain_schedule",
        "retrain_0_anyper6_any_any_any",
        "retrain_anyper30_any_any_any_any",
    }
    assert {sensor.name for sensor in repository.sensor_defs} >= {
        "actions_sensor",
        "watches_sensor",
        "sub_minute_tick_sensor",
        "outbox_sensor",
    }
    for schedule in repository.schedule_defs:
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    for sensor in repository.sensor_defs:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING or sensor.name.startswith("default_")


def test_every_asset_is_described(defs: dg.Definitions) -> None:
    """A person finds a group, an owner, kinds, a description and a code version on each asset."""
    for asset in defs.resolve_all_asset_specs():
        assert asset.group_name in {"signals", "forecasts", "models", "production"}
        assert asset.owners
        assert asset.kinds
        assert asset.description
        assert asset.code_version


def test_lineage_has_no_circle_and_ends_in_drift(defs: dg.Definitions) -> None:
    """Windows feed everything; what serves feeds the forecasts; drift feeds nothing."""
    deps = {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps}
        for spec in defs.resolve_all_asset_specs()
    }
    assert deps == {
        "scraped_windows": set(),
        "forecasts": {"scraped_windows", "active_models"},
        "drift_scores": {"scraped_windows", "forecasts"},
        "model_versions": {"scraped_windows"},
        "active_models": {"model_versions"},
        "model_evaluations": {"scraped_windows"},
        "prediction_events": set(),
        "psi_scores": {"prediction_events"},
        "monitored_models": {"psi_scores"},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[watches]]\nmetrik = 'up'\nmodel_class = 'LinearTrendModel'\n", "metrik"),
        ("prometheus_url = ", "TOML"),
        ("", "no watch"),
    ],
)
def test_a_wrong_configuration_loads_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    """The location loads without watches and says in its metadata what is wrong."""
    (tmp_path / "sentinel.toml").write_text(text)
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "sentinel.toml"))
    defs = build_defs()
    dg.Definitions.validate_loadable(defs)
    assert problem in str((defs.metadata or {})["configuration"].value)


def test_hours_reach_back_and_include_the_current_one() -> None:
    """At least 120 days can be backfilled, and the hour that has only begun exists: a tick writes into it."""
    now = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    partitions = hours(now)
    keys = partitions.get_partition_keys(current_time=now)
    assert keys[0] == "2025-01-01-00:00"
    assert keys[-1] == "2026-03-01-12:00"
    assert hour_key(int(now.timestamp())) == keys[-1]


def test_distinct_crons_have_distinct_names() -> None:
    """No two crons share a schedule's name, and each is one that Dagster accepts."""
    crons = ["0 */6 * * *", "0 0-6 * * *", "0 0,6 * * *", "0 6 * * MON", "0 6 * * 1", "@hourly", "@daily", "* * * * *"]
    names = {retrain_name(cron) for cron in crons}
    assert len(names) == len(crons)
    build_defs(SentinelConfig(watches=[watch(f"m{i}", cron=cron) for i, cron in enumerate(crons[:5])]))
