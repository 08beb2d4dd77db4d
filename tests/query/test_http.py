"""The query API as its clients meet it: forms, times, errors, lists, and what is passed on."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sentinel_core.apps import query_threads
from sentinel_core.apps.query_form import Form, label_name
from sentinel_core.apps.sidecar import create_app
from sentinel_core.errors import StoreError
from sentinel_core.promql.errors import BadQueryError
from sentinel_core.security.secret import Pepper
from tests.apps.server import running
from tests.emitter.fleet import NOW, Fleet, many
from tests.query.conftest import NAME, REQUESTS, forecast

LABELS = {
    "__name__": NAME,
    "instance": "10.0.0.0:9090",
    "job": "api",
    "sentinel_horizon": "2h",
    "sentinel_version": "v1",
}
FIRST = f'{NAME}{{instance="10.0.0.0:9090"}}'


def data(answer: httpx.Response) -> Any:
    """The data of a success."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content["status"] == "success"
    return content["data"]


def refusal(answer: httpx.Response, status: int, kind: str) -> str:
    """The words of an error."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    content = answer.json()
    assert (content["status"], content["errorType"]) == ("error", kind)
    return str(content["error"])


def test_an_instant_query_by_either_method(client: httpx.Client) -> None:
    """A URL and a form ask the same, the form first; a time is seconds or RFC 3339, and now by default."""
    at = NOW + 120
    expected = {"resultType": "vector", "result": [{"metric": LABELS, "value": [at, "2"]}]}
    asked = {"query": FIRST, "time": str(at)}
    assert data(client.get("/api/v1/query", params=asked)) == expected
    assert data(client.post("/api/v1/query", data=asked)) == expected
    assert data(client.post("/api/v1/query?time=1&query=x", data=asked)) == expected
    assert data(client.get("/api/v1/query", params={**asked, "time": "2027-01-15T09:02:00.000+01:00"})) == expected
    now = data(client.post("/api/v1/query", data={"query": "time()"}))
    assert now == {"resultType": "scalar", "result": [NOW + 30, str(NOW + 30)]}


def test_a_range_reaches_into_the_future(client: httpx.Client) -> None:
    """Every forecast step stands at its own time; an expression over the series works too."""
    asked = {"query": FIRST, "start": NOW, "end": NOW + 180.5, "step": "1m"}
    points = [[NOW + 60, "1"], [NOW + 120, "2"], [NOW + 180, "3"]]
    expected = {"resultType": "matrix", "result": [{"metric": LABELS, "values": points}]}
    assert data(client.get("/api/v1/query_range", params=asked)) == expected
    asked |= {
        "query": f"sum by (job) ({NAME}) / 3",
        "start": NOW + 60,
        "end": NOW + 60,
        "step": "60.000",
        "timeout": "5s",
    }
    (row,) = data(client.post("/api/v1/query_range", data=asked))["result"]
    assert row == {"metric": {"job": "api"}, "values": [[NOW + 60, "1001"]]}


def test_a_range_vector_at_one_time(client: httpx.Client) -> None:
    """It answers with the samples themselves."""
    asked = {"query": f"{FIRST}[2m]", "time": NOW + 120}
    (row,) = data(client.get("/api/v1/query", params=asked))["result"]
    assert row == {"metric": LABELS, "values": [[NOW + 60, "1"], [NOW + 120, "2"]]}


def test_lists(client: httpx.Client) -> None:
    """Labels, values, series and metadata, of everything or of what match[] says."""
    span = {"start": NOW, "end": NOW + 7200}
    assert set(LABELS) <= set(data(client.post("/api/v1/labels", data=span)))
    names = data(client.get("/api/v1/label/__name__/values", params=span))
    assert {NAME, f"{NAME}_lower", f"{NAME}_upper", "sentinel_build_info"} <= set(names)
    assert names == sorted(names)
    some = {"match[]": [f'{NAME}{{instance=~".*:9090"}}', "nothing"], **span}
    assert data(client.get("/api/v1/labels", params=some)) == sorted(LABELS)
    assert data(client.get("/api/v1/label/job/values", params=some)) == ["api"]
    found = data(client.post("/api/v1/series", data=some))
    assert len(found) == 3
    assert found[0] == LABELS
    assert data(client.post("/api/v1/series", data={"match[]": NAME, "start": NOW - 7200, "end": NOW - 3600})) == []
    assert data(client.get("/api/v1/label/U__of_2e_nobody/values")) == []
    described = data(client.get("/api/v1/metadata", params={"metric": NAME}))
    assert described[NAME][0]["type"] == "gauge"
    assert "requests" in described[NAME][0]["help"]


def test_a_limit_is_said(client: httpx.Client) -> None:
    """What is more than `limit` is left out, with a warning; 0 is no limit."""
    asks = {
        "/api/v1/query": {"query": NAME, "time": NOW + 60},
        "/api/v1/query_range": {"query": NAME, "start": NOW, "end": NOW + 60, "step": 60},
        "/api/v1/series": {"match[]": NAME},
        "/api/v1/labels": {"match[]": NAME},
        "/api/v1/label/instance/values": {"match[]": NAME},
    }
    for path, asked in asks.items():
        cut = client.get(path, params={**asked, "limit": 2}).json()
        rows = cut["data"]["result"] if "result" in cut["data"] else cut["data"]
        assert (len(rows), cut["warnings"]) == (2, ["results truncated due to limit"]), path
        assert "warnings" not in client.get(path, params={**asked, "limit": 0}).json()
    assert len(data(client.get("/api/v1/metadata", params={"limit": 2}))) == 2


def test_what_there_is_none_of(client: httpx.Client) -> None:
    """No rules and no exemplars, whose times Grafana sends in milliseconds; formatting needs no series."""
    assert data(client.get("/api/v1/rules", params={"type": "alert"})) == {"groups": []}
    assert data(client.get("/api/v1/query_exemplars", params={"query": "x", "start": NOW * 1000})) == []
    assert data(client.post("/api/v1/format_query", data={"query": "a{b!=''}+c"})) == 'a{b!=""} + c'


@pytest.mark.parametrize(
    ("path", "asked", "status", "kind", "words"),
    [
        ("query", {"query": "foo("}, 400, "bad_data", "parse error: "),
        ("query", {}, 400, "bad_data", "no expression found"),
        ("query", {"query": "1", "time": "soon"}, 400, "bad_data", '"time": cannot parse "soon" to a valid timestamp'),
        ("query", {"query": "1", "time": "1e300"}, 400, "bad_data", "timestamp"),
        ("query", {"query": "1", "time": "2027-02-30T00:00:00Z"}, 400, "bad_data", "timestamp"),
        ("query", {"query": "1", "timeout": "soon"}, 400, "bad_data", '"timeout": cannot parse "soon" to a valid'),
        ("query", {"query": "1", "limit": "-1"}, 400, "bad_data", "limit must be non-negative"),
        ("query", {"query": f"{NAME} + on(job) {NAME}", "time": NOW + 60}, 422, "execution", "many-to-many"),
        ("query", {"query": "info(x)"}, 422, "execution", "not supported"),
        ("query", {"query": "1", "lookback_delta": "1m"}, 422, "execution", "lookback_delta: not supported"),
        ("query_range", {"query": "1", "start": 2, "end": 1, "step": 1}, 400, "bad_data", "must not be before"),
        ("query_range", {"query": "1", "start": 1, "end": 2, "step": 0}, 400, "bad_data", "zero or negative"),
        ("query_range", {"query": "1", "start": 1, "end": 2}, 400, "bad_data", '"step": cannot parse ""'),
        ("query_range", {"query": "1", "start": 1, "end": 2, "step": "1h1"}, 400, "bad_data", "valid duration"),
        ("query_range", {"query": "1", "start": 0, "end": 11_000, "step": 1}, 400, "bad_data", "11,000 points"),
        ("query_range", {"query": "x[1m]", "start": 0, "end": 1, "step": 1}, 400, "bad_data", '"range vector" for'),
        ("query_range", {"query": "'x'", "start": 0, "end": 1, "step": 1}, 400, "bad_data", '"string" for range'),
        ("series", {}, 400, "bad_data", "no match[] parameter provided"),
        ("series", {"match[]": "x", "start": 2, "end": 1}, 400, "bad_data", "must not be before"),
        ("series", {"match[]": "x[1m]"}, 400, "bad_data", "selector"),
        ("labels", {"match[]": "{}"}, 400, "bad_data", "non-empty matcher"),
        ("label/U__a_2/values", {}, 400, "bad_data", 'invalid label name: "U__a_2"'),
    ],
)
def test_errors_have_prometheus_words(
    client: httpx.Client, path: str, asked: dict[str, Any], status: int, kind: str, words: str
) -> None:
    """400 for what cannot be read, 422 for what has no answer; JSON both."""
    assert words in refusal(client.get(f"/api/v1/{path}", params=asked), status, kind)


def test_methods_and_paths(client: httpx.Client) -> None:
    """A wrong method is a 405 that says which are right, so that Grafana asks again; what is not there is a 404."""
    for path, allowed in (("label/job/values", "GET, HEAD"), ("query", "GET, HEAD, POST")):
        answer = client.put(f"/api/v1/{path}")
        assert "PUT is not possible" in refusal(answer, 405, "bad_data")
        assert answer.headers["allow"] == allowed
    refusal(client.get("/api/v1/search/metric_names"), 404, "not_found")


def test_a_form_is_utf8_and_not_too_large(client: httpx.Client) -> None:
    """Anything else is a 400."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert "UTF-8" in refusal(client.post("/api/v1/query", content=b"query=%ff", headers=headers), 400, "bad_data")
    large = client.post("/api/v1/query", data={"query": "x" * 200_000})
    assert "bytes" in refusal(large, 400, "bad_data")
    assert "8,192 bytes" in refusal(client.post("/api/v1/query", data={"query": "x" * 9_000}), 400, "bad_data")


