"""`sentinel up`: everything in one command. Starts Dagster and the sidecar, restarts them, and ends them together."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

import httpx

from sentinel_core.config import SentinelConfig, is_loopback
from sentinel_core.dagster_api import DagsterApi, first_line
from sentinel_core.errors import ServiceError
from sentinel_core.processes import Service
from sentinel_core.workspace import environment, log_folder, write_workspace

if TYPE_CHECKING:
    from sentinel_core.security.secret import Pepper
    from sentinel_core.storage.database import Database

POLITE_SECONDS = 5.0  # Dagster ends in 2 s; a run in flight gets the rest, then SIGTERM
GRACE_SECONDS = 7.5  # then SIGKILL: everything is gone within ten seconds
LOOK_SECONDS = 3.0  # how often Dagster's code location and the first forecast are looked for
RELOAD_PAUSE_SECONDS = 30.0  # a location that does not load is not loaded again more often
UP_LOCK = 0x55505550  # PostgreSQL advisory lock, "UPUP", held as long as `sentinel up` runs

Say = Callable[[str], None]
Command = tuple[str, Sequence[str]]  # name, program and arguments


class Supervisor:
    """One `sentinel up`. `run` blocks its thread; `stop` ends it from another thread or a signal handler.

    commands: what to run, by default Dagster and the sidecar; `demo` adds the demo's source before them
    say:      called with each line for the person at the terminal
    """

    def __init__(
        self,
        config: SentinelConfig,
        *,
        demo: bool = False,
        say: Say = lambda line: print(line, flush=True),
        commands: Sequence[Command] | None = None,
    ) -> None:
        self.config = config
        self._demo = demo
        self._say = _undeterred(say)
        self._commands = commands
        # Signal handlers run between any two instructions of the main thread: an Event's lock may be held there, and
        # setting it again would wait for itself for ever. A SimpleQueue may be put to from anywhere.
        self._stops: SimpleQueue[None] = SimpleQueue()
        self._ending = threading.Event()  # set by the main thread, for the others
        self._services: list[Service] = []
        self._notes: list[str] = []  # to be said at the start

    def run(self) -> None:
        """Start everything and keep it running until `stop`; ServiceError for what keeps it from starting."""
        began = time.monotonic()
        with _sole_owner(self.config), self._signals(), ExitStack() as held:
            check_ports(self.config)
            commands = [*self._prepare_demo(), *self._prepare(held)]
            if not self._stops.empty():
                return
            self._greet()
            try:
                for name, command in commands:
                    self._start(name, command)
                watcher = threading.Thread(target=self._look, args=(began,), name="sentinel-look", daemon=True)
                watcher.start()
                while not self._told_to_stop(0.25):
                    for service in self._services:
                        service.tend()
            finally:
                self._end()

    def stop(self) -> None:
        """End everything; a second call does not wait for anybody."""
        self._stops.put(None)

    def _told_to_stop(self, seconds: float) -> bool:
        """Wait for a call of `stop` that nobody has answered yet."""
        try:
            self._stops.get(timeout=seconds)
        except Empty:
            return False
        return True

    # ---- start

    def _prepare_demo(self) -> list[Command]:
        if not self._demo:
            return []
        from sentinel_core.demo.source import prepare

        source = prepare(self.config.store_path / "demo", self._say)
        self.config = replace(self.config, prometheus_url=source.url)
        self._say(f"The demo's metrics come from {source.description} at {source.url}")
        return list(source.commands)

    def _prepare(self, held: ExitStack) -> list[Command]:
        workspace = write_workspace(self.config)
        if self._commands is not None:
            return list(self._commands)
        from sentinel_core.security.secret import load_pepper
        from sentinel_core.storage.database import Database  # here: SQLAlchemy is slow to import
        from sentinel_core.storage.segments import SegmentStore

        database = Database(self.config.resolved_sql_url)
        held.callback(database.close)
        database.migrate()
        if not database.is_sqlite:
            held.enter_context(_sole_user(database))
        SegmentStore(database, self.config.resolved_data_url).require_files()
        pepper = load_pepper(self.config, os.environ)
        self._prepare_access(database, pepper)
        applications = self._prepare_applications(database, pepper)
        self._reconcile()
        dagster = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace)]
        dagster += ["-h", self.config.bind_address, "-p", str(self.config.dagster_port)]
        sidecar = [sys.executable, "-m", "sentinel_core.apps.sidecar"]
        return [("sidecar", sidecar), ("dagster", dagster), *applications]

    def _prepare_applications(self, database: "Database", pepper: "Pepper") -> list[Command]:
        """What the demo scores with and is told by; what a demo before left here is retired."""
        from sentinel_core.demo import applications, production

        if not self._demo:
            applications.retire(database)
            return []
        self._notes.append(
            f"  A scoring app sends events of three models; an hour lasts {production.STEP_SECONDS} s. Within five "
            f"minutes {production.FRAUD} drifts, and this terminal shows the alerts that its receiver gets."
        )
        return applications.prepare(self.config, database, pepper)

    def _prepare_access(self, database: "Database", pepper: "Pepper") -> None:
        """See that keys can be recognised, and that somebody can log in."""
        from sentinel_core.security import keys, users

        now = time.time()
        with database.write() as connection:
            lost = keys.lost(connection, pepper, now=now)
            token = users.first_link(connection, now=now)
        if lost:
            self._notes.append(f"WARNING: {lost}")
        if token is not None:
            self._notes.append("Nobody can log in yet. This link makes the first admin, once and within an hour:")
            self._notes.append(f"  {self.config.public_url}/setup?token={token}")

    def _reconcile(self) -> None:
        """Runs that lost their worker when everything was killed hold their lane: Dagster is told before it starts."""
        done = subprocess.run(
            [sys.executable, "-m", "sentinel_dagster.reconcile"],
            env=environment(self.config, os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self._say(f"Dagster's unfinished runs could not be looked through: {done.stderr.strip()[-500:]}")

    def _start(self, name: str, command: Sequence[str]) -> None:
        service = Service(
            name,
            command,
            log_folder=log_folder(self.config),
            environment=environment(self.config, os.environ),
            say=self._say,
        )
        self._services.append(service)
        service.start()

    def _greet(self) -> None:
        config = self.config
        self._say(f"Sentinel starts, {len(config.watches)} watches, store {config.store_path}")
        self._say(f"  page      {config.sidecar_url}/")
        self._say(f"  metrics   {config.sidecar_url}/metrics")
        self._say(f"  Dagster   {config.dagster_url}/")
        self._say(f"  logs      {log_folder(config)}")
        if not is_loopback(config.bind_address):
            self._say(
                f"WARNING: bind_address {config.bind_address} lets in other machines, and Dagster has no login: put a "
                "proxy with a login before it, or a firewall around; and one with TLS before the pages"
            )
        for note in self._notes:
            self._say(note)
        if not config.watches:
            self._say(
                "No watch is configured, so that nothing is forecast; models in production are looked after all the "
                "same. `sentinel init` writes a sentinel.toml with a watch, `sentinel up --demo` shows both."
            )

    # ---- look after

    def _look(self, began: float) -> None:
        """Say once when Dagster and the sidecar are ready; load Dagster's code location anew when it is in error."""
        dagster_is_up = is_ready = False
        ready = ("Forecasts stand", "/metrics") if self.config.watches else ("Events are taken", "/v1/events")
        reload_after = 0.0
        with DagsterApi(self.config.dagster_url) as dagster, httpx.Client(timeout=10.0, trust_env=False) as http:
            while not self._ending.wait(LOOK_SECONDS):
                try:
                    problem = dagster.location_problem()
                    if not dagster_is_up:
                        dagster_is_up = True
                        self._say(f"Dagster is up after {time.monotonic() - began:.0f} s: {self.config.dagster_url}/")
                    if problem and time.monotonic() >= reload_after:
                        self._say(f"Dagster's code location is in error, and is loaded anew: {first_line(problem)}")
                        reload_after = time.monotonic() + RELOAD_PAUSE_SECONDS
                        dagster.reload()
                except ServiceError as error:
                    if time.monotonic() < reload_after:  # it was the reload; an answer that is missing is no news
                        self._say(str(error))
                if not is_ready and _is_ready(http, self.config.sidecar_url):
                    is_ready = True
                    seconds = time.monotonic() - began
                    self._say(f"{ready[0]} after {seconds:.0f} s: {self.config.sidecar_url}{ready[1]}")

    # ---- end

    def _end(self) -> None:
        self._ending.set()
        self._say("Ending …")
        for service in self._services:
            service.ask_to_end()
        began, asked = time.monotonic(), False
        while alive := [service for service in self._services if service.is_alive()]:
            waited = time.monotonic() - began
            if waited > GRACE_SECONDS or self._told_to_stop(0.1):
                for service in alive:
                    service.kill()
                break
            if waited > POLITE_SECONDS and not asked:
                asked = True
                for service in alive:
                    service.signal_group(signal.SIGTERM)
        self._say("Everything has ended; the next start carries on from the store.")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and a closed terminal stop us, where we may say so: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_ports(config: SentinelConfig) -> None:
    """ServiceError naming every port that somebody else listens on, and the setting that moves it."""
    family = socket.AF_INET6 if ":" in config.bind_address else socket.AF_INET
    problems = []
    for setting in ("emitter_port", "dagster_port"):
        port = getattr(config, setting)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((config.bind_address, port))
            except OSError as error:
                problems.append(
                    f"port {port} of {config.bind_address} cannot be used ({error.strerror}); "
                    f"end what listens there, or set another {setting} in the configuration"
                )
    if problems:
        raise ServiceError("\n".join(problems))


