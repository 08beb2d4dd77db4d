"""A source for products that need no real Prometheus."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.product.product import eventually, free_ports, is_open


@pytest.fixture
def target() -> Iterator[str]:
    """A demo target that answers Prometheus' query API with a week of history; its URL."""
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "sentinel_core.demo.target", "--port", str(port)])
    try:
        eventually("the target answers", lambda: is_open(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