def test_gzip_where_it_is_asked_for(client: httpx.Client) -> None:
    """The same answer, compressed. Security headers are on both."""
    asked = {"query": NAME, "start": NOW, "end": NOW + 7200, "step": 15}
    plain, packed = (
        client.post("/api/v1/query_range", data=asked, headers={"accept-encoding": kind})
        for kind in ("identity", "gzip")
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.content == plain.content
    assert packed.headers["x-content-type-options"] == "nosniff"


def test_a_long_answer_leaves_in_pieces(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also compressed, as one member."""
    monkeypatch.setattr(query_threads, "PIECE_BYTES", 1 << 16)
    asked = {"query": f"{NAME} or {NAME} offset 1d", "start": NOW, "end": NOW + 7199.3, "step": "0.7"}
    plain = client.get("/api/v1/query_range", params=asked, headers={"accept-encoding": "identity"})
    assert plain.headers.get("transfer-encoding") == "chunked"
    assert [len(row["values"]) for row in data(plain)["result"]] == [10_199] * 3
    with client.stream("GET", "/api/v1/query_range", params=asked, headers={"accept-encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content


def test_requests_are_counted(client: httpx.Client) -> None:
    """By endpoint and outcome; a client invents no label values."""
    client.get("/api/v1/query?query=1")
    client.get("/api/v1/query?query=(")
    client.get("/api/v1/label/anything/values")
    text = client.get("/metrics").text
    for endpoint, outcome in (("query", "success"), ("query", "bad_data"), ("label", "success")):
        assert f'sentinel_query_requests_total{{endpoint="{endpoint}",outcome="{outcome}"}}' in text
    assert "anything" not in text
    assert 'sentinel_query_seconds_count{endpoint="query"}' in text
    assert 'sentinel_http_requests_total{code="200",route="/api/v1/query"}' in text


@pytest.mark.postgres
def test_a_store_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """Every source answers from it, and a commit is seen by the next query."""
    fleet = Fleet.open(tmp_path, [REQUESTS], sql_url=postgres_url, query_passthrough=False)
    fleet.live(REQUESTS, many("requests", 3, job="api"))
    app = create_app(fleet.config, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)
    with running(app) as client:

        def names() -> set[str]:
            asked = {"query": '{__name__!=""}', "time": NOW + 60}
            return {row["metric"]["__name__"] for row in data(client.get("/api/v1/query", params=asked))["result"]}

        assert NAME not in names()
        forecast(fleet)
        assert NAME in names()
        for name in ("requests_sentinel_actual", "requests_sentinel_mase", "sentinel_incidents", "sentinel_model_psi"):
            assert data(client.get("/api/v1/query", params={"query": name, "time": NOW}))["result"] == []
        assert NAME in data(client.get("/api/v1/label/__name__/values"))
    fleet.store.close()


@pytest.mark.parametrize("text", ["1h30m", "5400", "5400.0", "5.4e3", "5400000ms"])
def test_durations(text: str) -> None:
    """Seconds, or as Prometheus writes them."""
    assert Form([("step", text)]).duration("step") == 5_400_000


@pytest.mark.parametrize("text", ["", "m", "1m1h", "1.5m", "nan", "inf", "0x10", "1_0", "9" * 400, "9" * 16 + "y"])
def test_what_is_no_duration(text: str) -> None:
    """It is refused, however long it is."""
    with pytest.raises(BadQueryError, match="to a valid duration"):
        Form([("step", text)]).duration("step")


@pytest.mark.parametrize("text", ["U__", "U__a_110000_", "U__a_d800_", "U__a_zz_", "U__a_"])
def test_what_is_no_label_name(text: str) -> None:
    """Escapes stand for characters that there are."""
    with pytest.raises(BadQueryError, match="invalid label name"):
        label_name(text)


# ---- the Prometheus behind us


class Upstream:
    """Answers what a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()  # set: it does not answer
        self.answer: Response = JSONResponse({"status": "success", "data": {"resultType": "vector", "result": []}})

    async def respond(self, request: Request) -> Response:
        form = dict(request.query_params) | dict(await request.form())
        self.asked.append((request.url.path, form))
        self.headers |= dict(request.headers)
        while self.hold.is_set():
            await asyncio.sleep(0.01)
        return self.answer


@contextmanager
def passing_through(
    fleet: Fleet, upstream: Upstream, *, now: float = NOW + 30.0, pepper: Pepper | None = None
) -> Iterator[httpx.Client]:
    """A client of a sidecar before that Prometheus."""
    routes = [Route("/{path:path}", upstream.respond, methods=["GET", "POST"])]
    with running(Starlette(routes=routes)) as behind:
        config = replace(fleet.config, query_passthrough=True, prometheus_url=str(behind.base_url))
        app = create_app(config, fleet.store, status=lambda _: {}, now=lambda: now, pepper=pepper)
        with running(app) as client:
            yield client


def test_what_is_not_ours_is_passed_on_whole(fleet: Fleet) -> None:
    """The query as it came, and the answer as it comes, errors too; our own names are not asked for."""
    upstream = Upstream()
    with passing_through(fleet, upstream) as client:
        asked = {"query": "sum(rate(requests[5m]))", "time": "7", "stats": "all"}
        assert data(client.post("/api/v1/query", data=asked)) == {"resultType": "vector", "result": []}
        ((path, form),) = upstream.asked
        assert path == "/api/v1/query"
        assert form.items() >= asked.items()
        upstream.answer = JSONResponse({"status": "error", "errorType": "execution", "error": "no way"}, 422)
        assert refusal(client.post("/api/v1/query", data=asked), 422, "execution") == "no way"
        upstream.asked.clear()
        assert len(data(client.get("/api/v1/query", params={"query": NAME, "time": NOW + 60}))["result"]) == 3
        assert data(client.get("/api/v1/query", params={"query": "1+1", "time": 4})) == {
            "resultType": "scalar",
            "result": [4, "2"],
        }
        assert not upstream.asked


def test_ours_and_theirs_in_one_expression(fleet: Fleet) -> None:
    """The selectors of Prometheus' names are asked for, and the whole is evaluated here; its refusals are passed on."""
    upstream = Upstream()
    series = {"__name__": "requests", "instance": "10.0.0.0:9090", "job": "api"}
    row = {"metric": series, "values": [[NOW + 60, "5"]]}
    upstream.answer = JSONResponse({"status": "success", "data": {"resultType": "matrix", "result": [row]}})
    asked = {"query": f"requests - ignoring(sentinel_horizon, sentinel_version) {NAME}", "time": NOW + 60}
    with passing_through(fleet, upstream) as client:
        (found,) = data(client.post("/api/v1/query", data=asked))["result"]
        assert found == {"metric": {"instance": "10.0.0.0:9090", "job": "api"}, "value": [NOW + 60, "4"]}
        upstream.answer = JSONResponse({"status": "error", "errorType": "timeout", "error": "too late"}, 503)
        assert refusal(client.post("/api/v1/query", data=asked), 503, "timeout") == "too late"


def test_nobody_behind_us(fleet: Fleet) -> None:
    """Where Prometheus does not answer, what is not ours is a 503 and what is ours goes on."""
    upstream = Upstream()
    with passing_through(fleet, upstream) as client:
        upstream.answer = Response("<html>", 502, media_type="text/html")
        assert "prometheus_url" in refusal(client.get("/api/v1/query?query=up"), 503, "unavailable")
        assert len(data(client.get("/api/v1/query", params={"query": NAME, "time": NOW + 60}))["result"]) == 3


def test_a_reload_changes_who_is_asked_and_for_how_much(fleet: Fleet, tmp_path: Path) -> None:
    """The next query goes by the new configuration."""
    file, upstreams = tmp_path / "config.json", [Upstream(), Upstream()]
    file.write_text(json.dumps(fleet.config.to_dict()))
    apps = [Starlette(routes=[Route("/{path:path}", one.respond, methods=["POST"])]) for one in upstreams]
    with (
        running(apps[0]) as one,
        running(apps[1]) as other,
        running(create_app(file, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)) as client,
    ):

        def reload(**changed: object) -> list[int]:
            file.write_text(json.dumps(fleet.config.to_dict() | changed))
            assert data(client.post("/-/reload"))["needs_restart"] == []
            data(client.get("/api/v1/query?query=up"))
            return [len(one.asked) for one in upstreams]

        assert reload(query_passthrough=True, prometheus_url=str(one.base_url)) == [1, 0]
        assert reload(query_passthrough=True, prometheus_url=str(other.base_url)) == [1, 1]
        assert reload(query_passthrough=False, prometheus_url=str(other.base_url), query_samples=2) == [1, 1]
        asked = {"query": NAME, "time": NOW + 60}
        assert "more than 2" in refusal(client.get("/api/v1/query", params=asked), 422, "execution")


@pytest.mark.parametrize("name", [NAME, "requests_sentinel_actual", "sentinel_incidents", '{__name__=~".+"}'])
def test_a_store_that_does_not_answer(
    client: httpx.Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is a 503 that says why; what needs no store is answered."""

    def fail(*_: object) -> NoReturn:
        raise StoreError("the disk is on fire")

    monkeypatch.setattr(fleet.store.database, "change_token", fail)
    monkeypatch.setattr(fleet.store.database, "read", fail)
    for path, asked in (("query", {"query": name, "time": NOW + 60}), ("series", {"match[]": name})):
        assert "on fire" in refusal(client.get(f"/api/v1/{path}", params=asked), 503, "unavailable")
    assert data(client.get("/api/v1/query?query=1"))["resultType"] == "scalar"
    assert data(client.get("/api/v1/query?query=sentinel_build_info"))["resultType"] == "vector"


def test_nothing_is_passed_through_where_that_is_off(client: httpx.Client) -> None:
    """Names that are not ours have no series then."""
    assert data(client.get("/api/v1/query?query=up"))["result"] == []
    assert data(client.get("/api/v1/query?query=up-up"))["result"] == []
    assert json.loads(client.get('/api/v1/query?query={job="api"}').content)["status"] == "success"
