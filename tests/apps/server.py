"""A real server on a free port, in a thread, for tests that are clients."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette

from sentinel_core.apps.sidecar import listen
from sentinel_core.config import SentinelConfig


@contextmanager
def running(app: Starlette) -> Iterator[httpx.Client]:
    """Serve an app and yield a client of it."""
    config = SentinelConfig(emitter_port=free_port())
    with listen(config) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{config.emitter_port}", timeout=10) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(10)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