def _undeterred(say: Say) -> Say:
    """The same, whether or not anybody listens: a closed terminal or a full disk must not end what serves."""

    def said(line: str) -> None:
        with suppress(OSError):
            say(line)

    return said


@contextmanager
def _sole_owner(config: SentinelConfig) -> Iterator[None]:
    """Hold the locks of the store and of an SQLite file elsewhere; ServiceError where another process holds one."""
    with ExitStack() as held:
        held.enter_context(_locked(config.store_path / "up.lock", f"{config.store_path}", "artifact_store"))
        if config.sql_url and config.sql_url.startswith("sqlite:///"):
            file = config.sql_url.removeprefix("sqlite:///").partition("?")[0]
            held.enter_context(_locked(Path(f"{file}.up.lock"), file, "sql_url"))
        yield


@contextmanager
def _locked(path: Path, what: str, setting: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ServiceError(f"{path.parent} cannot be written ({error.strerror}); choose another {setting}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise ServiceError(
                f"sentinel is already up on {what} (process {pid}); end that one, or choose another {setting}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _sole_user(database: "Database") -> Iterator[None]:
    """Hold PostgreSQL's lock, which goes with the connection; ServiceError where another `sentinel up` holds it."""
    import sqlalchemy as sa

    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # from the pool, which would keep it open, and the lock with it
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(UP_LOCK))):
            raise ServiceError(
                f"sentinel is already up on {database.shown_url}; end that one, or choose another sql_url"
            )
        try:
            yield
        finally:
            with suppress(sa.exc.DBAPIError):  # the server has gone, and the lock with it
                connection.scalar(sa.select(sa.func.pg_advisory_unlock(UP_LOCK)))  # sooner than closing does


def _is_ready(http: httpx.Client, sidecar_url: str) -> bool:
    try:
        return http.get(f"{sidecar_url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False
