"""What the newest rounds have made of the widths of bounds: looked up for many watches at once."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinel_core.forecasts import Fitted
from sentinel_core.models.rows import between_knots
from sentinel_core.storage import forecast_store
from sentinel_core.storage.forecast_store import row_keys
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.store import Store
from sentinel_core.verification import judged_leads
from sentinel_core.windows import FloatArray, IntArray, positions


@dataclass(frozen=True, eq=False)
class Widths:
    """Rows of `verified`, each watch's newest last."""

    rows: Columns

    @classmethod
    def read(cls, store: Store, step_seconds: int, ends: Collection[int]) -> "Widths":
        """Of the watches of one granularity whose newest rounds ended then."""
        return cls(forecast_store.read_widths(store, step_seconds, ends))

    def of(
        self, watch: NDArray[np.int32], fingerprints: IntArray, versions: NDArray[np.int32], leads: IntArray
    ) -> FloatArray:
        """Logarithms of widths [n, leads, 2]; 0 where a series is new or has another version than it had then."""
        found = np.zeros((len(watch), len(leads), 2))
        rows = self.rows
        if not len(watch) or not len(rows["fp"]):
            return found
        keys = row_keys(watch, fingerprints, versions)
        order = np.argsort(keys)
        row, mine = positions(keys[order], row_keys(rows["watch"], rows["fp"], rows["version"]))
        column, judged = positions(leads, rows["lead"].astype(np.int64))
        mine &= judged
        found[order[row[mine]], column[mine]] = np.stack([rows["lower"][mine], rows["upper"][mine]], axis=1)
        return found

    def widened(self, fitted: Fitted, watch: NDArray[np.int32]) -> Fitted:
        """A model of series of these watches [n] with the bounds that its forecasts are to have now."""
        if not len(self.rows["fp"]):
            return fitted
        horizon = fitted.offsets.shape[1]
        at = judged_leads(horizon)
        logs = self.of(watch, fitted.model.fingerprints, fitted.versions, at)
        leads = np.tile(np.arange(1, horizon + 1), (len(logs), 1))
        return fitted.widened(np.exp(between_knots(logs, at, leads)))
