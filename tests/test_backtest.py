"""Origins that never look ahead, scores that slow loops confirm, and advice that one lucky day does not change."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core import backtest, training
from sentinel_core.backtest import NAIVE, SCORES, Advice, Judged, Standing, advise, folds, judge, standing
from sentinel_core.models import LinearTrendModel
from sentinel_core.windows import FloatArray, Window

LEADS = (1, 2, 4)
STEPS = st.integers(1, 60)


@given(samples=st.integers(0, 3_000), history=st.integers(2, 2_000), lookback=STEPS, horizon=STEPS)
def test_no_fold_looks_ahead(samples: int, history: int, lookback: int, horizon: int) -> None:
    """A training ends where its origins begin, the next begins after them; every forecast is about what is known."""
    found = folds(samples, history, lookback, horizon)
    assert bool(found) is (samples >= lookback + 2 * horizon and samples - horizon - 1 >= samples // 2)
    newest = -1
    for fold in found:
        assert 0 < fold.seen.stop - fold.seen.start <= history
        assert fold.seen.start == 0 or fold.seen.stop - fold.seen.start == history
        assert fold.seen.stop >= max(samples // 2, lookback + horizon)
        assert (np.diff(fold.origins) > 0).all()
        assert max(newest, fold.seen.stop - 2) < fold.origins[0]
        newest = int(fold.origins[-1])
        assert newest + horizon < samples


def test_origins_meet_every_minute_of_the_hour() -> None:
    """A stride that shares a factor with the hour would judge a model by the same minutes again and again."""
    origins = np.concatenate([fold.origins for fold in folds(20_160, 10_080, 30, 5)])
    assert len(origins) == backtest.FOLDS * backtest.ORIGINS
    assert len(set((origins % 60).tolist())) > 40


def wave(n: int = 3, steps: int = 600) -> Window:
    rng = np.random.default_rng(1)
    values = 10 + np.sin(np.arange(steps) / 30) + rng.normal(0, 0.3, (n, steps))
    values[1, 400:420] = np.nan
    return Window(np.arange(n), 60 * np.arange(steps), values, 60)


def test_what_comes_after_a_forecast_does_not_change_it() -> None:
    """Errors at an origin are the same whatever lies beyond its horizon."""
    window, build = wave(), partial(LinearTrendModel, "1m", "4m", "30m")
    [fold, *_] = folds(600, 300, 30, 4)
    fitted = training.train(build, window.columns(fold.seen), version=1, level=0.9).fitted
    errors, inside = judge(fitted, window, fold.origins[:3], LEADS, {})
    changed = window.values.copy()
    changed[:, fold.origins[2] + 5 :] = 1e6
    other, _ = judge(fitted, replace(window, values=changed), fold.origins[:3], LEADS, {})
    np.testing.assert_array_equal(errors, other)
    for row in range(3):
        for place, origin in enumerate(fold.origins[:3]):
            mean = fitted.model.predict_window(window.columns(slice(origin - 29, origin + 1)), 4)[row]
            for column, lead in enumerate(LEADS):
                actual = window.values[row, origin + lead]
                low, high = mean[lead - 1] + fitted.offsets[row, lead - 1]
                assert errors[row, place, column] == pytest.approx(actual - mean[lead - 1], nan_ok=True)
                assert inside[row, place, column] == pytest.approx(float(low <= actual <= high), abs=1e-12)


def judged(seed: int = 0, n: int = 4, origins: int = 9) -> Judged:
    """Random errors, some unknown; the last series' day never differs from the one before."""
    rng = np.random.default_rng(seed)
    shape = n, origins, len(LEADS)
    errors = np.where(rng.random(shape) < 0.2, np.nan, rng.normal(0.2, 1, shape))
    naive = rng.normal(0, 2, shape)
    naive[-1] = 0
    naive[0, 0] = np.nan  # its day before is not known
    return Judged(errors, np.where(np.isfinite(errors), (np.abs(errors) < 1).astype(float), np.nan), naive)


def slowly(name: str, errors: FloatArray, inside: FloatArray, naive: FloatArray) -> float:
    """A score of one series and lead, origin by origin."""
    known = [k for k in range(len(errors)) if not math.isnan(errors[k])]
    if not known:
        return math.nan
    mae = sum(abs(errors[k]) for k in known) / len(known)
    if name == "mae":
        return mae
    if name == "bias":
        return sum(-errors[k] for k in known) / len(known)
    if name == "coverage":
        return sum(inside[k] for k in known) / len(known)
    both = [k for k in known if not math.isnan(naive[k])]
    usual = sum(abs(naive[k]) for k in both)
    return sum(abs(errors[k]) for k in both) / usual if usual else math.nan


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("origins", [1, 2, 9])
def test_scores_are_what_slow_loops_say(name: str, origins: int) -> None:
    """Each score of each series and lead, with unknown actuals and a naive that is never wrong."""
    one = judged(origins=origins)
    wanted = [
        [
            slowly(name, one.errors[row, :, lead], one.inside[row, :, lead], one.naive[row, :, lead])
            for lead in range(len(LEADS))
        ]
        for row in range(4)
    ]
    np.testing.assert_allclose(SCORES[name](one), wanted, rtol=1e-12)


