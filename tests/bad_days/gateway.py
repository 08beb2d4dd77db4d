"""A real HTTP server between us and Prometheus that can behave badly, as proxies and overloaded servers do."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import httpx

Wanted = Callable[[str, dict[str, str]], bool]  # endpoint, fields: does this question get the bad answer?


def always(endpoint: str, fields: dict[str, str]) -> bool:
    return True


@dataclass(frozen=True)
class Manner:
    """How chosen questions are answered: `name` is well, refuse, silence, 503, cut, page, or an answer's JSON text."""

    name: str = "well"
    wanted: Wanted = always


class Gateway:
    """Passes questions on to a Prometheus, or answers them as `manner` says; every question is kept in `asked`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.manner = Manner()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def behave(self, name: str = "well", wanted: Wanted = always) -> None:
        """From now on."""
        self.manner = Manner(name, wanted)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(gateway: "Gateway") -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer("POST", dict(parse_qsl(body.decode())), body)

            def do_GET(self) -> None:
                self._answer("GET", dict(parse_qsl(urlsplit(self.path).query)), b"")

            def _answer(self, method: str, fields: dict[str, str], body: bytes) -> None:
                endpoint = urlsplit(self.path).path.removeprefix("/api/v1/")
                gateway.asked.append((endpoint, fields))
                manner = gateway.manner
                name = manner.name if manner.wanted(endpoint, fields) else "well"
                if name == "refuse":
                    return
                if name == "silence":
                    time.sleep(3)
                    return
                if name == "503":
                    return self._send(503, b"no healthy upstream", "text/plain")
                if name == "page":
                    return self._send(200, b"<html>please log in</html>", "text/html")
                if name.startswith("{"):
                    return self._send(200, name.encode(), "application/json")
                headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
                passed = httpx.request(
                    method, gateway.target + self.path, content=body, headers=headers, timeout=30, trust_env=False
                )
                content = passed.content[: len(passed.content) // 2] if name == "cut" else passed.content
                self._send(passed.status_code, content, passed.headers["content-type"])

            def _send(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
