"""Reports of the core as Dagster metadata, tags and data versions. Kept small: it lives in the event's row."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from sentinel_core import plots
from sentinel_core.durations import format_duration
from sentinel_core.pipeline.reports import (
    ActivationReport,
    BacktestReport,
    DrainReport,
    DriftReport,
    EvaluationReport,
    ForecastReport,
    ModelChange,
    Quality,
    ScrapeReport,
    TrainingReport,
    WatchDrift,
)

Metadata = dict[str, dg.MetadataValue]

MOST_ROWS = 20  # of a table in an event
SCRAPED_WINDOWS = dg.AssetKey("scraped_windows")
MODEL_VERSIONS = dg.AssetKey("model_versions")
ACTIVE_MODELS = dg.AssetKey("active_models")
MODEL_EVALUATIONS = dg.AssetKey("model_evaluations")
PREDICTION_EVENTS = dg.AssetKey("prediction_events")
PSI_SCORES = dg.AssetKey("psi_scores")
MONITORED_MODELS = dg.AssetKey("monitored_models")
CHANGED_TAG = "sentinel/models"  # on runs that logged what happened to a model in production
CODE_VERSION = "1"  # of what the assets mean; raised when the same input would give another output

_SEVERITIES = {"none": 0, "low": 1, "high": 2}


def label(version: int | None) -> str:
    """Return a version as people and labels see it.

    >>> label(3), label(None)
    ('v3', 'none')
    """
    return "none" if version is None else f"v{version}"


def windows_metadata(report: ScrapeReport) -> Metadata:
    """What was read from Prometheus."""
    return {
        "watches": dg.MetadataValue.int(report.watches),
        "series": dg.MetadataValue.int(report.series),
        "samples": dg.MetadataValue.int(report.samples),
        "gaps": dg.MetadataValue.int(report.gaps),
        "non_finite": dg.MetadataValue.int(report.non_finite),
        "new_series": dg.MetadataValue.int(report.new_series),
        "vanished_series": dg.MetadataValue.int(report.vanished_series),
        "clock_skew_seconds": dg.MetadataValue.float(round(report.clock_skew_seconds, 3)),
        **_failures(report.failures),
    }


def forecasts_metadata(report: ForecastReport) -> Metadata:
    """What was forecast, and how many series no version knows yet."""
    return {
        "watches": dg.MetadataValue.int(report.watches),
        "series": dg.MetadataValue.int(report.series),
        "origins": dg.MetadataValue.int(report.origins),
        "rows": dg.MetadataValue.int(report.rows),
        "pooled_series": dg.MetadataValue.int(report.pooled),
        "last_value_series": dg.MetadataValue.int(report.naive),
        **_failures(report.failures),
    }


def drift_metadata(report: DriftReport, *, plot: bool) -> Metadata:
    """Shares of drifting series, the worst watches, and a plot where asked for."""
    metadata: Metadata = {
        "rows": dg.MetadataValue.int(report.rows),
        "scored_series": dg.MetadataValue.int(sum(watch.scored for watch in report.watches)),
        "share_low": dg.MetadataValue.float(round(report.share_low, 4)),
        "share_high": dg.MetadataValue.float(round(report.share_high, 4)),
        **_failures(report.failures),
    }
    if report.watches:
        metadata["worst_watches"] = _table(
            (
                {
                    "watch": watch.slug,
                    "severity": watch.severity,
                    "mae": watch.drift_mae,
                    "low": watch.low,
                    "high": watch.high,
                    "scored": watch.scored,
                }
                for watch in worst(report.watches)
            ),
            watch="string",
            severity="string",
            mae="float",
            low="int",
            high="int",
            scored="int",
        )
        if plot:
            metadata["plot"] = _image("drift", plots.drift_png(report))
    return metadata


def worst(watches: Iterable[WatchDrift]) -> list[WatchDrift]:
    """Return at most 20 watches, by severity, then by the share of their series that drift."""
    return sorted(
        watches,
        key=lambda watch: (_SEVERITIES[watch.severity], (watch.low + watch.high) / max(1, watch.scored)),
        reverse=True,
    )[:MOST_ROWS]


def version_metadata(report: TrainingReport, run_id: str, *, plot: bool = True) -> Metadata:
    """A version's pedigree: from what, on what, how good, and why it serves or not; with its plot where asked for."""
    metadata: Metadata = {
        "version": dg.MetadataValue.text(label(report.version)),
        "parent": dg.MetadataValue.text(label(report.parent)),
        "kind": dg.MetadataValue.text(report.kind),
        "reason": dg.MetadataValue.text(report.reason),
        "promoted": dg.MetadataValue.bool(report.promoted),
        "detail": dg.MetadataValue.text(report.detail),
        "model_class": dg.MetadataValue.text(report.model_class),
        "series": dg.MetadataValue.int(report.series),
        "series_refitted": dg.MetadataValue.int(report.series_refitted),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "trained_by": dg.MetadataValue.dagster_run(run_id),
        "trained_on": dg.MetadataValue.asset(SCRAPED_WINDOWS),
    }
    for name, bound in (("span_start", report.span_start), ("span_end", report.span_end)):
        if bound is not None:
            metadata[name] = dg.MetadataValue.timestamp(float(bound))
    for name, value in (("mae", report.mae), ("champion_mae", report.champion_mae), ("coverage", report.coverage)):
        if value is not None:
            metadata[name] = dg.MetadataValue.float(value)
    if report.models:
        metadata["models"] = dg.MetadataValue.json(dict(report.models))
    if report.sha256:
        metadata["sha256"] = dg.MetadataValue.text(report.sha256)
    if plot and report.draw is not None:
        metadata["plot"] = _image("forecast against actual", report.draw())
    return metadata


