"""Partitions: hours (UTC) for what flows, watches and models for what changes; and the span of time a run covers.

One event per hour's asset and tick, whatever the number of watches: recording a materialization costs about 75 ms on
SQLite, so a partition per watch and tick would be out of reach.
"""

import hashlib
import re
from datetime import UTC, datetime

import dagster as dg

WATCHES = dg.DynamicPartitionsDefinition(name="watches")  # keys: the slugs of the watches
MODELS = dg.DynamicPartitionsDefinition(name="models")  # keys: models in production, see `model_key`

RANGE_START_TAG = "dagster/asset_partition_range_start"  # Dagster's own: one run over a contiguous range
RANGE_END_TAG = "dagster/asset_partition_range_end"

_HOUR = 3_600
_REACH_DAYS = 120  # at least this far back can be backfilled: beyond every default retention


def hours(now: datetime) -> dg.HourlyPartitionsDefinition:
    """Hours from 1 January of the year it was 120 days ago, up to and including the current one.

    The start moves once a year, so that the UI never lists more than some 12,000 hours; it is quick up to there.
    """
    year = datetime.fromtimestamp(now.timestamp() - _REACH_DAYS * 86_400, UTC).year
    return dg.HourlyPartitionsDefinition(start_date=f"{year}-01-01-00:00", timezone="UTC", end_offset=1)


def hour_key(timestamp: int) -> str:
    """Return the key of the hour that holds a unix timestamp.

    >>> hour_key(1_767_229_200)
    '2026-01-01-01:00'
    """
    return datetime.fromtimestamp(timestamp - timestamp % _HOUR, UTC).strftime("%Y-%m-%d-%H:00")


def model_key(model: str) -> str:
    """Return the partition key of a model, "<project>/<name>", whatever people call it.

    >>> model_key("default/fraud-score")
    'default/fraud-score'
    >>> model_key("default/Betrug, früh")
    'default/Betrug__fr_h-c8b098ce'
    """
    safe = re.sub(r"[^A-Za-z0-9_./-]|\.(?=\.)", "_", model)[:100]
    if safe == model:
        return model
    return f"{safe}-{hashlib.blake2b(model.encode(), digest_size=4).hexdigest()}"


def span(context: dg.AssetExecutionContext, start: int | None, end: int | None) -> tuple[int, int]:
    """Return the seconds to cover, both inclusive: what a tick planned, else the hours of the run's partitions."""
    window = context.partition_time_window
    return (
        int(window.start.timestamp()) if start is None else start,
        int(window.end.timestamp()) - 1 if end is None else end,
    )
