"""Incidents: the list with its filters, one incident's page, and what people do about it."""

from collections import defaultdict
from urllib.parse import quote as quote_url
from urllib.parse import urlencode

from starlette.responses import Response

from sentinel_core.alerts.message import headline, seriousness, what_next
from sentinel_core.apps import commands
from sentinel_core.apps.login import own_path
from sentinel_core.apps.ui.charts import bars, psi_plot
from sentinel_core.apps.ui.model import OUTPUT_NAMES
from sentinel_core.apps.ui.pages import NO_TROUBLE, Trouble, Visit
from sentinel_core.incidents import store
from sentinel_core.incidents.findings import forecast_drift, silence, threshold_forecast
from sentinel_core.incidents.lifecycle import Incident, possible
from sentinel_core.monitoring.assessment import OUTPUTS, Assessment
from sentinel_core.pipeline import monitored
from sentinel_core.storage import model_store, watch_store

PAGE = 50
KINDS = {"psi": "change of outputs", "silence": "silence", "forecast": "forecast drift", "threshold": "threshold"}
DONE = {"acknowledge": "acknowledged", "resolve": "resolved", "close": "closed", "accept": "accepted"}
BEFORE_HOURS, AFTER_HOURS = 72, 24  # of the plot, around the incident
RECEIPTS = 500


def listing(visit: Visit) -> Response:
    """GET /incidents, filtered by `state`, `severity`, `kind` and `model`; `before` is the last id before it."""
    asked = visit.asked("state", "severity", "kind", "model", "before")
    kept = {name: text for name, text in asked.items() if text and name != "before"}
    states = ("open", "acknowledged") if asked["state"] == "active" else (asked["state"],) if asked["state"] else ()
    with visit.services.store.database.read() as connection:
        projects = {one.id: one.name for one in model_store.projects(connection) if visit.principal.sees(one.id)}
        names = {one.id: one.name for one in model_store.models(connection, visit.principal.project_id)}
        model_id = (
            next((key for key, name in names.items() if asked["model"] in (str(key), name)), 0)
            if asked["model"]
            else None
        )
        found = store.list_incidents(
            connection,
            visit.principal.project_id,
            states=states,  # type: ignore[arg-type]  # what is no state finds nothing
            severity=asked["severity"] or None,  # type: ignore[arg-type]
            kind=asked["kind"] or None,
            model_id=model_id,
            before=int(asked["before"]) if asked["before"].isdigit() and len(asked["before"]) < 10 else None,
            limit=PAGE + 1,
        )
    if model_id:
        asked["model"] = names[model_id]
    shown = found[:PAGE]
    return visit.render(
        "incidents.html",
        section="Incidents",
        live="#found",
        incidents=shown,
        older="/incidents?" + urlencode({**kept, "before": shown[-1].id}) if len(found) > PAGE else None,
        newest="/incidents?" + urlencode(kept) if asked["before"] else None,
        asked=asked,
        filtered=bool(kept),
        kinds=KINDS,
        projects=projects,
        headline=headline,
    )


def incident(visit: Visit, trouble: Trouble = NO_TROUBLE) -> Response:
    """GET /incidents/{incident_id}."""
    services, config = visit.services, visit.services.config()
    with services.store.database.read() as connection:
        found = store.get(connection, visit.number("incident_id"), visit.principal.project_id)
        timeline = store.timeline(connection, found.id)
        sent = store.deliveries(connection, incident_id=found.id, limit=RECEIPTS)
        project = model_store.project(connection, found.project_id)
        view = monitored.model(connection, config, None, found.model_id) if found.model_id else None
        slugs = {one: slug for slug, one in watch_store.watch_ids(connection).items()} if found.watch_id else {}
    plots = {}
    if view is not None and found.kind == "psi":
        hour = config.hour_seconds
        start, end = int(found.opened_at) - BEFORE_HOURS * hour, found.until_hour + AFTER_HOURS * hour
        for one in monitored.score_history(services.store, config, view.model.id, start, end):
            plots[OUTPUTS[one.output]] = psi_plot(one, view.settings, [found], visit.now)
    receipts = defaultdict(list)
    for delivery in reversed(sent):
        receipts[delivery.transition_id].append(delivery)
    assessment = Assessment.from_json(found.assessment) if found.kind == "psi" else None
    acknowledged = next((one.actor for one in reversed(timeline) if one.kind == "acknowledged"), None)
    return visit.render(
        "incident.html",
        trouble,
        section="Incidents",
        live="#state,#actions,#figures,#psi,#timeline",
        incident=found,
        headline=headline(found.kind, found.subject, found.assessment),
        seriousness=seriousness(found.kind, found.severity, found.assessment),
        next=what_next(found.kind, found.state, acknowledged, hour_seconds=config.hour_seconds),
        kind=KINDS[found.kind],
        project=project,
        view=view,
        about=_about(found, slugs),
        possible=possible(found),
        outputs=sorted(assessment.outputs, key=lambda one: -(one.adjusted or 0)) if assessment else (),
        silence=silence(found.assessment) if found.kind == "silence" else None,
        forecast=forecast_drift(found.assessment) if found.kind == "forecast" else None,
        threshold=threshold_forecast(found.assessment) if found.kind == "threshold" else None,
        bars=bars,
        plots=plots,
        timeline=list(reversed(timeline)),
        receipts=receipts,
        output_names=OUTPUT_NAMES,
    )


def _about(found: Incident, slugs: dict[int, str]) -> str | None:
    """The page of what the incident is about; None where that is gone."""
    if found.model_id is not None:
        return f"/models/{found.model_id}"
    slug = slugs.get(found.watch_id or 0)
    return f"/watches/{quote_url(slug)}" if slug else None


def act(visit: Visit) -> Response:
    """POST /incidents/{incident_id}/{action}, with a `reason`, and `back` to where it was asked."""
    incident_id, action = visit.number("incident_id"), visit.request.path_params["action"]
    reason = visit.form.get("reason", "").strip()

    def change() -> None:
        commands.change_incident(visit.services, visit.principal, incident_id, action, reason)

    back = visit.form.get("back", "")
    failed = visit.attempt(action, change, lambda trouble: incident(visit, trouble))
    return failed or visit.go(own_path(back).partition("?")[0] if back else f"/incidents/{incident_id}", DONE[action])


def resend(visit: Visit) -> Response:
    """POST /deliveries/{delivery_id}/resend: owe a dead alert once more."""
    commands.resend_delivery(visit.services, visit.principal, visit.number("delivery_id"))
    return visit.go(own_path(visit.form.get("back", "")).partition("?")[0], "resent")
