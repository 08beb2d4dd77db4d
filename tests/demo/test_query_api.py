"""The demo's own query API: Prometheus' answers over the shop's past, where there is no Prometheus."""

import json
import math
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.demo import source
from sentinel_core.demo.history import HISTORY_SECONDS
from sentinel_core.demo.query_api import respond
from sentinel_core.demo.target import Handler
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.prometheus.scrape import scrape, source_facts
from sentinel_core.promql.errors import QueryError
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


def ask(path: str, **form: str | list[str]) -> Any:
    """The `data` of an answer."""
    fields = {name: [value] if isinstance(value, str) else value for name, value in form.items()}
    return json.loads(respond(f"/api/v1/{path}", fields, NOW))["data"]


@pytest.mark.parametrize("query", ["demo_cpu_ratio{", "rate(demo_cpu_ratio)", "demo_cpu_ratio[0s]", "", 'up{a=~"("}'])
def test_what_is_malformed_is_a_bad_request(query: str) -> None:
    """Malformed expressions are 400, as in Prometheus."""
    with pytest.raises(QueryError) as caught:
        ask("query", query=query)
    assert caught.value.status == 400


def test_nothing_is_known_of_the_future_or_before_the_week() -> None:
    """Samples stand from a week ago until now, and nowhere else."""
    for query in ("demo_cpu_ratio", "last_over_time(demo_cpu_ratio[59s])"):
        for start in (NOW + 360, NOW - HISTORY_SECONDS - 3_600):
            found = ask("query_range", query=query, start=str(start), end=str(start + 900), step="60")
            assert found == {"resultType": "matrix", "result": []}


def test_too_many_points_are_refused() -> None:
    """More than 11,000 points per series are a 400, as in Prometheus."""
    with pytest.raises(QueryError, match="11,000"):
        ask("query_range", query="demo_cpu_ratio", start="0", end="1000000", step="15")


def test_the_language_is_prometheus_own() -> None:
    """Aggregations, offsets, operators and functions are evaluated over the instances."""

    def values(query: str) -> list[float]:
        return [float(row["value"][1]) for row in ask("query", query=query)["result"]]

    cpu = values("demo_cpu_ratio")
    assert len(cpu) == 3
    assert math.isclose(values("sum by (job) (demo_cpu_ratio)")[0], sum(cpu))
    assert math.isclose(values("max(demo_cpu_ratio) - min(demo_cpu_ratio)")[0], max(cpu) - min(cpu))
    assert values("demo_cpu_ratio offset 5m") == values(f"demo_cpu_ratio @ {NOW - 300}")
    assert len(ask("query", query='demo_requests_total{route="/search"}[1m]')["result"][0]["values"]) == 4
    assert values("timestamp(demo_cpu_ratio)") == [1_790_000_002.0] * 3


def test_what_there_is_can_be_listed() -> None:
    """Series, labels and their values, under selectors or all."""
    assert ask("labels") == ["__name__", "instance", "job", "queue", "route"]
    assert ask("label/queue/values", start=str(NOW - 60), end=str(NOW + 60)) == ["mail", "orders"]
    selectors = ['demo_queue_depth{queue="mail"}', "demo_cpu_ratio"]
    assert len(ask("series", **{"match[]": selectors})) == 4
    assert ask("series", start=str(NOW + 60), end=str(NOW + 120)) == []


@pytest.mark.prometheus
def test_the_metrics_page_is_clean(prometheus_programs: None, demo_url: str) -> None:
    """promtool finds nothing to complain about in /metrics."""
    text = httpx.get(f"{demo_url}/metrics", trust_env=False).content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_errors_have_prometheus_shape(demo_url: str) -> None:
    """Errors are JSON with status, errorType and error; unknown paths are 404."""
    refused = httpx.post(f"{demo_url}/api/v1/query", data={"query": "a+"}, trust_env=False)
    assert (refused.status_code, json.loads(refused.text)["status"]) == (400, "error")
    assert httpx.get(f"{demo_url}/api/v1/rules", trust_env=False).status_code == 404
