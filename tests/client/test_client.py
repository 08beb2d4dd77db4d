"""The client sends what an application predicts, and never stands in its way."""

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from sentinel_core.client import AsyncClient, Client, Stats
from sentinel_core.client import _client as internals
from tests.apps.server import eventually, free_port
from tests.client.conftest import Moody, Sidecar
from tests.ingest.ingest_app import logged, model_names


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a test's length."""
    monkeypatch.setattr(internals, "pause", lambda attempt: 0.01)


@pytest.fixture
def client(moody: Moody) -> Iterator[Client]:
    """A client of the moody server."""
    with Client(moody.url, "key", interval=0.01) as opened:
        yield opened


def test_events_arrive(sidecar: Sidecar) -> None:
    """Scores, labels, numbers, truth values and missing ones, also numpy's, each under its model; large batches too."""
    with Client(sidecar.url, sidecar.key) as client:
        client.send("fraud", score=0.25, prediction="approve", event_time=datetime.now(UTC), event_id="a")
        client.send("fraud", score=np.float32(0.5), prediction=np.bool_(True))
        client.send("price", prediction=np.int64(7))
        client.send("fraud", score=float("nan"))
        client.send("fraud")
        for number in range(2_000):
            client.send("many", number)
        assert client.flush()
        assert client.stats == Stats(accepted=2_005)
    kept, names = logged(sidecar.store), model_names(sidecar.store)
    assert set(names.values()) == {"fraud", "price", "many"}
    assert sorted(kept.score[kept.model == kept.model[0]].tolist()[:2]) == [0.25, 0.5]
    assert set(kept.texts.values()) == {"approve", "true"}
    assert np.nansum(kept.number) == 7
    assert (kept.id != 0).all()


def test_an_event_id_counts_once(sidecar: Sidecar) -> None:
    """Whoever names an event may send it again."""
    with Client(sidecar.url, sidecar.key) as client:
        for _ in range(3):
            client.send("fraud", score=0.5, event_id="order-1")
        client.flush()
        assert client.stats == Stats(accepted=1, duplicates=2)


def test_what_sentinel_refuses_is_counted_and_said(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    """The events beside it are kept."""
    with Client(sidecar.url, sidecar.key) as client:
        client.send("fraud", score=0.5, event_time=datetime(2020, 1, 1, tzinfo=UTC))
        client.send("fraud", score=0.5)
        client.flush()
        assert client.stats == Stats(accepted=1, rejected=1)
    assert "7 days ago" in caplog.text


BAD: list[dict[str, Any]] = [
    {"model_id": ""},
    {"model_id": None},
    {"model_id": "x" * 201},
    {"score": "high"},
    {"score": True},
    {"score": float("inf")},
    {"score": np.arange(3)},
    {"prediction": object()},
    {"prediction": "x" * 201},
    {"prediction": "\ud800"},
    {"event_time": datetime(2026, 1, 1)},
    {"event_time": "now"},
    {"event_id": 7},
]


@pytest.mark.parametrize("arguments", BAD, ids=[str(place) for place in range(len(BAD))])
def test_bad_arguments_are_logged_not_raised(
    client: Client, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any]
) -> None:
    """The application goes on; the event is counted as invalid, and the reason said once."""
    for _ in range(2):
        client.send(**{"model_id": "fraud", "score": 0.5, **arguments})
    assert client.stats == Stats(invalid=2)
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize(("url", "key"), [("", "k"), ("localhost:8080", "k"), ("http://[", "k"), ("http://a", None)])
def test_a_client_that_cannot_work_says_so(caplog: pytest.LogCaptureFixture, url: str, key: Any) -> None:
    """An address or a key that is missing breaks no application at its start."""
    with Client(url, key) as client:
        client.send("fraud", score=0.5)
        assert client.flush(1)
    assert client.stats == Stats(invalid=1)
    assert "no event will be sent" in caplog.text


@pytest.mark.usefixtures("quick")
def test_the_same_event_goes_again_after_a_failure(moody: Moody, client: Client) -> None:
    """Broken connections, 500, 401 and 429: the same ids until it is taken, in order, and nothing twice."""
    moody.script = [(0, {}), (500, {}), (401, {}), (429, {"retry-after": "0"}), (503, {"retry-after": "yesterday"})]
    client.send("fraud", score=1)
    eventually(lambda: len(moody.bodies) == 6)
    client.send("fraud", score=2)
    assert client.flush()
    assert len({body[0]["event_id"] for body in moody.bodies[:6]}) == 1
    assert [body[0]["score"] for body in moody.bodies] == [1] * 6 + [2]
    assert client.stats == Stats(accepted=2)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b'{"accepted":null}', b"\xff", b'{"rejected":[1]}'])
