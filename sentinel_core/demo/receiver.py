"""`python -m sentinel_core.demo.receiver --port 9110`: takes the demo's alerts as a webhook, and says what arrived.

It checks the signature as somebody who reads https://www.standardwebhooks.com would. What it prints goes to its log
and, as the lines are important ones, into the terminal of `sentinel up`.
"""

import argparse
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RECEIVER_PORT = 9110  # preferred; another free one where it is taken
LARGEST_BODY = 1 << 20
TOLERANCE_SECONDS = 300  # an older message may be one that somebody recorded and sends again


def genuine(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> bool:
    """Whether a message bears a signature of this secret ("whsec_" and base64) and is young."""
    moment = headers.get("webhook-timestamp", "")
    if not moment.isdecimal() or abs(now - int(moment)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id', '')}.{moment}.".encode() + body
    wanted = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(wanted, one) for one in given)


class Handler(BaseHTTPRequestHandler):
    """POST anything with a good signature."""

    secret = ""

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size <= LARGEST_BODY else b""
        good = genuine({name.lower(): value for name, value in self.headers.items()}, body, self.secret, time.time())
        print(told(body) if good else "ERROR a message whose signature is wrong was refused", flush=True)
        self.send_response(204 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """What arrived is said above."""


def told(body: bytes) -> str:
    """An alert in a line.

    >>> told(b'{"type": "test", "data": {"message": {"title": "A test"}, "incident": {"url": "http://x/incidents/1"}}}')
    'ALERT test: A test; http://x/incidents/1'
    """
    message = json.loads(body)
    data = message["data"]
    return f"ALERT {message['type']}: {data['message']['title']}; {data['incident']['url']}"


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=RECEIVER_PORT)
    parser.add_argument("--secret-file", type=Path, required=True)
    arguments = parser.parse_args()
    Handler.secret = arguments.secret_file.read_text(encoding="ascii")
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
