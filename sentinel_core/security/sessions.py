"""Sessions of people's browsers: a random token in a cookie, of which the store has the hash."""

from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core.storage import schema

IDLE_SECONDS = 8 * 3600.0  # a working day
ABSOLUTE_SECONDS = 7 * 86_400.0
RENEW_SECONDS = 60.0  # a session in use is written to at most so often


@dataclass(frozen=True)
class Session:
    """A login.

    token: what the cookie holds
    csrf:  what a form of this session holds besides
    """

    token: str
    user_id: int
    csrf: str
    created_at: float
    expires_at: float  # unless it is used before


def open_session(connection: sa.Connection, user_id: int, *, now: float) -> Session:
    """Log a user in, with a fresh token; forgets what has expired."""
    raise NotImplementedError


def find(connection: sa.Connection, token: str, *, now: float) -> Session | None:
    """Return a session that has not expired."""
    raise NotImplementedError


def renew(connection: sa.Connection, session: Session, *, now: float) -> None:
    """Let a session that is used live on, up to its absolute end."""
    raise NotImplementedError


def needs_renewal(session: Session, now: float) -> bool:
    """Whether `renew` would change enough to be worth a write."""
    raise NotImplementedError


def end(connection: sa.Connection, token: str) -> None:
    """Log out."""
    raise NotImplementedError


def end_all(connection: sa.Connection, user_id: int, *, keep: str | None = None) -> None:
    """End a user's sessions, but for the one with this token."""
    raise NotImplementedError
