"""A person's five-method model as a batch model: one instance per series, each in a process that can be killed.

What is kept of a model are the bytes of its own `save`: the artifact holds no pickle of foreign objects. A series whose
model fails shows its last value and is named in `errors`; the others go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core import features
from sentinel_core.errors import ModelError
from sentinel_core.models import rows, workers
from sentinel_core.models.base import BaseModel, BatchModel
from sentinel_core.models.workers import Call, Failure, Outcome
from sentinel_core.windows import FloatArray, IntArray, Window


class FiveMethodBatchModel(BatchModel):
    """A `BaseModel` class mapped over series.

    Rows of X have no gaps: a gap holds the last value before it, in its lags and as a target, so that neighbouring rows
    are always one step apart. A history begins where its series does.

    parameters: state [n], object: the bytes of the model's `save`, b"" where there is no fitted model
    errors:     fingerprint -> message, of the latest fit, update or predict

    Where a method fails for every series, ModelError names the class, one of the series and the remedy.
    """

    pools = False

    def __init__(
        self,
        model_class: type[BaseModel],
        granularity: str,
        horizon: str,
        lookback: str,
        *,
        timeout_seconds: float = 60.0,
        model_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(granularity, horizon, lookback, **(model_params or {}))
        self.model_class, self.timeout_seconds = model_class, timeout_seconds

    @property
    def model_names(self) -> NDArray[np.str_]:
        """The model of each series [n]: the person's."""
        return np.full(len(self.fingerprints), self.model_class.__name__)

    def fit_window(self, window: Window) -> None:
        """`fit` each series that has more samples than its lookback."""
        self.fingerprints = window.fingerprints.copy()
        self.parameters = _states([b""] * len(window.fingerprints))
        self._train("fit", window, len(window.timestamps))

    def update_window(self, window: Window, new_steps: int) -> None:
        """`partial_fit` each series with the rows of the new columns; where that fails its old model stays."""
        self._check(window)
        self._train("partial_fit", window, new_steps)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """`predict` each series [n, steps]; its last value where there is no model or it fails.

        One call may take a quarter of a step at most: a forecast that comes with the next tick helps nobody, and a
        model that hangs must not keep the others' forecasts from being made.
        """
        self._check(window)
        context = window.newest(self.lookback_steps)
        forecast = np.repeat(rows.newest_values(context.values)[0][:, None], steps, axis=1)
        state = self.parameters["state"]
        asked = [k for k in range(len(state)) if state[k] and np.isfinite(forecast[k]).all()]
        calls = [Call("predict", state[k], context.rows([k])) for k in asked]
        for k, values in self._run(asked, calls, min(self.timeout_seconds, self.step_seconds / 4)):
            shown = min(steps, self.horizon_steps)
            forecast[k, :shown], forecast[k, shown:] = values[:shown], values[-1]
        return forecast

    def adopt(self, window: Window) -> Self:
        """Five methods know nothing of other series: new ones show their last value until they are fitted."""
        return self.with_rows(window.fingerprints, _states([b""] * len(window.fingerprints)))

    def with_rows(self, fingerprints: IntArray, parameters: Mapping[str, NDArray[Any]]) -> Self:
        """A new model of the same class and grid with these rows."""
        grid = self.granularity, self.horizon, self.lookback
        model = type(self)(
            self.model_class, *grid, timeout_seconds=self.timeout_seconds, model_params=self.model_params
        )
        model.fingerprints = np.asarray(fingerprints, np.int64)
        model.parameters = dict(parameters)
        return model

    def _check(self, window: Window) -> None:
        if not self.parameters:
            raise ModelError(f"{self.model_class.__qualname__} is not fitted; call fit_window first")
        if not np.array_equal(self.fingerprints, window.fingerprints):
            raise ModelError("the window's series are not the model's; take, put or adopt them first")

    def _train(self, method: str, window: Window, new_steps: int) -> None:
        state = self.parameters["state"]
        filled = features.carry_forward(window.values)
        samples = filled.shape[1]
        asked, calls = [], []
        for k in range(len(filled)):
            began = int(np.argmax(np.isfinite(filled[k])))
            first = max(began, samples - new_steps - self.lookback_steps)
            if samples - first > self.lookback_steps and np.isfinite(filled[k, -1]):
                asked.append(k)
                part = replace(window.rows([k]), values=filled[k : k + 1]).columns(slice(first, None))
                calls.append(Call(method if state[k] else "fit", state[k], part))
        learnt = list(state)
        for k, saved in self._run(asked, calls, self.timeout_seconds):
            learnt[k] = saved
        self.parameters = _states(learnt)

    def _run(self, asked: Sequence[int], calls: Sequence[Call], timeout_seconds: float) -> list[tuple[int, Any]]:
        """(row, outcome) of the calls that succeeded; the others become `errors`."""
        path = f"{self.model_class.__module__}:{self.model_class.__qualname__}"
        spec = workers.Spec(path, (self.granularity, self.horizon, self.lookback), dict(self.model_params))
        outcomes: list[tuple[int, Outcome]] = list(zip(asked, workers.run(spec, calls, timeout_seconds), strict=True))
        self.errors = {
            int(self.fingerprints[k]): failed.message for k, failed in outcomes if isinstance(failed, Failure)
        }
        if asked and len(self.errors) == len(asked):
            fingerprint, message = next(iter(self.errors.items()))
            raise ModelError(
                f"{path} failed for each of the {len(asked)} series asked, for example {fingerprint}: {message}",
                self.errors,
            )
        return [(k, outcome) for k, outcome in outcomes if not isinstance(outcome, Failure)]


def _states(saved: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    state = np.empty(len(saved), object)  # not np.array: bytes of equal length would become text that loses zeros
    state[:] = saved
    return {"state": state}
