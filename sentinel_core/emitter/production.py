"""Models in production as /metrics shows them: their newest evaluation, what came of it, and how much waits.

Events are committed all day long, and each commit moves the store's change token. So what is cheap to ask is asked each
time, and the models are read again only where a drain, an evaluation or a person has changed something about them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from prometheus_client.metrics_core import Metric

from sentinel_core.incidents.lifecycle import OF_WATCHES
from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.storage import event_log, schema
from sentinel_core.storage.event_log import Backlog

# One value per model, labelled with project and model; what a model does not have yet has no sample.
PER_MODEL: Mapping[str, str] = {
    "sentinel_model_psi": "PSI of the model's worst output, of the newest evaluation.",
    "sentinel_model_psi_adjusted": "The same, less what chance alone makes of it: what the thresholds are for.",
    "sentinel_model_psi_lower": "Lower end of the 95 % interval of the true PSI.",
    "sentinel_model_psi_upper": "Upper end of the 95 % interval of the true PSI.",
    "sentinel_model_psi_limit": "Upper end of the PSI's normal range.",
    "sentinel_model_state": "Newest evaluation: 0 ok, 1 warning, 2 critical, 3 insufficient data, 4 no data.",
    "sentinel_model_severity": "Severity of the model's incidents that are not over: 0 none, 1 warn, 2 critical.",
    "sentinel_model_evaluated_timestamp_seconds": "End of the newest evaluated hour.",
    "sentinel_model_last_event_timestamp_seconds": "Time of the newest event that was drained.",
    "sentinel_model_enabled": "0 while the model is not evaluated.",
}
INCIDENTS, INCIDENTS_HELP = "sentinel_incidents", "Incidents, by what they are about, state and severity."
SEVERITIES = ("none", "warn", "critical")
UNFINISHED = ("open", "acknowledged")


@dataclass(frozen=True)
class ModelState:
    """One model; `assessment` is None before its first evaluation."""

    project: str
    name: str
    enabled: bool
    events: int  # drained
    last_event_at: int | None
    severity: str  # none | warn | critical: of its incidents that are open or acknowledged
    assessment: Assessment | None = None


@dataclass(frozen=True)
class Production:
    """Every model, and how many incidents there are by (project, kind, model or watch's slug, state, severity)."""

    models: tuple[ModelState, ...] = ()
    incidents: Mapping[tuple[str, str, str, str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Waiting:
    """What waits: events for their drain, alerts (by state: pending, dead) for their receivers."""

    backlog: Backlog = field(default_factory=lambda: Backlog(0, 0, None))
    deliveries: Mapping[str, int] = field(default_factory=dict)


class ProductionLoader:
    """Reads them; not thread-safe. The same object comes back until something has changed."""

    def __init__(self) -> None:
        self._key: Sequence[object] | None = None
        self._production = Production()
        self._assessed: dict[int, tuple[str, Assessment]] = {}

    def read(self, connection: sa.Connection) -> tuple[Production, Waiting]:
        """Return what stands in the store."""
        deliveries = schema.deliveries
        counts = sa.select(deliveries.c.state, sa.func.count().label("number")).where(
            deliveries.c.state.in_(("pending", "dead"))
        )
        owed = {row.state: row.number for row in connection.execute(counts.group_by(deliveries.c.state))}
        waiting = Waiting(event_log.backlog(connection), owed)
        if (key := self._what_changes(connection)) != self._key:
            self._production = self._read(connection)
            self._key = key
        return self._production, waiting

    def _what_changes(self, connection: sa.Connection) -> Sequence[object]:
        """Moves with every drain, evaluation, transition, and change of a model by hand."""
        models, projects = schema.monitored_models, schema.projects
        moved = connection.execute(
            sa.select(
                sa.select(sa.func.max(schema.monitor_progress.c.revision)).scalar_subquery(),
                sa.select(sa.func.max(schema.incident_transitions.c.id)).scalar_subquery(),
                sa.select(sa.func.count()).select_from(models).scalar_subquery(),
                sa.select(sa.func.sum(models.c.revision)).scalar_subquery(),
            )
        ).one()
        return *moved, *connection.execute(sa.select(projects.c.id, projects.c.name).order_by("id"))

    def _read(self, connection: sa.Connection) -> Production:
        incidents, severities = self._incidents(connection)
        models, projects, newest = schema.monitored_models, schema.projects, schema.monitor_states
        query = (
            sa.select(models, projects.c.name.label("project"), newest.c.assessment)
            .join(projects, projects.c.id == models.c.project_id)
            .outerjoin(newest, newest.c.model_id == models.c.id)
            .order_by(models.c.id)
        )
        states = []
        before, self._assessed = self._assessed, {}
        for row in connection.execute(query):
            known = before.get(row.id)
            if row.assessment is not None:
                if known is None or known[0] != row.assessment:
                    known = row.assessment, Assessment.from_json(row.assessment)
                self._assessed[row.id] = known
            states.append(
                ModelState(
                    row.project,
                    row.name,
                    row.enabled,
                    row.events,
                    row.last_event_at,
                    severities.get(row.id, "none"),
                    None if known is None else known[1],
                )
            )
        return Production(tuple(states), incidents)

    def _incidents(self, connection: sa.Connection) -> tuple[dict[tuple[str, str, str, str, str], int], dict[int, str]]:
        """How many there are, and the worst severity of each model's unfinished ones."""
        table, projects, watches = schema.incidents, schema.projects, schema.watches
        about = sa.func.coalesce(watches.c.slug, table.c.subject)  # a watch is called by its slug on /metrics
        columns = (projects.c.name, table.c.kind, about, table.c.state, table.c.severity, table.c.model_id)
        query = sa.select(*columns, sa.func.count()).join_from(table, projects)
        query = query.outerjoin(watches, watches.c.id == table.c.watch_id)
        counts: dict[tuple[str, str, str, str, str], int] = {}
        worst: dict[int, str] = {}
        for project, kind, subject, state, severity, model_id, count in connection.execute(query.group_by(*columns)):
            key = project, kind, subject, state, severity
            counts[key] = counts.get(key, 0) + count  # two models may have had one name, one after the other
            if model_id is not None and state in UNFINISHED:
                worst[model_id] = max(worst.get(model_id, "none"), severity, key=SEVERITIES.index)
        return counts, worst


def per_model(production: Production) -> Iterator[Metric]:
    """Every model's newest evaluation and events, and the incidents about models and watches."""
    gauges = {name: Metric(name, text, "gauge") for name, text in PER_MODEL.items()}
    events = Metric("sentinel_model_events", "Events drained, each counted once.", "counter")
    for model in production.models:
        labels = {"project": model.project, "model": model.name}
        events.add_sample("sentinel_model_events_total", labels, model.events)
        for name, value in zip(PER_MODEL, _values(model), strict=True):
            if value is not None:
                gauges[name].add_sample(name, labels, float(value))
    incidents = Metric(INCIDENTS, INCIDENTS_HELP, "gauge")
    for key, count in production.incidents.items():
        incidents.add_sample(INCIDENTS, incident_labels(*key), count)
    yield from (*gauges.values(), events, incidents)


def incident_labels(project: str, kind: str, subject: str, state: str, severity: str) -> dict[str, str]:
    """Labels of INCIDENTS; `subject` is the name of a model, or the slug of a watch."""
    about = {"project": project, "kind": kind, "watch" if kind in OF_WATCHES else "model": subject}
    return {**about, "state": state, "severity": severity}


def _values(model: ModelState) -> tuple[float | None, ...]:
    """The values of PER_MODEL, in its order."""
    found, severity = model.assessment, SEVERITIES.index(model.severity)
    state, hour = (None, None) if found is None else (found.state, found.hour)
    worst = None if found is None else found.worst
    psi = (None,) * 5 if worst is None else (worst.psi, worst.adjusted, worst.lower, worst.upper, worst.limit)
    return (*psi, state, severity, hour, model.last_event_at, model.enabled)


def waiting_metrics(waiting: Waiting) -> Iterator[Metric]:
    """How much of what was acknowledged waits for its drain, and which alerts are owed."""
    events = Metric("sentinel_event_log_events", "Acknowledged events that wait for their drain.", "gauge")
    events.add_sample(events.name, {}, waiting.backlog.events)
    oldest = Metric("sentinel_event_log_oldest_timestamp_seconds", "When the oldest of them was acknowledged.", "gauge")
    if waiting.backlog.oldest_at is not None:
        oldest.add_sample(oldest.name, {}, waiting.backlog.oldest_at)
    deliveries = Metric("sentinel_deliveries", "Alerts that are still owed (pending) or were given up (dead).", "gauge")
    for state in ("pending", "dead"):
        deliveries.add_sample(deliveries.name, {"state": state}, waiting.deliveries.get(state, 0))
    yield from (events, oldest, deliveries)
