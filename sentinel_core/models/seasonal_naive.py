"""What every forecast has to beat: the value of a day before. No one's model, but the measure of all of them."""

from typing import Self

import numpy as np

from sentinel_core.features import DAY_SECONDS
from sentinel_core.models.base import BatchModel
from sentinel_core.models.rows import newest_values
from sentinel_core.windows import FloatArray, Window


def cycle_steps(step_seconds: int, lead: int) -> int:
    """Steps in as many days as are over at the origin of a forecast of this lead.

    >>> cycle_steps(3_600, 24), cycle_steps(3_600, 25)
    (24, 48)
    """
    days = -(-lead * step_seconds // DAY_SECONDS)
    return days * DAY_SECONDS // step_seconds


class SeasonalNaive(BatchModel):
    """Repeats the day before (of more days where one is not over yet); the last value where it is unknown."""

    @property
    def context_steps(self) -> int:
        """The days that it repeats, and a lookback in case of gaps at their end."""
        return max(self.lookback_steps, cycle_steps(self.step_seconds, self.horizon_steps))

    def fit_window(self, window: Window) -> None:
        """There is nothing to learn."""
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """There is nothing to learn."""

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Forecast [n, steps]."""
        known = len(window.timestamps)
        leads = np.arange(1, steps + 1)
        column = known - 1 + leads - np.array([cycle_steps(self.step_seconds, lead) for lead in leads.tolist()])
        before = window.values[:, np.clip(column, 0, known - 1)]
        seasonal = np.isfinite(before) & (column >= 0) & (DAY_SECONDS % self.step_seconds == 0)
        forecast: FloatArray = np.where(seasonal, before, newest_values(window.values)[0][:, None])
        return forecast

    def adopt(self, window: Window) -> Self:
        """A series needs no learning."""
        return self.with_rows(window.fingerprints, {})
