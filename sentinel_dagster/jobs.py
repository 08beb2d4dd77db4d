"""Jobs, and the run requests for them.

Every job runs in its own process with the in-process executor: a process per step would cost seconds of CPU at each
tick. The `lane` tag keeps training from starving ticks (`tag_concurrency_limits` in dagster.yaml gives each lane one
run at a time), and `dagster/max_runtime` ends a run that hangs.
"""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from sentinel_core.errors import ConfigError
from sentinel_core.pipeline.deciding import LEASE_SECONDS
from sentinel_core.pipeline.reports import MonitorPlan, TickPlan, TrainingReport
from sentinel_dagster.assets.models import TRAINING_POOL, ActivationConfig, promotion, training
from sentinel_dagster.assets.monitoring import EvaluationConfig
from sentinel_dagster.metadata import (
    ACTIVE_MODELS,
    MODEL_EVALUATIONS,
    MODEL_VERSIONS,
    PREDICTION_EVENTS,
    PSI_SCORES,
    SCRAPED_WINDOWS,
    outcomes_table,
)
from sentinel_dagster.partitions import RANGE_END_TAG, RANGE_START_TAG, WATCHES, hour_key
from sentinel_dagster.resources import EngineResource
from sentinel_dagster.retention import KEEP_DAYS, KEEP_HOURLY_DAYS, purge_runs

MOST_PLOTS = 20  # a plot is 15 to 30 KB in the event log, which keeps trainings for ever: not for a fleet by cron
LANE_TAG = "lane"
RETRY_TAG = "dagster/retry_number"  # on runs that Dagster started again after a crash of their worker
RETRIED_TAG = "dagster/parent_run_id"  # and which run that was
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def _tags(lane: str, *, max_runtime_seconds: int, retries: int = 0) -> dict[str, str]:
    return {
        LANE_TAG: lane,
        "dagster/max_runtime": str(max_runtime_seconds),
        "dagster/max_retries": str(retries),  # of a worker that crashed; a step that failed would fail again
        "dagster/retry_on_asset_or_op_failure": "false",
    }


# An hour lets a tick catch up weeks of downtime; the next tick is the retry.
tick = dg.define_asset_job(
    "tick",
    selection=dg.AssetSelection.assets(SCRAPED_WINDOWS, "forecasts", "drift_scores"),
    description="Scrape what is new, forecast from it, score the forecasts whose time has come: all watches at once.",
    run_tags=_tags("tick", max_runtime_seconds=3_600),
    tags={LANE_TAG: "tick"},
    executor_def=dg.in_process_executor,
)

monitor = dg.define_asset_job(
    "monitor",
    selection=dg.AssetSelection.assets(PREDICTION_EVENTS, PSI_SCORES),
    config=dg.RunConfig({"psi_scores": EvaluationConfig(mode="live")}),
    description="Models in production: drain the event log, then compare every complete hour with the past.",
    run_tags=_tags("monitor", max_runtime_seconds=3_600),
    tags={LANE_TAG: "monitor"},
    executor_def=dg.in_process_executor,
)

rollback = dg.define_asset_job(
    "rollback",
    selection=dg.AssetSelection.assets(ACTIVE_MODELS),
    config=dg.RunConfig({"active_models": ActivationConfig(action="rollback", reason="rolled back by hand")}),
    description="Serve a watch's previous version, or the one named in `version`, and hold it: candidates are still "
    "trained but none is promoted until `release`.",
    run_tags=_tags("activate", max_runtime_seconds=600),
    tags={LANE_TAG: "activate"},
    executor_def=dg.in_process_executor,
)

release = dg.define_asset_job(
    "release",
    selection=dg.AssetSelection.assets(ACTIVE_MODELS),
    config=dg.RunConfig({"active_models": ActivationConfig(action="release", reason="released by hand")}),
    description="End a rollback's hold: the next candidate that is not worse serves.",
    run_tags=_tags("activate", max_runtime_seconds=600),
    tags={LANE_TAG: "activate"},
    executor_def=dg.in_process_executor,
)


evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets(MODEL_EVALUATIONS),
    description="Try every model on a watch's own past; changes nothing that serves.",
    run_tags=_tags("evaluate", max_runtime_seconds=6 * 3_600),
    tags={LANE_TAG: "evaluate"},
    executor_def=dg.in_process_executor,
)


