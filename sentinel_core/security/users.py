"""People: who may log in, and as what. Every function that writes also writes the audit row."""

import re
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError
from sentinel_core.security import audit, sessions, throttle
from sentinel_core.security.principals import ROLES, Principal, Role
from sentinel_core.storage import schema

LINK_SECONDS = 3600.0
LINK_IS_SPENT = (
    "this link is used, too old, or one was printed since, or there is a user already: start `sentinel up` anew for "
    "another one, or run `sentinel users create NAME --role admin` on the machine"
)

_TABLE, _LINKS = schema.users, schema.one_time_links
_SHOWN = [_TABLE.c[name] for name in ("id", "name", "role", "project_id", "created_at", "disabled_at")]
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True)
class User:
    """A person's account; its password is elsewhere."""

    id: int
    name: str
    role: Role
    project_id: int | None  # None: every project
    created_at: float
    disabled_at: float | None

    @property
    def principal(self) -> Principal:
        """What they are once they have logged in."""
        return Principal(self.name, "user", self.project_id, self.role, id=str(self.id))


def create(
    connection: sa.Connection,
    by: Principal,
    *,
    name: str,
    password_hash: str,
    role: str,
    project_id: int | None = None,
    now: float,
) -> int:
    """Add a user; returns the id. InvalidError for a name or role that cannot be, ConflictError for a taken name."""
    problems = {}
    if not _NAME.fullmatch(name := name.strip().lower()):
        problems["name"] = "takes 1 to 64 letters a-z, digits and . _ @ + -, a letter or digit first"
    if role not in ROLES:
        problems["role"] = f"is one of {', '.join(ROLES)}"
    if problems:
        raise InvalidError(problems)
    projects = schema.projects
    if project_id is not None and not connection.scalar(sa.select(projects.c.id).where(projects.c.id == project_id)):
        raise NotFoundError(f"there is no project {project_id}; `sentinel projects list` shows what there is")
    if find(connection, name) is not None:
        raise ConflictError(f"there is a user {name} already; choose another name")
    row = {"name": name, "password_hash": password_hash, "role": role, "project_id": project_id, "created_at": now}
    user_id: int = connection.execute(_TABLE.insert().values(row).returning(_TABLE.c.id)).scalar_one()
    audit.write(connection, by, "user.create", f"user {name}", {"role": role}, project_id=project_id, now=now)
    return user_id


def list_users(connection: sa.Connection) -> list[User]:
    """Return everybody, by name."""
    return [_user(row) for row in connection.execute(sa.select(*_SHOWN).order_by(_TABLE.c.name))]


def get(connection: sa.Connection, user_id: int) -> User:
    """Return a user; NotFoundError where there is none."""
    row = connection.execute(sa.select(*_SHOWN).where(_TABLE.c.id == user_id)).first()
    if row is None:
        raise NotFoundError(f"there is no user {user_id}; `sentinel users list` shows everybody")
    return _user(row)


def find(connection: sa.Connection, name: str) -> User | None:
    """Return a user by name, however it is capitalised."""
    if not _NAME.fullmatch(name := name.strip().lower()):
        return None
    row = connection.execute(sa.select(*_SHOWN).where(_TABLE.c.name == name)).first()
    return None if row is None else _user(row)


def password_hash(connection: sa.Connection, user_id: int) -> str:
    """Return the hash of a user's password."""
    found: str = connection.execute(sa.select(_TABLE.c.password_hash).where(_TABLE.c.id == user_id)).scalar_one()
    return found


def rehash(connection: sa.Connection, user_id: int, before: str, after: str) -> None:
    """Keep another hash of the same password, unless the password was changed meanwhile."""
    mine = (_TABLE.c.id == user_id) & (_TABLE.c.password_hash == before)
    connection.execute(_TABLE.update().where(mine).values(password_hash=after))


def set_password(
    connection: sa.Connection,
    by: Principal,
    user_id: int,
    password_hash: str,
    *,
    keep: str | None = None,
    now: float,
) -> None:
    """Change a password, end every session of the user but the one whose token is `keep`, and forgive wrong guesses."""
    user = get(connection, user_id)
    connection.execute(_TABLE.update().where(_TABLE.c.id == user_id).values(password_hash=password_hash))
    sessions.end_all(connection, user_id, keep=keep)
    throttle.clear(connection, f"user:{user.name}")
    audit.write(connection, by, "user.password", f"user {user.name}", project_id=user.project_id, now=now)


def set_role(connection: sa.Connection, by: Principal, user_id: int, role: str, *, now: float) -> None:
    """Change what a user may do, from their next request on. ConflictError for the last admin."""
    user = get(connection, user_id)
    if role not in ROLES:
        raise InvalidError({"role": f"is one of {', '.join(ROLES)}"})
    if role == user.role:
        return
    if role != "admin":
        _refuse_last_admin(connection, user)
    connection.execute(_TABLE.update().where(_TABLE.c.id == user_id).values(role=role))
    detail = {"before": user.role, "after": role}
    audit.write(connection, by, "user.role", f"user {user.name}", detail, project_id=user.project_id, now=now)


def set_disabled(connection: sa.Connection, by: Principal, user_id: int, disabled: bool, *, now: float) -> None:
    """Let a user in no more, and end their sessions; or let them in again. ConflictError for the last admin."""
    user = get(connection, user_id)
    if disabled == (user.disabled_at is not None):
        return
    if disabled:
        _refuse_last_admin(connection, user)
        sessions.end_all(connection, user_id)
    connection.execute(_TABLE.update().where(_TABLE.c.id == user_id).values(disabled_at=now if disabled else None))
    action = "user.disable" if disabled else "user.enable"
    audit.write(connection, by, action, f"user {user.name}", project_id=user.project_id, now=now)


def exist(connection: sa.Connection) -> bool:
    """Whether there is any user, disabled ones included."""
    return connection.execute(sa.select(_TABLE.c.id).limit(1)).first() is not None


def first_link(connection: sa.Connection, *, now: float) -> str | None:
    """Return the token of a link that makes the first admin: good once, for an hour, and the only one.

    None where there is a user already.
    """
    if exist(connection):
        return None
    token = secrets.token_urlsafe(32)
    connection.execute(_LINKS.delete())
    connection.execute(_LINKS.insert().values(token_hash=sessions.token_hash(token), expires_at=now + LINK_SECONDS))
    return token


def link_is_good(connection: sa.Connection, token: str, *, now: float) -> bool:
    """Whether `create_first` would take this token."""
    mine = (_LINKS.c.token_hash == sessions.token_hash(token)) & (_LINKS.c.expires_at > now)
    return connection.execute(sa.select(_LINKS).where(mine)).first() is not None and not exist(connection)


def create_first(connection: sa.Connection, token: str, *, name: str, password_hash: str, now: float) -> int:
    """Spend a link on the first admin; returns the id. NotFoundError for a link that is spent, old or superseded."""
    if not link_is_good(connection, token, now=now):
        raise NotFoundError(LINK_IS_SPENT)
    connection.execute(_LINKS.delete())
    by = Principal("one-time link", "local", None)
    return create(connection, by, name=name, password_hash=password_hash, role="admin", now=now)


def _refuse_last_admin(connection: sa.Connection, user: User) -> None:
    """ConflictError where nobody would be left who may manage users."""
    others = [other for other in list_users(connection) if other.id != user.id and _governs(other)]
    if _governs(user) and not others:
        raise ConflictError(f"{user.name} is the last admin; make another one first")


def _governs(user: User) -> bool:
    return user.disabled_at is None and user.principal.may("govern")


def _user(row: Any) -> User:
    return User(*row)
