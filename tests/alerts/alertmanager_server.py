"""A real Alertmanager on free ports."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
QUIET = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


@contextmanager
def running_alertmanager(folder: Path) -> Iterator[str]:
    """Its base URL; skips where it is not installed, fails there in CI."""
    if PROGRAM is None:
        message = "no alertmanager on PATH; apt-get install prometheus-alertmanager"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    (folder / "alertmanager.yml").write_text(QUIET)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen([PROGRAM, *arguments], stdout=log, stderr=log) as server:
        try:
            _wait(f"http://{address}", server, folder / "log")
            yield f"http://{address}"
        finally:
            server.terminate()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            if server.poll() is None and httpx.get(f"{url}/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"alertmanager did not start: {log.read_text()}")
