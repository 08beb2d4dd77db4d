"""Processes killed (-9) at any line leave a store that reads exactly: nothing lost, doubled or revived."""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sentinel_core.storage import watch_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.store import Store
from tests.storage.crash_worker import FOREVER, WRITERS, verify

ROOT = Path(__file__).parents[2]


class Crew:
    """Writers, a compactor with the collector, and two verifying readers, as processes of their own."""

    def __init__(self, sql_url: str, data_url: str, errors: Path) -> None:
        self._arguments = (sql_url, data_url)
        self._errors = errors
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed = 0

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.storage.crash_worker", name.split("#")[0], *self._arguments]
        with self._errors.open("ab") as errors:
            self._running[name] = subprocess.Popen(command, cwd=ROOT, stderr=errors)

    def kill_and_restart(self, name: str) -> None:
        """Kill at whatever line it is, and start it anew."""
        self._running[name].kill()
        self._running[name].wait()
        self.killed += 1
        self.start(name)

    def busy(self, names: Sequence[str]) -> list[str]:
        """Those of the processes that are past their start and first round."""
        return [name for name in names if Path(f"{self._arguments[1]}.busy.{self._running[name].pid}").exists()]

    def dead(self) -> list[str]:
        return [name for name, process in self._running.items() if process.poll() is not None]

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()


def soak(sql_url: str, folder: Path, seconds: float, seed: int) -> str:
    """Run, kill and restart for a while, then check; longer where a busy machine has not let enough happen."""
    data, errors = folder / "data", folder / "errors"
    crew = Crew(sql_url, str(data), errors)
    victims = [*(str(writer) for writer in range(WRITERS)), "compact"]
    rng = random.Random(seed)
    with Store.open(sql_url, str(data)) as store:
        store.database.migrate()
        with store.database.write() as connection:
            watch_store.sync_watches(connection, [(f"w{writer}", "x") for writer in range(WRITERS)], 0.0)
        try:
            for name in [*victims, "read#1", "read#2"]:
                crew.start(name)
            begun = time.monotonic()
            while time.monotonic() < begun + seconds or not enough(store, crew):
                assert time.monotonic() < begun + seconds + 120, "the machine is too busy for this test"
                time.sleep(rng.uniform(0.2, 1.0))
                assert not crew.dead(), errors.read_text()
                if busy := crew.busy(victims):
                    crew.kill_and_restart(rng.choice(busy))
        finally:
            crew.stop()
        verify(store)
        now = time.time() + 10
        compact(store, now, window_retention_seconds=FOREVER, forecast_retention_seconds=FOREVER)
        store.segments.collect_garbage(now + 10, grace_seconds=1)
        verify(store)
        live = {segment.path for dataset in ("windows", "forecasts") for segment in store.segments.segments(dataset)}
        assert {name for name, _ in store.segments.folder.files()} == live, "a crash left files that nobody collects"
        commits, verified = counts(store)
    return f"{commits:g} commits, {verified:g} verified reads, {crew.killed} kills"


def counts(store: Store) -> tuple[float, float]:
    """Commits of the writers and verified reads so far."""
    with store.database.read() as connection:
        found = watch_store.counters(connection)
    return found.get(("commits", ()), 0.0), found.get(("verified", ()), 0.0)


def enough(store: Store, crew: Crew) -> bool:
    """Whether what happened so far proves anything."""
    commits, verified = counts(store)
    return commits >= 20 and verified >= 4 and crew.killed >= 5


def test_a_store_survives_kills_at_any_line(sql_url: str, tmp_path: Path) -> None:
    """Eight seconds of writers, compaction and collection, a kill a second; readers never see a fault."""
    soak(sql_url, tmp_path, 8, seed=1)


@pytest.mark.slow
def test_a_store_survives_a_long_soak(sql_url: str, tmp_path: Path) -> None:
    """The same for a minute and a half."""
    print(soak(sql_url, tmp_path, 90, seed=int(time.time())))
