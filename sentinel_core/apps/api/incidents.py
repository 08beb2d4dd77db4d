"""Incidents, what happened to them, what people do about them; and the alerts that were, are and could not be sent."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field

from sentinel_core.apps import commands
from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.values import (
    DEFAULT_LIMIT,
    Answer,
    Because,
    Cursor,
    FilterId,
    Id,
    Limit,
    Moment,
    Next,
    moment,
    moment_or_none,
    page_of,
)
from sentinel_core.incidents import lifecycle, store
from sentinel_core.incidents.lifecycle import Action, Kind, Severity, State, Step
from sentinel_core.incidents.store import DeliveryRow, TransitionRow

router = APIRouter(tags=["Incidents"])
sending = APIRouter(tags=["Alerts"])

DeliveryState = Literal["pending", "delivered", "dead"]


class Incident(Answer):
    """One episode of something wrong with a model or a watch."""

    id: int
    project_id: int
    kind: Kind = Field(
        description="psi: a model's drift; silence: it sends nothing; forecast: a watch's drift; threshold: of a watch"
    )
    model_id: int | None
    watch_id: int | None
    subject: str = Field(description="What people call the model or the watch")
    state: State
    severity: Severity
    revision: int
    opened_at: Moment
    updated_at: Moment
    acknowledged_at: Moment | None
    resolved_at: Moment | None
    closed_at: Moment | None
    baseline_version: int | None


class IncidentDetail(Incident):
    """An incident with the values of its newest evaluation, and what can be done now."""

    possible: list[Action]
    assessment: dict[str, Any] = Field(description="The newest evaluation, as it was decided on")


class Incidents(Answer):
    """A page of incidents, newest first."""

    items: list[Incident]
    next: Next


class Transition(Answer):
    """One step of an incident."""

    revision: int
    kind: Step
    state: State = Field(description="After it")
    severity: Severity
    actor: str
    reason: str
    at: Moment
    hour: Moment | None = Field(description="End of the hour whose evaluation made it")
    baseline_version: int | None
    assessment: dict[str, Any] = Field(description="The values it was decided on")


class Timeline(Answer):
    """A page of an incident's steps, oldest first."""

    items: list[Transition]
    next: Next


class Delivery(Answer):
    """An alert to one receiver."""

    id: int
    incident_id: int
    receiver_id: int
    receiver: str
    receiver_kind: str
    state: DeliveryState = Field(description="dead: given up; it can be sent again")
    attempts: int
    next_attempt_at: Moment | None
    last_error: str | None
    delivered_at: Moment | None
    created_at: Moment


class Deliveries(Answer):
    """A page of deliveries, newest first."""

    items: list[Delivery]
    next: Next


def _members(one: lifecycle.Incident) -> dict[str, Any]:
    same = ("id", "project_id", "kind", "model_id", "watch_id", "subject", "state", "severity", "revision")
    times = ("opened_at", "updated_at", "acknowledged_at", "resolved_at", "closed_at")
    return {
        **{name: getattr(one, name) for name in (*same, "baseline_version")},
        **{name: moment_or_none(getattr(one, name)) for name in times},
    }


def _view(one: lifecycle.Incident) -> Incident:
    return Incident(**_members(one))


def _find(call: Call, incident_id: int) -> lifecycle.Incident:
    with call.services.store.database.read() as conn:
        return store.get(conn, incident_id, call.project_id)


def _detail(call: Call, incident_id: int) -> IncidentDetail:
    one = _find(call, incident_id)
    return IncidentDetail(
        **_members(one), possible=list(lifecycle.possible(one)), assessment=msgspec.json.decode(one.assessment)
    )


