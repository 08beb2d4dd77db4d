"""The `sentinel` command as people use it: real processes, a real port, one clear message when something is wrong."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentinel_core import SentinelConfig, WatchConfig, __version__
from sentinel_core.check import threshold_advice
from sentinel_core.cli import describe_changes, main
from sentinel_core.config import load_config
from sentinel_core.dagster_api import DagsterApi
from sentinel_core.demo.shop import demo_config
from sentinel_core.demo.target import Handler
from sentinel_core.errors import ConfigError, RegistryError, ServiceError
from sentinel_core.sentinel import Sentinel, find_watch, version_number
from sentinel_core.workspace import applied_path, write_applied

MODEL = "ExponentialSmoothingModel"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working folder, search path and no configuration in the environment."""
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def demo_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def sentinel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "sentinel_core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def write(*watches: str, **settings: object) -> Path:
    """Write ./sentinel.toml from settings and the bodies of [[watches]] tables."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    lines += [f'[[watches]]\nmodel_class = "{MODEL}"\n{watch}' for watch in watches]
    Path("sentinel.toml").write_text("\n".join(lines))
    return Path("sentinel.toml")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_version() -> None:
    """`sentinel --version` names the release."""
    assert sentinel("--version").stdout == f"sentinel {__version__}\n"


def test_init_writes_a_file_that_is_valid_and_shows_every_setting() -> None:
    """The commented file loads as it is, and names every field of the configuration and every built-in model."""
    assert sentinel("init").returncode == 0
    text = Path("sentinel.toml").read_text()
    config = load_config()
    assert [watch.metric for watch in config.watches] == ["scrape_duration_seconds"]
    for section in (SentinelConfig, WatchConfig, type(config.auth), type(config.monitoring)):
        for name in section.__dataclass_fields__:
            assert name in text, f"{name} is missing in the template"
    for model in ("LinearTrendModel", "ExponentialSmoothingModel", "ARIMAModel", "SGDRegressorModel"):
        assert model in text


def test_init_with_every_setting_uncommented_is_known() -> None:
    """No setting in the template is misspelt: uncommented, its settings are all known ones."""
    sentinel("init")
    lines = []
    for line in Path("sentinel.toml").read_text().splitlines():
        bare = line.removeprefix("# ")
        lines.append(bare if line.startswith("# ") and (" = " in bare or bare.startswith("[")) else line)
    Path("sentinel.toml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert caught.value.problems == ("auth: bearer_token_env and username exclude each other; keep one",)


def test_init_never_writes_over_a_file() -> None:
    """An existing sentinel.toml stays as it is."""
    Path("sentinel.toml").write_text("mine")
    done = sentinel("init")
    assert (done.returncode, Path("sentinel.toml").read_text()) == (2, "mine")
    assert "sentinel.toml exists already; edit it, or remove it first" in done.stderr


def test_configuration_errors_are_one_message_and_exit_code_2() -> None:
    """Every command says what is wrong with the configuration, without a traceback."""
    write('metric = "a b"', emitter_port=0)
    for command in ("check", "up", "status", "reload"):
        done = sentinel(command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("sentinel: 2 problems in the configuration:\n  - emitter_port: 0 is not a port")
        assert "Traceback" not in done.stderr


def test_check_says_what_prometheus_has_for_each_watch(demo_url: str) -> None:
    """Series, kind, scrape interval, history, scale and thresholds of every watch, in plain words; exit code 0."""
    write(
        'metric = "demo_requests_total"\nlabels = { route = "=~/search|/checkout" }',
        'metric = "demo_disk_used_ratio"\ndrift_finetune_threshold = 0.002',
        prometheus_url=demo_url,
    )
    done = sentinel("check")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "6 series, counter, scraped every 15 s; emitted as demo_requests_total_rate_sentinel_predicted",
        "history: 7.0 days",
        "note: drift_finetune_threshold = 0.1 is far below the usual error of",
        "3 series, gauge, scraped every 15 s; emitted as demo_disk_used_ratio_sentinel_predicted",
        "  good",
        "2 of 2 watches can work",
    ):
        assert words in done.stdout


def test_check_fails_for_a_watch_that_cannot_work_and_goes_on_with_the_others(demo_url: str) -> None:
    """A metric that is not there and a selector that matches too much are problems of their watch alone."""
    write(
        'metric = "demo_nothing"',
        'metric = "demo_requests_total"\nmax_series = 5',
        'metric = "demo_cpu_ratio"\nhorizon = "1d"\nlookback = "5d"',
        'metric = "demo_cpu_ratio"\nhorizon = "2d"\nlookback = "8d"\nhistory = "10d"',
        'query = "a + b"\nname = "n"',
        prometheus_url=demo_url,
    )
    done = sentinel("check")
    assert done.returncode == 1
    assert "has no series demo_nothing; check the metric's name and the labels" in done.stdout
    assert "demo_requests_total has 6 series, more than max_series = 5" in done.stdout
    assert "lookback + horizon need 6d of history" not in done.stdout
    assert "note: lookback + horizon need 10d of history; the first model is trained in about 3d" in done.stdout
    assert "PROBLEM: Prometheus at" in done.stdout
    assert "2 of 5 watches can work" in done.stdout


def test_check_without_prometheus_is_one_message() -> None:
    """A Prometheus that is away is exit code 1 with its address and the remedy."""
    write('metric = "up"', prometheus_url=f"http://127.0.0.1:{free_port()}")
    done = sentinel("check")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("unit", "low", "words"),
    [
        ("mae", 0.1, []),
        ("mae", 0.01, ["far below the usual error of 0.1"]),
        ("mae", 50.0, ["more than 20 times the usual error of 0.1"]),
        ("scaled", 1.5, []),
        ("scaled", 0.9, ["not above the training error itself"]),
        ("auto", 0.01, []),
    ],
)
def test_thresholds_are_judged_by_the_metrics_scale(unit: str, low: float, words: list[str]) -> None:
    """A threshold is too small when ordinary errors pass it, and too large when nothing ever would."""
    watch = WatchConfig(drift_unit=unit, drift_finetune_threshold=low, drift_retrain_threshold=100)
    found = list(threshold_advice(watch, 0.1))
    assert [word in text for word, text in zip(words, found, strict=True)] == [True] * len(words)


def test_up_on_a_busy_port_names_port_and_setting() -> None:
    """A busy port is exit code 1, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write(emitter_port=port, dagster_port=free_port())
        done = sentinel("up")
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in done.stderr
    assert "set another emitter_port" in done.stderr


