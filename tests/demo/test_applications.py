"""The demo's scoring app and receiver: the story that the events tell, and who may send and receive."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from sentinel_core.alerts import receivers
from sentinel_core.alerts.receivers.webhook import headers
from sentinel_core.config import SentinelConfig
from sentinel_core.demo import applications, receiver
from sentinel_core.demo.production import CHURN, DAY_STEPS, FRAUD, MODELS, ROUTER, STEP_SECONDS, Scored, scored
from sentinel_core.demo.receiver import genuine
from sentinel_core.demo.shop import demo_config
from sentinel_core.security import keys
from sentinel_core.security.secret import load_pepper
from sentinel_core.storage import model_store
from sentinel_core.storage.store import Store

SINCE = 1_000_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def day(number: int, model: str) -> list[Scored]:
    """The events of one model on one day of the story."""
    first = SINCE + number * DAY_STEPS
    every = (event for step in range(first, first + DAY_STEPS) for event in scored(step, SINCE))
    return [event for event in every if event.model_id == model]


def test_the_story() -> None:
    """Fraud drifts slightly, then strongly, then not; routing stays calm; churn is silent for two days and returns."""
    fraud = [np.mean([event.score or 0.0 for event in day(number, FRAUD)]) for number in range(-1, 5)]
    assert fraud[1] > fraud[0] + 0.03
    assert fraud[3] > fraud[1] + 0.15
    assert abs(fraud[5] - fraud[0]) < 0.02
    assert [len(day(number, CHURN)) > 0 for number in range(5, 9)] == [True, False, False, True]
    assert any(event.score is None for event in day(0, CHURN))
    for number in (0, 3, 7):
        billing = np.mean([event.prediction == "billing" for event in day(number, ROUTER)])
        assert abs(billing - 0.45) < 0.07


def test_a_step_is_the_same_whenever_it_is_sent() -> None:
    """Times and ids depend on the step alone, lie in it, and ids are unique per model."""
    again, another = list(scored(SINCE + 60, SINCE)), list(scored(SINCE + 60, SINCE + 9))
    assert again == list(scored(SINCE + 60, SINCE))
    assert {(one.model_id, one.event_id) for one in another} >= {(one.model_id, one.event_id) for one in again[:40]}
    assert all((SINCE + 60) * STEP_SECONDS <= one.event_time.timestamp() < (SINCE + 61) * STEP_SECONDS for one in again)
    assert len({(one.model_id, one.event_id) for one in again}) == len(again)


@pytest.mark.parametrize(
    ("spoilt", "good"),
    [({}, True), ({"webhook-id": "other"}, False), ({"webhook-timestamp": "1000"}, False), ({"late": ""}, False)],
)
def test_only_a_genuine_message_is_taken(spoilt: dict[str, str], good: bool) -> None:
    """A signature of the shared secret over id, time and body, and no older than some minutes."""
    now = 2_000.0 + 600.0 * ("late" in spoilt)
    signed = {**headers(SECRET, "msg_1", 2_000, b"{}"), **spoilt}
    assert genuine(signed, b"{}", SECRET, now) is good
    assert not genuine(signed, b"{ }", SECRET, now)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The receiver's own server; its URL."""
    monkeypatch.setattr(receiver.Handler, "secret", SECRET)
    with ThreadingHTTPServer(("127.0.0.1", 0), receiver.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_receiver_says_what_arrives(running: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line for each alert; a forged one is refused and said to be."""
    message = {
        "type": "incident.opened",
        "data": {"message": {"title": "Warning: x"}, "incident": {"url": "http://s/1"}},
    }
    body = json.dumps(message).encode()
    signed = headers(SECRET, "msg_1", int(time.time()), body)
    for how in (signed, {**signed, "webhook-signature": "v1,forged"}):
        httpx.post(running, content=body, headers=how, trust_env=False)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "ALERT incident.opened: Warning: x; http://s/1"
    assert lines[1].startswith("ERROR")


@pytest.fixture
def config(tmp_path: Path) -> SentinelConfig:
    """The demo's, in a store of its own."""
    return demo_config(SentinelConfig(artifact_store=str(tmp_path)))


@pytest.fixture
def store(config: SentinelConfig) -> Iterator[Store]:
    """The demo's, with its tables."""
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as opened:
        opened.database.migrate()
        yield opened


def live(store: Store) -> list[str]:
    """The names of good keys."""
    with store.database.read() as connection:
        return [key.name for key in keys.list_keys(connection) if key.state(time.time()) == "live"]


def test_a_second_start_carries_on(config: SentinelConfig, store: Store) -> None:
    """Key and receiver are made once, the receiver's port may move; a lost key is replaced and no other stays good."""
    pepper = load_pepper(config, {})
    folder = config.store_path / "demo"
    [_, first], [_, scoring] = applications.prepare(config, store.database, pepper)
    assert first[2] == "sentinel_core.demo.receiver"
    assert scoring[2] == "sentinel_core.demo.scoring"
    text = (folder / "scoring.key").read_text()
    assert (folder / "scoring.key").stat().st_mode & 0o777 == 0o600
    with socket.create_server(("127.0.0.1", int(first[4]))):
        [_, second], _ = applications.prepare(config, store.database, pepper)
    with store.database.read() as connection:
        [there] = receivers.list_receivers(connection)
    assert there.settings["url"] == f"http://127.0.0.1:{second[4]}/"
    assert (folder / "scoring.key").read_text() == text
    (folder / "scoring.key").unlink()
    applications.prepare(config, store.database, pepper)
    assert (folder / "scoring.key").read_text() != text
    assert live(store) == [applications.SCORING_APP]


def test_what_a_demo_left_is_retired(config: SentinelConfig, store: Store) -> None:
    """Another start revokes its key, removes its receiver and disables its models; the next demo has them again."""
    pepper = load_pepper(config, {})
    applications.prepare(config, store.database, pepper)
    with store.database.write() as connection:
        model_store.register(connection, [(1, name) for name in (*MODELS, "own")], time.time())
    for retire in (True, False):
        if retire:
            applications.retire(store.database)
        else:
            applications.prepare(config, store.database, pepper)
        with store.database.read() as connection:
            enabled = {model.name: model.enabled for model in model_store.models(connection)}
            told = receivers.list_receivers(connection)
        assert enabled == {**dict.fromkeys(MODELS, not retire), "own": True}
        assert (bool(told), bool(live(store))) == (not retire, not retire)


def test_the_scoring_app_fills_the_weeks_before(config: SentinelConfig, store: Store) -> None:
    """As a process over the real client: four weeks of three models arrive, all with the right key."""
    applications.prepare(config, store.database, load_pepper(config, {}))
    key = config.store_path / "demo" / "scoring.key"
    arrived: list[int] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {key.read_text()}"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append(len(body))
            answer = b'{"accepted": 1000, "duplicates": 0, "rejected": []}'
            self.send_response(202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        command = [sys.executable, "-m", "sentinel_core.demo.scoring", "--key-file", str(key)]
        url = f"http://127.0.0.1:{server.server_address[1]}"
        process = subprocess.Popen([*command, "--url", url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process:
            said = process.stdout.readline()
            process.kill()
        server.shutdown()
        thread.join()
    assert said.startswith("four weeks of demo-fraud-score")
    assert len(arrived) >= 80
