"""Where alerts go: one kind of receiver per file, all behind one door.

| kind | settings |
|---|---|
| `slack` | `url` of an incoming webhook (secret) |
| `webhook` | `url`, `secret` ("whsec_…", for the Standard Webhooks signature; secret) |
| `alertmanager` | `url`, `labels` (added to each alert), `bearer_token` (secret) |
| `apprise` | `urls`, as Apprise writes them (secret) |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sentinel_core.config import SentinelConfig

KINDS: tuple[str, ...] = ("slack", "webhook", "alertmanager", "apprise")


@dataclass(frozen=True)
class ReceiverRow:
    """A stored receiver; `settings` hold secrets: show `shown(kind, settings)` instead."""

    id: int
    project_id: int
    name: str
    kind: str
    settings: Mapping[str, Any]
    min_severity: str  # warn | critical
    enabled: bool
    created_at: float


def shown(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their secrets masked, as they may be shown."""
    raise NotImplementedError


def list_receivers(connection: sa.Connection, project_id: int | None = None) -> list[ReceiverRow]:
    """Return the receivers of a project (None: of all), by name."""
    raise NotImplementedError


def get(connection: sa.Connection, receiver_id: int, project_id: int | None = None) -> ReceiverRow:
    """Return one receiver; NotFoundError where there is none, or where it is another project's."""
    raise NotImplementedError


def named(connection: sa.Connection, project_id: int, name: str) -> ReceiverRow:
    """Return the receiver of a project by name; NotFoundError names the ones there are."""
    raise NotImplementedError


def checked(
    kind: str, settings: Mapping[str, Any], config: SentinelConfig, *, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Validate settings, resolve and check their addresses; returns them as they are stored.

    Does network I/O: call it before a write transaction, never in it. InvalidError names each problem.

    before: the stored settings, where they are changed: a secret that comes back masked stays what it was
    """
    raise NotImplementedError


def add(
    connection: sa.Connection,
    project_id: int,
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    now: float,
    *,
    min_severity: str = "warn",
    enabled: bool = True,
) -> int:
    """Add a receiver with `checked` settings; returns its id. InvalidError, ConflictError where the name is taken."""
    raise NotImplementedError


def change(
    connection: sa.Connection,
    receiver_id: int,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    min_severity: str | None = None,
    enabled: bool | None = None,
) -> None:
    """Change what is given (settings: `checked`); raises as `add` does."""
    raise NotImplementedError


def remove(connection: sa.Connection, receiver_id: int) -> int:
    """Remove a receiver and its deliveries; returns how many of them were still owed."""
    raise NotImplementedError


def test(receiver: ReceiverRow, config: SentinelConfig, now: float) -> str:
    """Send a test alert at once; returns what the receiver said. DeliveryError where it did not take it."""
    raise NotImplementedError
