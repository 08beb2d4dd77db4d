from dataclasses import replace

import pytest

from sentinel_core.actions import LONGEST_WAIT_SECONDS, WatchFacts, decide

NOW = 1_000_000.0
CALM = WatchFacts(
    slug="w",
    has_version=True,
    silent=False,
    spec_changed=False,
    severity="none",
    unlearnt=0,
    cooldown_seconds=900,
    leased=False,
    last_finished=NOW - 10_000,
    failures=0,
    unhelpful=0,
)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (CALM, None),
        (replace(CALM, has_version=False), "cold_start"),
        (replace(CALM, has_version=False, leased=True), None),
        (replace(CALM, has_version=False, silent=True), None),
        (replace(CALM, severity="low"), "finetune"),
        (replace(CALM, severity="high"), "retrain"),
        (replace(CALM, severity="high", leased=True), None),
        (replace(CALM, severity="high", last_finished=NOW - 899), None),
        (replace(CALM, severity="high", last_finished=NOW - 901), "retrain"),
        (replace(CALM, severity="high", last_finished=None), "retrain"),
        (replace(CALM, spec_changed=True, last_finished=NOW - 1), "retrain"),
        (replace(CALM, unlearnt=3), "cold_start"),
        (replace(CALM, unlearnt=3, severity="low"), "finetune"),
    ],
)
def test_what_is_decided(facts: WatchFacts, kind: str | None) -> None:
    """Cold start, then a changed configuration, then drift, then new series; a lease or a cooldown means nothing."""
    decision = decide(facts, NOW)
    assert (None if decision is None else decision.kind) == kind


def test_rest_grows_while_drift_is_not_cured() -> None:
    """Each drift action that did not help doubles the rest, up to sixteen cooldowns."""
    rests = []
    for unhelpful in range(7):
        facts = replace(CALM, severity="high", unhelpful=unhelpful)
        rests.append(next(s for s in range(900, 20_000, 300) if decide(replace(facts, last_finished=NOW - s), NOW)))
    assert rests == [900, 1800, 3600, 7200, 14400, 14400, 14400]


def test_a_failed_cold_start_is_tried_again_ever_more_rarely() -> None:
    """Too little history at first start is retried within seconds, later at most hourly."""
    cold = replace(CALM, has_version=False)
    assert decide(replace(cold, failures=1, last_finished=NOW - 19), NOW) is None
    assert decide(replace(cold, failures=1, last_finished=NOW - 21), NOW) is not None
    assert decide(replace(cold, failures=30, last_finished=NOW - LONGEST_WAIT_SECONDS - 1), NOW) is not None
