"""One intercept per slot of the UTC day, learnt day by day, so that each day is seen with the profile of those before.

A profile that had seen the day it is tried on would look better than it is, and be trusted too much.
"""

import numpy as np
from numpy.typing import NDArray

from sentinel_core.features import DAY_SECONDS
from sentinel_core.windows import FloatArray, IntArray

MOST_SLOTS = 288  # five minutes of a day; finer ones only learn noise
SLOT_STEP = 0.15  # towards a slot's newest day, once it has seen six; 0.2 and 0.1 are 1 % worse
SLOT_CLIP = 3.0  # a day moves a slot by no more than this many times the median distance of its neighbours


def slots_per_day(step_seconds: int) -> int:
    """How many intercepts a grid of this step has.

    >>> slots_per_day(3_600), slots_per_day(60)
    (24, 288)
    """
    return min(MOST_SLOTS, max(1, DAY_SECONDS // step_seconds))


def slot_of(timestamps: IntArray, slots: int) -> IntArray:
    """Which slot of the day a timestamp falls into."""
    slot: IntArray = timestamps % DAY_SECONDS * slots // DAY_SECONDS
    return slot


def learn_by_day(
    z: FloatArray, timestamps: IntArray, profile: FloatArray, days: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Go on learning a profile [n, slots] that has seen `days` [n, slots] days from z [n, T] (NaN in gaps).

    Returns the profiles as they were before each calendar day of the timestamps, [n, D, slots] with NaN where a slot
    had seen nothing, and the profile and days after the last one.
    """
    slots = profile.shape[1]
    known = np.where(days > 0, profile, np.nan).astype(np.float64)
    days = days.copy()
    calendar = timestamps // DAY_SECONDS
    before = np.empty((len(z), int(calendar[-1] - calendar[0]) + 1 if len(calendar) else 0, slots), np.float32)
    for k in range(before.shape[1]):
        before[:, k] = known
        columns = slice(*np.searchsorted(calendar, [calendar[0] + k, calendar[0] + k + 1]))
        slot = slot_of(timestamps[columns], slots)
        if not len(slot):
            continue
        starts = np.flatnonzero(np.diff(slot, prepend=-1))
        at = slot[starts]
        finite = np.isfinite(z[:, columns])
        count = np.add.reduceat(finite.astype(np.float64), starts, axis=1)
        total = np.add.reduceat(np.where(finite, z[:, columns], 0.0), starts, axis=1)
        seen = count > 0
        value = total / np.maximum(count, 1)
        old = np.where(np.isnan(known[:, at]), value, known[:, at])
        days[:, at] += seen
        move = value - old
        limit = SLOT_CLIP * np.median(np.abs(move), axis=1, keepdims=True) + 1e-9
        step = np.maximum(1 / np.maximum(days[:, at], 1), SLOT_STEP)
        known[:, at] = np.where(seen, old + step * np.clip(move, -limit, limit), known[:, at])
    return before, np.nan_to_num(known).astype(np.float32), days.astype(np.float32)
