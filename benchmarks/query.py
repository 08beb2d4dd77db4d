"""The query API over a day of 1,000 forecast series: answers, JSON beside json.dumps, and what hostile queries do.

python -m benchmarks.query
"""

import asyncio
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import uvicorn

from sentinel_core.apps.sidecar import create_app, listen
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.demo.source import free_port
from sentinel_core.promql import answer
from sentinel_core.promql.values import Notes, Vector
from sentinel_core.series import Series
from sentinel_core.storage import forecast_store, watch_store
from sentinel_core.storage.store import Store

SERIES, STEPS, LEADS = 1_000, 1_440, 5
LIMITS_MS = {"1,000 series x 60": 30.0, "1,000 series x 1,440": 400.0, "1 series x 60": 1.0}
LIMIT_HOSTILE_SECONDS, LIMIT_P99_RATIO = 1.0, 2.0
METRIC = "http_request_duration_seconds"
NAME = f"{METRIC}_sentinel_predicted"
WATCH = WatchConfig(metric=METRIC, model_class="LinearTrendModel", max_series=SERIES)
NOW = 1_800_000_000
HOSTILE = {
    "100,000 parentheses": {"query": "(" * 100_000},
    "parentheses of 8 KiB": {"query": "(" * 4_000 + "1" + ")" * 4_000},
    "a chain of 4,000": {"query": "1" + "+1" * 3_999},
    "ReDoS matcher": {
        "query": f'{NAME}{{instance=~"(([a-z0-9.:]+)+)+!"}} + {NAME}{{instance=~"(.*)(.*)(.*)x{{1000}}"}}['
    },
    "11,001 points": {"query": NAME, "start": NOW - 11_000, "end": NOW, "step": 1},
    "everything of 30 days": {"query": '{__name__=~".+"}[30d]', "time": NOW},
    "a subquery of 30 days": {"query": f"max_over_time({NAME}[30d:1s])", "time": NOW},
}


def fill(store: Store) -> None:
    """A day of lead 1, and the newest forecast whole."""
    series = [
        Series.of(METRIC, {"instance": f"10.0.{i >> 8}.{i & 255}:9090", "job": "api", "path": f"/v1/{i}"})
        for i in range(SERIES)
    ]
    fingerprints = np.array([one.fingerprint for one in series])
    with store.database.write() as connection:
        watch_store.sync_watches(connection, [(WATCH.slug, WATCH.selector)], NOW)
        watch_store.add_series(connection, 1, series, NOW - 86_400)
    past = NOW + 60 * np.arange(-STEPS, 0)
    segments = []
    for origins, leads in ((past, 1), (np.array([NOW]), LEADS)):
        origin, fp, lead = (
            part.ravel() for part in np.meshgrid(origins, fingerprints, np.arange(1, leads + 1), indexing="ij")
        )
        mean = np.random.default_rng(leads).normal(100, 30, len(fp))
        columns = {
            **{"fp": fp, "origin": origin, "ts": origin + 60 * lead, "lead": lead},
            **{"mean": mean, "lower": mean - 1, "upper": mean + 1},
            **{name: np.full(len(fp), value) for name, value in (("watch", 1), ("version", 3), ("mode", 0))},
        }
        pending = forecast_store.write_forecasts(store, 60, columns)
        with store.database.write() as connection:
            segments = store.segments.commit(connection, [pending])
    with store.database.write() as connection:
        watch_store.update_state(
            connection, 1, forecast_origin=NOW, forecast_segment_id=segments[0], last_tick_at=float(NOW)
        )


def ranged(selector: str, steps: int) -> str:
    """The path of a range query that ends now."""
    asked = {"query": selector, "start": NOW - 60 * (steps - 1), "end": NOW, "step": 60}
    return f"/api/v1/query_range?{urlencode(asked)}"


async def in_server_ms(app: Any, path: str, repeats: int) -> list[float]:
    """Milliseconds of requests as the server sees them: without a socket, without a client's decoding."""
    spent = []
    route, _, question = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": route, "raw_path": route.encode(),
        "query_string": question.encode(), "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "",
    }  # fmt: skip
    for _ in range(repeats):
        client = _Client()
        started = time.perf_counter()
        await app(dict(scope), client.receive, client.send)
        spent.append((time.perf_counter() - started) * 1e3)
        if client.status != 200 or client.size < 50:
            raise SystemExit(f"{path} answers {client.status} with {client.size} bytes")
    return spent


class _Client:
    """Sends a request without a body, stays, and counts what comes."""

    def __init__(self) -> None:
        self.status = self.size = 0
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.size += len(message.get("body", b""))


def answering(config: SentinelConfig, store: Store) -> bool:
    """Print the median of each kind of answer; whether all are within their limits."""
    app = create_app(config, store, status=lambda _: {}, now=lambda: NOW + 30.0)
    one = f'{NAME}{{path="/v1/7"}}'
    asked = [(ranged(NAME, 60), 30), (ranged(NAME, STEPS), 10), (ranged(one, 60), 500)]
    good = True

    async def measure() -> None:
        nonlocal good
        async with app.router.lifespan_context(app):
            for (label, limit), (path, repeats) in zip(LIMITS_MS.items(), asked, strict=True):
                (first,) = await in_server_ms(app, path, 1)
                p50 = statistics.median(await in_server_ms(app, path, repeats))
                good = good and p50 <= limit
                print(
                    f"query_range of {label}: p50 {p50:.2f} ms in the server (limit {limit:g}); the first {first:.0f}"
                )

    asyncio.run(measure())
    return good


