"""Every built-in passes the suite, and the suite finds what it is meant to find."""

from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pytest

from sentinel_core.models import (
    ARIMAModel,
    AutoModel,
    BaseModel,
    ExponentialSmoothingModel,
    LinearTrendModel,
    PredictionResult,
    SeasonalRidgeModel,
    SGDRegressorModel,
    TrainingResult,
    conformance,
)

BUILT_INS = (LinearTrendModel, ExponentialSmoothingModel, ARIMAModel, SGDRegressorModel, SeasonalRidgeModel, AutoModel)


def name(value: Any) -> str:
    return str(value.__name__)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=name)
@pytest.mark.parametrize("model_class", BUILT_INS, ids=name)
def test_built_in_by_its_five_methods(model_class: Callable[..., Any], check: Callable[[Any], None]) -> None:
    """A built-in honours the contract of a model of one series."""
    check(lambda: model_class("1m", "5m", "10m"))


@pytest.mark.parametrize("lookback", ["10m", "1m"])
@pytest.mark.parametrize("check", conformance.BATCH_CHECKS, ids=name)
@pytest.mark.parametrize("model_class", BUILT_INS, ids=name)
def test_built_in_over_all_series(model_class: Callable[..., Any], check: Callable[[Any], None], lookback: str) -> None:
    """A built-in honours the contract of a model of many series, with a lookback of one step too."""
    check(lambda: model_class("1m", "5m", lookback))


@pytest.mark.parametrize("orders", [(0, 0, 0), (0, 1, 0), (0, 0, 2), (2, 0, 1), (1, 2, 1), (5, 1, 3)])
def test_any_small_orders_conform(orders: tuple[int, int, int]) -> None:
    """ARIMA stays finite and keeps its rows whatever its orders."""
    p, d, q = orders
    for check in conformance.BATCH_CHECKS:
        if check is not conformance.updates_keep_learning or p + q:  # without p and q there is little to learn
            check(lambda: ARIMAModel("1m", "5m", "10m", p=p, d=d, q=q))


class MeanModel(BaseModel):
    """The mean of all targets: the least that a person's own model can be."""

    def __init__(self, granularity: str, horizon: str, lookback: str, weight: float = 1.0) -> None:
        super().__init__(granularity, horizon, lookback)
        self.weight, self.total, self.count = weight, 0.0, 0.0

    def fit(self, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        self.total = self.count = 0.0
        return self.partial_fit(X, y)

    def partial_fit(self, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        self.total += self.weight * float(y.sum())
        self.count += self.weight * len(y)
        return TrainingResult(float(np.abs(y - y.mean()).mean()), 0.0, len(y), "retrain")

    def predict(self, X: np.ndarray) -> PredictionResult:
        return PredictionResult(np.full(self.horizon_steps, self.total / self.count))

    def save(self, path: str) -> None:
        joblib.dump((self.total, self.count), path)

    def load(self, path: str) -> None:
        self.total, self.count = joblib.load(path)


def test_a_persons_model_passes() -> None:
    """A small model of one series, with a parameter of its own, passes the whole suite."""
    conformance.check_model(MeanModel, weight=2.0)


class DeafModel(MeanModel):
    def partial_fit(self, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        return super().partial_fit(X, y) if not self.count else TrainingResult(0.0, 0.0, len(y), "finetune")


class HoardingModel(MeanModel):
    def fit(self, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        return self.partial_fit(X, y)


class ScribblingModel(MeanModel):
    def fit(self, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        y *= 1.5
        return super().fit(X, y)


class BriefModel(MeanModel):
    def predict(self, X: np.ndarray) -> PredictionResult:
        return PredictionResult(super().predict(X).values[:-1])


class ForgetfulModel(MeanModel):
    def load(self, path: str) -> None:
        self.total, self.count = 0.0, 1.0


class RestlessModel(MeanModel):
    def predict(self, X: np.ndarray) -> PredictionResult:
        self.total += 1.0
        return super().predict(X)


class FragileModel(MeanModel):
    def predict(self, X: np.ndarray) -> PredictionResult:
        moves = X[0, : self.lookback_steps].std() > 0
        return PredictionResult(super().predict(X).values * (1.0 if moves else np.nan))


@pytest.mark.parametrize(
    ("model_class", "check"),
    [
        (DeafModel, conformance.keeps_learning),
        (HoardingModel, conformance.forgets_on_fit),
        (ScribblingModel, conformance.leaves_its_inputs_alone),
        (BriefModel, conformance.forecasts_one_value_per_lead),
        (ForgetfulModel, conformance.is_the_same_after_save_and_load),
        (RestlessModel, conformance.predicts_the_same_twice),
        (FragileModel, conformance.is_finite_on_constant_series),
    ],
    ids=name,
)
def test_the_suite_names_the_fault(model_class: type[BaseModel], check: Callable[[Any], None]) -> None:
    """A model with one fault fails, and the report names the check that found it."""
    with pytest.raises(AssertionError, match=check.__name__):
        conformance.check_model(model_class)
