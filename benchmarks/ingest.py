"""Durable ingest: the real sidecar in one process, loaded from another over 64 connections.

python -m benchmarks.ingest
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from sentinel_core.config import SentinelConfig
from sentinel_core.demo.source import free_port
from sentinel_core.security import keys
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import load_pepper
from sentinel_core.storage.store import Store

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


def run() -> None:
    """Print what was measured; exit with 1 above the limits."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"the disk: fdatasync of 4 kB appended, median {sync_ms(Path(folder)):.2f} ms")
        config = SentinelConfig(artifact_store=folder, emitter_port=free_port(18_080), events_per_second=1e9)
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config.to_dict()))
        key = new_key(config)
        environment = {**os.environ, "SENTINEL_CONFIG": str(file)}
        sidecar = subprocess.Popen([sys.executable, "-m", "sentinel_core.apps.sidecar"], env=environment)
        try:
            wait_for(config.emitter_port)
            batched = measure(config.emitter_port, key, 100, sidecar.pid)
            single = measure(config.emitter_port, key, 1, sidecar.pid)
        finally:
            sidecar.terminate()
            sidecar.wait()
    slow = max(batched.p99_ms, single.p99_ms) > LIMIT_P99_MS
    refused = batched.refused or single.refused
    if batched.events_per_second < LIMIT_BATCHED or single.events_per_second < LIMIT_SINGLE or slow or refused:
        raise SystemExit(1)


def measure(port: int, key: str, batch: int, pid: int) -> Load:
    """Load the sidecar from a process of its own, print what came of it, and count syncs in a second, shorter run."""
    before = commits(port)
    found = loaded(port, key, batch, SECONDS)
    committed = (commits(port) - before) / (SECONDS + WARM_SECONDS)
    print(
        f"{CONNECTIONS} connections, {batch} events a request: {found.events_per_second:,.0f} events/s, "
        f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms (limit {LIMIT_P99_MS:g}), {found.refused} refused; "
        f"{committed:,.0f} commits/s"
    )
    if shutil.which("strace"):
        command = ["strace", "-f", "-c", "-e", "trace=fdatasync,fsync", "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            time.sleep(2.0)  # until it holds every thread: what is committed before that is not seen
            before = commits(port)
            loaded(port, key, batch, 2.0)
            tracer.send_signal(signal.SIGINT)
            counted = re.findall(r"(\d+)\s+(?:\d+\s+)?f(?:data)?sync$", tracer.communicate()[1], re.MULTILINE)
        print(f"  traced: {sum(map(int, counted)):,} syncs for {commits(port) - before:,.0f} commits")
    return found


def loaded(port: int, key: str, batch: int, seconds: float) -> Load:
    """Run `load` in another process."""
    command = [sys.executable, "-m", "benchmarks.ingest", str(port), key, str(batch), str(seconds)]
    return Load(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def new_key(config: SentinelConfig) -> str:
    """Make the store, and a key that may send events."""
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        store.database.migrate()
        pepper, by = load_pepper(config, os.environ), command_line("benchmark")
        with store.database.write() as connection:
            made = keys.create(
                connection, by, pepper, project_id=1, name="benchmark", scopes=["ingest"], now=time.time()
            )
    return made.text


def wait_for(port: int) -> None:
    """Wait until the sidecar answers."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthy").close()
            return
        time.sleep(0.1)
    raise SystemExit("the sidecar does not start")


def commits(port: int) -> float:
    """Group commits so far, as /metrics says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(r"^sentinel_events_commit_seconds_count (\S+)", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def sync_ms(folder: Path) -> float:
    """Median milliseconds of an fdatasync after 4 kB."""
    spent = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1e3


if __name__ == "__main__":
    if len(sys.argv) == 5:
        port, key, batch, seconds = sys.argv[1:]
        print(json.dumps(vars(uvloop.run(load(int(port), key, int(batch), float(seconds))))))
    else:
        run()
