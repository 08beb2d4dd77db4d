"""API keys: `sml_live_<id>_<256 bits>`, made, rotated and revoked in SQL, recognised in RAM.

The id is public, and finds the row; the rest is compared by a peppered HMAC-SHA256 (10 µs: 256 random bits need no
slow hash, passwords do) and stored nowhere.
"""

import asyncio
import hmac
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError, StoreError
from sentinel_core.security import audit
from sentinel_core.security.principals import SCOPES, Principal, Scope
from sentinel_core.security.secret import VARIABLE, Pepper
from sentinel_core.storage import schema
from sentinel_core.storage.store import Store

PREFIX = "sml_live_"
LOOK_SECONDS = 0.5  # a revocation elsewhere is in force within a second
NOTE_SECONDS = 60.0  # how exact `last_used_at` is
MAX_NAME = 64
MAX_OVERLAP_SECONDS = 90 * 86_400
STALE_SECONDS = 60.0  # a store that cannot be asked for so long may have revoked any key

_TABLE = schema.api_keys
_COLUMNS = ("id", "hash", "expires_at", "project_id", "name", "scopes", "events_per_second")
_RECOGNISED = [_TABLE.c[name] for name in _COLUMNS]
_ID = re.compile(r"[0-9a-f]{16}")
_FORM = re.compile(rf"{PREFIX}({_ID.pattern})_([0-9a-f]{{64}})")


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown once: nothing but its hash is stored."""

    id: str
    text: str


@dataclass(frozen=True)
class Key:
    """A key as it may be shown. Times are unix seconds."""

    id: str
    project_id: int | None  # None: every one
    name: str
    scopes: frozenset[Scope]
    events_per_second: float | None  # None: the configured default
    created_by: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    pepper: str  # the mark of the one it was hashed with

    def state(self, now: float) -> str:
        """live | expired | revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.expires_at is None or now < self.expires_at else "expired"


def create(
    connection: sa.Connection,
    by: Principal,
    pepper: Pepper,
    *,
    project_id: int | None,
    name: str,
    scopes: Sequence[str],
    expires_at: float | None = None,
    events_per_second: float | None = None,
    now: float,
) -> NewKey:
    """Make a key of a project, with its audit row; InvalidError names every value that cannot be.

    project_id: None: of every project, to read only, as events and what an admin changes belong to one
    """
    problems = {}
    if not (name := name.strip()) or len(name) > MAX_NAME or not name.isprintable():
        problems["name"] = f"takes 1 to {MAX_NAME} printable characters"
    if not scopes or set(scopes) - set(SCOPES):
        problems["scopes"] = f"names at least one of {', '.join(SCOPES)}, and nothing else"
    elif project_id is None and set(scopes) != {"read"}:
        problems["scopes"] = "of a key of every project is read, and nothing else"
    if expires_at is not None and not now < expires_at < math.inf:
        problems["expires_at"] = "has to lie in the future"
    if events_per_second is not None and not 0 < events_per_second < math.inf:
        problems["events_per_second"] = "has to be more than 0"
    if problems:
        raise InvalidError(problems)
    projects = schema.projects
    known = sa.select(projects.c.id).where(projects.c.id == project_id)
    if project_id is not None and connection.execute(known).first() is None:
        raise NotFoundError(f"there is no project {project_id}; `sentinel projects list` shows what there is")
    ordered = ",".join(scope for scope in SCOPES if scope in scopes)
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    row = {
        "id": key_id,
        "project_id": project_id,
        "name": name,
        "hash": pepper.digest("key", secret),
        "pepper": pepper.mark,
        "scopes": ordered,
        "events_per_second": events_per_second,
        "created_by": by.actor,
        "created_at": now,
        "expires_at": expires_at,
    }
    connection.execute(_TABLE.insert().values(row))
    detail = {"name": name, "scopes": ordered, "expires_at": expires_at, "events_per_second": events_per_second}
    audit.write(connection, by, "key.create", f"key {key_id}", detail, project_id=project_id, now=now)
    return NewKey(key_id, f"{PREFIX}{key_id}_{secret}")


def rotate(
    connection: sa.Connection, by: Principal, pepper: Pepper, key_id: str, *, overlap_seconds: float, now: float
) -> NewKey:
    """Make a key like this one, which stays good for `overlap_seconds`; with its audit row.

    A key with an expiry gets a successor that lives as long as it was to. NotFoundError, and ConflictError for a key
    that is not live.
    """
    old = get(connection, key_id)
    if (state := old.state(now)) != "live":
        raise ConflictError(f"key {key_id} ({old.name}) is {state}; create a new one")
    if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
        raise InvalidError({"overlap": f"is between nothing and {MAX_OVERLAP_SECONDS // 86_400} days"})
    fresh = create(
        connection,
        by,
        pepper,
        project_id=old.project_id,
        name=old.name,
        scopes=sorted(old.scopes),
        expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
        events_per_second=old.events_per_second,
        now=now,
    )
    until = min(now + overlap_seconds, math.inf if old.expires_at is None else old.expires_at)
    connection.execute(_TABLE.update().where(_TABLE.c.id == key_id).values(expires_at=until))
    detail = {"name": old.name, "successor": fresh.id, "good_until": until}
    audit.write(connection, by, "key.rotate", f"key {key_id}", detail, project_id=old.project_id, now=now)
    return fresh


def revoke(connection: sa.Connection, by: Principal, key_id: str, *, now: float) -> None:
    """End a key, with its audit row; one that is revoked already stays so. NotFoundError where there is none."""
    key = get(connection, key_id)
    if key.revoked_at is None:
        connection.execute(_TABLE.update().where(_TABLE.c.id == key_id).values(revoked_at=now))
        audit.write(
            connection, by, "key.revoke", f"key {key_id}", {"name": key.name}, project_id=key.project_id, now=now
        )