class TrainConfig(dg.Config):
    """Which watches to train, how, and why. For a decision's cause only watches that still wait for it are trained."""

    slugs: list[str]
    kind: Literal["cold_start", "finetune", "retrain"] = "retrain"
    cause: Literal["first", "configuration", "drift", "new_series", "schedule", "person"] = "person"
    reason: str = "launched by hand"


@dg.op(
    out=dg.Out(dg.Nothing),
    pool=TRAINING_POOL,
    tags={"kind": "python"},
    description="Trains each watch and logs its `model_versions` and, where promoted, `active_models` events.",
)
def train_watches(context: dg.OpExecutionContext, config: TrainConfig, engine: EngineResource) -> None:
    """Train a set of watches; the run fails only where every one of them did."""
    done: set[str] = set()
    if RETRY_TAG in context.run.tags:
        time.sleep(LEASE_SECONDS)  # the worker before was killed: its hold on a watch must lapse first
        done = trained_by(context.instance, context.run.tags[RETRIED_TAG])
    reports: list[TrainingReport] = []
    context.instance.add_dynamic_partitions(str(WATCHES.name), config.slugs)
    with engine.open_in_background() as core:
        for slug in [
            slug for slug in config.slugs if slug not in done
        ]:  # one at a time: a worker that dies has recorded what it finished
            try:
                [report] = core.train(
                    [slug], kind=config.kind, reason=config.reason, cause=config.cause, run_id=context.run.run_id
                )
            except ConfigError as error:  # the watch was removed while the run was queued; the others are not
                context.log.warning("%s", error)
                continue
            reports.append(report)
            if report.version is None:
                say = context.log.info if report.skipped else context.log.warning
                say("%s was not trained: %s", slug, report.detail)
                continue
            context.log_event(training(report, context.run.run_id, plot=len(config.slugs) <= MOST_PLOTS))
            if report.promoted:
                context.log_event(promotion(core, report))
    context.add_output_metadata({"watches": len(reports), "outcomes": outcomes_table(reports)})
    if reports and all(report.version is None and not report.skipped for report in reports):
        raise dg.Failure(
            "no watch could be trained; " + "; ".join(f"{report.slug}: {report.detail}" for report in reports[:5]),
            allow_retries=False,
        )