def test_status_before_anything_ran() -> None:
    """Every watch is listed, not ready, with nothing serving; --json is for machines."""
    write('metric = "up"')
    done = sentinel("status")
    assert not Path("sentinel_artifacts").exists()  # asking leaves nothing behind
    assert (done.returncode, done.stdout.splitlines()[:2]) == (0, ["up", "  nothing serves yet; 0 series; not ready"])
    found = json.loads(sentinel("status", "--json").stdout)
    assert (found["up"]["ready"], found["up"]["active_version"], found["up"]["buffer_fill"]) == (False, None, 0.0)


def test_status_tells_of_what_runs_and_not_of_an_edited_file() -> None:
    """Until a reload, the applied configuration is the one that counts."""
    write('metric = "up"')
    write_applied(load_config())
    write('metric = "down"')
    assert list(json.loads(sentinel("status", "--json").stdout)) == ["up"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rollback"], 2, "name one watch: its selector, or --watch SLUG"),
        (["rollback", "down"], 2, "no watch is down; configured: up{"),
        (["rollback", "up", "--to", "three"], 1, "'three' is not a version; write v3"),
        (["rollback", "up"], 1, "Traceback"),
        (["release", "up"], 1, "Traceback"),
    ],
)
def test_rollback_without_a_way_back_says_so(arguments: list[str], code: int, words: str) -> None:
    """Nothing to roll back to, no such watch, no such version: one message each."""
    write('metric = "up"\nlabels = { job = "api" }')
    done = sentinel(*arguments)
    assert done.returncode == code
    assert done.stderr.startswith("sentinel: ")
    assert (words in done.stderr) == (words != "Traceback")


