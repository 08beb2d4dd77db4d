"""`python -m sentinel_core.demo.target --port 9109`: its /metrics, and a small Prometheus API over its past."""

import argparse
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np

from sentinel_core.demo.query_api import Form, respond
from sentinel_core.demo.signals import signals
from sentinel_core.promql.answer import failure
from sentinel_core.promql.errors import QueryError
from sentinel_core.series import quote


def exposition(now: float) -> bytes:
    """Every series at `now` in Prometheus' text format."""
    lines = []
    family = ""
    at = np.array([now])
    for signal in signals():
        if signal.family != family:
            family = signal.family
            lines += [
                f"# HELP {signal.series.name} {signal.help}",
                f"# TYPE {signal.series.name} {signal.kind}",
            ]
        inner = ",".join(f"{key}={quote(value)}" for key, value in signal.series.labels if key != "job")
        lines.append(f"{signal.series.name}{{{inner}}} {float(signal.at(at)[0])!r}")
    return ("\n".join(lines) + "\n").encode()


class Handler(BaseHTTPRequestHandler):
    """GET /metrics; GET or POST /api/v1/…."""

    protocol_version = "HTTP/1.1"  # keep-alive: the client asks often

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._route(parts.path, parse_qs(parts.query))

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._route(parts.path, parse_qs(f"{parts.query}&{body}"))

    def _route(self, path: str, form: Form) -> None:
        now = time.time()
        if path == "/metrics":
            self._send(200, exposition(now), "text/plain; version=0.0.4; charset=utf-8")
        elif path in ("/", "/-/healthy", "/-/ready"):
            self._send(200, b"The demo shop: see /metrics\n", "text/plain; charset=utf-8")
        else:
            try:
                status, body = 200, respond(path, form, now)
            except QueryError as error:
                status, body = error.status, failure(error.kind, str(error))
            self._send(status, body, "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A line per scrape helps nobody."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9109)
    parser.add_argument("--bind", default="127.0.0.1")
    arguments = parser.parse_args()
    with ThreadingHTTPServer((arguments.bind, arguments.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
