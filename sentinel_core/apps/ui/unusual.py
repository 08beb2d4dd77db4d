"""Which series of a watch are the furthest from what was forecast of them."""

from dataclasses import dataclass

import numpy as np

from sentinel_core.anomaly import ALARM
from sentinel_core.apps.ui.overview import Spark
from sentinel_core.apps.ui.plot import spark_height, sparkline
from sentinel_core.emitter.snapshot import WatchView
from sentinel_core.series import Series, format_selector
from sentinel_core.storage import forecast_store
from sentinel_core.storage.store import Store

ROWS = 5
STEPS = 120  # of their scores


@dataclass(frozen=True)
class Unusual:
    """A series with its newest anomaly score, and how that has been."""

    labels: str
    score: float
    alarm: bool
    spark: Spark


def most_unusual(store: Store, view: WatchView) -> list[Unusual]:
    """Those whose newest score is the highest, highest first; none before any is scored."""
    if not view.forecasts or view.state.scored_until is None:
        return []
    scores = np.concatenate([block.anomaly for block in view.forecasts])
    series = [one for block in view.forecasts for one in block.series]
    highest = [row for row in np.argsort(-scores)[:ROWS].tolist() if np.isfinite(scores[row])]
    end = view.state.scored_until
    start = end - STEPS * view.config.step_seconds
    found = forecast_store.read_scores(
        store, view.config.step_seconds, start, end, fingerprints=[series[row].fingerprint for row in highest]
    )
    mine = (found["watch"] == view.state.watch_id) & np.isfinite(found["anomaly"])
    fingerprints, times, values = (found[name][mine] for name in ("fp", "ts", "anomaly"))
    top = max(2 * ALARM, float(values.max(initial=0.0)))

    def row_of(one: Series, score: float) -> Unusual:
        own = fingerprints == one.fingerprint
        path = sparkline(times[own], values[own], start, end, 0.0, top)
        labels = format_selector("", one.labels) or one.name
        return Unusual(labels, score, score > ALARM, Spark(path, level=spark_height(ALARM, 0.0, top)))

    return [row_of(series[row], float(scores[row])) for row in highest]
