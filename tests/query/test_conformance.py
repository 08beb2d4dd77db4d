"""What Grafana's datasource sends, replayed."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.emitter.fleet import NOW
from tests.query.conftest import NAME

REPLAY = Path(__file__).parents[3] / "shared" / "conformance" / "grafana_conformance.py"


@pytest.mark.skipif(not REPLAY.exists(), reason="the replay is not beside this repository")
def test_grafana_finds_a_prometheus(client: httpx.Client) -> None:
    """Everything that Grafana's Prometheus datasource asks is answered as it expects."""
    command = [sys.executable, str(REPLAY), str(client.base_url), NAME, str(NOW + 60)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.splitlines()[0].endswith(": 35/35"), said
