"""What one query, or too many, may not do; and who may ask at all."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.responses import JSONResponse

from sentinel_core.apps import query_endpoints
from sentinel_core.apps.sidecar import create_app
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Scalar
from sentinel_core.security import keys
from tests.api.world import NOW as WORLD_NOW
from tests.api.world import PEPPER, TEST, World, open_world
from tests.apps.server import eventually, running
from tests.emitter.fleet import NOW, Fleet
from tests.query.conftest import NAME
from tests.query.test_http import LABELS, Upstream, data, passing_through, refusal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(" * 100_000, "bytes"),
        ("(" * 4_000 + "1" + ")" * 4_000, "nested deeper"),
        ("1" + "+1" * 3_999, "400 operators"),
        ("foo @ -1 offset", "parse error"),
        (f'{NAME}{{job=~"((a{{100}}){{100}}){{100}}"}}', "error parsing regexp"),
        ("\0", "parse error"),
    ],
)
def test_hostile_texts_are_refused(client: httpx.Client, text: str, words: str) -> None:
    """Whatever the parser would do with them, they are a 400, and the server goes on."""
    assert words in refusal(client.post("/api/v1/query", data={"query": text}), 400, "bad_data")
    assert data(client.get("/api/v1/query?query=1"))["result"][1] == "1"


def test_a_matcher_takes_no_exponential_time(client: httpx.Client) -> None:
    """What costs a backtracking engine minutes is answered."""
    assert data(client.post("/api/v1/query", data={"query": f'{NAME}{{instance=~"(([0-9.:]+)+)+!"}}'}))["result"] == []


@pytest.mark.parametrize(
    "text", ['{__name__=~".+"}[30d]', '{__name__!=""}[30d]', f"max_over_time({NAME}[3000d:1s])", f"{NAME}[10000d:1ms]"]
)
def test_what_holds_too_much_is_refused(client: httpx.Client, text: str) -> None:
    """Before it is read."""
    answer = client.get("/api/v1/query", params={"query": text, "time": NOW})
    assert "too many samples" in refusal(answer, 422, "execution")


def test_the_configured_number_of_samples(fleet: Fleet) -> None:
    """`query_samples` bounds a query."""
    config = replace(fleet.config, query_samples=1_000)
    with running(create_app(config, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)) as client:
        few = {"query": NAME, "start": NOW, "end": NOW + 600, "step": 60}
        assert len(data(client.get("/api/v1/query_range", params=few))["result"]) == 3
        answer = client.get("/api/v1/query_range", params=few | {"step": 1})
        assert "more than 1,000" in refusal(answer, 422, "execution")


class Slow:
    """An evaluation that goes on until it is let go or its time is up."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = threading.Event()

    def __call__(self, node: Any, start: int, end: int, step: int, source: Any, budget: Budget, notes: Any) -> Scalar:
        self.running += 1
        try:
            while not self.ended.wait(0.01):
                budget.check()
        finally:
            self.running -= 1
        return Scalar(np.ones(1))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """Every query is."""
    slow = Slow()
    monkeypatch.setattr(query_endpoints.evaluate, "evaluate", slow)
    yield slow
    slow.ended.set()


def test_a_query_ends_when_its_time_is_up(client: httpx.Client, slow: Slow) -> None:
    """The client's `timeout` may be shorter than the configured one."""
    answer = client.get("/api/v1/query?query=1&timeout=50ms")
    assert "query timed out" in refusal(answer, 503, "timeout")
    assert slow.running == 0


