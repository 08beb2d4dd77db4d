"""A sidecar over a store with forecasts of three series, two hours ahead."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from sentinel_core.apps.sidecar import create_app
from sentinel_core.config import WatchConfig
from tests.apps.server import running
from tests.emitter.fleet import NOW, Fleet, Issue, many

STEPS = 120
NAME = "requests_sentinel_predicted"
REQUESTS = WatchConfig(
    metric="requests", model_class="LinearTrendModel", granularity="1m", horizon="2h", lookback="2h", history="1d"
)


def forecast(fleet: Fleet, origin: int = NOW) -> None:
    """Issue values 0, 1, 2, … for the first series, a thousand more for the next."""
    values = 1000.0 * np.arange(3)[:, None] + np.arange(1.0, STEPS + 1)
    fleet.forecast(Issue(REQUESTS, many("requests", 3, job="api"), values), origin=origin)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The store; nothing is passed through."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    fleet = Fleet.open(folder, [REQUESTS], query_passthrough=False)
    fleet.live(REQUESTS, many("requests", 3, job="api"))
    forecast(fleet)
    yield fleet
    fleet.store.close()


@pytest.fixture(scope="module")
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    """A client of the sidecar; its time is half a minute after the forecast."""
    with running(create_app(fleet.config, fleet.store, status=lambda _: {}, now=lambda: NOW + 30.0)) as client:
        yield client
