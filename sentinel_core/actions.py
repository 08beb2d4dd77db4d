"""What to do about a watch: cold start, finetune, retrain or nothing. Pure: state and clock in, decision out."""

from dataclasses import dataclass

COLD_START, FINETUNE, RETRAIN = "cold_start", "finetune", "retrain"
COLD_RETRY_SECONDS = 20.0  # first retry of a cold start that found too little history; doubles up to an hour
LONGEST_WAIT_SECONDS = 3_600.0
LONGEST_COOLDOWN_FACTOR = 16


@dataclass(frozen=True)
class WatchFacts:
    """What a decision about one watch needs to know; times are unix seconds."""

    slug: str
    has_version: bool
    silent: bool  # it was read, and no series of it lives: there is nothing to train
    spec_changed: bool  # the serving version was trained for another model, grid or parameters
    severity: str  # none | low | high
    unlearnt: int  # live series that no version has learnt and that have enough samples by now
    cooldown_seconds: float
    leased: bool  # somebody is training it right now
    last_finished: float | None  # newest finished action of any kind
    failures: int  # newest finished actions in a row after which nothing new serves
    unhelpful: int  # drift actions lately, beyond the first: they did not cure it


@dataclass(frozen=True)
class Decision:
    """Train this watch, and why."""

    slug: str
    kind: str
    reason: str


def decide(facts: WatchFacts, now: float) -> Decision | None:
    """Cold start first, then a changed configuration, then drift, then new series.

    After an action a watch rests for its cooldown; the rest doubles each time an action did not help, so that a model
    that cannot follow its series is not refitted for ever. A failed training waits likewise.
    """
    if facts.leased or facts.silent:
        return None
    since = float("inf") if facts.last_finished is None else now - facts.last_finished
    retry = min(LONGEST_WAIT_SECONDS, COLD_RETRY_SECONDS * 2.0 ** max(0, facts.failures - 1)) if facts.failures else 0.0
    if since < retry:
        return None
    if not facts.has_version:
        return Decision(facts.slug, COLD_START, "no version yet")
    if facts.spec_changed:
        return Decision(facts.slug, RETRAIN, "its configuration changed")
    rest = facts.cooldown_seconds * min(LONGEST_COOLDOWN_FACTOR, 2**facts.unhelpful)
    if since < rest:
        return None
    if facts.severity == "high":
        return Decision(facts.slug, RETRAIN, "high drift")
    if facts.severity == "low":
        return Decision(facts.slug, FINETUNE, "low drift")
    if facts.unlearnt:
        return Decision(facts.slug, COLD_START, f"{facts.unlearnt} new series")
    return None
