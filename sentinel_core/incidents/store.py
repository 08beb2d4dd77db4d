"""Incidents, their timelines and what was sent of them, as rows.

Read by the evaluation, the API and the pages. Written by `alerts.outbox.record` only, the one door through which a
transition, its row of the timeline and its alerts come in together.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, NotFoundError
from sentinel_core.incidents.lifecycle import (
    RECURRENCE_HOURS,
    Incident,
    Severity,
    State,
    Status,
    Subject,
    Transition,
)
from sentinel_core.storage import schema
from sentinel_core.storage.statements import in_lists, insert_or

_table = schema.incidents
_transitions = schema.incident_transitions
_deliveries = schema.deliveries


@dataclass(frozen=True)
class TransitionRow:
    """A row of the timeline."""

    id: int
    incident_id: int
    revision: int
    kind: str  # lifecycle.Step
    state: State  # after it
    severity: Severity
    actor: str
    reason: str
    assessment: str
    baseline_version: int | None
    hour: int | None
    at: float


@dataclass(frozen=True)
class DeliveryRow:
    """One alert to one receiver; state is pending | delivered | dead."""

    id: int
    incident_id: int
    transition_id: int
    receiver_id: int
    receiver: str  # its name
    receiver_kind: str
    state: str
    attempts: int
    next_attempt_at: float | None
    last_error: str | None
    delivered_at: float | None
    created_at: float


@dataclass(frozen=True)
class Span:
    """Hours [from_hour, until_hour) of a model's drift, and the baseline version it was measured against."""

    model_id: int
    from_hour: int
    until_hour: int
    baseline_version: int | None


# ---- reading ---------------------------------------------------------------------------------------------------------


def current(connection: sa.Connection, now: float, *, hour_seconds: int = 3_600) -> dict[str, Incident]:
    """Return what `lifecycle.evaluate` needs, by `Subject.key`: active incidents, and those that may yet reopen.

    now: the end of the oldest hour that is about to be evaluated
    """
    since = now - RECURRENCE_HOURS * hour_seconds
    recent = (_table.c.resolved_at >= since) | (_table.c.closed_at >= since)
    rows = connection.execute(_select().where(_table.c.active_key.is_not(None) | recent).order_by(_table.c.id))
    found = (_incident(row) for row in rows)
    return {incident.key: incident for incident in found}


def active(connection: sa.Connection, project_id: int | None = None) -> list[Incident]:
    """Return the open and acknowledged incidents of a project (None: of all), oldest first."""
    query = _select().where(_table.c.active_key.is_not(None)).order_by(_table.c.id)
    return [_incident(row) for row in connection.execute(_of_project(query, project_id))]


def get(connection: sa.Connection, incident_id: int, project_id: int | None = None) -> Incident:
    """Return one incident; NotFoundError where there is none, or where it is another project's."""
    row = connection.execute(_of_project(_select().where(_table.c.id == incident_id), project_id)).first()
    if row is None:
        raise NotFoundError(f"there is no incident {incident_id}")
    return _incident(row)