def trained_by(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """Return the watches whose training a run has logged."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [record.asset_materialization for record in events]
    return {str(one.partition) for one in made if one is not None and one.asset_key == MODEL_VERSIONS}


# A retry of a worker that was killed: otherwise a cron's training waits for the next cron.
@dg.job(
    description="Train any set of watches in one run: cold start, finetune on low drift, retrain on high drift or "
    "by cron.",
    run_tags=_tags("train", max_runtime_seconds=6 * 3_600, retries=1),
    tags={LANE_TAG: "train"},
    executor_def=dg.in_process_executor,
)
def train() -> None:
    """Train a set of watches."""
    train_watches()


@dg.op(
    out=dg.Out(dg.Nothing),
    tags={"kind": "http"},
    description="Sends the alerts that are owed, and tries those again that failed before.",
)
def deliver_alerts(context: dg.OpExecutionContext, engine: EngineResource) -> None:
    """Send what is owed; what a receiver refuses stays owed, and is nobody else's business."""
    with engine.open() as core:
        context.add_output_metadata(asdict(core.deliver()))


# A run that dies leaves its alerts owed; its leases lapse and the next run sends them.
@dg.job(
    description="Send the alerts that are owed.",
    run_tags=_tags("deliver", max_runtime_seconds=600),
    tags={LANE_TAG: "deliver"},
    executor_def=dg.in_process_executor,
)
def deliver() -> None:
    """Send what is owed."""
    deliver_alerts()


@dg.op(
    out=dg.Out(dg.Nothing),
    tags={"kind": "parquet"},
    description="Compacts small segments, applies retention, collects garbage.",
)
def maintain_store(context: dg.OpExecutionContext, engine: EngineResource) -> None:
    """Keep the store small and quick."""
    with engine.open_in_background() as core:
        context.add_output_metadata(core.maintain())


class PurgeConfig(dg.Config):
    """How long runs of ticks and of housekeeping are kept; trainings that made a version, and activations, stay."""

    keep_days: float = KEEP_DAYS  # every run
    keep_hourly_days: float = KEEP_HOURLY_DAYS  # the newest successful tick of each hour


@dg.op(
    ins={"stored": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Deletes old runs of ticks with their files, so that the event log does not grow without bound.",
)
def purge_event_log(context: dg.OpExecutionContext, config: PurgeConfig) -> None:
    """Delete old runs of ticks and of housekeeping."""
    purged = purge_runs(
        context.instance,
        now=datetime.now(UTC),
        keep_days=config.keep_days,
        keep_hourly_days=config.keep_hourly_days,
    )
    context.add_output_metadata({"runs": purged.runs, "bytes": purged.bytes})


@dg.job(
    description="Compact the newest hours' segments.",
    run_tags=_tags("maintain", max_runtime_seconds=3_600),
    tags={LANE_TAG: "maintain"},
    executor_def=dg.in_process_executor,
)
def compact() -> None:
    """Maintain the store."""
    maintain_store()


@dg.job(
    description="Daily housekeeping: the store, then old runs of ticks.",
    run_tags=_tags("maintain", max_runtime_seconds=3_600),
    tags={LANE_TAG: "maintain"},
    executor_def=dg.in_process_executor,
)
def maintain() -> None:
    """Maintain the store and the event log."""
    purge_event_log(maintain_store())


def monitor_request(plan: MonitorPlan, at: datetime) -> dg.RunRequest:
    """Ask for one run: drain, and evaluate where an hour is complete or was touched again."""
    now = int(at.timestamp())
    # an evaluated hour is called by its end, its partition is the hour of the clock that it lies in
    first, last = (hour_key(now if end is None else min(now, end - 1)) for end in (plan.start, plan.end))
    evaluates = plan.start is not None or plan.late
    return dg.RunRequest(
        run_key=f"monitor:{at.isoformat()}",
        run_config={"ops": {"psi_scores": {"config": {"mode": "live"}}}} if evaluates else {},
        asset_selection=None if evaluates else [PREDICTION_EVENTS],
        **_partitions(first, last),
    )


def tick_request(plan: TickPlan, attempt: str, *, watches: int) -> dg.RunRequest:
    """Ask for one run over the plan's hours; `attempt` lets a span that failed be asked for again.

    watches: how many are configured; where all of them are due, as they nearly always are, a run need not name them
    """
    current = int(time.time())  # Prometheus' clock may be ahead of ours, and in an hour that is no partition yet
    first, last = hour_key(min(plan.start, current)), hour_key(min(plan.end, current))
    planned = {"start": plan.start, "end": plan.end}
    due = {"slugs": list(plan.slugs)} if len(plan.slugs) < watches else {}
    return dg.RunRequest(
        run_key=f"tick:{plan.start}:{plan.end}:{attempt}",
        run_config={
            "ops": {
                "scraped_windows": {"config": {"mode": "tick", **planned, **due}},
                "forecasts": {"config": {"mode": "live", **planned, **due}},
                "drift_scores": {"config": {"mode": "live", **planned}},
            }
        },
        **_partitions(first, last),
    )


def _partitions(first: str, last: str) -> dict[str, Any]:
    """An hour, or a contiguous range of hours, as a run request says it."""
    if first == last:
        return {"partition_key": first}
    return {"tags": {RANGE_START_TAG: first, RANGE_END_TAG: last}}


def train_request(*, kind: str, cause: str, reason: str, slugs: list[str], run_key: str) -> dg.RunRequest:
    """Ask for one run that trains these watches."""
    config = {"kind": kind, "cause": cause, "reason": reason, "slugs": slugs}
    return dg.RunRequest(
        run_key=run_key,
        run_config={"ops": {"train_watches": {"config": config}}},
        tags={"sentinel/kind": kind, "sentinel/cause": cause},
    )


def in_flight(instance: dg.DagsterInstance, lane: str) -> bool:
    """Whether a run of a lane is queued or running: the next one will cover what this one does not."""
    unfinished = dg.RunsFilter(tags={LANE_TAG: lane}, statuses=UNFINISHED)
    return bool(instance.get_run_records(unfinished, limit=1))
