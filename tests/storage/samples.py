"""Small segments' worth of numbers, and the slow, obviously right overlay that the fast one is compared with."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.storage.segments import Pending
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window, grid

STEP = 60
DAY = 86_400
START = 20_000 * DAY  # a UTC midnight
NOW = START + 30 * DAY


def window(fingerprints: Sequence[int], t0: int, t1: int, values: Any = None, step: int = STEP) -> Window:
    """A window on [t0, t1]; without values, each sample tells its series and its time."""
    timestamps = grid(t0, t1, step)
    own = np.array(fingerprints, np.int64)
    filled = own[:, None] * 1e6 + (timestamps - START) // step if values is None else np.asarray(values, float)
    return Window(own, timestamps, np.broadcast_to(filled, (len(own), len(timestamps))).astype(float), step)


def commit(store: Store, *pendings: Pending, drop: Sequence[int] = ()) -> list[int]:
    """Commit in a transaction of its own."""
    with store.database.write() as connection:
        return store.segments.commit(connection, pendings, drop)


class SlowOverlay:
    """A dictionary of samples: the later write wins, a gap never does."""

    def __init__(self) -> None:
        self.samples: dict[tuple[int, int], float] = {}

    def lay(self, windows: Iterable[Window]) -> None:
        """Add windows in order."""
        for one in windows:
            for row, fingerprint in enumerate(one.fingerprints.tolist()):
                for column, timestamp in enumerate(one.timestamps.tolist()):
                    if np.isfinite(one.values[row, column]):
                        self.samples[fingerprint, timestamp] = float(one.values[row, column])

    def values(self, fingerprints: NDArray[np.int64], timestamps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The dense matrix."""
        rows = [[self.samples.get((f, t), np.nan) for t in timestamps.tolist()] for f in fingerprints.tolist()]
        return np.array(rows, float).reshape(len(fingerprints), len(timestamps))


def forecasts(
    watch: int, fingerprints: Sequence[int], origin: int, horizon: int, mean: float = 1.0, **columns: Any
) -> dict[str, NDArray[Any]]:
    """Forecast rows of one origin, leads 1 to horizon."""
    n = len(fingerprints) * horizon
    leads = np.tile(np.arange(1, horizon + 1), len(fingerprints))
    rows = {
        "watch": np.full(n, watch),
        "fp": np.repeat(np.array(fingerprints, np.int64), horizon),
        "origin": np.full(n, origin),
        "ts": origin + leads * STEP,
        "lead": leads,
        "mean": np.full(n, mean),
        "lower": np.full(n, mean - 1),
        "upper": np.full(n, mean + 1),
        "version": np.ones(n, int),
        "mode": np.zeros(n, int),
        "inner_lower": np.full(n, np.nan),
        "inner_upper": np.full(n, np.nan),
    }
    return {**rows, **{name: np.full(n, value) for name, value in columns.items()}}
