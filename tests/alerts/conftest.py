"""A receiver, and the configuration that lets alerts reach it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_core.config import SentinelConfig
from tests.alerts.receiver_server import ReceiverServer


@pytest.fixture
def server() -> Iterator[ReceiverServer]:
    """A receiver that takes everything."""
    with ReceiverServer().running() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> SentinelConfig:
    """Alerts may go to this machine, and link to where people reach the sidecar."""
    return SentinelConfig(
        artifact_store=str(tmp_path / "artifacts"),
        external_url="https://sentinel.example/",
        alert_networks=["127.0.0.0/8"],
    )
