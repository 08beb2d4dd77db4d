"""What Dagster loads: every asset, job, schedule, sensor and resource together.

    dagster dev -m sentinel_dagster.definitions

A configuration that is missing or wrong does not keep the location from loading: the UI says what is wrong, in the
definitions' metadata and as the reason why schedules and sensors skip.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from sentinel_core.config import SentinelConfig, load_config
from sentinel_core.errors import ConfigError
from sentinel_dagster.assets import build_assets
from sentinel_dagster.jobs import compact, deliver, evaluate, maintain, monitor, release, rollback, tick, train
from sentinel_dagster.resources import EngineResource
from sentinel_dagster.schedules import build_schedules
from sentinel_dagster.sensors import SENSORS


def build_defs(
    config: SentinelConfig | None = None,
    *,
    now: datetime | None = None,
    resource_overrides: Mapping[str, object] | None = None,
) -> dg.Definitions:
    """Return the definitions for a configuration, by default the applied one; a test may swap any resource.

    The configuration shapes the crons, the longest horizon and the freshness; what the watches are is read by every
    run and evaluation anew.
    """
    problem = ""
    if config is None:
        try:
            config = load_config(None)
        except ConfigError as error:
            config, problem = SentinelConfig(), str(error)
    if not problem and not config.watches:
        problem = "applied; no watch is configured, so that models in production alone are looked after"
    return dg.Definitions(
        assets=build_assets(config, now or datetime.now(UTC)),
        jobs=[tick, train, rollback, release, evaluate, monitor, deliver, compact, maintain],
        schedules=build_schedules(watch.cron for watch in config.watches),
        sensors=SENSORS,
        resources={"engine": EngineResource(), **(resource_overrides or {})},
        executor=dg.in_process_executor,  # for what people materialize from the UI
        metadata={"watches": len(config.watches), "configuration": problem or "applied"},
    )


defs = build_defs()
