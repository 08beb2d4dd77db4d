"""Who changed what: a row for every write, in the write's own transaction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sentinel_core.security.principals import Principal
from sentinel_core.storage import schema

_TABLE = schema.audit_log


@dataclass(frozen=True)
class Entry:
    """One change."""

    id: int
    at: float
    actor: str
    project_id: int | None  # of what was changed; None: the installation
    action: str
    target: str
    detail: Mapping[str, Any]


def write(
    connection: sa.Connection,
    principal: Principal,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
    *,
    project_id: int | None,
    now: float,
) -> None:
    """Note a change in the transaction that makes it.

    action: what was done, as "key.create"
    detail: JSON-able, without secrets
    project_id: of what was changed; None: the installation
    """
    row = {"at": now, "actor": principal.actor, "project_id": project_id, "action": action, "target": target[:200]}
    connection.execute(_TABLE.insert().values(detail=json.dumps(dict(detail or {}), ensure_ascii=False), **row))


def entries(
    connection: sa.Connection, project_id: int | None = None, *, before: int | None = None, limit: int = 100
) -> list[Entry]:
    """Return changes, newest first: of one project, or of everything (None); before an id where one is given."""
    query = sa.select(_TABLE).order_by(_TABLE.c.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(_TABLE.c.project_id == project_id)
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    rows = connection.execute(query)
    return [Entry(r.id, r.at, r.actor, r.project_id, r.action, r.target, json.loads(r.detail)) for r in rows]


def forget(connection: sa.Connection, before: float) -> int:
    """Delete what is older; returns how many."""
    return connection.execute(_TABLE.delete().where(_TABLE.c.at < before)).rowcount
