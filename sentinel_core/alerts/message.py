"""What an alert says: what happened, how serious it is, why, and what happens next. Shared with the pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sentinel_core.drift import in_words
from sentinel_core.durations import format_duration
from sentinel_core.incidents.findings import forecast_drift, silence, threshold_forecast
from sentinel_core.incidents.lifecycle import CALM_EVALUATIONS, RECURRENCE_HOURS
from sentinel_core.monitoring.assessment import Assessment

SHOWN_BINS = 3  # that add most to a PSI
MAX_REASON = 500  # characters of a reason that a person gave
MAX_NAME = 200  # characters of a name that people outside chose
_OUTPUTS = {
    "score": "the distribution of scores",
    "number": "the distribution of predictions",
    "label": "the mix of predictions",
}
_LABELS = {
    "opened": "{severity}",
    "escalated": "Now {severity}",
    "downgraded": "Now {severity}",
    "reopened": "Again {severity}",
    "resolved": "Resolved",
    "accepted": "Accepted as the new normal",
    "closed": "Closed",
}
_SEVERITIES = {"warn": "warning", "critical": "critical"}


@dataclass(frozen=True)
class Alert:
    """One alert, ready to be put into a receiver's form. Every text is one line without control characters.

    id:        of the delivery: the same at every attempt, so that a receiver can tell a repetition
    active:    whether the incident is open or acknowledged by now, whatever has been sent so far
    severity_now: likewise its severity
    assessment: the values that the transition was decided on, see `incidents.findings` and monitoring.Assessment
    """

    id: str
    incident_id: int
    project: str
    kind: str  # psi | silence | forecast | threshold | test
    subject: str
    step: str  # opened | escalated | downgraded | reopened | resolved | accepted | closed
    state: str  # after it
    severity: str  # warn | critical, after it
    actor: str
    reason: str
    at: float
    opened_at: float
    active: bool
    severity_now: str
    sent_at: float  # of this attempt
    link: str
    headline: str
    seriousness: str
    why: str
    next: str
    assessment: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The headline behind what became of the incident: "Critical: fraud-model: the distribution of …"."""
        label = _LABELS[self.step].format(severity=_SEVERITIES[self.severity])
        return f"{label[0].upper()}{label[1:]}: {self.headline}"


def headline(kind: str, subject: str, assessment: str) -> str:
    """One plain sentence on what is found.

    "fraud-model: the distribution of scores has moved: PSI 0.31, normal up to 0.04"
    """
    return f"{clean(subject)}: {_FOUND[kind](assessment)}"


def _psi(text: str) -> str:
    assessment = Assessment.from_json(text)
    worst = assessment.worst
    if worst is None or worst.psi is None:
        return "too few events to compare with the baseline"
    verb = "has moved" if assessment.state.name.lower() in ("warning", "critical") else "is near its baseline"
    normal = "" if worst.limit is None else f", normal up to {worst.limit:.2g}"
    return f"{_OUTPUTS[worst.output]} {verb}: PSI {worst.psi:.2f}{normal}"


def _silence(text: str) -> str:
    found = silence(text)
    if not found.silent:
        return "sends events again"
    since = "" if found.last_event_at is None else f" since {moment(found.last_event_at)}"
    return f"has sent no events{since}, where it usually sends {found.expected:,.0f} in {found.window}"


def _forecast(text: str) -> str:
    found = forecast_drift(text)
    if found.severity != "high":
        return "its forecasts are as good as usual again"
    error = (
        ""
        if found.mae is None
        else f": the error is {in_words(found.unit, found.mae)}, high from {found.threshold:.3g}"
    )
    return f"its forecasts are far off, although its model was trained anew{error}"


def _threshold(text: str) -> str:
    found = threshold_forecast(text)
    if not found.crossing:
        return "no threshold is likely to be crossed any more"
    more = f" and {found.crossing - 1:,} more" if found.crossing > 1 else ""
    return f"{found.outlook}: {clean(found.likeliest[0].series)}{more}"


_FOUND = {"psi": _psi, "silence": _silence, "forecast": _forecast, "threshold": _threshold}


def seriousness(kind: str, severity: str, assessment: str) -> str:
    """One plain sentence on how serious it is, with the numbers behind that."""
    word = _SEVERITIES[severity].capitalize()
    if kind == "silence":
        return f"{word}: nothing can be said about the model until it sends events."
    if kind == "forecast":
        found = forecast_drift(assessment)
        return f"{word}: {found.series_high} of {found.series_scored} series have high drift."
    if kind == "threshold":
        return f"{word}: {threshold_forecast(assessment).scale}."
    worst = Assessment.from_json(assessment).worst
    if worst is None or worst.lower is None or worst.upper is None:
        return f"{word}."
    return (
        f"{word}: the true PSI lies between {worst.lower:.2f} and {worst.upper:.2f} (95 %), measured on "
        f"{worst.n_current:,} events against {worst.n_baseline:,}."
    )


def why(kind: str, reason: str, assessment: str) -> str:
    """The reason of a transition, and for a PSI the bins that add most to it."""
    text = clean(reason, MAX_REASON)
    worst = Assessment.from_json(assessment).worst if kind == "psi" else None
    if worst is None or not worst.bins:
        return text
    most = sorted(worst.bins, key=lambda one: one.contribution, reverse=True)[:SHOWN_BINS]
    bins = "; ".join(f"{clean(one.name)} {one.baseline:.1%} -> {one.current:.1%}" for one in most)
    return f"{text}. Most of it: {bins}" if bins else text


def what_next(kind: str, state: str, acknowledged_by: str | None = None, *, hour_seconds: int = 3_600) -> str:
    """One plain sentence on what happens next to an incident in a state."""
    itself = f"resolves by itself after {CALM_EVALUATIONS} calm evaluations in a row"
    if state == "open":
        accept = ", or accept it as the new normal" if kind == "psi" else ""
        return f"It {itself}, and escalates if it gets worse; acknowledge it to show that somebody looks{accept}."
    if state == "acknowledged":
        who = f" by {clean(acknowledged_by)}" if acknowledged_by else ""
        return f"Acknowledged{who}: it still escalates if it gets worse, and {itself}."
    soon = format_duration(RECURRENCE_HOURS * hour_seconds)
    return f"Nothing to do; it reopens if this comes back within {soon}, later it is a new incident."


def test_alert(project: str, receiver: str, link: str, now: float) -> Alert:
    """An alert that says that alerts arrive."""
    return Alert(
        id=f"test_{int(now * 1_000_000):x}",
        incident_id=0,
        project=project,
        kind="test",
        subject="test",
        step="opened",
        state="open",
        severity="warn",
        actor="sentinel",
        reason="somebody asked for a test",
        at=now,
        opened_at=now,
        active=True,
        severity_now="warn",
        sent_at=now,
        link=link,
        headline=f"test of the receiver {clean(receiver)}: alerts arrive",
        seriousness="Nothing is wrong.",
        why="Somebody asked for a test.",
        next="Nothing to do.",
        assessment={},
    )


def moment(seconds: float) -> str:
    """A time as people read it.

    >>> moment(1_760_000_040)
    '2025-10-09 08:54 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def clean(text: str, limit: int = MAX_NAME) -> str:
    """One line without control characters, of bounded length: names come from outside.

    >>> clean("fraud\\r\\nBcc: all@example.com")
    'fraud Bcc: all@example.com'
    """
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
