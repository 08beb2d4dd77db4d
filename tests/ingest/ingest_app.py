"""The ingest alone, on a store of its own: `python -m tests.ingest.ingest_app SQL_URL DATA_URL PORT` serves it.

Keys are real, and so are the store, the server and the clock.
"""

import contextlib
import dataclasses
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from sentinel_core.apps import events
from sentinel_core.apps.event_writer import EventWriter
from sentinel_core.apps.services import Services
from sentinel_core.config import SentinelConfig
from sentinel_core.monitoring.event_columns import EventColumns, decode
from sentinel_core.security import keys
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.storage import event_log
from sentinel_core.storage.store import Store

PEPPER = Pepper(b"of the ingest's tests" * 2)


def ingest_app(
    store: Store,
    *,
    now: Callable[[], float] = time.time,
    registry: CollectorRegistry | None = None,
    rate: float = 1e9,
) -> Starlette:
    """The two routes with what they need."""
    ring, writer = KeyRing(store, PEPPER, now), EventWriter(store, now, registry)
    config = SentinelConfig(events_per_second=rate)
    given: dict[str, Any] = {"store": store, "config": lambda: config, "now": now, "keyring": ring, "writer": writer}
    missing = {field.name: None for field in dataclasses.fields(Services) if field.name not in given}
    services = Services(**given, **cast(Any, missing))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ring.start()
        writer.start()
        try:
            yield
        finally:
            writer.stop()
            ring.close()

    app = Starlette(routes=events.routes(services), lifespan=lifespan)
    app.state.writer = writer
    return app


def new_key(store: Store, *scopes: str, project: int = 1, rate: float | None = None) -> str:
    """The text of a fresh key; of scope ingest where none is named."""
    with store.database.write() as connection:
        return keys.create(
            connection,
            command_line("test"),
            PEPPER,
            project_id=project,
            name="test",
            scopes=scopes or ("ingest",),
            events_per_second=rate,
            now=time.time(),
        ).text


def logged(store: Store) -> EventColumns:
    """Every event of the log."""
    with store.database.read() as connection:
        return EventColumns.concatenated(decode(row.payload) for row in event_log.read(connection, max_events=10**9))


def model_names(store: Store) -> dict[int, str]:
    """The registered models' names by id."""
    from sentinel_core.storage import model_store

    with store.database.read() as connection:
        return {model.id: model.name for model in model_store.models(connection)}


if __name__ == "__main__":
    sql_url, data_url, port = sys.argv[1:]
    with Store.open(sql_url, data_url) as opened, socket.create_server(("127.0.0.1", int(port)), backlog=512) as sock:
        server = uvicorn.Config(ingest_app(opened), log_level="error", access_log=False, timeout_graceful_shutdown=3)
        uvicorn.Server(server).run(sockets=[sock])