def test_a_standing_is_the_median_over_series_and_the_mean_of_their_coverage() -> None:
    """Over all folds at once; overall it is the geometric mean of the MASE at the first, middle and last lead."""
    parts = [judged(0), judged(1, origins=5)]
    whole = Judged(
        *(np.concatenate([getattr(part, name) for part in parts], 1) for name in ("errors", "inside", "naive"))
    )
    found = standing("M", parts, LEADS, cpu_ms=1.5)
    for name in ("mae", "mase", "bias"):
        wanted = [np.median([x for x in column if not math.isnan(x)]) for column in SCORES[name](whole).T]
        np.testing.assert_allclose(found.scores[name], wanted)
    np.testing.assert_allclose(found.scores["coverage"], SCORES["coverage"](whole).mean(axis=0))
    assert found.overall == pytest.approx(math.prod(found.scores["mase"]) ** (1 / 3))
    assert found.by_fold == tuple(standing("M", [part], LEADS).overall for part in parts)
    assert found.cpu_ms == 1.5


def test_without_anything_to_compare_with_there_is_no_score() -> None:
    """A constant series has no MASE, and is no reason to change a model."""
    flat = Judged(np.zeros((2, 3, 3)), np.ones((2, 3, 3)), np.zeros((2, 3, 3)))
    found = standing("M", [flat], LEADS)
    assert found.scores["mae"] == (0.0, 0.0, 0.0)
    assert math.isnan(found.overall)
    assert advise([found], "M").model is None
    assert "Nothing can be said" in advise([found], "M").text


def stood(model: str, overall: float, *by_fold: float, problem: str | None = None) -> Standing:
    return Standing(model, {}, overall, by_fold or (overall,) * 4, problem=problem)


@pytest.mark.parametrize(
    ("others", "own", "advice"),
    [
        (
            [stood("B", 0.5)],
            stood("A", 0.8),
            Advice(
                "Take B instead of A: its error is 38% lower (MASE 0.50 against 0.80), better in 4 of 4 trainings.", "B"
            ),
        ),
        ([stood("B", 0.9)], stood("A", 0.8), Advice("Keep A: no other model is better than its MASE of 0.80.")),
        (
            [stood("B", 0.79)],
            stood("A", 0.8),
            Advice("Keep A: B is hardly better (MASE 0.79 against 0.80, better in 4 of 4 trainings)."),
        ),
        (
            [stood("B", 0.5, 0.1, 0.1, 0.9, 0.9)],
            stood("A", 0.8),
            Advice("Keep A: B is hardly better (MASE 0.50 against 0.80, better in 2 of 4 trainings)."),
        ),
        (
            [stood(NAIVE, 1.0), stood("B", 1.2)],
            stood("A", 1.5),
            Advice(
                "Take B instead of A: its error is 20% lower (MASE 1.20 against 1.50), better in 4 of 4 trainings."
                " None is better than repeating the day before, whose MASE is 1.",
                "B",
            ),
        ),
        (
            [stood("B", 0.5)],
            stood("A", math.nan, problem="it hung"),
            Advice("A could not be judged (it hung); B does best: MASE 0.50. Write it.", "B"),
        ),
        (  # a metric that hardly ever moves: whoever repeats it makes no error
            [stood("B", 0.0)],
            stood("A", 0.0),
            Advice("Keep A: B is hardly better (MASE 0.00 against 0.00, better in 0 of 4 trainings)."),
        ),
        (
            [stood("B", 0.0)],
            stood("A", 1e-9),
            Advice("Keep A: B is hardly better (MASE 0.00 against 0.00, better in 4 of 4 trainings)."),
        ),
        (
            [stood("B", 0.5, problem="3 series: it hung")],
            stood("A", 0.8),
            Advice("Keep A: no other model is better than its MASE of 0.80."),
        ),
    ],
)
def test_advice(others: list[Standing], own: Standing, advice: Advice) -> None:
    """Another model is recommended where it is clearly and steadily better, in words that say by how much."""
    assert advise([*others, own], "A") == advice


def test_parameters_of_the_old_model_do_not_stay() -> None:
    """Where another model is taken, the old one's model_params have to go."""
    text = advise([stood("B", 0.5), stood('A {"p": 2}', 0.8)], 'A {"p": 2}', params=True).text
    assert text.startswith('Take B instead of A {"p": 2} and remove model_params: ')


def test_leads() -> None:
    """The first, the middle and the last lead are told, and drawn among the powers of two."""
    assert backtest.reported_leads(2) == (1, 2)
    assert backtest.judged_leads(5) == (1, 2, 3, 4, 5)
    assert backtest.judged_leads(288) == (1, 2, 4, 8, 16, 32, 64, 128, 144, 256, 288)
