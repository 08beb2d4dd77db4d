"""The five documented methods for every built-in: one series, as rows of features, delegated to the batch methods."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np

from sentinel_core.errors import ArtifactError, ModelError
from sentinel_core.features import second_of_week
from sentinel_core.models.base import BaseModel, BatchModel, PredictionResult, TrainingResult
from sentinel_core.windows import FloatArray, Window

MEASURED_ROWS = 256  # newest rows whose one-step error a fit reports
A_MONDAY = 1_704_067_200  # 2024-01-01 00:00 UTC: rows know hour and weekday, not the date


class FiveMethods(BatchModel, BaseModel):
    """A batch model that a person can also use by hand on one series.

    The rows of X hold the series: neighbouring rows share their lags, so X and y are put together again to a window.
    Where two rows do not follow each other a gap is left. Rows may carry the lags alone.
    """

    def fit(self, X: FloatArray, y: FloatArray) -> TrainingResult:
        """Learn from scratch; X [n_samples, n_features], y [n_samples]."""
        window = self._series(X, y)
        self.fit_window(window)
        return self._result(X, y, "retrain")

    def partial_fit(self, X: FloatArray, y: FloatArray) -> TrainingResult:
        """Go on learning from the current parameters with new rows; the first call is a `fit`."""
        if not self.parameters:
            return self.fit(X, y)
        window = self._series(X, y)
        self.update_window(window, max(0, len(window.timestamps) - self.lookback_steps))
        return self._result(X, y, "finetune")

    def predict(self, X: FloatArray) -> PredictionResult:
        """Forecast `horizon_steps` values from one row, X [1, n_features]."""
        X = np.asarray(X, np.float64)
        if X.ndim != 2 or len(X) != 1:
            raise ModelError(f"predict wants one row, X [1, n_features], not {X.shape}")
        return PredictionResult(self.predict_window(self._series(X, np.empty(0)), self.horizon_steps)[0])

    def save(self, path: str) -> None:
        """Write grid, model_params and parameters to one file."""
        joblib.dump({"model": self._identity(), "parameters": self.parameters}, path)

    def load(self, path: str) -> None:
        """Restore from `save`'s file; ArtifactError when it is missing, broken, or another model's."""
        if not Path(path).is_file():
            raise ArtifactError(f"{path} does not exist; save the model first")
        try:
            state = joblib.load(path)
            identity, parameters = state["model"], dict(state["parameters"])
        except Exception as error:  # a foreign or truncated pickle may raise anything
            raise ArtifactError(
                f"{path} is not a saved {type(self).__name__}: {error}; train and save it again"
            ) from error
        if identity != self._identity():
            raise ArtifactError(f"{path} holds {identity}, not {self._identity()}; construct the model as it was saved")
        self.fingerprints, self.parameters = np.zeros(1, np.int64), parameters

    def check_rows(self, window: Window) -> None:
        """ModelError unless the model is fitted and has the window's series in the window's order."""
        if not self.parameters:
            raise ModelError(f"{type(self).__name__} is not fitted; call fit or fit_window first")
        if not np.array_equal(self.fingerprints, window.fingerprints):
            raise ModelError("the window's series are not the model's; take, put or adopt them first")

    def _identity(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "grid": (self.granularity, self.horizon, self.lookback),
            "model_params": dict(self.model_params),
        }

    def _series(self, X: FloatArray, y: FloatArray) -> Window:
        """The window that the rows were cut from; with an empty y, the lags of the rows alone."""
        X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
        lookback = self.lookback_steps
        if X.ndim != 2 or X.shape[1] < lookback or not len(X):
            raise ModelError(f"X is {X.shape}; it needs rows of at least {lookback} lags, oldest first")
        if len(y) and y.shape != (len(X),):
            raise ModelError(f"y is {y.shape}; it needs one value for each of the {len(X)} rows of X")
        lags = X[:, :lookback]
        if not len(y):
            values = lags[-1]
        else:
            seen = np.column_stack([lags[:-1, 1:], y[:-1]])
            follows = np.all((lags[1:] == seen) | (np.isnan(lags[1:]) & np.isnan(seen)), axis=1)
            starts = np.flatnonzero(np.concatenate([[True], ~follows]))
            parts: list[FloatArray] = []
            for start, end in zip(starts, [*starts[1:], len(X)], strict=True):
                parts += [np.full(lookback if parts else 0, np.nan), lags[start], y[start:end]]
            values = np.concatenate(parts)
        target = self._target_time(X[-1])
        newest = target if len(y) else target - self.step_seconds
        timestamps = newest + self.step_seconds * np.arange(1 - len(values), 1, dtype=np.int64)
        return Window(np.zeros(1, np.int64), timestamps, values[None], self.step_seconds)

    def _target_time(self, row: FloatArray) -> int:
        """A timestamp on the grid with the row's hour and weekday; some Monday where it has no such columns."""
        columns = row[self.lookback_steps + 2 : self.lookback_steps + 6]
        second = int(second_of_week(columns)) if len(columns) == 4 and np.isfinite(columns).all() else 0
        return (A_MONDAY + second) // self.step_seconds * self.step_seconds

    def _result(self, X: FloatArray, y: FloatArray, policy: str) -> TrainingResult:
        """One-step errors over the newest rows."""
        X, y = np.asarray(X, np.float64)[-MEASURED_ROWS:], np.asarray(y, np.float64)
        actual = y[-len(X) :]
        forecast = np.array(
            [self.predict_window(self._series(X[k : k + 1], np.empty(0)), 1)[0, 0] for k in range(len(X))]
        )
        error = np.abs(actual - forecast)
        known = np.isfinite(error)
        relative = known & (actual != 0)
        return TrainingResult(
            mae=float(error[known].mean()) if known.any() else float("nan"),
            mape=float((error[relative] / np.abs(actual[relative])).mean() * 100) if relative.any() else float("nan"),
            n_samples=int(np.isfinite(y).sum()),
            training_policy=policy,
        )
