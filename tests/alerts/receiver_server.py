"""A real HTTP server on loopback that takes alerts, and answers as a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server answers; `seconds` it thinks first, `lost`: it hangs up instead."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = "ok"
    seconds: float = 0.0
    lost: bool = False


@dataclass(frozen=True)
class Request:
    """What arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ReceiverServer:
    """`answer` is asked for each request; `requests` are all that came, also those that were refused."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Answer] = lambda request: Answer()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                owner.requests.append(request)
                answer = owner.answer(request)
                time.sleep(answer.seconds)
                if answer.lost:
                    self.close_connection = True
                    return
                text = answer.text.encode()
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(text)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST  # noqa: N815  # http.server wants the name; what a followed redirect would become

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the test looks at `requests`."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.request_queue_size = 128
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["ReceiverServer"]:
        """Serve while the body runs."""
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def steps(self) -> list[str]:
        """The types of what arrived, without their prefix."""
        return [request.json["type"].removeprefix("incident.") for request in self.requests]
