"""Watches, their state, what of the grid was asked for, their series, and the counters of short-lived processes.

Every function takes a connection, so that a tick changes all of it in one transaction. 10,000 rows are the most that
one write transaction should touch: a caller with more splits them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.series import Series
from sentinel_core.storage import schema
from sentinel_core.storage.statements import in_lists, insert_or
from sentinel_core.windows import IntArray

Span = tuple[int, int]  # first and last timestamp of a part of the grid, both inside
CounterKey = tuple[str, tuple[tuple[str, str], ...]]  # metric name, sorted labels


@dataclass(frozen=True)
class WatchState:
    """A registered watch and what the last ticks left of it; the columns of `watch_state`."""

    watch_id: int
    slug: str
    selector: str
    kind: str | None
    scrape_interval: float | None
    scraped_until: int | None
    last_tick_at: float | None
    last_error: str | None
    last_error_at: float | None
    series_live: int
    buffer_fill: float
    unlearnt: int
    forecast_origin: int | None
    forecast_segment_id: int | None
    scored_until: int | None
    verified_until: int | None
    severity: str | None
    drift_mae: float | None
    drift_low: int
    drift_high: int
    drift_scored: int

    @property
    def fresh_at(self) -> float | None:
        """When the forecasts were last up to date: the last tick, less what they lag behind the samples that it read.

        Unix seconds by our clock, whatever Prometheus' says. A watch that has nothing to forecast yet does not lag.
        """
        if self.last_tick_at is None or self.scraped_until is None or self.forecast_origin is None:
            return self.last_tick_at
        return self.last_tick_at - (max(0, self.scraped_until - self.forecast_origin) if self.series_live else 0)


@dataclass(frozen=True)
class Member:
    """One series of a watch."""

    watch_id: int
    series: Series
    fingerprint: int
    first_seen: int
    vanished_at: int | None  # None while it lives


# ---- watches and their state -----------------------------------------------------------------------------------------
def sync_watches(
    connection: sa.Connection, wanted: Iterable[tuple[str, str]], now: float, *, retire: bool = True
) -> dict[str, int]:
    """Make the registered watches those of (slug, selector): add, retire (unless told not to), revive.

    Returns the active ones' ids.
    """
    table, state = schema.watches, schema.watch_state
    target = dict(wanted)
    rows = {row.slug: row for row in connection.execute(sa.select(table))}
    fresh = [slug for slug in target if slug not in rows]
    if fresh:
        new = [{"slug": slug, "selector": target[slug], "created_at": now} for slug in fresh]
        connection.execute(table.insert(), new)
        active = table.c.retired_at.is_(None) & table.c.id.not_in(sa.select(state.c.watch_id))
        connection.execute(state.insert().from_select(["watch_id"], sa.select(table.c.id).where(active)))
    changed = [
        {"key": row.id, "new_selector": target.get(slug, row.selector), "retired": None if slug in target else now}
        for slug, row in rows.items()
        if (slug in target and (row.retired_at is not None or row.selector != target[slug]))
        or (retire and slug not in target and row.retired_at is None)
    ]
    if changed:
        by_key = table.update().where(table.c.id == sa.bindparam("key"))
        connection.execute(
            by_key.values(selector=sa.bindparam("new_selector"), retired_at=sa.bindparam("retired")), changed
        )
    return watch_ids(connection)


def watch_ids(connection: sa.Connection) -> dict[str, int]:
    """Return the ids of the active watches by slug."""
    table = schema.watches
    rows = connection.execute(
        sa.select(table.c.slug, table.c.id).where(table.c.retired_at.is_(None)).order_by(table.c.id)
    )
    return {row.slug: row.id for row in rows}


def retired_watches(connection: sa.Connection, before: float) -> list[int]:
    """Return the ids of the watches that were retired before a time and have not come back."""
    table = schema.watches
    return list(connection.execute(sa.select(table.c.id).where(table.c.retired_at < before)).scalars())


def states(connection: sa.Connection) -> dict[str, WatchState]:
    """Return the state of every active watch by slug."""
    watches, state = schema.watches, schema.watch_state
    columns = [{**watches.c, **state.c}[field.name] for field in fields(WatchState)]
    query = sa.select(*columns).join_from(watches, state)
    rows = connection.execute(query.where(watches.c.retired_at.is_(None)).order_by(watches.c.id))
    found = (WatchState(*row) for row in rows)
    return {one.slug: one for one in found}


def update_state(connection: sa.Connection, watch_id: int, **columns: Any) -> None:
    """Set some columns of one watch's state."""
    update_states(connection, [{"watch_id": watch_id, **columns}])


