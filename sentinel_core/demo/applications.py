"""What `sentinel up --demo` adds for models in production: a scoring app with a key, and a receiver for its alerts.

Both are made as a person would make them, in the project "default", and found again by the next start of the demo. A
start of something else on the same store retires them, as it does the demo's watches.
"""

import base64
import os
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from sentinel_core.alerts import receivers
from sentinel_core.config import SentinelConfig
from sentinel_core.demo.production import MODELS
from sentinel_core.demo.receiver import RECEIVER_PORT
from sentinel_core.demo.source import free_port
from sentinel_core.errors import NotFoundError
from sentinel_core.security import keys
from sentinel_core.security.keys import Key
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.storage import model_store
from sentinel_core.storage.database import Database
from sentinel_core.storage.model_store import DEFAULT_PROJECT

SCORING_APP, RECEIVER = "demo scoring app", "demo receiver"
_DEMO = command_line("the demo")


def prepare(config: SentinelConfig, database: Database, pepper: Pepper) -> list[tuple[str, Sequence[str]]]:
    """Make the key and the receiver, where they are not there; returns the processes: (name, command)."""
    folder = config.store_path / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    key, secret, port = folder / "scoring.key", folder / "webhook.secret", free_port(RECEIVER_PORT)
    _prepare_key(database, pepper, key)
    _prepare_receiver(config, database, secret, port)
    scoring = ["sentinel_core.demo.scoring", "--url", config.sidecar_url, "--key-file", str(key)]
    receiver = ["sentinel_core.demo.receiver", "--port", str(port), "--secret-file", str(secret)]
    return [
        ("demo-receiver", [sys.executable, "-m", *receiver]),
        ("demo-scoring", [sys.executable, "-m", *scoring]),
    ]


def retire(database: Database) -> None:
    """Revoke the key, remove the receiver and disable the models of a demo that was here before."""
    with database.read() as connection:
        good = [key.id for key in keys.list_keys(connection) if _is_ours(key, time.time())]
    if not good:
        return
    with database.write() as connection:
        for key_id in good:
            keys.revoke(connection, _DEMO, key_id, now=time.time())
        with suppress(NotFoundError):
            receivers.remove(connection, receivers.named(connection, DEFAULT_PROJECT, RECEIVER).id)
        _enable(connection, False)


def _enable(connection: sa.Connection, enabled: bool) -> None:
    for name in MODELS:
        model = model_store.model_named(connection, DEFAULT_PROJECT, name)
        if model is not None and model.enabled != enabled:
            model_store.set_enabled(connection, model.id, enabled)


def _is_ours(key: Key, now: float) -> bool:
    return key.name == SCORING_APP and key.created_by == _DEMO.actor and key.state(now) == "live"


def _prepare_key(database: Database, pepper: Pepper, path: Path) -> None:
    """The file holds a key that is good; whatever else of this name was good is revoked."""
    now = time.time()
    with database.write() as connection:
        _enable(connection, True)
        good = [key for key in keys.list_keys(connection) if _is_ours(key, now)]
        if len(good) == 1 and good[0].pepper == pepper.mark and path.exists() and good[0].id in path.read_text():
            return
        for key in good:
            keys.revoke(connection, _DEMO, key.id, now=now)
        new = keys.create(
            connection, _DEMO, pepper, project_id=DEFAULT_PROJECT, name=SCORING_APP, scopes=["ingest"], now=now
        )
        _write_secret(path, new.text)


def _prepare_receiver(config: SentinelConfig, database: Database, path: Path, port: int) -> None:
    if not path.exists():
        _write_secret(path, "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    wanted = {"url": f"http://127.0.0.1:{port}/", "secret": path.read_text(encoding="ascii")}
    settings = receivers.checked("webhook", wanted, config)
    with database.write() as connection:
        try:
            known = receivers.named(connection, DEFAULT_PROJECT, RECEIVER)
        except NotFoundError:
            receivers.add(connection, DEFAULT_PROJECT, RECEIVER, "webhook", settings, time.time())
        else:
            receivers.change(connection, known.id, settings=settings)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
