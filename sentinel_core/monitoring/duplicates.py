"""Which events have been counted already, by the digest of model and event_id.

An event can be sent again, unchanged, for as long as it is not refused as too late: so a digest is remembered until
eight days after the event's time, and whatever comes later than that is refused anyway.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import IntArray

BoolArray = NDArray[np.bool_]

DAY_SECONDS = 86_400
REMEMBERED_DAYS = 8  # an event is taken up to 7 days late
SEAL_AT = 65_536  # recent digests in a dictionary, which costs 100 bytes each
MAX_RUN = 2_000_000  # digests: making such a run takes 60 ms, and nothing is acknowledged meanwhile
MAX_DIGESTS = 32_000_000  # in RAM, 9 to 10 bytes each; beyond it the oldest are left to the drain


def first_of_each(ids: IntArray, known: IntArray) -> BoolArray:
    """Which of digests [n] are new: in none of `known` and not earlier in `ids` itself. 0 (no event_id) always is.

    >>> first_of_each(np.array([5, 0, 7, 5, 0]), np.array([7]))
    array([ True,  True, False, False,  True])
    """
    first = np.zeros(len(ids), np.bool_)
    first[np.unique(ids, return_index=True)[1]] = True
    new: BoolArray = (first & ~np.isin(ids, known)) | (ids == 0)
    return new


def of_model(ids: IntArray, models: NDArray[np.int32]) -> IntArray:
    """Make digests of event_id [n] digests of model and event_id; 0 stays 0."""
    spread = models.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # odd: distinct models stay distinct
    mixed = ids ^ (spread ^ (spread >> np.uint64(32))).view(np.int64)
    return np.where(ids == 0, 0, np.where(mixed == 0, 1, mixed))


class _Run:
    """Sorted digests, with a bitmap that answers seven of eight questions without a search (22 cache misses)."""

    def __init__(self, ids: IntArray) -> None:
        self.ids = ids
        width = (8 * len(ids)).bit_length()  # 8 to 16 slots a digest, by its first bits
        self._shift = np.uint64(64 - width)
        there = np.zeros(1 << width, np.bool_)
        there[self._slots(ids)] = True
        self._bits = np.packbits(there, bitorder="little")

    def _slots(self, ids: IntArray) -> NDArray[np.uint64]:
        return ids.view(np.uint64) >> self._shift

    def which(self, asked: IntArray) -> IntArray:
        """Places of the digests that are here."""
        slots = self._slots(asked)
        likely = np.flatnonzero(self._bits[slots >> np.uint64(3)] & (1 << (slots & np.uint64(7))).astype(np.uint8))
        place = np.minimum(np.searchsorted(self.ids, asked[likely]), len(self.ids) - 1)
        found: IntArray = likely[self.ids[place] == asked[likely]]
        return found


class Remembered:
    """The digests of the last days, in memory, bounded by `limit` digests. Not thread-safe."""

    def __init__(self, limit: int = MAX_DIGESTS) -> None:
        self._limit = limit
        self._recent: dict[int, int] = {}  # digest -> day of the event
        # day -> runs, a longer one before a shorter one
        self._sealed: dict[int, list[_Run]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run.ids) for runs in self._sealed.values() for run in runs)

    def new(self, ids: IntArray) -> BoolArray:
        """Which of digests [n] have not been added, nor stand earlier in `ids`; 0 always is new."""
        known = np.fromiter(map(self._recent.__contains__, ids.tolist()), np.bool_, len(ids))
        for runs in self._sealed.values():
            for run in runs:
                known[run.which(ids)] = True
        return first_of_each(ids, ids[known])

    def add(self, ids: IntArray, ts: IntArray) -> None:
        """Remember digests [n] of events at unix seconds [n]; 0 is skipped."""
        there = ids != 0
        ids, days = ids[there], ts[there] // DAY_SECONDS
        if len(ids) >= SEAL_AT:
            self._seal(ids, days)
            return
        self._recent.update(zip(ids.tolist(), days.tolist(), strict=True))
        if len(self._recent) >= SEAL_AT:
            count = len(self._recent)
            self._seal(
                np.fromiter(self._recent.keys(), np.int64, count), np.fromiter(self._recent.values(), np.int64, count)
            )
            self._recent.clear()

    def forget(self, now: float) -> None:
        """Drop what is older than events may be, and the oldest beyond the limit."""
        oldest = int(now) // DAY_SECONDS - REMEMBERED_DAYS
        for day in [day for day in self._sealed if day < oldest]:
            del self._sealed[day]
        while len(self) > self._limit and self._sealed:
            day = min(self._sealed)
            self._sealed[day].pop(0)
            if not self._sealed[day]:
                del self._sealed[day]

    def _seal(self, ids: IntArray, days: IntArray) -> None:
        for day in np.unique(days).tolist():
            runs = self._sealed[day]
            fresh = np.sort(ids[days == day])
            while runs and len(runs[-1].ids) <= 2 * len(fresh) and len(runs[-1].ids) + len(fresh) <= MAX_RUN:
                fresh = np.sort(np.concatenate([runs.pop().ids, fresh]), kind="stable")  # which merges sorted runs
            runs.append(_Run(fresh))
