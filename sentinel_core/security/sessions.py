"""Sessions of people's browsers: a random token in a cookie, of which the store has the hash."""

import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core.storage import schema

IDLE_SECONDS = 8 * 3600.0  # a working day
ABSOLUTE_SECONDS = 7 * 86_400.0
RENEW_SECONDS = 60.0  # a session in use is written to at most so often

_TABLE = schema.sessions


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
    connection.execute(_TABLE.delete().where(_TABLE.c.expires_at <= now))
    session = Session(secrets.token_urlsafe(32), user_id, secrets.token_urlsafe(32), now, now + IDLE_SECONDS)
    row = {"user_id": user_id, "csrf": session.csrf, "created_at": now, "expires_at": session.expires_at}
    connection.execute(_TABLE.insert().values(token_hash=token_hash(session.token), **row))
    return session


def find(connection: sa.Connection, token: str, *, now: float) -> Session | None:
    """Return a session that has not expired."""
    mine = (_TABLE.c.token_hash == token_hash(token)) & (_TABLE.c.expires_at > now)
    row = connection.execute(sa.select(_TABLE).where(mine)).first()
    return None if row is None else Session(token, row.user_id, row.csrf, row.created_at, row.expires_at)


def renew(connection: sa.Connection, session: Session, *, now: float) -> None:
    """Let a session that is used live on, up to its absolute end."""
    mine = _TABLE.c.token_hash == token_hash(session.token)
    connection.execute(_TABLE.update().where(mine).values(expires_at=_expiry(session, now)))


def needs_renewal(session: Session, now: float) -> bool:
    """Whether `renew` would change enough to be worth a write."""
    return _expiry(session, now) - session.expires_at >= RENEW_SECONDS


def _expiry(session: Session, now: float) -> float:
    return min(now + IDLE_SECONDS, session.created_at + ABSOLUTE_SECONDS)


def end(connection: sa.Connection, token: str) -> None:
    """Log out."""
    connection.execute(_TABLE.delete().where(_TABLE.c.token_hash == token_hash(token)))


def end_all(connection: sa.Connection, user_id: int, *, keep: str | None = None) -> None:
    """End a user's sessions, but for the one with this token."""
    mine = _TABLE.c.user_id == user_id
    if keep is not None:
        mine &= _TABLE.c.token_hash != token_hash(keep)
    connection.execute(_TABLE.delete().where(mine))


def token_hash(token: str) -> str:
    """What the store keeps of a random token: 256 random bits need neither salt nor pepper."""
    return hashlib.sha256(token.encode()).hexdigest()
