"""The client against servers that misbehave: what is retried, what is not, and what people are told."""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.errors import ConfigError, PermanentSourceError, SourceError, TransientSourceError
from sentinel_core.prometheus import PrometheusClient, Retry
from sentinel_core.prometheus import client as client_module
from sentinel_core.windows import grid

TIME = b'{"status":"success","data":{"resultType":"scalar","result":[4,"4"]}}'
QUICK = Retry(attempts=3, base_seconds=0.01, deadline_seconds=5.0)

Handler = Callable[[httpx.Request], httpx.Response]


def error_body(kind: str, words: str) -> bytes:
    """Prometheus' error envelope."""
    return json.dumps({"status": "error", "errorType": kind, "error": words}).encode()


class Outcomes(list[tuple[str, str]]):
    """(endpoint, outcome) of every attempt."""

    def __call__(self, endpoint: str, seconds: float, outcome: str) -> None:
        assert seconds >= 0
        self.append((endpoint, outcome))


@contextmanager
def client_of(handle: Handler) -> Iterator[tuple[PrometheusClient, Outcomes]]:
    """A client whose network is a function."""
    outcomes = Outcomes()
    with PrometheusClient(
        "http://p:9090", transport=httpx.MockTransport(handle), observe=outcomes, retry=QUICK, environ={}
    ) as client:
        yield client, outcomes


def replies(*responses: httpx.Response | Exception) -> Handler:
    """Answer with each in turn."""
    queue = list(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        reply = queue.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return handle


@pytest.mark.parametrize(
    "failure",
    [
        httpx.Response(500),
        httpx.Response(503, content=error_body("timeout", "query timed out")),
        httpx.Response(429, text="slow down"),
        httpx.Response(422, content=error_body("canceled", "query was canceled")),
        httpx.Response(200, content=TIME[:-3]),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("peer closed connection"),
        httpx.Response(307, headers={"location": "http://x:port"}),
    ],
)
def test_a_passing_failure_is_retried(failure: httpx.Response | Exception) -> None:
    """One failure that passes by itself costs an attempt, and both attempts are observed."""
    with client_of(replies(failure, httpx.Response(200, content=TIME))) as (client, outcomes):
        assert client.now() == 4.0
    assert outcomes == [("query", "transient"), ("query", "ok")]


def test_attempts_are_bounded_and_counted() -> None:
    """After the last attempt the error says what happened and how often it was tried."""
    with (
        client_of(lambda request: httpx.Response(503, content=error_body("unavailable", "starting up"))) as (
            client,
            outcomes,
        ),
        pytest.raises(TransientSourceError, match=r"http://p:9090 answers 503: starting up \(tried 3 times\)"),
    ):
        client.now()
    assert len(outcomes) == 3


def test_the_deadline_bounds_all_attempts_together() -> None:
    """No pause is begun that would end after the deadline."""
    outcomes = Outcomes()
    with (
        PrometheusClient(
            "http://p:9090",
            timeout=0.05,
            transport=httpx.MockTransport(lambda request: httpx.Response(500)),
            observe=outcomes,
            retry=Retry(attempts=100, base_seconds=0.02, deadline_seconds=0.2),
        ) as client,
        pytest.raises(TransientSourceError),
    ):
        client.now()
    assert 1 <= len(outcomes) <= 12


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(400, content=error_body("bad_data", "parse error: x")), "answers 400: parse error: x"),
        (httpx.Response(422, content=error_body("execution", "many-to-many")), "answers 422: many-to-many"),
        (httpx.Response(401, text="Unauthorized"), r"refuses our credentials \(401: Unauthorized\)"),
        (httpx.Response(403), "refuses our credentials"),
        (httpx.Response(404, text="404 page not found"), "path prefix missing"),
        (httpx.Response(405), "path prefix missing"),
        (
            httpx.Response(302, headers={"location": "https://sso.example/login?token=1"}),
            "to https://sso.example/login, ",
        ),
        (httpx.Response(304), "redirects to elsewhere"),
        (httpx.Response(400, content=b'{"status":"\xff"}'), "answers 400: "),
        (httpx.Response(200, content=TIME.replace(b"scalar", b"\xff")), "answers query with 'utf-8' codec"),
        (httpx.Response(200, content=TIME.replace(b"[", b"[" * 100_000)), "answers query with maximum recursion depth"),
        (
            httpx.Response(200, content=b'{"status":"success","data":{"resultType":"vector","result":[]}}'),
            r"answers time\(\) with nothing",
        ),
        (httpx.Response(200, html="<html>please log in"), "text/html; charset=utf-8 that is not Prometheus' JSON"),
        (httpx.Response(200, content=b""), "something that is not Prometheus' JSON"),
        (httpx.Response(200, content=b'{"status":"error","error":"no"}'), "answers query with no"),
        (httpx.Response(200, content=b'{"a":1}'), "missing required field `status`"),
    ],
)
def test_what_a_retry_cannot_change_is_told_at_once(response: httpx.Response, words: str) -> None:
    """One attempt, Prometheus' own words, and what to do."""
    with client_of(replies(response)) as (client, outcomes), pytest.raises(PermanentSourceError, match=words):
        client.now()
    assert len(outcomes) == 1


