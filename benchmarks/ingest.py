"""Durable ingest: the real sidecar in one process, loaded from another over 64 connections, beside the disk's fsync.

python -m benchmarks.ingest
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CONNECTIONS, SECONDS, WARM_SECONDS = 64, 8.0, 2.0
LIMIT_BATCHED, LIMIT_SINGLE, LIMIT_P99_MS = 50_000.0, 3_000.0, 150.0


@dataclass(frozen=True)
class Load:
    """What one load measured, in the seconds after the warm-up."""

    events_per_second: float
    p50_ms: float
    p99_ms: float
    refused: int


class _Connection(asyncio.Protocol):
    """One connection that sends its next request when the answer to the last has come."""

    def __init__(self, requests: "_Requests") -> None:
        self._requests = requests
        self._sent_at = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests.next())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._answer = b""
            self._requests.answered(head.startswith(b"HTTP/1.1 202"), time.perf_counter() - self._sent_at)
            self._send()


class _Requests:
    """Requests whose events all have ids of their own, made as cheaply as that can be."""

    def __init__(self, key: str, batch: int) -> None:
        path = "/v1/events/batch" if batch > 1 else "/v1/events"
        self._batch = batch
        self._run = uuid.uuid4().hex[:12]
        self._number = 0
        event = {
            "model_id": "fraud-score",
            "event_time": datetime.now(UTC).isoformat(),
            "score": 0.8473,
            "prediction": "approve",
            "event_id": "#" * 32,
        }
        text = json.dumps([event] * batch if batch > 1 else event)
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        ).encode()
        self._parts = text.encode().split(b"#" * 32)
        self.spent: list[float] = []
        self.refused = 0

    def next(self) -> bytes:
        """The bytes of one more request."""
        self._number += 1
        prefix = f"{self._run}{self._number:016d}"
        pieces = [self._head, self._parts[0]]
        for index in range(self._batch):
            pieces += (f"{prefix}{index:04d}".encode(), self._parts[index + 1])
        return b"".join(pieces)

    def answered(self, good: bool, seconds: float) -> None:
        """Note an answer."""
        self.spent.append(seconds)
        self.refused += not good


async def load(port: int, key: str, batch: int, seconds: float) -> Load:
    """Load a sidecar with requests of `batch` events, as fast as it answers."""
    requests = _Requests(key, batch)
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_connection(lambda: _Connection(requests), "127.0.0.1", port))[0] for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(WARM_SECONDS)
    requests.spent.clear()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    spent, took = list(requests.spent), time.perf_counter() - started
    for transport in transports:
        transport.abort()
    cuts = statistics.quantiles(spent, n=100)
    return Load(len(spent) * batch / took, cuts[49] * 1e3, cuts[98] * 1e3, requests.refused)


if __name__ == "__main__" and len(sys.argv) == 5:
    import uvloop

    port, key, batch, seconds = sys.argv[1:]
    print(json.dumps(vars(uvloop.run(load(int(port), key, int(batch), float(seconds))))))
