"""`forecasts`: what the active models expect, by the hour of their origin."""

from typing import Literal

import dagster as dg

from sentinel_dagster.checks import WATCHES_FORECAST, all_well
from sentinel_dagster.metadata import ACTIVE_MODELS, CODE_VERSION, SCRAPED_WINDOWS, forecasts_metadata
from sentinel_dagster.partitions import span
from sentinel_dagster.resources import EngineResource


class ForecastsConfig(dg.Config):
    """A replay issues every origin of its span with the version active then; a live run the newest origin."""

    mode: Literal["live", "replay"] = "replay"
    start: int | None = None  # unix seconds, inclusive; default: the run's hours
    end: int | None = None
    slugs: list[str] | None = None  # default: every watch


def forecasts_asset(hourly: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            dg.AssetDep(SCRAPED_WINDOWS),
            # Every hour is forecast with whatever serves then. The newest watch stands for all of them: resolving
            # thousands of partitions at each tick would buy no information.
            dg.AssetDep(ACTIVE_MODELS, partition_mapping=dg.LastPartitionMapping()),
        ],
        group_name="forecasts",
        kinds={"parquet"},
        owners=["team:sentinel"],
        code_version=CODE_VERSION,
        check_specs=[WATCHES_FORECAST],
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("watch", "int32"),
                    dg.TableColumn("fp", "int64", description="fingerprint of the series"),
                    dg.TableColumn("origin", "int64", description="last time known to the forecast, unix seconds"),
                    dg.TableColumn("ts", "int64", description="time that is forecast"),
                    dg.TableColumn("lead", "int16", description="steps ahead"),
                    dg.TableColumn("mean", "float64"),
                    dg.TableColumn("lower", "float64"),
                    dg.TableColumn("upper", "float64"),
                    dg.TableColumn("version", "int32", description="that last fitted the series; 0: last value"),
                    dg.TableColumn("mode", "int8", description="0 live, 1 replay"),
                ]
            )
        },
        description="Forecasts of every series at every lead. A backfill replays past origins with the version that "
        "served then, beside the live ones: a backtest that never reaches /metrics.",
    )
    def forecasts(
        context: dg.AssetExecutionContext, config: ForecastsConfig, engine: EngineResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows the bare class only, beside checks
        with engine.open() as core:
            report = core.issue_forecasts(
                *span(context, config.start, config.end), mode=config.mode, slugs=config.slugs
            )
        return dg.MaterializeResult(
            metadata=forecasts_metadata(report),
            check_results=[all_well(WATCHES_FORECAST, report.watches, report.failures)],
        )

    return forecasts
