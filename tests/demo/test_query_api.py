"""The demo's own query API: what our client asks is answered as Prometheus would, the rest is refused by name."""

import json
import math
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.demo import source
from sentinel_core.demo.history import HISTORY_SECONDS
from sentinel_core.demo.query_api import QueryError, answer, parse
from sentinel_core.demo.target import Handler
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.prometheus.scrape import scrape, source_facts
from tests.prometheus_server import PrometheusServer

NOW = 1_790_000_007.0
WATCHES = [
    WatchConfig(metric="demo_requests_total", labels={"route": "!=/checkout"}),
    WatchConfig(metric="demo_requests_total", granularity="15s"),
    WatchConfig(metric="demo_cpu_ratio", labels={"instance": "=~web-[12]"}, granularity="15s"),
    WatchConfig(metric="demo_queue_depth", labels={"queue": "!~mail.*"}, granularity="5m"),
    WatchConfig(metric="demo_disk_used_ratio", granularity="5s"),
    WatchConfig(query="sum(rate(demo_requests_total[1m]))", name="demo_requests_per_second"),
]


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def real(prometheus_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus whose history was written as `sentinel up --demo` writes it."""
    server = PrometheusServer(tmp_path_factory.mktemp("demo"))
    source.backfill("promtool", server.folder / "data", now=int(time.time()), say=lambda line: None)
    server.start()
    yield server
    server.stop()


@pytest.mark.prometheus
@pytest.mark.parametrize("watch", WATCHES, ids=lambda watch: f"{watch.selector}@{watch.granularity}")
def test_reads_as_a_real_prometheus_over_the_same_history(
    watch: WatchConfig, demo_url: str, real: PrometheusServer
) -> None:
    """A watch scraped from the demo's API is what a real Prometheus with the same samples answers."""
    end = int(time.time()) - 600
    scrapes = []
    for url in (demo_url, real.url):
        with PrometheusClient(url) as client:
            facts = source_facts(client, watch, end)
            scrapes.append(scrape(client, watch, facts, end - 2 * 3_600, end))
    ours, theirs = scrapes
    assert [s.selector for s in ours.series] == [s.selector for s in theirs.series]
    np.testing.assert_allclose(ours.window.values, theirs.window.values, rtol=1e-9)


@pytest.mark.prometheus
def test_backfill_continues_where_the_last_run_ended(prometheus_programs: None, tmp_path: Path) -> None:
    """A second start writes only the gap, throws the write-ahead log away, and loses no sample."""
    now = int(time.time())
    said: list[str] = []
    source.backfill("promtool", tmp_path / "data", now=now - 3 * 3_600, say=said.append)
    (tmp_path / "data" / "wal").mkdir()
    source.backfill("promtool", tmp_path / "data", now=now, say=said.append)
    assert not (tmp_path / "data" / "wal").exists()
    assert "168.0 hours" in said[0]
    assert "3.0 hours" in said[1]
    server = PrometheusServer(tmp_path)
    server.start()
    try:
        with PrometheusClient(server.url) as client:
            found = scrape(client, WATCHES[2], source_facts(client, WATCHES[2], now), now - 6 * 3_600, now - 60)
        assert found.gaps == 0
    finally:
        server.stop()


@pytest.mark.parametrize(
    "query",
    [
        "foo(demo_cpu_ratio)",
        "demo_cpu_ratio + 1",
        "sum by (job) (demo_cpu_ratio)",
        "demo_cpu_ratio offset 5m",
        "1 or 2",
    ],
)
def test_what_is_not_supported_is_refused_and_named(query: str) -> None:
    """Never a wrong number: an expression beyond the client's is a 422 that says which part."""
    with pytest.raises(QueryError, match="not supported by the demo") as caught:
        parse(query)
    assert caught.value.status == 422


@pytest.mark.parametrize("query", ["demo_cpu_ratio{", "rate(demo_cpu_ratio)", "demo_cpu_ratio[0s]", "", 'up{a=~"("}'])
def test_what_is_malformed_is_a_bad_request(query: str) -> None:
    """Malformed expressions are 400, as in Prometheus."""
    with pytest.raises(QueryError) as caught:
        answer("/api/v1/query", {"query": query}, NOW)
    assert caught.value.status == 400


def test_nothing_is_known_of_the_future_or_before_the_week() -> None:
    """Samples stand from a week ago until now, and nowhere else."""
    for start in (NOW + 60, NOW - HISTORY_SECONDS - 3_600):
        query = {"query": "last_over_time(demo_cpu_ratio[59s])", "start": start, "end": start + 900, "step": "60"}
        found = answer("/api/v1/query_range", {key: str(value) for key, value in query.items()}, NOW)
        assert found["result"] == []


def test_too_many_points_are_refused() -> None:
    """More than 11,000 points per series are a 400, as in Prometheus."""
    query = {"query": "demo_cpu_ratio", "start": "0", "end": "1000000", "step": "15"}
    with pytest.raises(QueryError, match="11,000"):
        answer("/api/v1/query_range", query, NOW)


def test_aggregations_agree_with_numpy() -> None:
    """count, sum, avg, min, max, quantile and topk over the instances."""

    def ask(query: str) -> list[float]:
        return [float(row["value"][1]) for row in answer("/api/v1/query", {"query": query}, NOW)["result"]]

    values = ask("demo_cpu_ratio")
    assert ask("count(demo_cpu_ratio)") == [3]
    assert math.isclose(ask("sum(demo_cpu_ratio)")[0], sum(values))
    assert math.isclose(ask("avg(demo_cpu_ratio)")[0], sum(values) / 3)
    assert (ask("min(demo_cpu_ratio)"), ask("max(demo_cpu_ratio)")) == ([min(values)], [max(values)])
    assert ask("quantile(0.5, demo_cpu_ratio)") == [sorted(values)[1]]
    assert sorted(ask("topk(2, demo_cpu_ratio)")) == sorted(values)[1:]
    assert ask("count(nothing_here)") == []


@pytest.mark.prometheus
def test_the_metrics_page_is_clean(prometheus_programs: None, demo_url: str) -> None:
    """promtool finds nothing to complain about in /metrics."""
    text = httpx.get(f"{demo_url}/metrics", trust_env=False).content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_errors_have_prometheus_shape(demo_url: str) -> None:
    """Errors are JSON with status, errorType and error; unknown paths are 404."""
    refused = httpx.post(f"{demo_url}/api/v1/query", data={"query": "a+b"}, trust_env=False)
    assert (refused.status_code, json.loads(refused.text)["status"]) == (422, "error")
    assert httpx.get(f"{demo_url}/api/v1/rules", trust_env=False).status_code == 404
