"""Models as a person writes them, good and bad, in a module that worker processes can import."""

import json
import os
import time
from pathlib import Path

import numpy as np

from sentinel_core.models import BaseModel, PredictionResult, TrainingResult


class RepeatLast(BaseModel):
    """Repeats the newest lag plus `shift`; `bad` names a value whose series misbehaves in `manner` in `method`."""

    def __init__(
        self, granularity, horizon, lookback, shift=0.0, bad=None, method="predict", manner="raise", pause=0.0
    ):
        super().__init__(granularity, horizon, lookback)
        self.shift, self.bad, self.method, self.manner = shift, bad, method, manner
        self.fits, self.rows, self.pause = 0, 0, pause

    def _misbehave(self, method, value):
        if method != self.method or value != self.bad:
            return
        if self.manner == "raise":
            raise RuntimeError("out of ideas")
        if self.manner == "hang":
            time.sleep(600)
        if self.manner == "exit":
            os._exit(3)

    def fit(self, X, y):
        assert np.isfinite(X).all()
        assert np.isfinite(y).all()
        time.sleep(self.pause)
        self._misbehave("fit", X[-1, self.lookback_steps - 1])
        self.fits, self.rows = 1, len(y)
        return TrainingResult(0.0, 0.0, len(y), "retrain")

    def partial_fit(self, X, y):
        self.fits += 1
        self.rows = len(y)
        return TrainingResult(0.0, 0.0, len(y), "finetune")

    def predict(self, X):
        newest = X[0, self.lookback_steps - 1]
        self._misbehave("predict", newest)
        values = np.full(self.horizon_steps, newest + self.shift)
        if newest == self.bad and self.manner == "nan":
            values[1] = np.nan
        if newest == self.bad and self.manner == "short":
            values = values[1:]
        return PredictionResult(values)

    def save(self, path):
        Path(path).write_text(json.dumps([self.fits, self.rows]))

    def load(self, path):
        self.fits, self.rows = json.loads(Path(path).read_text())


class SavesNothing(RepeatLast):
    """Forgets to write its file."""

    def save(self, path):
        pass


class Unfinished(BaseModel):
    """Lacks most methods."""

    def predict(self, X):
        return PredictionResult(np.zeros(self.horizon_steps))


class Plain(RepeatLast):
    """Takes no model_params."""

    def __init__(self, granularity, horizon, lookback):
        super().__init__(granularity, horizon, lookback)
