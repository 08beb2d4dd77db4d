"""`sentinel up` with cheap children instead of Dagster and the sidecar: locks, ports, restarts, and a clean end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from sentinel_core import SentinelConfig
from sentinel_core.config import load_config
from sentinel_core.errors import ServiceError
from sentinel_core.processes import LOG_BYTES, Service
from sentinel_core.storage.database import Database
from sentinel_core.supervisor import GRACE_SECONDS, Supervisor, _sole_user, check_ports
from sentinel_core.workspace import dagster_home, environment, log_folder, write_applied, write_workspace

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().strip())
    return int(path.read_text())


@pytest.fixture
def config(tmp_path: Path) -> SentinelConfig:
    return SentinelConfig(artifact_store=str(tmp_path / "store"), emitter_port=free_port(), dagster_port=free_port())


class Running:
    """A supervisor on a thread, with what it said."""

    def __init__(self, config: SentinelConfig, commands: list[tuple[str, list[str]]]) -> None:
        self.said: list[str] = []
        self.supervisor = Supervisor(config, say=self.said.append, commands=commands)
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except ServiceError as error:
            self.error = error

    def stop(self) -> float:
        began = time.monotonic()
        self.supervisor.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.monotonic() - began

    def heard(self, words: str) -> bool:
        return any(words in line for line in self.said)


@pytest.fixture
def run_with() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(config: SentinelConfig, *commands: tuple[str, list[str]]) -> Running:
        started.append(Running(config, list(commands)))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def run(config: SentinelConfig, run_with: Callable[..., Running]) -> Callable[..., Running]:
    return partial(run_with, config)


def writes_pid(path: Path, then: str = "time.sleep(600)") -> list[str]:
    return [sys.executable, "-c", f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); {then}"]


def test_greets_with_addresses_and_ends_on_stop(run: Callable[..., Running], tmp_path: Path) -> None:
    """The terminal names page, metrics, Dagster and logs; stop ends every child quickly."""
    running = run(("one", writes_pid(tmp_path / "pid")))
    pid = pid_in(tmp_path / "pid")
    assert running.heard("/metrics")
    assert running.heard("Dagster   http://127.0.0.1:")
    assert running.stop() < GRACE_SECONDS
    assert not alive(pid)


def test_second_up_on_a_store_names_the_first(run: Callable[..., Running], config: SentinelConfig) -> None:
    """One store has one supervisor; the second start says which process holds it."""
    first = run(("one", SLEEPER))
    until(lambda: first.heard("Sentinel starts"))
    with pytest.raises(ServiceError, match=rf"already up on .*store \(process {os.getpid()}\); end that one"):
        Supervisor(config, say=lambda line: None, commands=[]).run()


def test_second_up_on_a_database_is_refused(tmp_path: Path, run_with: Callable[..., Running]) -> None:
    """Two stores may not share one SQLite file: the second start names the file and the process."""
    sql_url = f"sqlite:///{tmp_path}/shared/sentinel.db"
    first, second = (
        SentinelConfig(
            artifact_store=str(tmp_path / name), sql_url=sql_url, emitter_port=free_port(), dagster_port=free_port()
        )
        for name in ("first", "second")
    )
    running = run_with(first, ("one", SLEEPER))
    until(lambda: running.heard("Sentinel starts"))
    with pytest.raises(ServiceError, match=rf"already up on .*shared/sentinel.db \(process {os.getpid()}\).* sql_url"):
        Supervisor(second, say=lambda line: None, commands=[]).run()


def test_second_up_on_a_postgresql_is_refused(postgres_url: str) -> None:
    """The lock of a PostgreSQL is held while the first runs, from whatever machine, and freed with it."""
    with closing(Database(postgres_url)) as first, closing(Database(postgres_url)) as second:
        with _sole_user(first), pytest.raises(ServiceError, match="already up on postgresql"), _sole_user(second):
            pass
        with _sole_user(second):
            pass


def test_the_lock_goes_with_its_process(config: SentinelConfig) -> None:
    """A lock file that a killed supervisor left behind keeps nobody out."""
    config.store_path.mkdir(parents=True)
    (config.store_path / "up.lock").write_text("1\n")
    supervisor = Supervisor(config, say=lambda line: None, commands=[])
    supervisor.stop()
    supervisor.run()


def test_busy_ports_are_all_named_with_their_settings(config: SentinelConfig) -> None:
    """Both busy ports stand in one error, each with the setting that moves it, before anything is started."""
    with (
        socket.create_server(("127.0.0.1", config.emitter_port)),
        socket.create_server(("127.0.0.1", config.dagster_port)),
        pytest.raises(ServiceError) as caught,
    ):
        check_ports(config)
    for setting, port in (("emitter_port", config.emitter_port), ("dagster_port", config.dagster_port)):
        assert f"port {port} of 127.0.0.1 cannot be used (Address already in use)" in str(caught.value)
        assert f"set another {setting}" in str(caught.value)


def test_a_child_that_dies_is_restarted_and_its_last_words_are_shown(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    """kill -9 of a child is said, with the end of its log, and the child is back about a second later."""
    running = run(("one", writes_pid(tmp_path / "pid", "print('last words', flush=True); time.sleep(600)")))
    first = pid_in(tmp_path / "pid")
    os.kill(first, signal.SIGKILL)
    until(lambda: alive(pid_in(tmp_path / "pid")) and pid_in(tmp_path / "pid") != first)
    assert running.heard("one ended (killed by SIGKILL); starts again in 1 s")
    assert running.heard("one: last words")


def test_restarts_pause_longer_each_time(run: Callable[..., Running]) -> None:
    """A child that cannot run is not restarted in a tight loop."""
    running = run(("one", [sys.executable, "-c", "raise SystemExit(3)"]))
    until(lambda: running.heard("one ended (exit code 3); starts again in 2 s"))
    assert running.heard("starts again in 1 s")


def test_what_a_dead_child_left_behind_is_ended_before_its_restart(run: Callable[..., Running], tmp_path: Path) -> None:
    """A grandchild of a killed child would hold the port: the whole process group goes first."""
    script = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]]).wait()"
    run(("one", [sys.executable, "-c", script, *writes_pid(tmp_path / "pid")[1:]]))
    grandchild = pid_in(tmp_path / "pid")
    os.kill(os.getpgid(grandchild), signal.SIGKILL)
    until(lambda: not alive(grandchild))


def test_a_stubborn_child_and_its_grandchild_are_killed(run: Callable[..., Running], tmp_path: Path) -> None:
    """Who ignores SIGTERM is killed within ten seconds, grandchildren too."""
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    program = textwrap.dedent(f"""
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            open({str(tmp_path / "grandchild")!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    """)
    running = run(
        ("one", writes_pid(tmp_path / "child", "import signal; " + stubborn)), ("two", [sys.executable, "-c", program])
    )
    pids = [pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")]
    assert running.stop() < 10
    until(lambda: not any(alive(pid) for pid in pids))  # SIGKILL is sent, not waited for, to a grandchild


def test_important_lines_reach_the_terminal(run: Callable[..., Running]) -> None:
    """Errors in a child's log are shown without colours; the rest stays in the log."""
    line = "\\033[32m2026 - dagster.daemon - ERROR - it broke\\033[0m"
    running = run(
        ("one", [sys.executable, "-c", f"print('chatter'); print('{line}', flush=True); import time; time.sleep(600)"])
    )
    until(lambda: running.heard("one: 2026 - dagster.daemon - ERROR - it broke"))
    assert not running.heard("chatter")


def test_a_log_never_grows_beyond_twice_its_limit(tmp_path: Path) -> None:
    """A full log is emptied while its child goes on appending; one older copy stays."""
    service = Service("one", SLEEPER, log_folder=tmp_path, environment=os.environ, say=lambda line: None)
    service.start()
    try:
        with (tmp_path / "one.log").open("ab") as log:
            log.truncate(LOG_BYTES + 1)
        service.tend()
        assert (tmp_path / "one.log").stat().st_size == 0
        assert (tmp_path / "one.log.1").stat().st_size > LOG_BYTES
    finally:
        service.kill()


def test_a_deleted_log_folder_ends_nothing(run: Callable[..., Running], config: SentinelConfig, tmp_path: Path) -> None:
    """Without its logs the supervisor goes on: a dead child is restarted, with a fresh folder."""
    running = run(("one", writes_pid(tmp_path / "pid")))
    first = pid_in(tmp_path / "pid")
    shutil.rmtree(log_folder(config))
    os.kill(first, signal.SIGKILL)
    until(lambda: pid_in(tmp_path / "pid") != first)
    assert running.thread.is_alive()
    assert (log_folder(config) / "one.log").exists()


def test_a_child_that_cannot_be_started_again_is_tried_again(tmp_path: Path) -> None:
    """A disk that takes no log is said, and is no reason to end."""
    said: list[str] = []
    service = Service("one", [sys.executable, "-c", ""], log_folder=tmp_path / "logs", environment=os.environ,
                      say=said.append, pause=0.01)  # fmt: skip
    service.start()
    until(lambda: not service.is_alive())
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("in the way")
    for _ in range(3):
        service.tend()
        time.sleep(0.02)
    assert any("one cannot be started" in line for line in said)
    (tmp_path / "logs").unlink()
    for _ in range(3):
        service.tend()
        time.sleep(0.02)
    assert service.log.exists()
    service.kill()


def test_nobody_has_to_listen(config: SentinelConfig, tmp_path: Path) -> None:
    """A terminal that is gone, where every print fails, ends neither the run nor its orderly end."""

    def gone(line: str) -> None:
        raise BrokenPipeError

    supervisor = Supervisor(config, say=gone, commands=[("one", writes_pid(tmp_path / "pid"))])
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    pid = pid_in(tmp_path / "pid")
    assert thread.is_alive()
    supervisor.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert not alive(pid)


def test_an_open_address_is_warned_of(config: SentinelConfig, run_with: Callable[..., Running]) -> None:
    """On every address the start says in a line that Dagster has no login; the links are this machine's."""
    running = run_with(replace(config, bind_address="0.0.0.0"), ("one", SLEEPER))
    until(lambda: running.heard("WARNING: bind_address 0.0.0.0"))
    assert running.heard(f"http://127.0.0.1:{config.emitter_port}/metrics")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_children_do_not_outlive_a_killed_supervisor(config: SentinelConfig, tmp_path: Path) -> None:
    """kill -9 of the supervisor ends its children: no port stays taken."""
    program = textwrap.dedent(f"""
        from sentinel_core import SentinelConfig
        from sentinel_core.supervisor import Supervisor
        config = SentinelConfig.from_dict({config.to_dict()!r})
        Supervisor(config, commands=[("one", {writes_pid(tmp_path / "pid")!r})]).run()
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL) as supervisor:
        pid = pid_in(tmp_path / "pid")
        supervisor.kill()
    until(lambda: not alive(pid))


def test_sigterm_ends_everything(config: SentinelConfig, tmp_path: Path) -> None:
    """SIGTERM to the supervisor ends it with exit code 0 and its children with it."""
    program = textwrap.dedent(f"""
        from sentinel_core import SentinelConfig
        from sentinel_core.supervisor import Supervisor
        config = SentinelConfig.from_dict({config.to_dict()!r})
        Supervisor(config, commands=[("one", {writes_pid(tmp_path / "pid")!r})]).run()
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        pid = pid_in(tmp_path / "pid")
        supervisor.send_signal(signal.SIGTERM)
        said, _ = supervisor.communicate(timeout=15)
    assert supervisor.returncode == 0
    assert "Everything has ended" in said
    assert not alive(pid)


def test_an_impatient_person_is_obeyed(config: SentinelConfig, tmp_path: Path) -> None:
    """Ctrl-C again and again, at any instruction, ends everything at once and never hangs."""
    program = textwrap.dedent(f"""
        from sentinel_core import SentinelConfig
        from sentinel_core.supervisor import Supervisor
        config = SentinelConfig.from_dict({config.to_dict()!r})
        Supervisor(config, commands=[("one", {writes_pid(tmp_path / "pid")!r})]).run()
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        pid = pid_in(tmp_path / "pid")
        for _ in range(300):
            supervisor.send_signal(signal.SIGINT)
            time.sleep(0.001)
            if supervisor.poll() is not None:
                break
        supervisor.communicate(timeout=15)
    assert not alive(pid)


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A store below a file is refused with the reason and the remedy."""
    (tmp_path / "file").write_text("")
    config = SentinelConfig(artifact_store=str(tmp_path / "file" / "store"))
    with pytest.raises(ServiceError, match=r"cannot be written .*choose another artifact_store"):
        Supervisor(config, say=lambda line: None, commands=[]).run()


def test_the_applied_configuration_reads_back(config: SentinelConfig) -> None:
    """What the children read is what was validated, with the store's absolute path."""
    assert load_config(write_applied(config)) == config


def test_the_applied_configuration_is_its_owners(config: SentinelConfig) -> None:
    """Nobody else reads the passwords in it, not even where an older file was open to all."""
    config.store_path.mkdir()
    for name in ("config.json", "config.json.new"):
        (config.store_path / name).touch(0o644)
    assert write_applied(config).stat().st_mode & 0o777 == 0o600


def test_dagster_yaml_is_valid_and_in_the_store(config: SentinelConfig) -> None:
    """Dagster accepts the instance file, keeps its files in the store and sends no telemetry."""
    from dagster import DagsterInstance

    workspace = write_workspace(config)
    with DagsterInstance.from_config(str(dagster_home(config))) as instance:
        assert not instance.telemetry_enabled
        assert str(config.store_path) in instance.storage_directory()
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        limits = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
        lanes = ("tick", "train", "evaluate", "monitor", "deliver", "maintain")
        assert {limit["value"]: limit["limit"] for limit in limits} == dict.fromkeys(lanes, 1)
        assert instance.run_retries_enabled
    assert yaml.safe_load(workspace.read_text())["load_from"][0]["python_module"]["location_name"] == "sentinel"


def test_a_dagster_yaml_of_ones_own_stays(config: SentinelConfig) -> None:
    """A dagster.yaml without our first line is the user's and is not written over."""
    write_workspace(config)
    own = dagster_home(config) / "dagster.yaml"
    own.write_text("telemetry: {enabled: false}\n")
    write_workspace(config)
    assert own.read_text() == "telemetry: {enabled: false}\n"


def test_children_can_import_what_this_process_can(
    config: SentinelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module found through this process' path, as a script's own folder, is found by the children."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_models.py").write_text("print('found')\n")
    done = subprocess.run(
        [sys.executable, "-m", "my_models"],
        env=environment(config, os.environ),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.stdout == "found\n"
