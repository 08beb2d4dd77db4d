"""How likely and how soon a threshold is crossed: against plain simulations of processes whose errors are known."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from sentinel_core.thresholds import Crossing, crossings

LEADS = 24
LEVEL = 0.9
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
Process = Callable[[np.ndarray], np.ndarray]


def random_walk(shocks: np.ndarray) -> np.ndarray:
    return np.cumsum(shocks, axis=1)


def noise(shocks: np.ndarray) -> np.ndarray:
    return shocks


def autoregressive(shocks: np.ndarray) -> np.ndarray:
    path = np.zeros_like(shocks)
    for lead in range(shocks.shape[1]):
        path[:, lead] = shocks[:, lead] + (0.9 * path[:, lead - 1] if lead else 0.0)
    return path


def crossed_by(paths: np.ndarray, value: float) -> list[float]:
    """The share of paths that have been above a value by each lead."""
    return [float(np.mean([(path[: lead + 1] > value).any() for path in paths])) for lead in range(paths.shape[1])]


def one(mean: np.ndarray, spread: np.ndarray | float, **thresholds: float) -> Crossing:
    """Of one series whose bounds are as wide below as above: `spread` is a standard deviation."""
    [found] = crossings(mean[None], (mean - Z * spread)[None], (mean + Z * spread)[None], LEVEL, thresholds)
    return found


@pytest.mark.parametrize("process", [random_walk, noise, autoregressive])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_probability_and_time_are_those_of_simulated_paths(process: Process, slope: float) -> None:
    """Of a random walk, of noise and of what lies between, from nothing but each lead's forecast and bounds."""
    errors = process(np.random.default_rng(1).normal(size=(4_000, LEADS)))
    mean = slope * np.arange(1, LEADS + 1)
    for value in (1.5, 3.0, 5.0, 8.0):
        shares = crossed_by(mean + errors, value)
        found = one(mean, errors.std(axis=0), above=value)
        assert found.probability[0] == pytest.approx(shares[-1], abs=0.035), value
        if found.leads[0]:
            assert shares[found.leads[0] - 1] == pytest.approx(0.5, abs=0.1)  # a step changes as much
        else:
            assert shares[-1] < 0.535


def test_probabilities_are_calibrated() -> None:
    """Of what is said to happen with 90 % (or 10 or 50) so many do, over many forecasts of autoregressive series."""
    rng = np.random.default_rng(2)
    errors = autoregressive(rng.normal(size=(4_000, LEADS)))
    mean = rng.normal(0, 3, (4_000, 1)) + rng.normal(0, 0.2, (4_000, 1)) * np.arange(1, LEADS + 1)
    spread = Z * errors.std(axis=0)
    [found] = crossings(mean, mean - spread, mean + spread, LEVEL, {"above": 4.0})
    happened = (mean + errors > 4.0).any(axis=1)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        some = (found.probability >= low) & (found.probability < low + 0.2)
        assert some.sum() > 200
        assert happened[some].mean() == pytest.approx(found.probability[some].mean(), abs=0.05)
    half = found.leads > 0
    by_median = [(row[:lead] > 4.0).any() for row, lead in zip((mean + errors)[half], found.leads[half], strict=True)]
    assert 0.5 <= np.mean(by_median) < 0.85  # a step is coarse: many are across it at the first


def test_below_is_the_mirror_image_of_above() -> None:
    """Both may be asked for, each by its own side of the bounds."""
    mean, low, high = np.linspace(5, 3, LEADS)[None], 2.0, 0.5
    args = mean - low, mean + high
    above, below = crossings(mean, *args, LEVEL, {"below": 1.0, "above": 6.0})
    [mirrored] = crossings(-mean, -args[1], -args[0], LEVEL, {"above": -1.0})
    assert (str(above.threshold), str(below.threshold)) == ("above 6", "below 1")
    assert below.probability == mirrored.probability
    assert above.probability[0] < 0.1 < 0.2 < below.probability[0]


def test_bounds_are_quantiles_on_their_own_side() -> None:
    """At a single lead a bound is crossed as often as its level says, however lopsided the two are."""
    mean, lower, upper = np.full((1, 1), 10.0), np.full((1, 1), 2.0), np.full((1, 1), 11.0)
    above, below = crossings(mean, lower, upper, LEVEL, {"above": 11.0, "below": 2.0})
    assert above.probability[0] == pytest.approx(0.05, abs=1e-6)
    assert below.probability[0] == pytest.approx(0.05, abs=1e-6)
    [even] = crossings(mean, lower, upper, LEVEL, {"above": 9.99})
    assert even.probability[0] == pytest.approx(0.5, abs=0.01)
    assert even.leads[0] == 1


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e12, 1e300])
def test_units_do_not_matter(scale: float) -> None:
    """Bytes or ratios, the same series is as likely across the same threshold."""
    mean = np.linspace(0.5, 0.8, LEADS)
    plain, scaled = one(mean, 0.1, above=0.9), one(scale * mean, scale * 0.1, above=scale * 0.9)
    np.testing.assert_allclose(scaled.probability, plain.probability, atol=1e-6)
    assert scaled.leads == plain.leads


