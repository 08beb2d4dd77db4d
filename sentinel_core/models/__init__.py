"""Forecasting models: the two contracts, and the built-ins that honour both."""

from sentinel_core.models.arima import ARIMAModel
from sentinel_core.models.auto import AutoModel
from sentinel_core.models.base import BaseModel, BatchModel, PredictionResult, TrainingResult
from sentinel_core.models.exponential_smoothing import ExponentialSmoothingModel
from sentinel_core.models.linear_trend import LinearTrendModel
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.models.sgd_regressor import SGDRegressorModel

__all__ = [
    "ARIMAModel",
    "AutoModel",
    "BaseModel",
    "BatchModel",
    "ExponentialSmoothingModel",
    "LinearTrendModel",
    "PredictionResult",
    "SGDRegressorModel",
    "SeasonalRidgeModel",
    "TrainingResult",
]
