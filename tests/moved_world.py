"""The pipeline on a real Prometheus whose "now" is moved by the test: its history is lived through again."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentinel_core import SentinelConfig, WatchConfig
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import DriftReport, ForecastReport, ScrapeReport
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.storage.store import Store


@dataclass
class Clock:
    """Our clock in unix seconds, moved by hand; Prometheus' own may be ahead of it."""

    now: float
    prometheus_ahead: float = 0.0

    def __call__(self) -> float:
        return self.now


class MovedClient(PrometheusClient):
    """Prometheus as it was at the clock's time: it is never asked for anything later."""

    clock: Clock

    def now(self) -> float:
        super().now()  # so that an outage is noticed here, as ever
        return self.clock() + self.clock.prometheus_ahead


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
    """A store, engines on it, and the clock."""

    folder: Path
    url: str
    clock: Clock
    stack: ExitStack

    def config(self, *watches: WatchConfig, **settings: Any) -> SentinelConfig:
        """What this world's engines are configured with."""
        return SentinelConfig(
            **{
                "prometheus_url": self.url,
                "artifact_store": str(self.folder),
                "settle_delay": "5s",
                "watches": list(watches),
                **settings,
            }
        )

    def engine(self, *watches: WatchConfig, **settings: Any) -> Engine:
        """An engine over this world's store, as another process would open it."""
        config = self.config(*watches, **settings)
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
