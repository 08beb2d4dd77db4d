"""`model_evaluations`: every model tried on a watch's own past, a partition per watch."""

import dagster as dg

from sentinel_core.durations import parse_duration
from sentinel_dagster.metadata import CODE_VERSION, SCRAPED_WINDOWS, backtest_metadata
from sentinel_dagster.partitions import WATCHES
from sentinel_dagster.resources import EngineResource


class BacktestConfig(dg.Config):
    """How far back to look: the older half is trained on, the newer half is judged."""

    since: str = "14d"


@dg.asset(
    partitions_def=WATCHES,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),  # an event has no partition of its own
    deps=[dg.AssetDep(SCRAPED_WINDOWS, partition_mapping=dg.LastPartitionMapping())],
    group_name="models",
    kinds={"python"},
    owners=["team:sentinel"],
    code_version=CODE_VERSION,
    description="How every built-in, the watch's own model and repeating the day before would have done on the watch's "
    "past: errors, coverage, cost, a plot, and which model to take. Changes nothing that serves.",
)
def model_evaluations(
    context: dg.AssetExecutionContext, config: BacktestConfig, engine: EngineResource
) -> dg.MaterializeResult[None]:
    """Backtest one watch."""
    try:
        since = parse_duration(config.since)
    except ValueError as error:
        raise dg.Failure(f"since: {error}", allow_retries=False) from error

    def progress(slug: str, done: int, total: int) -> None:
        context.log.info("%s: %d of %d trainings", slug, done, total)

    with engine.open_in_background() as core:
        [report] = core.backtest([context.partition_key], since_seconds=since, progress=progress)
    if report.problem:
        raise dg.Failure(f"{report.slug}: {report.problem}", allow_retries=False)
    return dg.MaterializeResult(metadata=backtest_metadata(report))
