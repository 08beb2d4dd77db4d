"""What an evaluation means for incidents: drift and silence of models, written with the evaluation itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from sentinel_core.alerts import outbox
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents.findings import Silence
from sentinel_core.incidents.lifecycle import Condition, Incident, Subject
from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.pipeline.freezing import Kept
from sentinel_core.pipeline.windowing import Evaluated

ALARMING = (State.WARNING, State.CRITICAL)


@dataclass(frozen=True)
class Consequence:
    """A transition that was written."""

    incident: Incident
    step: lifecycle.Step
    reason: str


def follow(
    conn: sa.Connection,
    evaluated: Sequence[Evaluated],
    current: Mapping[str, Incident],
    kept: Mapping[int, Kept],
    hour: int,
    hour_seconds: int,
    now: float,
) -> list[Consequence]:
    """Write what an hour's evaluations mean, in the caller's transaction.

    current: incidents that are active or may yet reopen, by `Subject.key`
    kept:    what the baselines of the `opening` ones are frozen as, by model id
    Raises ConflictError where a person changed one of them meanwhile.
    """
    found: list[Consequence | None] = []
    for one in evaluated:
        drift = _subject(one)
        incident = current.get(drift.key)
        if one.assessment.state in ALARMING or (incident is not None and incident.active):
            condition = _drift(one, kept.get(one.judged.model.id), hour, hour_seconds)
            found.append(step(conn, drift, incident, condition, now, hour_seconds))
        silence = Subject(one.judged.model.project_id, "silence", one.judged.model.name, model_id=one.judged.model.id)
        incident = current.get(silence.key)
        lasts = incident is not None and incident.active
        # a silence of weeks is in the baseline too, and no less a silence
        silent = one.assessment.silent or (lasts and one.assessment.state == State.NO_DATA)
        silent = silent and one.judged.settings.silence
        if silent or lasts:
            found.append(step(conn, silence, incident, _silence(one, silent, hour, hour_seconds), now, hour_seconds))
    return [one for one in found if one is not None]


def opening(evaluated: Iterable[Evaluated], current: Mapping[str, Incident]) -> list[Evaluated]:
    """Those whose incident of drift opens now, anew or again."""
    alarming = [one for one in evaluated if one.assessment.state in ALARMING]
    return [one for one in alarming if not ((known := current.get(_subject(one).key)) and known.active)]


def _subject(one: Evaluated) -> Subject:
    return Subject(one.judged.model.project_id, "psi", one.judged.model.name, model_id=one.judged.model.id)


def step(
    conn: sa.Connection,
    subject: Subject,
    incident: Incident | None,
    condition: Condition,
    now: float,
    hour_seconds: int,
) -> Consequence | None:
    """Write what one evaluation makes of one subject's newest incident; None where nobody has to know."""
    transition = lifecycle.evaluate(incident, condition, now, hour_seconds=hour_seconds)
    if transition is None:
        return None
    begins = incident is None or transition.step == "opened"
    written = outbox.record(conn, subject if begins else incident or subject, transition)
    return None if transition.step == "noted" else Consequence(written, transition.step, transition.reason)


def _drift(one: Evaluated, kept: Kept | None, hour: int, hour_seconds: int) -> Condition:
    return Condition(
        state=one.assessment.state.name.lower(),
        calm=one.assessment.calm,
        eased=one.assessment.eased,
        hour=hour,
        since=hour - one.window_seconds(hour_seconds),
        reason=describe(one.assessment),
        assessment=one.assessment.to_json(),
        baseline_version=one.judged.version,
        frozen=None if kept is None else msgspec.json.encode(kept).decode(),
    )


def _silence(one: Evaluated, silent: bool, hour: int, hour_seconds: int) -> Condition:
    hours = one.judged.settings.current_hours
    found = Silence(silent, one.judged.model.last_event_at, hours, one.expected, hour_seconds)
    usual = f"{one.expected:,.0f} are usual at this time of the week"
    return Condition(
        state="warning" if silent else "ok",
        calm=not silent,
        eased=not silent,
        hour=hour,
        since=hour - hours * hour_seconds,
        reason=f"no events in {found.window}, where {usual}" if silent else "it sends events again",
        assessment=found.to_json(),
        baseline_version=one.judged.version,
    )


def describe(assessment: Assessment) -> str:
    """The worst output in one sentence."""
    worst = assessment.worst
    if assessment.state == State.NO_DATA or worst is None:
        return "no events in the current window"
    if worst.psi is None or worst.adjusted is None or worst.limit is None:
        return f"{worst.n_current:,} events are too few for a verdict"
    return (
        f"PSI of the {worst.output} {worst.psi:.3f}, normal up to {worst.limit:.3f}; {worst.adjusted:.3f} more than "
        f"chance makes of {worst.n_current:,} events"
    )