def test_a_202_of_somebody_else_takes_nothing(moody: Moody, client: Client, content: bytes) -> None:
    """A proxy's answer is no acknowledgement, and ends no thread: the events go again."""
    moody.foreign = [content]
    client.send("fraud", score=1)
    assert client.flush()
    assert client.stats == Stats(accepted=1)
    assert len(moody.bodies) == 2


@pytest.mark.usefixtures("quick")
def test_it_waits_as_long_as_it_is_told(moody: Moody, client: Client) -> None:
    """Retry-After is kept, also while somebody flushes."""
    moody.script = [(429, {"retry-after": "1"})]
    client.send("fraud", score=1)
    eventually(lambda: len(moody.bodies) == 1)
    assert not client.flush(0.3)
    assert len(moody.bodies) == 1
    assert client.flush()
    assert len(moody.bodies) == 2


def test_a_batch_that_is_too_large_goes_in_parts(moody: Moody) -> None:
    """Each event arrives; one that is too large by itself is given up."""
    moody.limit = 3
    with Client(moody.url, "key") as client:
        for number in range(10):
            client.send("fraud", score=number)
        client.flush()
        assert sorted(event["score"] for body in moody.bodies if len(body) <= 3 for event in body) == list(range(10))
        moody.limit = 0
        client.send("fraud", score=0)
        client.flush()
        assert client.stats == Stats(accepted=10, rejected=1)


def test_a_full_buffer_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody answers: the buffer stays bounded, `send` and `flush` return, and it is said once."""
    with Client(f"http://127.0.0.1:{free_port()}", "key", buffer=100, batch=10) as client:
        for number in range(1_000):
            client.send("fraud", score=number)
        assert not client.flush(0.3)
        stats = client.stats
        assert stats.dropped + stats.waiting == 1_000
        assert 100 <= stats.waiting <= 110
        client.close(0)
    assert client.stats == Stats(dropped=1_000)
    assert caplog.text.count("the oldest are dropped") == 1
    client.send("fraud", score=1)
    assert client.stats == Stats(dropped=1_001)


PROGRAM = """
import os, sys
from sentinel_core.client import Client
client = Client(*sys.argv[1:3])
client.send("fraud", score=1)
{more}
"""
FORKED = """
client.flush()
if os.fork() == 0:
    client.send("fraud", score=2)
    sys.exit()
os.wait()
client.send("fraud", score=3)
"""
WORKER = """
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=client.send, args=("fraud", 2))
worker.start()
worker.join()
"""


@pytest.mark.parametrize(("more", "scores"), [("", [1]), (FORKED, [1, 2, 3]), (WORKER, [1, 2])])
def test_the_last_events_leave_before_the_program_ends(sidecar: Sidecar, more: str, scores: list[int]) -> None:
    """At exit, in a forked child and in a worker of multiprocessing: each event once, by whoever sent it."""
    command = [sys.executable, "-c", PROGRAM.format(more=more), sidecar.url, sidecar.key]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stderr == b""
    assert sorted(logged(sidecar.store).score.tolist()) == scores


def test_a_program_ends_although_nobody_answers() -> None:
    """It waits five seconds at most, and says what was lost."""
    command = [sys.executable, "-c", PROGRAM.format(more=""), f"http://127.0.0.1:{free_port()}", "key"]
    ended = subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert b"1 events could not be sent" in ended.stderr


def test_an_event_loop_is_not_held_up(sidecar: Sidecar) -> None:
    """`send` is no coroutine; flush and close let other tasks run."""

    async def program() -> Stats:
        async with AsyncClient(sidecar.url, sidecar.key) as client:
            for number in range(100):
                client.send("fraud", score=number)
            ticks, flushing = 0, asyncio.create_task(client.flush())
            while not flushing.done():
                await asyncio.sleep(0)
                ticks += 1
            assert ticks > 1
            assert await flushing
            return client.stats

    assert asyncio.run(program()) == Stats(accepted=100)


def test_it_needs_nothing_else_of_sentinel() -> None:
    """An application that sends events loads neither numpy nor SQLAlchemy nor Dagster."""
    script = "import sys, sentinel_core.client; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert not set(re.findall(r"'(\w+)'", loaded)) & {"numpy", "sqlalchemy", "dagster", "duckdb", "starlette"}
