"""A store as days of monitoring and forecasting leave it, behind a running sidecar."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa
import uvicorn
from argon2 import PasswordHasher

from sentinel_core.alerts import outbox, receivers
from sentinel_core.apps import sidecar
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents.findings import Reached, Silence, ThresholdForecast
from sentinel_core.monitoring import psi
from sentinel_core.monitoring.assessment import Assessment, BinShare, OutputAssessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.pipeline.windowing import Content
from sentinel_core.security import users
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.series import Series
from sentinel_core.storage import event_store, forecast_store, model_store, quality_store, schema, series_models
from sentinel_core.storage.model_store import BaselineRow, StateRow
from sentinel_core.storage.quality_store import Quality
from sentinel_core.storage.store import Store
from tests.emitter.fleet import Fleet, Issue, many

HOUR = 3600
NOW = 1_800_000_000 // HOUR * HOUR + 1200  # twenty minutes after a full hour
TOP = NOW // HOUR * HOUR  # end of the newest evaluated hour
DAYS = 21
PEPPER = Pepper(b"of the tests of the pages" * 2)
TEST = command_line("test")
PASSWORD = "several words are good"
CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
NO_BINS = Content(outputs={}, most=10, fitted_days=7, hour=HOUR).to_json()  # nothing here is counted in them
PEOPLE = {"ada": "admin", "otto": "operator", "vera": "viewer"}

REQUESTS = WatchConfig(
    metric="http_requests_total",
    labels={"job": "shop"},
    model_class="SGDRegressorModel",
    horizon="30m",
    thresholds={"above": 120},
)
MEMORY = WatchConfig(metric="process_resident_memory_bytes", model_class="LinearTrendModel")
QUEUE = WatchConfig(metric="queue_length", labels={"job": "=~mail|push"}, model_class="ARIMAModel")
LATENCY = WatchConfig(metric="latency_seconds", model_class="LinearTrendModel")


@dataclass(frozen=True)
class World:
    """A running sidecar over the store."""

    url: str
    store: Store
    config: SentinelConfig
    models: dict[str, int]  # name -> id
    incidents: dict[str, int]  # name of the model -> id

    def client(self) -> httpx.Client:
        """A browser without JavaScript and without a login."""
        return httpx.Client(base_url=self.url, timeout=10)


@contextmanager
def open_world(folder: Path, *, empty: bool = False) -> Iterator[World]:
    """A world on a store of its own; `empty`: with an admin and nothing else."""
    port = _free_port()
    watches = [] if empty else [REQUESTS, MEMORY, QUEUE, LATENCY]
    fleet = Fleet.open(folder, watches, emitter_port=port, alert_networks=["127.0.0.0/8"])
    models: dict[str, int] = {}
    incidents: dict[str, int] = {}
    with fleet.store as store:
        with store.database.write() as connection:
            for name, role in PEOPLE.items():
                users.create(connection, TEST, name=name, password_hash=CHEAP.hash(PASSWORD), role=role, now=NOW - 9e5)
        if not empty:
            forecasts(fleet)
            models, incidents = production(store)
            with store.database.write() as connection:
                incidents["requests"] = _threshold(connection, fleet.id(REQUESTS))
        app = sidecar.create_app(fleet.config, store, status=lambda _: {}, now=lambda: float(NOW), pepper=PEPPER)
        with serving(app, port) as url:
            yield World(url, store, fleet.config, models, incidents)


@contextmanager
def serving(app: object, port: int) -> Iterator[str]:
    """Serve an app as `sentinel up` does, on a thread."""
    server = sidecar.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=3))  # type: ignore[arg-type]
    with sidecar.listen(SentinelConfig(emitter_port=port)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
                while "sentinel_store_up 1.0" not in client.get(f"{url}/metrics").text:
                    pass
            yield url
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the server does not stop"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# ---- watches ---------------------------------------------------------------------------------------------------------


def _quality(fleet: Fleet, watch: WatchConfig, end: int) -> None:
    """Two days of judged forecasts; of the longest lead the bounds have become too narrow."""
    rows = [
        Quality(fleet.id(watch), end - HOUR * hour, lead, 4_000, 3, 2.5, 0.8, -0.1, coverage, 0.03, 0.95, 2 / 3)
        for hour in range(48)
        for lead, coverage in ((60, 0.95), (480, 0.94), (1_800, 0.95 if hour else 0.6))
    ]
    with fleet.store.database.write() as connection:
        quality_store.add(connection, [vars(row) for row in rows])
    fleet.state(watch, verified_until=end)


def forecasts(fleet: Fleet) -> None:
    """A watch that forecasts well, one that drifts, one that has drifted, one that fails."""
    random = np.random.default_rng(7)
    origin = NOW // 60 * 60
    requests = [Series.of("http_requests_total", {"job": "shop", "path": path}) for path in ("/", "/cart", "/pay")]
    _live(fleet, REQUESTS, requests, _daily(random, 3, 240, 40.0), origin, _daily(random, 3, 240 + 30, 40.0)[:, 240:])
    memory = many("process_resident_memory_bytes", 5)
    rising = 2e8 + 1e6 * np.arange(60) + 3e6 * np.arange(5)[:, None] + random.normal(0, 2e5, (5, 60))
    _live(fleet, MEMORY, memory, rising, origin, rising[:, -1:] + 1e6 * np.arange(1, 6))
    queue = [Series.of("queue_length", {"job": job}) for job in ("mail", "push")]
    _live(fleet, QUEUE, queue, random.poisson(30, (2, 60)) + 8.0 * np.arange(60), origin, np.full((2, 5), 40.0))
    chosen = ["ARIMAModel"] * 3 + ["LinearTrendModel"] * 2
    with fleet.store.database.write() as connection:
        for watch, members, models in ((MEMORY, memory, chosen), (QUEUE, queue, ["SeasonalNaive"] * 2)):
            fingerprints = np.array([one.fingerprint for one in members])
            series_models.note(connection, fleet.id(watch), fingerprints, models)
    _quality(fleet, REQUESTS, origin)
    fleet.serve(REQUESTS, 4, 1.3)
    fleet.serve(MEMORY, 2, 2e5)
    fleet.serve(QUEUE, 3, 4.0)
    fleet.state(REQUESTS, severity="none", drift_mae=0.06, drift_scored=3, last_tick_at=NOW - 12.0)
    fleet.state(MEMORY, severity="low", drift_mae=0.2, drift_low=1, drift_scored=5, last_tick_at=NOW - 12.0)
    fleet.state(QUEUE, severity="high", drift_mae=0.42, drift_high=1, drift_scored=2, last_tick_at=NOW - 12.0)
    fleet.state(LATENCY, last_error="reading: 422: query timed out; narrow the selector", last_error_at=NOW - 40.0)
    scores(fleet, REQUESTS, requests, random)


def scores(fleet: Fleet, watch: WatchConfig, series: Sequence[Series], random: np.random.Generator) -> None:
    """Errors of the last hours, as ticks score them."""
    times = np.arange(NOW // 60 * 60 - 400 * 60, NOW, 60)
    n = len(times) * len(series)
    error = np.abs(random.normal(0.05, 0.02, n))
    columns = {
        "watch": np.full(n, fleet.id(watch)), "fp": np.repeat([one.fingerprint for one in series], len(times)),
        "ts": np.tile(times, len(series)), "version": np.full(n, 4), "mae": error, "scaled": error,
        "naive": 2 * error, "seasonal": 3 * error, "anomaly": 8 * error,
    }  # fmt: skip
    pending = forecast_store.write_scores(fleet.store, watch.step_seconds, columns, now=float(NOW))
    with fleet.store.database.write() as connection:
        fleet.store.segments.commit(connection, [pending])
    fleet.state(watch, scored_until=int(times[-1]))


def _live(
    fleet: Fleet, watch: WatchConfig, series: list[Series], values: np.ndarray, origin: int, ahead: np.ndarray
) -> None:
    fleet.live(watch, series)
    fleet.actuals(watch, series, values, origin)
    fleet.forecast(Issue(watch, series, ahead, spread=0.05 * np.abs(ahead).mean()), origin=origin)


def _daily(random: np.random.Generator, n: int, steps: int, level: float) -> np.ndarray:
    wave = np.sin(np.arange(steps) / 50 + np.arange(n)[:, None])
    return np.asarray(level * (1 + np.arange(n)[:, None]) + level / 3 * wave + random.normal(0, 1, (n, steps)))


# ---- models in production --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """How a model has done: `drift` is how far its newest distribution is moved, `since` for how many hours."""

    output: str = "score"
    drift: float = 0.0
    since: int = 0
    events: int = 480  # an hour
    enabled: bool = True


STORIES = {
    "fraud-score": Story(drift=1.1, since=30),
    "support-intents": Story("label", 0.7, 50, 60),
    "churn": Story(),
    "ltv-forecast": Story("number", 0.05, 10, 90),
    "pricing": Story(events=40),
    "new-recommender": Story(events=3),
    "old-ranker": Story(enabled=False),
}
NAMES = {
    "score": [f"{low / 10:.1f} – {low / 10 + 0.1:.1f}" for low in range(10)] + ["missing"],
    "number": ["up to 12", "12 – 25", "25 – 60", "60 – 140", "140 – 310", "above 310", "missing"],
    "label": ["billing", "delivery", "refund", "<b>bold</b>", "other", "new", "missing"],
}


def production(store: Store) -> tuple[dict[str, int], dict[str, int]]:
    """Models with three weeks of evaluations; incidents in every state, with what was sent of them."""
    with store.database.write() as connection:
        found = model_store.register(connection, [(1, name) for name in STORIES], NOW - DAYS * 86_400.0)
        models = {name: one.id for (_, name), one in found.items()}
        receivers.add(
            connection, 1, "on-call", "webhook", {"url": "http://127.0.0.1:9/hook", "secret": "whsec_AAAA"}, NOW
        )
        for name, story in STORIES.items():
            _facts(connection, models[name], story)
        incidents = {
            "fraud-score": _incident(connection, models["fraud-score"], "fraud-score", STORIES["fraud-score"]),
            "support-intents": _incident(
                connection, models["support-intents"], "support-intents", STORIES["support-intents"]
            ),
            "pricing": _silence(connection, models["pricing"]),
        }
        _deliver(connection)
    evaluated = [_history(models[name], story) for name, story in STORIES.items()]
    events = [_events(models[name], story) for name, story in STORIES.items()]
    pendings = [
        event_store.write_psi(store, HOUR, _joined(evaluated), float(NOW)),
        event_store.write_events(store, _joined(events), float(NOW)),
    ]
    with store.database.write() as connection:
        store.segments.commit(connection, pendings)
    return models, incidents


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assessment(story: Story, drift: float, hour: int = TOP) -> Assessment:
    """What an evaluation finds of a model whose distribution is moved by `drift`."""
    names = NAMES[story.output]
    n, m = 168 * story.events, 24 * story.events
    shares = np.linspace(1.4, 0.6, len(names))
    shares[-1] = 0.02
    moved = shares * np.exp(drift * np.linspace(-1, 1, len(names)))
    before, after = n * shares / shares.sum(), m * moved / moved.sum()
    adds = psi.contributions(before, after)
    value, floor = float(adds.sum()), (len(names) - 1) * (1 / n + 1 / m)
    adjusted = max(0.0, value - floor)
    state = State.CRITICAL if adjusted >= 0.25 else State.WARNING if adjusted >= 0.1 else State.OK
    state = state if m >= 200 else State.INSUFFICIENT_DATA
    bins = tuple(
        BinShare(name, float(b / n), float(c / m), float(add))
        for name, b, c, add in zip(names, before, after, adds, strict=True)
    )
    numbers: dict[str, float | None] = {"psi": value, "adjusted": adjusted, "floor": floor, "limit": 2.4 * floor}
    numbers |= {"lower": 0.8 * adjusted, "upper": 1.25 * adjusted + floor, "p": 1e-9, "phi": 1.1}
    if state == State.INSUFFICIENT_DATA:
        numbers, bins = dict.fromkeys(numbers), ()
    output = OutputAssessment(story.output, state, **numbers, n_baseline=n, n_current=m, days=1, bins=bins)
    return Assessment(state, hour, 1, state == State.OK, False, False, (output,))


def _facts(connection: sa.Connection, model_id: int, story: Story) -> None:
    model_store.note_events(connection, [(model_id, DAYS * 24 * story.events, NOW - DAYS * 86_400, NOW - 40)])
    model_store.set_enabled(connection, model_id, story.enabled)
    found = assessment(story, story.drift)
    model_store.put_states(connection, [StateRow(model_id, TOP, found.state.name.lower(), found.to_json())])
    reason = "enough events for the first one"
    row = BaselineRow(
        model_id, 1, "sliding", TOP - 9 * 86_400, TOP - 2 * 86_400, NO_BINS, "sentinel", reason, NOW - 86_400.0
    )
    model_store.add_baselines(connection, [row])


def _incident(connection: sa.Connection, model_id: int, name: str, story: Story) -> int:
    """Opened as a warning, escalated where it is bad enough, acknowledged where it is not."""
    subject = lifecycle.Subject(1, "psi", name, model_id=model_id)
    incident = None
    for hour, drift in ((TOP - 6 * HOUR, 0.65), (TOP, story.drift)):
        found = assessment(story, drift, hour)
        condition = lifecycle.Condition(
            found.state.name.lower(), False, False, hour, hour - 24 * HOUR,
            f"PSI {found.outputs[0].adjusted:.2f} is above the threshold", found.to_json(), 1, "{}",
        )  # fmt: skip
        transition = lifecycle.evaluate(incident, condition, hour + 60)
        assert transition is not None
        incident = outbox.record(connection, incident or subject, transition)
    assert incident is not None
    if incident.severity == "warn":
        step = lifecycle.act(incident, "acknowledge", "otto", "the campaign in Spain; product knows", NOW - 900.0)
        incident = outbox.record(connection, incident, step)
    return incident.id


def _silence(connection: sa.Connection, model_id: int) -> int:
    finding = Silence(True, NOW - 30 * HOUR, 24, 960.0).to_json()
    condition = lifecycle.Condition("warning", False, False, TOP, TOP - 24 * HOUR, "no events in 24 hours", finding, 1)
    transition = lifecycle.evaluate(None, condition, NOW - 300.0)
    assert transition is not None
    incident = outbox.record(connection, lifecycle.Subject(1, "silence", "pricing", model_id=model_id), transition)
    state = {"state": "no_data"}
    connection.execute(schema.monitor_states.update().where(schema.monitor_states.c.model_id == model_id).values(state))
    return incident.id


def _threshold(connection: sa.Connection, watch_id: int) -> int:
    series = 'http_requests_total{job="shop",path="/pay"}'
    finding = ThresholdForecast((Reached(series, "above 120", 0.93, 1_200),), 1, 3, 0.9, "30m").to_json()
    condition = lifecycle.Condition("warning", False, False, NOW - 60, NOW - 60, "1 of 3 series", finding)
    transition = lifecycle.evaluate(None, condition, NOW - 50.0)
    assert transition is not None
    return outbox.record(connection, lifecycle.Subject(1, "threshold", REQUESTS.slug, watch_id=watch_id), transition).id


def _deliver(connection: sa.Connection) -> None:
    """The first alerts arrived, one was given up."""
    table = schema.deliveries
    connection.execute(table.update().values(state="delivered", attempts=1, delivered_at=NOW - 3000.0))
    newest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    dead = {"state": "dead", "attempts": 12, "last_error": "503 from 127.0.0.1:9: no backend", "delivered_at": None}
    connection.execute(table.update().where(table.c.id == newest).values(dead))


def _history(model_id: int, story: Story) -> dict[str, np.ndarray]:
    """An evaluation for each hour; where the model has drifted, it did so within a day."""
    random = np.random.default_rng(model_id)
    hours = np.arange(TOP - DAYS * 86_400, TOP + 1, HOUR)
    n = len(hours)
    ages = (TOP - hours) / HOUR
    drifts = (
        np.clip(story.drift * (1 - np.clip(ages - story.since + 24, 0, 24) / 24), 0, None)
        if story.since
        else np.zeros(n)
    )
    found = [assessment(story, drift).outputs[0].adjusted for drift in drifts]
    values = np.abs(np.array(found, float) + random.normal(0, 0.004, n))
    floor = np.full(n, 0.006)
    output = ("score", "number", "label").index(story.output)
    return {
        "model": np.full(n, model_id), "output": np.full(n, output), "ts": hours, "baseline": np.ones(n),
        "days": np.ones(n), "psi": values + floor, "adjusted": values, "lower": 0.8 * values,
        "upper": 1.2 * values + 0.01,
        "floor": floor,
        "limit": np.full(n, 0.02), "p": np.full(n, 0.1), "phi": np.ones(n),
        "n_baseline": np.full(n, 168.0 * story.events),
        "n_current": np.full(n, 24.0 * story.events), "state": np.zeros(n), "mode": np.zeros(n),
    }  # fmt: skip


def _events(model_id: int, story: Story) -> dict[str, np.ndarray]:
    """Ten days of events, more by day than by night."""
    random = np.random.default_rng(model_id)
    n = 240 * story.events
    hours = np.repeat(np.arange(240), story.events)
    busy = random.random(n) < 0.6 + 0.4 * np.sin(hours / 24 * 2 * np.pi)
    ts = (NOW - 60 - 3600 * hours - random.integers(0, 3600, n))[busy]
    nothing = np.full(len(ts), np.nan)
    values = random.beta(2, 5, len(ts))
    return {
        "model": np.full(len(ts), model_id), "ts": ts, "id": np.zeros(len(ts), np.int64),
        "score": values if story.output == "score" else nothing,
        "number": values if story.output == "number" else nothing,
        "label": random.integers(1, 6, len(ts)) if story.output == "label" else np.zeros(len(ts), np.int64),
    }  # fmt: skip