def test_long_foreign_words_are_cut() -> None:
    """A proxy's page of text does not fill our messages."""
    with (
        client_of(replies(httpx.Response(400, text="x" * 10_000))) as (client, _),
        pytest.raises(SourceError) as caught,
    ):
        client.now()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://p", "http://", "http://p:port", ""])
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    """The remedy is an example."""
    with pytest.raises(ConfigError, match="write http://host:9090"):
        PrometheusClient(url)


def test_requests_are_plain_forms_below_the_prefix() -> None:
    """POST forms, no compression, the server told when to give up, and a path prefix kept."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=TIME)

    with PrometheusClient("http://p:9090/prom/", transport=httpx.MockTransport(handle), timeout=2.5) as client:
        client.query("up + 1", at=12.3456)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://p:9090/prom/api/v1/query")
    assert request.headers["accept-encoding"] == "identity"
    assert parse_qs(request.content.decode()) == {"query": ["up + 1"], "time": ["12.346"], "timeout": ["3s"]}


@given(
    start=st.integers(0, 10**6),
    length=st.integers(0, 3_000),
    step=st.sampled_from([7, 15, 60, 300]),
    series=st.integers(0, 500),
    points=st.integers(1, 50),
)
def test_every_grid_point_is_asked_exactly_once(start: int, length: int, step: int, series: int, points: int) -> None:
    """Whatever the span, the chunks cover the grid without overlap, aligned, within points and samples per request."""
    asked: list[int] = []
    biggest = points * max(1, series)

    def handle(request: httpx.Request) -> httpx.Response:
        form = {
            key: int(value[0].rstrip("s"))
            for key, value in parse_qs(request.content.decode()).items()
            if key != "query"
        }
        times = range(form["start"], form["end"] + 1, form["step"])
        assert form["start"] % step == 0
        assert len(times) <= points
        asked.extend(times)
        values = ",".join(f'[{t},"{t}"]' for t in times)
        return httpx.Response(
            200,
            text=f'{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[{values}]}}]}}}}',
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "MAX_SAMPLES", biggest)
        with client_of(handle) as (client, _):
            matrix = client.query_range("up", start, start + length, step, series)
    assert asked == grid(start, start + length, step).tolist()
    np.testing.assert_array_equal(matrix.timestamps, asked)
    if asked:
        np.testing.assert_array_equal(matrix.values[0], asked)


def test_metadata_that_nobody_declared_is_none() -> None:
    """Absent, unknown and empty metadata are all silence."""
    body = b'{"status":"success","data":{"a":[{"type":"counter","help":"","unit":""}],"b":[{"type":"unknown"}],"c":[]}}'
    with client_of(lambda request: httpx.Response(200, content=body)) as (client, _):
        assert [client.metadata_type(metric) for metric in "abcd"] == ["counter", None, None, None]


def test_a_partial_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings of a federated backend are not swallowed."""
    body = b'{"status":"success","warnings":["store-1 is down"],"data":{"resultType":"matrix","result":[]}}'
    with client_of(lambda request: httpx.Response(200, content=body)) as (client, _):
        client.query_range("up", 0, 60, 60)
    assert "store-1 is down" in caplog.text


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A real TCP server that reads the request and hands the socket over."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """The client hung up, as it should."""

    with Server(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def drip(connection: socket.socket) -> None:
    """A byte now and then: each read is quick, the whole never ends."""
    connection.sendall(HEAD % 10_000)
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.02)


def hang_up(connection: socket.socket) -> None:
    """Promise more than is sent."""
    connection.sendall(HEAD % 10_000 + TIME)


def flood(connection: socket.socket) -> None:
    """More than anyone asked for."""
    connection.sendall(HEAD % 10**10)
    while True:
        connection.sendall(b" " * 65_536)


@pytest.mark.parametrize(
    ("serve", "seconds", "error", "words"),
    [
        (drip, 0.3, TransientSourceError, r"within 0\.3 s; raise scrape_timeout"),
        (
            hang_up,
            5.0,
            TransientSourceError,
            r"broke off \(peer closed connection without sending complete.*tried once",
        ),
        (lambda connection: None, 5.0, TransientSourceError, "broke off"),
        (lambda connection: time.sleep(1), 0.3, TransientSourceError, "did not answer query within"),
        (flood, 5.0, PermanentSourceError, "more than 1 MiB for one query"),
    ],
)
def test_real_sockets_that_misbehave(
    serve: Callable[[socket.socket], None],
    seconds: float,
    error: type[SourceError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dripping, breaking off, hanging up, silence and floods all end soon, as what they are."""
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 2**20)
    started = time.monotonic()
    with (
        raw_server(serve) as url,
        PrometheusClient(url, timeout=seconds, retry=Retry(attempts=1)) as client,
        pytest.raises(error, match=words),
    ):
        client.now()
    assert time.monotonic() - started < 3.5  # a drip lasts four seconds


def test_a_closed_port_is_refused_and_said_so() -> None:
    """Nobody listens: transient, with the address and a question that helps."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with (
        PrometheusClient(url, retry=QUICK) as client,
        pytest.raises(TransientSourceError, match=r"refused.*is it running"),
    ):
        client.now()


def test_a_proxy_from_the_environment_is_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY on a laptop does not hide a Prometheus on the same machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    def serve(connection: socket.socket) -> None:
        connection.sendall(HEAD % len(TIME) + TIME)

    with raw_server(serve) as url, PrometheusClient(url, retry=QUICK) as client:
        assert client.now() == 4.0
