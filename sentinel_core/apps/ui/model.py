"""GET /models/{id} and what people change there: baseline, settings, monitoring on and off, deletion."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from starlette.responses import Response

from sentinel_core.alerts.message import headline
from sentinel_core.apps import commands
from sentinel_core.apps.ui.charts import activity_plot, bars, psi_plot
from sentinel_core.apps.ui.conditions import of_model
from sentinel_core.apps.ui.pages import NO_TROUBLE, Trouble, Visit
from sentinel_core.apps.ui.words import parse_moment
from sentinel_core.config import MonitorConfig
from sentinel_core.durations import format_duration
from sentinel_core.errors import InvalidError, NotFoundError
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.lifecycle import Incident
from sentinel_core.monitoring.assessment import OUTPUTS
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.monitored import ModelView
from sentinel_core.storage import model_store

SPANS = (24, 168, 720, 2160)  # hours of the plots
OUTPUT_NAMES = {"score": "Scores", "number": "Predictions that are numbers", "label": "Predictions that are labels"}
FIELDS = {  # of MonitorConfig: what people call them, and what they should know
    "warn": ("Warning from PSI", "less what chance brings"),
    "critical": ("Critical from PSI", ""),
    "resolve": ("Resolves below PSI", "three evaluations in a row"),
    "min_samples": ("Least events", "with fewer there is no verdict"),
    "current_hours": ("Current window, hours", "divides a day, or is whole days"),
    "max_current_days": ("Window grows to, days", "where it holds too few events"),
    "baseline": ("Baseline", ""),
    "baseline_weeks": ("Weeks of the baseline", "for the same weekdays"),
    "baseline_days": ("Days of the baseline", "for the days before"),
    "bins": ("Bins", "of scores and numbers"),
    "silence": ("Silence", ""),
}
CHOICES = {
    "baseline": {"same_weekday": "the same weekdays of the weeks before", "preceding": "the days just before"},
    "silence": {"yes": "is an incident", "no": "is none"},
}


def find(visit: Visit) -> ModelView:
    """The model that the path names, if they may see it."""
    model_id = visit.number("model_id")
    with visit.services.store.database.read() as connection:
        view = monitored.model(connection, visit.services.config(), visit.principal.project_id, model_id)
    if view is None:
        raise NotFoundError(f"there is no model {model_id}")
    return view


def model(visit: Visit, trouble: Trouble = NO_TROUBLE) -> Response:
    """GET /models/{model_id}; `span` is a number of hours."""
    view, config, store = find(visit), visit.services.config(), visit.services.store
    hour, model_id = config.hour_seconds, view.model.id
    asked = visit.asked("span")["span"]
    span = int(asked) if asked in map(str, SPANS) else SPANS[1]
    end = (int(visit.now) // hour + 1) * hour
    start = end - span * hour
    with store.database.read() as connection:
        versions = monitored.baselines(connection, model_id)
        recent = incidents.list_incidents(connection, model_id=model_id, limit=5)
        project = model_store.project(connection, view.model.project_id)
    history = monitored.score_history(store, config, model_id, start, end)
    outputs = view.assessment.outputs if view.assessment else ()
    plots = {OUTPUTS[one.output]: psi_plot(one, view.settings, _of_drift(recent), visit.now) for one in history}
    activity = monitored.activity(store, config, model_id, start, end)
    return visit.render(
        "model.html",
        trouble,
        live="#state,#psi,#shapes,#activity,#recent",
        view=view,
        model=view.model,
        condition=of_model(view.model.enabled, view.state),
        project=project,
        outputs=outputs,
        plots=plots,
        bars=bars,
        activity=activity,
        activity_plot=activity_plot(activity, hour),
        versions=versions,
        incidents=recent,
        headline=headline,
        span=span,
        spans=[(hours, format_duration(hours * hour)) for hours in SPANS],
        output_names=OUTPUT_NAMES,
        fields=[_field(view, config.monitoring, name) for name in FIELDS],
        hour=hour,
        day_start=end - 8 * 24 * hour,
        day_end=end - 24 * hour,
    )


def _of_drift(recent: list[Incident]) -> list[Incident]:
    return [one for one in recent if one.kind == "psi"]


def _field(view: ModelView, defaults: MonitorConfig, name: str) -> dict[str, Any]:
    """What the settings' form shows of one field."""
    label, hint = FIELDS[name]
    own, default = view.model.settings.get(name), _shown(getattr(defaults, name))
    choices = CHOICES.get(name)
    given = choices[default] if choices else default
    options = [("", f"as configured: {given}"), *choices.items()] if choices else []
    value = "" if own is None else _shown(own)
    return {"name": name, "label": label, "hint": hint, "value": value, "default": default, "options": options}


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


