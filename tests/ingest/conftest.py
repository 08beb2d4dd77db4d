"""An ingest on a real server, over SQLite and over PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from sentinel_core.storage.store import Store
from tests.apps.server import running
from tests.ingest.ingest_app import ingest_app, new_key


@dataclass(frozen=True)
class Ingest:
    """A running ingest: its store, and a client that sends a key of scope ingest."""

    store: Store
    http: httpx.Client

    def one(self, **fields: Any) -> httpx.Response:
        """POST one event; what is not given is good."""
        return self.http.post("/v1/events", json=event(**fields))

    def batch(self, *events: dict[str, Any], **request: Any) -> httpx.Response:
        """POST several."""
        return self.http.post("/v1/events/batch", json=list(events), **request)


def event(**fields: Any) -> dict[str, Any]:
    """A good event but for the fields given; `...` leaves one out, a timedelta is from now."""
    if isinstance(away := fields.get("event_time"), timedelta):
        fields["event_time"] = (datetime.now(UTC) + away).isoformat()
    good = {"model_id": "fraud", "event_time": datetime.now(UTC).isoformat(), "score": 0.5}
    return {name: value for name, value in (good | fields).items() if value is not ...}


@pytest.fixture
def serve() -> Iterator[Callable[..., Ingest]]:
    """A function that serves a store; options are `ingest_app`'s."""
    with ExitStack() as stack:

        def start(store: Store, **options: Any) -> Ingest:
            http = stack.enter_context(running(ingest_app(store, **options)))
            http.headers["Authorization"] = f"Bearer {new_key(store)}"
            return Ingest(store, http)

        yield start


@pytest.fixture
def ingest(sqlite_store: Store, serve: Callable[..., Ingest]) -> Ingest:
    """An ingest on SQLite."""
    return serve(sqlite_store)