@router.get("/incidents", **needs("read"), summary="List incidents")
def list_incidents(
    call: Caller,
    state: Annotated[list[State], Query(description="Only in these states", max_length=4)] = [],  # noqa: B006
    severity: Severity | None = None,
    kind: Kind | None = None,
    model_id: FilterId = None,
    watch_id: FilterId = None,
    project_id: FilterId = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Incidents:
    """The incidents of your project, newest first."""
    with call.services.store.database.read() as conn:
        found = store.list_incidents(
            conn,
            call.within(project_id),
            states=state,
            severity=severity,
            kind=kind,
            model_id=model_id,
            watch_id=watch_id,
            before=cursor,
            limit=limit + 1,
        )
    return Incidents(**page_of(found, limit, _view, lambda one: one.id))


@router.get("/incidents/{incident_id}", **needs("read"), summary="Read an incident")
def read_incident(call: Caller, incident_id: Id) -> IncidentDetail:
    """An incident with the values of its newest evaluation, and the actions that its state allows."""
    return _detail(call, incident_id)


@router.get("/incidents/{incident_id}/timeline", **needs("read"), summary="Read an incident's timeline")
def read_timeline(call: Caller, incident_id: Id, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> Timeline:
    """Each step with who or what took it, why, and the values it was decided on; oldest first."""
    with call.services.store.database.read() as conn:
        store.get(conn, incident_id, call.project_id)
        rows = store.timeline(conn, incident_id)

    def shown(row: TransitionRow) -> Transition:
        return Transition(
            revision=row.revision,
            kind=row.kind,  # type: ignore[arg-type]  # a lifecycle.Step
            state=row.state,
            severity=row.severity,
            actor=row.actor,
            reason=row.reason,
            at=moment(row.at),
            hour=moment_or_none(row.hour),
            baseline_version=row.baseline_version,
            assessment=msgspec.json.decode(row.assessment),
        )

    after = [row for row in rows if row.revision > (cursor or 0)]
    return Timeline(**page_of(after, limit, shown, lambda row: row.revision))


@router.get("/incidents/{incident_id}/deliveries", **needs("read"), summary="List an incident's alerts")
def list_incident_deliveries(
    call: Caller, incident_id: Id, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Deliveries:
    """Who was told of an incident, who is yet to be, and whom it could not be told; newest first."""
    with call.services.store.database.read() as conn:
        store.get(conn, incident_id, call.project_id)
        found = store.deliveries(conn, call.project_id, incident_id=incident_id, before=cursor, limit=limit + 1)
    return Deliveries(**page_of(found, limit, _delivery, lambda one: one.id))


_ACTIONS: dict[Action, tuple[str, str]] = {
    "acknowledge": ("Acknowledge an incident", "Say that somebody looks after it. It goes on being evaluated."),
    "resolve": ("Resolve an incident", "Say that it is over. If the drift lasts, the next evaluation reopens it."),
    "close": ("Close an incident", "File an acknowledged or resolved incident. A recurrence within a day reopens it."),
    "accept": (
        "Accept an incident's drift as normal",
        "Resolve a model's drift by taking its current window for the new baseline, which slides on from there.",
    ),
}


def _action(action: Action) -> Callable[..., IncidentDetail]:
    def act(call: Caller, incident_id: Id, why: Because | None = None) -> IncidentDetail:
        commands.change_incident(call.services, call.principal, incident_id, action, why.reason if why else "")
        return _detail(call, incident_id)

    return act


for _name, (_summary, _text) in _ACTIONS.items():
    router.post(
        f"/incidents/{{incident_id}}/{_name}",
        **needs("operate", s409="Its state does not allow that, or somebody else moved it first"),
        operation_id=f"{_name}_incident",
        summary=_summary,
        description=_text,
    )(_action(_name))


# ---- alerts ----------------------------------------------------------------------------------------------------------


def _delivery(row: DeliveryRow) -> Delivery:
    same = ("id", "incident_id", "receiver_id", "receiver", "receiver_kind", "state", "attempts", "last_error")
    times = ("next_attempt_at", "delivered_at", "created_at")
    members: dict[str, Any] = {name: getattr(row, name) for name in same}
    members |= {name: moment_or_none(getattr(row, name)) for name in times}
    return Delivery(**members)


@sending.get("/deliveries", **needs("read"), summary="List alerts")
def list_deliveries(
    call: Caller,
    state: DeliveryState | None = None,
    receiver_id: FilterId = None,
    project_id: FilterId = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Deliveries:
    """The alerts of your project, newest first; `state=dead` lists those that were given up."""
    with call.services.store.database.read() as conn:
        found = store.deliveries(
            conn,
            call.within(project_id),
            receiver_id=receiver_id,
            state=state,
            before=cursor,
            limit=limit + 1,
        )
    return Deliveries(**page_of(found, limit, _delivery, lambda one: one.id))


@sending.post(
    "/deliveries/{delivery_id}/resend",
    **needs("operate", s409="It is not dead"),
    summary="Send a dead alert again",
    status_code=204,
)
def resend_delivery(call: Caller, delivery_id: Id) -> None:
    """Owe an alert that was given up once more, from now."""
    commands.resend_delivery(call.services, call.principal, delivery_id)
