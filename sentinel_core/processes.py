"""Child processes under supervision: each in its own process group, logged to a file, restarted when it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LOG_BYTES = 20 * 2**20  # one older file of this size is kept beside each log
STEADY_SECONDS = 60.0  # a child that ran this long starts anew with the shortest pause
MAX_PAUSE_SECONDS = 60.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_IMPORTANT = re.compile(r"\b(?:ERROR|CRITICAL)\b|^ALERT\b")  # the last is what the demo's receiver says


class Service:
    """One child process. Times are `time.monotonic()` seconds.

    name:    what people call it, and the log's file name
    command: program and arguments
    say:     called with each line that a person should see
    pause:   seconds before the first restart; doubled by each further one
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_folder: Path,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        pause: float = 1.0,
    ) -> None:
        self.name = name
        self.log = log_folder / f"{name}.log"
        self.started_at = 0.0
        self._command = [sys.executable, "-m", "sentinel_core.leash", str(os.getpid()), *command]
        self._environment = dict(environment)
        self._say = say
        self._pause = self._shortest_pause = pause
        self._process: subprocess.Popen[bytes] | None = None
        self._restart_at = 0.0
        self._seen = 0  # bytes of the log that have been looked at

    @property
    def pid(self) -> int | None:
        """Process id, which is the group's too; None before the first start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child. Call it from a thread that lives as long as the child should (see `leash`)."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
            )
        self.started_at = time.monotonic()

    def tend(self) -> None:
        """Show new important lines, keep the log small, restart a child that has ended once its pause is over."""
        with suppress(OSError):  # a log that somebody has deleted is no reason to end
            self._tail()
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if not self._restart_at:
            self._clear_leftovers()
            if now - self.started_at > STEADY_SECONDS:
                self._pause = self._shortest_pause
            self._say(f"{self.name} ended ({_ending(self._process.returncode)}); starts again in {self._pause:.0f} s")
            if now - self.started_at < STEADY_SECONDS:
                self._say_last_lines()
            self._restart_at = now + self._pause
            self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
        elif now >= self._restart_at:
            try:
                self.start()
                self._restart_at = 0.0
            except OSError as error:  # a full disk, no memory: what still runs goes on, and this is tried again
                self._say(f"{self.name} cannot be started ({error}); tried again in {self._pause:.0f} s")
                self._restart_at = now + self._pause

    def is_alive(self) -> bool:
        """Whether the child or anybody in its process group still runs."""
        return self._process is not None and (self._process.poll() is None or any(_members(self._process.pid)))

    def ask_to_end(self) -> None:
        """SIGTERM to the child itself, which ends its own children in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def signal_group(self, number: int) -> None:
        """Signal the child and everybody in its process group."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait for the child."""
        self.signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _clear_leftovers(self) -> None:
        """End what a dead child left behind: it would hold its port."""
        self.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + 2.0
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def _tail(self) -> None:
        size = self.log.stat().st_size
        if size > self._seen:
            with self.log.open("rb") as log:
                log.seek(self._seen)
                text = log.read(1 << 20)
            cut = text.rfind(b"\n") + 1 or (len(text) if len(text) == 1 << 20 else 0)
            self._seen += cut
            for line in _ANSI.sub("", text[:cut].decode(errors="replace")).splitlines():
                if _IMPORTANT.search(line):
                    self._say(f"{self.name}: {line.strip()[:300]}")
        if size > LOG_BYTES:  # the child appends, so it goes on at the start of the emptied file
            with suppress(OSError):  # a full disk must not end what still serves
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)
            self._seen = 0

    def _say_last_lines(self) -> None:
        try:
            text = _ANSI.sub("", self.log.read_bytes()[-2_000:].decode(errors="replace"))
        except OSError:
            return
        for line in text.splitlines()[-3:]:
            self._say(f"  {self.name}: {line.strip()[:300]}")
        self._say(f"  the whole log: {self.log}")


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _members(group: int) -> Iterator[int]:
    """Living processes of a group; zombies that nobody has reaped yet are not living."""
    proc = Path("/proc")
    if not proc.is_dir():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        yield group
        return
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):  # it ended while we looked
                continue
            if int(its_group) == group and state != "Z":
                yield int(entry.name)
