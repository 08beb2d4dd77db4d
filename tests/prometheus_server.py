"""A real Prometheus for tests: history written by promtool, a server on a free loopback port that can be hurt."""

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import httpx

MINUTE, HOUR, DAY = 60, 3_600, 86_400
PROGRAMS = ("prometheus", "promtool")


def missing_programs() -> list[str]:
    """Which of the programs are not on PATH."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True)
class History:
    """What the file holds, ending at `end` (unix seconds, a multiple of an hour); the same seed gives the same file.

    shop_load{instance,job,zone}        gauge, each minute: daily season and noise; no series has samples in `hole`
    shop_requests_total{instance,code}  counter, each minute: daily season, a restart every six hours
    shop_fast{shard}                    gauge, every 15 s, 3 s after the grid; the last two hours
    shop_mixed{job}                     gauge: one job every 15 s, another each minute; the last hour
    shop_slow{shard}                    gauge, every 5 min; the last day
    shop_sessions{pod}                  gauge, each minute: a new pod every six hours
    shop_odd{kind}                      gauge: NaN, +Inf, -Inf, and a finite one beside them; the last hour
    shop_quota{le,quantile,sentinel_x}  gauge: labels that clash with ours; the last hour
    shop:load:avg{zone}                 gauge: a recording rule's colons; the last hour
    shop_gone                           gauge that ended twelve hours ago
    """

    end: int
    days: float = 7.0
    series: int = 6
    seed: int = 7

    @property
    def start(self) -> int:
        """First timestamp, unix seconds."""
        return self.end - int(self.days * DAY)

    @property
    def hole(self) -> tuple[int, int]:
        """First and last grid minute at which shop_load has no sample."""
        return self.end - 3 * HOUR, self.end - 3 * HOUR + 9 * MINUTE

    def write(self, path: Path) -> None:
        """Write OpenMetrics; promtool wants each family together and a closing EOF."""
        rng = random.Random(self.seed)
        with path.open("w", buffering=1 << 20) as file:
            self._load(file, rng)
            self._requests(file, rng)
            self._others(file, rng)
            file.write("# EOF\n")

    def _season(self, t: int, phase: float) -> float:
        return math.sin(2 * math.pi * t / DAY + phase)

    def _load(self, file: TextIO, rng: random.Random) -> None:
        file.write("# TYPE shop_load gauge\n")
        first, last = self.hole
        for i in range(self.series):
            level, swing, phase = 50 + 50 * rng.random(), 5 + 20 * rng.random(), 6.28 * rng.random()
            name = f'shop_load{{instance="host-{i:05d}",job="shop",zone="z{i % 3}"}}'
            for t in range(self.start, self.end + 1, MINUTE):
                value = level + swing * self._season(t, phase) + rng.gauss(0, 1)
                if not first <= t <= last:
                    file.write(f"{name} {value:.4f} {t}\n")

    def _requests(self, file: TextIO, rng: random.Random) -> None:
        file.write("# TYPE shop_requests counter\n")
        for i in range(min(self.series, 5)):
            total, name = 0.0, f'shop_requests_total{{code="200",instance="host-{i:05d}"}}'
            for k, t in enumerate(range(self.start, self.end + 1, MINUTE)):
                total = 0.0 if k % 360 == 359 else total + 180 + 120 * self._season(t, i) + 60 * rng.random()
                file.write(f"{name} {total:.3f} {t}\n")

    def _others(self, file: TextIO, rng: random.Random) -> None:
        def family(name: str, labels: str, times: Iterator[int] | range, value: str = "") -> None:
            for t in times:
                file.write(f"{name}{{{labels}}} {value or format(100 + rng.gauss(0, 3), '.3f')} {t}\n")

        end, hour = self.end, range(self.end - HOUR, self.end + 1, MINUTE)
        file.write("# TYPE shop_fast gauge\n")
        for shard in range(2):
            family("shop_fast", f'shard="{shard}"', range(end - 2 * HOUR + 3, end, 15))
        file.write("# TYPE shop_mixed gauge\n")
        for seconds in (15, 60):
            family("shop_mixed", f'job="every-{seconds}"', range(end - HOUR, end + 1, seconds))
        file.write("# TYPE shop_slow gauge\n")
        for shard in range(2):
            family("shop_slow", f'shard="{shard}"', range(end - DAY, end + 1, 5 * MINUTE))
        file.write("# TYPE shop_sessions gauge\n")
        for pod, t in enumerate(range(self.start, end, 6 * HOUR)):
            family("shop_sessions", f'pod="app-{pod}"', range(t, min(t + 6 * HOUR, end), MINUTE))
        file.write("# TYPE shop_odd gauge\n")
        for kind, value in (("nan", "NaN"), ("pinf", "+Inf"), ("ninf", "-Inf"), ("finite", "")):
            family("shop_odd", f'kind="{kind}"', hour, value)
        file.write("# TYPE shop_quota gauge\n")
        for le in ("1", "5"):
            family("shop_quota", f'le="{le}",quantile="0.5",sentinel_x="y"', hour)
        file.write("# TYPE shop:load:avg gauge\n")
        family("shop:load:avg", 'zone="z0"', hour)
        file.write("# TYPE shop_gone gauge\n")
        family("shop_gone", 'pod="last"', range(end - 14 * HOUR, end - 12 * HOUR, MINUTE))


class PrometheusServer:
    """One `prometheus` process over a folder; it scrapes itself every second, so it has live samples and metadata.

    jobs: further scrape configurations, in YAML's flow style
    """

    def __init__(self, folder: Path, history: History | None = None, jobs: Sequence[str] = ()) -> None:
        self.folder = folder
        self.history = history or History(end=int(time.time()) // HOUR * HOUR)
        self.jobs = jobs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def load(self) -> None:
        """Turn the history into blocks."""
        source = self.folder / "history.om"
        self.history.write(source)
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(source), str(self.folder / "data")],
            check=True,
            capture_output=True,
        )
        source.unlink()

    def start(self) -> None:
        """Start and wait until it is ready; RuntimeError with its log if it is not within 30 s."""
        (self.folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"- {{job_name: self, static_configs: [{{targets: ['127.0.0.1:{self.port}']}}]}}\n"
            + "".join(f"- {job}\n" for job in self.jobs)
        )
        with (self.folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    "--storage.tsdb.retention.time=60d",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "2"},
            )
        for _ in range(300):
            try:
                if httpx.get(f"{self.url}/-/ready", timeout=1.0, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self.kill()
        raise RuntimeError((self.folder / "prometheus.log").read_text()[-2_000:])

    def wait_for(self, expression: str, seconds: float = 30.0) -> None:
        """Wait until an expression has a value: the first scrape comes about five seconds after the start."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            found = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False).json()
            if found["data"]["result"]:
                return
            time.sleep(0.2)
        raise RuntimeError(f"{expression} has no value after {seconds} s")

    def stop(self) -> None:
        """Ask it to end, and wait; a paused one is resumed first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections are accepted, nothing is answered."""
        os.waitid(os.P_PID, self._signal(signal.SIGSTOP), os.WSTOPPED)  # it may answer until the signal has arrived

    def resume(self) -> None:
        """Thaw it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> int:
        if self._process is None:
            raise RuntimeError("prometheus is not running")
        self._process.send_signal(number)
        return self._process.pid

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None
