"""What is owed to whom: a transition and its alerts are written together, and sent later by `dispatch`.

A delivery is pending until its receiver took it, then delivered, or dead where it will not be tried again. A dispatcher
leases what it sends; where it dies the lease runs out and another one sends it. Of one incident and receiver only the
oldest pending one is sent, so that a receiver reads the story in order; a dead one holds up nothing.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, NotFoundError
from sentinel_core.incidents import store
from sentinel_core.incidents.lifecycle import Incident, Step, Subject, Transition
from sentinel_core.storage import schema
from sentinel_core.storage.statements import in_lists

LEASE_SECONDS = 30.0  # more than one attempt may take, by far
_ENDS = ("resolved", "accepted", "closed")
_table = schema.deliveries
_receivers = schema.receivers


def record(
    connection: sa.Connection, subject: Incident | Subject, transition: Transition, *, quiet: bool = False
) -> Incident:
    """Write a transition: the incident (compare-and-set), its timeline and an alert for each receiver it concerns.

    The one door for all three, in the caller's transaction. Returns the incident as it is now.

    subject: what `lifecycle.evaluate` or `act` was given, else the subject of a new incident
    quiet:   nobody is told, as in a replay of the past

    Raises ConflictError where somebody else changed the incident, or opened one about the same subject, since it was
    read: read again and decide again.
    """
    incident, transition_id = store.save(connection, subject, transition)
    if transition_id is not None and transition.alerts and not quiet:
        owed = [
            {
                "incident_id": incident.id,
                "transition_id": transition_id,
                "receiver_id": receiver_id,
                "state": "pending",
                "next_attempt_at": transition.at,
                "created_at": transition.at,
            }
            for receiver_id in _concerned(connection, incident, transition.step)
        ]
        if owed:
            connection.execute(_table.insert(), owed)
    return incident


def _concerned(connection: sa.Connection, incident: Incident, step: Step) -> list[int]:
    """Who wants to hear of such a severity; of its going down or over, those who were told of it."""
    mine = _receivers.c.enabled & (_receivers.c.project_id == incident.project_id)
    if step in ("opened", "escalated", "reopened"):
        if incident.severity == "warn":
            mine &= _receivers.c.min_severity == "warn"
        return list(connection.scalars(sa.select(_receivers.c.id).where(mine).order_by(_receivers.c.id)))
    steps = schema.incident_transitions
    heard = (
        sa.select(_receivers.c.id, steps.c.kind)
        .select_from(_table.join(_receivers).join(steps, steps.c.id == _table.c.transition_id))
        .where(mine, _table.c.incident_id == incident.id)
        .order_by(_table.c.id)
    )
    last = {row.id: row.kind for row in connection.execute(heard)}
    return sorted(receiver_id for receiver_id, kind in last.items() if kind not in _ENDS)


def resend(connection: sa.Connection, delivery_id: int, now: float, project_id: int | None = None) -> None:
    """Owe a dead alert once more, from now. NotFoundError where there is none, ConflictError where it is not dead."""
    query = sa.select(_table.c.state).join_from(_table, _receivers).where(_table.c.id == delivery_id)
    if project_id is not None:
        query = query.where(_receivers.c.project_id == project_id)
    state = connection.scalar(query)
    if state is None:
        raise NotFoundError(f"there is no delivery {delivery_id}")
    again = _table.update().where(_table.c.id == delivery_id, _table.c.state == "dead")
    if connection.execute(again.values(state="pending", attempts=0, next_attempt_at=now)).rowcount != 1:
        raise ConflictError(f"delivery {delivery_id} is {state}; only a dead one is sent again by hand")


# ---- for the dispatcher ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claimed:
    """A delivery that a dispatcher holds, with all that its alert tells."""

    id: int
    state: str  # pending; delivered where it is repeated
    attempts: int
    created_at: float
    delivered_at: float | None
    receiver_id: int
    receiver: str
    receiver_kind: str
    settings: str  # JSON
    project: str
    incident_id: int
    kind: str
    subject: str
    opened_at: float
    step: str  # of the transition, as all up to `assessment`
    severity: str
    step_state: str
    actor: str
    reason: str
    at: float
    assessment: str
    state_now: str  # of the incident, as it is by now
    severity_now: str


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the columns of its row.

    state: pending (try again) | delivered | dead
    next_attempt_at: None where there is nothing more to do
    """

    id: int
    state: str
    attempts: int
    next_attempt_at: float | None
    last_error: str | None
    delivered_at: float | None
    receiver_rests_until: float | None = None  # it asked to be left alone


def claim(connection: sa.Connection, lease: str, now: float, each: int, busy: Mapping[int, int]) -> list[Claimed]:
    """Lease what is due, in a write transaction.

    lease: the dispatcher's name, see `new_lease`
    each:  how many alerts to one receiver may be under way
    busy:  how many are, by receiver id
    """
    full = [receiver_id for receiver_id, count in busy.items() if count >= each]
    longest_due = _table.c.next_attempt_at, _table.c.id
    place = sa.func.row_number().over(partition_by=_table.c.receiver_id, order_by=longest_due)
    due = _owed().where(_table.c.next_attempt_at <= now, _table.c.receiver_id.not_in(full), _unleased(now))
    ranked = due.with_only_columns(_table.c.id, _table.c.receiver_id, place.label("place")).subquery()
    rows = connection.execute(sa.select(ranked).where(ranked.c.place <= each).order_by(ranked.c.id))
    ids = [row.id for row in rows if row.place <= each - busy.get(row.receiver_id, 0)]
    if not ids:
        return []
    connection.execute(
        _table.update().where(_table.c.id == sa.bindparam("one")).values(lease=lease, leased_until=now + LEASE_SECONDS),
        [{"one": delivery_id} for delivery_id in ids],
    )
    return _claimed(connection, ids)


