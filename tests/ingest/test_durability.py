"""What was acknowledged is on the disk, whatever is killed, and counted once, however often it is sent."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from sentinel_core.config import SentinelConfig
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.draining import drain
from sentinel_core.storage import event_store
from sentinel_core.storage.store import Store
from tests.apps.server import eventually, free_port
from tests.ingest.conftest import Ingest, event
from tests.ingest.ingest_app import logged, new_key

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SENTINEL_KILLS", "3"))  # of the ingest, and as many of the drain


def test_a_drained_event_is_known_after_a_restart(store: Store, serve: Callable[..., Ingest]) -> None:
    """Its id is read from the segments."""
    serve(store).batch(event(event_id="a"), event())
    url = store.database.url.render_as_string(hide_password=False)
    context = Context(SentinelConfig(sql_url=url, data_url=str(store.segments.folder.url)), store)
    assert drain(context).events == 2
    assert not len(logged(store))
    again = serve(store)
    assert again.batch(event(event_id="a"), event(event_id="new")).json()["duplicates"] == 1


@contextmanager
def process(store: Store, port: int, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """An ingest in a process of its own, which answers."""
    urls = [store.database.url.render_as_string(hide_password=False), str(store.segments.folder.url)]
    command = [*before, sys.executable, "-m", "tests.ingest.ingest_app", *urls, str(port)]
    running = subprocess.Popen(command, cwd=ROOT)
    try:
        eventually(lambda: _answers(port), 30)
        yield running
    finally:
        running.terminate()
        try:
            running.wait(20)
        finally:
            running.kill()


def _answers(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/v1/events").status_code == 405
    return False


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)")
def test_every_acknowledgement_follows_a_sync(sqlite_store: Store, tmp_path: Path) -> None:
    """Requests one after the other: the kernel is asked to put each on the disk before its answer is written."""
    port, trace = free_port(), tmp_path / "trace"
    header = {"Authorization": f"Bearer {new_key(sqlite_store)}"}
    flags = [
        "-D",
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync,fsync,write,sendto,sendmsg,writev",
        "-e",
        "signal=none",
        "-s",
        "16",
    ]
    with process(sqlite_store, port, "strace", *flags, "-o", str(trace)), httpx.Client(headers=header) as http:
        for _ in range(20):
            assert http.post(f"http://127.0.0.1:{port}/v1/events", json=event()).status_code == 202

    def story() -> str:
        """The order of syncs (s) and of answers (A)."""
        calls = re.findall(r"(f(?:data)?sync)\(|\"(HTTP/1\.1 202)", trace.read_text())
        return "".join("s" if sync else "A" for sync, _ in calls)

    eventually(lambda: story().count("A") == 20)  # strace writes on after its program has ended
    assert "AA" not in story()
    assert story().index("s") < story().index("A")


def test_a_graceful_end_writes_what_waits(sqlite_store: Store) -> None:
    """SIGTERM while requests are under way: whoever was answered 202 is in the log."""
    port, accepted = free_port(), []
    header = {"Authorization": f"Bearer {new_key(sqlite_store)}"}

    def send(worker: int) -> None:
        with httpx.Client(headers=header) as http, suppress(httpx.TransportError):
            for number in range(10_000):
                score = worker * 10_000 + number
                http.post(f"http://127.0.0.1:{port}/v1/events", json=event(score=score)).raise_for_status()
                accepted.append(score)

    with process(sqlite_store, port):
        threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(accepted) > 50)
    for thread in threads:
        thread.join()
    kept = logged(sqlite_store).score.tolist()
    assert len(kept) == len(set(kept))
    assert set(accepted) <= set(kept)


@pytest.mark.slow
def test_no_kill_loses_or_doubles_an_event(store: Store) -> None:
    """Ingest and drain are killed (-9) at any line; clients send again what was not acknowledged: each counts once."""
    port, rng, stop = free_port(), random.Random(7), threading.Event()
    url = store.database.url.render_as_string(hide_password=False)
    urls = [url, str(store.segments.folder.url)]
    commands = {"ingest": ["tests.ingest.ingest_app", *urls, str(port)], "drain": ["tests.ingest.drain_loop", *urls]}
    header = {"Authorization": f"Bearer {new_key(store)}"}
    acknowledged: list[float] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", *commands[name]], cwd=ROOT)

    def send(worker: int) -> None:
        for batch in count(worker * 1_000_000, 20):
            if stop.is_set():
                return
            events = [event(event_id=str(k), score=k) for k in range(batch, batch + 20)]
            while not _accepted(port, header, events):
                time.sleep(0.05)
            acknowledged.extend(one["score"] for one in events)

    running = {name: start(name) for name in commands}
    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    try:
        for kill in range(2 * KILLS):
            name = ("ingest", "drain")[kill % 2]
            before = len(acknowledged)
            eventually(lambda before=before: len(acknowledged) > before + 100, 60)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 0.5))
            running[name].send_signal(signal.SIGKILL)
            running[name].wait()
            running[name] = start(name)
        stop.set()
        for thread in threads:
            thread.join(60)
    finally:
        stop.set()
        for one in running.values():
            one.kill()
            one.wait()
    drain(Context(SentinelConfig(sql_url=url, data_url=urls[1]), store))
    stored = event_store.read_events(store, 0, 2**40, ["score"])["score"]
    assert sorted(stored.tolist()) == sorted(acknowledged)


def _accepted(port: int, header: dict[str, str], events: list[dict[str, Any]]) -> bool:
    with suppress(httpx.TransportError):
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/events/batch", json=events, headers=header)
        return answer.status_code == 202 and not answer.json()["rejected"]
    return False
