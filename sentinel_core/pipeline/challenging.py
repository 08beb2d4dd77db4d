"""What forecasts that cost nothing would have been off by: repeating the last value, and repeating the day before.

A model that does worse than the better of the two is worth a retraining (`drift_unit = "auto"`).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sentinel_core.drift import Scores
from sentinel_core.features import DAY_SECONDS
from sentinel_core.models.rows import knots
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.served import Served
from sentinel_core.storage import windows_store
from sentinel_core.windows import FloatArray, IntArray, Window, positions, unique

CHALLENGERS = ("naive", "seasonal")  # columns of `scores`


def challengers(context: Context, step: int, served: Served, scores: Scores) -> dict[str, FloatArray]:
    """Columns of CHALLENGERS for scored steps [rows], in the metric's unit; NaN but for watches that ask for them.

    naive:    mean over the leads of |value - value a lead before|
    seasonal: |value - value as many days before as are over at the origin of the longest lead|
    """
    found = {name: np.full(len(scores.mae), np.nan) for name in CHALLENGERS}
    ids: dict[int, list[int]] = {}
    for watch, watch_id in zip(served.watches, served.ids, strict=True):
        if watch.drift_unit == "auto":
            ids.setdefault(watch.horizon_steps, []).append(watch_id)
    for horizon, mine in ids.items():
        rows = np.flatnonzero(np.isin(scores.watch, mine))
        if not len(rows):
            continue
        some = _Keys(scores.watch[rows], scores.fingerprint[rows], scores.timestamp[rows])
        distinct, first, last = unique(some.fingerprint), int(some.timestamp.min()), int(some.timestamp.max())
        near = windows_store.read_window(context.store, step, distinct, first - horizon * step, last)
        now, leads = some.values(near, served), knots(horizon)
        off = np.abs(now[:, None] - np.stack([some.before(lead * step).values(near, served) for lead in leads], axis=1))
        found["naive"][rows] = mean_over_leads(off, leads)
        if DAY_SECONDS % step == 0:
            back = cycle_steps(step, horizon) * step
            far = windows_store.read_window(context.store, step, distinct, first - back, last - back)
            found["seasonal"][rows] = np.abs(now - some.before(back).values(far, served))
    return found


@dataclass(frozen=True)
class _Keys:
    """Some (watch, series, time), [rows] each."""

    watch: NDArray[np.int32]
    fingerprint: IntArray
    timestamp: IntArray

    def before(self, seconds: int) -> "_Keys":
        return replace(self, timestamp=self.timestamp - seconds)

    def values(self, window: Window, served: Served) -> FloatArray:
        """Of the window [rows], which has all these series and times; NaN where the watch ignores them."""
        row, _ = positions(window.fingerprints, self.fingerprint)
        values = window.values[row, (self.timestamp - window.timestamps[0]) // window.step_seconds]
        return np.where(served.counted({"watch": self.watch, "ts": self.timestamp}), values, np.nan)


def mean_over_leads(errors: FloatArray, leads: IntArray) -> FloatArray:
    """Mean over every lead of errors at some [rows, leads]; of those known."""
    every = np.arange(1, int(leads[-1]) + 1)
    share = np.array([np.interp(every, leads, unit).mean() for unit in np.eye(len(leads))])
    known = np.isfinite(errors)
    weight = (known * share).sum(axis=1)
    return np.where(weight > 0, np.where(known, errors, 0.0) @ share / np.where(weight > 0, weight, 1.0), np.nan)
