"""Bins out of the events of the past, and that past counted in them: one reading of the segments for many models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinel_core.config import MonitorConfig
from sentinel_core.incidents.lifecycle import SENTINEL
from sentinel_core.monitoring import monitor
from sentinel_core.monitoring.assessment import LABEL, OUTPUTS
from sentinel_core.monitoring.histograms import WIDTH, Bins, HourlyCounts, fit_bins, hourly_counts
from sentinel_core.monitoring.monitor import HISTORY_DAYS, WEEK
from sentinel_core.pipeline.freezing import Kept, listed
from sentinel_core.pipeline.windowing import DAY_HOURS, REACH_HOURS, Content, Counted, Judged, Span
from sentinel_core.storage import event_store
from sentinel_core.storage.model_store import MonitoredModel
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray

BoolArray = NDArray[np.bool_]
Part = tuple[int, HourlyCounts]  # output, its counts

FAR = 2**62


@dataclass(frozen=True)
class Request:
    """A version to make: bins fitted on the model's events of [t0, t1), less those in `spans`.

    kind:     sliding | pinned | accepted; of the last two the baseline stays what these events are
    begin:    where the model's history begins
    since:    no earlier event belongs to it, unix seconds
    accepted: version with which it began, -1: with this one
    """

    model: MonitoredModel
    settings: MonitorConfig
    kind: str
    t0: int
    t1: int
    reason: str
    begin: int
    since: int | None = None
    accepted: int = 0
    spans: Sequence[Span] = ()
    actor: str = SENTINEL


def fit(
    store: Store, requests: Sequence[Request], versions: Sequence[int], hour: int, hour_seconds: int
) -> tuple[list[Content], Counted, IntArray]:
    """Fit bins for each request and count everything that is stored of its model, from what windows reach on.

    Third comes how many events each request's bins were fitted on [requests].
    """
    start = min(min(request.t0 for request in requests), hour - REACH_HOURS * hour_seconds)
    rows = _Rows.read(store, requests, start, hour_seconds)
    use = rows.within(requests)
    most = [request.settings.bins for request in requests]
    fitted: list[list[Bins | None]] = []
    parts: list[Part] = []
    own: list[Part] = []  # of the events that bins were fitted on
    for output, name in enumerate(OUTPUTS):
        values = rows.columns[name]
        missing = values == 0 if output == LABEL else np.isnan(values)
        if missing.all():
            fitted.append([None] * len(requests))
            continue
        bins = fit_bins(rows.subject[use], values[use], most)
        fitted.append(bins)
        # a label that the fitted events hold once counts as new in them, and only in them
        split = [(use, True), (~use, False)] if output == LABEL else [(np.ones(len(use), bool), True)]
        for mask, fitting in split:
            parts.append(
                (output, hourly_counts(bins, rows.subject[mask], rows.hour[mask], values[mask], fitting=fitting))
            )
        if any(request.kind != "sliding" for request in requests):
            own.append((output, hourly_counts(bins, rows.subject[use], rows.hour[use], values[use], fitting=True)))
    contents = [
        Content(
            outputs={output: one for output, bins in enumerate(fitted) if (one := bins[place]) is not None},
            most=request.settings.bins,
            hour=hour_seconds,
            fitted_days=max(0, hour - request.begin) // (DAY_HOURS * hour_seconds),
            since=request.since,
            accepted=version if request.accepted < 0 else request.accepted,
            kept=None if request.kind == "sliding" else _kept(request, place, own, hour_seconds),
        )
        for place, (request, version) in enumerate(zip(requests, versions, strict=True))
    ]
    events = np.bincount(rows.subject[use], minlength=len(requests)).astype(np.int64)
    return contents, _counted(requests, parts, hour_seconds), events


def recount(store: Store, judged: Sequence[Judged], start: int, hour_seconds: int) -> Counted:
    """Count the stored events of models since `start` in the bins of the versions that they are judged with."""
    rows = _Rows.read(store, judged, start, hour_seconds)
    parts = []
    for output, name in enumerate(OUTPUTS):
        bins = [one.content.outputs.get(output) for one in judged]
        if any(one is not None for one in bins):
            parts.append((output, hourly_counts(bins, rows.subject, rows.hour, rows.columns[name])))
    return _counted(judged, parts, hour_seconds)


@dataclass(frozen=True)
class _Rows:
    """Events of some models, grouped by model: subject [n] is the place in the list of them, hour [n] its number."""

    subject: IntArray
    ts: IntArray
    hour: IntArray
    columns: Columns

    @classmethod
    def read(cls, store: Store, of: Sequence[Request] | Sequence[Judged], start: int, hour_seconds: int) -> "_Rows":
        ids = np.array([one.model.id for one in of], np.int64)
        found = event_store.read_events(store, start, FAR, ("model", "ts", *OUTPUTS), ids.tolist())
        by_id = np.argsort(ids)
        subject = by_id[np.searchsorted(ids[by_id], found["model"])]
        # 16 bits are sorted by radix: ten times as fast
        order = np.argsort(subject.astype(np.uint16) if len(ids) < 2**16 else subject, kind="stable")
        ts = found["ts"][order]
        return cls(subject[order], ts, ts // hour_seconds, {name: found[name][order] for name in OUTPUTS})

    def within(self, requests: Sequence[Request]) -> BoolArray:
        """Which events [n] the bins are fitted on."""
        t0 = np.array([request.t0 for request in requests], np.int64)
        t1 = np.array([request.t1 for request in requests], np.int64)
        use = (self.ts >= t0[self.subject]) & (self.ts < t1[self.subject])
        for place, request in enumerate(requests):
            for first, last in request.spans:
                use &= ~((self.subject == place) & (self.ts >= first) & (self.ts < last))
        return use


def _counted(of: Sequence[Request] | Sequence[Judged], parts: Sequence[Part], hour_seconds: int) -> Counted:
    ids = np.array([one.model.id for one in of], np.int64)
    none = np.empty(0, np.int64)
    return Counted(
        np.concatenate([none, *(ids[part.subject] for _, part in parts)]),
        np.concatenate([none, *(np.full(len(part.subject), output) for output, part in parts)]),
        np.concatenate([none, *(part.hour * hour_seconds for _, part in parts)]),
        np.concatenate([np.empty((0, WIDTH), np.int32), *(part.counts for _, part in parts)]),
    )


def _kept(request: Request, place: int, own: Sequence[Part], hour_seconds: int) -> Kept:
    """What the fitted events of one request are by hour of the week."""
    depth = -(-(request.t1 - request.t0) // hour_seconds)
    profiles: dict[int, list[list[float] | None]] = {}
    for output, part in own:
        mine = part.subject == place
        counts = np.zeros((1, depth, WIDTH))
        ages = (request.t1 - 1 - part.hour[mine] * hour_seconds) // hour_seconds
        np.add.at(counts[0], np.minimum(ages, depth - 1), part.counts[mine])
        if not counts.any():
            continue
        history, skip = np.array([depth]), np.zeros(1, np.int64)
        profiles[output] = listed(monitor.profile(counts, history, np.array([HISTORY_DAYS // WEEK]), skip)[0])
    return Kept(request.t1, profiles)
