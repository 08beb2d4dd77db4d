from typing import Any, Self

import numpy as np
import pytest

from sentinel_core import forecasts, training
from sentinel_core.errors import ModelError
from sentinel_core.forecasts import Fitted
from sentinel_core.models import SeasonalRidgeModel
from sentinel_core.models.base import BatchModel, Residuals
from sentinel_core.models.rows import held_back_origins
from sentinel_core.windows import FloatArray, Window

STEP = 60


class Shifted(BatchModel):
    """Last value plus a shift: an easy forecast to make right (shift 0) or wrong."""

    def fit_window(self, window: Window) -> None:
        self.fingerprints = window.fingerprints
        self.parameters = {"shift": np.full(len(window.fingerprints), float(self.model_params.get("shift", 0.0)))}
        self.seen = window.last

    def update_window(self, window: Window, new_steps: int) -> None:
        self.parameters = {"shift": self.parameters["shift"] / 2}
        self.seen = window.last

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        last = forecasts.last_values(window) + self.parameters["shift"]
        return np.repeat(last[:, None], steps, axis=1)

    def adopt(self, window: Window) -> Self:
        return self.with_rows(window.fingerprints, {"shift": np.zeros(len(window.fingerprints))})


def build(shift: float = 0.0) -> BatchModel:
    return Shifted("1m", "5m", "30m", shift=shift)


def walk(n: int = 4, steps: int = 200, seed: int = 0) -> Window:
    values = np.random.default_rng(seed).normal(size=(n, steps)).cumsum(axis=1)
    return Window(np.arange(n, dtype=np.int64), np.arange(steps, dtype=np.int64) * STEP, values, STEP)


def fitted(window: Window, shift: float) -> Fitted:
    return training.train(lambda: build(shift), window, version=1, level=0.95).fitted


def test_a_candidate_worse_than_its_champion_is_rejected_for_each_series() -> None:
    """Acceptance is judged per series on the same held-back origins."""
    window = walk()
    champion = fitted(window, 0.0)
    candidate = training.train(lambda: build(5.0), window, version=2, level=0.95, champion=champion)
    assert not candidate.accepted.any()
    assert (candidate.mae > candidate.champion_mae).all()
    back = training.train(lambda: build(0.0), window, version=3, level=0.95, champion=fitted(window, 5.0))
    assert back.accepted.all()


def test_a_champion_that_drifted_high_is_replaced_by_any_finite_candidate() -> None:
    """Where the champion has drifted high, the candidate need not have been better on the past."""
    window = walk()
    drifted = np.array([True, False, False, True])
    candidate = training.train(
        lambda: build(5.0), window, version=2, level=0.95, champion=fitted(window, 0.0), drifted=drifted
    )
    assert candidate.accepted.tolist() == drifted.tolist()


def test_a_candidate_that_is_not_finite_is_never_accepted() -> None:
    """NaN never replaces a serving model, not even a drifted one."""
    window = walk()
    candidate = training.train(
        lambda: build(float("nan")),
        window,
        version=2,
        level=0.95,
        champion=fitted(window, 0.0),
        drifted=np.ones(4, bool),
    )
    assert not candidate.accepted.any()


def test_a_series_without_a_champion_is_accepted() -> None:
    """A new series joins the next version whatever the others do."""
    window = walk()
    champion = fitted(window.rows(np.array([0, 1])), 0.0)
    candidate = training.train(lambda: build(5.0), window, version=2, level=0.95, champion=champion)
    assert candidate.accepted.tolist() == [False, False, True, True]


def test_validation_never_looks_ahead() -> None:
    """What is judged was fitted before the first held-back origin, and the champion itself is not touched."""
    window = walk()
    origins = held_back_origins(200, 30, 5)
    seen: list[int] = []

    class Spy(Shifted):
        def fit_window(self, window: Window) -> None:
            seen.append(window.last)
            super().fit_window(window)

    training.train(lambda: Spy("1m", "5m", "30m"), window, version=1, level=0.95)
    assert seen == [window.last, int(origins[0]) * STEP]


def test_a_finetune_continues_a_copy() -> None:
    """A finetune starts from the champion's parameters and leaves the champion as it was."""
    window = walk()
    champion = fitted(window.columns(slice(0, 180)), 4.0)
    candidate = training.train(
        lambda: build(4.0),
        window,
        version=2,
        level=0.95,
        champion=champion,
        champion_end=179 * STEP,
        finetune=True,
    )
    assert candidate.fitted.model.parameters["shift"].tolist() == [2.0] * 4
    assert champion.model.parameters["shift"].tolist() == [4.0] * 4
    assert candidate.accepted.all()


def test_a_finetune_without_a_champion_is_refused() -> None:
    """There is nothing to continue."""
    with pytest.raises(ModelError, match="retrain instead"):
        training.train(build, walk(), version=1, level=0.95, finetune=True)


def test_a_model_of_the_wrong_length_is_refused() -> None:
    """The message says what came and what was wanted."""

    class Short(Shifted):
        def predict_window(self, window: Window, steps: int) -> Any:
            return super().predict_window(window, steps)[:, :-1]

    with pytest.raises(ModelError, match=r"\(4, 4\)"):
        training.train(lambda: Short("1m", "5m", "30m"), walk(), version=1, level=0.95)


def test_training_starts_with_lookback_plus_horizon() -> None:
    """35 steps are enough for a lookback of 30 and a horizon of 5, and one step fewer is not."""
    window = walk(steps=35)
    assert training.enough_samples(window, 30, 5).all()
    assert not training.enough_samples(walk(steps=34), 30, 5).any()
    candidate = training.train(build, window, version=1, level=0.95)
    assert candidate.accepted.all()
    assert np.isfinite(candidate.mae).all()