def version_tags(report: TrainingReport) -> dict[str, str]:
    """What one filters by in the UI; values of [A-Za-z0-9_.-], at most 63 characters."""
    return {
        "sentinel/version": label(report.version),
        "sentinel/kind": report.kind,
        "sentinel/promoted": str(report.promoted).lower(),
    }


def activation_metadata(report: ActivationReport) -> Metadata:
    """What serves, since when it was trained, and why."""
    metadata: Metadata = {
        "version": dg.MetadataValue.text(label(report.version)),
        "previous": dg.MetadataValue.text(label(report.previous)),
        "action": dg.MetadataValue.text(report.action),
        "reason": dg.MetadataValue.text(report.reason),
        "pinned": dg.MetadataValue.bool(report.pinned),
        "span_start": dg.MetadataValue.timestamp(float(report.span_start)),
        "span_end": dg.MetadataValue.timestamp(float(report.span_end)),
        "sha256": dg.MetadataValue.text(report.sha256),
        "versions": dg.MetadataValue.asset(MODEL_VERSIONS),
    }
    if report.trained_run_id:
        metadata["trained_by"] = dg.MetadataValue.dagster_run(report.trained_run_id)
    return metadata


def activation_tags(report: ActivationReport) -> dict[str, str]:
    """What one filters by in the UI."""
    return {"sentinel/version": label(report.version), "sentinel/action": report.action}


def backtest_metadata(report: BacktestReport) -> Metadata:
    """How each model did at the reported leads, a plot of all, and what to write."""
    assert report.advice is not None
    return {
        "advice": dg.MetadataValue.text(report.advice.text),
        "model_class": dg.MetadataValue.text(report.advice.model or report.own),
        "series": dg.MetadataValue.int(report.series),
        "series_of_the_watch": dg.MetadataValue.int(report.of_series),
        "trainings": dg.MetadataValue.int(report.trained),
        "origins": dg.MetadataValue.int(report.origins),
        "span_start": dg.MetadataValue.timestamp(float(report.start)),
        "span_end": dg.MetadataValue.timestamp(float(report.end)),
        "models": _table(
            (
                {
                    "model": one.model,
                    "lead": format_duration(lead * report.step_seconds),
                    **{name: _number(values[report.leads.index(lead)]) for name, values in one.scores.items()},
                    "cpu_ms": one.cpu_ms,
                    "problem": one.problem,
                }
                for one in report.standings
                for lead in report.reported
            ),
            model="string",
            lead="string",
            mae="float",
            mase="float",
            bias="float",
            coverage="float",
            cpu_ms="float",
            problem="string",
        ),
        "plot": _image("errors and coverage by lead", plots.backtest_png(report)),
    }


