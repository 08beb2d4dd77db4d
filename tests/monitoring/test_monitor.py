from dataclasses import replace

import numpy as np
import pytest

from sentinel_core.config import MonitorConfig
from sentinel_core.monitoring import monitor, psi
from sentinel_core.monitoring.monitor import (
    PRIOR_DAYS,
    PRIOR_VARIATION,
    SELDOM,
    UNKNOWN_WEEKDAYS,
    Frozen,
    Settings,
    State,
    Verdicts,
)

CONFIG = MonitorConfig()
FLAT = np.full(10, 0.1)
MOVED = np.array([0.055, 0.068, 0.078, 0.087, 0.095, 0.104, 0.113, 0.123, 0.135, 0.142])  # a PSI of about 0.08
FAR = np.array([0.02, 0.03, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.21])  # a PSI of 0.43


def _assess(
    blocks: np.ndarray,
    history: int | None = None,
    config: MonitorConfig = CONFIG,
    per_day: int = 1,
    frozen: Frozen | None = None,
    excluded: np.ndarray | None = None,
) -> Verdicts:
    """One subject [K, W]."""
    ages = np.array([len(blocks) if history is None else history])
    return monitor.assess(
        blocks[None], per_day, ages, Settings.of([config]), frozen, None if excluded is None else excluded[None]
    )


def _days(rng: np.random.Generator, days: int, events: float, shares: np.ndarray = FLAT) -> np.ndarray:
    return rng.poisson(np.broadcast_to(shares * events, (days, len(shares)))).astype(float)


