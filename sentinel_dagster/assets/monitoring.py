"""Models in production: `prediction_events`, `psi_scores` by the hour, and `monitored_models`, a partition per model.

The event log is drained every minute, the hours are judged when they are complete. What happens to a model is an event
of its own partition, logged by whichever of the two noticed it.
"""

from collections.abc import Sequence
from typing import Literal

import dagster as dg

from sentinel_core.pipeline.reports import ModelChange
from sentinel_dagster.checks import MODELS_IN_PRODUCTION, models_in_production
from sentinel_dagster.metadata import (
    CHANGED_TAG,
    CODE_VERSION,
    MONITORED_MODELS,
    PREDICTION_EVENTS,
    PSI_SCORES,
    change_metadata,
    change_tags,
    drain_metadata,
    evaluation_metadata,
    label,
)
from sentinel_dagster.partitions import MODELS, model_key, span
from sentinel_dagster.resources import EngineResource


class EvaluationConfig(dg.Config):
    """A replay evaluates past hours over the baselines of then: no state, incident or alert comes of it."""

    mode: Literal["live", "replay"] = "replay"


def prediction_events_asset(hourly: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset: one event per drain."""

    @dg.asset(
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="production",
        kinds={"parquet"},
        owners=["team:sentinel"],
        code_version=CODE_VERSION,
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("model", "int32"),
                    dg.TableColumn("ts", "int64", description="event time, unix seconds"),
                    dg.TableColumn("id", "int64", description="digest of event_id"),
                    dg.TableColumn("score", "float64", description="NaN: missing"),
                    dg.TableColumn("number", "float64", description="prediction, where it is a number"),
                    dg.TableColumn("label", "int64", description="fingerprint of the prediction, where it is a text"),
                ]
            )
        },
        description="What applications sent to /v1/events, moved from the event log into segments; each event once, in "
        "the hour of its own time. Materialized by hand it drains whatever waits.",
    )
    def prediction_events(context: dg.AssetExecutionContext, engine: EngineResource) -> dg.MaterializeResult[None]:
        with engine.open() as core:
            report = core.drain()
        new = [ModelChange(model, "registered", "its first events have arrived") for model in report.new_models]
        log_changes(context, new)
        return dg.MaterializeResult(metadata=drain_metadata(report))

    return prediction_events


def psi_scores_asset(hourly: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset: one event per evaluation."""

    @dg.asset(
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[dg.AssetDep(PREDICTION_EVENTS)],
        group_name="production",
        kinds={"parquet"},
        owners=["team:sentinel"],
        code_version=CODE_VERSION,
        check_specs=[MODELS_IN_PRODUCTION],
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("model", "int32"),
                    dg.TableColumn("output", "int8", description="0 score, 1 number, 2 label"),
                    dg.TableColumn("ts", "int64", description="end of the evaluated hour, unix seconds"),
                    dg.TableColumn("psi", "float64"),
                    dg.TableColumn("adjusted", "float64", description="less what chance alone makes of it"),
                    dg.TableColumn("lower", "float64", description="95 % interval of the true PSI"),
                    dg.TableColumn("upper", "float64"),
                    dg.TableColumn("limit", "float64", description="upper end of its normal range"),
                ]
            )
        },
        description="Every model's current window against its baseline, once an hour. A backfill evaluates past hours "
        "again over the baselines of then: no incident and no alert comes of it.",
    )
    def psi_scores(
        context: dg.AssetExecutionContext, config: EvaluationConfig, engine: EngineResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows the bare class only, beside checks
        with engine.open() as core:
            if config.mode == "live":
                report = core.evaluate()
            else:
                first, last = span(context, None, None)
                report = core.evaluate(first + 1, last + 1, mode="replay")  # hours are called by their ends
        log_changes(context, report.changes)
        return dg.MaterializeResult(
            metadata=evaluation_metadata(report, plot=config.mode == "replay" or bool(report.hours)),
            check_results=[models_in_production(report)],
        )

    return psi_scores


# Not executable: there is nothing to compute, a model's record is what the two above have logged.
monitored_models = dg.AssetSpec(
    MONITORED_MODELS,
    partitions_def=MODELS,
    deps=[dg.AssetDep(PSI_SCORES, partition_mapping=dg.LastPartitionMapping())],
    group_name="production",
    kinds={"python"},
    owners=["team:sentinel"],
    code_version=CODE_VERSION,
    description="What happened to each model in production: registered, a new baseline, an incident that opened, "
    "escalated or resolved. An event only when something changes.",
)


def log_changes(context: dg.AssetExecutionContext, changes: Sequence[ModelChange]) -> None:
    """Log each change in the partition of its model, new ones among them."""
    if not changes:
        return
    keys = [model_key(change.model) for change in changes]
    context.instance.add_dynamic_partitions(str(MODELS.name), sorted(set(keys)))
    for key, change in zip(keys, changes, strict=True):
        context.log_event(
            dg.AssetMaterialization(
                asset_key=MONITORED_MODELS,
                partition=key,
                metadata=change_metadata(change, context.run.run_id),
                tags={
                    **change_tags(change),
                    "dagster/data_version": label(change.baseline_version),
                    "dagster/code_version": CODE_VERSION,
                },
            )
        )
    context.instance.add_run_tags(context.run.run_id, {CHANGED_TAG: "changed"})