def test_watches_are_found_by_selector_slug_or_name() -> None:
    """A selector's labels may come in any order; a bare name does where it is unique; else the slugs are listed."""
    one = WatchConfig(metric="up", model_class=MODEL, labels={"job": "api", "env": "!=test"})
    two = WatchConfig(metric="down", model_class=MODEL, labels={"a": '=~x"y'})
    twin = WatchConfig(metric="down", model_class=MODEL)
    config = SentinelConfig(watches=[one, two, twin])
    for text in ('up{ job="api", env!="test" }', one.selector, one.slug, "up"):
        assert find_watch(config, text) is one
    assert find_watch(config, "up{env!='test',job='api',}") is one
    assert find_watch(config, two.selector) is two
    assert find_watch(config, "down") is twin
    with pytest.raises(ConfigError, match="no watch is sideways"):
        find_watch(config, "sideways")
    far = WatchConfig(metric="up", model_class=MODEL, labels=one.labels, horizon="1h")
    with pytest.raises(ConfigError, match=f"means 2 watches; name one by its slug: {one.slug}, {far.slug}"):
        find_watch(SentinelConfig(watches=[one, far]), one.selector)


@pytest.mark.parametrize("text", ["m{job=api}", 'm{job="api"', "m{", 'm{job="api"}x', 'm{job="api" env="x"}', "m}"])
def test_a_selector_that_is_misspelt_means_no_watch(text: str) -> None:
    """A part that cannot be read is an error: without it the selector would mean another watch."""
    config = SentinelConfig(watches=[WatchConfig(metric="m", model_class=MODEL, labels={"job": "web"})])
    with pytest.raises(ConfigError, match=r"is not a selector|no watch is"):
        find_watch(config, text)


def test_escapes_in_a_selector_are_read() -> None:
    """A label's line break, quote and backslash are written as PromQL writes them."""
    watch = WatchConfig(metric="m", model_class=MODEL, labels={"path": 'a\n"b"\\n'})
    other = WatchConfig(metric="m", model_class=MODEL)
    assert find_watch(SentinelConfig(watches=[watch, other]), watch.selector).labels == watch.labels


def test_versions_are_written_as_people_do() -> None:
    """v3, 3 and "3" are one version."""
    assert [version_number(text) for text in ("v3", "3", 3, None)] == [3, 3, 3, None]
    with pytest.raises(RegistryError, match="write v3"):
        version_number("latest")


def test_the_facade_works_without_a_running_sentinel() -> None:
    """status() and rollback() need no processes; stop() without start() does nothing."""
    config = SentinelConfig(artifact_store="store", watches=[WatchConfig(metric="up", model_class=MODEL)])
    found = Sentinel(config)
    assert found.status()["up"]["ready"] is False
    with pytest.raises(RegistryError):
        found.rollback(metric="up")
    with pytest.raises(ConfigError, match="no watch is up"):
        found.rollback(metric="up", labels={"job": "x"})
    found.stop()


# ---- reload


