"""The whole product as a person runs it: `sentinel up` in a folder of its own, on free ports, seen from outside."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

PATIENCE_SECONDS = 240.0
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line of /metrics; labels in the order of the line."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        """The value of a label, empty where it is absent."""
        return dict(self.labels).get(name, "")

    def without(self, *names: str) -> tuple[tuple[str, str], ...]:
        """Its labels but these."""
        return tuple(pair for pair in self.labels if pair[0] not in names)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(what: str, question: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true and return it; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def plain_environment() -> dict[str, str]:
    """Ours without what would tell a child where to look."""
    own = ("PYTHONPATH", "SENTINEL_CONFIG", "DAGSTER_HOME")
    return {name: value for name, value in os.environ.items() if name not in own}


class Product:
    """One folder with a sentinel.toml, and the processes started in it.

    command: what `sentinel` is there, by default the package under test
    """

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "sentinel_core.cli")) -> None:
        self.folder = folder
        self.command = list(command)
        self.emitter_port, self.dagster_port = free_ports(2)
        self.store = folder / "sentinel_artifacts"
        self.log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the sidecar answers."""
        return f"http://127.0.0.1:{self.emitter_port}"

    def configure(self, prometheus_url: str, watches: str) -> None:
        """Write sentinel.toml."""
        (self.folder / "sentinel.toml").write_text(
            f'prometheus_url = "{prometheus_url}"\nemitter_port = {self.emitter_port}\n'
            f'dagster_port = {self.dagster_port}\nsettle_delay = "1s"\n{watches}'
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `sentinel` command, to its end."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=plain_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def start(self, *command: str) -> None:
        """`sentinel up`, or another command that starts the product, in the background."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command or [*self.command, "up"],
                cwd=self.folder,
                env=plain_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def interrupt(self) -> float:
        """Ctrl-C; returns the seconds until it has ended."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        return time.monotonic() - began

    def end(self) -> None:
        """Whatever still runs, ends: for the end of a test."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def processes(self, words: str = "") -> list[int]:
        """Living processes that work on this store, or those of them with these words in their command."""
        mark = f"SENTINEL_CONFIG={self.store / 'config.json'}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                mine = mark in (entry / "environ").read_bytes() + b"\0"
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it ended while we looked
                continue
            if mine and command and words in command:
                found.append(int(entry.name))
        return found

    def said(self, words: str) -> bool:
        """Whether the terminal has shown these words."""
        return words in self.log.read_text()

    def metrics(self) -> list[Sample]:
        """What /metrics shows; empty where the sidecar does not answer."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=5.0, trust_env=False).text
        except httpx.TransportError:
            return []
        lines = (_LINE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#"))
        return [
            Sample(line[1], tuple(_LABEL.findall(line[2] or "")), float(line[3])) for line in lines if line is not None
        ]

    def forecasts(self, metric: str = "") -> list[Sample]:
        """The forecasts on /metrics, of one metric or all."""
        return [one for one in self.metrics() if one.name.endswith(f"{metric}_sentinel_predicted")]
