"""`model_class = "auto"`: each series has, of the built-ins and yesterday's value, what does best on its own past.

All candidates learn the older part of the history and forecast from the same origins in the newer part. A series takes
another model than the default only where that errs clearly less, over all of those origins and over both halves of
them: of several noisy numbers the least is lower than it deserves. Where repeating the day before errs less than what
that leaves, it is that. The chosen models are then fitted on everything, each with its own series; updates and
forecasts continue each with its own.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models.arima import ARIMAModel
from sentinel_core.models.base import BatchModel, Residuals
from sentinel_core.models.exponential_smoothing import ExponentialSmoothingModel
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.models.linear_trend import LinearTrendModel
from sentinel_core.models.rows import held_back_origins, knots
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.models.sgd_regressor import SGDRegressorModel
from sentinel_core.windows import FloatArray, IntArray, Window

CANDIDATES: tuple[type[BatchModel], ...] = (
    SeasonalRidgeModel,  # the first is the default
    SGDRegressorModel,
    ARIMAModel,
    ExponentialSmoothingModel,
    LinearTrendModel,
    SeasonalNaive,  # the last is what none may be worse than
)
CLEARLY = 0.05  # less error than the default's: what is nearer turns round with the next day


class AutoModel(FiveMethods):
    """Every series' own choice among CANDIDATES.

    parameters: choice [n], the candidate's place; and each chosen candidate's own under its name, 0 in others' rows

    >>> times = np.arange(480) * 3600
    >>> values = np.stack([np.sin(2 * np.pi * times / 86400), np.random.default_rng(0).normal(size=480).cumsum()])
    >>> model = AutoModel("1h", "6h", "4h")
    >>> model.fit_window(Window(np.arange(2), times, values, 3600))
    >>> model.model_names.tolist()
    ['SeasonalNaive', 'SeasonalRidgeModel']
    """

    code_version: ClassVar[int] = sum(candidate.code_version for candidate in CANDIDATES)

    def __init__(
        self, granularity: str, horizon: str, lookback: str, holidays: str | None = None, timezone: str = "UTC"
    ) -> None:
        special = {} if holidays is None else {"holidays": holidays, "timezone": timezone}
        super().__init__(granularity, horizon, lookback, **special)

    @property
    def context_steps(self) -> int:
        """What the chosen candidates want to see; before there is a choice, what any does."""
        chosen = np.unique(self.parameters["choice"]).tolist() if len(self.fingerprints) else range(len(CANDIDATES))
        return max(self._build(CANDIDATES[place]).context_steps for place in chosen)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What is chosen from."""
        return tuple(candidate.__name__ for candidate in CANDIDATES)

    @property
    def model_names(self) -> NDArray[np.str_]:
        """The model of each series [n]."""
        names: NDArray[np.str_] = np.array(self.feature_names)[self.parameters["choice"]]
        return names

    def fit_window(self, window: Window) -> None:
        """Choose, and learn every series from scratch."""
        self.fit_and_judge(window)

    def fit_and_judge(self, window: Window) -> Residuals | None:
        """`fit_window`; the errors by which it has chosen, those of each series' choice."""
        origins = held_back_origins(len(window.timestamps), self.lookback_steps, self.horizon_steps)
        choice = np.zeros(len(window.fingerprints), np.int8)
        judged = None
        if len(origins):
            leads = knots(self.horizon_steps)
            errors = self._compare(window, origins, leads)
            choice = _best(np.stack([_mean_absolute(one) for one in errors]), *_halves(errors))
            own = np.choose(choice[:, None, None], errors)
            judged = Residuals(own, leads, int(origins[-1] - origins[0]))
        self._keep(window, choice, [self._fitted(window, choice, place) for place in np.unique(choice).tolist()])
        return judged

    def update_window(self, window: Window, new_steps: int) -> None:
        """Every series' model continues as it does."""
        self.check_rows(window)
        members = list(self._members())
        for index, member in members:
            member.update_window(window.rows(index), new_steps)
        self._keep(window, self.parameters["choice"], members)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Every series' model's forecast [n, steps]."""
        self.check_rows(window)
        out = np.full((len(window.fingerprints), steps), np.nan)
        for index, member in self._members():
            out[index] = member.predict_window(window.rows(index), steps)
        return out

    def forecast_from(self, window: Window, origins: IntArray, leads: IntArray) -> FloatArray:
        """Every series' model's forecasts [n, origins, leads]."""
        self.check_rows(window)
        out = np.full((len(window.fingerprints), len(origins), len(leads)), np.nan)
        for index, member in self._members():
            out[index] = member.forecast_from(window.rows(index), origins, leads)
        return out

    def adopt(self, window: Window) -> Self:
        """New series have the model that most of the known ones have, pooled as it does."""
        place = int(np.argmax(np.bincount(self.parameters["choice"], minlength=len(CANDIDATES))))
        member = next((known for _, known in self._members() if type(known) is CANDIDATES[place]), None)
        model = self.with_rows(window.fingerprints, {})
        if member is None:
            member = self._build(CANDIDATES[place])
        n = len(window.fingerprints)
        model._keep(window, np.full(n, place, np.int8), [(np.arange(n), member.adopt(window))])
        return model

    @classmethod
    def concat(cls, models: Sequence[Self]) -> Self:
        """Several models of one grid as one; rows in the given order."""
        like = {key: array for model in models for key, array in model.parameters.items()}
        filled = [
            {
                key: model.parameters.get(key, np.zeros((len(model.fingerprints), *array.shape[1:]), array.dtype))
                for key, array in like.items()
            }
            for model in models
        ]
        return models[0].with_rows(
            np.concatenate([model.fingerprints for model in models]),
            {key: np.concatenate([parameters[key] for parameters in filled]) for key in like},
        )

    def _build(self, candidate: type[BatchModel]) -> BatchModel:
        params = self.model_params if candidate is SeasonalRidgeModel else {}  # no other knows holidays
        return candidate(self.granularity, self.horizon, self.lookback, **params)

    def _members(self) -> Iterator[tuple[IntArray, BatchModel]]:
        """Each chosen candidate with its rows."""
        choice = self.parameters.get("choice", np.zeros(0, np.int8))
        for place in np.unique(choice).tolist():
            prefix = f"{CANDIDATES[place].__name__}."
            index = np.flatnonzero(choice == place)
            rows: IntArray | slice = index if len(index) < len(choice) else slice(None)  # a slice copies nothing
            own = {
                key.removeprefix(prefix): array[rows]
                for key, array in self.parameters.items()
                if key.startswith(prefix)
            }
            yield index, self._build(CANDIDATES[place]).with_rows(self.fingerprints[rows], own)

    def _fitted(self, window: Window, choice: NDArray[np.int8], place: int) -> tuple[IntArray, BatchModel]:
        index = np.flatnonzero(choice == place)
        member = self._build(CANDIDATES[place])
        member.fit_window(window.rows(index))
        return index, member

    def _keep(self, window: Window, choice: NDArray[np.int8], members: Sequence[tuple[IntArray, BatchModel]]) -> None:
        """Take the members' parameters over."""
        n = len(window.fingerprints)
        found: dict[str, NDArray[Any]] = {"choice": choice}
        for index, member in members:
            for key, array in member.parameters.items():
                rows = array if len(index) == n else np.zeros((n, *array.shape[1:]), array.dtype)
                if rows is not array:
                    rows[index] = array
                found[f"{type(member).__name__}.{key}"] = rows
        self.fingerprints, self.parameters = window.fingerprints.copy(), found

    def _compare(self, window: Window, origins: IntArray, leads: IntArray) -> list[FloatArray]:
        """Each candidate's errors where it has not seen what came [n, origins, leads]."""
        actual = window.values[:, origins[:, None] + leads]
        before = window.columns(slice(0, int(origins[0]) + 1))
        errors = []
        for candidate in CANDIDATES:
            model = self._build(candidate)
            model.fit_window(before)
            errors.append(actual - model.forecast_from(window, origins, leads))
        return errors


def _best(error: FloatArray, older: FloatArray, newer: FloatArray) -> NDArray[np.int8]:
    """Which candidate each series takes [n], by the errors [candidates, n] over all origins and over either half."""
    clearly = (error < (1 - CLEARLY) * error[0]) & (older <= older[0]) & (newer <= newer[0])
    choice: NDArray[np.int64] = np.argmin(np.where(clearly, error, np.inf), axis=0)
    choice[~clearly.any(axis=0)] = 0
    least = error[-1] < np.take_along_axis(error, choice[None], axis=0)[0]
    choice[least] = len(error) - 1
    return choice.astype(np.int8, copy=False)


def _halves(errors: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    middle = errors[0].shape[1] // 2
    older, newer = slice(middle), slice(middle, None)
    return tuple(np.stack([_mean_absolute(one[:, half]) for one in errors]) for half in (older, newer))


def _mean_absolute(errors: FloatArray) -> FloatArray:
    """Over origins and leads [n]; 0 where nothing is known, so that the default is taken."""
    known = np.isfinite(errors)
    mean: FloatArray = np.where(known, np.abs(errors), 0.0).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    return mean
