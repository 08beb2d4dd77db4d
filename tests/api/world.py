"""Two projects that look the same, with everything that a project can have, behind a running sidecar."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from argon2 import PasswordHasher

from sentinel_core.alerts import outbox, receivers
from sentinel_core.apps import sidecar
from sentinel_core.config import SentinelConfig
from sentinel_core.incidents import lifecycle
from sentinel_core.monitoring.assessment import Assessment, BinShare, OutputAssessment
from sentinel_core.monitoring.histograms import Bins
from sentinel_core.monitoring.monitor import State
from sentinel_core.pipeline.windowing import Content
from sentinel_core.security import keys, sessions, users
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.storage import model_store, schema
from sentinel_core.storage.store import Store
from tests.apps.server import running

NOW = 1_800_000_000
HOUR = 3600
PEPPER = Pepper(b"of the tests of the API" * 2)
TEST = command_line("test")
MODEL = "fraud-model"  # each project has one that is called so
SLACK = "https://hooks.slack.example/services/T000/B000/secret"
PASSWORD = "several words are good"
CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class Tenant:
    """The ids of what one project has."""

    project: int
    model: int
    incident: int
    receiver: int
    delivery: int
    key: str = ""
    keys: dict[str, str] = field(default_factory=dict)  # scope -> key

    def path(self, template: str) -> str:
        """A path of the document with this project's ids in it."""
        return template.format(
            model_id=self.model,
            incident_id=self.incident,
            receiver_id=self.receiver,
            delivery_id=self.delivery,
            key_id=self.key,
            project_id=self.project,
            user_id=1,
        )


@dataclass
class World:
    """A store with two tenants, and who may ask."""

    config: SentinelConfig
    store: Store
    mine: Tenant
    theirs: Tenant
    callers: dict[str, dict[str, str]]  # kind of principal -> headers
    client: httpx.Client

    def ask(self, caller: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send a request as one of the callers."""
        sent = self.callers[caller] | headers
        return (
            self.client.request(method, path, json=body, headers=sent)
            if body is not None
            else self.client.request(method, path, headers=sent)
        )

    def audited(self) -> list[str]:
        """Actions in the audit log, oldest first."""
        with self.store.database.read() as conn:
            return list(conn.scalars(sa.select(schema.audit_log.c.action).order_by(schema.audit_log.c.id)))


def assessment(state: State = State.CRITICAL, hour: int = NOW) -> Assessment:
    """An evaluation of a model with one output."""
    bins = (BinShare("up to 0.5", 0.7, 0.4, 0.17), BinShare("above 0.5", 0.3, 0.6, 0.21))
    numbers = {"psi": 0.4, "adjusted": 0.38, "lower": 0.3, "upper": 0.5, "floor": 0.02, "limit": 0.05, "p": 1e-9}
    output = OutputAssessment("score", state, **numbers, phi=1.0, n_baseline=5000, n_current=480, days=1, bins=bins)
    return Assessment(state, hour, 1, False, False, False, (output,))


@contextmanager
def open_world(folder: Path, sql_url: str | None = None) -> Iterator[World]:
    """A world on a store of its own, served."""
    config = SentinelConfig(artifact_store=str(folder), sql_url=sql_url)
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        store.database.migrate()
        with store.database.write() as conn:
            other = model_store.add_project(conn, "other", NOW)
            mine, theirs = (_tenant(conn, project) for project in (model_store.DEFAULT_PROJECT, other))
            callers = _callers(conn, config, mine, theirs)
        app = sidecar.create_app(config, store, status=lambda _: {}, now=lambda: NOW + 60.0, pepper=PEPPER)
        with running(app) as client:
            client.headers["host"] = "localhost"
            client.timeout = httpx.Timeout(30)
            yield World(config, store, mine, theirs, callers, client)


def _tenant(conn: sa.Connection, project: int) -> Tenant:
    model = model_store.register(conn, [(project, MODEL)], NOW)[project, MODEL]
    conn.execute(
        schema.monitor_states.insert().values(
            model_id=model.id, hour=NOW, state="critical", assessment=assessment().to_json()
        )
    )
    conn.execute(
        schema.baselines.insert().values(
            model_id=model.id,
            version=1,
            kind="sliding",
            t0=NOW - 168 * HOUR,
            t1=NOW - 24 * HOUR,
            bins=Content({0: Bins("numeric", edges=(0.5,))}, 10, HOUR, 6).to_json(),
            actor="sentinel",
            reason="the first one",
            created_at=NOW,
        )
    )
    receiver = receivers.add(conn, project, "on-call", "slack", {"url": SLACK}, NOW)
    incident = open_incident(conn, project, model.id)
    deliveries = schema.deliveries
    delivery = conn.scalar(sa.select(deliveries.c.id).where(deliveries.c.incident_id == incident))
    conn.execute(deliveries.update().where(deliveries.c.id == delivery).values(state="dead", last_error="404"))
    assert delivery is not None
    return Tenant(project, model.id, incident, receiver, delivery)


def open_incident(conn: sa.Connection, project: int, model: int, name: str = MODEL) -> int:
    """Open an incident about a model, with its alerts."""
    subject = lifecycle.Subject(project, "psi", name, model_id=model)
    condition = lifecycle.Condition(
        "critical", False, False, NOW, NOW - 24 * HOUR, "the scores moved", assessment().to_json(), 1, "{}"
    )
    transition = lifecycle.evaluate(None, condition, NOW)
    assert transition is not None
    return outbox.record(conn, subject, transition).id


def _callers(conn: sa.Connection, config: SentinelConfig, mine: Tenant, theirs: Tenant) -> dict[str, dict[str, str]]:
    callers: dict[str, dict[str, str]] = {"nobody": {}}
    for tenant, whose in ((mine, ""), (theirs, "other ")):
        for scope in ("ingest", "read", "admin"):
            key = keys.create(conn, TEST, PEPPER, project_id=tenant.project, name=scope, scopes=[scope], now=NOW)
            tenant.key, tenant.keys[scope] = key.id, key.text
            callers[f"{whose}{scope} key"] = {"authorization": f"Bearer {key.text}"}
    people: list[tuple[str, str, int | None]] = [
        ("viewer", "viewer", mine.project),
        ("operator", "operator", mine.project),
        ("admin", "admin", None),
        ("project admin", "admin", mine.project),
        ("other project admin", "admin", theirs.project),
    ]
    for name, role, project in people:
        user = users.create(
            conn,
            TEST,
            name=name.replace(" ", "-"),
            password_hash=CHEAP.hash(PASSWORD),
            role=role,
            project_id=project,
            now=NOW,
        )
        session = sessions.open_session(conn, user, now=NOW)
        cookie = f"sentinel_{config.emitter_port}_session={session.token}"
        callers[name] = {"cookie": cookie, "x-csrf-token": session.csrf}
    return callers


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every (method, path, operation) of an OpenAPI document."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = json.loads(answer.content)
    assert content["status"] == status
    assert content["detail"]
    return content
