"""A model in production with a past, as if an application had sent it, and nobody had looked since a few hours."""

import time

import numpy as np

from sentinel_core.monitoring.event_columns import EventColumns, encode
from sentinel_core.storage import event_log, model_store, schema
from sentinel_core.storage.store import Store

PER_DAY = 2_000


def acknowledge(store: Store, hour_seconds: int, *, days: int = 9, moved: bool = True) -> None:
    """Put so many days of the model `fraud` into the event log; `moved`: the scores of the last one are others."""
    now = time.time()
    scores = np.random.default_rng(1).normal(size=days * PER_DAY)
    scores[-PER_DAY:] += 2.0 * moved
    ts = now - hour_seconds - np.linspace(days * 24 * hour_seconds, 0, len(scores))
    nothing = np.zeros(len(ts), np.int64)
    with store.database.write() as connection:
        model = model_store.register(connection, [(1, "fraud")], now)[1, "fraud"]
        ids = np.full(len(ts), model.id, np.int32)
        columns = EventColumns(ids, ts.astype(np.int64), nothing, scores, scores * np.nan, nothing, {})
        event_log.append(connection, now - 60, len(ts), encode(columns))
        until = int(now - 4 * hour_seconds) // hour_seconds * hour_seconds
        connection.execute(schema.monitor_progress.update().values(evaluated_until=until))
