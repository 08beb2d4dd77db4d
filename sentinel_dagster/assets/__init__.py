"""The assets, one file per family. A body is three lines: open the engine, call the core, return its report.

    windows.py     scraped_windows    hour    what Prometheus said
    forecasts.py   forecasts          hour    what the active models expect
    drift.py       drift_scores       hour    how far off they were
    models.py      model_versions     watch   what was trained
                   active_models      watch   what serves
    evaluations.py model_evaluations  watch   which model suits it, tried on its past
    monitoring.py  prediction_events  hour    what models in production have said
                   psi_scores         hour    how far that is from what they used to say
                   monitored_models   model   what happened to them

Retraining on drift is the sensor's: an edge from drift_scores back to model_versions would be a circle.
"""

from datetime import datetime

import dagster as dg

from sentinel_core.config import SentinelConfig
from sentinel_dagster.assets.drift import drift_scores_asset
from sentinel_dagster.assets.evaluations import model_evaluations
from sentinel_dagster.assets.forecasts import forecasts_asset
from sentinel_dagster.assets.models import active_models, model_versions
from sentinel_dagster.assets.monitoring import monitored_models, prediction_events_asset, psi_scores_asset
from sentinel_dagster.assets.windows import scraped_windows_asset
from sentinel_dagster.partitions import hours

_HOUR = 3_600


def build_assets(config: SentinelConfig, now: datetime) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return every asset; the configuration gives the longest horizon and the pace at which windows stay fresh."""
    hourly = hours(now)
    horizon = max((watch.horizon_steps * watch.step_seconds for watch in config.watches), default=_HOUR)
    step = min((watch.step_seconds for watch in config.watches), default=60)
    return [
        scraped_windows_asset(hourly, step_seconds=step),
        forecasts_asset(hourly),
        drift_scores_asset(hourly, horizon_hours=-(-horizon // _HOUR)),
        model_versions,
        active_models,
        model_evaluations,
        prediction_events_asset(hourly),
        psi_scores_asset(hourly),
        monitored_models,
    ]