def test_a_query_ends_when_nobody_waits_for_it(client: httpx.Client, slow: Slow) -> None:
    """Its client has closed the connection."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(b"GET /api/v1/query?query=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: slow.running == 1)
    eventually(lambda: slow.running == 0)
    eventually(lambda: 'endpoint="query",outcome="gone"' in client.get("/metrics").text)


def test_no_more_at_once_than_configured(fleet: Fleet, slow: Slow) -> None:
    """One is evaluated, some wait, the rest is told to come back; /metrics is answered all the while."""
    config = replace(fleet.config, query_concurrency=1)
    app = create_app(config, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)
    with running(app) as client, ThreadPoolExecutor(18) as threads:
        answers = [threads.submit(client.get, "/api/v1/query?query=1") for _ in range(18)]
        eventually(lambda: sum(one.done() for one in answers) == 1)
        (rejected,) = (one.result() for one in answers if one.done())
        assert "too many queries at once" in refusal(rejected, 503, "unavailable")
        assert slow.running == 1
        assert 'outcome="rejected"} 1.0' in client.get("/metrics").text
        slow.ended.set()
        assert sorted(one.result().status_code for one in answers) == [200] * 17 + [503]


def test_a_client_that_does_not_read_holds_no_memory(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is made no faster than it is taken, and is given up where nobody takes it."""
    made = []

    def endless(*_: Any, **__: Any) -> Iterator[bytes]:
        while True:
            made.append(time.monotonic())
            yield b"x" * (1 << 20)

    monkeypatch.setattr(query_endpoints.answer, "answer", endless)
    monkeypatch.setattr("sentinel_core.apps.query.SEND_SECONDS", 0.3)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(b"GET /api/v1/query?query=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: 'endpoint="query",outcome="broken_off"' in client.get("/metrics").text)
        assert len(made) < 50


def test_prometheus_hangs(fleet: Fleet) -> None:
    """What it is asked for waits elsewhere, so that forecasts go on being answered; lists are of ours after a while."""
    upstream = Upstream()
    hanging = replace(fleet.config, query_concurrency=1)
    with passing_through(Fleet(hanging, fleet.store), upstream) as client, ThreadPoolExecutor(25) as threads:
        upstream.answer = JSONResponse({"status": "success", "data": {"resultType": "matrix", "result": []}})
        upstream.hold.set()
        asked = [f"{NAME} - up", *["up"] * 20]  # more than may wait for what is ours
        waiting = [threads.submit(client.get, "/api/v1/query", params={"query": one}) for one in asked[:12]]
        eventually(lambda: len(upstream.asked) == 5)
        waiting += [threads.submit(client.get, "/api/v1/query", params={"query": one}) for one in asked[12:]]
        assert len(data(client.get("/api/v1/query", params={"query": NAME, "time": NOW + 60}))["result"]) == 3
        upstream.hold.clear()
        assert [one.result().status_code for one in waiting] == [200] * 21
        upstream.hold.set()
        listed = client.get("/api/v1/labels?timeout=400ms")
        assert set(LABELS) <= set(data(listed))
        assert "s; raise query_timeout if it is slow" in listed.json()["warnings"][0]
        upstream.hold.clear()


# ---- who may ask


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two projects."""
    folder: Path = tmp_path_factory.mktemp("world")
    with open_world(folder) as world:
        yield world


@contextmanager
def reached_from_elsewhere(world: World, upstream: Upstream) -> Iterator[httpx.Client]:
    """A sidecar over the world's store on every address, before a Prometheus."""
    fleet = Fleet(replace(world.config, bind_address="0.0.0.0"), world.store)
    with passing_through(fleet, upstream, pepper=PEPPER, now=WORLD_NOW + 60.0) as client:
        client.headers["host"] = "sentinel.example"
        yield client


def test_off_this_machine_it_needs_a_key(world: World) -> None:
    """None is a 401, one that may not read a 403; a project's key gets its models, and nothing else."""
    upstream = Upstream()
    with world.store.database.write() as connection:
        every = keys.create(connection, TEST, PEPPER, project_id=None, name="all", scopes=["read"], now=WORLD_NOW)
    with reached_from_elsewhere(world, upstream) as client:

        def ask(text: str, **headers: str) -> httpx.Response:
            return client.get("/api/v1/query", params={"query": text}, headers=headers)

        def bearer(key: str) -> dict[str, str]:
            return {"authorization": f"Bearer {key}"}

        mine = bearer(world.mine.keys["read"])
        answer = ask("1")
        assert "send a key" in refusal(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        refusal(ask("1", **bearer("sml_live_wrong")), 401, "unauthorized")
        refusal(ask("1", **bearer(world.mine.keys["ingest"])), 403, "forbidden")
        assert ask("1", **mine).status_code == ask("1", **world.callers["viewer"]).status_code == 200
        session = {"cookie": world.callers["viewer"]["cookie"]}  # no token: a question is no write, by POST neither
        assert data(client.post("/api/v1/query", data={"query": "1", "csrf": "x"}, headers=session))["result"][1] == "1"
        for label in (client.get("/api/v1/labels"), client.get("/api/v1/rules")):
            refusal(label, 401, "unauthorized")

        def projects(**headers: str) -> set[str]:
            listed = client.get("/api/v1/label/project/values", headers=headers)
            found = {row["metric"].get("project", "") for row in data(ask("sentinel_incidents", **headers))["result"]}
            assert found == set(data(listed))
            return found

        assert projects(**mine) == {"default"}
        assert projects(**bearer(world.theirs.keys["read"])) == {"other"}
        assert data(ask("up", **mine))["result"] == data(ask("sentinel_build_info", **mine))["result"] == []
        assert not upstream.asked
        assert ask("up", **bearer(every.text)).status_code == 200
        assert [path for path, _ in upstream.asked] == ["/api/v1/query"]
        assert not {"authorization", "cookie"} & upstream.headers.keys()  # who asks us is nobody's business


@pytest.mark.parametrize("everything", ['{__name__=~".+"}', '{project!=""}', '{project="other"}', "sentinel_incidents"])
def test_a_projects_key_sees_nothing_of_others(world: World, everything: str) -> None:
    """Whatever is asked by whatever endpoint, of series or in a list."""
    upstream = Upstream()
    span = {"start": WORLD_NOW - 3_600, "end": WORLD_NOW + 3_600}
    asks: list[tuple[str, dict[str, Any]]] = [
        ("query", {"query": everything, "time": WORLD_NOW + 60}),
        ("query", {"query": f"{everything}[1h]", "time": WORLD_NOW + 60}),
        ("query_range", {"query": f"count by (project) ({everything})", **span, "step": 60}),
        ("series", {"match[]": everything}),
        ("labels", {"match[]": everything}),
        *[(f"label/{label}/values", {"match[]": everything, **span}) for label in ("project", "model", "__name__")],
        ("label/project/values", {}),
        ("metadata", {}),
        ("query_exemplars", {"query": everything}),
        ("rules", {}),
    ]
    with reached_from_elsewhere(world, upstream) as client:
        seen = ""
        for path, asked in asks:
            headers = {"authorization": f"Bearer {world.mine.keys['read']}"}
            answer = client.get(f"/api/v1/{path}", params=asked, headers=headers)
            assert answer.status_code == 200, answer.text
            seen += answer.text
        assert '"other"' not in seen
        assert "sentinel_build_info" not in seen
        assert ('"default"' in seen) or "other" in everything
        assert not upstream.asked
