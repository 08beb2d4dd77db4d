"""`drift_scores`: forecasts whose time has come, against what came."""

from typing import Literal

import dagster as dg

from sentinel_core.config import SentinelConfig
from sentinel_dagster.checks import BOUNDS_HOLD, FLEET_DRIFT, bounds_hold, fleet_drift
from sentinel_dagster.metadata import CODE_VERSION, SCRAPED_WINDOWS, drift_metadata
from sentinel_dagster.partitions import span
from sentinel_dagster.resources import EngineResource

_HOUR = 3_600


class DriftConfig(dg.Config):
    """A replay scores replayed forecasts and leaves the drift state, and so the sensor, alone."""

    mode: Literal["live", "replay"] = "replay"
    start: int | None = None  # unix seconds, inclusive; default: the run's hours
    end: int | None = None


def drift_scores_asset(hourly: dg.HourlyPartitionsDefinition, *, horizon_hours: int) -> dg.AssetsDefinition:
    """Return the asset; what is scored in an hour was forecast up to `horizon_hours` before."""

    @dg.asset(
        partitions_def=hourly,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            dg.AssetDep(SCRAPED_WINDOWS),
            dg.AssetDep(
                "forecasts",
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-horizon_hours, allow_nonexistent_upstream_partitions=True
                ),
            ),
        ],
        group_name="forecasts",
        kinds={"parquet"},
        owners=["team:sentinel"],
        code_version=CODE_VERSION,
        check_specs=[FLEET_DRIFT, BOUNDS_HOLD],
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("watch", "int32"),
                    dg.TableColumn("fp", "int64", description="fingerprint of the series"),
                    dg.TableColumn("ts", "int64", description="time that was forecast, unix seconds"),
                    dg.TableColumn("version", "int32"),
                    dg.TableColumn("mae", "float64", description="mean |residual| over leads, in the metric's unit"),
                    dg.TableColumn("scaled", "float64", description="the same, each lead over its training MAE"),
                    dg.TableColumn("anomaly", "float64", description="1 at the edge of the bounds"),
                ]
            )
        },
        description="Residuals of each forecast at its own time and lead, and every watch's severity from their "
        "rolling mean. Retraining is the actions sensor's.",
    )
    def drift_scores(
        context: dg.AssetExecutionContext, config: DriftConfig, engine: EngineResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows the bare class only, beside checks
        start, end = span(context, config.start, config.end)
        with engine.open() as core:
            report = core.score_drift(start, end, mode=config.mode)
            plot = config.mode == "replay" or closes_hour(core.config, start, end)
        results = [fleet_drift(report), bounds_hold(report)]
        return dg.MaterializeResult(metadata=drift_metadata(report, plot=plot), check_results=results)

    return drift_scores


def closes_hour(config: SentinelConfig, start: int, end: int) -> bool:
    """Whether a tick's span holds the last grid point of an hour: one plot an hour is enough for an event log."""
    step = min((watch.step_seconds for watch in config.watches), default=_HOUR)
    return start // _HOUR != (end + step) // _HOUR
