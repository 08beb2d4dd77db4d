"""Every model is compared with its past once an hour; what that means for incidents commits with it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from sentinel_core.durations import parse_duration
from sentinel_core.errors import ConfigError
from sentinel_core.incidents import store as incidents
from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.pipeline import consequences
from sentinel_core.pipeline.baselining import Made, make, requests_due
from sentinel_core.pipeline.consequences import Consequence
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.pipeline.forecast_incidents import follow_watches
from sentinel_core.pipeline.judging import Ground, ground
from sentinel_core.pipeline.replaying import make_late_again, replay
from sentinel_core.pipeline.reports import EvaluationReport, HourReport, ModelChange, ModelScore, MonitorPlan
from sentinel_core.pipeline.windowing import DAY_HOURS, freeze, judge, psi_rows, stored_sums
from sentinel_core.storage import event_log, event_store, model_store
from sentinel_core.storage.event_store import LIVE, REPLAY
from sentinel_core.storage.model_store import MonitoredModel, Progress, StateRow

SETTLE_SECONDS = 60.0  # after an hour's end: its last events are on their way; half an hour at most
CATCH_UP_HOURS = 7 * DAY_HOURS  # missed hours before these are left out
DRAIN_AFTER_SECONDS, DRAIN_EVENTS = 5.0, 100_000  # the log is drained when its oldest row, or it itself, is so much
CHUNK = 10_000  # models of one transaction
# What was evaluated so far ahead of the clock was evaluated while that was wrong; less is waited for.
AHEAD_SECONDS = 3_600
WORST = 20  # models that a report names


def due(context: Context, now: float | None = None) -> MonitorPlan | None:
    """What there is to do: events to drain, complete hours to evaluate, late hours to make again; None for nothing."""
    now = context.clock() if now is None else now
    with context.store.database.read() as conn:
        backlog = event_log.backlog(conn)
        progress = model_store.progress(conn)
        late = model_store.has_late_hours(conn)
        first = model_store.first_event(conn)
        lasts = first is None and incidents.active(conn)  # of a watch: it ends where none is configured any more, too
    waits = backlog.oldest_at is not None and now - backlog.oldest_at >= DRAIN_AFTER_SECONDS
    drain = waits or backlog.events >= DRAIN_EVENTS
    hours: Sequence[int] = ()
    if first is not None or lasts or (context.config.forecast_incidents and context.config.watches):
        hours = _hours(context, progress, first, now)
    if not (drain or hours or late):
        return None
    return MonitorPlan(drain, hours[0] if hours else None, hours[-1] if hours else None, late)


def _hours(context: Context, progress: Progress, first_event: int | None, now: float) -> range:
    """Ends of the complete hours that nobody has evaluated, oldest first."""
    step = context.config.hour_seconds
    newest = _newest_end(context, now)
    if _ahead(progress, newest, step):
        start = newest
    elif progress.evaluated_until is not None:
        start = progress.evaluated_until // step * step + step
    elif first_event is not None:
        start = first_event // step * step + step
    else:
        start = newest
    return range(max(start, newest - (CATCH_UP_HOURS - 1) * step), newest + 1, step)


def _newest_end(context: Context, now: float) -> int:
    """End of the newest complete hour."""
    step = context.config.hour_seconds
    return int((now - min(SETTLE_SECONDS, step / 2)) // step) * step


def _ahead(progress: Progress, newest: int, step: int) -> bool:
    """Whether hours were evaluated that are yet to come: the clock was wrong for a while."""
    return progress.evaluated_until is not None and progress.evaluated_until > newest + max(step, AHEAD_SECONDS)


def _set_back(context: Context) -> None:
    """Go on from the present hour where a wrong clock has left everything evaluated up to some time to come."""
    step, newest = context.config.hour_seconds, _newest_end(context, context.clock())
    with context.store.database.read() as conn:
        progress = model_store.progress(conn)
    if _ahead(progress, newest, step):
        with context.store.database.write() as conn:
            model_store.advance(conn, progress, newest - step)
            model_store.set_back(conn, newest - step)
            incidents.set_back(conn, newest - step)


@dataclass
class _Told:
    """What there is to report of one hour."""

    states: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    baselines: int = 0
    changes: list[ModelChange] = field(default_factory=list)
    found: list[tuple[MonitoredModel, Assessment]] = field(default_factory=list)


def evaluate(
    context: Context, start: int | None = None, end: int | None = None, *, mode: str = "live"
) -> EvaluationReport:
    """Evaluate hours, oldest first; `start` and `end` are ends of hours, unix seconds, inclusive.

    mode="live": every complete hour that was not evaluated yet (at most 7 * 24 back, up to `end`), with what follows:
    states, incidents, alerts; and hours that late events touched are made again.
    mode="replay": the hours that end in [start, end] once more, over the baselines of then. Nothing but PSI is written.
    """
    if mode == "replay":
        if start is None or end is None:
            raise ConfigError(["mode: a replay needs start and end, unix seconds"])
        return _replayed(context, start, end)
    _set_back(context)
    with context.store.database.read() as conn:
        progress = model_store.progress(conn)
        first = model_store.first_event(conn)
    hours = _hours(context, progress, first, context.clock())
    wanted = [hour for hour in hours if end is None or hour <= end]
    reports: list[HourReport] = []
    changes: list[ModelChange] = []
    told = _Told()
    for hour in wanted:
        told = _Told()
        persistently(partial(_hour, context, hour, told))
        counts = dict(told.states), told.baselines, dict(told.steps)
        reports.append(HourReport(hour, told.states.total(), *counts))
        changes += told.changes
    again = make_late_again(context)
    if wanted:
        follow_watches(context, wanted[-1])
    with context.store.database.write() as conn:
        context.count("sentinel_evaluations_total", sum(one.models for one in reports))
        context.count("sentinel_late_evaluations_total", again)
        context.flush(conn)
    with context.store.database.read() as conn:
        newest = told.found if wanted else _newest(conn)
        projects = model_store.project_names(conn)
    return EvaluationReport(
        hours=tuple(reports),
        late_evaluations=again,
        behind=len(hours) - len(wanted),
        changes=tuple(changes),
        states=_tally(newest),
        worst=_worst(context, newest, projects),
    )


def _replayed(context: Context, start: int, end: int) -> EvaluationReport:
    step = context.config.hour_seconds
    hours = range(-(-start // step) * step, end + 1, step)
    by_hour: dict[int, Counter[str]] = {hour: Counter() for hour in hours}
    newest: dict[int, tuple[MonitoredModel, Assessment]] = {}
    for hour, evaluated in replay(context, hours, REPLAY):
        for one in evaluated:
            by_hour[hour][one.assessment.state.name.lower()] += 1
            newest[one.judged.model.id] = one.judged.model, one.assessment
    with context.store.database.read() as conn:
        projects = model_store.project_names(conn)
    return EvaluationReport(
        hours=tuple(HourReport(hour, states.total(), dict(states), 0, {}) for hour, states in by_hour.items()),
        mode="replay",
        states=_tally(newest.values()),
        worst=_worst(context, newest.values(), projects),
    )


# ---- an hour as it comes ---------------------------------------------------------------------------------------------


def _hour(context: Context, hour: int, told: _Told) -> None:
    """Make the baselines that are due and evaluate every model at the end of an hour, with all that follows.

    Models come by the chunk; one that was evaluated before an interruption is not evaluated again.
    """
    with context.store.database.read() as conn:
        done = model_store.evaluated_hours(conn)
        models = [one for one in model_store.models(conn) if one.enabled and done.get(one.id, -1) < hour]
    for start in range(0, max(1, len(models)), CHUNK):
        _chunk(context, models[start : start + CHUNK], hour, start + CHUNK >= len(models), told)


def _chunk(context: Context, models: Sequence[MonitoredModel], hour: int, last: bool, told: _Told) -> None:
    store, hour_seconds, now = context.store, context.config.hour_seconds, context.clock()
    standing, progress, made = _with_baselines(context, models, hour)
    told.baselines += len(made)
    sums = stored_sums(store, standing.judged, hour, hour_seconds)
    evaluated = judge(standing.judged, sums, hour, hour_seconds, standing.texts)
    assessments = {one.judged.model.id: one.assessment for one in evaluated}
    nothing = Assessment(State.INSUFFICIENT_DATA, hour, None, False, False, False, ())
    found = [(one, assessments.get(one.id, nothing)) for one in standing.models]
    rows = [StateRow(one.id, hour, said.state.name.lower(), said.to_json()) for one, said in found]
    pending = event_store.write_psi(store, hour_seconds, psi_rows(evaluated, hour, LIVE), now)
    with store.database.read() as conn:
        current = incidents.current(conn, hour, hour_seconds=hour_seconds)
        projects = model_store.project_names(conn)
    kept = freeze(store, consequences.opening(evaluated, current), hour, hour_seconds)
    with store.database.write() as conn:
        model_store.advance(conn, progress, hour if last else None)
        store.segments.commit(conn, [pending])
        model_store.put_states(conn, rows)
        written = consequences.follow(conn, evaluated, current, kept, hour, hour_seconds, now)
    told.found += found
    told.states.update(_tally(found))
    told.steps.update(one.step for one in written)
    names = {one.id: one.full_name(projects) for one in standing.models}
    told.changes += [_new_baseline(one, names[one.model.id], hour) for one in made]
    told.changes += [_change(one, names[one.incident.model_id or 0], hour) for one in written]


def _with_baselines(
    context: Context, models: Sequence[MonitoredModel], hour: int
) -> tuple[Ground, Progress, list[Made]]:
    """What models are judged with, once the versions that are due have been made."""
    config, ids = context.config, {one.id for one in models}
    with context.store.database.read() as conn:
        progress = model_store.progress(conn)
        standing = ground(conn, config, models)
        troubled = {one.model_id for one in incidents.active(conn) if one.kind == "psi" and one.model_id is not None}
    oldest = int(context.clock()) - parse_duration(config.event_retention)
    requests = requests_due(models, standing.settings, standing.judged, troubled, hour, config.hour_seconds, oldest)
    if not requests:
        return standing, progress, []
    progress, made = make(context, progress, requests, hour)
    with context.store.database.read() as conn:
        models = [one for one in model_store.models(conn) if one.id in ids]
        return ground(conn, config, models), progress, made


# ---- what is reported ------------------------------------------------------------------------------------------------


def _newest(conn: sa.Connection) -> list[tuple[MonitoredModel, Assessment]]:
    """Enabled models with the newest evaluation that they have."""
    states = model_store.states(conn)
    models = [one for one in model_store.models(conn) if one.enabled and one.id in states]
    return [(one, Assessment.from_json(states[one.id].assessment)) for one in models]


def _tally(found: Iterable[tuple[MonitoredModel, Assessment]]) -> dict[str, int]:
    return dict(Counter(assessment.state.name.lower() for _, assessment in found))


def _worst(
    context: Context, found: Iterable[tuple[MonitoredModel, Assessment]], projects: Mapping[int, str]
) -> tuple[ModelScore, ...]:
    scores = []
    for model, assessment in found:
        worst = assessment.worst
        if worst is not None and worst.psi is not None and worst.adjusted is not None:
            settings = model.monitor_config(context.config.monitoring)
            name, state = model.full_name(projects), assessment.state.name.lower()
            scores.append(ModelScore(name, state, worst.psi, worst.adjusted, settings.warn, settings.critical))
    return tuple(sorted(scores, key=lambda one: -one.adjusted)[:WORST])


def _new_baseline(made: Made, model: str, hour: int) -> ModelChange:
    detail = f"baseline version {made.row.version}: {made.row.reason}"
    return ModelChange(model, "baseline", detail, hour, made.row.version)


def _change(consequence: Consequence, model: str, hour: int) -> ModelChange:
    incident = consequence.incident
    return ModelChange(
        model, consequence.step, consequence.reason, hour, incident.baseline_version, incident.id, incident.severity
    )
