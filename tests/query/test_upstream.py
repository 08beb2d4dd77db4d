"""The series of a real Prometheus as a Source, and what becomes of a Prometheus that does not answer."""

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from sentinel_core.config import AuthConfig, SentinelConfig
from sentinel_core.prometheus import PrometheusClient
from sentinel_core.promql.errors import ExecutionError, NotSupportedError, QueryError, QueryTimeoutError, TooBusyError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse_selector
from sentinel_core.promql.values import without
from sentinel_core.query import upstream as upstream_module
from sentinel_core.query.upstream import Upstream, UpstreamError
from tests.prometheus_server import DAY, HOUR, MINUTE, PrometheusServer

pytestmark = pytest.mark.prometheus


@pytest.fixture
def upstream(prometheus: PrometheusServer) -> Iterator[Upstream]:
    """The shared Prometheus."""
    found = Upstream(PrometheusClient(prometheus.url))
    yield found
    found.close()


def answering(status: int, body: str, content_type: str = "application/json") -> Upstream:
    """One that always answers the same."""
    response = httpx.Response(status, text=body, headers={"content-type": content_type})
    transport = httpx.MockTransport(lambda request: response)
    return Upstream(PrometheusClient("http://p:9090", transport=transport, environ={}))


def ask(server: PrometheusServer, endpoint: str, **form: object) -> list[dict[str, object]]:
    """The result of a query, straight from Prometheus."""
    body = httpx.post(f"{server.url}/api/v1/{endpoint}", data={k: str(v) for k, v in form.items()}, trust_env=False)
    return body.json()["data"]["result"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("selector", ["shop_load", 'shop_odd{kind!="x"}', '{__name__=~"shop_.*", pod=~".+"}'])
def test_a_vector_is_what_a_range_query_answers(
    selector: str, upstream: Upstream, prometheus: PrometheusServer
) -> None:
    """Values at every step as Prometheus sees them, holes, NaN and infinities too, over several requests."""
    end = prometheus.history.end + 30
    start = end - 700 * MINUTE // 2
    times = np.arange(start, end + 1, MINUTE // 2, dtype=np.int64) * 1_000
    found = upstream.vector(parse_selector(selector), times, Budget())
    expected = ask(prometheus, "query_range", query=selector, start=start, end=end, step=MINUTE // 2)
    assert len(times) > upstream_module.FIRST_POINTS
    assert len(found.labels) == len(expected) > 0
    for row in expected:
        place = found.labels.index(tuple(sorted(row["metric"].items())))  # type: ignore[attr-defined]
        stamps, texts = zip(*row["values"], strict=True)  # type: ignore[call-overload]
        assert (times[found.present[place]] // 1_000).tolist() == list(stamps)
        np.testing.assert_array_equal(found.values[place][found.present[place]], np.array(texts, np.float64))


@pytest.mark.parametrize("selector", ["shop_fast", '{__name__=~"shop_(fast|slow)"}'])
def test_timestamps_are_those_of_the_samples(selector: str, upstream: Upstream, prometheus: PrometheusServer) -> None:
    """The samples' own times, with the series' whole labels, whether a name is asked for or not."""
    end = prometheus.history.end
    times = np.array([end - 60, end - 30], np.int64) * 1_000
    plain = upstream.vector(parse_selector(selector), times, Budget())
    found = upstream.vector(parse_selector(selector), times, Budget(), timestamps=True)
    assert sorted(found.labels) == sorted(plain.labels)
    fast = [i for i, labels in enumerate(found.labels) if ("__name__", "shop_fast") in labels]
    assert found.values[fast].tolist() == [[end - 72, end - 42]] * 2


def test_samples_are_raw_and_each_there_once(upstream: Upstream, prometheus: PrometheusServer) -> None:
    """Raw samples of several days come in several requests, whose borders neither lose nor double any."""
    end, matchers = prometheus.history.end, parse_selector("shop_load")
    found = upstream.samples(matchers, (end - 2 * DAY) * 1_000, end * 1_000, Budget())
    assert len(found.labels) == 6
    first, last = prometheus.history.hole
    for i in range(6):
        mine = found.times[found.offsets[i] : found.offsets[i + 1]] // 1_000
        wanted = [t for t in range(end - 2 * DAY + MINUTE, end + 1, MINUTE) if not first <= t <= last]
        assert [t for t in mine.tolist() if t > end - 2 * DAY] == wanted
    (row, *_) = ask(prometheus, "query", query="shop_load[10m]", time=end)
    place = found.labels.index(tuple(sorted(row["metric"].items())))  # type: ignore[attr-defined]
    newest = found.values[: found.offsets[place + 1]][-5:].tolist()
    assert newest == [float(text) for _, text in row["values"]][-5:]  # type: ignore[attr-defined]


def test_infinities_and_nan_are_samples_like_others(upstream: Upstream, prometheus: PrometheusServer) -> None:
    """What JSON has no number for arrives as it is."""
    end = prometheus.history.end * 1_000
    found = upstream.samples(parse_selector("shop_odd"), end - 120_000, end, Budget())
    newest = {
        dict(labels)["kind"]: found.values[last - 1]
        for labels, last in zip(found.labels, found.offsets[1:], strict=True)
    }
    assert np.isnan(newest["nan"])
    assert (newest["pinf"], newest["ninf"]) == (np.inf, -np.inf)


def test_series_and_lists(upstream: Upstream, prometheus: PrometheusServer) -> None:
    """Series within a time, labels and values; times with nothing have nothing."""
    end, budget = prometheus.history.end * 1_000, Budget()
    fast = parse_selector("shop_fast")
    found = upstream.series(fast, end - HOUR * 1_000, end, budget)
    assert {without(labels, "shard") for labels in found} == {(("__name__", "shop_fast"),)}
    assert upstream.series(parse_selector("shop_gone"), end - HOUR * 1_000, end, budget) == []
    assert upstream.label_names([fast], end - HOUR * 1_000, end, budget) == ["__name__", "shard"]
    assert upstream.label_values("shard", [fast], end - HOUR * 1_000, end, budget) == ["0", "1"]
    assert "shop_fast" in upstream.label_values("__name__", [], end - HOUR * 1_000, end, budget)
    assert upstream.metadata("no_such_metric", budget) == {}


def test_a_request_is_passed_on_whole(upstream: Upstream, prometheus: PrometheusServer) -> None:
    """Answers and errors come back as Prometheus gave them."""
    form = [("query", "shop_load"), ("time", str(prometheus.history.end))]
    with upstream.forward("query", form, Budget()) as answer:
        body = b"".join(answer.pieces)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert len(json.loads(body)["data"]["result"]) == 6
    with upstream.forward("query", [("query", "shop_load +")], Budget()) as answer:
        body = b"".join(answer.pieces)
    assert (answer.status, json.loads(body)["errorType"]) == (400, "bad_data")
    with upstream.forward(
        "label/shard/values", [("match[]", "shop_slow"), ("match[]", "shop_fast")], Budget()
    ) as answer:
        assert json.loads(b"".join(answer.pieces))["data"] == ["0", "1"]


def test_what_prometheus_refuses_keeps_its_status_and_words(upstream: Upstream) -> None:
    """An error while a selector is fetched is Prometheus' own."""
    with pytest.raises(UpstreamError, match="at least one non-empty matcher") as caught:
        upstream.vector([], np.array([0]), Budget())
    assert (caught.value.status, caught.value.kind) == (400, "bad_data")


def test_an_answer_is_no_larger_than_the_budget(upstream: Upstream, prometheus: PrometheusServer) -> None:
    """Too many samples end the reading, and so does the time."""
    end = prometheus.history.end * 1_000
    with pytest.raises(ExecutionError, match="too many samples"):
        upstream.samples(parse_selector("shop_load"), end - DAY * 1_000, end, Budget(cells=1_000))
    with pytest.raises(QueryTimeoutError):
        upstream.series(parse_selector("shop_load"), 0, end, Budget(deadline=0.0))


def test_nobody_there() -> None:
    """A Prometheus that cannot be reached is unavailable, with its address and a question that helps."""
    upstream = Upstream(PrometheusClient("http://127.0.0.1:9", environ={}))
    with pytest.raises(TooBusyError, match=r"127\.0\.0\.1:9 cannot be reached .*is it running"):
        upstream.series(parse_selector("up"), 0, 1, Budget())
    with pytest.raises(TooBusyError), upstream.forward("query", [("query", "up")], Budget()):
        pass


def test_a_missing_secret_is_told_to_whoever_asks() -> None:
    """Making the source raises nothing: what is ours is answered all the same."""
    config = SentinelConfig(auth=AuthConfig(bearer_token_env="NOBODY_SET_THIS"))
    upstream = Upstream.of(config)
    with pytest.raises(TooBusyError, match="the environment variable NOBODY_SET_THIS is not set"):
        upstream.series(parse_selector("up"), 0, 1, Budget())
    upstream.close()


@pytest.mark.parametrize(
    ("status", "body", "content_type", "error", "words"),
    [
        (302, "to the login", "text/html", TooBusyError, "302 with text/html that is not Prometheus' JSON"),
        (200, "<html>", "application/json", TooBusyError, "is it the address of Prometheus itself"),
        (
            200,
            '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1,{}]]}]}}',
            "application/json",
            NotSupportedError,
            "native histograms",
        ),
        (
            422,
            '{"status":"error","errorType":"execution","error":"too many samples"}',
            "application/json",
            UpstreamError,
            "^too many samples$",
        ),
    ],
)
def test_strange_answers(status: int, body: str, content_type: str, error: type[QueryError], words: str) -> None:
    """Pages of a login, histograms and refusals are each what they are."""
    with pytest.raises(error, match=words):
        answering(status, body, content_type).samples(parse_selector("up"), 0, 1_000, Budget())
