"""Each step from an open to a closed incident, as a pure function.

    (none) --opened--> open --acknowledge--> acknowledged --resolve--> resolved --close--> closed
                        |                        |    \\_______close____________________/
                        +-------- resolved ------+
    resolved, closed --reopened--> open        a recurrence within 24 hours; later it is a new incident

An evaluation opens, escalates, downgrades, resolves and reopens; a person acknowledges, resolves, closes and accepts.
Acknowledging silences nothing: severity goes on moving in the same state. An "hour" is one `monitor_step`.
"""

from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from sentinel_core.durations import format_duration
from sentinel_core.errors import IllegalTransitionError

State = Literal["open", "acknowledged", "resolved", "closed"]
Severity = Literal["warn", "critical"]
Kind = Literal["psi", "silence", "forecast", "threshold"]
Action = Literal["acknowledge", "resolve", "close", "accept"]
Step = Literal[
    "opened", "escalated", "downgraded", "reopened", "acknowledged", "resolved", "accepted", "closed", "noted"
]

OF_WATCHES: tuple[Kind, ...] = ("forecast", "threshold")  # the others are of models
ACTIVE: tuple[State, ...] = ("open", "acknowledged")
SENTINEL = "sentinel"  # the actor of what evaluations decide
CALM_EVALUATIONS = 3  # in a row below the resolve level: it resolves by itself
# In a row below critical by the ratio of the resolve to the warning level: a whole day, so that no event that made it
# critical is in the window any more. A constant PSI of 0.25 at 20 events an hour changed severity 724 times a year
# without, 121 times with three of them, 17 times with 24.
EASED_EVALUATIONS = 24
RECURRENCE_HOURS = 24  # so soon after its end it is the same incident

_SEVERITIES: dict[str, Severity] = {"warning": "warn", "critical": "critical"}
_FROM: dict[Action, tuple[State, ...]] = {
    "acknowledge": ("open",),
    "resolve": ACTIVE,
    "accept": ACTIVE,
    "close": ("acknowledged", "resolved"),
}
_STEPS: dict[Action, tuple[Step, State]] = {
    "acknowledge": ("acknowledged", "acknowledged"),
    "resolve": ("resolved", "resolved"),
    "accept": ("accepted", "resolved"),
    "close": ("closed", "closed"),
}


