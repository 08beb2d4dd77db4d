"""The running demo behind Grafana's queries, rulers and other people's clients."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_api_client import PrometheusConnect

from sentinel_core.grafana.files import FOLDER
from tests.alerts.alertmanager_server import running_alertmanager
from tests.grafana.panels import expressions
from tests.grafana.variables import fill, replaced
from tests.product.product import Product, eventually, free_ports

pytestmark = [pytest.mark.slow, pytest.mark.prometheus]

FORECAST = "demo_disk_used_ratio_sentinel_predicted"

FIRST_ROUND_SECONDS = 600.0  # a round of forecasts is judged when it is over and what comes late has come


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running `sentinel up --demo`, once it forecasts."""
    product = Product(tmp_path_factory.mktemp("grafana"))
    product.configure("http://127.0.0.1:1", "")
    product.start(*product.command, "up", "--demo")
    try:
        eventually("a forecast", lambda: query(product.url, FORECAST))
        yield product.url
    finally:
        product.interrupt()


def query(base: str, expression: str) -> list[Any]:
    """The newest value of each series; none while nobody answers."""
    try:
        answer = httpx.post(f"{base}/api/v1/query", data={"query": expression}, timeout=30, trust_env=False)
    except httpx.TransportError:
        return []
    found: list[Any] = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return found


def seconds(moment: str, now: int) -> int:
    """`now-6h` as unix seconds."""
    unit = {"m": 60, "h": 3600, "d": 86_400}
    rest = moment.removeprefix("now")
    return now + (int(rest[:-1]) * unit[rest[-1]] if rest else 0)


@pytest.mark.parametrize("board", ["forecast", "quality", "models", "itself", "fleet"])
def test_every_panel_finds_data(demo: str, board: str) -> None:
    """Each query of each panel, with the variables as Grafana fills them, has samples within minutes of the start."""
    dashboard = json.loads((FOLDER / "dashboards" / f"sentinel-{board}.json").read_text())

    def empty() -> list[str]:
        now = int(time.time())
        span = seconds(dashboard["time"]["from"], now), seconds(dashboard["time"]["to"], now)
        chosen = fill(demo, dashboard, span)
        missing = []
        for panel, text in expressions(dashboard):
            expression = replaced(text, chosen)
            form = {"query": expression, "start": str(span[0]), "end": str(span[1]), "step": "15"}
            answer = httpx.post(f"{demo}/api/v1/query_range", data=form, timeout=60, trust_env=False)
            assert answer.status_code == 200, f"{expression}: {answer.text}"
            if not answer.json()["data"]["result"]:
                missing.append(f"{panel['title']}: {expression}")
        return missing

    last: list[str] = []

    def all_filled() -> bool:
        try:
            last[:] = empty()
        except AssertionError as error:  # a variable that nothing has been said of yet
            last[:] = [str(error)]
        return not last

    try:
        eventually("data in every panel", all_filled, FIRST_ROUND_SECONDS)
    except AssertionError:
        pytest.fail("no data: " + "; ".join(last))


@pytest.mark.parametrize(
    "arguments",
    [
        ["instant", "{base}", FORECAST],
        ["range", "--start={past}", "--end={future}", "--step=60s", "{base}", FORECAST],
        ["series", "--match=" + FORECAST, "--start={past}", "--end={future}", "{base}"],
        ["labels", "{base}", "instance"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_promtool_is_a_client(demo: str, arguments: list[str]) -> None:
    """Prometheus' own tool asks and gets what it asked for."""
    now = int(time.time())
    filled = [text.format(base=demo, past=now - 600, future=now + 600) for text in arguments]
    done = subprocess.run(["promtool", "query", *filled], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "web-1" in done.stdout


def test_a_client_library_works(demo: str) -> None:
    """prometheus-api-client lists, asks for one time and for a range."""
    client = PrometheusConnect(url=demo)
    assert FORECAST in client.all_metrics()
    assert client.get_current_metric_value(FORECAST)
    now = time.time()
    span = datetime.fromtimestamp(now - 600), datetime.fromtimestamp(now + 600)
    found = client.custom_query_range(FORECAST, *span, step="60")
    assert any(float(at) > now + 60 for series in found for at, _ in series["values"])


def test_real_and_predicted_come_from_one_address(demo: str) -> None:
    """Prometheus' own series, ours, and an expression over both."""
    assert query(demo, "demo_disk_used_ratio")
    assert query(demo, FORECAST)
    both = f"demo_disk_used_ratio - ignoring(sentinel_horizon, sentinel_version) {FORECAST}"
    found = eventually("a difference", lambda: query(demo, both))
    assert all(abs(float(series["value"][1])) < 0.2 for series in found)


def test_shipped_forecast_rules_fire_through_vmalert(demo: str, tmp_path: Path) -> None:
    """vmalert evaluates them against our address, and a real Alertmanager gets the alert."""
    program = shutil.which("vmalert")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no vmalert on PATH; apt-get install victoria-metrics")
    [port] = free_ports(1)
    with running_alertmanager(tmp_path) as alertmanager, (tmp_path / "vmalert.log").open("wb") as log:
        arguments = [
            f"-rule={FOLDER / 'rules' / 'forecasts.yaml'}",
            f"-datasource.url={demo}",
            f"-notifier.url={alertmanager}",
            "-evaluationInterval=2s",
            f"-httpListenAddr=127.0.0.1:{port}",
        ]
        ruler = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        try:

            def fired() -> list[Any]:
                alerts = httpx.get(f"{alertmanager}/api/v2/alerts", trust_env=False).json()
                return [one for one in alerts if one["labels"]["alertname"] == "ForecastDiskFull"]

            [alert] = eventually("the alert at Alertmanager", fired, 150)
            assert alert["labels"]["instance"]
            rules = httpx.get(f"http://127.0.0.1:{port}/api/v1/rules", trust_env=False).json()
            errors = [rule["lastError"] for group in rules["data"]["groups"] for rule in group["rules"]]
            assert not any(errors), errors
        finally:
            ruler.terminate()
            ruler.wait(10)
