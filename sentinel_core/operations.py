"""`sentinel monitor`, `deliver`, `models`, `incidents` and `receivers`: models in production from the command line.

The first two do by hand, or instead of Dagster, what its schedule and its sensor do; they may run beside it, and may be
killed at any time: what they did not finish is still owed.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentinel_core.administration import (
    Add,
    moment,
    open_backend,
    person,
    print_table,
    project_id_of,
    projects_of,
)
from sentinel_core.config import SentinelConfig
from sentinel_core.errors import InvalidError, NotFoundError, SentinelError, StoreError
from sentinel_core.sentinel import readable

if TYPE_CHECKING:
    from sentinel_core.alerts.dispatch import DeliveryReport
    from sentinel_core.alerts.receivers import ReceiverRow
    from sentinel_core.apps.services import Backend
    from sentinel_core.pipeline import Engine
    from sentinel_core.pipeline.reports import DrainReport, EvaluationReport
    from sentinel_core.storage.model_store import MonitoredModel

LOOK_SECONDS = 1.0  # how often --watch looks whether there is anything to do
WORST_FIRST = ("critical", "warning", "no_data", "insufficient_data", "ok")
KINDS = ("slack", "webhook", "alertmanager", "apprise")


def register(add: Add, group: Callable[[str, str], Add]) -> None:
    """Add the commands; `add` and `group` as in `administration.register`."""
    monitor = add("monitor", _monitor, "Drain the event log and evaluate every model in production that is due.")
    deliver = add("deliver", _deliver, "Send the alerts that are owed.")
    for one in (monitor, deliver):
        one.add_argument("--watch", action="store_true", help="go on until Ctrl-C, instead of once")

    models = group("models", "Models in production: what sends events to /v1/events.")
    listing = models("list", _list_models, "Show every model, the worst first.")
    listing.add_argument("--project", help="only its models")
    delete = models("delete", _delete_model, "Delete a model with everything that is stored of it.")
    delete.add_argument("model", help="its id, or its name")
    delete.add_argument("--project", help="where the name is another project's too")

    incidents = group("incidents", "What went wrong with models and forecasts.")
    shown = incidents("list", _list_incidents, "Show incidents, the newest first.")
    shown.add_argument("--project", help="only its incidents")
    shown.add_argument("--all", action="store_true", help="those that are over too")
    for name, action, text in (
        ("ack", "acknowledge", "Say that somebody looks after an incident; alerts go on."),
        ("resolve", "resolve", "Say that an incident is over; drift that lasts opens it again."),
        ("close", "close", "File an acknowledged or resolved incident."),
    ):
        acting = incidents(name, _act, text)
        acting.set_defaults(action=action)
        acting.add_argument("incident", type=int, help="its number")
        acting.add_argument("--reason", default="", help="for its timeline")

    receivers = group("receivers", "Where alerts are sent.")
    new = receivers("add", _add_receiver, "Add a receiver of alerts.")
    new.add_argument("name")
    new.add_argument("--kind", choices=KINDS, required=True)
    new.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="as url=https://…; a value that begins with @ is the file it is in, one with { or [ is JSON",
    )
    new.add_argument("--min-severity", choices=("warn", "critical"), default="warn")
    new.add_argument("--project", default="default")
    there = receivers("list", _list_receivers, "Show every receiver, without its secrets.")
    there.add_argument("--project", help="only its receivers")
    test = receivers("test", _test_receiver, "Send a test alert now.")
    remove = receivers("remove", _remove_receiver, "Remove a receiver, with what is still owed to it.")
    for one in (test, remove):
        one.add_argument("name")
        one.add_argument("--project", default="default")


# ---- work ------------------------------------------------------------------------------------------------------------


def _monitor(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    def once(engine: "Engine") -> str | None:
        if engine.monitoring_due() is None:
            return None
        drained, evaluated = engine.drain(), engine.evaluate()
        return "\n".join([_told_drain(drained), *_told_evaluation(evaluated)])

    return _work(config, arguments, once, "Nothing to do: no event waits, and no hour is due.")


def _deliver(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    def once(engine: "Engine") -> str | None:
        return _told_delivery(engine.deliver()) if engine.deliveries_due() else None

    return _work(config, arguments, once, "Nothing to do: no alert is owed.")


def _work(
    config: SentinelConfig, arguments: argparse.Namespace, once: Callable[["Engine"], str | None], idle: str
) -> int:
    """Do it once, or whenever there is anything to do; then a failure is said, and tried again."""
    from sentinel_core.pipeline import Engine

    with Engine.open(config) as engine:
        if not arguments.watch:
            print(once(engine) or idle)
            return 0
        while True:
            try:
                done = once(engine)
            except SentinelError as error:
                done = f"{error}; tried again"
            if done is not None:
                print(f"{datetime.now(UTC):%H:%M:%S} {done}", flush=True)
            time.sleep(LOOK_SECONDS)


def _told_drain(report: "DrainReport") -> str:
    new = f", new: {', '.join(report.new_models)}" if report.new_models else ""
    twice = f" ({report.duplicates} came twice)" if report.duplicates else ""
    return f"{report.events} events drained{twice}{new}"


def _told_evaluation(report: "EvaluationReport") -> Sequence[str]:
    states = ", ".join(f"{count} {state}" for state, count in report.states.items() if count) or "none yet"
    late = f", {report.late_evaluations} made again" if report.late_evaluations else ""
    lines = [f"{len(report.hours)} hours evaluated{late}; models: {states.replace('_', ' ')}"]
    lines += [f"  {change.model}: {change.kind}: {change.detail}" for change in report.changes]
    return lines + [f"  FAILED {model}: {error}" for model, error in report.failures.items()]


def _told_delivery(report: "DeliveryReport") -> str:
    counts = {"sent": report.delivered, "repeated": report.repeated, "failed": report.failed, "given up": report.dead}
    return "alerts: " + (", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none was due")


# ---- models ----------------------------------------------------------------------------------------------------------


def _list_models(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.pipeline import monitored

    with open_backend(config) as backend:
        names = projects_of(backend)
        only = project_id_of(backend, arguments.project) if arguments.project else None
        with backend.store.database.read() as connection:
            found = monitored.models(connection, config, only)
    rank = {state: place for place, state in enumerate(WORST_FIRST)}
    rows = []
    for view in sorted(found, key=lambda view: rank.get(view.state or "", len(rank))):
        worst = None if view.assessment is None else view.assessment.worst
        adjusted = "-" if worst is None or worst.adjusted is None else f"{worst.adjusted:.3f}"
        state = "not evaluated yet" if view.state is None else view.state.replace("_", " ")
        incident = "-" if view.incident_id is None else f"{view.incident_id} ({view.incident_severity})"
        model = view.model
        newest = moment(None if model.last_event_at is None else float(model.last_event_at))
        rows.append(
            [
                str(model.id),
                model.name,
                names[model.project_id],
                state if model.enabled else "disabled",
                adjusted,
                incident,
                str(model.events),
                newest,
            ]
        )
    return print_table(
        ["ID", "MODEL", "PROJECT", "STATE", "ADJUSTED PSI", "INCIDENT", "EVENTS", "NEWEST"],
        rows,
        "No model has sent events; `sentinel keys create NAME --scope ingest` makes the key that it needs.",
    )


def _delete_model(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        report = commands.delete_model(backend, person(), _find_model(backend, arguments.model, arguments.project).id)
    rows = sum(report.tables.values())
    print(f"{report.model} is deleted: {rows} rows of tables, {report.rows} rows of {report.segments} files")
    return 0


def _find_model(backend: "Backend", text: str, project: str | None) -> "MonitoredModel":
    from sentinel_core.storage import model_store

    only = project_id_of(backend, project) if project else None
    with backend.store.database.read() as connection:
        every = model_store.models(connection, only)
    found = [model for model in every if model.name == text] or [model for model in every if str(model.id) == text]
    if not found:
        raise NotFoundError(f"there is no model {text}; `sentinel models list` shows what there is")
    if len(found) > 1:
        raise InvalidError({"model": f"{len(found)} projects have a {text}; add --project, or name it by id"})
    return found[0]


# ---- incidents -------------------------------------------------------------------------------------------------------


def _list_incidents(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.alerts.message import headline
    from sentinel_core.incidents import store

    with open_backend(config) as backend:
        names = projects_of(backend)
        only = project_id_of(backend, arguments.project) if arguments.project else None
        with backend.store.database.read() as connection:
            found = store.list_incidents(connection, only, states=() if arguments.all else ("open", "acknowledged"))
    return print_table(
        ["ID", "STATE", "SEVERITY", "PROJECT", "OPENED", "WHAT"],
        [
            (
                str(one.id),
                one.state,
                one.severity,
                names[one.project_id],
                moment(one.opened_at),
                headline(one.kind, one.subject, one.assessment),
            )
            for one in found
        ],
        "There is no incident." if arguments.all else "No incident is open; --all shows those that are over.",
    )


def _act(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands
    from sentinel_core.incidents import store

    with open_backend(config) as backend:
        commands.change_incident(backend, person(), arguments.incident, arguments.action, arguments.reason)
        with backend.store.database.read() as connection:
            incident = store.get(connection, arguments.incident)
    print(f"incident {incident.id} ({incident.subject}) is {incident.state}")
    return 0


# ---- receivers -------------------------------------------------------------------------------------------------------


def _add_receiver(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    settings = dict(_setting(text) for text in arguments.set)
    with open_backend(config) as backend:
        project_id = project_id_of(backend, arguments.project)
        least = arguments.min_severity
        commands.create_receiver(
            backend, person(), project_id, arguments.name, arguments.kind, settings, min_severity=least
        )
    print(f"{arguments.name} is told from severity {least} on; `sentinel receivers test {arguments.name}` tries it")
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """A setting as people type it.

    >>> _setting('labels={"team": "risk"}'), _setting("url=https://example.org/?a=b")
    (('labels', {'team': 'risk'}), ('url', 'https://example.org/?a=b'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidError({"--set": f"{text!r} is not NAME=VALUE"})
    if value.startswith("@"):
        value = Path(value[1:]).read_text(encoding="utf-8").strip()
    try:
        return name, json.loads(value) if value.startswith(("{", "[")) else value
    except json.JSONDecodeError as error:
        raise InvalidError({name: f"is not valid JSON: {error}"}) from None


def _list_receivers(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.alerts import receivers

    with open_backend(config) as backend:
        names = projects_of(backend)
        only = project_id_of(backend, arguments.project) if arguments.project else None
        with backend.store.database.read() as connection:
            found = receivers.list_receivers(connection, only)
    return print_table(
        ["NAME", "KIND", "PROJECT", "FROM", "ENABLED", "SETTINGS"],
        [
            (
                one.name,
                one.kind,
                names[one.project_id],
                one.min_severity,
                "yes" if one.enabled else "no",
                json.dumps(receivers.shown(one.kind, one.settings)),
            )
            for one in found
        ],
        "Nobody is told of incidents; `sentinel receivers add NAME --kind …` adds somebody.",
    )


def count_receivers(config: SentinelConfig) -> int:
    """How many receivers are told of anything; 0 where there is no store yet. Leaves everything as it is."""
    from sentinel_core.alerts import receivers
    from sentinel_core.storage.store import Store

    with readable(config) as found, Store.open(found.resolved_sql_url, found.resolved_data_url) as store:
        try:
            store.database.require_schema()
        except StoreError:
            return 0
        with store.database.read() as connection:
            return sum(one.enabled for one in receivers.list_receivers(connection))


def _test_receiver(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        outcome = commands.test_receiver(backend, person(), _find_receiver(backend, arguments).id)
    print(f"{arguments.name} {'took it' if outcome.delivered else 'did not take it'}: {outcome.detail}")
    return 0 if outcome.delivered else 1


def _remove_receiver(config: SentinelConfig, arguments: argparse.Namespace) -> int:
    from sentinel_core.apps import commands

    with open_backend(config) as backend:
        commands.remove_receiver(backend, person(), _find_receiver(backend, arguments).id)
    print(f"{arguments.name} is removed")
    return 0


def _find_receiver(backend: "Backend", arguments: argparse.Namespace) -> "ReceiverRow":
    from sentinel_core.alerts import receivers

    project_id = project_id_of(backend, arguments.project)
    with backend.store.database.read() as connection:
        return receivers.named(connection, project_id, arguments.name)