@dataclass(frozen=True)
class Condition:
    """What one evaluation found about one subject, in what an incident needs to know of it.

    state:    ok | warning | critical | insufficient_data | no_data; of a silence "warning" while it lasts and "ok"
              after it, likewise of a forecast and of a threshold
    calm:     below the level at which it resolves; counts only where the state is ok
    eased:    below the level at which a critical one becomes a warning (critical * resolve / warn)
    hour:     end of the evaluated hour, unix seconds on the grid; of a threshold the origin of the forecast
    since:    start of the window that was looked at: hours from there on are the incident's
    reason:   one sentence for the timeline
    assessment: JSON of the values it was decided on, see `alerts.message`
    frozen:   JSON of the baseline counts, bins and phi that are kept while the incident lasts
    """

    state: str
    calm: bool
    eased: bool
    hour: int
    since: int
    reason: str
    assessment: str
    baseline_version: int | None = None
    frozen: str | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where an incident stands; what a transition changes. Times are unix seconds, hours on the grid.

    [from_hour, until_hour) are the incident's hours; until_hour is also the newest evaluated one's end.
    """

    state: State
    severity: Severity
    calm: int  # evaluations in a row below the resolve level
    eased: int  # evaluations in a row clearly below critical
    opened_at: float
    acknowledged_at: float | None
    resolved_at: float | None
    closed_at: float | None
    from_hour: int
    until_hour: int
    baseline_version: int | None
    frozen: str | None
    assessment: str

    @property
    def active(self) -> bool:
        """Whether it is open or acknowledged."""
        return self.state in ACTIVE

    @property
    def ended_at(self) -> float:
        """When it was resolved, or closed without that; 0 where it is active.

        Closing what was over moves nothing: a recurrence would make one incident of weeks that were calm, and all of
        their hours would be missing in later baselines.
        """
        return self.resolved_at or self.closed_at or 0.0


@dataclass(frozen=True)
class Subject:
    """What an incident is about: a model in production or a watch, and what is wrong with it."""

    project_id: int
    kind: Kind
    subject: str  # what people call it
    model_id: int | None = None
    watch_id: int | None = None

    @property
    def key(self) -> str:
        """Unique among all subjects: one has at most one active incident.

        >>> Subject(1, "psi", "fraud-model", model_id=7).key
        'psi:7'
        """
        return f"{self.kind}:{self.watch_id if self.model_id is None else self.model_id}"


@dataclass(frozen=True, kw_only=True)
class Incident(Status, Subject):
    """An incident as it is stored."""

    id: int
    revision: int  # of its newest transition
    updated_at: float


@dataclass(frozen=True)
class Transition:
    """One step, and where it leads. "noted" changes neither state nor severity, and is no row of the timeline."""

    step: Step
    before: Status | None  # None where an incident begins
    after: Status
    actor: str
    reason: str
    at: float
    hour: int | None = None  # the evaluated one, where an evaluation made it
    baseline_version: int | None = None  # that the values were measured against

    @property
    def ends(self) -> bool:
        """Whether an active incident is over with it."""
        return self.before is not None and self.before.active and not self.after.active

    @property
    def alerts(self) -> bool:
        """Whether receivers hear of it: of everything but an acknowledgement and the closing of what was over."""
        return self.ends or self.step in ("opened", "escalated", "downgraded", "reopened")


def evaluate(
    status: Status | None, condition: Condition, now: float, *, hour_seconds: int = 3_600
) -> Transition | None:
    """What an evaluation makes of a subject's newest incident (None: it never had one); None where nothing changes.

    An evaluation of an hour that the incident has seen already changes nothing, so that one may be repeated.
    A transition with the step "opened" begins a new incident, also where an old one was given.
    """
    severity = _SEVERITIES.get(condition.state)
    if status is not None and condition.hour <= status.until_hour:
        return None
    if status is not None and status.active:
        return _go_on(status, severity, condition, now, hour_seconds)
    if severity is None:
        return None
    fresh = Status(
        state="open",
        severity=severity,
        calm=0,
        eased=0,
        opened_at=float(condition.hour),
        acknowledged_at=None,
        resolved_at=None,
        closed_at=None,
        from_hour=condition.since,
        until_hour=condition.hour,
        baseline_version=condition.baseline_version,
        frozen=condition.frozen,
        assessment=condition.assessment,
    )
    if status is None or condition.hour - status.ended_at > RECURRENCE_HOURS * hour_seconds:
        return _evaluated("opened", None, fresh, condition, condition.reason, now)
    again = replace(fresh, opened_at=status.opened_at, from_hour=status.from_hour)
    if status.calm >= CALM_EVALUATIONS:
        pause = format_duration(max(0, int(condition.hour - status.ended_at)))
        why = f"came back {pause} after it had resolved: {condition.reason}"
    else:
        why = f"lasts although it was {status.state} by a person: {condition.reason}"
    return _evaluated("reopened", status, again, condition, why, now)


def _go_on(
    status: Status, severity: Severity | None, condition: Condition, now: float, hour_seconds: int
) -> Transition:
    quiet = condition.state == "ok" and condition.calm
    eased = condition.eased and condition.state in ("ok", "warning")  # without data there is no verdict
    after = replace(
        status,
        calm=status.calm + 1 if quiet else 0,
        eased=status.eased + 1 if eased else 0,
        until_hour=condition.hour,
        assessment=condition.assessment,
    )
    if after.calm >= CALM_EVALUATIONS:
        after = replace(after, state="resolved", resolved_at=float(condition.hour))
        why = f"calm for {CALM_EVALUATIONS} evaluations in a row: {condition.reason}"
        return _evaluated("resolved", status, after, condition, why, now)
    if severity == "critical" and status.severity == "warn":
        after = replace(after, severity="critical")
        return _evaluated("escalated", status, after, condition, condition.reason, now)
    if status.severity == "critical" and after.eased >= EASED_EVALUATIONS:
        after = replace(after, severity="warn", eased=0)
        why = f"below critical for {format_duration(EASED_EVALUATIONS * hour_seconds)}: {condition.reason}"
        return _evaluated("downgraded", status, after, condition, why, now)
    return _evaluated("noted", status, after, condition, condition.reason, now)


def _evaluated(
    step: Step, before: Status | None, after: Status, condition: Condition, reason: str, now: float
) -> Transition:
    return Transition(step, before, after, SENTINEL, reason, now, condition.hour, condition.baseline_version)


def act(incident: Incident, action: Action, actor: str, reason: str, now: float) -> Transition:
    """What a person's action makes of an incident; IllegalTransitionError says what is possible instead."""
    if action not in possible(incident):
        _refuse(incident, action)
    step, state = _STEPS[action]
    after = replace(
        incident,
        state=state,
        acknowledged_at=now if state == "acknowledged" else incident.acknowledged_at,
        resolved_at=now if state == "resolved" else incident.resolved_at,
        closed_at=now if state == "closed" else incident.closed_at,
    )
    return Transition(step, incident, after, actor, reason, now, None, incident.baseline_version)


def possible(incident: Incident) -> tuple[Action, ...]:
    """The actions that an incident's state allows; only drift of a model can be accepted as its new normal."""
    allowed = (action for action, states in _FROM.items() if incident.state in states)
    return tuple(action for action in allowed if action != "accept" or incident.kind == "psi")


def _refuse(incident: Incident, action: str) -> NoReturn:
    if action not in _FROM:
        raise IllegalTransitionError(f"{action!r} is no action; there are {', '.join(_FROM)}")
    ways = ", ".join(possible(incident)) or "nothing: it reopens by itself if the drift comes back within a day"
    hint = "; acknowledge or resolve it first" if (action, incident.state) == ("close", "open") else ""
    raise IllegalTransitionError(
        f"incident {incident.id} is {incident.state}, and cannot be made to {action}{hint}; possible: {ways}"
    )
