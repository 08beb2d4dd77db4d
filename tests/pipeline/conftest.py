"""The pipeline lives the shared Prometheus' week of history through again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sentinel_core import WatchConfig
from tests.moved_world import Clock, World
from tests.prometheus_server import PrometheusServer


@pytest.fixture
def world(prometheus: PrometheusServer, tmp_path: Path) -> Iterator[World]:
    """Two hours and some seconds before the history's end."""
    with ExitStack() as stack:
        yield World(tmp_path / "store", prometheus.url, Clock(prometheus.history.end - 7200 + 7.0), stack)


@pytest.fixture
def load() -> Callable[..., WatchConfig]:
    """A watch over shop_load."""

    def make(**fields: Any) -> WatchConfig:
        return WatchConfig(**{"metric": "shop_load", "model_class": "LinearTrendModel", "history": "1d", **fields})

    return make
