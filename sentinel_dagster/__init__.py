"""Dagster's side of Sentinel: when the loop runs, and the record of what happened.

    definitions.py   everything together: `build_defs()`
    partitions.py    hours, watches and models, and the span of time that a run covers
    assets/          one file per family: the hour's assets, the watch's models, models in production
    checks.py        the fleet's asset checks
    metadata.py      reports of the core -> metadata, tags and data versions
    jobs.py          tick, train, rollback, release, evaluate, monitor, deliver, compact, maintain; run requests
    schedules.py     the minute, every watch's cron, housekeeping
    sensors.py       drift and cold starts, new and removed watches, ticks between the minutes, alerts that are owed
    resources.py     the engine, opened from the applied configuration
    retention.py     deletes old runs of ticks with their files
    reconcile.py     before a start: ends runs whose worker is gone

The work itself is `sentinel_core`'s; nothing here computes.
"""

import warnings

# Dagster calls these beta and says so, several times, in the terminal of everybody who starts Sentinel. The release is
# pinned and the tests run them. (It gives every sensor owners itself.)
warnings.filterwarnings("ignore", r"Parameter `(backfill_policy|allow_nonexistent_upstream_partitions)` of")
warnings.filterwarnings("ignore", r"Parameter `owners` of initializer `SensorDefinition")
