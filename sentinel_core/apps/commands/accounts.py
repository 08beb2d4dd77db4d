"""Keys, users and projects: who may do what."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from sentinel_core.apps.commands.rights import allow, project_of
from sentinel_core.apps.services import Backend
from sentinel_core.errors import InvalidError, NotFoundError, StoreError
from sentinel_core.security import audit, keys, users
from sentinel_core.security.keys import NewKey
from sentinel_core.security.principals import Principal
from sentinel_core.storage import model_store

MAX_NAME = 64  # characters of a project's


def create_key(
    backend: Backend,
    principal: Principal,
    project_id: int | None,
    name: str,
    scopes: Sequence[str],
    *,
    expires_at: float | None = None,
    events_per_second: float | None = None,
) -> NewKey:
    """Make a key of a project, or of every one (None)."""
    allow(principal, "administer" if project_id is not None else "govern")
    with backend.store.database.write() as conn:
        if project_id is not None:
            project_of(conn, principal, project_id)
        key = keys.create(
            conn,
            principal,
            backend.keyring.pepper,
            project_id=project_id,
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            events_per_second=events_per_second,
            now=backend.now(),
        )
    _tell(backend)
    return key


def rotate_key(backend: Backend, principal: Principal, key_id: str, *, overlap_seconds: float = 86_400.0) -> NewKey:
    """Make a key like this one, which goes on being good for a while."""
    allow(principal, "administer")
    with backend.store.database.write() as conn:
        _key(conn, principal, key_id)
        pepper = backend.keyring.pepper
        key = keys.rotate(conn, principal, pepper, key_id, overlap_seconds=overlap_seconds, now=backend.now())
    _tell(backend)
    return key


def revoke_key(backend: Backend, principal: Principal, key_id: str) -> None:
    """End a key at once."""
    allow(principal, "administer")
    with backend.store.database.write() as conn:
        _key(conn, principal, key_id)
        keys.revoke(conn, principal, key_id, now=backend.now())
    _tell(backend)


def _tell(backend: Backend) -> None:
    """Let this process know of the change now; where that fails its ring will within a second, as the others' do."""
    with suppress(StoreError):
        backend.keyring.look()


def _key(conn: sa.Connection, principal: Principal, key_id: str) -> None:
    try:
        if principal.sees(keys.get(conn, key_id).project_id):
            return
    except NotFoundError:
        pass
    raise NotFoundError(f"there is no key {key_id}")  # in the same words, whose ever it is


def create_user(
    backend: Backend, principal: Principal, name: str, password: str, role: str, project_id: int | None = None
) -> int:
    """Add a user of one project, or of all; returns the id."""
    allow(principal, "govern")
    secret = backend.passwords.hash(password)
    with backend.store.database.write() as conn:
        if project_id is not None:
            project_of(conn, principal, project_id)
        return users.create(
            conn, principal, name=name, password_hash=secret, role=role, project_id=project_id, now=backend.now()
        )


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
    allow(principal, "govern")
    secret = None if password is None else backend.passwords.hash(password)
    with backend.store.database.write() as conn:
        users.get(conn, user_id)
        if role is not None:
            users.set_role(conn, principal, user_id, role, now=backend.now())
        if secret is not None:
            users.set_password(conn, principal, user_id, secret, now=backend.now())
        if disabled is not None:
            users.set_disabled(conn, principal, user_id, disabled, now=backend.now())


def create_project(backend: Backend, principal: Principal, name: str, *, monitor_new_models: bool = True) -> int:
    """Add a project; returns its id."""
    allow(principal, "govern")
    name = _project_name(name)
    with backend.store.database.write() as conn:
        project_id = model_store.add_project(conn, name, backend.now(), monitor_new_models=monitor_new_models)
        detail = {"monitor_new_models": monitor_new_models}
        _note_project(backend, conn, principal, "project.create", project_id, name, detail)
    return project_id


def change_project(
    backend: Backend,
    principal: Principal,
    project_id: int,
    *,
    name: str | None = None,
    monitor_new_models: bool | None = None,
) -> None:
    """Change what is given. How new models start is for the project's own admins; its name is the installation's."""
    allow(principal, "administer")
    with backend.store.database.write() as conn:
        project = project_of(conn, principal, project_id)
        if name is not None:
            allow(principal, "govern")
            name = _project_name(name)
        model_store.change_project(conn, project_id, name=name, monitor_new_models=monitor_new_models)
        changes = {"name": name, "monitor_new_models": monitor_new_models}
        detail = {field: value for field, value in changes.items() if value is not None}
        _note_project(backend, conn, principal, "project.change", project_id, project.name, detail)


def _project_name(name: str) -> str:
    if not (name := name.strip()) or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidError({"name": f"takes 1 to {MAX_NAME} printable characters"})
    return name


def _note_project(
    backend: Backend,
    conn: sa.Connection,
    principal: Principal,
    action: str,
    project_id: int,
    name: str,
    detail: Mapping[str, Any],
) -> None:
    target = f"project {project_id} {name}"
    audit.write(conn, principal, action, target, detail, project_id=project_id, now=backend.now())
