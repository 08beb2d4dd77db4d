from dataclasses import replace

import pytest

from sentinel_core.actions import LONGEST_WAIT_SECONDS, Tried, WatchFacts, decide

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
)
NEWLY, LATELY = Tried(NOW - 899), Tried(NOW - 901)


@pytest.mark.parametrize(
    ("facts", "decided"),
    [
        (CALM, None),
        (replace(CALM, has_version=False), ("cold_start", "first")),
        (replace(CALM, has_version=False, leased=True), None),
        (replace(CALM, has_version=False, silent=True), None),
        (replace(CALM, severity="low"), ("finetune", "drift")),
        (replace(CALM, severity="high"), ("retrain", "drift")),
        (replace(CALM, severity="high", leased=True), None),
        (replace(CALM, severity="high", tried={"drift": NEWLY}), None),
        (replace(CALM, severity="high", tried={"drift": LATELY}), ("retrain", "drift")),
        (replace(CALM, severity="high", tried={"first": NEWLY, "new_series": NEWLY}), ("retrain", "drift")),
        (replace(CALM, spec_changed=True, tried={"drift": NEWLY}), ("retrain", "configuration")),
        (replace(CALM, unlearnt=3), ("cold_start", "new_series")),
        (replace(CALM, unlearnt=3, tried={"new_series": NEWLY}), None),
        (replace(CALM, unlearnt=3, severity="low"), ("finetune", "drift")),
        (replace(CALM, unlearnt=3, severity="low", tried={"drift": NEWLY}), ("cold_start", "new_series")),
        (replace(CALM, unlearnt=3, tried={"drift": Tried(NOW - 1, repeats=9)}), ("cold_start", "new_series")),
    ],
)
def test_what_is_decided(facts: WatchFacts, decided: tuple[str, str] | None) -> None:
    """First version, configuration, drift, new series; a lease means nothing, and a cooldown holds its cause alone."""
    decision = decide(facts, NOW)
    assert (None if decision is None else (decision.kind, decision.cause)) == decided


def test_rest_grows_while_drift_is_not_cured() -> None:
    """Each drift action that did not help doubles the rest, up to sixteen cooldowns."""
    rests = []
    for repeats in range(7):
        facts = [
            replace(CALM, severity="high", tried={"drift": Tried(NOW - s, repeats=repeats)})
            for s in range(900, 20_000, 300)
        ]
        rests.append(next(NOW - one.tried["drift"].last_finished for one in facts if decide(one, NOW)))
    assert rests == [900, 1800, 3600, 7200, 14400, 14400, 14400]


def test_a_failed_cold_start_is_tried_again_ever_more_rarely() -> None:
    """Too little history at first start is retried within seconds, later at most hourly."""

    def again(failures: int, after: float) -> bool:
        facts = replace(CALM, has_version=False, tried={"first": Tried(NOW - after, failures)})
        return decide(facts, NOW) is not None

    assert (again(1, 19), again(1, 21)) == (False, True)
    assert again(30, LONGEST_WAIT_SECONDS + 1)
