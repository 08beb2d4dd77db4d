"""GET /: every model and every watch at a glance, worst first, under the incidents that are open.

One page reads the store a fixed number of times, however many models and watches there are.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote as quote_url
from urllib.parse import urlencode

import numpy as np
from starlette.responses import Response

from sentinel_core.alerts.message import headline
from sentinel_core.apps.ui.conditions import Condition, condition, counts, of_model, sentence
from sentinel_core.apps.ui.pages import Visit
from sentinel_core.apps.ui.plot import spark_height, sparkline
from sentinel_core.apps.ui.series import choose, curves
from sentinel_core.apps.ui.words import plural
from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.snapshot import WatchView
from sentinel_core.errors import StoreError
from sentinel_core.incidents import store as incidents
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.monitored import ModelView
from sentinel_core.storage import event_store, model_store, windows_store
from sentinel_core.storage.model_store import DEFAULT_PROJECT
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window

ROWS = 50
INCIDENTS = 8  # on this page; the others are a click away
SPARK_HOURS, SPARK_STEP_HOURS = 168, 3  # of PSI: a point is the highest of three


@dataclass(frozen=True)
class Gauge:
    """A bar between two thresholds: everything in percent of its width."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, low: float, high: float) -> "Gauge":
        """With some room above the higher threshold."""
        full = max(high * 1.25, value) or 1.0
        return cls(*(round(100 * one / full, 1) for one in (value, low, high)))


@dataclass(frozen=True)
class Row:
    """What the table shows of one model or watch; `view` is one or the other."""

    kind: str  # model | watch
    name: str
    href: str
    condition: Condition
    order: tuple[int, float, str]
    view: ModelView | WatchView
    gauge: Gauge | None


@dataclass(frozen=True)
class Spark:
    """A line without axes: SVG paths in a box of 140 x 34, perhaps with a threshold's height."""

    path: str
    forecast: str = ""
    level: float | None = None


