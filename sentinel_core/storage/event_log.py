"""The event log: acknowledged events that no segment holds yet. A row is one group commit of the ingest.

What the payload's bytes mean is `monitoring.event_columns`'. Ids are no order of commits on PostgreSQL: whoever drains
deletes the very rows that it read, and never "everything up to".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import sqlalchemy as sa

from sentinel_core.storage.schema import event_log as table
from sentinel_core.storage.statements import in_lists

MAX_READ_EVENTS = 1_000_000  # of one `read`: some 40 MB of payload


@dataclass(frozen=True)
class LogRow:
    """One group commit."""

    id: int
    received_at: float  # unix seconds
    events: int
    payload: bytes


@dataclass(frozen=True)
class Backlog:
    """What waits to be drained."""

    rows: int
    events: int
    oldest_at: float | None  # unix seconds; None: nothing waits


def append(connection: sa.Connection, received_at: float, events: int, payload: bytes) -> None:
    """Add a row; it is durable once the transaction (`Database.append()`) has committed."""
    connection.execute(table.insert().values(received_at=received_at, events=events, payload=payload))


def read(connection: sa.Connection, *, after: int = 0, max_events: int = MAX_READ_EVENTS) -> list[LogRow]:
    """Return rows with an id above `after`, by id: as many as hold about `max_events` together, at least one."""
    sizes = connection.execute(
        sa.select(table.c.id, table.c.events).where(table.c.id > after).order_by(table.c.id).limit(max_events)
    ).all()
    totals = accumulate(row.events for row in sizes)
    ids = [row.id for row, total in zip(sizes, totals, strict=True) if total - row.events < max_events]
    found = []
    for some in in_lists(ids):
        chosen = table.c.id.in_(some)
        found += [LogRow(**row._mapping) for row in connection.execute(sa.select(table).where(chosen).order_by("id"))]
    return found


def delete(connection: sa.Connection, ids: Sequence[int]) -> int:
    """Delete rows by id; returns how many were still there: fewer than asked for means that somebody else drained."""
    deleted = 0
    for some in in_lists(ids):
        deleted += connection.execute(table.delete().where(table.c.id.in_(some))).rowcount
    return deleted


def backlog(connection: sa.Connection) -> Backlog:
    """Return how much waits, and since when."""
    query = sa.select(sa.func.count(), sa.func.sum(table.c.events), sa.func.min(table.c.received_at)).select_from(table)
    rows, events, oldest = connection.execute(query).one()
    return Backlog(rows, int(events or 0), oldest)
