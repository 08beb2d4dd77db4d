"""`python -m sentinel_core.demo.receiver --port 9110`: takes the demo's alerts as a webhook, and says what arrived.

It checks the signature as somebody who reads https://www.standardwebhooks.com would; the secret is in
$DEMO_WEBHOOK_SECRET. What is printed goes to the demo's logs, and as it is important into the terminal.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECEIVER_PORT = 9110  # preferred; another free one where it is taken
SECRET_VARIABLE = "DEMO_WEBHOOK_SECRET"
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

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size <= LARGEST_BODY else b""
        good = genuine(dict(self.headers.items()), body, os.environ[SECRET_VARIABLE], time.time())
        print(told(body) if good else "ERROR a message whose signature is wrong was refused", flush=True)
        self.send_response(204 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """What arrived is said above."""


def told(body: bytes) -> str:
    """An alert in a line."""
    message = json.loads(body)
    return f"ALERT {message}"


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=RECEIVER_PORT)
    arguments = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
