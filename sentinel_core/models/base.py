"""The two contracts of a model: five methods for people, one batched interface for the engine.

People write a `BaseModel`: one series, features in, values out. The engine runs `BatchModel`s: all series of many
watches at once, as arrays. The built-ins are both; a person's model is wrapped by `models.adapter`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core.durations import parse_duration
from sentinel_core.errors import ModelError
from sentinel_core.features import feature_names
from sentinel_core.windows import FloatArray, IntArray, Window


class Residuals(NamedTuple):
    """Errors of a model on data that it had not seen.

    errors: actual - forecast from some origins [n, origins, K], oldest first, evenly spread; NaN where unknown
    leads:  their K leads, ascending up to the horizon
    span:   steps over which the origins are spread
    """

    errors: FloatArray
    leads: IntArray
    span: int


@dataclass
class PredictionResult:
    """What a model expects: values [horizon_steps], the first one step after the newest lag; bounds are optional."""

    values: FloatArray
    lower_bound: FloatArray | None = None
    upper_bound: FloatArray | None = None


@dataclass
class TrainingResult:
    """What one fit learned from: in-sample one-step MAE and MAPE (%), samples used, "retrain" or "finetune"."""

    mae: float
    mape: float
    n_samples: int
    training_policy: str
    extra: dict[str, Any] = field(default_factory=dict)


class ModelSpec:
    """The grid a model works on: granularity, horizon and lookback as given, and in seconds and steps."""

    def __init__(self, granularity: str, horizon: str, lookback: str) -> None:
        self.granularity, self.horizon, self.lookback = granularity, horizon, lookback
        self.step_seconds = parse_duration(granularity)
        self.horizon_steps = parse_duration(horizon) // self.step_seconds
        self.lookback_steps = parse_duration(lookback) // self.step_seconds


class BaseModel(ModelSpec, ABC):
    """A model of one series, as a person writes it.

    X is [n_samples, n_features] with the columns of `features.feature_names(lookback_steps)`: lags oldest first,
    rolling mean, rolling std, sin/cos hour, sin/cos weekday. y is [n_samples], the value one step after the newest lag.
    Keyword arguments beyond the three of the grid come from the watch's `model_params`.
    """

    def __init__(self, granularity: str, horizon: str, lookback: str) -> None:
        super().__init__(granularity, horizon, lookback)

    @abstractmethod
    def fit(self, X: FloatArray, y: FloatArray) -> TrainingResult:
        """Learn from scratch."""

    @abstractmethod
    def partial_fit(self, X: FloatArray, y: FloatArray) -> TrainingResult:
        """Go on learning from the current parameters with new rows."""

    @abstractmethod
    def predict(self, X: FloatArray) -> PredictionResult:
        """Forecast from one row, X [1, n_features]: `horizon_steps` values."""

    @abstractmethod
    def save(self, path: str) -> None:
        """Write everything `load` needs to one file."""

    @abstractmethod
    def load(self, path: str) -> None:
        """Restore from `save`'s file."""


