"""API keys: `sml_live_<id>_<256 bits>`, made, rotated and revoked in SQL, recognised in RAM.

The id is public, and finds the row; the rest is compared by a peppered HMAC-SHA256 (10 µs: 256 random bits need no
slow hash, passwords do) and stored nowhere.
"""

import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError, StoreError
from sentinel_core.security import audit
from sentinel_core.security.principals import SCOPES, Principal, Scope
from sentinel_core.security.secret import Pepper
from sentinel_core.storage import schema
from sentinel_core.storage.store import Store

PREFIX = "sml_live_"
LOOK_SECONDS = 0.5  # a revocation elsewhere is in force within a second
NOTE_SECONDS = 60.0  # how exact `last_used_at` is
STALE_SECONDS = 60.0  # a store that cannot be asked for so long may have revoked any key

_TABLE = schema.api_keys
_FORM = re.compile(r"sml_live_([0-9a-f]{16})_([0-9a-f]{64})")
_NOBODYS = "0" * 64  # compared with where there is no such key, so that this takes as long


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown once: nothing but its hash is stored."""

    id: str
    text: str


@dataclass(frozen=True)
class Key:
    """A key as it may be shown. Times are unix seconds."""

    id: str
    project_id: int
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
    project_id: int,
    name: str,
    scopes: Sequence[str],
    expires_at: float | None = None,
    events_per_second: float | None = None,
    now: float,
) -> NewKey:
    """Make a key of a project, with its audit row; InvalidError names every value that cannot be."""
    raise NotImplementedError


def rotate(
    connection: sa.Connection, by: Principal, pepper: Pepper, key_id: str, *, overlap_seconds: float, now: float
) -> NewKey:
    """Make a key like this one, which stays good for `overlap_seconds`; with its audit row.

    A key with an expiry gets a successor that lives as long as it was to. NotFoundError, and ConflictError for a key
    that is not live.
    """
    raise NotImplementedError


def revoke(connection: sa.Connection, by: Principal, key_id: str, *, now: float) -> None:
    """End a key, with its audit row; one that is revoked already stays so. NotFoundError where there is none."""
    raise NotImplementedError


def get(connection: sa.Connection, key_id: str) -> Key:
    """Return a key by its id; NotFoundError where there is none."""
    raise NotImplementedError


def list_keys(connection: sa.Connection, project_id: int | None = None) -> list[Key]:
    """Return the keys of a project, or all (None), oldest first."""
    raise NotImplementedError


class KeyRing:
    """Recognises keys without asking the store; a thread keeps it no more than a second behind.

    After a change of keys in this process call `look`, and it is in force.
    """

    def __init__(self, store: Store, pepper: Pepper, now: Callable[[], float] = time.time) -> None:
        self.pepper = pepper

    def start(self) -> None:
        """Read the keys, and follow the store until `close`."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop following, and write down what was used last."""
        raise NotImplementedError

    def authenticate(self, text: str) -> Principal | None:
        """Whose key this is; None for what is unknown, expired, revoked or no key at all. From RAM (10 µs), any thread.

        Where None comes back, `look` and ask again: the key may be younger than the ring's knowledge.
        Raises StoreError where the store has not answered for a minute: any key may have been revoked since.
        """
        raise NotImplementedError

    def look(self) -> None:
        """Read the keys where anything has changed in the store; blocks. StoreError where it does not answer."""
        raise NotImplementedError
