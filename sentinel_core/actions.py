"""What to do about a watch: cold start, finetune, retrain or nothing. Pure: state and clock in, decision out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

COLD_START, FINETUNE, RETRAIN = "cold_start", "finetune", "retrain"

# why a watch is trained: the first four are decided here, the others asked for
FIRST, CONFIGURATION, DRIFT, NEW_SERIES = "first", "configuration", "drift", "new_series"
SCHEDULE, PERSON = "schedule", "person"
DECIDED = frozenset((FIRST, CONFIGURATION, DRIFT, NEW_SERIES))

RETRY_SECONDS = 20.0  # first retry of a training that failed, or found too little history; doubles up to an hour
LONGEST_WAIT_SECONDS = 3_600.0
LONGEST_COOLDOWN_FACTOR = 16


@dataclass(frozen=True)
class Tried:
    """What decisions with one cause came to lately; times are unix seconds."""

    last_finished: float
    failures: int = 0  # newest in a row after which nothing new serves
    repeats: int = 0  # within the last cooldowns, beyond the first: it did not help


@dataclass(frozen=True)
class WatchFacts:
    """What a decision about one watch needs to know."""

    slug: str
    has_version: bool
    silent: bool  # it was read, and no series of it lives: there is nothing to train
    spec_changed: bool  # the serving version was trained for another model, grid or parameters
    severity: str  # none | low | high
    unlearnt: int  # live series that no version has learnt
    cooldown_seconds: float
    leased: bool  # somebody is training it right now
    tried: Mapping[str, Tried] = field(default_factory=dict)  # by cause; what a cron or a person asked for is not here


@dataclass(frozen=True)
class Decision:
    """Train this watch, and why: `cause` is one of DECIDED, `reason` says it to people."""

    slug: str
    kind: str
    cause: str
    reason: str


def decide(facts: WatchFacts, now: float) -> Decision | None:
    """The first version, then a changed configuration, then drift, then new series.

    After an action on drift, or for new series, a watch rests from that cause for its cooldown. On drift the rest
    doubles each time an action did not help, so that a model that cannot follow its series is not refitted for ever.
    After a training that failed, its cause waits ever longer.
    """
    if facts.leased or facts.silent:
        return None
    return next((one for one in _wanted(facts) if _rested(facts, one.cause, now)), None)


def _wanted(facts: WatchFacts) -> list[Decision]:
    """All there is a cause for, the most urgent first."""
    if not facts.has_version:
        return [Decision(facts.slug, COLD_START, FIRST, "no version yet")]
    if facts.spec_changed:
        return [Decision(facts.slug, RETRAIN, CONFIGURATION, "its configuration changed")]
    wanted = []
    if facts.severity != "none":
        kind = RETRAIN if facts.severity == "high" else FINETUNE
        wanted.append(Decision(facts.slug, kind, DRIFT, f"{facts.severity} drift"))
    if facts.unlearnt:
        wanted.append(Decision(facts.slug, COLD_START, NEW_SERIES, f"{facts.unlearnt} new series"))
    return wanted


def _rested(facts: WatchFacts, cause: str, now: float) -> bool:
    tried = facts.tried.get(cause)
    if tried is None:
        return True
    rest = facts.cooldown_seconds if cause in (DRIFT, NEW_SERIES) else 0.0
    if cause == DRIFT:
        rest *= min(LONGEST_COOLDOWN_FACTOR, 2**tried.repeats)
    if tried.failures:
        rest = max(rest, min(LONGEST_WAIT_SECONDS, RETRY_SECONDS * 2.0 ** (tried.failures - 1)))
    return now - tried.last_finished >= rest
