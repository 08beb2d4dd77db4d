"""What people do about an incident, and about alerts that did not arrive."""

from typing import cast

import sqlalchemy as sa

from sentinel_core.alerts import outbox
from sentinel_core.apps.commands.models import BY_HAND
from sentinel_core.apps.commands.rights import allow, context, valid
from sentinel_core.apps.services import Backend
from sentinel_core.incidents import lifecycle, store
from sentinel_core.pipeline import baselining
from sentinel_core.security import audit
from sentinel_core.security.principals import Principal
from sentinel_core.storage.schema import deliveries, receivers


def change_incident(
    backend: Backend, principal: Principal, incident_id: int, action: lifecycle.Action, reason: str = ""
) -> None:
    """Move an incident on: acknowledge, resolve, close, or accept as the new normal."""
    allow(principal, "operate")
    if action == "accept":
        _accept(backend, principal, incident_id, reason)
        return
    with backend.store.database.write() as conn:
        incident = store.get(conn, incident_id, principal.project_id)
        transition = lifecycle.act(incident, action, principal.actor, reason or BY_HAND, backend.now())
        outbox.record(conn, incident, transition)
        audit.write(
            conn,
            principal,
            f"incident.{action}",
            f"incident {incident.id} {incident.subject}",
            {"reason": reason},
            project_id=incident.project_id,
            now=backend.now(),
        )


def _accept(backend: Backend, principal: Principal, incident_id: int, reason: str) -> None:
    """The incident resolves with the new baseline, in one transaction of the pipeline's."""
    with backend.store.database.read() as conn:
        incident = store.get(conn, incident_id, principal.project_id)
    lifecycle.act(incident, "accept", principal.actor, reason, backend.now())  # or it says what is possible instead
    target, project_id = f"incident {incident.id} {incident.subject}", incident.project_id

    def note(conn: sa.Connection) -> None:
        audit.write(
            conn, principal, "incident.accept", target, {"reason": reason}, project_id=project_id, now=backend.now()
        )

    with valid(named=False):
        baselining.accept(
            context(backend),
            cast(int, incident.model_id),  # only drift of a model can be accepted
            actor=principal.actor,
            reason=reason or BY_HAND,
            also=note,
        )


def resend_delivery(backend: Backend, principal: Principal, delivery_id: int) -> None:
    """Owe a dead alert once more, from now."""
    allow(principal, "operate")
    with backend.store.database.write() as conn:
        outbox.resend(conn, delivery_id, backend.now(), principal.project_id)
        owner = sa.select(receivers.c.project_id).join(deliveries).where(deliveries.c.id == delivery_id)
        target, project_id = f"delivery {delivery_id}", conn.scalar(owner)
        audit.write(conn, principal, "delivery.resend", target, project_id=project_id, now=backend.now())
