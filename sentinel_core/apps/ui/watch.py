"""GET /watches/{slug}: actual, forecast and bounds, drift, and the versions of one watch's model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote as quote_url

import numpy as np
from starlette.responses import Response

from sentinel_core import registry
from sentinel_core.alerts.message import headline
from sentinel_core.apps.ui.charts import coverage_plot, drift_plot, forecast_plot, mase_plot
from sentinel_core.apps.ui.conditions import condition
from sentinel_core.apps.ui.overview import drift_gauge
from sentinel_core.apps.ui.pages import Visit
from sentinel_core.apps.ui.plot import Plot
from sentinel_core.apps.ui.series import Chosen, choose, curves
from sentinel_core.apps.ui.unusual import most_unusual
from sentinel_core.drift import rolling_mean
from sentinel_core.emitter.exposition import version_label
from sentinel_core.emitter.self_metrics import series_by_state
from sentinel_core.emitter.snapshot import WatchView
from sentinel_core.errors import NotFoundError, StoreError
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.findings import Reached
from sentinel_core.series import format_selector
from sentinel_core.storage import forecast_store, quality_store, series_models, windows_store
from sentinel_core.storage.model_store import DEFAULT_PROJECT
from sentinel_core.storage.quality_store import Quality
from sentinel_core.storage.store import Store
from sentinel_core.verification import least_coverage
from sentinel_core.windows import FloatArray

logger = logging.getLogger(__name__)

VERSIONS = 20
COMPARED = ("scaled", "mae", "naive", "seasonal")  # columns of `scores` that say what "auto" judges
QUALITY_SECONDS = 7 * 86_400  # of the plot of how good forecasts were


@dataclass(frozen=True)
class Drawn:
    """The plots of a watch, or why there are none."""

    forecast: Plot | None = None
    drift: Plot | None = None
    note: str = ""
    judged: str = ""  # what the drift is of


def watch(visit: Visit) -> Response:
    """GET /watches/{slug}; `series` picks what is drawn by any part of its labels."""
    slug = visit.request.path_params["slug"]
    served = visit.services.live.served
    view = next((one for one in served.snapshot.watches if one.config.slug == slug), None)
    if view is None or not visit.principal.sees(DEFAULT_PROJECT):
        raise NotFoundError(f"there is no watch {slug}")
    wanted = visit.asked("series")["series"]
    problem = served.problem
    try:
        drawn = _draw(visit.services.store, view, choose(view, wanted), wanted)
        unusual = most_unusual(visit.services.store, view)
        with visit.services.store.database.read() as connection:
            versions = registry.versions(connection, view.state.watch_id)
            recent = incidents.list_incidents(connection, watch_id=view.state.watch_id, limit=5)
            since, until = int(visit.now - QUALITY_SECONDS), int(visit.now)
            qualities = quality_store.history(connection, view.state.watch_id, since, until)
    except StoreError as error:
        drawn, unusual, versions, recent, qualities = Drawn(), [], [], [], []
        problem = problem or str(error)
    dagster = visit.pages.dagster(visit.request)
    return visit.render(
        "watch.html",
        live="#state,#forecast,#unusual,#drift,#quality,#versions",
        problem=visit.unreadable(problem),
        watch=view,
        config=view.config,
        state=view.state,
        condition=condition(view, visit.now),
        gauge=drift_gauge(view),
        likeliest=_likeliest(view),
        counts={kind: count for kind, count in series_by_state(view).items() if count},
        drawn=drawn,
        unusual=unusual,
        quality=[_told(one) for one in view.quality],
        coverage=coverage_plot(qualities),
        mase=mase_plot(qualities),
        wanted=wanted,
        versions=[(version_label(one.version), one) for one in versions[:VERSIONS]],
        serving=view.serving[0] if view.serving else None,
        incidents=recent,
        headline=headline,
        lineage=f"{dagster}/assets/model_versions?view=partitions&partition={quote_url(slug)}",
        runs=f"{dagster}/runs/",
    )


def _told(quality: Quality) -> tuple[Quality, bool]:
    """How good the forecasts of a lead were, and whether its bounds held too few actuals for chance to explain it."""
    least = least_coverage(quality.level, quality.samples, quality.series, quality.lead_seconds)
    return quality, quality.coverage < least


def _likeliest(view: WatchView) -> list[Reached]:
    """Of each threshold the series that is likeliest to get across; of equally likely ones the soonest."""
    found: dict[str, list[tuple[float, float, Reached]]] = {}
    for block in view.forecasts:
        for one in block.crossings:
            seconds = np.where(one.leads > 0, one.leads * float(block.step_seconds), np.inf)
            row = np.lexsort((seconds, -one.probability))[0]  # NaN comes last
            likely, soon = float(one.probability[row]), float(seconds[row])
            labels = format_selector("", block.series[row].labels)
            reached = Reached(labels, str(one.threshold), likely, int(soon) if np.isfinite(soon) else None)
            if np.isfinite(likely):
                found.setdefault(str(one.threshold), []).append((-likely, soon, reached))
    return [min(some, key=lambda one: one[:2])[2] for some in found.values()]


def _draw(store: Store, view: WatchView, chosen: Chosen | None, wanted: str) -> Drawn:
    if chosen is None:
        return Drawn(
            note=f"No series has {wanted} in its labels." if wanted else "The plot starts with the first samples."
        )
    config = view.config
    fingerprints = np.array(sorted(series.fingerprint for series in chosen.series), np.int64)
    actuals = windows_store.read_window(store, config.step_seconds, fingerprints, chosen.start, chosen.end)
    models: dict[int, str] = {}
    if len(view.models) > 1:
        with store.database.read() as connection:
            models = series_models.names(connection, view.state.watch_id, fingerprints.tolist())
    origin = max((block.origin for block in view.forecasts), default=chosen.end)
    try:
        forecast = forecast_plot(curves(view, chosen, actuals, models), origin)
        drift, said = _drift(store, view, chosen)
        return Drawn(forecast, drift, chosen.note if forecast else "", said)
    except Exception:  # what the page says besides is worth more than its plots
        logger.exception("the plots of %s cannot be drawn", config.slug)
        return Drawn(note="The plots cannot be drawn; the sidecar's log says why.")


def _drift(store: Store, view: WatchView, chosen: Chosen) -> tuple[Plot | None, str]:
    """The rolling error of the worst of the drawn series, over as many steps as the other plot shows, and in words."""
    config = view.config
    step, window = config.step_seconds, config.drift_window
    first = chosen.start - window * step
    fingerprints = np.array(sorted(series.fingerprint for series in chosen.series), np.int64)
    scores = forecast_store.read_scores(store, step, first, chosen.end, fingerprints=fingerprints)
    mine = scores["watch"] == view.state.watch_id
    at = np.searchsorted(fingerprints, scores["fp"][mine]), (scores["ts"][mine] - first) // step

    def over_time(column: str) -> FloatArray:
        errors = np.full((len(fingerprints), (chosen.end - first) // step + 1), np.nan)
        errors[at] = scores[column][mine]
        return errors

    errors = over_time("mae" if config.drift_unit == "mae" else "scaled")
    times, worst = [], []
    for last in range(window, errors.shape[1]):
        rolling, count = rolling_mean(errors[:, last - window + 1 : last + 1], np.full(len(fingerprints), window))
        if np.isfinite(rolling).any() and (count > 0).any():
            times.append(first + last * step)
            worst.append(float(np.nanmax(rolling)))
    if not times:
        return None, ""
    said = "of the series drawn above"
    if config.drift_unit == "auto":
        newest = {name: rolling_mean(over_time(name), np.full(len(fingerprints), window))[0] for name in COMPARED}
        said += compared(newest)
    return drift_plot(np.array(times, np.int64), np.array(worst), config), said


def compared(newest: Mapping[str, FloatArray]) -> str:
    """What "auto" judges, in words, of the series that is farthest beyond its training error; rolling means [n].

    >>> one = np.array([3.4])
    >>> compared({"scaled": one, "mae": one, "naive": one - 1, "seasonal": one + 1})
    '; at worst 3.4 times its usual error, worse than repeating the last value'
    """
    scaled = newest["scaled"]
    if not np.isfinite(scaled).any():
        return ""
    row = int(np.nanargmax(scaled))
    free = {"the last value": newest["naive"][row], "the day before": newest["seasonal"][row]}
    known = {name: error for name, error in free.items() if np.isfinite(error)}
    found = f"; at worst {scaled[row]:.2g} times its usual error"
    if not known:
        return found
    best = min(known, key=lambda name: known[name])
    return f"{found}, {'worse' if newest['mae'][row] > known[best] else 'better'} than repeating {best}"
