"""Score how unusual each step is, from the stored forecasts of its time and the scores of the steps before it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import anomaly
from sentinel_core.forecasts import NAIVE
from sentinel_core.storage.forecast_store import row_keys
from sentinel_core.windows import FloatArray, IntArray, Window, positions, unique

Columns = Mapping[str, NDArray[Any]]


def unusual(
    wanted: tuple[NDArray[Any], IntArray, IntArray],
    forecasts: Columns,
    actuals: Window,
    stored: Columns,
    quiet_steps: Mapping[int, int],
) -> FloatArray:
    """Anomaly score of each (watch, series, time) that is wanted [rows]; NaN where no forecast of it tells.

    forecasts:   rows of `forecasts` about the times that are scored, whatever version made them, sorted by time
    stored:      rows of `scores` before these times, as far back as the longest quiet
    quiet_steps: how long an alarm keeps a series of a watch quiet, by watch id

    A last value that stands in for a forecast has nothing to say about what is usual.
    """
    if not len(forecasts["fp"]):
        return np.full(len(wanted[0]), np.nan)
    step, longest = actuals.step_seconds, max(quiet_steps.values())
    keys = row_keys(forecasts["watch"], forecasts["fp"])
    series = unique(keys)
    place = np.searchsorted(series, keys)
    owner = np.empty(len(series), np.int64)
    owner[place] = forecasts["watch"]
    ids = np.array(sorted(quiet_steps), np.int64)
    quiet = np.array([quiet_steps[one] for one in ids.tolist()])[np.searchsorted(ids, owner)]
    forgotten = np.arange(longest) < longest - quiet[:, None]

    first, last = int(forecasts["ts"][0]), int(forecasts["ts"][-1])
    begin = first - longest * step
    said = np.full((len(series), (last - begin) // step + 1), np.nan)
    row, known = positions(series, row_keys(stored["watch"], stored["fp"]))
    known &= (stored["ts"] >= begin) & (stored["ts"] <= last)
    said[row[known], (stored["ts"][known] - begin) // step] = stored["anomaly"][known]

    actual, mean = actuals.at(forecasts["fp"], forecasts["ts"]), forecasts["mean"]
    error = np.where(forecasts["version"] == NAIVE, np.nan, actual - mean)
    width = anomaly.widths(actual, mean, forecasts["lower"], forecasts["upper"])
    edges = np.flatnonzero(np.diff(forecasts["ts"], prepend=first - step, append=last + step))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):  # one time after the other
        now = slice(start, stop)
        column = (int(forecasts["ts"][start]) - begin) // step
        errors = np.full((len(series), int(forecasts["lead"][now].max())), np.nan)
        widths = np.full_like(errors, np.nan)
        at = place[now], forecasts["lead"][now].astype(np.int64) - 1
        errors[at], widths[at] = error[now], width[now]
        earlier = np.where(forgotten, np.nan, said[:, column - longest : column])
        scores = anomaly.scores(errors, widths, earlier)
        said[:, column] = np.where(np.isfinite(scores), scores, said[:, column])
    row, known = positions(series, row_keys(wanted[0], wanted[1]))
    found: FloatArray = np.where(known, said[row, np.clip((wanted[2] - begin) // step, 0, said.shape[1] - 1)], np.nan)
    return found