def formatting() -> None:
    """JSON of the largest answer, beside json.dumps."""
    times = 1_000 * (NOW + 60 * np.arange(STEPS))
    labels = [(("__name__", NAME), ("instance", f"10.0.0.{i}:9090"), ("job", "api")) for i in range(SERIES)]
    vector = Vector.of(labels, np.random.default_rng(0).normal(100, 30, (SERIES, STEPS)))
    ours = b"".join(answer.answer(vector, times, Notes(), ranged=True))
    decoded = json.loads(ours)
    ours_ms = least_ms(lambda: b"".join(answer.answer(vector, times, Notes(), ranged=True)))
    theirs_ms = least_ms(lambda: json.dumps(decoded))
    print(
        f"{len(ours) / 1e6:.0f} MB of JSON: {ours_ms:.0f} ms from arrays; json.dumps of ready objects {theirs_ms:.0f}"
    )


def least_ms(work: Callable[[], object], repeats: int = 4) -> float:
    """The least milliseconds of some repeats: the machine is shared, and noise only adds."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return min(spent) * 1e3


@contextmanager
def another_process(config: SentinelConfig) -> Iterator[None]:
    """The sidecar in a process of its own, as a client meets it."""
    process = get_context("spawn").Process(target=_serve, args=(config.to_dict(),))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if ask(config.emitter_port, ranged(NAME, 60))[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.join()


def _serve(settings: dict[str, Any]) -> None:
    config = SentinelConfig.from_dict(settings)
    with listen(config) as sock, Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        app = create_app(config, store, status=lambda _: {}, now=lambda: NOW + 30.0)
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[sock])


def ask(port: int, path: str, body: str | None = None) -> tuple[int, float]:
    """Status and seconds of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    connection.request("POST" if body else "GET", path, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, time.perf_counter() - started


def repeated_ms(port: int, path: str, stop: Callable[[int], bool]) -> list[float]:
    """Milliseconds of one question after the other on one connection, until told to stop (by their count)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    spent: list[float] = []
    while not stop(len(spent)):
        started = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        spent.append((time.perf_counter() - started) * 1e3)
        time.sleep(0.01)
    connection.close()
    return spent


def beside_ms(port: int, path: str, others: Callable[[], object]) -> tuple[float, float]:
    """The 99th percentile of a question alone, and beside others that come one after the other."""
    alone = repeated_ms(port, path, lambda count: count >= 500)
    ended = threading.Event()

    def trouble() -> None:
        while not ended.is_set():
            others()

    thread = threading.Thread(target=trouble)
    thread.start()
    beside = repeated_ms(port, path, lambda count: count >= 500)
    ended.set()
    thread.join()
    before, after = (statistics.quantiles(spent, n=100)[98] for spent in (alone, beside))
    return before, after


def hostile(port: int) -> bool:
    """Print what becomes of hostile queries and of a normal client beside them; whether that is within the limits."""
    good = True

    def attack() -> None:
        for form in HOSTILE.values():
            asked(port, form)
            time.sleep(0.05)

    for name, form in HOSTILE.items():
        status, seconds = asked(port, form)
        good = good and 400 <= status < 500 and seconds <= LIMIT_HOSTILE_SECONDS
        print(f"{name}: {status} after {seconds * 1e3:.0f} ms (limit {LIMIT_HOSTILE_SECONDS:g} s)")
    panel = ranged(f'{NAME}{{instance=~"10[.]0[.]0[.].*"}}', 60)
    before, after = beside_ms(port, panel, attack)
    good = good and after <= LIMIT_P99_RATIO * before
    print(
        f"a panel of 256 series: p99 {before:.1f} ms alone, {after:.1f} beside them (limit {LIMIT_P99_RATIO:g} times)"
    )
    for path in ("/metrics", "/-/healthy"):
        before, after = beside_ms(port, path, lambda: ask(port, ranged(NAME, STEPS)))
        print(f"{path}: p99 {before:.1f} ms alone, {after:.1f} beside queries of {SERIES * STEPS:,} points")
    return good


def asked(port: int, form: Mapping[str, Any]) -> tuple[int, float]:
    """Status and seconds of a query as a form."""
    return ask(port, f"/api/v1/query{'_range' if 'step' in form else ''}", urlencode(form, quote_via=quote))


def run() -> None:
    """Print what was measured; exit with 1 above the limits."""
    with tempfile.TemporaryDirectory() as folder:
        config = SentinelConfig(
            artifact_store=folder, watches=[WATCH], emitter_port=free_port(18_090), query_passthrough=False
        )
        with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            store.database.migrate()
            fill(store)
            good = answering(config, store)
        formatting()
        with another_process(config):
            good = hostile(config.emitter_port) and good
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    run()
