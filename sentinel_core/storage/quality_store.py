"""Rows of `forecast_quality`. Every function takes a connection, so that a round commits with what it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from sentinel_core.storage import schema


@dataclass(frozen=True)
class Quality:
    """How good the forecasts of a watch and lead were, over the day before `ts` (unix seconds).

    samples:      judged forecasts, of `series` series
    mae, bias:    in the metric's unit: median over series of the mean |forecast - actual| and forecast - actual
    mase:         median over series of MAE by that of the seasonal naive; None where that made no error at all
    coverage:     share of actuals inside the bounds, which were made for `level`; above: share beyond the upper one
    better_share: of series whose forecasts were better than the seasonal naive
    """

    watch_id: int
    ts: int
    lead_seconds: int
    samples: int
    series: int
    mae: float
    mase: float | None
    bias: float
    coverage: float
    above: float
    level: float
    better_share: float


def add(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, each with the columns of `forecast_quality`."""
    if rows:
        connection.execute(schema.forecast_quality.insert(), rows)


def newest(connection: sa.Connection) -> dict[int, tuple[Quality, ...]]:
    """Return what the newest round found out about each watch, by lead; nothing where it had nothing to judge."""
    table, state = schema.forecast_quality, schema.watch_state
    now = (state.c.watch_id == table.c.watch_id) & (state.c.verified_until == table.c.ts)
    found: dict[int, list[Quality]] = {}
    query = sa.select(*_columns()).join_from(state, table, now).order_by(table.c.watch_id, table.c.lead_seconds)
    for row in connection.execute(query):
        found.setdefault(row.watch_id, []).append(Quality(**row._mapping))
    return {watch_id: tuple(some) for watch_id, some in found.items()}


def history(connection: sa.Connection, watch_id: int, start: int, end: int) -> list[Quality]:
    """Return what was found out about a watch by rounds in [start, end], the oldest first, then by lead."""
    table = schema.forecast_quality
    mine = (table.c.watch_id == watch_id) & table.c.ts.between(start, end)
    query = sa.select(*_columns()).where(mine).order_by(table.c.ts, table.c.lead_seconds)
    return [Quality(**row._mapping) for row in connection.execute(query)]


def first_rounds(connection: sa.Connection) -> dict[int, int]:
    """Return when something was found out about each watch for the first time."""
    table, state = schema.forecast_quality, schema.watch_state
    first = sa.select(sa.func.min(table.c.ts)).where(table.c.watch_id == state.c.watch_id).scalar_subquery()
    rows = connection.execute(sa.select(state.c.watch_id, first.label("ts")))
    return {row.watch_id: row.ts for row in rows if row.ts is not None}


def forget(connection: sa.Connection, before: float) -> int:
    """Forget what was found out before a time; returns how many rows that were."""
    table = schema.forecast_quality
    return connection.execute(table.delete().where(table.c.ts < before)).rowcount


def _columns() -> list[sa.Column[Any]]:
    return [schema.forecast_quality.c[field.name] for field in fields(Quality)]
