"""Ticks for minutes (an hour by SENTINEL_SOAK_SECONDS=3600) over a real Prometheus while everything is killed in turn.

Prometheus scrapes a target, Sentinel reads Prometheus, Prometheus scrapes Sentinel. Nobody lends a hand.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from sentinel_core.config import WatchConfig, load_config
from sentinel_core.pipeline import Engine
from sentinel_core.prometheus.scrape import SourceFacts, emitted_name, expression
from sentinel_core.series import Series
from sentinel_core.storage import watch_store, windows_store
from tests.product.product import Product, Sample, eventually, free_ports
from tests.product.soak_target import GONE, SCRAPE_SECONDS, Past
from tests.prometheus_server import PrometheusServer

pytestmark = [pytest.mark.slow, pytest.mark.prometheus]

SOAK_SECONDS = float(os.environ.get("SENTINEL_SOAK_SECONDS", "120"))
SERIES = 200
OUTAGE_SECONDS = SOAK_SECONDS / 6  # ten minutes of an hour
RECOVERY_SECONDS = 120.0  # until every watch has a forecast of after a fault; the slowest ticks each half minute
SILENCE_SECONDS = 20.0  # until a killed sidecar answers again
QUIET_SECONDS = 300.0 + 60.0  # a series without a sample for so long has left, with a tick to notice it
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

WATCHES = """
[[watches]]
metric = "soak_load"
model_class = "ExponentialSmoothingModel"
granularity = "15s"
horizon = "1m"
lookback = "5m"
history = "1h"
drift_unit = "scaled"
drift_finetune_threshold = 1.5
drift_retrain_threshold = 3.0
cron = "*/2 * * * *"
[[watches]]
metric = "soak_requests_total"
model_class = "LinearTrendModel"
granularity = "30s"
horizon = "2m"
lookback = "10m"
history = "1h"
drift_unit = "scaled"
drift_finetune_threshold = 1.5
drift_retrain_threshold = 3.0
[[watches]]
metric = "soak_queue"
model_class = "SGDRegressorModel"
granularity = "30s"
horizon = "2m"
lookback = "10m"
history = "90m"
drift_unit = "scaled"
drift_finetune_threshold = 1.5
drift_retrain_threshold = 3.0
"""


@dataclass(eq=False)
class Onlooker(threading.Thread):
    """Looks at /metrics each second, as a scraper would, and notes whatever should not be there."""

    product: Product
    gone_at: float  # when the vanished series had its last sample
    problems: dict[str, str] = field(default_factory=dict)  # the first of each kind
    origins: dict[str, float] = field(default_factory=dict)
    silence: float = 0.0  # the longest time without an answer, seconds

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.versions: dict[tuple[object, ...], int] = {}

    def run(self) -> None:
        answered = 0.0
        while not self.ended.wait(1.0):
            found = self.product.metrics()
            if found:
                now = time.monotonic()
                self.silence = max(self.silence, now - (answered or now))
                answered = now
                self._look(found)

    def _look(self, found: list[Sample]) -> None:
        lines = [(one.name, frozenset(one.labels)) for one in found]
        if len(set(lines)) < len(lines):
            self._note("duplicate", next(line for line in lines if lines.count(line) > 1))
        shown: set[tuple[object, ...]] = set()
        for one in found:
            if one.name == "sentinel_watch_forecast_origin_timestamp_seconds":
                self.origins[one.label("watch")] = one.value
            if not one.name.endswith("_sentinel_predicted"):
                continue
            key = one.name, one.without("sentinel_version")
            if key in shown:
                self._note("two versions", key)
            shown.add(key)
            version = int(one.label("sentinel_version").removeprefix("v").removesuffix("-pooled").replace("naive", "0"))
            if version < self.versions.get(key, 0):
                self._note("a dead version", (key, version))
            self.versions[key] = version
            if one.label("host") == GONE and time.time() > self.gone_at + QUIET_SECONDS:
                self._note("a vanished series", key)
            if not np.isfinite(one.value):
                self._note("not a number", one)

    def _note(self, kind: str, what: object) -> None:
        self.problems.setdefault(kind, f"{what} at {time.strftime('%X')}")


@dataclass
class World:
    """The three programs, and what was done to them."""

    server: PrometheusServer
    product: Product
    onlooker: Onlooker
    began: float
    faults: list[tuple[str, float, float]] = field(default_factory=list)  # what, unix seconds from when until when

    def recovered(self, what: str, began: float, ended: float) -> None:
        """Wait for a forecast of each watch from after the fault, and remember how long that took."""
        eventually(
            f"forecasts of after {what}",
            lambda: len(self.onlooker.origins) == 3 and min(self.onlooker.origins.values()) >= ended,
            RECOVERY_SECONDS,
        )
        self.faults.append((what, began, ended))
        print(f"{what}: forecasts of all watches again {time.time() - ended:.0f} s after its end")

    def kill(self, what: str, words: str) -> None:
        """Kill -9 what has these words in its command, as soon as there is one, and wait for the recovery."""
        pids = eventually(f"{what} runs", lambda: self.product.processes(words))
        began = time.time()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.recovered(what, began, began)

    def until(self, share: float) -> None:
        """Let it tick until this share of the soak is over."""
        time.sleep(max(0.0, self.began + share * SOAK_SECONDS - time.time()))


def sidecar_job(port: int) -> str:
    """The README's own scrape job for a sidecar at this port, which is scraped as often as the target."""
    shown = re.findall(r"^```yaml\n(scrape_configs:.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    [job] = yaml.safe_load(shown[0])["scrape_configs"]
    here = {"scrape_interval": f"{SCRAPE_SECONDS}s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    return json.dumps(job | here)


@pytest.fixture
def world(prometheus_programs: None, tmp_path: Path) -> Iterator[World]:
    """Everything started, and forecasts of every watch on /metrics."""
    [target_port] = free_ports(1)
    product = Product(tmp_path)
    jobs = [
        f"{{job_name: soak, scrape_interval: {SCRAPE_SECONDS}s, "
        f"static_configs: [{{targets: ['127.0.0.1:{target_port}'], labels: {{instance: target}}}}]}}",
        sidecar_job(product.emitter_port),
    ]
    past = Past(end=int(time.time()), days=2 / 24, series=SERIES)
    server = PrometheusServer(tmp_path, past, jobs)
    server.load()
    onlooker = Onlooker(product, past.gone_at)
    command = [sys.executable, "-m", "tests.product.soak_target", str(target_port), str(SERIES)]
    target = subprocess.Popen(command, cwd=ROOT)
    try:
        server.start()
        server.wait_for("soak_queue")
        product.configure(server.url, WATCHES)
        product.start()
        began = time.time()
        onlooker.start()
        eventually("forecasts of three watches", lambda: len(onlooker.origins) == 3)
        print(f"forecasts of all watches {time.time() - began:.0f} s after the start")
        yield World(server, product, onlooker, time.time())
    finally:
        onlooker.ended.set()
        product.end()
        target.kill()
        target.wait()
        server.kill()


def test_nothing_is_lost_while_everything_is_killed_in_turn(world: World) -> None:
    """After each kill forecasts come back alone; afterwards the store holds exactly what Prometheus answers."""
    world.kill("a run worker", "spawn_main")
    world.until(0.2)
    began = time.time()
    world.server.kill()
    time.sleep(OUTAGE_SECONDS)
    world.server.start()
    world.recovered("Prometheus", began, time.time())
    world.until(0.5)
    world.kill("the sidecar", "apps.sidecar")
    world.until(0.6)
    world.kill("the code server", "api grpc")
    world.until(0.75)
    world.kill("the daemon", "dagster._daemon")
    world.until(1.0)
    time.sleep(max(0.0, world.onlooker.gone_at + QUIET_SECONDS + 5 - time.time()))
    world.onlooker.ended.set()
    world.onlooker.join()

    assert not world.onlooker.problems
    print(f"the longest silence of /metrics: {world.onlooker.silence:.0f} s")
    assert world.onlooker.silence < SILENCE_SECONDS
    on_page = world.product.forecasts()
    hosts = {f"h{number:03d}" for number in range(SERIES)}
    for metric in ("soak_load", "soak_requests_total_rate", "soak_queue"):
        assert {one.label("host") for one in on_page if one.name == f"{metric}_sentinel_predicted"} == hosts
    check_scrapes_of_the_sidecar(world)
    took = world.product.interrupt()
    assert took < 12
    assert not world.product.processes()
    with Engine.open(load_config(world.product.store / "config.json")) as engine:
        for watch in engine.config.watches:
            check_samples(world, engine, watch)
        with engine.store.database.read() as conn:
            states = watch_store.states(conn)
        for selector, status in engine.status().items():
            scored_until = states[str(status["slug"])].scored_until  # a verdict waits where a cron has just retrained
            assert scored_until is not None, selector
            assert scored_until > time.time() - 240, selector
            assert status["ready"], selector


def check_samples(world: World, engine: Engine, watch: WatchConfig) -> None:
    """The store has each sample that Prometheus has, from an hour before the start to the newest tick, and no other."""
    store = engine.store
    with store.database.read() as conn:
        state = watch_store.states(conn)[watch.slug]
        members = watch_store.series_of(conn, [state.watch_id], live_only=False)
    assert state.scraped_until is not None
    assert state.scraped_until > time.time() - 2 * watch.step_seconds - 60
    facts = SourceFacts("counter" if state.kind == "counter" else "gauge", float(state.scrape_interval or 0))
    start, end = int(world.began) - 3_600, state.scraped_until - 2 * watch.step_seconds
    start -= start % -watch.step_seconds
    fingerprints = np.sort(np.array([member.fingerprint for member in members], np.int64))
    window = windows_store.read_window(store, watch.step_seconds, fingerprints, start, end)
    expected = np.full(window.values.shape, np.nan)
    answer = httpx.get(
        f"{world.server.url}/api/v1/query_range",
        params={"query": expression(watch, facts), "start": start, "end": end, "step": watch.step_seconds},
        timeout=60.0,
        trust_env=False,
    ).json()
    for one in answer["data"]["result"]:
        labels = {name: text for name, text in one["metric"].items() if name != "__name__"}
        row = np.searchsorted(fingerprints, Series.of(emitted_name(watch, facts.kind), labels).fingerprint)
        for t, text in one["values"]:
            expected[row, (int(t) - start) // watch.step_seconds] = float(text)
    np.testing.assert_array_equal(window.values, expected, err_msg=watch.selector)

    living = np.isfinite(expected[:, -1])
    assert living.sum() == SERIES
    holes = window.timestamps[np.isnan(window.values[living]).any(axis=0)]
    [(_, down, up)] = [fault for fault in world.faults if fault[0] == "Prometheus"]
    seen = holes[holes > world.began]
    assert ((seen >= down - SCRAPE_SECONDS) & (seen <= up + 60)).all(), seen
    print(f"{watch.selector}: {window.values.size:,} samples as in Prometheus, {len(seen)} empty steps in the outage")


def check_scrapes_of_the_sidecar(world: World) -> None:
    """A Prometheus that scrapes the sidecar sees one version at a time, and gaps only where one was down."""
    seconds = int(time.time() - world.began)
    answer = httpx.get(
        f"{world.server.url}/api/v1/query",
        params={"query": f'{{__name__=~"soak_.+_sentinel_predicted"}}[{seconds}s]'},
        timeout=60.0,
        trust_env=False,
    ).json()
    times: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for one in answer["data"]["result"]:
        key = tuple(sorted((name, text) for name, text in one["metric"].items() if name != "sentinel_version"))
        times.setdefault(key, []).extend(float(t) for t, _ in one["values"])
    assert len(times) >= SERIES * 11
    for key, some in times.items():
        some.sort()
        gaps = np.diff(some)
        assert gaps.min() > 1, (key, "two versions in one scrape")
        if ("host", GONE) in key:
            continue
        for at, gap in zip(some, gaps.tolist(), strict=False):
            if gap > 2.5 * SCRAPE_SECONDS:
                causes = [what for what, down, up in world.faults if at - SCRAPE_SECONDS <= up and at + gap >= down]
                fault = max((up - down for what, down, up in world.faults if what in causes), default=0.0)
                assert set(causes) & {"Prometheus", "the sidecar"}, (key, at, gap)
                assert gap < fault + 30, (key, at, gap)
