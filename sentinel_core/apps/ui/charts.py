"""What is drawn of models and watches: PSI over time, activity, forecasts, drift; and the bars of distributions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from sentinel_core.apps.ui.plot import Curve, Mark, Plot, Span, Trace, draw, short_number
from sentinel_core.config import MonitorConfig, WatchConfig
from sentinel_core.durations import format_duration
from sentinel_core.incidents.lifecycle import Incident
from sentinel_core.monitoring.assessment import BinShare
from sentinel_core.pipeline.monitored import Activity, OutputHistory
from sentinel_core.storage.quality_store import Quality
from sentinel_core.windows import FloatArray, IntArray

POINTS = 400  # of a line; more than a screen shows
BARS = 120


def psi_plot(history: OutputHistory, settings: MonitorConfig, incidents: Iterable[Incident], now: float) -> Plot | None:
    """Adjusted PSI with the interval of the true one, the range that chance explains, thresholds and incidents."""
    shown = _worst_of_each(history)
    normal = np.maximum(shown.limit - shown.floor, 0.0)
    hours, zeros = shown.hours, np.zeros(len(normal))
    title = "PSI less what chance brings, with its 95% interval"
    traces = [
        Trace("range of chance", "what chance explains", "range", hours, normal, zeros, normal),
        Trace("PSI", title, "psi", hours, shown.adjusted, shown.lower, shown.upper),
    ]
    marks = [
        Mark(settings.warn, f"warning {settings.warn:g}", "warn"),
        Mark(settings.critical, f"critical {settings.critical:g}", "bad"),
    ]
    return draw(traces, marks, [incident_span(one, now) for one in incidents], zero=True)


def incident_span(incident: Incident, now: float) -> Span:
    """From where an incident opened to where it ended, or still lasts."""
    return Span(
        incident.opened_at, now if incident.active else incident.ended_at, f"incident {incident.id}", "incident"
    )


def _worst_of_each(history: OutputHistory) -> OutputHistory:
    """At most POINTS evaluations of a history: of each stretch the one that would have been acted on."""
    count = len(history.hours)
    if count <= POINTS:
        return history
    size = -(-count // POINTS)
    padded = np.full(-(-count // size) * size, -math.inf)
    padded[:count] = np.where(np.isfinite(history.adjusted), history.adjusted, -1.0)
    worst = np.argmax(padded.reshape(-1, size), axis=1) + np.arange(0, len(padded), size)
    arrays = {one.name: getattr(history, one.name) for one in fields(history)}
    picked = {name: value[worst] for name, value in arrays.items() if isinstance(value, np.ndarray)}
    return replace(history, **picked, state=[history.state[i] for i in worst])


def activity_plot(activity: Activity, hour_seconds: int) -> Plot | None:
    """Events by hour, or by a longer stretch where there are too many hours to tell apart."""
    size = next((size for size in (1, 2, 3, 6, 12, 24, 48, 168) if len(activity.hours) <= size * BARS), 168)
    count = len(activity.hours) // size * size
    if not count or not activity.events.any():
        return None
    hours = activity.hours[-count:].reshape(-1, size)[:, 0] + size * hour_seconds // 2  # a bar stands in its middle
    events = activity.events[-count:].reshape(-1, size).sum(axis=1).astype(float)
    per = (
        "per hour"
        if size == 1
        else f"per {size} hours"
        if size < 24
        else "per day"
        if size == 24
        else f"per {size // 24} days"
    )
    return draw([Trace(f"events {per}", f"events {per}", "bars", hours, events)], zero=True)


def forecast_plot(curves: Sequence[Curve], origin: int) -> Plot | None:
    """Actuals, and forecasts with their bounds from the origin on."""
    traces = [trace for colour, curve in enumerate(curves, 1) for trace in curve.traces(colour)]
    return draw(traces, spans=[Span(origin, math.inf, "forecast", "ahead")])


def drift_plot(times: IntArray, mae: FloatArray, config: WatchConfig) -> Plot | None:
    """The rolling error of the worst series with the thresholds of finetuning and retraining."""
    low, high = config.drift_finetune_threshold, config.drift_retrain_threshold
    marks = [Mark(low, f"finetune {short_number(low)}", "warn"), Mark(high, f"retrain {short_number(high)}", "bad")]
    if config.drift_unit == "auto":  # its thresholds are of deviations, which differ from series to series
        marks = []
    unit = "MAE" if config.drift_unit == "mae" else "× training MAE"
    return draw([Trace(unit, f"rolling {unit}, worst series", "psi", times, mae)], marks, zero=True)


def coverage_plot(rounds: Sequence[Quality]) -> Plot | None:
    """Coverage of a day's bounds over time, of some leads, beside the level; None before there are two rounds."""
    if not rounds:
        return None
    level = rounds[-1].level
    return draw(_by_lead(rounds, "coverage"), [Mark(level, f"level {100 * level:g}%", "warn")])


def mase_plot(rounds: Sequence[Quality]) -> Plot | None:
    """MASE of a day's forecasts over time, of some leads; None before there are two rounds."""
    return draw(_by_lead(rounds, "mase"), [Mark(1.0, "repeating the day before", "warn")], zero=True)


def _by_lead(rounds: Sequence[Quality], name: str) -> list[Trace]:
    """One quantity over time of the shortest, a middle and the longest lead of the newest round."""
    leads = sorted({one.lead_seconds for one in rounds if one.ts == rounds[-1].ts})
    traces = []
    for colour, lead in enumerate(sorted({leads[0], leads[len(leads) // 2], leads[-1]}) if leads else (), 1):
        found = [(one.ts, getattr(one, name)) for one in rounds if one.lead_seconds == lead]
        if len(found) < 2:
            continue
        found = found[:: -(-len(found) // POINTS)]
        times = np.array([time for time, _ in found], np.int64)
        values = np.array([math.nan if value is None else value for _, value in found])
        text = f"{format_duration(lead)} ahead"
        traces.append(Trace(text, text, "psi", times, values, colour=colour))
    return traces


@dataclass(frozen=True)
class Bar:
    """A bin's row; widths are in percent of the longest bar of their column."""

    name: str
    baseline: float
    current: float
    contribution: float
    before: float
    after: float
    pushed: float


def bars(bins: Sequence[BinShare]) -> list[Bar]:
    """The two distributions side by side, and what each bin adds to the PSI."""
    widest = max((max(one.baseline, one.current) for one in bins), default=0.0) or 1.0
    most = max((abs(one.contribution) for one in bins), default=0.0) or 1.0
    return [
        Bar(
            one.name, one.baseline, one.current, one.contribution, round(100 * one.baseline / widest, 2),
            round(100 * one.current / widest, 2), round(100 * abs(one.contribution) / most, 2),
        )
        for one in bins
    ]  # fmt: skip
