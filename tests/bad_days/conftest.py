"""Bad days on a real Prometheus: odd series, a gateway that fails, a sidecar to see that serving goes on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest

from sentinel_core import WatchConfig
from sentinel_core.apps.sidecar import create_app
from sentinel_core.pipeline import Engine
from tests.apps.server import eventually, running
from tests.bad_days.gateway import Gateway
from tests.moved_world import Clock, World
from tests.prometheus_server import History, PrometheusServer

STEP = 60
UNICODE = 'say "hi"\nC:\\temp, caffè, 東京'


@dataclass(frozen=True)
class OddHistory(History):
    """Six hours ending at `end`, a sample a minute (t minutes after the start).

    even{host}    gauge, two series: t % 10 and 100 + t % 10
    zero          gauge: 0 all the time
    wakes         gauge: 0 until an hour before the end, then 5
    late          gauge: only in the last hour
    text{path}    gauge with quotes, a newline, a backslash, accents and kanji in its label
    hits_total    counter: 60 a minute, started anew every 50 minutes
    burst         gauge of three series, of which 40 live in the last ten minutes
    """

    days: float = 0.25

    def write(self, path: Path) -> None:
        with path.open("w") as file:
            times = range(self.start, self.end + 1, STEP)
            gauge(file, "even", "host", {"a": [(t, self.minute(t) % 10) for t in times]} | {
                "b": [(t, 100 + self.minute(t) % 10) for t in times]
            })  # fmt: skip
            gauge(file, "zero", "host", {"a": [(t, 0) for t in times]})
            gauge(file, "wakes", "host", {"a": [(t, 5 if t > self.end - 3600 else 0) for t in times]})
            gauge(file, "late", "host", {"a": [(t, self.minute(t) % 7) for t in times if t > self.end - 3600]})
            gauge(file, "text", "path", {UNICODE: [(t, self.minute(t) % 10) for t in times]})
            few = {f"{k:02}": [(t, k) for t in times] for k in range(3)}
            many = {f"{k:02}": [(t, k) for t in times if t > self.end - 600] for k in range(3, 40)}
            gauge(file, "burst", "pod", few | many)
            file.write("# TYPE hits counter\n")
            for t in times:
                file.write(f"hits_total {self.minute(t) % 50 * 60} {t}\n")
            file.write("# EOF\n")

    def minute(self, t: int) -> int:
        return (t - self.start) // STEP


def gauge(file: TextIO, name: str, label: str, series: dict[str, list[tuple[int, float]]]) -> None:
    file.write(f"# TYPE {name} gauge\n")
    for value, samples in series.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        for t, v in samples:
            file.write(f'{name}{{{label}="{escaped}"}} {v} {t}\n')


@pytest.fixture(scope="session")
def odd_prometheus(prometheus_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A running Prometheus with the odd history; tests leave it running."""
    plain = PrometheusServer(tmp_path_factory.mktemp("odd"))
    server = PrometheusServer(plain.folder, OddHistory(end=plain.history.end))
    server.load()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def gateway(odd_prometheus: PrometheusServer) -> Iterator[Gateway]:
    """What stands between the world and its Prometheus."""
    between = Gateway(odd_prometheus.url)
    try:
        yield between
    finally:
        between.close()


@pytest.fixture
def world(gateway: Gateway, odd_prometheus: PrometheusServer, tmp_path: Path) -> Iterator[World]:
    """Two hours and some seconds before the history's end, behind the gateway."""
    with ExitStack() as stack:
        yield World(tmp_path / "store", gateway.url, Clock(odd_prometheus.history.end - 7200 + 7.0), stack)


@pytest.fixture
def watch() -> Callable[..., WatchConfig]:
    """A quick watch over a metric."""

    def make(metric: str = "even", **fields: Any) -> WatchConfig:
        quick = {"model_class": "LinearTrendModel", "lookback": "10m", "history": "2h", "drift_cooldown": "1m"}
        quick |= {"drift_finetune_threshold": 1e6, "drift_retrain_threshold": 2e6}
        return WatchConfig(**{"metric": metric, **quick, **fields})

    return make


class Sidecar:
    """A client of the real sidecar over an engine's store, at the world's time."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def lines(self, name: str) -> list[str]:
        """The forecast lines of a metric, once the sidecar has looked at the store again."""
        return [line for line in self.text().splitlines() if line.startswith(f"{name}_sentinel_predicted{{")]

    def text(self) -> str:
        answer = self._client.get("/metrics")
        assert answer.status_code == 200
        return answer.text

    def value(self, start: str) -> float:
        """The value of the one line that starts so."""
        (line,) = [line for line in self.text().splitlines() if line.startswith(start)]
        return float(line.rpartition(" ")[2])

    def status(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._client.get("/status.json").json()
        return found


@contextmanager
def serving(engine: Engine) -> Iterator[Sidecar]:
    """The sidecar on a free port over the engine's store."""
    context = engine.context
    app = create_app(engine.config, engine.store, status=lambda config: engine.status(), now=context.clock)
    with running(app) as client:
        eventually(lambda: client.get("/-/ready").status_code == 200)
        yield Sidecar(client)
