"""Models in production from the command line: what Dagster does by the clock, and what people do about it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from sentinel_core.check import monitoring_advice
from sentinel_core.cli import main
from sentinel_core.config import MonitorConfig, SentinelConfig, load_config
from sentinel_core.demo.receiver import Handler
from sentinel_core.storage import schema
from sentinel_core.storage.store import Store
from tests.model_past import acknowledge

STEP = 5  # seconds of an "hour"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a configuration whose hours are short and whose alerts may stay on this machine."""
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("sentinel.toml").write_text(f'monitor_step = "{STEP}s"\nalert_networks = ["127.0.0.0/8"]\n')


@pytest.fixture
def store() -> Iterator[Store]:
    """The configured one."""
    config = load_config()
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as opened:
        opened.database.migrate()
        yield opened


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a receiver that checks signatures; it prints what arrives."""
    monkeypatch.setattr(Handler, "secret", SECRET)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def run(capfd: pytest.CaptureFixture[str], *command: str, code: int = 0) -> str:
    """What a command says."""
    assert main(command) == code
    said = capfd.readouterr()
    return said.err if code else said.out


def test_from_events_to_an_alert_and_back(store: Store, hook: str, capfd: pytest.CaptureFixture[str]) -> None:
    """monitor opens an incident, deliver tells of it, and a person sees, acknowledges, resolves and closes it."""
    assert "No model has sent events" in run(capfd, "models", "list")
    settings = ("--set", f"url={hook}", "--set", f"secret={SECRET}")
    assert "ops is told from severity warn on" in run(capfd, "receivers", "add", "ops", "--kind", "webhook", *settings)
    acknowledge(store, STEP)
    said = run(capfd, "monitor")
    assert "18000 events drained" in said
    assert "default/fraud: opened:" in said
    [row] = run(capfd, "models", "list").splitlines()[1:]
    assert row.split()[:4] == ["1", "fraud", "default", "critical"]
    assert "1 (critical)" in row
    delivered = run(capfd, "deliver")
    assert "alerts: 1 sent" in delivered
    assert "ALERT incident.opened" in delivered  # the receiver runs in this process
    assert run(capfd, "deliver") == "Nothing to do: no alert is owed.\n"
    assert "1   open   critical  default" in run(capfd, "incidents", "list")
    assert "acknowledge or resolve it first" in run(capfd, "incidents", "close", "1", code=1)
    for command, state in (("ack", "acknowledged"), ("resolve", "resolved"), ("close", "closed")):
        assert run(capfd, "incidents", command, "1", "--reason", "seen") == f"incident 1 (fraud) is {state}\n"
    assert "No incident is open" in run(capfd, "incidents", "list")
    assert "closed" in run(capfd, "incidents", "list", "--all")
    with store.database.read() as connection:
        actors = {row.actor for row in connection.execute(schema.audit_log.select())}
    assert all(actor.endswith("(command line)") for actor in actors)


def test_a_model_is_deleted_by_name(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """What went is shown; another name is an error that says where to look."""
    acknowledge(store, STEP, days=1)
    run(capfd, "monitor")
    assert "there is no model frau" in run(capfd, "models", "delete", "frau", code=1)
    assert run(capfd, "models", "delete", "fraud").startswith("fraud is deleted: ")
    assert "No model has sent events" in run(capfd, "models", "list")


def test_receivers_are_tested_shown_without_secrets_and_removed(
    hook: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A test goes out at once and says what came of it; a setting may be in a file, or JSON."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    secret = f"secret=@{tmp_path}/secret"
    run(capfd, "receivers", "add", "ops", "--kind", "webhook", "--set", f"url={hook}", "--set", secret)
    assert "ALERT test:" in run(capfd, "receivers", "test", "ops")
    assert SECRET not in run(capfd, "receivers", "list")
    assert "is not NAME=VALUE" in run(capfd, "receivers", "add", "x", "--kind", "slack", "--set", "url", code=1)
    assert "ops" in run(capfd, "receivers", "test", "opps", code=1)
    assert run(capfd, "receivers", "remove", "ops") == "ops is removed\n"
    assert "Nobody is told" in run(capfd, "receivers", "list")


def test_watch_goes_on_until_it_is_ended(store: Store) -> None:
    """With --watch a command takes up what comes, and Ctrl-C ends it."""
    command = [sys.executable, "-m", "sentinel_core.cli", "monitor", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledge(store, STEP, days=1)
        assert "2000 events drained" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_check_speaks_of_links_that_lead_nowhere(capfd: pytest.CaptureFixture[str], hook: str) -> None:
    """Without a receiver nobody follows them; with one they have to lead to more than this machine."""
    assert "external_url" not in run(capfd, "check")
    run(capfd, "receivers", "add", "ops", "--kind", "webhook", "--set", f"url={hook}", "--set", f"secret={SECRET}")
    assert "write external_url" in run(capfd, "check")
    Path("sentinel.toml").write_text('external_url = "https://sentinel.example.org"\n')
    assert "external_url" not in run(capfd, "check")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"event_retention": "30d"}, ["event_retention = 30d is less than what a model is compared with, 35d"]),
        ({"event_retention": "30d", "monitoring": MonitorConfig(baseline="preceding")}, []),
        ({"bind_address": "10.0.0.5"}, []),
    ],
)
def test_advice_on_monitoring(settings: dict[str, object], words: list[str]) -> None:
    """Events have to be kept for as long as a model is compared with them."""
    found = list(monitoring_advice(SentinelConfig(**settings), 0))  # type: ignore[arg-type]
    assert [word in text for word, text in zip(words, found, strict=True)] == [True] * len(words)
