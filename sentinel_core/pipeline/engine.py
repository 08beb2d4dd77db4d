"""The pipeline behind one door: what Dagster's assets, the CLI and the façade call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from threadpoolctl import threadpool_limits

from sentinel_core.actions import PERSON
from sentinel_core.alerts.dispatch import DeliveryReport
from sentinel_core.collector import collector_paused
from sentinel_core.config import SentinelConfig
from sentinel_core.pipeline import (
    backtesting,
    baselining,
    deciding,
    deleting,
    delivering,
    draining,
    evaluating,
    issuing,
    learning,
    maintenance,
    reading,
    scoring,
    serving,
    verifying,
)
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import (
    ActionRequest,
    ActivationReport,
    BacktestReport,
    DeletionReport,
    DrainReport,
    DriftReport,
    EvaluationReport,
    ForecastReport,
    MonitorPlan,
    ScrapeReport,
    TickPlan,
    TrainingReport,
)
from sentinel_core.pipeline.status import status
from sentinel_core.storage import model_store
from sentinel_core.storage.store import Store


class Engine:
    """Every step of the forecasting loop over one store; each method commits what it did before it returns."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    @contextmanager
    def open(cls, config: SentinelConfig, *, migrate: bool = True) -> Iterator["Engine"]:
        """Open the store (creating or upgrading its tables) for one process; StoreError where it refuses."""
        # BLAS with two threads on two busy cores makes a training eight times slower: they wait for each other
        with threadpool_limits(1), Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            if migrate:
                store.database.migrate()
            else:
                store.database.require_schema()
            yield cls(Context(config, store))

    @property
    def config(self) -> SentinelConfig:
        """The configuration this engine works for."""
        return self.context.config

    @property
    def store(self) -> Store:
        """The store behind it."""
        return self.context.store

    def sync_watches(self) -> list[str]:
        """Register new watches and retire removed ones; returns the slugs of the configured."""
        return list(self.context.sync_watches())

    def due(self, now: float | None = None) -> TickPlan | None:
        """What a tick has to do now, or at a given time; None when there is nothing."""
        return deciding.due(self.context, now)

    def scrape_windows(
        self, start: int, end: int, *, mode: str = "tick", slugs: Sequence[str] | None = None
    ) -> ScrapeReport:
        """See `reading.scrape_windows`."""
        return reading.scrape_windows(self.context, start, end, mode=mode, slugs=slugs)

    def issue_forecasts(
        self, start: int, end: int, *, mode: str = "live", slugs: Sequence[str] | None = None
    ) -> ForecastReport:
        """See `issuing.issue_forecasts`."""
        with collector_paused():
            return issuing.issue_forecasts(self.context, start, end, mode=mode, slugs=slugs)

    def score_drift(self, start: int, end: int, *, mode: str = "live") -> DriftReport:
        """See `scoring.score_drift`; a live one also judges every round of steps that is over, see `verifying`."""
        with collector_paused():
            report = scoring.score_drift(self.context, start, end, mode=mode)
            if mode == "live":
                verifying.verify_forecasts(self.context)
            return replace(report, quality=verifying.newest(self.context))

    def decide_actions(self) -> list[ActionRequest]:
        """See `deciding.decide_actions`."""
        return deciding.decide_actions(self.context)

    def train(
        self,
        slugs: Sequence[str],
        *,
        kind: str,
        reason: str,
        cause: str = PERSON,
        run_id: str | None = None,
    ) -> list[TrainingReport]:
        """See `learning.train`."""
        return learning.train(self.context, slugs, kind=kind, reason=reason, cause=cause, run_id=run_id)

    def backtest(
        self, slugs: Sequence[str] | None, *, since_seconds: int, progress: backtesting.Progress | None = None
    ) -> Iterator[BacktestReport]:
        """See `backtesting.run`."""
        return backtesting.run(self.context, slugs, since_seconds=since_seconds, progress=progress)

    def roll_back(
        self, slug: str, *, version: int | None = None, reason: str, run_id: str | None = None
    ) -> ActivationReport:
        """Serve the previous (or a named) version, hold it until released, and forecast with it at once."""
        report = serving.roll_back(self.context, slug, version=version, reason=reason, run_id=run_id)
        self._reissue(slug)
        return report

    def release(self, slug: str, *, reason: str, run_id: str | None = None) -> ActivationReport:
        """End a rollback's hold and forecast with what serves from then on."""
        report = serving.release(self.context, slug, reason=reason, run_id=run_id)
        self._reissue(slug)
        return report

    def _reissue(self, slug: str) -> None:
        issuing.issue_forecasts(self.context, 0, 0, mode="live", slugs=[slug])

    def serving(self, slug: str) -> ActivationReport:
        """What serves a watch now, and why."""
        return serving.serving(self.context, slug)

    def monitoring_due(self, now: float | None = None) -> MonitorPlan | None:
        """What monitoring has to do now, or at a given time; None when there is nothing. Cheap: asked each minute."""
        return evaluating.due(self.context, now)

    def drain(self) -> DrainReport:
        """See `draining.drain`."""
        with collector_paused():
            return draining.drain(self.context)

    def evaluate(self, start: int | None = None, end: int | None = None, *, mode: str = "live") -> EvaluationReport:
        """See `evaluating.evaluate`."""
        with collector_paused():
            return evaluating.evaluate(self.context, start, end, mode=mode)

    def pin_baseline(self, model_id: int, start: int, end: int, *, actor: str, reason: str) -> int:
        """See `baselining.pin`."""
        return baselining.pin(self.context, model_id, start, end, actor=actor, reason=reason)

    def unpin_baseline(self, model_id: int, *, actor: str, reason: str) -> int:
        """See `baselining.unpin`."""
        return baselining.unpin(self.context, model_id, actor=actor, reason=reason)

    def accept_as_new_normal(self, model_id: int, *, actor: str, reason: str) -> int:
        """See `baselining.accept`."""
        return baselining.accept(self.context, model_id, actor=actor, reason=reason)

    def model_names(self) -> list[str]:
        """Every model in production, as "<project>/<name>"."""
        with self.store.database.read() as conn:
            projects = model_store.project_names(conn)
            return [one.full_name(projects) for one in model_store.models(conn)]

    def deliver(self) -> DeliveryReport:
        """See `delivering.deliver`."""
        return delivering.deliver(self.context)

    def deliveries_due(self) -> bool:
        """Whether an alert has to be sent or repeated now. Cheap enough for every few seconds."""
        return delivering.deliveries_due(self.context)

    def delete_model(self, model_id: int) -> DeletionReport:
        """See `deleting.delete_model`."""
        return deleting.delete_model(self.context, model_id)

    def maintain(self) -> dict[str, int]:
        """Compact, apply retention, collect garbage; returns what was done, in counts."""
        return maintenance.maintain(self.context)

    def status(self) -> dict[str, dict[str, object]]:
        """See `status.status`."""
        return status(self.context)
