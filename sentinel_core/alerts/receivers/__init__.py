"""Where alerts go: one kind of receiver per file, all behind one door.

| kind | settings |
|---|---|
| `slack` | `url` of an incoming webhook (secret) |
| `webhook` | `url`; `secret`: "whsec_" and base64, for the Standard Webhooks signature (secret) |
| `alertmanager` | `url`; `labels`, added to each alert; `bearer_token` (secret) |
| `apprise` | `url`, as Apprise writes them (secret) |
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import sqlalchemy as sa

from sentinel_core import validation
from sentinel_core.alerts.addresses import Addresses, endpoint
from sentinel_core.alerts.message import test_alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers.alertmanager import Alertmanager
from sentinel_core.alerts.receivers.apprise import Apprise
from sentinel_core.alerts.receivers.base import Receiver
from sentinel_core.alerts.receivers.slack import Slack
from sentinel_core.alerts.receivers.webhook import Webhook
from sentinel_core.config import SentinelConfig
from sentinel_core.errors import ConflictError, DeliveryError, InvalidError, NotFoundError
from sentinel_core.storage import schema
from sentinel_core.storage.statements import insert_or

KINDS: Mapping[str, type[Receiver]] = {
    "slack": Slack,
    "webhook": Webhook,
    "alertmanager": Alertmanager,
    "apprise": Apprise,
}
MASK = "********"  # what is shown of a secret
SEVERITIES = ("warn", "critical")
MAX_NAME = 64  # characters
_table = schema.receivers


@dataclass(frozen=True)
class ReceiverRow:
    """A stored receiver; its `settings` hold secrets: show `shown(kind, settings)` instead."""

    id: int
    project_id: int
    name: str
    kind: str
    settings: Mapping[str, Any]
    min_severity: str  # warn | critical
    enabled: bool
    created_at: float


# ---- settings --------------------------------------------------------------------------------------------------------


def build(kind: str, settings: Mapping[str, Any]) -> Receiver:
    """A receiver out of its settings; InvalidError names what is unknown, missing or of another type."""
    if kind not in KINDS:
        raise InvalidError({"kind": f"{kind!r} is none; there are {', '.join(KINDS)}"})
    model = KINDS[kind]
    known = msgspec.structs.fields(model)
    names = [field.name for field in known]
    problems = {
        f"settings.{field.name}": "is missing" for field in known if field.required and field.name not in settings
    }
    for name in settings.keys() - set(names):
        problems[f"settings.{name}"] = validation.unknown_field("", name, names).removeprefix(": ")
    if problems:
        raise InvalidError(problems)
    try:
        return msgspec.convert(settings, model)
    except msgspec.ValidationError as error:  # "Expected `str`, got `int` - at `$.url`"
        problem, _, where = str(error).partition(" - at `$.")
        raise InvalidError({f"settings.{where.rstrip('`')}": problem}) from None


def checked(
    kind: str, settings: Mapping[str, Any], config: SentinelConfig, *, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Validate settings, resolve and check their addresses; returns them as they are stored.

    Does network I/O: call it before a write transaction, never in it. InvalidError names each problem.

    before: the stored settings, where they are changed: a secret that comes back masked stays what it was
    """
    kept = {name: value for name, value in (before or {}).items() if settings.get(name) == MASK}
    whole = {**settings, **kept}
    receiver = build(kind, whole)
    problems = dict(receiver.problems())
    addresses = Addresses(config.alert_networks)
    for name, url in receiver.urls().items():
        try:
            addresses.resolve(*endpoint(url))
        except (ValueError, DeliveryError) as error:
            problems[name] = str(error)
    if problems:
        raise InvalidError({f"settings.{name}": problem for name, problem in problems.items()})
    return whole


