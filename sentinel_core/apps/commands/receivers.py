"""Receivers of alerts. Their addresses are resolved and checked before any transaction begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sentinel_core.alerts import receivers
from sentinel_core.alerts.receivers import ReceiverRow
from sentinel_core.apps.commands.rights import allow, project_of
from sentinel_core.apps.services import Backend
from sentinel_core.errors import DeliveryError
from sentinel_core.security import audit
from sentinel_core.security.principals import Principal


@dataclass(frozen=True)
class TestOutcome:
    """What became of a test message; `detail` is what the receiver said, or why it did not get it."""

    delivered: bool
    detail: str


def create_receiver(
    backend: Backend,
    principal: Principal,
    project_id: int,
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    *,
    min_severity: str = "warn",
    enabled: bool = True,
) -> int:
    """Add a receiver of alerts; returns its id."""
    allow(principal, "administer")
    with backend.store.database.read() as conn:
        project_of(conn, principal, project_id)
    checked = receivers.checked(kind, settings, backend.config())
    with backend.store.database.write() as conn:
        receiver_id = receivers.add(
            conn, project_id, name, kind, checked, backend.now(), min_severity=min_severity, enabled=enabled
        )
        detail = {"kind": kind, "min_severity": min_severity, "enabled": enabled}
        _note(backend, conn, principal, "receiver.create", receivers.get(conn, receiver_id), detail)
    return receiver_id


def change_receiver(
    backend: Backend,
    principal: Principal,
    receiver_id: int,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    min_severity: str | None = None,
    enabled: bool | None = None,
) -> None:
    """Change what is given. A secret that is sent back as it was shown, masked, stays what it is."""
    allow(principal, "administer")
    if settings is not None:
        before = _get(backend, principal, receiver_id)
        settings = receivers.checked(before.kind, settings, backend.config(), before=before.settings)
    with backend.store.database.write() as conn:
        receiver = receivers.get(conn, receiver_id, principal.project_id)
        receivers.change(conn, receiver_id, name=name, settings=settings, min_severity=min_severity, enabled=enabled)
        changes = {"name": name, "min_severity": min_severity, "enabled": enabled}
        detail: dict[str, Any] = {field: value for field, value in changes.items() if value is not None}
        if settings is not None:
            detail["settings"] = sorted(settings)
        _note(backend, conn, principal, "receiver.change", receiver, detail)


def remove_receiver(backend: Backend, principal: Principal, receiver_id: int) -> None:
    """Remove a receiver with its deliveries."""
    allow(principal, "administer")
    with backend.store.database.write() as conn:
        receiver = receivers.get(conn, receiver_id, principal.project_id)
        owed = receivers.remove(conn, receiver_id)
        _note(backend, conn, principal, "receiver.remove", receiver, {"owed": owed})


def test_receiver(backend: Backend, principal: Principal, receiver_id: int) -> TestOutcome:
    """Send a test message now, and say what became of it."""
    allow(principal, "administer")
    receiver = _get(backend, principal, receiver_id)
    try:
        outcome = TestOutcome(True, receivers.test(receiver, backend.config(), backend.now()))
    except DeliveryError as error:
        outcome = TestOutcome(False, str(error))
    with backend.store.database.write() as conn:
        _note(backend, conn, principal, "receiver.test", receiver, {"delivered": outcome.delivered})
    return outcome


def _get(backend: Backend, principal: Principal, receiver_id: int) -> ReceiverRow:
    with backend.store.database.read() as conn:
        return receivers.get(conn, receiver_id, principal.project_id)


def _note(
    backend: Backend,
    conn: sa.Connection,
    principal: Principal,
    action: str,
    receiver: ReceiverRow,
    detail: Mapping[str, Any],
) -> None:
    target = f"receiver {receiver.id} {receiver.name}"
    audit.write(conn, principal, action, target, detail, project_id=receiver.project_id, now=backend.now())
