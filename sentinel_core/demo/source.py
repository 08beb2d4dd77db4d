"""The Prometheus of the demo: a real one over the demo target where it is installed, else the target's own API."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentinel_core.demo.history import HISTORY_SECONDS, write_openmetrics
from sentinel_core.demo.signals import SCRAPE_SECONDS

TARGET_PORT = 9109  # preferred; another free one where it is taken
PROMETHEUS_PORT = 9190  # not 9090: a Prometheus of the machine's own may be there
_BLOCK_SPAN = "36h"  # promtool reads the file once per block: 3 s instead of 17 s with its own 2 h

_CONFIGURATION = """\
global:
  scrape_interval: {seconds}s
scrape_configs:
  - job_name: shop
    honor_labels: true
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


@dataclass(frozen=True)
class DemoSource:
    """Where the demo's Prometheus answers, and the processes that have to run for it: (name, command)."""

    url: str
    description: str
    commands: Sequence[tuple[str, Sequence[str]]]


def prepare(folder: Path, say: Callable[[str], None]) -> DemoSource:
    """Choose ports and write what the processes need; with Prometheus, its past up to now."""
    target_port = free_port(TARGET_PORT)
    target = ("demo-target", [sys.executable, "-m", "sentinel_core.demo.target", "--port", str(target_port)])
    own = DemoSource(f"http://127.0.0.1:{target_port}", "the demo target's own query API", [target])
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    if not prometheus or not promtool:
        say("No prometheus on the PATH: the demo target answers its query API itself.")
        return own
    data = folder / "tsdb"
    try:
        backfill(promtool, data, now=int(time.time()), say=say)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"promtool could not write the demo's history ({_words(error)}); the demo target answers itself.")
        return own
    configuration = folder / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(seconds=SCRAPE_SECONDS, port=target_port), encoding="utf-8")
    port = free_port(PROMETHEUS_PORT)
    command = [
        prometheus,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    return DemoSource(f"http://127.0.0.1:{port}", "a real Prometheus", [target, ("demo-prometheus", command)])


def backfill(promtool: str, data: Path, *, now: int, say: Callable[[str], None]) -> None:
    """Fill a Prometheus' data folder from the end of its newest block, or a week ago, until now.

    What it scraped since that block is only in its write-ahead log, which a newer block would hide. The past is a
    function of time, so the log is thrown away and its span written again, together with the gap since the last run.
    """
    data.mkdir(parents=True, exist_ok=True)
    for leftover in ("wal", "chunks_head", "lock"):
        path = data / leftover
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    ends = [json.loads(meta.read_text())["maxTime"] // 1000 + 1 for meta in data.glob("*/meta.json")]
    start = max([now - HISTORY_SECONDS, *ends])
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        file = Path(folder) / "history.om"
        samples = write_openmetrics(file, start, now - SCRAPE_SECONDS)  # the newest samples are scraped
        if samples:
            say(f"Writing {(now - start) / 3600:.1f} hours of demo history into Prometheus ({samples:,} samples) …")
            command = [promtool, "tsdb", "create-blocks-from", f"--max-block-duration={_BLOCK_SPAN}", "openmetrics"]
            subprocess.run([*command, str(file), str(data)], check=True, capture_output=True, env={**os.environ})


def free_port(preferred: int) -> int:
    """The preferred port of the loopback, or any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port of 127.0.0.1 is free")


def _words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return error.stderr.decode(errors="replace").strip()[-300:] or f"exit code {error.returncode}"
    return str(error)
