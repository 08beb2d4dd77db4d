"""Bounds follow what comes, and stay where they are while nothing happens: simulated with a seed, closed loop."""

import numpy as np
import pytest

from sentinel_core.adaptation import LEAST, MOST, adapted

LEADS = np.array([1, 2, 4, 8, 12])
HOUR = 12  # steps of five minutes
Z = {0.8: 1.2816, 0.95: 1.96}


def live(noise: np.ndarray, level: float, *, follow: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Coverage [hours, n, leads] of forecasts of random walks with this noise [n, T], and mean widths [hours].

    The bounds were right for a noise of 1. What was forecast in an hour has the width of its first step.
    """
    rng = np.random.default_rng(4)
    n, steps = noise.shape
    sums = np.cumsum(np.pad(noise * rng.normal(size=noise.shape), ((0, 0), (1, 0))), axis=1)
    bound = Z[level] * np.sqrt(LEADS)
    logs, issued = np.zeros((n, len(LEADS), 2)), np.zeros((steps + 1, n, len(LEADS), 2))
    coverage, width = [], []
    for end in range(HOUR, steps + 1, HOUR):
        counts = np.zeros((3, n, len(LEADS)))
        for column, lead in enumerate(LEADS.tolist()):
            for at in range(max(lead, end - HOUR), end):
                error = sums[:, at + 1] - sums[:, at + 1 - lead]
                low, up = (bound[column] * np.exp(issued[at + 1 - lead, :, column, side]) for side in (0, 1))
                counts[:, :, column] += [np.ones(n), error < -low, error > up]
        coverage.append(1 - (counts[1] + counts[2]) / np.maximum(counts[0], 1))
        width.append(np.exp(logs).mean())
        if follow:
            logs = adapted(logs, counts, np.full(n, level), np.zeros(n, np.int64), LEADS, HOUR, 1.0)
        issued[end:] = logs
    return np.array(coverage), np.array(width)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [1, 10])
def test_nothing_is_lost_while_nothing_happens(level: float, n: int) -> None:
    """Over a month the coverage is the level at every lead, and the bounds are nearly as wide as the right ones."""
    coverage, width = live(np.ones((n, HOUR * 24 * 30)), level)
    np.testing.assert_allclose(coverage[24:].mean(axis=(0, 1)), level, atol=0.005)
    assert width.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("n", [1, 10])
def test_coverage_recovers_when_the_noise_doubles(n: int) -> None:
    """Within a day, of a single series too; left alone the bounds would hold two thirds of what they promise."""
    noise = np.ones((n, HOUR * 24 * 6))
    noise[:, HOUR * 24 :] = 2
    left, _ = live(noise, 0.95, follow=False)
    followed, width = live(noise, 0.95)
    assert left[48:].mean() < 0.75
    assert followed[48:].mean() == pytest.approx(0.95, abs=0.015)
    assert width[48:].mean() == pytest.approx(2, abs=0.25)


def test_each_series_has_its_own_width() -> None:
    """Where the noise of some wanders up and of others down, every one of them is covered as promised."""
    wander = np.linspace(0, 1, HOUR * 24 * 10)
    noise = np.exp(np.array([1.0, -0.6, 0.0, 0.8, -0.5, 0.3])[:, None] * np.sin(2 * np.pi * wander / 1.3))
    left, followed = (live(noise, 0.95, follow=follow)[0][24:].mean(axis=(0, 2)) for follow in (False, True))
    assert np.abs(left - 0.95).max() > 0.1
    assert np.abs(followed - 0.95).max() < 0.025


def test_far_leads_follow_near_ones() -> None:
    """What makes near leads miss widens a lead of a day at once, long before its own misses show."""
    counts = np.zeros((3, 10, 2))
    counts[:, :, 0] = [[12], [2], [2]]
    near, far = adapted(
        np.zeros((10, 2, 2)), counts, np.full(10, 0.95), np.zeros(10, np.int64), np.array([1, 288]), 12, 1
    )[0]
    assert (near > 0.1).all()
    np.testing.assert_allclose(far, near, rtol=0.05)


def test_sides_are_their_own() -> None:
    """Misses above alone move the upper bound away, and the lower one closer."""
    counts = np.zeros((3, 10, 1))
    counts[0], counts[2] = 12, 3
    lower, upper = adapted(np.zeros((10, 1, 2)), counts, np.full(10, 0.8), np.zeros(10, np.int64), LEADS[:1], HOUR, 1)[
        0, 0
    ]
    assert lower < 0 < upper


def test_widths_have_an_end() -> None:
    """Whatever comes, for however long: a bound stays within a factor, and series without forecasts keep theirs."""
    counts = np.zeros((3, 2, 2))
    counts[0], counts[1, 0], counts[2, 0] = 12, 6, 6
    logs, watch = np.zeros((2, 2, 2)), np.array([0, 1])
    for _ in range(400):
        logs = adapted(logs, counts, np.array([0.95, 0.8]), watch, LEADS[:2], HOUR, 1.0)
    np.testing.assert_allclose(np.exp(logs[0]), MOST)
    np.testing.assert_allclose(np.exp(logs[1]), LEAST)
    quiet = adapted(logs, np.zeros((3, 2, 2)), np.array([0.95, 0.8]), watch, LEADS[:2], HOUR, 1.0)
    np.testing.assert_array_equal(quiet, logs)
    assert adapted(logs[:0], counts[:, :0], np.zeros(0), watch[:0], LEADS[:2], HOUR, 1.0).shape == (0, 2, 2)
