"""Asset checks over the whole fleet: one watch that fails or drifts is the sensor's business, many are a person's."""

from collections.abc import Mapping

import dagster as dg

from sentinel_core.pipeline.reports import DriftReport, EvaluationReport
from sentinel_core.verification import least_coverage
from sentinel_dagster.metadata import failures_table, narrow_table

WARN_SHARE = 0.1  # of the scored series at low drift or worse; some always drift, a tenth at once has a common cause
ERROR_SHARE = 0.1  # of the scored series at high drift
FAILED_SHARE = 0.5  # of the watches that could not be read or forecast: from here an error, below a warning

FLEET_DRIFT = dg.AssetCheckSpec(
    "fleet_drift",
    asset="drift_scores",
    description=f"Warns when {WARN_SHARE:.0%} of the series drift, fails when {ERROR_SHARE:.0%} drift high.",
)
WATCHES_SCRAPED = dg.AssetCheckSpec(
    "watches_scraped",
    asset="scraped_windows",
    description=f"Warns when a watch could not be read, fails when {FAILED_SHARE:.0%} could not.",
)
WATCHES_FORECAST = dg.AssetCheckSpec(
    "watches_forecast",
    asset="forecasts",
    description=f"Warns when a watch could not be forecast, fails when {FAILED_SHARE:.0%} could not.",
)
BOUNDS_HOLD = dg.AssetCheckSpec(
    "bounds_hold",
    asset="drift_scores",
    description="Warns when the bounds of a watch held fewer actuals over a day, at some lead, than chance explains.",
)
MODELS_IN_PRODUCTION = dg.AssetCheckSpec(
    "models_in_production",
    asset="psi_scores",
    description="Warns while a model in production stands at warning, fails while one is critical.",
)


def fleet_drift(report: DriftReport) -> dg.AssetCheckResult:
    """Judge the fleet by the share of its series that drift."""
    high = report.share_high >= ERROR_SHARE
    return dg.AssetCheckResult(
        check_name=FLEET_DRIFT.name,
        passed=not high and report.share_low < WARN_SHARE,
        severity=dg.AssetCheckSeverity.ERROR if high else dg.AssetCheckSeverity.WARN,
        description=f"{report.share_low:.1%} of the series drift, {report.share_high:.1%} of them high",
        metadata={"share_low": report.share_low, "share_high": report.share_high},
    )


def bounds_hold(report: DriftReport) -> dg.AssetCheckResult:
    """Judge the bounds of each watch and lead by their coverage over a day; wide ones only waste."""
    judged = [(slug, one) for slug, some in report.quality.items() for one in some]
    narrow = [
        (slug, one)
        for slug, one in judged
        if one.coverage < least_coverage(one.level, one.samples, one.series, one.lead_seconds)
    ]
    return dg.AssetCheckResult(
        check_name=BOUNDS_HOLD.name,
        passed=not narrow,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(narrow)} of {len(judged)} watches and leads have bounds that are too narrow",
        metadata={"too_narrow": narrow_table(narrow)} if narrow else {},
    )


def models_in_production(report: EvaluationReport) -> dg.AssetCheckResult:
    """Judge the models by the worst of them: each is somebody's product."""
    critical, warning = report.states.get("critical", 0), report.states.get("warning", 0)
    return dg.AssetCheckResult(
        check_name=MODELS_IN_PRODUCTION.name,
        passed=not critical and not warning,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=f"{critical} critical, {warning} at warning, of {sum(report.states.values())} models",
    )


def all_well(spec: dg.AssetCheckSpec, watches: int, failures: Mapping[str, str]) -> dg.AssetCheckResult:
    """Judge a step by how many of its watches failed alone; `watches` counts those that did not fail too."""
    many = len(failures) >= FAILED_SHARE * max(1, watches)
    return dg.AssetCheckResult(
        check_name=spec.name,
        passed=not failures,
        severity=dg.AssetCheckSeverity.ERROR if many else dg.AssetCheckSeverity.WARN,
        description=f"{len(failures)} of {watches} watches failed",
        metadata={"failed_watches": failures_table(failures)} if failures else {},
    )
