"""Everything that changes the store because somebody asked: shared by the JSON API, the pages and the command line.

Each command checks that the principal may do it, does it, and writes the audit row in the same transaction. They block:
call them beside the event loop. All of them raise

- ForbiddenError where the principal's role or scopes do not allow it
- NotFoundError for what is not there, and for what belongs to another project: nobody learns that it exists
- InvalidError for values that cannot be; it names each of them
- ConflictError for what somebody else changed first, a name that is taken, and a step that the state does not allow
- StoreError where the store refuses
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentinel_core.apps.services import Backend
from sentinel_core.security.principals import Principal


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown once: nothing but its hash is stored."""

    id: str
    text: str


@dataclass(frozen=True)
class TestOutcome:
    """What became of a test message."""

    delivered: bool
    detail: str


# ---- incidents -------------------------------------------------------------------------------------------------------


def change_incident(backend: Backend, principal: Principal, incident_id: int, action: str, reason: str) -> None:
    """Move an incident on: `action` is acknowledge, resolve, close or accept (as the new normal)."""
    raise NotImplementedError


def resend_delivery(backend: Backend, principal: Principal, delivery_id: int) -> None:
    """Owe a dead alert once more, from now."""
    raise NotImplementedError


# ---- models ----------------------------------------------------------------------------------------------------------


def change_settings(
    backend: Backend,
    principal: Principal,
    model_id: int,
    settings: Mapping[str, Any],
    *,
    merge: bool = True,
    revision: int | None = None,
) -> int:
    """Change how a model is monitored; returns the new revision.

    settings: fields of MonitorConfig; None gives a field back to the configuration's value
    merge: whether fields that are not named keep what they have, or fall back as well
    revision: the one that was read, where somebody else's change in between must not be lost (ConflictError)
    """
    raise NotImplementedError


def enable_model(backend: Backend, principal: Principal, model_id: int, enabled: bool) -> None:
    """Switch the evaluation of a model on or off; its events are recorded all the same."""
    raise NotImplementedError


def pin_baseline(backend: Backend, principal: Principal, model_id: int, start: int, end: int, reason: str) -> int:
    """Compare a model with the events of [start, end) (unix seconds) from now on; returns the baseline's version."""
    raise NotImplementedError


def accept_as_new_normal(backend: Backend, principal: Principal, model_id: int, reason: str) -> int:
    """Start a model's baseline anew from its current window, from where it slides on; returns its version."""
    raise NotImplementedError


def delete_model(backend: Backend, principal: Principal, model_id: int) -> Mapping[str, int]:
    """Delete a model with everything that is stored of it; returns what was deleted, in counts."""
    raise NotImplementedError


# ---- receivers -------------------------------------------------------------------------------------------------------


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
    raise NotImplementedError


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
    raise NotImplementedError


def remove_receiver(backend: Backend, principal: Principal, receiver_id: int) -> None:
    """Remove a receiver with its deliveries."""
    raise NotImplementedError


def test_receiver(backend: Backend, principal: Principal, receiver_id: int) -> TestOutcome:
    """Send a test message now, and say what became of it."""
    raise NotImplementedError


# ---- keys, users, projects -------------------------------------------------------------------------------------------


def create_key(
    backend: Backend,
    principal: Principal,
    project_id: int,
    name: str,
    scopes: Sequence[str],
    *,
    expires_at: float | None = None,
    events_per_second: float | None = None,
) -> NewKey:
    """Make a key of a project."""
    raise NotImplementedError


def rotate_key(backend: Backend, principal: Principal, key_id: str, *, overlap_seconds: float = 86_400.0) -> NewKey:
    """Make a key like this one, which goes on being good for a while."""
    raise NotImplementedError


def revoke_key(backend: Backend, principal: Principal, key_id: str) -> None:
    """End a key at once."""
    raise NotImplementedError


def create_user(
    backend: Backend, principal: Principal, name: str, password: str, role: str, project_id: int | None = None
) -> int:
    """Add a user of one project, or of all; returns the id."""
    raise NotImplementedError


def change_user(
    backend: Backend,
    principal: Principal,
    user_id: int,
    *,
    role: str | None = None,
    password: str | None = None,
    disabled: bool | None = None,
) -> None:
    """Change what is given; a new password and disabling end the user's sessions."""
    raise NotImplementedError


def create_project(backend: Backend, principal: Principal, name: str, *, monitor_new_models: bool = True) -> int:
    """Add a project; returns its id."""
    raise NotImplementedError


def change_project(
    backend: Backend,
    principal: Principal,
    project_id: int,
    *,
    name: str | None = None,
    monitor_new_models: bool | None = None,
) -> None:
    """Change what is given."""
    raise NotImplementedError
