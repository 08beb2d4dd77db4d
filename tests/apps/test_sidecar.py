"""The sidecar as its clients meet it: over HTTP, from a real store."""

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from sentinel_core.apps.sidecar import create_app, listen
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.emitter.exposition import ForecastRenderer
from sentinel_core.errors import ConfigError, ServiceError, StoreError
from tests.apps.server import eventually, free_port, running
from tests.emitter.fleet import NOW, Fleet, Issue, many

REQUESTS = WatchConfig(metric="requests", model_class="LinearTrendModel")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def no_status(_: SentinelConfig) -> Mapping[str, Any]:
    """A status that nobody asks for."""
    raise AssertionError


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A store with one watch of three series, without a forecast yet."""
    fleet = Fleet.open(tmp_path, [REQUESTS], emit_confidence_bounds=True)
    fleet.live(REQUESTS, many("requests", 3))
    yield fleet
    fleet.store.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    """A client of a sidecar over the fleet."""
    with running(create_app(fleet.config, fleet.store, status=no_status, now=lambda: NOW + 30.0)) as client:
        eventually(lambda: "sentinel_store_up 1.0" in client.get("/metrics").text)
        yield client


def issue(fleet: Fleet, origin: int = NOW, version: int = 1) -> None:
    """Forecast the fleet's series."""
    series = many("requests", 3)
    fleet.forecast(Issue(REQUESTS, series, np.arange(15.0).reshape(3, 5), version), origin=origin)


def ready(client: httpx.Client) -> bool:
    """Whether the sidecar says it is ready."""
    return client.get("/-/ready").status_code == 200


def test_ready_with_the_first_forecast(fleet: Fleet, client: httpx.Client) -> None:
    """/-/ready is 503 with a reason until a forecast is served; /-/healthy is 200 all the time."""
    assert client.get("/-/healthy").status_code == 200
    answer = client.get("/-/ready")
    assert answer.status_code == 503
    assert "no watch of 1 has a forecast yet" in answer.text
    issue(fleet)
    eventually(lambda: ready(client))


def test_ready_without_watches(fleet: Fleet) -> None:
    """Without watches there is no forecast to wait for: events of models in production are taken."""
    config = SentinelConfig(artifact_store=fleet.config.artifact_store)
    with running(create_app(config, fleet.store, status=no_status)) as client:
        eventually(lambda: ready(client))


