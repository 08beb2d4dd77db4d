"""The dispatcher against a real receiver over real HTTP: what fails is tried again, and delays nobody else."""

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from sentinel_core.alerts import outbox, receivers
from sentinel_core.alerts.dispatch import (
    LONGEST_PAUSE_SECONDS,
    PERMANENT_ATTEMPTS,
    TRANSIENT_ATTEMPTS,
    DeliveryReport,
    deliver,
    pause,
)
from sentinel_core.config import SentinelConfig
from sentinel_core.errors import PermanentDeliveryError, TransientDeliveryError
from sentinel_core.incidents import store as incidents
from sentinel_core.pipeline import Engine
from sentinel_core.storage.store import Store
from tests.alerts.receiver_server import Answer, ReceiverServer, Request
from tests.incidents.situations import HOUR, START, acted, evaluated, model, opened

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Clock:
    """A clock that a test moves; it goes on by itself as well, so that a dispatcher's waiting ends."""

    def __init__(self) -> None:
        self.ahead = START + 100 * HOUR - time.time()

    def __call__(self) -> float:
        return time.time() + self.ahead


def webhook(store: Store, url: str, name: str = "hook") -> int:
    with store.database.write() as conn:
        return receivers.add(conn, 1, name, "webhook", {"url": url, "secret": SECRET}, 0.0)


def story(store: Store, name: str = "fraud-model") -> int:
    """An incident that opened, escalated and was resolved."""
    with store.database.write() as conn:
        incident = evaluated(conn, opened(conn, model(conn, name)), "critical", 1)
        return acted(conn, incident, "resolve", 2).id


def run(store: Store, config: SentinelConfig, clock: Clock | None = None, patience: float = 0.0) -> DeliveryReport:
    return deliver(store.database, config, clock=clock or Clock(), patience_seconds=patience)


def states(store: Store) -> list[tuple[str, int]]:
    with store.database.read() as conn:
        return [(one.state, one.attempts) for one in incidents.deliveries(conn)][::-1]


def test_a_story_arrives_once_and_in_order(store: Store, server: ReceiverServer, config: SentinelConfig) -> None:
    """All alerts of an incident reach a receiver one after the other; a second run has nothing to do."""
    webhook(store, server.url)
    story(store)
    assert run(store, config) == DeliveryReport(delivered=3)
    assert server.steps() == ["opened", "escalated", "resolved"]
    assert states(store) == [("delivered", 1)] * 3
    assert run(store, config) == DeliveryReport()