def _number(value: float) -> float | None:
    """A score; none where it is not known."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def drain_metadata(report: DrainReport) -> Metadata:
    """What came out of the event log."""
    metadata: Metadata = {
        "events": dg.MetadataValue.int(report.events),
        "duplicates": dg.MetadataValue.int(report.duplicates),
        "hours": dg.MetadataValue.int(len(report.hours)),
        "late_hours": dg.MetadataValue.int(report.late_hours),
        "new_models": dg.MetadataValue.int(len(report.new_models)),
    }
    if report.hours:
        metadata["oldest_hour"] = dg.MetadataValue.timestamp(float(min(report.hours)))
        metadata["newest_hour"] = dg.MetadataValue.timestamp(float(max(report.hours)))
    return metadata


def evaluation_metadata(report: EvaluationReport, *, plot: bool) -> Metadata:
    """Models by state, what changed, the worst models, and a plot of these where asked for."""
    metadata: Metadata = {
        "mode": dg.MetadataValue.text(report.mode),
        "hours": dg.MetadataValue.int(len(report.hours)),
        "late_evaluations": dg.MetadataValue.int(report.late_evaluations),
        "hours_behind": dg.MetadataValue.int(report.behind),
        "changes": dg.MetadataValue.int(len(report.changes)),
        **{f"models_{state}": dg.MetadataValue.int(count) for state, count in sorted(report.states.items())},
        "failures": dg.MetadataValue.int(len(report.failures)),
    }
    if report.failures:
        metadata["failed_models"] = failures_table(report.failures, "model")
    if report.hours:
        metadata["evaluated_until"] = dg.MetadataValue.timestamp(float(report.hours[-1].hour))
    if report.worst:
        shown = report.worst[:MOST_ROWS]
        metadata["worst_models"] = _table(
            ({"model": one.model, "state": one.state, "psi": one.psi, "adjusted": one.adjusted} for one in shown),
            model="string",
            state="string",
            psi="float",
            adjusted="float",
        )
        if plot:
            metadata["plot"] = _image("adjusted PSI", plots.psi_png(shown))
    return metadata


def change_metadata(change: ModelChange, run_id: str) -> Metadata:
    """What happened to a model in production, on what it was decided, and by which run."""
    metadata: Metadata = {
        "model": dg.MetadataValue.text(change.model),
        "change": dg.MetadataValue.text(change.kind),
        "detail": dg.MetadataValue.text(change.detail),
        "baseline": dg.MetadataValue.text(label(change.baseline_version)),
        "recorded_by": dg.MetadataValue.dagster_run(run_id),
        "events": dg.MetadataValue.asset(PREDICTION_EVENTS),
        "scores": dg.MetadataValue.asset(PSI_SCORES),
    }
    if change.hour is not None:
        metadata["hour"] = dg.MetadataValue.timestamp(float(change.hour))
    if change.incident_id is not None:
        metadata["incident"] = dg.MetadataValue.int(change.incident_id)
    if change.severity is not None:
        metadata["severity"] = dg.MetadataValue.text(change.severity)
    return metadata


def change_tags(change: ModelChange) -> dict[str, str]:
    """What one filters by in the UI."""
    return {"sentinel/change": change.kind} | ({"sentinel/severity": change.severity} if change.severity else {})


def outcomes_table(reports: Iterable[TrainingReport]) -> dg.MetadataValue:
    """One row for each watch of a training run, failures first; at most 20."""
    rows = sorted(reports, key=lambda report: (report.version is not None, report.promoted))
    return _table(
        (
            {"watch": row.slug, "version": label(row.version), "promoted": row.promoted, "detail": row.detail}
            for row in rows[:MOST_ROWS]
        ),
        watch="string",
        version="string",
        promoted="bool",
        detail="string",
    )


def _failures(failures: Mapping[str, str]) -> Metadata:
    metadata: Metadata = {"failures": dg.MetadataValue.int(len(failures))}
    if failures:
        metadata["failed_watches"] = failures_table(failures)
    return metadata


def narrow_table(narrow: Sequence[tuple[str, Quality]]) -> dg.MetadataValue:
    """One row for each watch and lead whose bounds held too few actuals, the worst first; at most 20."""
    worst = sorted(narrow, key=lambda found: found[1].coverage - found[1].level)[:MOST_ROWS]
    rows: list[Mapping[str, str | float | int | bool | None]] = [
        {"watch": slug, "lead": format_duration(one.lead_seconds), "coverage": one.coverage, "level": one.level}
        for slug, one in worst
    ]
    return _table(rows, watch="string", lead="string", coverage="float", level="float")


def failures_table(failures: Mapping[str, str], of: str = "watch") -> dg.MetadataValue:
    """One row for each watch, or model, that failed; at most 20."""
    rows = sorted(failures.items())[:MOST_ROWS]
    return _table(({of: name, "error": error} for name, error in rows), **{of: "string", "error": "string"})


def _table(rows: Iterable[Mapping[str, str | float | int | bool | None]], **columns: str) -> dg.MetadataValue:
    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(row)) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in columns.items()]),
    )


def _image(title: str, png: bytes) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")