def test_bounds_cover_what_they_say() -> None:
    """Over 400 random walks (seed 1) the 90 % bounds hold 86-94 % of the next actuals at every lead."""
    window = walk(400, 605, seed=1)
    past = window.columns(slice(0, 600))
    result = training.train(build, past, version=1, level=0.9).fitted
    forecast = forecasts.issue(result, past, 5)
    actual = window.values[:, 600:]
    inside = (actual >= forecast.lower) & (actual <= forecast.upper)
    assert (np.abs(inside.mean(axis=0) - 0.9) < 0.04).all(), inside.mean(axis=0)


class Judging(Shifted):
    """Tells its errors at leads 1 and 5 from the fit itself."""

    fits = 0

    def fit_window(self, window: Window) -> None:
        type(self).fits += 1
        super().fit_window(window)

    def fit_and_judge(self, window: Window) -> Residuals:
        self.fit_window(window)
        origins, leads = np.arange(30, window.values.shape[1] - 5), np.array([1, 5])
        errors = window.values[:, origins[:, None] + leads] - window.values[:, origins[:, None]]
        return Residuals(errors, leads, len(origins))


def test_a_model_that_judges_as_it_fits_costs_one_fit() -> None:
    """A first model's bounds and errors per lead come from that fit; leads between the measured ones are filled in."""
    Judging.fits = 0
    window = walk(50)
    candidate = training.train(lambda: Judging("1m", "5m", "30m"), window, version=1, level=0.9)
    twice = training.train(build, window, version=1, level=0.9)
    assert Judging.fits == 1
    assert candidate.accepted.all()
    assert candidate.coverage == pytest.approx(0.9, abs=0.05)
    assert (np.diff(candidate.fitted.mae.mean(axis=0)) > 0).all()
    np.testing.assert_allclose(candidate.fitted.mae.mean(axis=0), twice.fitted.mae.mean(axis=0), rtol=0.2)
    np.testing.assert_allclose(candidate.fitted.offsets.mean(axis=0), twice.fitted.offsets.mean(axis=0), rtol=0.5)


@pytest.mark.parametrize(("since", "fits"), [(2, 1), (60, 2)])
def test_a_comparison_that_is_fair_costs_a_fit(since: int, fits: int) -> None:
    """Where the champion has not seen much, its successor is measured there by one that has not either."""
    window = walk(4)
    past = window.columns(slice(0, 200 - since))
    champion = training.train(lambda: Judging("1m", "5m", "30m"), past, version=1, level=0.9).fitted
    Judging.fits = 0
    candidate = training.train(
        lambda: Judging("1m", "5m", "30m"), window, version=2, level=0.9, champion=champion, champion_end=past.last
    )
    assert Judging.fits == fits
    np.testing.assert_array_equal(candidate.compared_mae, candidate.champion_mae)


def test_forecasts_from_many_origins_are_those_from_each() -> None:
    """One call for many origins, an hour apart, says what a forecast from each of them does (seed 0)."""
    window, origins, leads = walk(steps=400), np.array([260, 320, 380]), np.array([1, 4, 5])
    for model in (build(1.0), SeasonalRidgeModel("1m", "5m", "30m")):
        model.fit_window(window.columns(slice(0, 260)))
        together = model.forecast_from(window, origins, leads)
        for k, origin in enumerate(origins.tolist()):
            alone = model.predict_window(window.columns(slice(0, origin + 1)), 5)
            np.testing.assert_allclose(together[:, k], alone[:, leads - 1], atol=0.05)


def test_the_champion_has_no_advantage_from_what_it_has_seen() -> None:
    """Retrained an hour after its champion on data alike, about as many candidates win as lose (seed 2)."""
    window = walk(200, 1_500, seed=2)
    window = window.columns(slice(0, 1_440))
    values = np.sin(np.arange(1_440) / 40)[None] * 3 + np.random.default_rng(2).normal(size=(200, 1_440))
    window = Window(window.fingerprints, window.timestamps, values, STEP)

    class Memorising(Shifted):
        """Knows every value that it was fitted on: the worst case of an unfair comparison."""

        def fit_window(self, window: Window) -> None:
            super().fit_window(window)
            self.parameters["memory"] = np.pad(window.values, ((0, 0), (0, 1_500 - window.values.shape[1])))
            self.parameters["seen"] = np.full(len(window.fingerprints), window.values.shape[1])

        def predict_window(self, window: Window, steps: int) -> FloatArray:
            at = window.last // STEP + 1
            known = int(self.parameters["seen"][0]) if len(self.fingerprints) else 0
            forecast = super().predict_window(window, steps)
            if at + steps <= known:
                return self.parameters["memory"][:, at : at + steps].copy()
            return forecast

    def build_memorising() -> BatchModel:
        return Memorising("1m", "5m", "30m")

    for since in (5, 60):
        past = window.columns(slice(0, 1_440 - since))
        champion = training.train(build_memorising, past, version=1, level=0.9).fitted
        candidate = training.train(
            build_memorising, window, version=2, level=0.9, champion=champion, champion_end=past.last
        )
        assert candidate.accepted.mean() > 0.4, since


def test_coverage_is_measured_on_what_the_bounds_have_not_seen() -> None:
    """With few origins the stated coverage is what the bounds will hold, not what they were made to hold (seed 3)."""
    window = walk(300, 80, seed=3)
    past = window.columns(slice(0, 75))
    result = training.train(build, past, version=1, level=0.9)
    forecast = forecasts.issue(result.fitted, past, 5)
    inside = (window.values[:, 75:] >= forecast.lower) & (window.values[:, 75:] <= forecast.upper)
    assert result.coverage == pytest.approx(inside.mean(), abs=0.04)
