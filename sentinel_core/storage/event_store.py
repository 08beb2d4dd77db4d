"""Events, their hourly counts, and PSI in segments.

- `events`: what was drained, one file per drain and UTC day, sorted by (model, ts).
- `counts`: events per hour and bin under a baseline version. Rows of the same hour ADD UP: a late event is one more row.
- `psi`: one row per model, output and evaluated hour; a later row of the same key replaces an earlier one.

Segment keys: "1" of events (whole seconds), the seconds of an hour of counts and psi.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import Pending
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray

LIVE, REPLAY = 0, 1


def write_events(store: Store, columns: Mapping[str, NDArray[Any]], now: float) -> Pending:
    """Put events (columns of the dataset, any order) on the disk: one file per UTC day."""
    raise NotImplementedError


def read_events(
    store: Store, t0: int, t1: int, columns: Sequence[str], model_ids: Collection[int] | None = None
) -> Columns:
    """Return drained events with t0 <= ts < t1 of some models, or of all."""
    raise NotImplementedError


def read_psi(
    store: Store,
    hour_seconds: int,
    t0: int,
    t1: int,
    *,
    model_ids: Collection[int] | None = None,
    columns: Sequence[str] | None = None,
    mode: int | None = None,
) -> Columns:
    """Return the evaluations of hours that end in [t0, t1], the newest of each, sorted by (model, output, ts).

    mode: LIVE or REPLAY; None: the newest of both
    """
    raise NotImplementedError