class Fake:
    """A sidecar or a Dagster that answers what it is told, and remembers what it was asked."""

    def __init__(self, status: int, body: Callable[[str], object]) -> None:
        self.asked: list[str] = []
        fake = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.path + self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                fake.asked.append(asked)
                content = json.dumps(body(asked)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake() -> Iterator[Callable[..., Fake]]:
    started: list[Fake] = []

    def start(body: Callable[[str], object], status: int = 200) -> Fake:
        started.append(Fake(status, body))
        return started[-1]

    yield start
    for server in started:
        server.close()


def dagster_answers(asked: str) -> object:
    """A healthy location that reloads."""
    if "reloadRepositoryLocation" in asked:
        entry = {"locationOrLoadError": {"__typename": "RepositoryLocation"}}
        return {"data": {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry", **entry}}}
    entries = [{"name": "sentinel", "locationOrLoadError": {"__typename": "RepositoryLocation"}}]
    return {"data": {"workspaceOrError": {"locationEntries": entries}}}


def test_reload_applies_an_edited_file_and_says_what_changed(fake: Callable[..., Fake]) -> None:
    """The applied configuration is written, sidecar and Dagster are told, and every change is a line."""
    sidecar, dagster = fake(lambda asked: {"status": "success"}), fake(dagster_answers)
    ports = {"emitter_port": sidecar.port, "dagster_port": dagster.port}
    write('metric = "up"', 'metric = "old"', **ports)
    write_applied(load_config())
    write('metric = "up"\nhistory = "1d"', 'metric = "new"', **ports, scrape_timeout=5.0)
    done = sentinel("reload")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["scrape_timeout: 10.0 -> 5.0", "up: history: 7d -> 1d"]
    assert lines[2].startswith("new watch new (new-")
    assert lines[3].startswith("removed watch old (old-")
    assert lines[4:] == ["the sidecar has it", "Dagster has it"]
    assert load_config(applied_path(load_config())) == load_config()
    assert sidecar.asked == ["/-/reload"]
    assert "reloadRepositoryLocation" in dagster.asked[-1]


def test_reload_of_a_wrong_file_changes_nothing(fake: Callable[..., Fake]) -> None:
    """A file with problems is refused before anything is written or told."""
    sidecar = fake(lambda asked: {})
    write(emitter_port=sidecar.port)
    before = write_applied(load_config()).read_text()
    write('metric = "a b"', emitter_port=sidecar.port)
    done = sentinel("reload")
    assert done.returncode == 2
    assert applied_path(SentinelConfig()).read_text() == before
    assert sidecar.asked == []


def test_reload_while_nothing_runs_says_when_it_takes_effect() -> None:
    """Without a running Sentinel the change waits for the next start."""
    write('metric = "up"', emitter_port=free_port(), dagster_port=free_port())
    for applied_before in (False, True):
        if applied_before:
            write_applied(load_config())
        done = sentinel("reload")
        assert (done.returncode, "nothing has changed" in done.stdout) == (0, applied_before)
        assert "takes effect with the next `sentinel up`" in done.stdout


def test_reload_leaves_addresses_and_stores_of_what_runs(fake: Callable[..., Fake]) -> None:
    """A changed port or store waits for the next `up`: until then every command finds what runs, and its data."""
    sidecar, dagster = fake(lambda asked: {"status": "success"}), fake(dagster_answers)
    write('metric = "up"', emitter_port=sidecar.port, dagster_port=dagster.port)
    before = load_config()
    write_applied(before)
    write('metric = "new"', emitter_port=free_port(), dagster_port=free_port(), data_url="file:///elsewhere")
    for _ in range(2):
        done = sentinel("reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("(from the next `sentinel up`)") == 3
        assert done.stdout.endswith("the sidecar has it\nDagster has it\n")
    applied = load_config(applied_path(before))
    assert [watch.metric for watch in applied.watches] == ["new"]
    assert (applied.sidecar_url, applied.dagster_url) == (before.sidecar_url, before.dagster_url)
    assert applied.resolved_data_url == before.resolved_data_url
    sidecar.close()
    done = sentinel("reload")
    assert (done.returncode, done.stdout.endswith("\nDagster has it\n")) == (0, True)
    assert done.stderr.startswith("sentinel: the sidecar does not answer")


def test_an_applied_configuration_that_does_not_hold_gives_way(fake: Callable[..., Fake]) -> None:
    """After a model's class was renamed every command works with the file's watches at the applied addresses."""
    sidecar = fake(lambda asked: {"status": "success"})
    write('metric = "up"', emitter_port=sidecar.port, dagster_port=free_port())
    applied = write_applied(load_config())
    applied.write_text(applied.read_text().replace(MODEL, "RenamedModel"))
    write('metric = "up"\nhistory = "1d"', emitter_port=free_port(), dagster_port=free_port())
    done = sentinel("status")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "up")
    assert done.stderr.startswith("sentinel: what was applied does not hold any more")
    done = sentinel("reload")
    assert (done.returncode, done.stdout) == (0, "the sidecar has it\n")
    assert load_config(applied).emitter_port == sidecar.port
    assert load_config(applied).watches[0].history == "1d"


def test_reload_needs_a_file() -> None:
    """Without a sentinel.toml there is nothing to apply: the running configuration is not replaced by defaults."""
    done = sentinel("reload")
    assert (done.returncode, "there is no sentinel.toml here" in done.stderr) == (2, True)


def test_a_sidecar_that_refuses_is_an_error(fake: Callable[..., Fake]) -> None:
    """What the sidecar says is passed on, exit code 1."""
    sidecar = fake(lambda asked: {"error": "no"}, status=400)
    write(emitter_port=sidecar.port, dagster_port=free_port())
    write_applied(load_config())
    done = sentinel("reload")
    assert (done.returncode, "refuses to reload" in done.stderr) == (1, True)


def test_what_needs_a_restart_is_marked(tmp_path: Path) -> None:
    """Ports and stores are told to wait for the next start; secrets in URLs are not shown."""
    before = SentinelConfig(artifact_store=str(tmp_path))
    after = SentinelConfig(
        artifact_store=str(tmp_path), emitter_port=9999, sql_url="postgresql://u:secret@h/d", max_versions_per_metric=6
    )
    assert describe_changes(before, after) == [
        "emitter_port: 8080 -> 9999 (from the next `sentinel up`)",
        "max_versions_per_metric: 5 -> 6",
        "sql_url: changed (from the next `sentinel up`)",
    ]
    assert describe_changes(before, before) == []
    secret = SentinelConfig(artifact_store=str(tmp_path), prometheus_url="http://me:secret@h:9090")
    assert describe_changes(before, secret) == ["prometheus_url: changed"]


# ---- Dagster's GraphQL


def test_a_location_in_error_is_told_and_a_failing_reload_raises(fake: Callable[..., Fake]) -> None:
    """A location that does not load is a problem with its reason; loading it anew in vain is a ServiceError."""
    broken = {"locationOrLoadError": {"__typename": "PythonError", "message": "SyntaxError\nmore"}}

    def answers(asked: str) -> object:
        if "mutation" in asked:
            return {"data": {"reloadRepositoryLocation": broken}}
        return {"data": {"workspaceOrError": {"locationEntries": [{"name": "sentinel", **broken}]}}}

    with DagsterApi(f"http://127.0.0.1:{fake(answers).port}") as api:
        assert api.location_problem() == "SyntaxError\nmore"
        with pytest.raises(ServiceError, match=r"could not load sentinel anew: SyntaxError$"):
            api.reload()


def test_an_activation_is_recorded_by_a_run(fake: Callable[..., Fake]) -> None:
    """A rollback by hand becomes a run that confirms what serves, in the watch's partition."""
    statuses = iter(["STARTED", "SUCCESS"])

    def answers(asked: str) -> object:
        if "launchRun" in asked:
            return {"data": {"launchRun": {"run": {"runId": "r1"}}}}
        return {"data": {"runOrError": {"status": next(statuses)}}}

    dagster = fake(answers)
    with DagsterApi(f"http://127.0.0.1:{dagster.port}") as api:
        api.record_activation("up-1", "rollback: because")
    launched = json.loads(dagster.asked[0].removeprefix("/graphql"))["variables"]["params"]
    assert launched["executionMetadata"]["tags"] == [{"key": "dagster/partition", "value": "up-1"}]
    assert launched["runConfigData"]["ops"]["active_models"]["config"]["action"] == "confirm"


def test_a_dagster_that_is_away_is_a_service_error() -> None:
    """A refused connection names the address."""
    with DagsterApi(f"http://127.0.0.1:{free_port()}") as api, pytest.raises(ServiceError, match="does not answer"):
        api.location_problem()


# ---- demo


def test_the_demo_keeps_to_itself(tmp_path: Path) -> None:
    """The demo uses the given addresses; where own watches are configured, its store is beside theirs."""
    alone = demo_config(SentinelConfig(emitter_port=1234))
    assert (alone.emitter_port, alone.store_path) == (1234, tmp_path / "sentinel_artifacts")
    own = WatchConfig(metric="up", model_class=MODEL, horizon="90m")
    beside = demo_config(
        SentinelConfig(watches=[own], sql_url="sqlite:////production.db", data_url="s3://production", emit_steps=[90])
    )
    assert beside.resolved_sql_url == f"sqlite:///{tmp_path}/sentinel_artifacts/demo/sentinel.db"
    assert beside.resolved_data_url == f"file://{tmp_path}/sentinel_artifacts/demo/data"
    assert len({str(watch.model_class) for watch in alone.watches}) == 5


def test_a_model_beside_the_configuration_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """`package.module:Class` is looked for in the working folder too."""
    Path("my_model_for_the_cli.py").write_text(
        "from sentinel_core.models import ExponentialSmoothingModel\nclass Mine(ExponentialSmoothingModel): pass\n"
    )
    Path("sentinel.toml").write_text('[[watches]]\nmetric = "up"\nmodel_class = "my_model_for_the_cli:Mine"\n')
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["up"]["model_class"] == "my_model_for_the_cli:Mine"


def test_a_closed_pipe_is_no_traceback() -> None:
    """`sentinel … | head` ends quietly."""
    write('metric = "up"')
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sentinel_core.cli", "status"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr
