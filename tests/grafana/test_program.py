"""`sentinel grafana` with a program in Grafana's place that says how it was started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECORDER = """#!/bin/sh
printf '%s\\n' "$@" > arguments
env > environment
"""


def start(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with only `path` to find programs on."""
    environment = {"PATH": str(path or folder), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "sentinel_core.cli", "grafana", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("program", "first"), [("grafana", "server"), ("grafana-server", None)])
def test_grafana_is_started_with_everything(tmp_path: Path, program: str, first: str | None) -> None:
    """On loopback, provisioned with datasource and dashboards, its data beside our store."""
    (tmp_path / "sentinel.toml").write_text("emitter_port = 8123\n")
    (tmp_path / program).write_text(RECORDER)
    (tmp_path / program).chmod(0o755)
    (tmp_path / "printf").symlink_to("/usr/bin/printf")
    (tmp_path / "env").symlink_to("/usr/bin/env")
    done = start(tmp_path, "--port", "3999")
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:3999, reading http://127.0.0.1:8123" in done.stdout
    arguments = (tmp_path / "arguments").read_text().split()
    assert (arguments[:1] == ["server"]) == (first == "server")
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert (found["GF_SERVER_HTTP_ADDR"], found["GF_SERVER_HTTP_PORT"]) == ("127.0.0.1", "3999")
    provisioning = Path(found["GF_PATHS_PROVISIONING"])
    assert "http://127.0.0.1:8123" in (provisioning / "datasources/sentinel.yaml").read_text()
    assert json.loads(Path(found["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).read_text())["uid"] == "sentinel-fleet"
    assert Path(found["GF_PATHS_DATA"]).parent == tmp_path / "sentinel_artifacts" / "grafana"


def test_where_it_is_not_installed_the_message_says_what_to_do(tmp_path: Path) -> None:
    """Install it, or write the files for another one."""
    done = start(tmp_path)
    assert done.returncode == 1
    assert "Grafana is not installed" in done.stderr
    assert "sentinel grafana --write FOLDER" in done.stderr
    done = start(tmp_path, "--write", "files")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "files/compose.yaml").exists()


def test_off_loopback_a_key_is_asked_for(tmp_path: Path) -> None:
    """Grafana would start and show nothing but refusals."""
    (tmp_path / "sentinel.toml").write_text('bind_address = "0.0.0.0"\n')
    (tmp_path / "grafana").write_text(RECORDER)
    (tmp_path / "grafana").chmod(0o755)
    done = start(tmp_path)
    assert done.returncode == 1
    assert "set SENTINEL_KEY to what `sentinel keys create grafana --all-projects --scope read` prints" in done.stderr