def settle(connection: sa.Connection, lease: str, outcomes: Sequence[Outcome]) -> None:
    """Write what became of attempts and give their leases back, in a write transaction.

    One that another dispatcher has taken over in the meantime is that one's to settle.
    """
    if not outcomes:
        return
    mine = (_table.c.id == sa.bindparam("one")) & (_table.c.lease == lease)
    names = ("state", "attempts", "next_attempt_at", "last_error", "delivered_at")
    update = _table.update().where(mine).values(**{name: sa.bindparam(f"new_{name}") for name in names})
    connection.execute(
        update.values(lease=None, leased_until=None),
        [{"one": one.id, **{f"new_{name}": getattr(one, name) for name in names}} for one in outcomes],
    )
    rests = [{"one": one.id, "until": one.receiver_rests_until} for one in outcomes if one.receiver_rests_until]
    if rests:
        of_receiver = sa.select(_table.c.receiver_id).where(_table.c.id == sa.bindparam("one")).scalar_subquery()
        sooner = (_table.c.state == "pending") & (_table.c.next_attempt_at < sa.bindparam("until"))
        wait = _table.update().where(sooner, _table.c.receiver_id == of_receiver)
        connection.execute(wait.values(next_attempt_at=sa.bindparam("until")), rests)
    delivered = [{"one": one.id} for one in outcomes if one.state == "delivered"]
    if delivered:  # the newer alert takes over what its receiver is reminded of
        newer = _table.alias()
        pair = (newer.c.incident_id == _table.c.incident_id) & (newer.c.receiver_id == _table.c.receiver_id)
        newest = sa.exists().where(pair, newer.c.id == sa.bindparam("one"), newer.c.id > _table.c.id)
        repeated = (_table.c.state == "delivered") & _table.c.next_attempt_at.is_not(None)
        of_incident = sa.select(newer.c.incident_id).where(newer.c.id == sa.bindparam("one")).scalar_subquery()
        older = _table.update().where(_table.c.incident_id == of_incident, repeated, newest)
        connection.execute(older.values(next_attempt_at=None), delivered)


def next_due(connection: sa.Connection) -> float | None:
    """When the next alert has to be sent or repeated, unix seconds; None when nothing is owed.

    What a dispatcher works on counts from the end of its lease.
    """
    leased = sa.func.coalesce(_table.c.leased_until, 0.0)
    when = sa.case((leased > _table.c.next_attempt_at, leased), else_=_table.c.next_attempt_at)
    due: float | None = connection.scalar(_owed().with_only_columns(sa.func.min(when)))
    return due


def new_lease() -> str:
    """A name that no other dispatcher has."""
    return uuid.uuid4().hex


def _owed() -> sa.Select[Any]:
    """Deliveries to send or repeat, now or later, of receivers that are enabled; each is its pair's next.

    A pair is an incident and a receiver: the oldest pending one goes first, and nothing is repeated before it.
    """
    other = _table.alias()
    pair = (other.c.incident_id == _table.c.incident_id) & (other.c.receiver_id == _table.c.receiver_id)
    sooner = (other.c.id < _table.c.id) | (_table.c.state == "delivered")
    behind = sa.exists().where(pair, other.c.state == "pending", other.c.id != _table.c.id, sooner)
    query = sa.select(_table.c.id).join_from(_table, _receivers)
    return query.where(_table.c.next_attempt_at.is_not(None), _receivers.c.enabled, ~behind)


def _unleased(now: float) -> sa.ColumnElement[bool]:
    """Nobody sends this one, nor another one of its incident and receiver: a repetition must not overtake the end."""
    other = _table.alias()
    pair = (other.c.incident_id == _table.c.incident_id) & (other.c.receiver_id == _table.c.receiver_id)
    return ~sa.exists().where(pair, other.c.leased_until > now)


def _claimed(connection: sa.Connection, ids: Sequence[int]) -> list[Claimed]:
    steps, incidents, projects = schema.incident_transitions, schema.incidents, schema.projects
    elsewhere: dict[str, sa.ColumnElement[Any]] = {
        "receiver": _receivers.c.name,
        "receiver_kind": _receivers.c.kind,
        "settings": _receivers.c.settings,
        "project": projects.c.name,
        "kind": incidents.c.kind,
        "subject": incidents.c.subject,
        "opened_at": incidents.c.opened_at,
        "step": steps.c.kind,
        "severity": steps.c.severity,
        "step_state": steps.c.state,
        "actor": steps.c.actor,
        "reason": steps.c.reason,
        "at": steps.c.at,
        "assessment": steps.c.assessment,
        "state_now": incidents.c.state,
        "severity_now": incidents.c.severity,
    }
    columns = [elsewhere[one.name] if one.name in elsewhere else _table.c[one.name] for one in fields(Claimed)]
    joined = (
        _table.join(_receivers, _receivers.c.id == _table.c.receiver_id)
        .join(steps, steps.c.id == _table.c.transition_id)
        .join(incidents, incidents.c.id == _table.c.incident_id)
        .join(projects, projects.c.id == incidents.c.project_id)
    )
    found: list[Claimed] = []
    for some in in_lists(ids):
        query = sa.select(*columns).select_from(joined).where(_table.c.id.in_(some))
        found += (Claimed(*row) for row in connection.execute(query.order_by(_table.c.id)))
    return found