def test_both_formats_and_both_encodings_say_the_same(fleet: Fleet, client: httpx.Client) -> None:
    """The official parsers read the same forecasts from the text format and from OpenMetrics, plain or gzip."""
    issue(fleet)
    eventually(lambda: ready(client))
    found = []
    for accept, parse in (("text/plain", parse_plain), (OPENMETRICS, parse_openmetrics)):
        for encoding in ("gzip", "identity"):
            answer = client.get("/metrics", headers={"accept": accept, "accept-encoding": encoding})
            assert answer.headers["content-type"].startswith(accept.split(";")[0])
            assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
            families = {family.name: family for family in parse(answer.text)}
            assert families["sentinel_store_up"].samples[0].value == 1.0
            found.append([(s.labels, s.value) for s in families["requests_sentinel_predicted_upper"].samples])
    assert len(found[0]) == 15
    assert all(one == found[0] for one in found)


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say(fleet: Fleet, client: httpx.Client, prometheus_programs: None) -> None:
    """`promtool check metrics` reads the whole page without one complaint."""
    fleet.serve(REQUESTS)
    fleet.state(REQUESTS, severity="low", drift_mae=0.1)
    issue(fleet)
    eventually(lambda: ready(client))
    page = client.get("/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_new_version_replaces_the_old_ones_lines(fleet: Fleet, client: httpx.Client) -> None:
    """After the next forecast the lines of the older version are gone."""
    issue(fleet, version=1)
    eventually(lambda: 'sentinel_version="v1"' in client.get("/metrics").text)
    issue(fleet, origin=NOW + 60, version=2)
    eventually(lambda: 'sentinel_version="v2"' in client.get("/metrics").text)
    assert 'sentinel_version="v1"' not in client.get("/metrics").text


def test_what_grafana_and_prometheus_ask_first(client: httpx.Client) -> None:
    """Build information has Prometheus' shape and no features; what is not there is a JSON 404."""
    info = client.get("/api/v1/status/buildinfo").json()
    assert info["status"] == "success"
    assert set(info["data"]) == {"version"}
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["errorType"] == "not_found"


def test_status_json_is_the_callers(fleet: Fleet) -> None:
    """/status.json answers what the status callable returns, and 503 where it cannot."""
    answers = iter([{"requests": {"ready": True}}, StoreError("locked; end the other program")])

    def status(config: SentinelConfig) -> Mapping[str, Any]:
        assert config is fleet.config
        answer = next(answers)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    with running(create_app(fleet.config, fleet.store, status=status)) as client:
        assert client.get("/status.json").json() == {"requests": {"ready": True}}
        failed = client.get("/status.json")
        assert (failed.status_code, failed.json()["error"]) == (503, "locked; end the other program")


def test_reload_reads_the_configuration_again(fleet: Fleet, tmp_path: Path) -> None:
    """POST /-/reload shows the watches of the changed file, and says what needs a restart."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(fleet.config.to_dict()))
    issue(fleet)
    with running(create_app(file, fleet.store, status=no_status)) as client:
        eventually(lambda: ready(client))
        changed = fleet.config.to_dict() | {"watches": [], "emitter_port": 9999}
        file.write_text(json.dumps(changed))
        answer = client.post("/-/reload")
        assert answer.json()["data"] == {"watches": 0, "needs_restart": ["emitter_port"]}
        assert "requests_sentinel_predicted" not in client.get("/metrics").text


def test_reload_of_a_broken_file_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """A configuration with problems is answered with all of them; what is served goes on, and a metric says so."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(fleet.config.to_dict()))
    issue(fleet)
    with running(create_app(file, fleet.store, status=no_status)) as client:
        eventually(lambda: ready(client))
        file.write_text(json.dumps({"emitter_port": -1, "bogus": 1}))
        answer = client.post("/-/reload")
        assert answer.status_code == 400
        assert len(answer.json()["problems"]) == 2
        assert ready(client)
        assert "sentinel_config_last_reload_successful 0.0" in client.get("/metrics").text


def test_reload_needs_a_file(client: httpx.Client) -> None:
    """A sidecar that was given its configuration as an object says that there is nothing to read."""
    assert client.post("/-/reload").status_code == 409


def test_reload_only_from_this_machine(fleet: Fleet) -> None:
    """A request from another address is refused."""

    async def ask(address: str) -> int:
        transport = httpx.ASGITransport(create_app(fleet.config, fleet.store, status=no_status), client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.post("/-/reload")).status_code

    assert asyncio.run(ask("10.1.2.3")) == 403
    assert asyncio.run(ask("::1")) == 409


@pytest.mark.parametrize(
    ("bind_address", "host", "code"),
    [
        ("127.0.0.1", "localhost:8080", 200),
        ("127.0.0.1", "127.0.0.1:8080", 200),
        ("127.0.0.1", "[::1]:8080", 200),
        ("127.0.0.1", "rebound.example:8080", 403),
        ("127.0.0.1", "[nonsense", 403),
        ("0.0.0.0", "sentinel.example:8080", 200),
    ],
)
def test_on_loopback_only_own_names_are_answered(fleet: Fleet, bind_address: str, host: str, code: int) -> None:
    """A name of somebody else's that was made to point at this machine reads nothing of a private sidecar."""
    app = create_app(replace(fleet.config, bind_address=bind_address), fleet.store, status=no_status)
    with running(app) as client:
        assert client.get("/-/healthy", headers={"host": host}).status_code == code


@pytest.mark.parametrize(
    ("site", "code"), [("cross-site", 403), ("same-site", 403), ("same-origin", 409), ("none", 409)]
)
def test_another_sites_page_cannot_post(client: httpx.Client, site: str, code: int) -> None:
    """A POST that a browser sends for another site's page is refused; links from anywhere still lead here."""
    assert client.post("/-/reload", headers={"sec-fetch-site": site}).status_code == code
    assert client.get("/-/healthy", headers={"sec-fetch-site": site}).status_code == 200


def test_what_cannot_be_rendered_is_survived(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error behind the reading is said like one of the store, and the refreshing goes on after it."""
    monkeypatch.setattr(ForecastRenderer, "render", _raise)
    with running(create_app(fleet.config, fleet.store, status=no_status)) as client:
        eventually(lambda: "it broke" in client.get("/-/ready").text)
        assert "sentinel_store_up 0.0" in client.get("/metrics").text
        monkeypatch.undo()
        eventually(lambda: "sentinel_store_up 1.0" in client.get("/metrics").text)


def _raise(*_: object) -> None:
    raise ArithmeticError("it broke")


def test_an_unusable_file_is_said_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """Assembling from a missing file raises ConfigError."""
    with pytest.raises(ConfigError, match="no such file"):
        create_app(tmp_path / "none.json", fleet.store, status=no_status)


def test_an_unreadable_store_is_survived(fleet: Fleet, client: httpx.Client, tmp_path: Path) -> None:
    """While the store cannot be read the last forecasts are served, metrics and page say so, and it recovers."""
    issue(fleet)
    eventually(lambda: ready(client))
    database = tmp_path / "sentinel.db"
    fleet.store.close()
    hidden = [file.rename(file.with_name(f"hidden-{file.name}")) for file in tmp_path.glob("sentinel.db*")]
    database.mkdir()
    eventually(lambda: "sentinel_store_up 0.0" in client.get("/metrics").text)
    assert "requests_sentinel_predicted{" in client.get("/metrics").text
    page = client.get("/")
    assert page.status_code == 200
    assert "The store cannot be read." in page.text
    assert "This page shows what it held" in page.text
    database.rmdir()
    for file in hidden:
        file.rename(file.with_name(file.name.removeprefix("hidden-")))
    eventually(lambda: "sentinel_store_up 1.0" in client.get("/metrics").text)


def test_requests_are_counted_by_route(client: httpx.Client) -> None:
    """Requests are counted by known route and code; what clients invent is `other`."""
    client.get("/no/such/page")
    client.get("/-/healthy")
    text = client.get("/metrics").text
    assert 'sentinel_http_requests_total{code="404",route="other"} 1.0' in text
    assert 'sentinel_http_requests_total{code="200",route="/-/healthy"} 1.0' in text
    assert "/no/such/page" not in text


def test_every_answer_carries_the_security_headers(client: httpx.Client) -> None:
    """Pages, metrics, static files and errors forbid foreign content and sniffing."""
    for path in ("/", "/metrics", "/static/app.css", "/api/v1/nothing", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_busy_port_is_said_with_the_remedy() -> None:
    """Listening on a port in use raises ServiceError, which names the port and what to do."""
    config = SentinelConfig(emitter_port=free_port())
    with listen(config), pytest.raises(ServiceError, match=rf"127.0.0.1:{config.emitter_port}.*set emitter_port"):
        listen(config)


def test_the_program(fleet: Fleet, tmp_path: Path) -> None:
    """`python -m sentinel_core.apps.sidecar` serves $SENTINEL_CONFIG, ends on SIGTERM, and refuses a second start."""
    port = free_port()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(fleet.config.to_dict() | {"emitter_port": port}))
    issue(fleet)
    command = [sys.executable, "-m", "sentinel_core.apps.sidecar"]
    environment = os.environ | {"SENTINEL_CONFIG": str(file)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)) as client:
                eventually(lambda: ready(client), 30)
                assert client.get("/status.json").json()["requests"]["series"] == 3
                assert re.search(rb"requests_sentinel_predicted{", gzip.decompress(_raw(client, "/metrics")))
            second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
            assert second.returncode == 1
            assert f"sentinel: cannot listen on 127.0.0.1:{port}" in second.stderr
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def _raw(client: httpx.Client, path: str) -> bytes:
    with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as answer:
        return b"".join(answer.iter_raw())
