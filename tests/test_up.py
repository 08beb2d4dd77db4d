"""`sentinel up --demo`, whole: forecasts from the first command, faults mended by themselves, nothing left behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)


def processes(store: Path) -> dict[int, str]:
    """Living processes whose environment names the store, by pid, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if entry.name.isdigit() and str(store).encode() in environment and state != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


@dataclass
class Demo:
    """A running `sentinel up --demo`."""

    process: "subprocess.Popen[str]"
    store: Path
    emitter_port: int
    log: Path

    def forecasts(self) -> int:
        """How many forecast lines /metrics has."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.emitter_port}/metrics", timeout=10, trust_env=False).text
        except httpx.HTTPError:
            return 0
        return sum("_sentinel_predicted{" in line for line in text.splitlines())

    def newest(self) -> float:
        """Newest modification of a segment in the store: moves with every tick."""
        return max((file.stat().st_mtime for file in (self.store / "data").rglob("*.parquet")), default=0.0)

    def pid_of(self, words: str) -> int | None:
        """The process with these words in its command line."""
        return next((pid for pid, command in processes(self.store).items() if words in command), None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Started once without Prometheus on the PATH: the demo target answers itself."""
    folder = tmp_path_factory.mktemp("demo")
    emitter, dagster = free_port(), free_port()
    (folder / "sentinel.toml").write_text(f"emitter_port = {emitter}\ndagster_port = {dagster}\n")
    tools = folder / "bin"  # what Dagster needs, and no prometheus
    tools.mkdir()
    (tools / "tail").symlink_to(shutil.which("tail") or "/usr/bin/tail")
    log = folder / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sentinel_core.cli", "up", "--demo"],
            cwd=folder,
            env={**os.environ, "PATH": str(tools), "PYTHONPATH": str(REPOSITORY)},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    found = Demo(process, folder / "sentinel_artifacts", emitter, log)
    try:
        until(found.forecasts, 120, "the first forecast")
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_terminal_says_where_to_look(demo: Demo) -> None:
    """Where page, metrics and Dagster are, what the demo reads from, and when forecasts stood."""
    until(lambda: "Forecasts stand after" in demo.log.read_text(), 20, "the word that forecasts stand")
    text = demo.log.read_text()
    for words in (
        "the demo target's own query API",
        f"http://127.0.0.1:{demo.emitter_port}/metrics",
        "Dagster is up after",
    ):
        assert words in text


def test_the_terminal_has_the_link_of_the_first_admin(demo: Demo) -> None:
    """Whoever starts Sentinel is handed the one-time link, and it leads to the form."""
    link = re.search(rf"http://127\.0\.0\.1:{demo.emitter_port}/setup\?token=\S+", demo.log.read_text())
    assert link
    page = httpx.get(link[0], timeout=10, trust_env=False)
    assert (page.status_code, "The first admin" in page.text) == (200, True)


def test_a_second_up_is_refused(demo: Demo) -> None:
    """The store is in use, says the second, by whom, and leaves the first alone."""
    done = subprocess.run(
        [sys.executable, "-m", "sentinel_core.cli", "up"],
        cwd=demo.store.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"(process {demo.process.pid})" in done.stderr
    assert demo.forecasts()


@pytest.mark.parametrize("words", ["sentinel_core.apps.sidecar", "dagster._daemon run", "dagster api grpc"])
def test_a_killed_part_comes_back(demo: Demo, words: str) -> None:
    """kill -9 of the sidecar, Dagster's daemon or its code server: it is replaced, and ticks and forecasts go on."""
    until(lambda: demo.pid_of(words), 60, f"{words} running")
    before = demo.pid_of(words)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    killed = time.time()
    until(lambda: demo.pid_of(words) not in (None, before), 90, f"a new {words}")
    until(lambda: demo.newest() > killed + 5, 120, "the next tick")
    until(demo.forecasts, 30, "forecasts on /metrics")


def test_nothing_is_left_after_ctrl_c(demo: Demo) -> None:
    """SIGINT ends every process within ten seconds, exit code 0; the next start finds its models."""
    assert len(processes(demo.store)) > 4
    began = time.monotonic()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(30) == 0
    assert time.monotonic() - began < 12  # ten, and what a loaded machine adds
    assert processes(demo.store) == {}
