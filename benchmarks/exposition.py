"""100,000 forecast gauges: rendered beside prometheus_client in the same run, and served over HTTP from a real store.

python -m benchmarks.exposition
"""

import http.client
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context

import numpy as np
import uvicorn
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sentinel_core.apps.sidecar import create_app, listen
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.demo.source import free_port
from sentinel_core.emitter.exposition import ForecastRenderer, Section
from sentinel_core.emitter.snapshot import Forecasts, SnapshotLoader
from sentinel_core.series import Series
from sentinel_core.storage import forecast_store, watch_store
from sentinel_core.storage.store import Store

SERIES, LEADS, TICKS = 20_000, 5, 5
LIMIT_RENDER_MS, LIMIT_RATIO, LIMIT_P50_MS = 30.0, 10.0, 15.0
NAME = "http_request_duration_seconds"
WATCH = WatchConfig(metric=NAME, model_class="LinearTrendModel", max_series=SERIES)
ORIGIN = 1_800_000_000


def issue(store: Store, series: list[Series], origin: int, seed: int) -> None:
    """Commit one tick's forecast of every series."""
    lead = np.tile(np.arange(1, LEADS + 1), len(series))
    rows = len(lead)
    mean = np.random.default_rng(seed).normal(100, 30, rows)
    columns = {
        "fp": np.repeat(np.array([one.fingerprint for one in series]), LEADS),
        "ts": origin + lead * WATCH.step_seconds,
        "lead": lead,
        **dict.fromkeys(("mean", "lower", "upper"), mean),
        **{
            name: np.full(rows, value)
            for name, value in (("watch", 1), ("origin", origin), ("version", 3), ("mode", 0))
        },
    }
    pending = forecast_store.write_forecasts(store, WATCH.step_seconds, columns)
    with store.database.write() as connection:
        (segment,) = store.segments.commit(connection, [pending])
        tick = {"forecast_origin": origin, "forecast_segment_id": segment, "last_tick_at": float(origin)}
        watch_store.update_state(connection, 1, **tick)


def cpu_ms(work: Callable[[], object], repeats: int) -> float:
    """The least CPU milliseconds of some repeats: the machine is shared, and noise only adds."""
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent) * 1e3


def reference(block: Forecasts) -> CollectorRegistry:
    """The same gauges in prometheus_client."""
    registry = CollectorRegistry()
    names = [*(key for key, _ in block.series[0].labels), "sentinel_horizon", "sentinel_step", "sentinel_version"]
    gauge = Gauge(f"{NAME}_sentinel_predicted", "The same.", names, registry=registry)
    for series, row in zip(block.series, block.mean.tolist(), strict=True):
        for step, value in enumerate(row, 1):
            gauge.labels(*(value for _, value in series.labels), "5m", str(step), "v3").set(value)
    return registry


def request_ms(port: int, stop: Callable[[int], bool], path: str = "/metrics", encoding: str = "gzip") -> list[float]:
    """Milliseconds of requests on one connection, until told to stop (by their count)."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    spent: list[float] = []
    while not stop(len(spent)):
        started = time.perf_counter()
        connection.request("GET", path, headers={"Accept-Encoding": encoding})
        connection.getresponse().read()
        spent.append((time.perf_counter() - started) * 1e3)
    connection.close()
    return spent


def run() -> None:
    """Print what was measured; exit with 1 above the limits."""
    series = [
        Series.of(NAME, {"instance": f"10.0.{i >> 8}.{i & 255}:9090", "job": "api", "path": f"/v1/{i}"})
        for i in range(SERIES)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = SentinelConfig(artifact_store=folder, watches=[WATCH], emitter_port=free_port(18_080))
        with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            store.database.migrate()
            with store.database.write() as connection:
                watch_store.sync_watches(connection, [(WATCH.slug, WATCH.selector)], ORIGIN)
                watch_store.add_series(connection, 1, series, ORIGIN)
            issue(store, series, ORIGIN, 0)
            render_ms, ratio = rendering(store, config)
            p50 = serving(store, config)
    if render_ms > LIMIT_RENDER_MS or ratio < LIMIT_RATIO or p50 > LIMIT_P50_MS:
        raise SystemExit(1)


def rendering(store: Store, config: SentinelConfig) -> tuple[float, float]:
    """CPU of rendering what changed, and how many times prometheus_client takes."""
    loader = SnapshotLoader(store, config)
    load_ms = cpu_ms(lambda: loader.load(ORIGIN), 1)
    (block,) = loader.load(ORIGIN).forecasts
    renderer = ForecastRenderer()
    first_ms = cpu_ms(lambda: renderer.render([block]), 1)
    ours = cpu_ms(lambda: renderer.render([block]), 7)
    pieces = renderer.render([block])
    section = Section.of(*pieces)
    compressed_ms = cpu_ms(lambda: Section.of(*pieces), 5)
    registry = reference(block)
    theirs = cpu_ms(lambda: generate_latest(registry), 2)
    print(f"{SERIES * LEADS:,} gauges, {section.size / 1e6:.1f} MB, {len(section.deflated) / 1e6:.2f} MB as gzip")
    print(
        f"render {ours:.1f} ms CPU (limit {LIMIT_RENDER_MS:g}); the first time {first_ms:.0f}; gzip {compressed_ms:.0f}"
    )
    print(f"prometheus_client.generate_latest {theirs:.0f} ms CPU; ratio {theirs / ours:.0f}")
    print(f"first load from the store {load_ms:.0f} ms CPU")
    return ours, theirs / ours


def serving(store: Store, config: SentinelConfig) -> float:
    """The median of cached requests; printed beside it, what ticks do to requests and how soon they are on /metrics."""
    app = create_app(config, store, status=lambda _: {})
    with listen(config) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            port = config.emitter_port
            while shown_origin(port) != ORIGIN:
                time.sleep(0.1)
            plain, small = (request_ms(port, lambda n: n >= 60, encoding=kind) for kind in ("identity", "gzip"))
            print(
                f"cached /metrics p50: {statistics.median(small):.1f} ms gzip, {statistics.median(plain):.1f} ms plain"
            )
            ticking = get_context("spawn").Process(
                target=ticks, args=(config.resolved_sql_url, config.resolved_data_url)
            )
            ticking.start()
            busy = request_ms(port, lambda _: not ticking.is_alive(), "/-/healthy")
            ticking.join()
            committed = time.perf_counter()
            while shown_origin(port) != ORIGIN + TICKS * 60:
                time.sleep(0.02)
            late = time.perf_counter() - committed
            print(f"a small request while ticks arrive: p99 {statistics.quantiles(busy, n=100)[98]:.0f} ms")
            print(f"the last tick is on /metrics {late:.2f} s after its process ended")
        finally:
            server.should_exit = True
            thread.join()
    return statistics.median(small)


def ticks(sql_url: str, data_url: str) -> None:
    """Another process: some ticks, a second apart."""
    with Store.open(sql_url, data_url) as store, store.database.read() as connection:
        series = [member.series for member in watch_store.series_of(connection, [1])]
        for tick in range(1, TICKS + 1):
            time.sleep(1)
            issue(store, series, ORIGIN + 60 * tick, tick)


def shown_origin(port: int) -> float | None:
    """The origin of the forecasts that /metrics shows."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    found = re.search(rb"forecast_origin_timestamp_seconds{.*} (.*)", connection.getresponse().read())
    connection.close()
    return float(found[1]) if found else None


if __name__ == "__main__":
    run()