def _slow(
    blocks: np.ndarray, per_day: int, history: int, config: MonitorConfig, excluded: np.ndarray
) -> dict[str, float | np.ndarray]:
    """One subject, window by window, as the rule reads."""
    depth = min(len(blocks), 42 * per_day)
    history = min(history, depth)

    def window(age: int, size: int) -> np.ndarray:
        return blocks[age : age + size].sum(axis=0)

    def clean(age: int, size: int) -> bool:
        return age + size <= history and not excluded[age : age + size].any()

    def baseline(age: int, size: int, step: int, wanted: int) -> np.ndarray:
        starts = [first for first in range(age + step, depth - size + 1, step) if clean(first, size)][:wanted]
        return sum((window(first, size) for first in starts), np.zeros(blocks.shape[1]))

    size = max(config.current_hours // 24 * per_day, 1)
    for days in range(1, config.max_current_days + 1):
        longer = days * per_day
        if window(0, size).sum() < config.min_samples and longer > size and longer <= history:
            size = longer
    step, wanted = 7 * per_day, config.baseline_weeks
    if config.baseline == "preceding":
        step = max(size, per_day)
        wanted = max(config.baseline_days * per_day // step, 1)
    found = baseline(0, size, step, wanted)
    young = config.baseline == "same_weekday" and found.sum() == 0
    if young:
        step = max(size, per_day)
        wanted = max(7 * per_day // step, 1)
        found = baseline(0, size, step, wanted)
    ratios = []
    for age in range(1, depth - step - size + 1):
        now, before = window(age, size), baseline(age, size, step, wanted)
        if clean(age, size) and now.sum() and before.sum():
            expected = (((now + before) > 0).sum() - 1) * (1 / now.sum() + 1 / before.sum())
            if expected > 0:
                ratios.append(float(psi.psi(before, now)) / expected)
    current = window(0, size)
    n, m = found.sum(), current.sum()
    if n < config.min_samples or m < config.min_samples:
        return {"size": size, "baseline": found}
    k, freedom = 1 / n + 1 / m, ((found + current) > 0).sum() - 1
    evidence = len(ratios) / max(size, per_day)
    total = sum(ratios) / max(size, per_day)
    weight = PRIOR_DAYS**2 / (PRIOR_DAYS + evidence)
    phi = max(1.0, (weight * (1 + PRIOR_VARIATION / (freedom * k)) + total) / (weight + evidence))
    floor = freedom * k * phi
    limit = max(floor + config.warn, floor + SELDOM * (k + floor - freedom * k), floor + UNKNOWN_WEEKDAYS * young)
    return {"size": size, "baseline": found, "phi": phi, "floor": floor, "at_least": limit}


@pytest.mark.parametrize("seed", range(24))
def test_verdicts_equal_the_slow_oracle(seed: int) -> None:
    """Windows, baselines, natural variation and limits of many different subjects at once are those of each alone."""
    rng = np.random.default_rng(seed)
    hours = int(rng.choice([6, 24, 48]))
    per_day = 24 // min(24, hours)
    configs = [
        MonitorConfig(
            current_hours=hours,
            baseline=str(rng.choice(["same_weekday", "preceding"])),
            baseline_weeks=int(rng.integers(2, 6)),
            baseline_days=int(rng.integers(1, 15)),
            max_current_days=int(rng.integers(2, 8)),
            min_samples=int(rng.choice([50, 200])),
        )
        for _ in range(8)
    ]
    depth = int(rng.integers(20, 45)) * per_day
    blocks = rng.poisson(rng.uniform(0.5, 60, (8, depth, 1)) / per_day, (8, depth, 11)).astype(float)
    history = rng.integers(0, depth + 20, 8)
    excluded = rng.random((8, depth)) < 0.05
    for row in range(8):
        blocks[row, history[row] :] = 0
    found = monitor.assess(blocks, per_day, history, Settings.of(configs), None, excluded)
    for row in range(8):
        one = _slow(blocks[row], per_day, int(history[row]), configs[row], excluded[row])
        assert found.days[row] == one["size"] // per_day
        assert found.baseline_counts[row].tolist() == one["baseline"].tolist()
        if "phi" in one:
            assert found.phi[row] == pytest.approx(one["phi"])
            assert found.floor[row] == pytest.approx(one["floor"])
            assert found.limit[row] >= one["at_least"] - 1e-12
            assert found.state[row] <= State.CRITICAL or not blocks[row, : max(hours // 24 * per_day, 1)].sum()
        else:
            assert found.state[row] >= State.INSUFFICIENT_DATA


def test_a_shift_is_critical_and_noise_is_not() -> None:
    """After five weeks, 480 events a day: the same distribution is ok, a PSI of 0.43 is critical, and says how sure."""
    rng = np.random.default_rng(1)
    past = _days(rng, 35, 480)
    calm, moved = _assess(past), _assess(np.concatenate([_days(rng, 1, 480, FAR), past[:-1]]))
    assert calm.state[0] == State.OK
    assert calm.calm[0]
    assert moved.state[0] == State.CRITICAL
    assert not moved.calm[0]
    assert moved.lower[0] < 0.43 < moved.upper[0]
    assert moved.p[0] < 1e-9
    assert moved.psi[0] > moved.limit[0] > moved.floor[0] > 0
    assert moved.adjusted[0] == pytest.approx(moved.psi[0] - moved.floor[0])


def test_thresholds_are_the_users() -> None:
    """A moderate shift is nothing, a warning or critical as the model's own thresholds say."""
    rng = np.random.default_rng(2)
    blocks = np.concatenate([_days(rng, 1, 9_600, MOVED), _days(rng, 34, 9_600)])
    states = [
        _assess(blocks, config=replace(CONFIG, resolve=0.02, warn=warn, critical=critical)).state[0]
        for warn, critical in ((0.2, 0.3), (0.06, 0.3), (0.05, 0.055))
    ]
    assert states == [State.OK, State.WARNING, State.CRITICAL]


def test_the_window_grows_by_days_until_there_are_enough_events() -> None:
    """Sixty events a day make a window of four days; seven are the most, and 20 a day are too few for a verdict."""
    rng = np.random.default_rng(3)
    grown, scarce = _assess(_days(rng, 40, 62)), _assess(_days(rng, 40, 20))
    assert grown.days[0] == 4
    assert grown.state[0] == State.OK
    assert scarce.days[0] == 7
    assert scarce.state[0] == State.INSUFFICIENT_DATA
    assert np.isnan([scarce.psi[0], scarce.adjusted[0], scarce.limit[0]]).all()
    assert not scarce.calm[0]


def test_a_small_window_may_alarm_but_not_reassure() -> None:
    """With 130 of 200 events in a day a gross shift is critical at once, and its absence takes a window of two days."""
    rng = np.random.default_rng(13)
    past = _days(rng, 41, 130)
    gross = np.zeros(10)
    gross[-3:] = 1 / 3
    found = _assess(np.concatenate([_days(rng, 1, 130, gross), past]))
    assert (found.days[0], found.state[0]) == (1, State.CRITICAL)
    assert found.n_current[0] < 200
    calm = _assess(np.concatenate([_days(rng, 1, 130), past]))
    assert (calm.days[0], calm.state[0]) == (2, State.OK)
    few = _assess(np.concatenate([_days(rng, 1, 80, gross), _days(rng, 41, 80)]))
    assert few.days[0] == 3


def test_weekends_are_compared_with_weekends() -> None:
    """Other scores and a third of the traffic every seventh day are normal by the second week, and drift on others."""
    rng = np.random.default_rng(4)
    blocks = _days(rng, 40, 900)
    for age in range(0, 40, 7):
        blocks[age] = rng.poisson(300 * FAR)
    assert _assess(blocks).state[0] == State.OK
    assert _assess(blocks, history=9).state[0] == State.OK
    blocks[0] = rng.poisson(900 * FAR)
    shifted = np.concatenate([blocks[1:8], blocks[1:]])
    shifted[0] = rng.poisson(900 * FAR)
    assert _assess(shifted).state[0] == State.CRITICAL


def test_the_first_week_has_a_higher_bar() -> None:
    """With five days of history a PSI of 0.43 may be a weekend; one of two standard deviations is drift even then."""
    rng = np.random.default_rng(5)
    past = _days(rng, 5, 900)
    weekend = _assess(np.concatenate([_days(rng, 1, 900, FAR), past]))
    assert weekend.adjusted[0] > CONFIG.critical
    assert weekend.state[0] == State.OK
    assert weekend.limit[0] > UNKNOWN_WEEKDAYS
    gross = np.zeros(10)
    gross[-2:] = 0.5
    assert _assess(np.concatenate([_days(rng, 1, 900, gross), past])).state[0] == State.CRITICAL


def test_days_that_differ_widen_the_normal_range() -> None:
    """A mean that wanders from day to day raises floor and limit; the same difference of one day is drift elsewhere."""
    rng = np.random.default_rng(6)
    tilt = np.linspace(-1, 1, 10)
    steady = _days(rng, 42, 4_800)
    lively = np.array([rng.poisson(480 * np.exp(rng.normal(0, 0.3) * tilt)) for _ in range(42)], float)
    steady[0] = lively[0] = rng.poisson(480 * np.exp(0.65 * tilt))
    calm, wide = _assess(steady), _assess(lively)
    assert calm.state[0] >= State.WARNING
    assert wide.state[0] == State.OK
    assert wide.phi[0] > 4 * calm.phi[0]
    assert wide.floor[0] > 4 * calm.floor[0]


def test_hours_of_an_incident_are_no_baseline() -> None:
    """A week of drift that ended is neither compared with nor learnt from; without its exclusion it would be."""
    rng = np.random.default_rng(7)
    blocks = _days(rng, 42, 480)
    blocks[5:12] = _days(rng, 7, 480, FAR)
    excluded = np.zeros(42, bool)
    excluded[5:12] = True
    kept, without = _assess(blocks), _assess(blocks, excluded=excluded)
    assert without.phi[0] < 1.5 < kept.phi[0]
    assert without.baseline_counts[0].tolist() == blocks[[14, 21, 28, 35]].sum(axis=0).tolist()


def _frozen(profile: np.ndarray, hours: int, phi: float = np.nan, lasting: int = -1) -> Frozen:
    return Frozen(np.array([0]), profile, np.array([hours]), np.array([phi]), np.array([lasting]))


def test_a_frozen_baseline_keeps_weekdays_and_never_heals() -> None:
    """Two months after a shift, the profile of before still tells it on each day of the week, and tells its end."""
    rng = np.random.default_rng(8)
    weekday = [FLAT] * 5 + [FAR] * 2  # by age: what is a weekend at age 5 and 6

    def days(count: int, first: int, reverse: bool) -> np.ndarray:
        shares = [weekday[(first + age) % 7] for age in range(count)]
        return np.array([rng.poisson(600 * (one[::-1] if reverse else one)) for one in shares], float)

    past = np.repeat(days(42, 0, False) / 24, 24, axis=0)
    profile = monitor.profile(past[None], np.array([42 * 24]), np.array([4]), np.array([24]))
    assert profile[0, 0].tolist() == past[[168, 336, 504, 672]].sum(axis=0).tolist()
    assert profile[0, 72].tolist() == past[[72, 240, 408, 576]].sum(axis=0).tolist()
    for later in range(1, 60):
        frozen = _frozen(profile, later * 24, 1.0, later * 24)
        same = _assess(days(42, -later % 7, False), frozen=frozen)
        assert same.state[0] == State.OK
        if weekday[-later % 7] is FAR:
            moved = _assess(days(42, -later % 7, True), frozen=frozen)
            assert moved.state[0] == State.CRITICAL
            assert not moved.calm[0]


def test_a_frozen_baseline_is_that_of_the_same_hours() -> None:
    """Six hours after a profile, the baseline of a day is 18 hours of its newest day and six of a week before."""
    profile = np.arange(168.0)[None, :, None] * np.ones((1, 168, 2))
    found = _assess(np.full((10, 2), 500.0), frozen=_frozen(profile, 6))
    assert found.baseline_counts[0].tolist() == [float(sum(range(18)) + sum(range(162, 168)))] * 2


def test_a_profile_without_the_whole_week_is_taken_as_one() -> None:
    """A pinned span of three hours is one histogram, whatever the hour."""
    counts = np.array([[100.0, 0], [200, 10], [300, 20]])
    profile = monitor.profile(counts[None], np.array([3]), np.array([4]), np.array([0]))
    assert np.isnan(profile[0, 3:]).all()
    found = _assess(np.full((20, 2), 500.0), frozen=_frozen(profile, 100))
    assert found.baseline_counts[0].tolist() == [600.0, 30.0]


def test_an_incident_ends_by_later_events_alone() -> None:
    """A window that reaches back to before the incident opened is not calm, whatever it says."""
    profile = np.full((1, 168, 10), 10.0)
    blocks = np.full((42, 10), 24.0)
    calm = [_assess(blocks, frozen=_frozen(profile, hours, 1.0, hours)).calm[0] for hours in (1, 23, 24, 200)]
    assert calm == [False, False, True, True]


def test_silence_is_told_from_a_quiet_hour_of_the_week() -> None:
    """No events where every such day had some is silence; where one of them had none, or few, it is not."""
    rng = np.random.default_rng(9)
    blocks = _days(rng, 42, 480)
    blocks[0] = 0
    stopped = _assess(blocks)
    assert stopped.state[0] == State.NO_DATA
    assert stopped.silent[0]
    assert not stopped.calm[0]
    closed = blocks.copy()
    closed[[7, 14, 21, 28, 35]] = 0
    assert _assess(closed).state[0] == State.NO_DATA
    assert not _assess(closed).silent[0]
    assert not _assess(np.where(np.arange(42)[:, None] > 0, 1.0, 0.0) * np.ones(10)).silent[0]


def test_silence_in_the_first_week_takes_longer_than_a_weekend() -> None:
    """Two days without events may be a weekend while none was seen yet; three are not."""
    rng = np.random.default_rng(10)
    past = _days(rng, 4, 480)
    assert not _assess(np.concatenate([np.zeros((2, 10)), past])).silent[0]
    assert _assess(np.concatenate([np.zeros((3, 10)), past])).silent[0]
    assert not _assess(np.zeros((3, 10))).silent[0]


def test_new_bins_are_due_as_the_history_doubles() -> None:
    """Bins are made after 1, 2, 4, … 32 days and every four weeks from then on."""
    due, fitted = [], 0
    for day in range(120):
        if monitor.refit_due(np.array([day]), np.array([fitted]))[0]:
            due.append(day)
            fitted = day
    assert due == [1, 2, 4, 8, 16, 32, 60, 88, 116]
