"""Delete a model: its rows, and its part of every segment."""

from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from sentinel_core.errors import NotFoundError
from sentinel_core.incidents import store as incidents
from sentinel_core.monitoring.event_columns import decode, encode
from sentinel_core.pipeline.baselining import Also
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.pipeline.reports import DeletionReport
from sentinel_core.storage import event_log, event_store, model_store


def delete_model(context: Context, model_id: int, *, also: Also | None = None) -> DeletionReport:
    """Delete what is stored of a model; after the next garbage collection no byte of it is left.

    Raises NotFoundError where there is no such model. Events that arrive later register it anew, under another id.
    """
    return persistently(lambda: _delete(context, model_id, also))


def _delete(context: Context, model_id: int, also: Also | None) -> DeletionReport:
    store, now = context.store, context.clock()
    with store.database.read() as conn:
        model = model_store.model(conn, model_id)
        progress = model_store.progress(conn)
    if model is None:
        raise NotFoundError(f"there is no model {model_id}")
    removal = event_store.without_model(store, model_id, now)
    with store.database.write() as conn:
        model_store.advance(conn, progress)
        store.segments.commit(conn, [removal.pending])
        store.segments.drop(conn, removal.drop, now)
        tables = {
            "event_log": _forget_waiting(conn, model_id),
            "incidents": incidents.forget_model(conn, model_id),
            **model_store.delete(conn, model_id),
        }
        if also is not None:
            also(conn)
    store.database.scrub()
    return DeletionReport(model.name, tables, removal.rows, removal.segments)


def _forget_waiting(conn: sa.Connection, model_id: int) -> int:
    """Take a model's events out of the event log; returns how many there were."""
    gone, after = 0, 0
    while rows := event_log.read(conn, after=after):
        for row in rows:
            columns = decode(row.payload)
            others = columns.where(columns.model != model_id)
            if len(others) == len(columns):
                continue
            gone += len(columns) - len(others)
            event_log.delete(conn, [row.id])
            if len(others):
                used = set(np.unique(others.label).tolist())
                texts = {label: text for label, text in columns.texts.items() if label in used}
                event_log.append(conn, row.received_at, len(others), encode(replace(others, texts=texts)))
        after = rows[-1].id
    return gone
