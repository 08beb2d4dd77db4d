"""Sentinel's metrics about itself: one table of names, and the collectors that fill it.

Short-lived processes (a tick, a training) add to the `counters` table of the store; the sidecar shows those sums, the
state of every watch, and its own requests. Names, kinds and help texts stand here and nowhere else.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from sentinel_core.durations import format_duration
from sentinel_core.emitter.exposition import OPENMETRICS, OPENMETRICS_END
from sentinel_core.emitter.production import Production, per_model, waiting_metrics
from sentinel_core.emitter.snapshot import Snapshot, WatchView
from sentinel_core.storage.quality_store import Quality

# What processes add up in the store. A counter's row has the name as it is, a summary's rows end in _sum and _count.
COUNTED: Mapping[str, tuple[str, str]] = {
    "sentinel_source_requests_total": ("counter", "Requests to Prometheus, by endpoint and outcome."),
    "sentinel_source_request_seconds": ("summary", "Duration of requests to Prometheus, by endpoint."),
    "sentinel_scraped_samples_total": ("counter", "Samples read from Prometheus."),
    "sentinel_non_finite_samples_total": ("counter", "Samples that were NaN or infinite and became gaps."),
    "sentinel_gaps_total": ("counter", "Grid points for which Prometheus had no sample."),
    "sentinel_forecasts_total": ("counter", "Forecasts issued, one per series and origin."),
    "sentinel_forecast_seconds": ("summary", "Duration of issuing the forecasts of one tick."),
    "sentinel_training_seconds": ("summary", "Duration of training one watch, by kind."),
    "sentinel_trainings_total": ("counter", "Trainings of one watch, by kind and outcome."),
    "sentinel_drained_events_total": ("counter", "Events of models in production moved from the log into segments."),
    "sentinel_evaluations_total": ("counter", "Models in production evaluated, one for each hour."),
    "sentinel_late_evaluations_total": ("counter", "Evaluations made again after late events."),
    "sentinel_clock_skew_seconds": ("gauge", "Prometheus' clock minus ours, at the newest tick."),
}

# One value per watch, labelled with its slug; what a watch does not have yet has no sample.
PER_WATCH: Mapping[str, str] = {
    "sentinel_watch_last_success_timestamp_seconds": "When the watch was last read and forecast.",
    "sentinel_watch_staleness_seconds": "Time since the watch was last read and forecast.",
    "sentinel_watch_forecast_origin_timestamp_seconds": "Last time known to the forecasts that are shown.",
    "sentinel_watch_buffer_fill_ratio": "Share of the lookback that has been collected.",
    "sentinel_watch_model_version": "Number of the model version that serves.",
    "sentinel_watch_pinned": "1 while a rollback holds the serving version.",
    "sentinel_watch_readable": "0 while the newest forecasts of the watch cannot be read from the store.",
    "sentinel_drift_mae": "Rolling forecast error of the worst series, in the drift_unit of the watch.",
    "sentinel_drift_severity": "Severity of the worst series: 0 none, 1 low, 2 high.",
}
# One value per watch and lead over the last day, told anew every hour; the lead label is a duration.
PER_LEAD: Mapping[str, tuple[Callable[[Quality], float | None], str]] = {
    "sentinel_forecast_mae": (
        attrgetter("mae"),
        "Mean absolute error of forecasts over a day, median over series, in the metric's unit.",
    ),
    "sentinel_forecast_mase": (
        attrgetter("mase"),
        "The same by the error of repeating the day before, median over series: below 1 the forecasts are better.",
    ),
    "sentinel_forecast_bias": (
        attrgetter("bias"),
        "Mean of forecast less actual over a day, median over series, in the metric's unit: above 0 they are too high.",
    ),
    "sentinel_forecast_coverage": (attrgetter("coverage"), "Share of actuals of a day inside the bounds."),
    "sentinel_forecast_better_share": (
        attrgetter("better_share"),
        "Share of series whose forecasts were better over a day than repeating the day before.",
    ),
}
SEVERITIES = ("none", "low", "high")


def counted(snapshot: Snapshot) -> Iterator[Metric]:
    """The store's counters as families; a name that COUNTED does not declare is shown as a counter all the same."""
    families: dict[str, Metric] = {}
    for (name, labels), value in snapshot.counters.items():
        family, kind, text = _declaration(name)
        metric = families.setdefault(family, Metric(family, text, kind))
        metric.add_sample(name, dict(labels), value)
    yield from families.values()


def _declaration(name: str) -> tuple[str, str, str]:
    for family in (name, name.removesuffix("_sum"), name.removesuffix("_count")):
        if family in COUNTED:
            kind, text = COUNTED[family]
            return family.removesuffix("_total") if kind == "counter" else family, kind, text
    return name.removesuffix("_total"), "counter" if name.endswith("_total") else "gauge", "Counted by the pipeline."