def test_what_fails_is_tried_again_with_the_same_id(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """A 500 and a lost reply are repeated; the id of the alert tells the receiver so."""
    fates = [Answer(500), Answer(lost=True)]
    server.answer = lambda request: fates.pop() if fates else Answer()
    webhook(sqlite_store, server.url)
    story(sqlite_store)
    assert run(sqlite_store, config, patience=10.0).delivered == 3
    assert server.steps() == ["opened"] * 3 + ["escalated", "resolved"]
    assert len({request.headers["webhook-id"] for request in server.requests[:3]}) == 1


def test_retry_after_is_honoured_for_all_that_the_receiver_is_owed(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """A receiver that asks for a minute gets it; then everything arrives."""
    clock = Clock()
    server.answer = lambda request: Answer(429, {"retry-after": "60"})
    webhook(sqlite_store, server.url)
    story(sqlite_store)
    report = run(sqlite_store, config, clock)
    assert (report.delivered, len(server.requests)) == (0, 1)
    assert report.next_at == pytest.approx(clock() + 60, abs=5)
    clock.ahead += 50
    assert (run(sqlite_store, config, clock).delivered, len(server.requests)) == (0, 1)
    clock.ahead += 20
    server.answer = lambda request: Answer()
    assert run(sqlite_store, config, clock).delivered == 3


def test_permanent_failures_die_sooner_and_are_resent_by_hand(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """Three 404s, with hours for somebody to repair it in between, and the alert is given up, with the reason."""
    clock = Clock()
    server.answer = lambda request: Answer(404, text="no such hook")
    webhook(sqlite_store, server.url)
    with sqlite_store.database.write() as conn:
        opened(conn, model(conn))
    for _ in range(PERMANENT_ATTEMPTS + 1):
        run(sqlite_store, config, clock)
        clock.ahead += LONGEST_PAUSE_SECONDS
    assert len(server.requests) == PERMANENT_ATTEMPTS < TRANSIENT_ATTEMPTS
    with sqlite_store.database.read() as conn:
        (dead,) = incidents.deliveries(conn, 1, state="dead")
    assert dead.last_error == "127.0.0.1 answered HTTP 404: no such hook"
    server.answer = lambda request: Answer()
    with sqlite_store.database.write() as conn:
        outbox.resend(conn, dead.id, clock(), 1)
    assert run(sqlite_store, config, clock).delivered == 1
    assert states(sqlite_store) == [("delivered", 1)]


def test_transient_failures_are_tried_for_days_and_then_die(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """A server that is down is tried again and again; the last failure leaves a dead letter."""
    clock = Clock()
    webhook(sqlite_store, "http://127.0.0.1:9/")  # nobody listens
    with sqlite_store.database.write() as conn:
        opened(conn, model(conn))
    for _ in range(TRANSIENT_ATTEMPTS):
        assert states(sqlite_store)[0][0] == "pending"
        run(sqlite_store, config, clock)
        clock.ahead += LONGEST_PAUSE_SECONDS
    assert states(sqlite_store) == [("dead", TRANSIENT_ATTEMPTS)]


def test_pauses_grow_with_full_jitter() -> None:
    """Up to 2, 4, 8 … seconds, an hour at most; a receiver's own wish is the least."""
    error = TransientDeliveryError("down")
    assert [pause(attempts, error, 1.0) for attempts in (1, 2, 3, 12, 500)] == [2.0, 4.0, 8.0, 3_600.0, 3_600.0]
    assert pause(5, error, 0.0) == 0.0
    assert pause(1, TransientDeliveryError("busy", 90.0), 0.5) == 90.0
    assert pause(1, PermanentDeliveryError("gone"), 1.0) == 60.0


def test_a_slow_or_broken_receiver_delays_nobody_else(
    store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """While one receiver hangs, one answers 500 and one cannot be built, another one gets everything at once."""
    hang = threading.Event()
    with ReceiverServer().running() as slow, ReceiverServer().running() as broken:

        def hanging(request: Request) -> Answer:
            hang.wait(20)
            return Answer()

        slow.answer = hanging
        broken.answer = lambda request: Answer(500)
        webhook(store, slow.url, "a slow one")
        webhook(store, broken.url, "broken")
        with store.database.write() as conn:
            receivers.add(conn, 1, "damaged", "webhook", {"colour": "blue"}, 0.0)
        webhook(store, server.url, "well")
        for number in range(30):
            story(store, f"m{number}")
        dispatcher = threading.Thread(target=run, args=(store, config))
        dispatcher.start()
        began = time.monotonic()
        while len(server.requests) < 90 and time.monotonic() - began < 20:
            time.sleep(0.02)
        assert len(server.requests) == 90
        assert slow.requests, "it was under way all the time"
        assert not hang.is_set()
        with store.database.write() as conn:
            opened(conn, model(conn, "new"))
        while len(server.requests) < 91 and time.monotonic() - began < 20:
            time.sleep(0.02)
        assert server.requests[-1].json["data"]["incident"]["subject"] == "new", "also what came in since"
        hang.set()
        dispatcher.join()
    with store.database.read() as conn:
        damaged = [one for one in incidents.deliveries(conn) if one.receiver == "damaged"]
    assert {one.last_error for one in damaged if one.attempts} == {
        "settings.url: is missing; settings.secret: is missing; settings.colour: unknown field; known: url, secret"
    }


def test_a_name_that_nobody_answers_for_is_a_passing_failure(sqlite_store: Store, config: SentinelConfig) -> None:
    """The error says what to check."""
    webhook(sqlite_store, "https://nowhere.invalid/")
    with sqlite_store.database.write() as conn:
        opened(conn, model(conn))
    assert run(sqlite_store, config).failed  # again where a busy machine takes longer than the first pause
    with sqlite_store.database.read() as conn:
        (one,) = incidents.deliveries(conn)
    assert one.last_error is not None
    assert one.last_error.startswith("nowhere.invalid cannot be resolved")
    assert one.state == "pending"


def test_dispatchers_share_the_work(store: Store, server: ReceiverServer, config: SentinelConfig) -> None:
    """Four at once: every alert arrives once, in the order of its incident."""
    webhook(store, server.url)
    for number in range(25):
        story(store, f"m{number}")
    threads = [threading.Thread(target=run, args=(store, config), kwargs={"patience": 30.0}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Counter(request.headers["webhook-id"] for request in server.requests).values()) == {1}
    assert len(server.requests) == 75
    for number in range(25):
        mine = [one for one in server.requests if one.json["data"]["incident"]["subject"] == f"m{number}"]
        assert [one.json["type"] for one in mine] == ["incident.opened", "incident.escalated", "incident.resolved"]


KILLED = """
import os, sys
from sentinel_core.alerts import dispatch, outbox
from sentinel_core.config import SentinelConfig
from sentinel_core.storage.database import Database

calls = iter(range(1_000_000))
def tracer(frame, event, argument):
    if frame.f_code.co_filename in (dispatch.__file__, outbox.__file__):
        if event == "line" and next(calls) == int(sys.argv[3]):
            os._exit(9)
        return tracer

config = SentinelConfig(artifact_store=sys.argv[2], alert_networks=["127.0.0.0/8"])
database = Database(sys.argv[1])
import threading
threading.settrace(tracer)
sys.settrace(tracer)
dispatch.deliver(database, config, patience_seconds=0.0)
"""


@pytest.mark.slow
def test_a_dispatcher_that_dies_at_any_line_loses_nothing(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """Killed in the middle of claiming, sending and settling: all arrives, in order, and what is doubled by its id."""
    webhook(sqlite_store, server.url)
    url = sqlite_store.database.url.render_as_string(hide_password=False)
    died = 0
    expected = []
    for number, line in enumerate(range(7, 260, 36)):
        incident_id = story(sqlite_store, f"m{number}")
        expected.append(incident_id)
        command = [sys.executable, "-c", KILLED, url, config.artifact_store, str(line)]
        died += subprocess.run(command, check=False).returncode == 9
    assert died >= 5
    clock = Clock()
    clock.ahead = outbox.LEASE_SECONDS + 1.0
    run(sqlite_store, config, clock, patience=2.0)
    arrived: dict[int, list[str]] = {}
    seen = set()
    for request in server.requests:
        if request.headers["webhook-id"] not in seen:
            seen.add(request.headers["webhook-id"])
            arrived.setdefault(request.json["data"]["incident"]["id"], []).append(request.json["type"])
    story_of_each = ["incident.opened", "incident.escalated", "incident.resolved"]
    assert arrived == dict.fromkeys(expected, story_of_each)


def test_alertmanager_is_told_again_until_it_is_over(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig
) -> None:
    """Every few minutes while the incident is active, also where a repetition fails; once more when it ends."""
    clock = Clock()
    with sqlite_store.database.write() as conn:
        receivers.add(conn, 1, "am", "alertmanager", {"url": server.url}, 0.0)
        incident = opened(conn, model(conn))
    report = run(sqlite_store, config, clock)
    assert report.delivered == 1
    assert report.next_at == pytest.approx(clock() + 300, abs=5)
    assert run(sqlite_store, config, clock).repeated == 0
    clock.ahead += 301
    server.answer = lambda request: Answer(500)
    assert run(sqlite_store, config, clock).failed == 1
    server.answer = lambda request: Answer()
    clock.ahead += 60
    assert run(sqlite_store, config, clock).repeated == 1
    assert states(sqlite_store) == [("delivered", 1)]
    with sqlite_store.database.write() as conn:
        acted(conn, incident, "resolve", 100)
    report = run(sqlite_store, config, clock)
    assert (report.delivered, report.next_at) == (1, None)
    now = datetime.fromtimestamp(clock(), UTC)
    fires = [[datetime.fromisoformat(one["endsAt"]) > now for one in request.json] for request in server.requests]
    assert fires == [[True, False]] * 3 + [[False, False]]


def test_the_engine_delivers(server: ReceiverServer, config: SentinelConfig) -> None:
    """What Dagster and the command line call."""
    with Engine.open(config) as engine:
        assert not engine.deliveries_due()
        webhook(engine.store, server.url)
        story(engine.store)
        assert engine.deliveries_due()
        assert engine.deliver().delivered == 3
        assert not engine.deliveries_due()
