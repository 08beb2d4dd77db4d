"""Every series that a version serves, of many watches of one granularity: what a tick scores and judges at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.config import WatchConfig
from sentinel_core.forecasts import Fitted
from sentinel_core.storage.forecast_store import row_keys
from sentinel_core.windows import FloatArray, IntArray, inside

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Served:
    """Every series that a version serves, of many watches of one granularity, one after the other.

    A tick's cost must not grow with the number of watches: everything is looked up and judged for all at once.
    """

    watches: Sequence[WatchConfig]
    ids: Sequence[int]
    fitted: Sequence[Fitted]
    living: tuple[NDArray[np.int32], IntArray]  # watch ids and fingerprints of all living series

    @cached_property
    def counts(self) -> IntArray:
        return np.array([len(one.versions) for one in self.fitted], np.int64)

    @cached_property
    def versions(self) -> NDArray[np.int32]:
        return np.concatenate([one.versions for one in self.fitted])

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which series live: one that misbehaved and is gone no longer counts."""
        position, known = self.locate(*self.living)
        mask = np.zeros(len(self.versions), bool)
        mask[position[known]] = True
        return mask

    @cached_property
    def mae(self) -> FloatArray:
        """Held-back MAE [n, longest horizon], NaN beyond a watch's own horizon."""
        longest = max(one.mae.shape[1] for one in self.fitted)
        joined = np.full((int(self.counts.sum()), longest), np.nan)
        at = 0
        for one in self.fitted:
            joined[at : at + len(one.mae), : one.mae.shape[1]] = one.mae
            at += len(one.mae)
        return joined

    @cached_property
    def usual(self) -> FloatArray:
        """What is usual for each series [n, 3]."""
        return np.concatenate([one.usual for one in self.fitted])

    @cached_property
    def auto(self) -> NDArray[np.bool_]:
        """Which series are judged by what is usual for them [n]."""
        return self.each([watch.drift_unit == "auto" for watch in self.watches])

    @cached_property
    def window(self) -> IntArray:
        """The drift window of each series, steps [n]."""
        return self.each([watch.drift_window for watch in self.watches])

    def each(self, values: Sequence[float]) -> NDArray[Any]:
        """One value per watch as one per series."""
        return np.repeat(np.array(values), self.counts)

    @cached_property
    def _index(self) -> tuple[IntArray, IntArray]:
        fingerprints = np.concatenate([one.model.fingerprints for one in self.fitted])
        keys = row_keys(self.each(self.ids), fingerprints)
        order = np.argsort(keys)
        return keys[order], order

    def locate(self, watch: NDArray[Any], fingerprint: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Position of each (watch, series), and whether it is really there."""
        keys, order = self._index
        wanted = row_keys(watch, fingerprint)
        if not len(keys):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return order[place], keys[place] == wanted

    def find(self, rows: Columns) -> tuple[IntArray, NDArray[np.bool_]]:
        """Position of each row's (watch, fp), and whether the row's version is the one that serves there."""
        position, known = self.locate(rows["watch"], rows["fp"])
        return position, known & (self.versions[position] == rows["version"]) if len(self.versions) else known

    def counted(self, rows: Columns) -> NDArray[np.bool_]:
        """Which rows (watch, ts) are of times that their watch does not ignore."""
        counted = np.ones(len(rows["ts"]), bool)
        for watch, watch_id in zip(self.watches, self.ids, strict=True):
            if watch.ignored:
                counted &= (rows["watch"] != watch_id) | ~inside(rows["ts"], watch.ignored)
        return counted