def per_watch(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    """The state of every configured watch, at `now` (unix seconds)."""
    info = Metric("sentinel_watch", "What the watch is called and which model it has.", "info")
    series = Metric("sentinel_watch_series", "Live series, by what their forecast comes from.", "gauge")
    models = Metric("sentinel_watch_models", "Live series, by the model that forecasts them.", "gauge")
    drift = Metric("sentinel_drift_series", "Series with a verdict, by severity.", "gauge")
    gauges = {name: Metric(name, text, "gauge") for name, text in PER_WATCH.items()}
    leads = {name: Metric(name, text, "gauge") for name, (_, text) in PER_LEAD.items()}
    for watch in snapshot.watches:
        slug = {"watch": watch.config.slug}
        text = {"selector": watch.config.selector, "model": watch.config.model_path, "horizon": watch.config.horizon}
        info.add_sample("sentinel_watch_info", slug | text, 1.0)
        for name, value in _values(watch, now).items():
            if value is not None:
                gauges[name].add_sample(name, slug, float(value))
        for state, count in series_by_state(watch).items():
            series.add_sample(series.name, slug | {"state": state}, count)
        for model, count in watch.models.items():
            models.add_sample(models.name, slug | {"model": model}, count)
        for severity, count in series_by_severity(watch).items():
            drift.add_sample(drift.name, slug | {"severity": severity}, count)
        for quality in watch.quality:
            lead = slug | {"lead": format_duration(quality.lead_seconds)}
            for name, (value_of, _) in PER_LEAD.items():
                if (one := value_of(quality)) is not None:
                    leads[name].add_sample(name, lead, one)
    yield from (info, series, models, drift, *gauges.values(), *leads.values())


def _values(watch: WatchView, now: float) -> dict[str, float | None]:
    """The values of PER_WATCH for one watch, in its order."""
    state = watch.state
    severity = SEVERITIES.index(state.severity) if state.severity in SEVERITIES else None
    staleness = None if state.fresh_at is None else max(0.0, now - state.fresh_at)
    origin = max((block.origin for block in watch.forecasts), default=None)
    version, pinned = (watch.serving[0].version, watch.serving[0].pinned) if watch.serving else (None, False)
    values = (state.fresh_at, staleness, origin, state.buffer_fill, version, pinned)
    return dict(zip(PER_WATCH, (*values, watch.unreadable is None, state.drift_mae, severity), strict=True))


def series_by_state(watch: WatchView) -> dict[str, int]:
    """Live series that a version fitted, that borrow pooled parameters, that repeat their last value, or that wait."""
    versions = np.concatenate([np.empty(0, np.int32), *(block.versions for block in watch.forecasts)])
    fitted, pooled = int((versions > 0).sum()), int((versions < 0).sum())
    waiting = max(0, watch.state.series_live - len(versions))
    return {"fitted": fitted, "pooled": pooled, "naive": len(versions) - fitted - pooled, "waiting": waiting}


def series_by_severity(watch: WatchView) -> dict[str, int]:
    """Series with a verdict, by severity."""
    low, high = watch.state.drift_low, watch.state.drift_high
    return {"none": max(0, watch.state.drift_scored - low - high), "low": low, "high": high}


@dataclass(frozen=True)
class SnapshotCollector(Collector):
    """What prometheus_client collects from a snapshot."""

    snapshot: Snapshot
    now: float

    def collect(self) -> Iterable[Metric]:
        """Return every family that the store feeds."""
        yield from counted(self.snapshot)
        yield from per_watch(self.snapshot, self.now)
        dropped = Metric("sentinel_series_dropped", "Series not shown because an earlier watch shows them.", "gauge")
        dropped.add_sample(dropped.name, {}, self.snapshot.dropped)
        yield dropped
        yield from waiting_metrics(self.snapshot.waiting)


@dataclass(frozen=True)
class ProductionCollector(Collector):
    """The same of models in production: many, and rendered only when something about them has changed."""

    production: Production

    def collect(self) -> Iterable[Metric]:
        """Return every family about models in production."""
        yield from per_model(self.production)


class SidecarMetrics:
    """The sidecar's own metrics, in their own registry: its build, its store, its configuration, its requests."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge("sentinel_build_info", "What is running.", ["version", "python"], registry=self.registry)
        build.labels(version, platform.python_version()).set(1)
        self.store_up = Gauge("sentinel_store_up", "0 while the store cannot be read.", registry=self.registry)
        self.snapshot_time = Gauge(
            "sentinel_snapshot_timestamp_seconds",
            "When the store was last known to hold what is shown.",
            registry=self.registry,
        )
        self.reload_successful = Gauge(
            "sentinel_config_last_reload_successful",
            "0 when the configuration could not be read again.",
            registry=self.registry,
        )
        self.reload_successful.set(1)
        self.requests = Counter(
            "sentinel_http_requests_total", "Requests answered.", ["route", "code"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "sentinel_http_request_seconds",
            "Time to the answer.",
            ["route"],
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )


def encode(collector: Collector, media_type: str) -> bytes:
    """Return a collector's families in one of the two formats, without OpenMetrics' last line."""
    generate: Callable[[Collector], bytes] = generate_openmetrics if media_type == OPENMETRICS else generate_latest
    return generate(collector).removesuffix(OPENMETRICS_END)