def list_incidents(
    connection: sa.Connection,
    project_id: int | None = None,
    *,
    states: Collection[State] = (),
    severity: Severity | None = None,
    kind: str | None = None,
    model_id: int | None = None,
    watch_id: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Incident]:
    """Return incidents of a project (None: of all), newest first; `before` is the last id of the page before."""
    query = _select().order_by(_table.c.id.desc()).limit(limit)
    if states:
        query = query.where(_table.c.state.in_(states))
    for column, value in (
        (_table.c.severity, severity),
        (_table.c.kind, kind),
        (_table.c.model_id, model_id),
        (_table.c.watch_id, watch_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(_table.c.id < before)
    return [_incident(row) for row in connection.execute(_of_project(query, project_id))]


def count_by_state(connection: sa.Connection) -> dict[tuple[int, State, Severity], int]:
    """Return how many incidents there are by (project id, state, severity)."""
    columns = _table.c.project_id, _table.c.state, _table.c.severity
    rows = connection.execute(sa.select(*columns, sa.func.count()).group_by(*columns))
    return {(project, state, severity): count for project, state, severity, count in rows}


def timeline(connection: sa.Connection, incident_id: int) -> list[TransitionRow]:
    """Return an incident's transitions, oldest first."""
    query = sa.select(*(_transitions.c[field.name] for field in fields(TransitionRow)))
    query = query.where(_transitions.c.incident_id == incident_id).order_by(_transitions.c.revision)
    return [TransitionRow(*row) for row in connection.execute(query)]


def deliveries(
    connection: sa.Connection,
    project_id: int | None = None,
    *,
    incident_id: int | None = None,
    receiver_id: int | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 200,
) -> list[DeliveryRow]:
    """Return what was, is or could not be sent, newest first: of a project (None: of all), an incident, a receiver."""
    receivers = schema.receivers
    named = {"receiver": receivers.c.name, "receiver_kind": receivers.c.kind}
    columns = [named[field.name] if field.name in named else _deliveries.c[field.name] for field in fields(DeliveryRow)]
    query = sa.select(*columns).join_from(_deliveries, receivers).order_by(_deliveries.c.id.desc()).limit(limit)
    for column, value in (
        (receivers.c.project_id, project_id),
        (_deliveries.c.incident_id, incident_id),
        (_deliveries.c.receiver_id, receiver_id),
        (_deliveries.c.state, state),
    ):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(_deliveries.c.id < before)
    return [DeliveryRow(*row) for row in connection.execute(query)]


def drift_spans(connection: sa.Connection, since: int, model_ids: Collection[int] | None = None) -> list[Span]:
    """Return the hours of drift that end after `since`, which later baselines leave out; by model, oldest first.

    A baseline that was accepted or pinned afterwards (a greater version) is the new normal: leave them in for it.
    """
    query = sa.select(*(_table.c[field.name] for field in fields(Span)))
    query = query.where(_table.c.kind == "psi", _table.c.until_hour > since)
    query = query.order_by(_table.c.model_id, _table.c.from_hour)
    spans = (Span(*row) for row in connection.execute(query))
    return [span for span in spans if model_ids is None or span.model_id in model_ids]


# ---- writing ---------------------------------------------------------------------------------------------------------


def save(connection: sa.Connection, subject: Incident | Subject, transition: Transition) -> tuple[Incident, int | None]:
    """Write where a transition leads, and its row of the timeline; returns the incident and that row's id.

    Compare-and-set on what the transition was decided from: ConflictError where somebody moved the incident since, or
    opened one about the same subject. Only `alerts.outbox.record` calls this.
    """
    values = {
        **{field.name: getattr(transition.after, field.name) for field in fields(Status)},
        "active_key": subject.key if transition.after.active else None,
        "updated_at": transition.at,
    }
    if transition.before is None:
        incident_id, revision = _insert_new(connection, subject, values), 1
    else:
        assert isinstance(subject, Incident)
        incident_id, revision = subject.id, subject.revision + (transition.step != "noted")
        _move(connection, subject, {**values, "revision": revision})
    row_id = None
    if transition.step != "noted":
        written = connection.execute(
            _transitions.insert().values(
                incident_id=incident_id,
                revision=revision,
                kind=transition.step,
                state=transition.after.state,
                severity=transition.after.severity,
                actor=transition.actor,
                reason=transition.reason,
                assessment=transition.after.assessment,
                baseline_version=transition.baseline_version,
                hour=transition.hour,
                at=transition.at,
            )
        )
        assert written.inserted_primary_key is not None
        row_id = written.inserted_primary_key[0]
    return get(connection, incident_id), row_id


def _insert_new(connection: sa.Connection, subject: Subject, values: dict[str, Any]) -> int:
    about = {field.name: getattr(subject, field.name) for field in fields(Subject)}
    insert = insert_or(connection, _table).values(**about, **values, revision=1)
    incident_id: int | None = connection.scalar(insert.on_conflict_do_nothing().returning(_table.c.id))
    if incident_id is None:
        raise ConflictError(
            f"{subject.subject} has an active {subject.kind} incident already; read it and decide again"
        )
    return incident_id


def _move(connection: sa.Connection, incident: Incident, values: dict[str, Any]) -> None:
    # an evaluation that changes nothing but values leaves the revision: nobody's click is refused because of it
    unmoved = (_table.c.revision == incident.revision) & (_table.c.until_hour == incident.until_hour)
    moved = connection.execute(_table.update().where(_table.c.id == incident.id, unmoved).values(**values))
    if moved.rowcount != 1:
        raise ConflictError(f"incident {incident.id} was changed by somebody else first; read it and decide again")


def set_back(connection: sa.Connection, hour: int) -> None:
    """Let no incident have hours behind this one, or end later: the clock was wrong, and they have to go on."""
    for name in ("from_hour", "until_hour", "opened_at", "resolved_at"):
        column = _table.c[name]
        connection.execute(_table.update().where(column > hour).values({name: hour}))


# ---- forgetting ------------------------------------------------------------------------------------------------------


def forget(connection: sa.Connection, before: float, limit: int = 1_000) -> int:
    """Forget incidents that were over before a time, with their timelines and deliveries; returns how many.

    At most `limit` at once, oldest first, so that the transaction stays short.
    """
    old = sa.select(_table.c.id).where(_table.c.active_key.is_(None), _table.c.updated_at < before)
    return _forget(connection, list(connection.scalars(old.order_by(_table.c.id).limit(limit))))


def forget_model(connection: sa.Connection, model_id: int) -> int:
    """Forget every incident of a model, with timelines and deliveries; returns how many there were."""
    return _forget(connection, list(connection.scalars(sa.select(_table.c.id).where(_table.c.model_id == model_id))))


def _forget(connection: sa.Connection, ids: Sequence[int]) -> int:
    for some in in_lists(ids):
        for table in (_deliveries, _transitions):
            connection.execute(table.delete().where(table.c.incident_id.in_(some)))
        connection.execute(_table.delete().where(_table.c.id.in_(some)))
    return len(ids)


# ---- rows ------------------------------------------------------------------------------------------------------------

_COLUMNS = [field.name for field in fields(Incident)]


def _select() -> sa.Select[Any]:
    return sa.select(*(_table.c[name] for name in _COLUMNS))


def _of_project(query: sa.Select[Any], project_id: int | None) -> sa.Select[Any]:
    return query if project_id is None else query.where(_table.c.project_id == project_id)


def _incident(row: sa.Row[Any]) -> Incident:
    return Incident(**dict(zip(_COLUMNS, row, strict=True)))
