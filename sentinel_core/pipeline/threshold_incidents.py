"""A series that is likely to get across a threshold is an incident of its watch, from the tick on that says so.

Its "hours" are the origins of the forecasts: there is an evaluation for each tick, and none where nothing was forecast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from sentinel_core.config import WatchConfig
from sentinel_core.forecasts import Forecast
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.findings import Reached, ThresholdForecast
from sentinel_core.incidents.lifecycle import Condition, Incident, Subject
from sentinel_core.pipeline.consequences import Consequence, step
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.storage import watch_store
from sentinel_core.storage.model_store import DEFAULT_PROJECT
from sentinel_core.thresholds import Threshold, crossings
from sentinel_core.windows import FloatArray, IntArray, unique

CALM_SHARE = 0.7  # of threshold_probability: below that it is calm, as a PSI is below 0.07 of a warning at 0.1
SHOWN = 5  # series that an incident names


@dataclass(frozen=True)
class Expected:
    """What was forecast of some series of a watch with thresholds."""

    watch: WatchConfig
    watch_id: int
    origin: int
    fingerprints: IntArray
    forecast: Forecast


@dataclass(frozen=True)
class _Outlook:
    """A watch's series with each of its thresholds, the likeliest to get across first, then the sooner."""

    watch: WatchConfig
    watch_id: int
    origin: int
    fingerprints: IntArray
    thresholds: Sequence[Threshold]
    probability: FloatArray
    seconds: FloatArray

    @property
    def highest(self) -> float:
        return float(self.probability[0])

    @property
    def alarming(self) -> bool:
        return self.highest >= self.watch.threshold_probability


def follow_thresholds(context: Context, expected: Sequence[Expected]) -> list[Consequence]:
    """Open, go on with and resolve the incidents of watches, by what a tick has forecast of them."""
    outlooks = []
    for _, some in groupby(sorted(expected, key=lambda one: one.watch_id), key=lambda one: one.watch_id):
        outlook = _outlook(list(some))
        if len(outlook.fingerprints):  # nothing that is known is no verdict
            outlooks.append(outlook)
    return persistently(partial(_follow, context, outlooks)) if outlooks else []


def _outlook(expected: Sequence[Expected]) -> _Outlook:
    watch = expected[0].watch
    fingerprints, thresholds, probability, seconds = [], [], [], []
    for one in expected:
        outer = one.forecast.mean, one.forecast.lower, one.forecast.upper
        for crossing in crossings(*outer, watch.level, watch.thresholds, watch.bounds):
            fingerprints.append(one.fingerprints)
            thresholds += [crossing.threshold] * len(one.fingerprints)
            probability.append(crossing.probability)
            seconds.append(crossing.seconds(watch.step_seconds))
    likely, soon = np.concatenate(probability), np.concatenate(seconds)
    order = np.lexsort((soon, -likely))[: np.isfinite(likely).sum()]  # NaN last
    return _Outlook(
        watch,
        expected[0].watch_id,
        expected[0].origin,
        np.concatenate(fingerprints)[order],
        [thresholds[row] for row in order.tolist()],
        likely[order],
        soon[order],
    )


def _follow(context: Context, outlooks: Sequence[_Outlook]) -> list[Consequence]:
    hour_seconds, now = context.config.hour_seconds, context.clock()
    with context.store.database.read() as conn:
        current = incidents.current(conn, min(one.origin for one in outlooks), hour_seconds=hour_seconds)
        due: list[tuple[Subject, Incident | None, Condition]] = []
        for one in outlooks:
            subject = Subject(DEFAULT_PROJECT, "threshold", one.watch.slug, watch_id=one.watch_id)
            incident = current.get(subject.key)
            if one.alarming or (incident is not None and incident.active):
                shown = one.fingerprints[:SHOWN].tolist()
                members = watch_store.series_of(conn, [one.watch_id], fingerprints=shown)
                names = {member.fingerprint: member.series.selector for member in members}
                due.append((subject, incident, _condition(one, names)))
    if not due:
        return []
    with context.store.database.write() as conn:
        steps = [step(conn, subject, incident, condition, now, hour_seconds) for subject, incident, condition in due]
    return [one for one in steps if one is not None]


def _condition(outlook: _Outlook, names: dict[int, str]) -> Condition:
    level = outlook.watch.threshold_probability
    likeliest = [
        Reached(names.get(fingerprint, ""), str(threshold), probability, int(seconds) if seconds == seconds else None)
        for fingerprint, threshold, probability, seconds in zip(
            outlook.fingerprints[:SHOWN].tolist(),
            outlook.thresholds[:SHOWN],
            outlook.probability[:SHOWN].tolist(),
            outlook.seconds[:SHOWN].tolist(),
            strict=True,
        )
    ]
    found = ThresholdForecast(
        likeliest=tuple(likeliest),
        crossing=len(unique(outlook.fingerprints[outlook.probability >= level])),
        series=len(unique(outlook.fingerprints)),
        probability=level,
        horizon=outlook.watch.horizon,
    )
    calm = outlook.highest < CALM_SHARE * level
    return Condition(
        state="warning" if outlook.alarming else "ok",
        calm=calm,
        eased=calm,
        hour=outlook.origin,
        since=outlook.origin,
        reason=f"{found.scale}; the likeliest: {found.outlook}",
        assessment=found.to_json(),
    )
