"""How good forecasts turned out to be: every formula against a slow loop."""

import numpy as np
import pytest

from sentinel_core import verification
from sentinel_core.windows import Window


def test_quality_is_that_of_a_loop() -> None:
    """Of any series and leads of several watches: means per series, medians and shares over series."""
    rng = np.random.default_rng(3)
    keys = [(w, f, lead) for w in (7, 2) for f in range(9) for lead in (1, 2, 5) if rng.random() < 0.8]
    rows = {
        name: np.array(column) for name, column in zip(("watch", "fp", "lead"), zip(*keys, strict=True), strict=True)
    }
    n = rng.integers(0, 4, len(keys))
    rows |= {
        "n": n,
        "below": rng.binomial(n, 0.2),
        "error": n * rng.random(len(n)),
        "naive": n * rng.integers(0, 3, len(n)),
    }
    rows |= {"above": np.minimum(n - rows["below"], 1), "bias": rows["error"] * rng.choice([-1, 1], len(n))}
    found = verification.qualities(rows)
    expected = []
    for watch, lead in sorted({(w, lead) for (w, _, lead), many in zip(keys, n, strict=True) if many}):
        mine = [i for i, (w, _, one) in enumerate(keys) if (w, one) == (watch, lead) and n[i]]
        total = sum(n[i] for i in mine)
        ratios = [rows["error"][i] / rows["naive"][i] if rows["naive"][i] else np.inf for i in mine]
        expected.append(
            {
                "watch": watch,
                "lead": lead,
                "samples": total,
                "series": len(mine),
                "mae": np.median([rows["error"][i] / n[i] for i in mine]),
                "mase": np.median(ratios),
                "bias": np.median([rows["bias"][i] / n[i] for i in mine]),
                "coverage": sum(n[i] - rows["below"][i] - rows["above"][i] for i in mine) / total,
                "above": sum(rows["above"][i] for i in mine) / total,
                "better_share": np.mean([rows["error"][i] < rows["naive"][i] for i in mine]),
            }
        )
    for name in expected[0]:
        np.testing.assert_allclose(found[name], [one[name] for one in expected], err_msg=name)


def test_sums_are_those_of_a_loop() -> None:
    """Of the steps where all is known; forecasts that are too high have a bias above 0."""
    actual = np.array([[[1.0, 5.0, np.nan, 9.0, 2.0]]])
    mean, naive = np.full((1, 1, 5), 4.0), np.array([[[1.0, 3.0, 3.0, np.nan, 4.0]]])
    found = verification.sums(actual, mean, mean - 1.0, mean + 2.0, naive)
    wanted = {"n": 3, "below": 2, "above": 0, "error": 3 + 1 + 2, "bias": 3 - 1 + 2, "naive": 0 + 2 + 2}
    assert dict(zip(verification.ADDED, found[:, 0, 0].tolist(), strict=True)) == wanted


def test_series_that_nobody_can_miss_say_nothing_of_mase() -> None:
    """Where forecast and seasonal naive are both right there is no ratio, and of only such series none at all."""
    rows = {name: np.array([4.0, 4.0]) for name in verification.ADDED}
    rows |= {"watch": np.array([1, 1]), "lead": np.array([1, 1])}
    rows |= {"error": np.array([0.0, 2.0]), "naive": np.array([0.0, 4.0])}
    assert verification.qualities(rows)["mase"].tolist() == [0.5]
    rows |= {"error": np.zeros(2), "naive": np.zeros(2)}
    assert np.isnan(verification.qualities(rows)["mase"]).all()
    nothing = {name: column[:0] for name, column in rows.items()}
    assert len(verification.qualities(nothing)["mase"]) == 0


def test_a_seasonal_naive_forecast_is_the_day_before_or_the_last_value() -> None:
    """Where the day before is unknown it is the last value that was known at the origin."""
    values = np.array([[np.nan, 1.0, 2.0, np.nan, 4.0, 5.0, 6.0]])
    window = Window(np.array([1]), np.arange(7) * 60, values, 60)
    before = [np.array([[np.nan, 8.0, np.nan]]), np.array([[9.0, np.nan, np.nan]])]
    found = verification.seasonal_naive(window, before, [1, 3])
    np.testing.assert_array_equal(found, [[[2.0, 8.0, 5.0], [9.0, 2.0, 2.0]]])


@pytest.mark.parametrize("step", [1, 7, 15, 60, 300, 3_600, 7_200, 86_400])
def test_rounds_are_whole_steps(step: int) -> None:
    """However long a step is, a round is some of them, and a first one is no longer than a later one."""
    early, later = (verification.round_seconds(step, young=young) for young in (True, False))
    assert early % step == later % step == 0
    assert step <= early <= later


@pytest.mark.parametrize(("series", "lead"), [(1, 1), (10, 1), (10, 12), (40, 96)])
def test_chance_alone_seldom_makes_bounds_too_narrow(series: int, lead: int) -> None:
    """Errors of overlapping forecasts come together, and so do those of a watch's series: seed 11, 400 days each."""
    rng = np.random.default_rng(11)
    steps, days = 288, 400
    shocks = rng.normal(size=(days, series, steps + lead)) + 0.5 * rng.normal(size=(days, 1, steps + lead))
    sums = np.cumsum(np.pad(shocks, ((0, 0), (0, 0), (1, 0))), axis=2)
    errors = sums[:, :, lead:] - sums[:, :, :-lead]  # of a random walk, a lead ahead
    inside = np.abs(errors) <= 1.96 * np.sqrt(1.25 * lead)
    coverage = inside.mean(axis=(1, 2))
    least = verification.least_coverage(0.95, inside[0].size, series, lead * 300)
    assert (coverage < least).mean() <= 0.01
    narrow = np.abs(errors) <= 0.6 * 1.96 * np.sqrt(1.25 * lead)
    if lead <= 12 and series > 1:
        assert (narrow.mean(axis=(1, 2)) < least).mean() >= 0.95
