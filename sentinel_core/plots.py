"""Pictures for the places where one would rather look than read; matplotlib is imported only when one is drawn."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from sentinel_core.durations import format_duration
from sentinel_core.forecasts import Fitted, issue
from sentinel_core.windows import Window

if TYPE_CHECKING:  # the pipeline draws with this module
    from sentinel_core.pipeline.reports import BacktestReport, DriftReport, ModelScore

MAX_PANELS = 3
_ACTUAL, _FORECAST, _LOW, _HIGH = "#3b4252", "#0b84a5", "#d18700", "#c0392b"


def forecast_png(window: Window, fitted: Fitted, *, title: str) -> bytes:
    """Actual values of up to three series with the forecasts the fitted model makes of them, horizon after horizon.

    Every forecast sees only what lies before its origin; the parameters are the fitted ones. Returns a small PNG.
    """
    rows = np.flatnonzero(np.isin(window.fingerprints, fitted.model.fingerprints))[:MAX_PANELS]
    shown = window.rows(rows)
    own = fitted.take(shown.fingerprints)
    horizon, columns = own.model.horizon_steps, len(window.timestamps)
    bands = np.full((3, len(rows), columns), np.nan)
    for origin in range(max(horizon, columns // 4), columns - 1, horizon):
        seen = shown.columns(slice(max(0, origin + 1 - own.model.context_steps), origin + 1))
        forecast = issue(own, seen, horizon)
        span = min(horizon, columns - origin - 1)
        for band, values in zip(bands, (forecast.mean, forecast.lower, forecast.upper), strict=True):
            band[:, origin + 1 : origin + 1 + span] = values[:, :span]
    figure, axes = _canvas(max(1, len(rows)), title)
    times = _times(window)
    for row, axis in enumerate(axes[: len(rows)]):
        axis.fill_between(times, bands[1, row], bands[2, row], color=_FORECAST, alpha=0.18, linewidth=0)
        axis.plot(times, shown.values[row], color=_ACTUAL, linewidth=1, label="actual")
        axis.plot(times, bands[0, row], color=_FORECAST, linewidth=1, label=f"forecast, {own.model.horizon} ahead")
    axes[0].legend(loc="upper left", fontsize=7, frameon=False)
    return _png(figure)


def drift_png(report: "DriftReport") -> bytes:
    """Share of each watch's scored series at low and at high severity, worst first. Returns a small PNG."""
    worst = sorted(report.watches, key=lambda watch: (-watch.high, -watch.low))[:20]
    figure, (axis,) = _canvas(1, "drifting series by watch", height=0.6 + 0.25 * max(1, len(worst)))
    names = [watch.slug for watch in worst]
    high = np.array([watch.high / max(1, watch.scored) for watch in worst])
    low = np.array([watch.low / max(1, watch.scored) for watch in worst])
    axis.barh(names, high, color=_HIGH, label="high")
    axis.barh(names, low, left=high, color=_LOW, label="low")
    axis.set_xlim(0, 1)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.legend(loc="lower right", fontsize=7, frameon=False)
    return _png(figure)


def psi_png(scores: "Sequence[ModelScore]") -> bytes:
    """Adjusted PSI of some models, worst first, before the thresholds of each. Returns a small PNG."""
    figure, (axis,) = _canvas(1, "adjusted PSI by model", height=0.6 + 0.25 * max(1, len(scores)))
    names = [score.model for score in scores]
    colours = {"warning": _LOW, "critical": _HIGH}
    axis.barh(names, [score.adjusted for score in scores], color=[colours.get(one.state, _FORECAST) for one in scores])
    for limits, colour in (([one.warn for one in scores], _LOW), ([one.critical for one in scores], _HIGH)):
        axis.scatter(limits, names, marker="|", s=120, color=colour)
    axis.set_xlim(left=0)
    axis.invert_yaxis()
    return _png(figure)


def backtest_png(report: "BacktestReport") -> bytes:
    """Error and coverage of each model by lead, the best one first. Returns a small PNG."""
    figure, (error, held) = _canvas(2, f"{report.selector}: {report.origins} origins", height=2.6)
    shown = [one for one in report.standings if np.isfinite(one.overall)]
    for place, one in enumerate(shown):
        style = {"marker": ".", "linewidth": 2.2 if one.model == report.own else 1, "color": f"C{place}"}
        error.plot(report.leads, one.scores["mase"], label=_shortened(one.model), **style)
        held.plot(report.leads, one.scores["coverage"], **style)
    error.set_ylabel("MASE", fontsize=7)
    held.set_ylabel("inside the bounds", fontsize=7)
    held.axhline(report.level, color=_ACTUAL, linestyle="--", linewidth=1)
    held.yaxis.set_major_formatter("{x:.0%}")
    error.set_yscale("log")  # a ratio
    error.yaxis.set_major_formatter("{x:g}")
    error.yaxis.set_minor_formatter("{x:g}")
    error.tick_params(which="minor", labelsize=7)
    for axis in (error, held):
        axis.set_xscale("log")
        axis.set_xticks(report.reported, [format_duration(lead * report.step_seconds) for lead in report.reported])
        axis.set_xticks([], minor=True)
    if shown:
        error.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, frameon=False)
    return _png(figure)


def _shortened(text: str) -> str:
    return text if len(text) <= 36 else f"{text[:35]}…"


def _canvas(panels: int, title: str, height: float = 1.7) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: it keeps every figure alive in a process-wide registry

    figure = Figure(figsize=(7, 0.5 + height * panels), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    figure.suptitle(title, fontsize=9, parse_math=False)  # a selector may have dollars
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _times(window: Window) -> Sequence[datetime]:
    return [datetime.fromtimestamp(second, UTC) for second in window.timestamps.tolist()]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"optimize": True})
    return buffer.getvalue()