def overview(visit: Visit) -> Response:
    """GET /, filtered by `find`, `kind`, `state` and `project`; `page` turns."""
    services, config, now = visit.services, visit.services.config(), visit.now
    asked = visit.asked("find", "kind", "state", "project", "page")
    served = services.live.served
    problem = served.problem
    watches = served.snapshot.watches if visit.principal.sees(DEFAULT_PROJECT) else ()
    try:
        with services.store.database.read() as connection:
            projects = [one for one in model_store.projects(connection) if visit.principal.sees(one.id)]
            names = {one.id: one.name for one in projects}
            scope = next((one.id for one in projects if one.name == asked["project"]), visit.principal.project_id)
            models = monitored.models(connection, config, scope)
            active = incidents.active(connection, scope)
    except StoreError as error:
        projects, names, models, active, problem = [], {}, [], [], problem or str(error)
    rows = sorted(
        [*(_of_model(one) for one in models), *(_of_watch(one, now) for one in watches)], key=lambda r: r.order
    )
    found = [row for row in rows if _matches(row, asked)]
    pages = max(1, -(-len(found) // ROWS))
    number = min(pages, max(1, _whole(asked["page"])))
    shown = found[(number - 1) * ROWS : number * ROWS]
    try:
        sparks = {**_psi_sparks(services.store, config, shown), **_watch_sparks(services.store, shown)}
    except StoreError as error:
        sparks, problem = {}, problem or str(error)
    active.sort(key=lambda one: (one.severity != "critical", one.state != "open", -one.opened_at))
    kept = {name: text for name, text in asked.items() if text and name != "page"}
    return visit.render(
        "overview.html",
        section="Overview",
        live="#summary,#incidents,#fleet",
        origin=config.public_url,
        problem=visit.unreadable(problem),
        summary=_summary(models, watches, now),
        worst=rows[0].condition if rows else None,
        incidents=active[:INCIDENTS],
        more=len(active) - INCIDENTS,
        headline=headline,
        rows=shown,
        sparks=sparks,
        names=names,
        projects=projects,
        asked=asked,
        filtered=bool(kept),
        states=dict.fromkeys(row.condition.name for row in rows),
        total=len(rows),
        found=len(found),
        page=number,
        pages=pages,
        turn=lambda to: "/?" + urlencode({**kept, "page": to}),
    )


def _summary(models: Sequence[ModelView], watches: Sequence[WatchView], now: float) -> list[str]:
    """The state of the whole product, in a sentence each for models and for watches."""
    parts = []
    if models:
        states = counts([of_model(one.model.enabled, one.state) for one in models])
        parts.append(f"{plural(len(models), 'model', 'models')} in production: {states}")
    if watches:
        parts.append(sentence(watches, now))
    return parts


def _of_model(view: ModelView) -> Row:
    worst = view.assessment.worst if view.assessment else None
    adjusted = worst.adjusted if worst else None
    how = of_model(view.model.enabled, view.state)
    return Row(
        kind="model",
        name=view.model.name,
        href=f"/models/{view.model.id}",
        condition=how,
        order=(how.rank, -(adjusted or 0.0), view.model.name),
        view=view,
        gauge=None if adjusted is None else Gauge.of(adjusted, view.settings.warn, view.settings.critical),
    )


def _of_watch(watch: WatchView, now: float) -> Row:
    how, config = condition(watch, now), watch.config
    return Row(
        kind="watch",
        name=config.selector,
        href=f"/watches/{quote_url(config.slug)}",
        condition=how,
        order=(how.rank, 0.0, config.selector),
        view=watch,
        gauge=drift_gauge(watch),
    )


def drift_gauge(watch: WatchView) -> Gauge | None:
    """Where the drift stands between its thresholds; None before there is a verdict."""
    if watch.state.drift_mae is None:
        return None
    config = watch.config
    return Gauge.of(watch.state.drift_mae, config.drift_finetune_threshold, config.drift_retrain_threshold)


def _matches(row: Row, asked: Mapping[str, str]) -> bool:
    if (asked["kind"] and row.kind != asked["kind"]) or (asked["state"] and row.condition.name != asked["state"]):
        return False
    if asked["project"] and isinstance(row.view, WatchView):
        return False
    texts = [row.name]
    if isinstance(row.view, WatchView):
        texts += [row.view.config.slug, row.view.config.model_path]
    return any(asked["find"].lower() in text.lower() for text in texts)


def _psi_sparks(store: Store, config: SentinelConfig, rows: Sequence[Row]) -> dict[str, Spark]:
    """The last week's PSI of the models among some rows, each its worst output; one reading for all of them."""
    views = {view.model.id: view for row in rows if isinstance(view := row.view, ModelView)}
    end = max((view.hour or 0 for view in views.values()), default=0)
    if not end:
        return {}
    start = end - SPARK_HOURS * config.hour_seconds
    psi = event_store.read_psi(store, config.hour_seconds, start, end, model_ids=set(views))
    sparks = {}
    for model_id, view in views.items():
        mine = psi["model"] == model_id
        stretch = (psi["ts"][mine] - start) // (SPARK_STEP_HOURS * config.hour_seconds)
        steps, at = np.unique(stretch, return_inverse=True)
        highest = np.full(len(steps), np.nan)
        np.fmax.at(highest, at, psi["adjusted"][mine])
        if np.isfinite(highest).any():
            top = max(1.5 * view.settings.warn, float(np.nanmax(highest)))
            path = sparkline(steps, highest, 0, SPARK_HOURS // SPARK_STEP_HOURS, 0.0, top)
            sparks[f"/models/{model_id}"] = Spark(path, level=spark_height(view.settings.warn, 0.0, top))
    return sparks


def _watch_sparks(store: Store, rows: Sequence[Row]) -> dict[str, Spark]:
    """Recent actuals and the forecast of one series of each watch among some rows; one reading per granularity."""
    wanted = defaultdict(list)
    for row in rows:
        if isinstance(row.view, WatchView) and (chosen := choose(row.view, "", most=1)):
            wanted[row.view.config.step_seconds].append((row, row.view, chosen))
    sparks = {}
    for step, some in wanted.items():
        fingerprints = sorted({one.series[0].fingerprint for _, _, one in some})
        window: Window = windows_store.read_window(
            store,
            step,
            np.array(fingerprints, np.int64),
            min(one.start for *_, one in some),
            max(one.end for *_, one in some),
        )
        for row, watch, chosen in some:
            (curve,) = curves(watch, chosen, window)
            values = np.concatenate([curve.actual, curve.mean])
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            low, high = float(values.min()), float(values.max())
            end = int(curve.ahead[-1]) if len(curve.ahead) else chosen.end
            span = (int(curve.times[0]) if len(curve.times) else chosen.start, end, low, high)
            sparks[row.href] = Spark(
                sparkline(curve.times, curve.actual, *span), sparkline(curve.ahead, curve.mean, *span)
            )
    return sparks


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