def update_states(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set columns of many watches' states; each row names its `watch_id` and the columns to set."""
    state = schema.watch_state
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        names = tuple(name for name in row if name != "watch_id")
        if names:
            alike.setdefault(names, []).append({f"new_{name}": value for name, value in row.items()})
    for names, values in alike.items():
        update = state.update().where(state.c.watch_id == sa.bindparam("new_watch_id"))
        connection.execute(update.values({name: sa.bindparam(f"new_{name}") for name in names}), values)


def note_errors(connection: sa.Connection, stage: str, found: Mapping[int, str | None], now: float) -> None:
    """Note by watch id what went wrong in a stage of the loop; None forgets that stage's error, and no other's.

    stage: "reading", "forecast" or "training"; the next success of a stage says nothing about another
    """
    state = schema.watch_state
    failed = [(watch_id, text) for watch_id, text in found.items() if text is not None]
    rows = [{"watch_id": one, "last_error": f"{stage}: {text}", "last_error_at": now} for one, text in failed]
    update_states(connection, rows)
    well = [watch_id for watch_id, text in found.items() if text is None]
    for some in in_lists(well):
        mine = state.c.watch_id.in_(some) & state.c.last_error.startswith(f"{stage}: ")
        connection.execute(state.update().where(mine).values(last_error=None))


# ---- coverage --------------------------------------------------------------------------------------------------------
def add_coverage(connection: sa.Connection, watch_id: int, t0: int, t1: int, step_seconds: int) -> None:
    """Note that [t0, t1] of a watch's grid was asked for; spans that touch or overlap become one."""
    table = schema.coverage
    touching = (table.c.watch_id == watch_id) & (table.c.t0 <= t1 + step_seconds) & (table.c.t1 >= t0 - step_seconds)
    spans = connection.execute(sa.select(table.c.t0, table.c.t1).where(touching)).all()
    merged = (min([t0, *(span.t0 for span in spans)]), max([t1, *(span.t1 for span in spans)]))
    if len(spans) == 1 and spans[0].t0 == merged[0]:  # every ordinary tick: the newest span grows
        if spans[0].t1 != merged[1]:
            connection.execute(table.update().where(touching).values(t1=merged[1]))
        return
    if spans:
        connection.execute(table.delete().where(touching))
    connection.execute(table.insert().values(watch_id=watch_id, t0=merged[0], t1=merged[1]))


def add_coverages(connection: sa.Connection, spans: Sequence[tuple[int, int, int, int]]) -> None:
    """Note many (watch_id, t0, t1, step_seconds) at once: one statement where each only extends its newest span."""
    table = schema.coverage
    extends = (
        (table.c.watch_id == sa.bindparam("watch"))
        & (table.c.t0 <= sa.bindparam("start"))
        & (table.c.t1 >= sa.bindparam("start") - sa.bindparam("step"))
        & (table.c.t1 <= sa.bindparam("end"))
    )
    rows = [{"watch": watch, "start": t0, "end": t1, "step": step} for watch, t0, t1, step in spans]
    if rows and connection.execute(table.update().where(extends).values(t1=sa.bindparam("end")), rows).rowcount != len(
        rows
    ):
        for watch_id, t0, t1, step_seconds in spans:  # some touch nothing yet, or more than one
            add_coverage(connection, watch_id, t0, t1, step_seconds)


def coverage(connection: sa.Connection, watch_id: int) -> list[Span]:
    """Return the spans of a watch's grid that were asked for, ascending and apart."""
    table = schema.coverage
    query = sa.select(table.c.t0, table.c.t1).where(table.c.watch_id == watch_id).order_by(table.c.t0)
    return [(row.t0, row.t1) for row in connection.execute(query)]


def uncovered(connection: sa.Connection, watch_id: int, t0: int, t1: int, step_seconds: int) -> list[Span]:
    """Return the parts of [t0, t1] (on the grid) that were never asked for."""
    return holes(coverage(connection, watch_id), t0, t1, step_seconds)


def holes(spans: Iterable[Span], t0: int, t1: int, step_seconds: int) -> list[Span]:
    """Return what of the grid in [t0, t1] lies in none of the spans (ascending).

    >>> holes([(60, 120), (300, 360)], 0, 400, 60)
    [(0, 0), (180, 240)]
    """
    found = []
    first, last = -(-t0 // step_seconds) * step_seconds, t1 // step_seconds * step_seconds
    for start, end in spans:
        if start > first and first <= last:
            found.append((first, min(start - step_seconds, last)))
        first = max(first, end + step_seconds)
    if first <= last:
        found.append((first, last))
    return found


def drop_coverage(connection: sa.Connection, watch_id: int) -> None:
    """Forget all that was asked for a watch: its series have another meaning from now on."""
    connection.execute(schema.coverage.delete().where(schema.coverage.c.watch_id == watch_id))


def forget_coverage(connection: sa.Connection, before: int) -> None:
    """Forget what was asked for before a time: those samples are not kept any more, and a backfill may ask again."""
    table = schema.coverage
    connection.execute(table.delete().where(table.c.t1 < before))
    connection.execute(table.update().where(table.c.t0 < before).values(t0=before))


# ---- series ----------------------------------------------------------------------------------------------------------
def live_series(connection: sa.Connection, watch_id: int | None = None) -> tuple[NDArray[np.int32], IntArray]:
    """Return watch ids [n] and fingerprints [n] of the living series of one watch, or of all active ones.

    Sorted by watch, then fingerprint.
    """
    table, watches = schema.series, schema.watches
    query = sa.select(table.c.watch_id, table.c.fingerprint).where(table.c.vanished_at.is_(None))
    if watch_id is None:
        query = query.where(table.c.watch_id.in_(sa.select(watches.c.id).where(watches.c.retired_at.is_(None))))
    else:
        query = query.where(table.c.watch_id == watch_id)
    rows = connection.execute(query.order_by(table.c.watch_id, table.c.fingerprint)).all()
    both = np.fromiter(chain.from_iterable(rows), np.int64, 2 * len(rows)).reshape(-1, 2)
    return both[:, 0].astype(np.int32), np.ascontiguousarray(both[:, 1])


def first_sample(connection: sa.Connection, watch_id: int) -> int | None:
    """Return when the oldest living series of a watch was first seen; None where none lives."""
    table = schema.series
    mine = (table.c.watch_id == watch_id) & table.c.vanished_at.is_(None)
    oldest: int | None = connection.scalar(sa.select(sa.func.min(table.c.first_seen)).where(mine))
    return oldest


def mark_seen_earlier(connection: sa.Connection, watch_id: int, first_seen: Mapping[int, int]) -> None:
    """Move `first_seen` back where an older span had samples already; fingerprint -> timestamp."""
    table = schema.series
    mine = (table.c.watch_id == watch_id) & (table.c.fingerprint == sa.bindparam("one"))
    rows = [{"one": fingerprint, "ts": ts} for fingerprint, ts in first_seen.items()]
    if rows:
        earlier = table.update().where(mine & (table.c.first_seen > sa.bindparam("ts")))
        connection.execute(earlier.values(first_seen=sa.bindparam("ts")), rows)


def known_series(connection: sa.Connection, watch_id: int) -> set[int]:
    """Return the fingerprints of every series that a watch ever had."""
    table = schema.series
    return set(connection.execute(sa.select(table.c.fingerprint).where(table.c.watch_id == watch_id)).scalars())


def series_of(
    connection: sa.Connection,
    watch_ids: Sequence[int],
    live_only: bool = True,
    *,
    fingerprints: Sequence[int] | None = None,
) -> list[Member]:
    """Return the series (of a few fingerprints, or all) of some watches, sorted by watch, then fingerprint."""
    table = schema.series
    members: list[Member] = []
    for some in in_lists(watch_ids):
        query = sa.select(table).where(table.c.watch_id.in_(some))
        if live_only:
            query = query.where(table.c.vanished_at.is_(None))
        if fingerprints is not None:
            query = query.where(table.c.fingerprint.in_(fingerprints))
        for row in connection.execute(query.order_by(table.c.watch_id, table.c.fingerprint)):
            series = Series.of(row.name, json.loads(row.labels))
            members.append(Member(row.watch_id, series, row.fingerprint, row.first_seen, row.vanished_at))
    return members


def add_series(
    connection: sa.Connection, watch_id: int, series: Iterable[Series], seen_at: int, vanished_at: int | None = None
) -> None:
    """Add series to a watch; those it knows already stay as they are."""
    rows = [
        {
            "watch_id": watch_id,
            "fingerprint": one.fingerprint,
            "name": one.name,
            "labels": json.dumps(dict(one.labels), ensure_ascii=False),
            "first_seen": seen_at,
            "vanished_at": vanished_at,
        }
        for one in series
    ]
    if rows:
        connection.execute(insert_or(connection, schema.series).on_conflict_do_nothing(), rows)


def mark_vanished(connection: sa.Connection, watch_id: int, fingerprints: IntArray | Sequence[int], ts: int) -> None:
    """Note that series had their last sample by `ts`; nothing is deleted."""
    _set_vanished(connection, watch_id, fingerprints, ts)


def forget_series(connection: sa.Connection, before: float) -> int:
    """Forget series that vanished, or whose watch was retired, before a time; returns how many.

    One that comes back is registered anew.
    """
    table, watches = schema.series, schema.watches
    left = table.c.watch_id.in_(sa.select(watches.c.id).where(watches.c.retired_at < before))
    return connection.execute(table.delete().where((table.c.vanished_at < before) | left)).rowcount


def mark_revived(connection: sa.Connection, watch_id: int, fingerprints: IntArray | Sequence[int]) -> None:
    """Note that vanished series have samples again."""
    _set_vanished(connection, watch_id, fingerprints, None)


def _set_vanished(
    connection: sa.Connection, watch_id: int, fingerprints: IntArray | Sequence[int], ts: int | None
) -> None:
    if not len(fingerprints):
        return
    table = schema.series
    mine = (table.c.watch_id == watch_id) & (table.c.fingerprint == sa.bindparam("one"))
    rows = [{"one": int(fingerprint)} for fingerprint in fingerprints]
    connection.execute(table.update().where(mine).values(vanished_at=ts), rows)


# ---- counters --------------------------------------------------------------------------------------------------------
def increment(connection: sa.Connection, amounts: Mapping[CounterKey, float]) -> None:
    """Add to counters; one that does not exist starts at zero."""
    table = schema.counters
    rows = [
        {"name": name, "labels": json.dumps(dict(sorted(labels))), "value": amount}
        for (name, labels), amount in sorted(amounts.items())
    ]
    if rows:
        insert = insert_or(connection, table)
        sum_ = table.c.value + insert.excluded.value
        connection.execute(insert.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": sum_}), rows)


def assign(connection: sa.Connection, values: Mapping[CounterKey, float]) -> None:
    """Set gauges, which lie beside the counters."""
    table = schema.counters
    rows = [
        {"name": name, "labels": json.dumps(dict(sorted(labels))), "value": value}
        for (name, labels), value in sorted(values.items())
    ]
    if rows:
        insert = insert_or(connection, table)
        update = insert.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": insert.excluded.value})
        connection.execute(update, rows)


def counters(connection: sa.Connection) -> dict[CounterKey, float]:
    """Return every counter."""
    rows = connection.execute(sa.select(schema.counters))
    return {(row.name, tuple(sorted(json.loads(row.labels).items()))): row.value for row in rows}