def get(connection: sa.Connection, key_id: str) -> Key:
    """Return a key by its id; NotFoundError where there is none."""
    row = connection.execute(sa.select(_TABLE).where(_TABLE.c.id == key_id)).first() if _ID.fullmatch(key_id) else None
    if row is None:
        raise NotFoundError(f"there is no key {key_id}; `sentinel keys list` shows what there is")
    return _key(row)


def list_keys(connection: sa.Connection, project_id: int | None = None) -> list[Key]:
    """Return the keys of a project, or all (None), oldest first."""
    query = sa.select(_TABLE).order_by(_TABLE.c.created_at, _TABLE.c.id)
    if project_id is not None:
        query = query.where(_TABLE.c.project_id == project_id)
    return [_key(row) for row in connection.execute(query)]


def lost(connection: sa.Connection, pepper: Pepper, *, now: float) -> str | None:
    """Say which live keys cannot be recognised, as they were hashed with another pepper; None where there is none."""
    every = list_keys(connection)
    names = sorted(key.name for key in every if key.state(now) == "live" and key.pepper != pepper.mark)
    if not names:
        return None
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"{len(names)} key{'s were' if len(names) > 1 else ' was'} made with another secret, and nobody can use "
        f"{'them' if len(names) > 1 else 'it'} any more ({shown}): bring back the ${VARIABLE} or the secret.key of "
        "then, or rotate them"
    )


def _key(row: Any) -> Key:
    values = {entry.name: getattr(row, entry.name) for entry in fields(Key)}
    return Key(**{**values, "scopes": frozenset(row.scopes.split(","))})


class KeyRing:
    """Recognises keys without asking the store; a thread keeps it no more than a second behind.

    After a change of keys in this process call `look`, and it is in force.
    """

    def __init__(self, store: Store, pepper: Pepper, now: Callable[[], float] = time.time) -> None:
        self.pepper = pepper
        self._database = store.database
        self._now = now
        self._rows: Sequence[Any] = ()
        self._known: dict[str, tuple[str, float, Principal]] = {}  # id -> hash, expiry, whose
        self._used: dict[str, float] = {}  # id -> when, not yet written down
        self._looking = threading.Lock()
        self._token: int | None = None  # of the store, when the keys were read
        self._looked_at = -math.inf  # monotonic
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the keys, and follow the store until `close`."""
        self.look()
        self._thread = threading.Thread(target=self._follow, name="sentinel-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following, and write down what was used last."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreError):
            self._note()

    def authenticate(self, text: str) -> Principal | None:
        """Whose key this is; None for what is unknown, expired, revoked or no key at all. From RAM (10 µs), any thread.

        It knows no key that another process has just made: see `recognise`. Raises StoreError where the store has not
        answered for a minute: any key may have been revoked since.
        """
        if time.monotonic() - self._looked_at > STALE_SECONDS:
            raise StoreError(
                "keys cannot be checked, as the store has not answered for a minute; see the sidecar's log"
            )
        form = _FORM.fullmatch(text)
        key_id, secret = form.groups() if form else ("", text[:64])
        expected, expires_at, principal = self._known.get(key_id, _NOBODYS)
        same = hmac.compare_digest(self.pepper.digest("key", secret), expected)
        now = self._now()
        if not same or now >= expires_at:
            return None
        self._used[key_id] = now
        return principal

    async def recognise(self, text: str) -> Principal | None:
        """As `authenticate`, but a look comes before a refusal: the key may be younger than what the ring knows."""
        principal = self.authenticate(text)
        if principal is None:
            await asyncio.to_thread(self.look)
            principal = self.authenticate(text)
        return principal

    def look(self) -> None:
        """Read the keys where anything has changed in the store; blocks. StoreError where it does not answer."""
        asked = time.monotonic()
        with self._looking:
            if self._looked_at > asked:  # somebody began to while we queued
                return
            began = time.monotonic()
            token = self._database.change_token()  # before the keys: at worst they are read twice
            if token != self._token:
                self._read()
                self._token = token
            self._looked_at = began

    def _read(self) -> None:
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*_RECOGNISED).where(_TABLE.c.revoked_at.is_(None))).all()
        if rows != self._rows:  # mostly it was something else that changed in the store
            self._rows = rows
            self._known = {row.id: (row.hash, row.expires_at or math.inf, _principal(row)) for row in rows}

    def _follow(self) -> None:
        noted = time.monotonic()
        while not self._ending.wait(LOOK_SECONDS):
            # A store that refuses may come back; until then keys hold for a minute.
            with suppress(StoreError, sa.exc.SQLAlchemyError):
                self.look()
                if time.monotonic() - noted >= NOTE_SECONDS:
                    noted = time.monotonic()
                    self._note()

    def _note(self) -> None:
        used, self._used = self._used, {}
        rows = [{"key": key_id, "at": at} for key_id, at in list(used.items())]
        if not rows:
            return
        last = sa.func.coalesce(_TABLE.c.last_used_at, 0)
        mine = (_TABLE.c.id == sa.bindparam("key")) & (last < sa.bindparam("at"))
        with self._database.write() as connection:
            connection.execute(_TABLE.update().where(mine).values(last_used_at=sa.bindparam("at")), rows)


def _principal(row: Any) -> Principal:
    scopes, rate = frozenset(row.scopes.split(",")), row.events_per_second
    return Principal(row.name, "key", row.project_id, scopes=scopes, id=row.id, events_per_second=rate)


# Compared with where there is no such key, so that this takes as long as with one.
_NOBODYS = ("0" * 64, -math.inf, Principal("nobody", "key", None))
