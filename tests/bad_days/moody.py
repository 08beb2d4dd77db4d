"""A person's model that behaves as the file `mood` says: "predict raise" is about every series, "predict raise b" about
those around 100 alone."""

import os
import time
from pathlib import Path

import numpy as np

from sentinel_core.models import BaseModel, PredictionResult, TrainingResult


class Moody(BaseModel):
    """Repeats the newest lag."""

    def __init__(self, granularity, horizon, lookback, mood):
        super().__init__(granularity, horizon, lookback)
        self.mood = mood

    def _misbehaves(self, method, newest):
        mood = [*Path(self.mood).read_text().split(), "", ""]
        if mood[0] != method or (mood[2] == "b" and newest < 50):
            return ""
        if mood[1] == "raise":
            raise RuntimeError("out of ideas")
        if mood[1] == "hang":
            time.sleep(600)
        if mood[1] == "exit":
            os._exit(3)
        return mood[1]

    def fit(self, X, y):
        self._misbehaves("fit", y[-1])
        return TrainingResult(0.0, 0.0, len(y), "retrain")

    def partial_fit(self, X, y):
        return self.fit(X, y)

    def predict(self, X):
        newest = X[0, self.lookback_steps - 1]
        values = np.full(self.horizon_steps, newest)
        manner = self._misbehaves("predict", newest)
        if manner == "nan":
            values[1] = np.nan
        return PredictionResult(values[1:] if manner == "short" else values)

    def save(self, path):
        Path(path).write_text("saved")

    def load(self, path):
        Path(path).read_text()
