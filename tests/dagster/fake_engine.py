"""A hand-written engine with the real one's methods, and the resource that yields it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sentinel_core.alerts.dispatch import DeliveryReport
from sentinel_core.backtest import SCORES, Advice, Standing
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.errors import ConfigError, RegistryError, TransientSourceError
from sentinel_core.pipeline.reports import (
    ActionRequest,
    ActivationReport,
    BacktestReport,
    DrainReport,
    DriftReport,
    EvaluationReport,
    ForecastReport,
    MonitorPlan,
    Quality,
    ScrapeReport,
    TickPlan,
    TrainingReport,
    WatchDrift,
)
from sentinel_dagster.resources import EngineResource

PNG = bytes.fromhex("89504e470d0a1a0a")


def watch(metric: str, **settings: Any) -> WatchConfig:
    """A watch of a built-in model."""
    return WatchConfig(metric=metric, model_class="ExponentialSmoothingModel", **settings)


@dataclass
class FakeEngine:
    """The engine's methods over answers that a test sets; remembers how it was called."""

    config: SentinelConfig
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    plan: TickPlan | None = None
    actions: list[ActionRequest] = field(default_factory=list)
    ticked: set[str] = field(default_factory=set)
    failing: dict[str, str] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    drift: tuple[WatchDrift, ...] = ()
    quality: dict[str, tuple[Quality, ...]] = field(default_factory=dict)
    promotes: bool = True
    down: bool = False
    monitoring: MonitorPlan | None = None
    drained: DrainReport = field(default_factory=lambda: DrainReport(0, 0, 0, 0, ()))
    evaluated: EvaluationReport = field(default_factory=lambda: EvaluationReport(()))
    owed: bool = False
    models: list[str] = field(default_factory=list)
    versions: dict[str, list[int]] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)

    @property
    def slugs(self) -> list[str]:
        return [one.slug for one in self.config.watches]

    def _note(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))

    def due(self, now: float | None = None) -> TickPlan | None:
        self._note("due", now=now)
        return self.plan

    def sync_watches(self) -> list[str]:
        return self.slugs

    def status(self) -> dict[str, dict[str, Any]]:
        return {
            one.selector: {
                "slug": one.slug,
                "last_tick": time.time() if one.slug in self.ticked else None,
                "last_error": self.failing.get(one.slug),
            }
            for one in self.config.watches
        }

    def decide_actions(self) -> list[ActionRequest]:
        return self.actions

    def scrape_windows(self, start: int, end: int, *, mode: str, slugs: Sequence[str] | None = None) -> ScrapeReport:
        self._note("scrape_windows", start=start, end=end, mode=mode, **({} if slugs is None else {"slugs": slugs}))
        if self.down:
            raise TransientSourceError("http://prometheus: connection refused; is it running?")
        return ScrapeReport(len(self.slugs), 5, 50, 1, 2, 0, 0, 0.1, self.failing)

    def issue_forecasts(self, start: int, end: int, *, mode: str, slugs: Sequence[str] | None = None) -> ForecastReport:
        self._note("issue_forecasts", start=start, end=end, mode=mode, **({} if slugs is None else {"slugs": slugs}))
        return ForecastReport(len(self.slugs), 5, 1, 25, 1, 0, self.failing)

    def score_drift(self, start: int, end: int, *, mode: str) -> DriftReport:
        self._note("score_drift", start=start, end=end, mode=mode)
        return DriftReport(5, self.drift, quality=self.quality)

    def train(
        self, slugs: Sequence[str], *, kind: str, reason: str, run_id: str, cause: str = "person"
    ) -> list[TrainingReport]:
        self._note("train", slugs=list(slugs), kind=kind, reason=reason, cause=cause, run_id=run_id)
        return [self._train(slug, kind, reason) for slug in slugs]

    def _train(self, slug: str, kind: str, reason: str) -> TrainingReport:
        if slug in self.answered:
            return TrainingReport(slug, kind, reason, None, None, False, "answered meanwhile", skipped=True)
        if slug in self.failing:
            return TrainingReport(slug, kind, reason, None, None, False, self.failing[slug])
        had = self.versions.setdefault(slug, [])
        version = len(had) + 1
        if self.promotes:
            had.append(version)
        return TrainingReport(
            slug,
            kind,
            reason,
            version,
            version - 1 or None,
            self.promotes,
            "not worse than its parent",
            series=5,
            span_start=1_700_000_000,
            span_end=1_700_003_600,
            sha256="ab" * 32,
            models={"ARIMAModel": 3, "SeasonalNaive": 2},
            mae=0.5,
            champion_mae=0.6,
            coverage=0.94,
            draw=lambda: PNG,
        )

    def backtest(
        self, slugs: Sequence[str], *, since_seconds: int, progress: Callable[[str, int, int], None]
    ) -> Iterator[BacktestReport]:
        self._note("backtest", slugs=list(slugs), since_seconds=since_seconds)
        for slug in slugs:
            report = BacktestReport(slug, slug, 60, 0.95, "A", problem=self.failing.get(slug))
            progress(slug, 1, 1)
            if report.problem is None:
                scores = {name: (0.25, float("nan")) for name in SCORES}
                standings = (
                    Standing("B", scores, 0.5, (0.5,), 1.5),
                    Standing("A", scores, float("nan"), (), None, "hung"),
                )
                known = {"leads": (1, 5), "reported": (1, 5), "series": 3, "of_series": 9, "start": 1_700_000_000}
                advice = Advice("Take B.", "B")
                report = replace(report, **known, end=1_700_086_400, trained=4, standings=standings, advice=advice)
            yield report

    def roll_back(self, slug: str, *, version: int | None = None, reason: str, run_id: str) -> ActivationReport:
        had = self.versions.get(slug, [])
        if len(had) < 2:
            raise RegistryError(f"{slug} has no version before the one that serves")
        before = had[-1]
        had.append(version or had[-2])
        self.pinned.add(slug)
        return self._activation(slug, "rollback", before, reason)

    def release(self, slug: str, *, reason: str, run_id: str) -> ActivationReport:
        self.pinned.discard(slug)
        return self._activation(slug, "release", self.versions[slug][-1], reason)

    def serving(self, slug: str) -> ActivationReport:
        return self._activation(slug, "confirm", None, "promote: not worse")

    def _activation(self, slug: str, action: str, previous: int | None, reason: str) -> ActivationReport:
        return ActivationReport(
            slug,
            action,
            self.versions[slug][-1],
            previous,
            slug in self.pinned,
            reason,
            "the-run-that-trained-it",
            1_700_000_000,
            1_700_003_600,
            "ab" * 32,
        )

    def monitoring_due(self, now: float | None = None) -> MonitorPlan | None:
        return self.monitoring

    def drain(self) -> DrainReport:
        self._note("drain")
        return self.drained

    def evaluate(self, start: int | None = None, end: int | None = None, *, mode: str = "live") -> EvaluationReport:
        self._note("evaluate", start=start, end=end, mode=mode)
        return self.evaluated

    def model_names(self) -> list[str]:
        return self.models

    def deliveries_due(self) -> bool:
        return self.owed

    def deliver(self) -> DeliveryReport:
        self._note("deliver")
        return DeliveryReport(delivered=2, failed=1, next_at=1_772_359_200.0)

    def maintain(self) -> dict[str, Any]:
        self._note("maintain")
        return {"segments_compacted": 3}


class FakeEngineResource(EngineResource):
    """Yields a fake by its name: Dagster copies a resource, the fakes must stay the same."""

    engines: ClassVar[dict[str, FakeEngine]] = {}
    name: str
    broken: str | None = None

    def configuration(self) -> SentinelConfig:
        if self.broken:
            raise ConfigError([self.broken])
        return self.engines[self.name].config

    @contextmanager
    def connect(self, config: SentinelConfig) -> Iterator[Any]:
        yield self.engines[self.name]

    def give_way(self) -> None:
        """The test's process keeps its priority."""
