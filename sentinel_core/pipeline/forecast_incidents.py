"""Forecasts that stay far off although the model was trained anew become an incident of the watch."""

import sqlalchemy as sa

from sentinel_core import registry
from sentinel_core.actions import DRIFT, LONGEST_COOLDOWN_FACTOR, LONGEST_WAIT_SECONDS, RETRAIN
from sentinel_core.config import WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.findings import ForecastDrift
from sentinel_core.incidents.lifecycle import Condition, Incident, Subject
from sentinel_core.pipeline.consequences import Consequence, step
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import schema, watch_store
from sentinel_core.storage.model_store import DEFAULT_PROJECT
from sentinel_core.storage.watch_store import WatchState


def follow_watches(context: Context, hour: int) -> list[Consequence]:
    """Open, go on with and resolve the incidents of watches, as of the end of an hour."""
    hour_seconds, now = context.config.hour_seconds, context.clock()
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        newest = incidents.current(conn, hour, hour_seconds=hour_seconds)
        retrained = _retrained(conn)
        serving = registry.active_versions(conn)
    watches = {watch.slug: watch for watch in context.config.watches}
    current = {key: one for key, one in newest.items() if one.kind == "forecast"}
    due: list[tuple[Subject, Incident | None, Condition]] = []
    for slug, state in states.items():
        watch = watches.get(slug)
        subject = Subject(DEFAULT_PROJECT, "forecast", slug, watch_id=state.watch_id)
        incident = current.pop(subject.key, None)
        lasting = incident is not None and incident.active
        if watch is None or not (lasting or (context.config.forecast_incidents and state.severity == "high")):
            continue
        trained = retrained.get(state.watch_id)
        if lasting or _uncured(watch, state, trained, now):
            found = _finding(watch, state, trained, serving.get(state.watch_id))
            due.append((subject, incident, _condition(found, context.config.forecast_incidents, hour, hour_seconds)))
    # a watch that is gone has nothing left that could be wrong
    gone = "the watch is no longer configured"
    due += [(one, one, _over(one, hour, gone)) for one in current.values() if one.active]
    for one in newest.values():
        watch = watches.get(one.subject)
        if one.kind == "threshold" and one.active and (watch is None or not watch.thresholds):
            due.append((one, one, _over(one, hour, gone if watch is None else "the watch has no thresholds any more")))
    if not due:
        return []
    with context.store.database.write() as conn:
        steps = [step(conn, subject, incident, condition, now, hour_seconds) for subject, incident, condition in due]
    return [one for one in steps if one is not None]


def _retrained(conn: sa.Connection) -> dict[int, float]:
    """When a training on high drift last ended, by watch id."""
    table = schema.actions
    newest = sa.select(table.c.watch_id, sa.func.max(table.c.finished_at)).where(
        table.c.cause == DRIFT, table.c.kind == RETRAIN, table.c.finished_at.is_not(None)
    )
    return {row[0]: row[1] for row in conn.execute(newest.group_by(table.c.watch_id))}


def _uncured(watch: WatchConfig, state: WatchState, retrained: float | None, now: float) -> bool:
    """Whether a training on this drift is over, and everything that is judged was forecast after it.

    While drift lasts a watch is retrained again after its longest rest at the latest: an older training was on another.
    """
    if retrained is None or state.scored_until is None:
        return False
    refilled = retrained + (watch.drift_window + watch.horizon_steps) * watch.step_seconds
    rest = LONGEST_COOLDOWN_FACTOR * parse_duration(watch.drift_cooldown) + LONGEST_WAIT_SECONDS
    return state.scored_until >= refilled and now <= refilled + rest


def _finding(watch: WatchConfig, state: WatchState, retrained: float | None, version: int | None) -> ForecastDrift:
    return ForecastDrift(
        severity=state.severity or "none",  # type: ignore[arg-type]  # none | low | high, as drift writes it
        mae=state.drift_mae,
        threshold=watch.drift_retrain_threshold,
        unit=watch.drift_unit,  # type: ignore[arg-type]  # validated
        series_high=state.drift_high,
        series_scored=state.drift_scored,
        retrained_at=retrained,
        version=version,
    )


def _condition(found: ForecastDrift, wanted: bool, hour: int, hour_seconds: int) -> Condition:
    high = found.severity == "high" and wanted
    reason = (
        f"drift of {found.series_high} of {found.series_scored} series is high, although the model was trained anew"
        if high
        else "drift is no longer high"
        if wanted
        else "forecasts make no incidents any more (forecast_incidents)"
    )
    return Condition(
        state="warning" if high else "ok",
        calm=not high,
        eased=not high,
        hour=hour,
        since=hour - hour_seconds,
        reason=reason,
        assessment=found.to_json(),
    )


def _over(incident: Incident, hour: int, reason: str) -> Condition:
    return Condition("ok", True, True, hour, hour, reason, incident.assessment)