def save_settings(visit: Visit) -> Response:
    """POST /models/{model_id}/settings: an empty field is the configuration's."""
    model_id = visit.number("model_id")

    def change() -> None:
        revision = int(visit.form["revision"]) if visit.form.get("revision", "").isdigit() else None
        settings = _parsed(visit.form)
        commands.change_settings(visit.services, visit.principal, model_id, settings, merge=False, revision=revision)

    failed = visit.attempt("settings", change, lambda trouble: model(visit, trouble))
    return failed or visit.go(f"/models/{model_id}", "saved")


def _parsed(form: Mapping[str, str]) -> dict[str, Any]:
    """The settings that were typed; InvalidError for what is no number."""
    settings: dict[str, Any] = {}
    problems = {}
    for one in fields(MonitorConfig):
        text = form.get(one.name, "").strip()
        if not text:
            continue
        kind: Callable[[str], Any] = type(getattr(MonitorConfig(), one.name))
        try:
            settings[one.name] = text == "yes" if kind is bool else kind(text)
        except ValueError:
            problems[one.name] = "is not a whole number" if kind is int else "is not a number"
    if problems:
        raise InvalidError(problems)
    return settings


def enable(visit: Visit) -> Response:
    """POST /models/{model_id}/enabled, with `enabled` yes or no."""
    model_id, enabled = visit.number("model_id"), visit.form.get("enabled") == "yes"
    commands.enable_model(visit.services, visit.principal, model_id, enabled)
    return visit.go(f"/models/{model_id}", "enabled" if enabled else "disabled")


def change_baseline(visit: Visit) -> Response:
    """POST /models/{model_id}/baseline, with `do` pin (`start` to `end`), unpin or accept, and a `reason`."""
    model_id, do = visit.number("model_id"), visit.form.get("do", "")
    reason = visit.form.get("reason", "").strip()

    def change() -> None:
        if do == "unpin":
            commands.unpin_baseline(visit.services, visit.principal, model_id, reason)
        elif do == "accept":
            commands.accept_as_new_normal(visit.services, visit.principal, model_id, reason)
        else:
            times = {name: parse_moment(visit.form.get(name, "")) for name in ("start", "end")}
            start, end = times["start"], times["end"]
            if start is None or end is None:
                raise InvalidError({name: "is not a date and a time" for name, at in times.items() if at is None})
            commands.pin_baseline(visit.services, visit.principal, model_id, start, end, reason)

    done = {"unpin": "changed", "accept": "accepted"}.get(do, "pinned")
    failed = visit.attempt(do or "pin", change, lambda trouble: model(visit, trouble))
    return failed or visit.go(f"/models/{model_id}", done)


def ask_deletion(visit: Visit) -> Response:
    """GET /models/{model_id}/delete: what would be deleted."""
    view = find(visit)
    with visit.services.store.database.read() as connection:
        versions = monitored.baselines(connection, view.model.id)
        found = incidents.list_incidents(connection, model_id=view.model.id, limit=1000)
    return visit.render("delete_model.html", model=view.model, versions=len(versions), incidents=len(found))


def delete(visit: Visit) -> Response:
    """POST /models/{model_id}/delete."""
    commands.delete_model(visit.services, visit.principal, visit.number("model_id"))
    return visit.go("/", "deleted")
