"""Receivers of alerts."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field, JsonValue

from sentinel_core.alerts import receivers
from sentinel_core.alerts.receivers import ReceiverRow
from sentinel_core.apps import commands
from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.values import (
    DEFAULT_LIMIT,
    Answer,
    Body,
    Cursor,
    FilterId,
    Id,
    IdIn,
    Limit,
    Moment,
    Name,
    Next,
    example,
    moment,
    page_of,
)
from sentinel_core.incidents.lifecycle import Severity

router = APIRouter(tags=["Alerts"])

ReceiverKind = Literal["slack", "webhook", "alertmanager", "apprise"]
_SETTINGS = (
    "slack: `url`. webhook: `url`, `secret`. alertmanager: `url`, `labels`, `bearer_token`. apprise: `url`. "
    "Secrets are shown masked; sent back so, they stay what they are."
)
_EXAMPLE = {"url": "https://hooks.slack.com/services/T000/B000/XXXX"}


class Receiver(Answer):
    """Where alerts of a project go."""

    id: int
    project_id: int
    name: str
    kind: ReceiverKind
    settings: dict[str, Any] = Field(description=_SETTINGS, examples=[_EXAMPLE])
    min_severity: Severity = Field(description="Incidents below it are not told")
    enabled: bool
    created_at: Moment


class Receivers(Answer):
    """A page of receivers."""

    items: list[Receiver]
    next: Next


class NewReceiver(Body):
    """A receiver to add."""

    name: Name = Field(examples=["on-call"])
    kind: ReceiverKind
    settings: dict[str, JsonValue] = Field(description=_SETTINGS, examples=[_EXAMPLE])
    min_severity: Severity = "warn"
    enabled: bool = True
    project_id: IdIn | None = Field(None, description="Yours, unless you see every project")


class ReceiverChange(Body):
    """What to change; what is not named stays."""

    model_config = example(min_severity="critical")

    name: Name | None = None
    settings: dict[str, JsonValue] | None = Field(None, description=_SETTINGS, examples=[_EXAMPLE])
    min_severity: Severity | None = None
    enabled: bool | None = None


class TestOutcome(Answer):
    """What became of a test alert."""

    delivered: bool
    detail: str = Field(description="What the receiver said, or why it did not take it")


def _view(row: ReceiverRow) -> Receiver:
    return Receiver(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        kind=row.kind,  # type: ignore[arg-type]  # one of four
        settings=receivers.shown(row.kind, row.settings),
        min_severity=row.min_severity,  # type: ignore[arg-type]
        enabled=row.enabled,
        created_at=moment(row.created_at),
    )


def _find(call: Call, receiver_id: int) -> Receiver:
    with call.services.store.database.read() as conn:
        return _view(receivers.get(conn, receiver_id, call.project_id))


@router.get("/receivers", **needs("read"), summary="List receivers")
def list_receivers(
    call: Caller,
    project_id: FilterId = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Receivers:
    """The receivers of your project, oldest first, with their secrets masked."""
    with call.services.store.database.read() as conn:
        rows = receivers.list_receivers(conn, call.within(project_id))
    after = sorted((row for row in rows if row.id > (cursor or 0)), key=lambda row: row.id)
    return Receivers(**page_of(after, limit, _view, lambda row: row.id))


_TAKEN = {"s409": "The name is taken"}


@router.post(
    "/receivers", **needs("administer", **_TAKEN, s404="No such project"), summary="Add a receiver", status_code=201
)
def create_receiver(call: Caller, new: NewReceiver) -> Receiver:
    """Add a receiver; its address is resolved and checked at once."""
    receiver_id = commands.create_receiver(
        call.services,
        call.principal,
        call.into(new.project_id),
        new.name,
        new.kind,
        new.settings,
        min_severity=new.min_severity,
        enabled=new.enabled,
    )
    return _find(call, receiver_id)


@router.get("/receivers/{receiver_id}", **needs("read"), summary="Read a receiver")
def read_receiver(call: Caller, receiver_id: Id) -> Receiver:
    """A receiver with its secrets masked."""
    return _find(call, receiver_id)


@router.patch("/receivers/{receiver_id}", **needs("administer", **_TAKEN), summary="Change a receiver")
def change_receiver(call: Caller, receiver_id: Id, change: ReceiverChange) -> Receiver:
    """Change what is named."""
    changes = change.model_dump(exclude_none=True)
    commands.change_receiver(call.services, call.principal, receiver_id, **changes)
    return _find(call, receiver_id)


@router.delete("/receivers/{receiver_id}", **needs("administer"), summary="Remove a receiver", status_code=204)
def remove_receiver(call: Caller, receiver_id: Id) -> None:
    """Remove a receiver; what it is still owed is not sent."""
    commands.remove_receiver(call.services, call.principal, receiver_id)


@router.post("/receivers/{receiver_id}/test", **needs("administer"), summary="Send a test alert")
def test_receiver(call: Caller, receiver_id: Id) -> TestOutcome:
    """Send a test alert now, and say what became of it; a refusal is no error of this request."""
    outcome = commands.test_receiver(call.services, call.principal, receiver_id)
    return TestOutcome(delivered=outcome.delivered, detail=outcome.detail)
