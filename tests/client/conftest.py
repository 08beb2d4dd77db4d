"""A real ingest for clients, and a server that misbehaves on demand."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sentinel_core.storage.store import Store
from tests.apps.server import running
from tests.ingest.ingest_app import ingest_app, new_key


@dataclass(frozen=True)
class Sidecar:
    """Where a running ingest is, and a key for it."""

    url: str
    key: str
    store: Store


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """The real ingest."""
    with Store.open(f"sqlite:///{tmp_path}/s.db", str(tmp_path / "data")) as store:
        store.database.migrate()
        with running(ingest_app(store)) as http:
            yield Sidecar(str(http.base_url), new_key(store), store)


@dataclass
class Moody:
    """A server that gives the scripted answers (status, headers), then 202; 0 is a connection that breaks."""

    script: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    bodies: list[list[dict[str, Any]]] = field(default_factory=list)  # of every request, in order
    foreign: list[bytes] = field(default_factory=list)  # bodies of 202 that are not Sentinel's, given first
    limit: int = 1_000  # events of a request; more are 413
    url: str = ""


@pytest.fixture
def moody() -> Iterator[Moody]:
    """A running one."""
    state = Moody()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            events = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.bodies.append(events)
            status, headers = state.script.pop(0) if state.script else (202, {})
            if status == 0:
                self.close_connection = True
                return
            if len(events) > state.limit:
                status = 413
            content = {"accepted": len(events), "duplicates": 0, "rejected": []} if status == 202 else {"detail": "no"}
            body = state.foreign.pop(0) if state.foreign else json.dumps(content).encode()
            self.send_response(status)
            for name, text in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