def test_certainty_is_certain() -> None:
    """Without any width the forecast decides; on the threshold is not across it."""
    mean = np.arange(1.0, 6.0)
    assert one(mean, 0.0, above=3.0).leads.tolist() == [4]
    assert one(mean, 0.0, above=3.0).probability.tolist() == [1.0]
    assert one(mean, 0.0, above=5.0).probability.tolist() == [0.0]
    assert one(mean, 0.0, above=5.0).leads.tolist() == [0]


def test_a_forecast_outside_of_its_own_bounds_is_drawn_in() -> None:
    """Where a model is biased its bounds are to one side of it, and they are what was measured."""
    mean, lower, upper = np.full((1, 4), 0.0), np.full((1, 4), 1.0), np.full((1, 4), 2.0)
    [found] = crossings(mean, lower, upper, LEVEL, {"above": 0.5})
    assert found.probability[0] > 0.97


@pytest.mark.parametrize(
    ("side", "value", "bounds"), [("below", 0.1, ()), ("below", 0.1, (0.0, 9.0)), ("above", 8.9, (0.0, 9.0))]
)
def test_bounds_that_are_cut_off_hide_no_crossing(side: str, value: float, bounds: tuple[float, ...]) -> None:
    """A queue that is often empty, a disk that may be full: beyond the limit the other side tells how wide it is."""
    normal = NormalDist(0.5, 2.0)
    lower, mean, upper = np.array([[[max(0.0, normal.inv_cdf(0.025))]], [[0.5]], [[normal.inv_cdf(0.975)]]])
    if side == "above":
        mean, lower, upper = 9 - mean, 9 - upper, 9 - lower
    [found] = crossings(mean, lower, upper, 0.95, {side: value}, bounds)
    assert found.probability[0] == pytest.approx(normal.cdf(0.1), abs=0.01)
    edge = dict(zip(("below", "above"), bounds or (0.0, 9.0), strict=True))[side]
    [never] = crossings(mean, lower, upper, 0.95, {side: edge}, bounds)
    assert never.probability[0] < 0.03


@pytest.mark.parametrize("gap", ["mean", "lower", "upper"])
def test_a_forecast_with_a_gap_says_nothing(gap: str) -> None:
    """A lead that is not known might be the one across; other series are as sure as ever."""
    parts = {name: np.full((2, 3), float(value)) for name, value in (("mean", 5), ("lower", 4), ("upper", 6))}
    parts[gap][0, 1] = np.nan
    [found] = crossings(**parts, level=LEVEL, thresholds={"above": 5.5})
    assert np.isnan(found.probability[0])
    assert found.leads[0] == 0
    assert np.isnan(found.seconds(60)[0])
    assert 0 < found.probability[1] < 1
    nobody = {name: part[:0] for name, part in parts.items()}
    assert crossings(**nobody, level=LEVEL, thresholds={"above": 1.0})[0].leads.shape == (0,)


def test_series_are_judged_alone() -> None:
    """Whatever other series there are, and however many, a series gets the same answer, every time."""
    rng = np.random.default_rng(3)
    mean, spread = rng.normal(size=(3_000, 5)), rng.exponential(size=(3_000, 5))
    [together] = crossings(mean, mean - spread, mean + spread, LEVEL, {"above": 1.0})
    for row in (0, 1_500, 2_999):
        own, wide = mean[row : row + 1], spread[row : row + 1]
        [alone] = crossings(own, own - wide, own + wide, LEVEL, {"above": 1.0})
        assert alone.probability[0] == together.probability[row]
        assert alone.leads[0] == together.leads[row]


def test_any_numbers_give_a_probability_or_none() -> None:
    """Forecasts that are huge, tiny, infinite or upside down neither warn nor leave [0, 1]."""
    rng = np.random.default_rng(4)
    odd = [0.0, 1.0, -1.0, 5e-324, 1e-300, 1e300, -1.7e308, 1.7e308, np.inf, -np.inf, np.nan]
    for side in ("above", "below"):
        mean, lower, upper = rng.choice(odd, (3, 2_000, 3))
        [found] = crossings(mean, lower, upper, LEVEL, {side: 1.0})
        known = np.isfinite(found.probability)
        assert 0 < known.sum() < 2_000
        assert ((found.probability[known] >= 0) & (found.probability[known] <= 1)).all()
        assert (found.leads[known] > 0).tolist() == (found.probability[known] >= 0.5).tolist()
        assert not found.leads[~known].any()