def shown(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their secrets masked, as they may be shown."""
    secrets = KINDS[kind].SECRETS if kind in KINDS else tuple(settings)
    return {name: MASK if name in secrets and value is not None else value for name, value in settings.items()}


# ---- rows ------------------------------------------------------------------------------------------------------------


def list_receivers(connection: sa.Connection, project_id: int | None = None) -> list[ReceiverRow]:
    """Return the receivers of a project (None: of all), by name."""
    query = _select().order_by(_table.c.name, _table.c.id)
    if project_id is not None:
        query = query.where(_table.c.project_id == project_id)
    return [_row(row) for row in connection.execute(query)]


def get(connection: sa.Connection, receiver_id: int, project_id: int | None = None) -> ReceiverRow:
    """Return one receiver; NotFoundError where there is none, or where it is another project's."""
    query = _select().where(_table.c.id == receiver_id)
    if project_id is not None:
        query = query.where(_table.c.project_id == project_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotFoundError(f"there is no receiver {receiver_id}")
    return _row(row)


def named(connection: sa.Connection, project_id: int, name: str) -> ReceiverRow:
    """Return the receiver of a project by name; NotFoundError names the ones there are."""
    mine = list_receivers(connection, project_id)
    for receiver in mine:
        if receiver.name == name:
            return receiver
    known = ", ".join(receiver.name for receiver in mine) or "none"
    raise NotFoundError(f"there is no receiver called {name!r}; there are: {known}")


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
    _check(name, min_severity)
    values = {"project_id": project_id, "name": name, "kind": kind, "settings": json.dumps(dict(settings))}
    insert = insert_or(connection, _table).values(**values, min_severity=min_severity, enabled=enabled, created_at=now)
    receiver_id: int | None = connection.scalar(insert.on_conflict_do_nothing().returning(_table.c.id))
    if receiver_id is None:
        raise _taken(name)
    return receiver_id


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
    before = get(connection, receiver_id)
    _check(before.name if name is None else name, before.min_severity if min_severity is None else min_severity)
    if name is not None and name != before.name:
        taken = sa.select(_table.c.id).where(_table.c.project_id == before.project_id, _table.c.name == name)
        if connection.scalar(taken) is not None:
            raise _taken(name)
    given = {
        "name": name,
        "settings": None if settings is None else json.dumps(dict(settings)),
        "min_severity": min_severity,
        "enabled": enabled,
    }
    values = {column: value for column, value in given.items() if value is not None}
    if values:
        connection.execute(_table.update().where(_table.c.id == receiver_id).values(**values))


def remove(connection: sa.Connection, receiver_id: int) -> int:
    """Remove a receiver and its deliveries; returns how many of them were still owed."""
    deliveries = schema.deliveries
    mine = deliveries.c.receiver_id == receiver_id
    pending = sa.select(sa.func.count()).select_from(deliveries).where(mine, deliveries.c.state == "pending")
    owed = connection.execute(pending).scalar_one()
    connection.execute(deliveries.delete().where(mine))
    connection.execute(_table.delete().where(_table.c.id == receiver_id))
    return int(owed)


def _taken(name: str) -> ConflictError:
    return ConflictError(f"there is a receiver called {name!r} already; choose another name")


def _check(name: str, min_severity: str) -> None:
    problems = {}
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        problems["name"] = f"write 1 to {MAX_NAME} visible characters"
    if min_severity not in SEVERITIES:
        problems["min_severity"] = f"{min_severity!r} is none; write {' or '.join(SEVERITIES)}"
    if problems:
        raise InvalidError(problems)


def _select() -> sa.Select[Any]:
    return sa.select(*(_table.c[field.name] for field in fields(ReceiverRow)))


def _row(row: sa.Row[Any]) -> ReceiverRow:
    values = dict(row._mapping)
    return ReceiverRow(**{**values, "settings": json.loads(values["settings"])})


# ---- test ------------------------------------------------------------------------------------------------------------


def test(receiver: ReceiverRow, config: SentinelConfig, now: float) -> str:
    """Send a test alert at once; returns what the receiver said. DeliveryError where it did not take it.

    Blocks for as long as the receiver takes: call it beside the event loop.
    """

    async def send() -> str:
        async with Post(Addresses(config.alert_networks), lambda: now) as post:
            alert = test_alert(f"project {receiver.project_id}", receiver.name, config.public_url, now)
            return await build(receiver.kind, receiver.settings).send(alert, post)

    return asyncio.run(send())