class BatchModel(ModelSpec, ABC):
    """A model of n series at once; parameters are arrays whose first axis is the series.

    Windows passed in have the same fingerprints as the model after the first `fit_window`. Nothing mutates its input.
    Every method is finite on any scale, constant, short and gappy input: where a series has too little to learn from,
    its forecast is its last finite value (NaN only where it has none).
    """

    pools: ClassVar[bool] = True  # `adopt` knows more about a new series than to repeat its last value
    code_version: ClassVar[int] = 1  # raised when parameters change their meaning: older artifacts are then refused

    def __init__(self, granularity: str, horizon: str, lookback: str, **model_params: Any) -> None:
        super().__init__(granularity, horizon, lookback)
        self.model_params = model_params
        self.fingerprints: IntArray = np.empty(0, np.int64)
        self.parameters: dict[str, NDArray[Any]] = {}
        self.errors: dict[int, str] = {}  # fingerprint -> what went wrong with that series in the latest call

    @property
    def context_steps(self) -> int:
        """How many of the newest steps `predict_window` wants to see (it accepts fewer)."""
        return self.lookback_steps

    @property
    def model_names(self) -> NDArray[np.str_]:
        """The model of each series [n]: one, unless it chooses."""
        return np.full(len(self.fingerprints), type(self).__name__)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the model sees of a series, in order; recorded with each version."""
        return feature_names(self.lookback_steps)

    @abstractmethod
    def fit_window(self, window: Window) -> None:
        """Learn every series of the window from scratch; sets `fingerprints` and `parameters`."""

    @abstractmethod
    def update_window(self, window: Window, new_steps: int) -> None:
        """Continue from the current parameters with the last `new_steps` columns; the columns before are context."""

    @abstractmethod
    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Forecast [n, steps] from the window's last timestamp on: column k is lead k + 1."""

    def forecast_from(self, window: Window, origins: IntArray, leads: IntArray) -> FloatArray:
        """What `predict_window` says at each of some columns of the window [n, origins, leads]; all of them ascend.

        A series whose model fails is in `errors`: it is not asked again, and NaN from there on.
        """
        n, horizon = len(window.fingerprints), int(leads[-1])
        out = np.full((n, len(origins), len(leads)), np.nan)
        failed, model, rows, asked = dict(self.errors), self, np.arange(n), window
        for k, origin in enumerate(origins):
            bad = np.isin(asked.fingerprints, list(failed))
            if bad.any():
                rows, asked = rows[~bad], asked.rows(~bad)
                model = model.take(asked.fingerprints)
            if not len(rows):
                break
            seen = asked.columns(slice(max(0, int(origin) + 1 - model.context_steps), int(origin) + 1))
            try:
                forecast = model.predict_window(seen, horizon)
            except ModelError as error:
                if not error.errors or len(rows) == n:
                    raise
                failed |= error.errors
                continue
            if forecast.shape != (len(rows), horizon):
                raise ModelError(f"predict_window returned {forecast.shape}, not one row a series of {horizon} steps")
            failed |= model.errors
            out[rows, k] = forecast[:, leads - 1]
        self.errors = failed
        return out

    def fit_and_judge(self, window: Window) -> Residuals | None:
        """`fit_window`; where the same fit also tells how the model errs, that. None: only a second fit can tell."""
        self.fit_window(window)
        return None

    @abstractmethod
    def adopt(self, window: Window) -> Self:
        """A model for series it has never seen: pooled parameters of its own series, scaled by the window's values."""

    # ---- rows: what lets one watch be refitted in part and many watches be predicted together
    def take(self, fingerprints: IntArray) -> Self:
        """The same model with just these series (each must be known), in this order."""
        order = np.argsort(self.fingerprints, kind="stable")
        position = np.searchsorted(self.fingerprints, fingerprints, sorter=order)
        if len(fingerprints) and (
            len(self.fingerprints) == 0
            or not np.array_equal(self.fingerprints[order[np.minimum(position, len(order) - 1)]], fingerprints)
        ):
            raise KeyError("take: a series the model does not know")
        rows = order[position] if len(fingerprints) else np.empty(0, np.int64)
        return self.with_rows(fingerprints, {key: value[rows] for key, value in self.parameters.items()})

    def put(self, other: Self) -> Self:
        """This model with the other's series added, or replaced where both know them; fingerprints ascend."""
        keep = ~np.isin(self.fingerprints, other.fingerprints)
        if not keep.any():
            joined = other
        else:
            joined = self.concat(
                [
                    self.with_rows(
                        self.fingerprints[keep], {key: value[keep] for key, value in self.parameters.items()}
                    ),
                    other,
                ]
            )
        return joined.take(np.sort(joined.fingerprints))

    @classmethod
    def concat(cls, models: Sequence[Self]) -> Self:
        """Several models of one class, grid and model_params as one; rows in the given order."""
        first = models[0]
        return first.with_rows(
            np.concatenate([model.fingerprints for model in models]),
            {key: np.concatenate([model.parameters[key] for model in models]) for key in first.parameters},
        )

    def with_rows(self, fingerprints: IntArray, parameters: Mapping[str, NDArray[Any]]) -> Self:
        """A new model of the same class and grid with these rows."""
        model = type(self)(self.granularity, self.horizon, self.lookback, **self.model_params)
        model.fingerprints = np.asarray(fingerprints, np.int64)
        model.parameters = dict(parameters)
        return model
