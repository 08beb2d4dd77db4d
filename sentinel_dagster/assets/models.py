"""`model_versions` and `active_models`: what was trained and what serves, a partition per watch.

An event only when the state of a watch changes. Most of them are logged by the `train` job, for any set of watches in
one run; materializing a watch here is the same core call, by hand.
"""

from dataclasses import replace
from typing import Literal

import dagster as dg

from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.reports import ActivationReport, TrainingReport
from sentinel_dagster.metadata import (
    ACTIVE_MODELS,
    CODE_VERSION,
    MODEL_VERSIONS,
    SCRAPED_WINDOWS,
    activation_metadata,
    activation_tags,
    label,
    version_metadata,
    version_tags,
)
from sentinel_dagster.partitions import WATCHES
from sentinel_dagster.resources import EngineResource

TRAINING_POOL = "training"  # one training at a time, whoever asked for it

# A run for each watch: a MaterializeResult has no partition, so one run over many would give all of them one version.
_RUN_PER_WATCH = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)


class TrainingConfig(dg.Config):
    """What to train by hand: from scratch, or on from the parameters that serve."""

    kind: Literal["retrain", "finetune"] = "retrain"
    reason: str = "materialized by hand"


class ActivationConfig(dg.Config):
    """What to do about the serving version: record it, go back and hold, or let candidates serve again."""

    action: Literal["confirm", "rollback", "release"] = "confirm"  # a version that is named is rolled back to
    version: str = ""  # "v3"; empty: the previous one
    reason: str = "materialized by hand"


@dg.asset(
    partitions_def=WATCHES,
    backfill_policy=_RUN_PER_WATCH,
    # Trained on the watch's whole history, of which the newest hour is the edge that moves.
    deps=[dg.AssetDep(SCRAPED_WINDOWS, partition_mapping=dg.LastPartitionMapping())],
    group_name="models",
    kinds={"python", "joblib"},
    owners=["team:sentinel"],
    code_version=CODE_VERSION,
    pool=TRAINING_POOL,
    description="Every version ever trained for a watch: parent, kind, reason, span, digest, error against the "
    "champion's, and a plot. Materialize a watch to retrain it now; it serves if it is not worse.",
)
def model_versions(
    context: dg.AssetExecutionContext, config: TrainingConfig, engine: EngineResource
) -> dg.MaterializeResult[None]:
    """Retrain one watch; logs `active_models` too where the candidate was promoted."""
    with engine.open_in_background() as core:
        [report] = core.train(
            [context.partition_key], kind=config.kind, reason=config.reason, run_id=context.run.run_id
        )
        if report.version is None:
            raise dg.Failure(f"{report.slug}: {report.detail}", allow_retries=False)
        if report.promoted:
            context.log_event(promotion(core, report))
    return dg.MaterializeResult(
        metadata=version_metadata(report, context.run.run_id),
        data_version=dg.DataVersion(label(report.version)),
        tags=version_tags(report),
    )


@dg.asset(
    partitions_def=WATCHES,
    backfill_policy=_RUN_PER_WATCH,
    deps=[dg.AssetDep(MODEL_VERSIONS)],
    group_name="models",
    kinds={"python"},
    owners=["team:sentinel"],
    code_version=CODE_VERSION,
    description="Which version of a watch serves, since when and why. Roll back with the `rollback` job: it holds "
    "until `release`. Materialized as it is, it records what serves.",
)
def active_models(
    context: dg.AssetExecutionContext, config: ActivationConfig, engine: EngineResource
) -> dg.MaterializeResult[None]:
    """Roll back, release or confirm one watch."""
    with engine.open() as core:
        report = activate(core, context.partition_key, config, context.run.run_id)
    return dg.MaterializeResult(
        metadata=activation_metadata(report),
        data_version=dg.DataVersion(label(report.version)),
        tags=activation_tags(report),
    )


def activate(core: Engine, slug: str, config: ActivationConfig, run_id: str) -> ActivationReport:
    """Do what the configuration asks; raises dagster.Failure for a version that is not one."""
    if config.action == "confirm" and not config.version:
        return core.serving(slug)
    if config.action == "release":
        return core.release(slug, reason=config.reason, run_id=run_id)
    number = config.version.strip().removeprefix("v")
    if number and not number.isdecimal():
        raise dg.Failure(
            f"{config.version!r} is not a version; write v3, or nothing for the previous one", allow_retries=False
        )
    return core.roll_back(slug, version=int(number) if number else None, reason=config.reason, run_id=run_id)


def training(report: TrainingReport, run_id: str, *, plot: bool) -> dg.AssetMaterialization:
    """Return the `model_versions` event of a watch trained in a set."""
    metadata = version_metadata(report, run_id, plot=plot)
    return _event(MODEL_VERSIONS, report.slug, report.version, metadata, version_tags(report))


def promotion(core: Engine, report: TrainingReport) -> dg.AssetMaterialization:
    """Return the `active_models` event of a watch whose candidate was promoted."""
    serving = replace(core.serving(report.slug), action="promote", reason=report.detail)
    return _event(ACTIVE_MODELS, report.slug, serving.version, activation_metadata(serving), activation_tags(serving))


def _event(
    key: dg.AssetKey,
    slug: str,
    version: int | None,
    metadata: dict[str, dg.MetadataValue],
    tags: dict[str, str],
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=key,
        partition=slug,
        metadata=metadata,
        tags={**tags, "dagster/data_version": label(version), "dagster/code_version": CODE_VERSION},
    )
