"""People: who may log in, and as what. Every function that writes also writes the audit row."""

import re
from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError
from sentinel_core.security import audit, sessions
from sentinel_core.security.principals import ROLES, Principal, Role
from sentinel_core.storage import schema


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
    raise NotImplementedError


def list_users(connection: sa.Connection) -> list[User]:
    """Return everybody, by name."""
    raise NotImplementedError


def get(connection: sa.Connection, user_id: int) -> User:
    """Return a user; NotFoundError where there is none."""
    raise NotImplementedError


def find(connection: sa.Connection, name: str) -> User | None:
    """Return a user by name, however it is capitalised."""
    raise NotImplementedError


def password_hash(connection: sa.Connection, user_id: int) -> str:
    """Return the hash of a user's password."""
    raise NotImplementedError


def set_password(
    connection: sa.Connection,
    by: Principal,
    user_id: int,
    password_hash: str,
    *,
    keep: str | None = None,
    now: float,
) -> None:
    """Change a password and end every session of the user but the one whose token is `keep`."""
    raise NotImplementedError


def set_role(connection: sa.Connection, by: Principal, user_id: int, role: str, *, now: float) -> None:
    """Change what a user may do, from their next request on. ConflictError for the last admin."""
    raise NotImplementedError


def set_disabled(connection: sa.Connection, by: Principal, user_id: int, disabled: bool, *, now: float) -> None:
    """Let a user in no more, and end their sessions; or let them in again. ConflictError for the last admin."""
    raise NotImplementedError


def exist(connection: sa.Connection) -> bool:
    """Whether there is any user, disabled ones included."""
    raise NotImplementedError


def first_link(connection: sa.Connection, *, now: float) -> str | None:
    """Return the token of a link that makes the first admin: good once, for an hour, and the only one.

    None where there is a user already.
    """
    raise NotImplementedError


def link_is_good(connection: sa.Connection, token: str, *, now: float) -> bool:
    """Whether `create_first` would take this token."""
    raise NotImplementedError


def create_first(connection: sa.Connection, token: str, *, name: str, password_hash: str, now: float) -> int:
    """Spend a link on the first admin; returns the id. NotFoundError for a link that is spent, old or superseded."""
    raise NotImplementedError
