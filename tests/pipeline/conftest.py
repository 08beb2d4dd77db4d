"""The pipeline on a real Prometheus whose "now" is moved by the test: its week of history is lived through again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sentinel_core import SentinelConfig, WatchConfig
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import DriftReport, ForecastReport, ScrapeReport
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.storage.store import Store
from tests.prometheus_server import PrometheusServer


@dataclass
class Clock:
    """Unix seconds, moved by hand."""

    now: float

    def __call__(self) -> float:
        return self.now


class MovedClient(PrometheusClient):
    """Prometheus as it was at the clock's time: it is never asked for anything later."""

    clock: Clock

    def now(self) -> float:
        super().now()  # so that an outage is noticed here, as ever
        return self.clock()


@dataclass
class MovedContext(Context):
    """A context whose clients live at the test's time."""

    moved: Clock = field(default_factory=lambda: Clock(0.0))

    def client(self) -> PrometheusClient:
        client = MovedClient(self.config.prometheus_url, timeout=self.config.scrape_timeout, observe=self._observe)
        client.clock = self.moved
        return client


@dataclass
class World:
    """A store, an engine on it, and the clock."""

    folder: Path
    url: str
    clock: Clock
    stack: ExitStack

    def engine(self, *watches: WatchConfig, **settings: Any) -> Engine:
        """An engine over this world's store, as another process would open it."""
        config = SentinelConfig(
            **{
                "prometheus_url": self.url,
                "artifact_store": str(self.folder),
                "settle_delay": "5s",
                "watches": list(watches),
                **settings,
            }
        )
        store = self.stack.enter_context(Store.open(config.resolved_sql_url, config.resolved_data_url))
        store.database.migrate()
        return Engine(MovedContext(config, store, clock=self.clock, moved=self.clock))

    def tick(self, engine: Engine, seconds: float = 60.0) -> tuple[ScrapeReport, ForecastReport, DriftReport]:
        """Move the clock and do what the tick job does."""
        self.clock.now += seconds
        plan = engine.due()
        assert plan is not None
        scraped = engine.scrape_windows(plan.start, plan.end)
        return scraped, engine.issue_forecasts(plan.start, plan.end), engine.score_drift(plan.start, plan.end)


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
