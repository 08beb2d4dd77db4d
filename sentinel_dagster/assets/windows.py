"""`scraped_windows`: what Prometheus said, on the grid, an hour per partition."""

from datetime import timedelta
from typing import Literal

import dagster as dg

from sentinel_dagster.checks import WATCHES_SCRAPED, all_well
from sentinel_dagster.metadata import CODE_VERSION, windows_metadata
from sentinel_dagster.partitions import span
from sentinel_dagster.resources import EngineResource


class WindowsConfig(dg.Config):
    """A backfill asks Prometheus for whole hours again; a tick only for what is missing in its span."""

    mode: Literal["tick", "backfill"] = "backfill"
    start: int | None = None  # unix seconds, inclusive; default: the run's hours
    end: int | None = None
    slugs: list[str] | None = None  # default: every watch


def scraped_windows_asset(hourly: dg.HourlyPartitionsDefinition, *, step_seconds: int) -> dg.AssetsDefinition:
    """Return the asset; it is stale when several steps of the quickest watch (and some minutes) brought nothing."""

    @dg.asset(
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="signals",
        kinds={"prometheus", "parquet"},
        owners=["team:sentinel"],
        code_version=CODE_VERSION,
        check_specs=[WATCHES_SCRAPED],
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(seconds=max(300, 3 * step_seconds)),
            fail_window=timedelta(seconds=max(900, 10 * step_seconds)),
        ),
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("fp", "int64", description="fingerprint of the series"),
                    dg.TableColumn("ts", "int64", description="grid time, unix seconds"),
                    dg.TableColumn("v", "float64", description="value; counters as a rate per second; NaN is a gap"),
                ]
            )
        },
        description="Samples of every watched series on its grid. A backfill queries Prometheus again and only adds: "
        "an hour beyond its retention keeps what was stored.",
    )
    def scraped_windows(
        context: dg.AssetExecutionContext, config: WindowsConfig, engine: EngineResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows the bare class only, beside checks
        with engine.open(settled=config.end) as core:
            report = core.scrape_windows(*span(context, config.start, config.end), mode=config.mode, slugs=config.slugs)
        return dg.MaterializeResult(
            metadata=windows_metadata(report),
            check_results=[all_well(WATCHES_SCRAPED, report.watches, report.failures)],
        )

    return scraped_windows
