"""The lifecycle alone: a pure function, walked by hand and at random."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sentinel_core.errors import IllegalTransitionError
from sentinel_core.incidents.lifecycle import (
    CALM_EVALUATIONS,
    EASED_EVALUATIONS,
    Action,
    Condition,
    Incident,
    State,
    Status,
    Transition,
    act,
    evaluate,
    possible,
)
from tests.incidents.situations import HOUR, START, condition

ACTIONS: tuple[Action, ...] = ("acknowledge", "resolve", "close", "accept")


def stored(transition: Transition, incident: Incident | None = None) -> Incident:
    """The incident as `record` would give it back."""
    revision = 1 if transition.before is None else (incident.revision if incident else 0) + (transition.step != "noted")
    values = {name: getattr(transition.after, name) for name in Status.__dataclass_fields__}
    return Incident(1, "psi", "m", 1, **values, id=1, revision=revision, updated_at=transition.at)


def walk(*steps: Condition | Action | tuple[Action, float]) -> tuple[Incident, list[str]]:
    """The incident after evaluations and actions (at an hour), and the steps it went."""
    incident: Incident | None = None
    went: list[str] = []
    hour = 0.0
    for step in steps:
        if isinstance(step, Condition):
            hour = (step.hour - START) / HOUR
            transition = evaluate(incident, step, step.hour + 30.0)
        else:
            action, hour = step if isinstance(step, tuple) else (step, hour + 0.1)
            assert incident is not None
            transition = act(incident, action, "ann", "why", START + hour * HOUR)
        if transition is not None:
            incident = stored(transition, incident)
            went.append(transition.step)
    assert incident is not None
    return incident, went


def test_calm_evaluations_open_nothing() -> None:
    """Neither a good evaluation nor one without data begins an incident."""
    for state in ("ok", "insufficient_data", "no_data"):
        assert evaluate(None, condition(state), START) is None


def test_it_opens_acknowledges_resolves_and_closes() -> None:
    """The whole way by hand; each time is kept."""
    incident, went = walk(condition("warning"), "acknowledge", "resolve", "close")
    assert went == ["opened", "acknowledged", "resolved", "closed"]
    assert incident.severity == "warn"
    assert incident.acknowledged_at == pytest.approx(START + 0.1 * HOUR)
    assert incident.resolved_at == pytest.approx(START + 0.2 * HOUR)
    assert incident.closed_at == pytest.approx(START + 0.3 * HOUR)


@pytest.mark.parametrize("first", [(), ("acknowledge",)])
def test_it_resolves_by_itself_after_three_calm_evaluations(first: tuple[Action, ...]) -> None:
    """Acknowledged or not; two are not enough, nor three with another one in between."""
    calm = [condition("ok", hour, calm=True) for hour in range(1, 4)]
    assert walk(condition("warning"), *first, *calm[:2])[0].active
    incident, went = walk(condition("warning"), *first, *calm)
    assert (incident.state, went[-1]) == ("resolved", "resolved")
    assert incident.until_hour == START + 3 * HOUR
    for between in ("warning", "ok", "insufficient_data", "no_data"):
        broken = [condition("warning"), *calm[:2], condition(between, 3), condition("ok", 4, calm=True)]
        assert walk(*broken)[0].active, between


def test_missing_data_never_resolves() -> None:
    """A week of silence leaves the incident as it was."""
    quiet = [condition("no_data", hour, calm=True, eased=True) for hour in range(1, 170)]
    incident, _ = walk(condition("critical"), *quiet)
    assert (incident.state, incident.severity) == ("open", "critical")


def test_acknowledging_silences_nothing() -> None:
    """It still escalates, which is told, and stays acknowledged."""
    incident, went = walk(condition("warning"), "acknowledge", condition("critical", 1))
    assert (incident.state, incident.severity, went[-1]) == ("acknowledged", "critical", "escalated")
    transition = evaluate(walk(condition("warning"), "acknowledge")[0], condition("critical", 1), START)
    assert transition is not None
    assert transition.alerts


def test_severity_goes_down_only_after_a_day_clearly_below() -> None:
    """A PSI that hovers around critical escalates once; a day clearly below it takes the severity back."""
    hovering = [condition("critical" if hour % 2 else "warning", hour) for hour in range(200)]
    assert [step for step in walk(*hovering)[1] if step != "noted"] == ["opened", "escalated"]
    below = [condition("warning", hour, eased=True) for hour in range(1, EASED_EVALUATIONS + 1)]
    assert walk(condition("critical"), *below[:-1])[0].severity == "critical"
    incident, went = walk(condition("critical"), *below)
    assert (incident.state, incident.severity, went[-1]) == ("open", "warn", "downgraded")
    broken = [*below[:-1], condition("warning", 24), condition("warning", 25, eased=True)]
    assert walk(condition("critical"), *broken)[0].severity == "critical"
    incident, _ = walk(condition("critical"), "acknowledge", *below)
    assert (incident.state, incident.severity) == ("acknowledged", "warn")


def test_a_recurrence_within_a_day_reopens() -> None:
    """Up to 24 hours after its end it is the same incident, which begins anew as an unacknowledged one."""
    ended = [condition("warning"), "acknowledge", *(condition("ok", hour, calm=True) for hour in (1, 2, 3))]
    incident, went = walk(*ended, condition("critical", 27))  # type: ignore[arg-type]  # a list of both kinds
    assert (incident.state, incident.severity, went[-1]) == ("open", "critical", "reopened")
    assert (incident.acknowledged_at, incident.resolved_at) == (None, None)
    assert (incident.opened_at, incident.from_hour) == (START, START - 24 * HOUR)
    _, went = walk(*ended, condition("critical", 28))  # type: ignore[arg-type]
    assert went[-1] == "opened"


def test_a_closed_one_reopens_within_a_day_of_its_end() -> None:
    """The day counts from the closing of an acknowledged one; closing a resolved one does not begin it anew."""
    ended = (condition("warning"), "acknowledge", ("close", 20.0))
    assert walk(*ended, condition("warning", 44))[1][-1] == "reopened"  # type: ignore[arg-type]
    assert walk(*ended, condition("warning", 45))[1][-1] == "opened"  # type: ignore[arg-type]
    tidied = (condition("warning"), ("resolve", 1.0), ("close", 1_000.0))
    assert walk(*tidied, condition("warning", 25))[1][-1] == "reopened"  # type: ignore[arg-type]
    assert walk(*tidied, condition("warning", 1_001))[1][-1] == "opened"  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["resolve", "accept"])
def test_resolving_by_hand_while_it_lasts_reopens_and_says_so(action: Action) -> None:
    """The next evaluation that still finds drift reopens it, with the reason."""
    incident, _ = walk(condition("warning"), action)
    transition = evaluate(incident, condition("warning", 1), START + HOUR)
    assert transition is not None
    assert transition.step == "reopened"
    assert transition.reason == "lasts although it was resolved by a person: found warning"
    incident, _ = walk(condition("warning"), "acknowledge", "close")
    transition = evaluate(incident, condition("warning", 1), START + HOUR)
    assert transition is not None
    assert "although it was closed by a person" in transition.reason


def test_one_that_came_back_says_after_how_long() -> None:
    """A recurrence is told apart from a drift that had never ended."""
    incident, _ = walk(condition("warning"), *(condition("ok", hour, calm=True) for hour in (1, 2, 3)))
    transition = evaluate(incident, condition("warning", 8), START + 8 * HOUR)
    assert transition is not None
    assert transition.reason == "came back 5h after it had resolved: found warning"


def test_an_hour_counts_once() -> None:
    """The same evaluation again, or one of an older hour, changes nothing in any state."""
    for steps in (["acknowledge"], ["resolve"], ["resolve", "close"], []):
        incident, _ = walk(condition("warning", 5), *steps)  # type: ignore[arg-type]
        for hour in (4, 5):
            for state in ("critical", "ok"):
                assert evaluate(incident, condition(state, hour, calm=state == "ok"), START) is None


def test_the_baseline_stays_frozen_while_it_lasts() -> None:
    """What was frozen when it opened is kept by every evaluation, and replaced when it reopens."""
    incident, _ = walk(condition("warning"))
    later = Condition("critical", False, False, START + HOUR, START, "worse", "{}", 2, '{"other": 1}')
    escalated = evaluate(incident, later, START)
    assert escalated is not None
    assert (escalated.after.frozen, escalated.after.baseline_version) == ("{}", 1)
    resolved, _ = walk(condition("warning"), "resolve")
    again = evaluate(resolved, later, START)
    assert again is not None
    assert (again.after.frozen, again.after.baseline_version) == ('{"other": 1}', 2)


@pytest.mark.parametrize(
    ("steps", "allowed"),
    [
        ([], {"acknowledge", "resolve", "accept"}),
        (["acknowledge"], {"resolve", "accept", "close"}),
        (["resolve"], {"close"}),
        (["resolve", "close"], set()),
    ],
)
def test_each_state_allows_its_actions(steps: list[Action], allowed: set[Action]) -> None:
    """What is not allowed is refused with what is possible instead."""
    incident, _ = walk(condition("warning"), *steps)
    assert set(possible(incident)) == allowed
    for action in ACTIONS:
        if action in allowed:
            act(incident, action, "ann", "why", START)
        else:
            with pytest.raises(IllegalTransitionError, match=r"incident 1 is .*possible: "):
                act(incident, action, "ann", "why", START)


def test_an_open_one_is_not_closed_and_the_refusal_says_how() -> None:
    """Closing needs somebody who has looked at it."""
    incident, _ = walk(condition("warning"))
    with pytest.raises(IllegalTransitionError, match="acknowledge or resolve it first; possible: acknowledge, resolve"):
        act(incident, "close", "ann", "why", START)
    with pytest.raises(IllegalTransitionError, match="'silence' is no action; there are acknowledge"):
        act(incident, "silence", "ann", "why", START)  # type: ignore[arg-type]


def test_closing_an_acknowledged_one_is_told_and_closing_a_resolved_one_is_not() -> None:
    """Receivers hear once that it is over."""
    acknowledged, _ = walk(condition("warning"), "acknowledge")
    assert act(acknowledged, "close", "ann", "why", START).alerts
    resolved, _ = walk(condition("warning"), "resolve")
    assert not act(resolved, "close", "ann", "why", START).alerts
    assert not act(walk(condition("warning"))[0], "acknowledge", "ann", "why", START).alerts


VERDICTS = ("warning", "critical")
FOUND = st.sampled_from(["ok", "calm", "warning", "critical", "insufficient_data", "no_data"])


class Life(RuleBasedStateMachine):
    """Any sequence of evaluations, pauses and clicks, against what was said of them in words."""

    def __init__(self) -> None:
        super().__init__()
        self.incident: Incident | None = None
        self.hour = 0
        self.number = 0
        self.since: list[tuple[str, bool]] = []  # (state, eased) of the evaluations since it was opened or reopened

    @rule(
        found=FOUND,
        eased=st.booleans(),
        skipped=st.sampled_from([1, 1, 1, 2, 20, 24, 25, 30]),
        times=st.sampled_from([1, 1, 2, 3, 4, 25]),
    )
    def evaluations(self, found: str, eased: bool, skipped: int, times: int) -> None:
        self.hour += skipped - 1
        for _ in range(times):
            self.hour += 1
            self.evaluation("ok" if found == "calm" else found, found == "calm", eased or found == "calm")

    def evaluation(self, state: str, calm: bool, eased: bool) -> None:
        before = self.incident
        transition = evaluate(before, condition(state, self.hour, calm=calm, eased=eased), START + self.hour * HOUR)
        was_active = before is not None and before.active
        drifts = state in VERDICTS
        assert (transition is None) == (not was_active and not drifts), (
            "no drift goes unnoticed, and nothing else counts"
        )
        if transition is None:
            return
        step, after = transition.step, transition.after
        assert transition.actor == "sentinel"
        if step in ("opened", "reopened"):
            assert not was_active
            within_a_day = before is not None and START + self.hour * HOUR - before.ended_at <= 24 * HOUR
            assert (step == "reopened") == within_a_day
            self.since = []
        self.since.append((state if not calm else "calm", eased and state in ("ok", "warning")))
        calm_row = [found for found, _ in self.since[-CALM_EVALUATIONS:]]
        assert (step == "resolved") == (was_active and calm_row == ["calm"] * CALM_EVALUATIONS)
        assert after.active == (step != "resolved")
        if was_active and before is not None:
            assert transition.before is not None
            assert after.state in (before.state, "resolved"), "an evaluation acknowledges and closes nothing"
            if after.severity != before.severity:
                assert step in ("escalated", "downgraded")
            if step == "escalated":
                assert (before.severity, after.severity, state) == ("warn", "critical", "critical")
            if step == "downgraded":
                assert (before.severity, after.severity) == ("critical", "warn")
                assert all(eased for _, eased in self.since[-EASED_EVALUATIONS:])
                assert len(self.since) > EASED_EVALUATIONS
        assert drifts <= (after.severity == "critical" or state == "warning"), "never below what was found"
        self.number += step == "opened"
        self.incident = stored(transition, before)

    @precondition(lambda self: self.incident is not None)
    @rule(action=st.sampled_from(ACTIONS), minutes=st.integers(0, 59))
    def click(self, action: Action, minutes: int) -> None:
        assert self.incident is not None
        ways: dict[State, tuple[Action, ...]] = {
            "open": ("acknowledge", "resolve", "accept"),
            "acknowledged": ("resolve", "accept", "close"),
            "resolved": ("close",),
            "closed": (),
        }
        now = START + self.hour * HOUR + 60 * minutes
        if action not in ways[self.incident.state]:
            with pytest.raises(IllegalTransitionError):
                act(self.incident, action, "ann", "why", now)
            return
        transition = act(self.incident, action, "ann", "why", now)
        target = {"acknowledge": "acknowledged", "resolve": "resolved", "accept": "resolved", "close": "closed"}
        assert transition.after.state == target[action]
        assert transition.after.severity == self.incident.severity
        assert transition.actor == "ann"
        self.incident = stored(transition, self.incident)

    @precondition(lambda self: self.incident is not None)
    @rule(state=st.sampled_from(VERDICTS), back=st.integers(0, 3))
    def repetition(self, state: str, back: int) -> None:
        """An hour that was evaluated already is evaluated again."""
        assert self.incident is not None
        seen = (self.incident.until_hour - START) // HOUR
        assert evaluate(self.incident, condition(state, seen - back), START) is None

    @invariant()
    def it_is_possible(self) -> None:
        one = self.incident
        if one is None:
            return
        assert one.severity in ("warn", "critical")
        assert (one.resolved_at is not None) <= (one.state in ("resolved", "closed"))
        assert (one.closed_at is not None) == (one.state == "closed")
        assert (one.acknowledged_at is not None) >= (one.state == "acknowledged")
        assert (one.acknowledged_at is not None or one.resolved_at is not None) >= (one.state == "closed")
        assert one.from_hour < one.until_hour <= START + self.hour * HOUR
        assert 0 <= one.calm <= CALM_EVALUATIONS
        assert 0 <= one.eased <= EASED_EVALUATIONS or one.severity == "warn"
        assert set(possible(one)) <= set(ACTIONS)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40)
