"""What people change about a model in production."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sentinel_core.alerts import outbox
from sentinel_core.apps.commands.rights import allow, context, valid
from sentinel_core.apps.services import Backend
from sentinel_core.errors import NotFoundError
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents import store as incidents
from sentinel_core.pipeline import baselining, deleting
from sentinel_core.pipeline.baselining import Also
from sentinel_core.pipeline.reports import DeletionReport
from sentinel_core.security import audit
from sentinel_core.security.principals import Action, Principal
from sentinel_core.storage import model_store
from sentinel_core.storage.model_store import MonitoredModel

BY_HAND = "by hand"  # where somebody gives no reason


def change_settings(
    backend: Backend,
    principal: Principal,
    model_id: int,
    settings: Mapping[str, Any],
    *,
    merge: bool = True,
    revision: int | None = None,
) -> MonitoredModel:
    """Change how a model is monitored; returns it as it is then.

    settings: fields of MonitorConfig; None gives a field back to the configuration's value
    merge: whether fields that are not named keep what they have, or fall back as well
    revision: the one that was read, where somebody else's change in between must not be lost (ConflictError)
    """
    allow(principal, "operate")
    with backend.store.database.write() as conn, valid():
        _model(conn, principal, model_id)
        model = model_store.update_settings(
            conn, model_id, settings, backend.config().monitoring, merge=merge, revision=revision
        )
        _noted(backend, principal, "model.settings", model, settings)(conn)
    return model


def enable_model(backend: Backend, principal: Principal, model_id: int, enabled: bool) -> None:
    """Switch the evaluation of a model on or off; its events are recorded all the same.

    Off resolves its incidents: nothing would ever end them, and receivers would be reminded of them for ever.
    """
    allow(principal, "operate")
    with backend.store.database.write() as conn:
        model = _model(conn, principal, model_id)
        if model.enabled != enabled:
            model_store.set_enabled(conn, model_id, enabled)
            _noted(backend, principal, "model.enable" if enabled else "model.disable", model)(conn)
        for incident in () if enabled else incidents.active(conn, model.project_id):
            if incident.model_id == model_id:
                why = "monitoring of the model was switched off"
                outbox.record(conn, incident, lifecycle.act(incident, "resolve", principal.actor, why, backend.now()))


def pin_baseline(backend: Backend, principal: Principal, model_id: int, start: int, end: int, reason: str = "") -> int:
    """Compare a model with the events of [start, end) (unix seconds) from now on; returns the baseline's version."""
    also = _before(backend, principal, model_id, "baseline.pin", {"start": start, "end": end, "reason": reason})
    with valid():
        return baselining.pin(
            context(backend), model_id, start, end, actor=principal.actor, reason=reason or BY_HAND, also=also
        )


def unpin_baseline(backend: Backend, principal: Principal, model_id: int, reason: str = "") -> int:
    """Compare a model with its own recent past again; returns the baseline's version."""
    also = _before(backend, principal, model_id, "baseline.unpin", {"reason": reason})
    with valid(named=False):
        return baselining.unpin(context(backend), model_id, actor=principal.actor, reason=reason or BY_HAND, also=also)


def accept_as_new_normal(backend: Backend, principal: Principal, model_id: int, reason: str = "") -> int:
    """Take a model's current window for normal: its incident resolves and its baseline starts anew from there, and
    slides on; returns the baseline's version."""
    also = _before(backend, principal, model_id, "baseline.accept", {"reason": reason})
    with valid(named=False):
        return baselining.accept(context(backend), model_id, actor=principal.actor, reason=reason or BY_HAND, also=also)


def delete_model(backend: Backend, principal: Principal, model_id: int) -> DeletionReport:
    """Delete a model with everything that is stored of it; returns what was deleted, in counts."""
    also = _before(backend, principal, model_id, "model.delete", {}, "administer")
    return deleting.delete_model(context(backend), model_id, also=also)


def _model(conn: sa.Connection, principal: Principal, model_id: int) -> MonitoredModel:
    model = model_store.model(conn, model_id, principal.project_id)
    if model is None:
        raise NotFoundError(f"there is no model {model_id}")
    return model


def _before(
    backend: Backend,
    principal: Principal,
    model_id: int,
    name: str,
    detail: Mapping[str, Any],
    action: Action = "operate",
) -> Also:
    """Check what a longer step needs before it begins; returns its audit row, to be written with its end."""
    allow(principal, action)
    with backend.store.database.read() as conn:
        model = _model(conn, principal, model_id)
    return _noted(backend, principal, name, model, detail)


def _noted(
    backend: Backend, principal: Principal, action: str, model: MonitoredModel, detail: Mapping[str, Any] | None = None
) -> Also:
    def note(conn: sa.Connection) -> None:
        target, project_id = f"model {model.id} {model.name}", model.project_id
        audit.write(conn, principal, action, target, detail, project_id=project_id, now=backend.now())

    return note
