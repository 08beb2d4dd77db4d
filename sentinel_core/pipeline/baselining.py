"""Baseline versions: when a new one is due, by the rule or because somebody asks for it.

A version fixes the bins. Making one reads the events of the past once, fits the bins, counts every hour in them, and
commits version and counts together; what is drained later is counted in them from then on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import sqlalchemy as sa

from sentinel_core.alerts import outbox
from sentinel_core.config import MonitorConfig
from sentinel_core.durations import format_duration
from sentinel_core.errors import ConfigError, NotFoundError
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents import store as incidents
from sentinel_core.monitoring import monitor
from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.monitoring.monitor import HISTORY_DAYS
from sentinel_core.pipeline.binning import Request, fit
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.pipeline.windowing import DAY_HOURS, REACH_HOURS, Content, Judged, Span
from sentinel_core.storage import event_store, model_store
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel, Progress
from sentinel_core.storage.segments import Pending

Also = Callable[[sa.Connection], None]  # what a caller adds to the same transaction, an audit row for example

T = TypeVar("T")
READ_EVENTS = 2_000_000  # held at once: 70 MB, a few times over while they are sorted and counted
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Made:
    """A version that was committed."""

    model: MonitoredModel
    row: BaselineRow


# ---- when a version is due -------------------------------------------------------------------------------------------


def requests_due(
    models: Sequence[MonitoredModel],
    settings: Sequence[MonitorConfig],
    judged: Sequence[Judged],
    troubled: Collection[int],
    hour: int,
    hour_seconds: int,
    oldest: int,
) -> list[Request]:
    """Return the versions to be made before an hour is evaluated.

    settings: in effect, of each of `models`
    judged:   those of the models that have a version
    troubled: ids of models with an active incident of drift: their baseline stays as it is
    oldest:   events before this time are no longer stored, unix seconds
    """
    known = {one.model.id: one for one in judged}
    uncounted = {one.model.id for one in judged if one.content.hour != hour_seconds}  # they have no counts at all
    calm = [
        (model, config)
        for model, config in zip(models, settings, strict=True)
        if model.first_event_at is not None and (model.id not in troubled or model.id in uncounted)
    ]
    day = DAY_HOURS * hour_seconds
    begins = [known[model.id].begin if model.id in known else model.first_event_at or 0 for model, _ in calm]
    history = np.array([max(0, hour - begin) // day for begin in begins], np.int64)
    fitted = [known[model.id].content.fitted_days if model.id in known else 0 for model, _ in calm]
    refit = monitor.refit_due(history, np.array(fitted, np.int64))
    found: list[Request | None] = []
    for (model, config), begin, aged in zip(calm, begins, refit.tolist(), strict=True):
        one = known.get(model.id)
        if one is not None:
            found.append(_next(one, aged, hour, hour_seconds, oldest))
        elif aged and model.events >= config.min_samples:
            found.append(Request(model, config, "sliding", begin, hour, "a day of history", begin))
    return [request for request in found if request is not None]


def _next(one: Judged, aged: bool, hour: int, hour_seconds: int, oldest: int) -> Request | None:
    content, row = one.content, one.baseline
    begin = max(one.begin, hour - REACH_HOURS * hour_seconds)
    lacking = begin < oldest - DAY_SECONDS  # retention drops whole days
    if content.most != one.settings.bins or content.hour != hour_seconds:
        reason = f"now {one.settings.bins} bins, counted every {format_duration(hour_seconds)}"
        if row.kind != "sliding":
            return None if row.t0 < oldest else _like(one, row.kind, row.t0, row.t1, reason, content.since)
        if lacking:  # the history begins anew: what is gone cannot be counted in other bins
            return _like(one, "sliding", oldest, hour, reason, oldest)
        return _like(one, "sliding", begin, hour, reason, content.since)
    if not aged or row.kind == "pinned" or lacking:
        return None
    return _like(one, "sliding", begin, hour, "the history has grown, and quantiles age", content.since)


def _like(one: Judged, kind: str, t0: int, t1: int, reason: str, since: int | None) -> Request:
    spans = one.spans if kind == "sliding" else ()
    begin, accepted = max(one.begin, since or 0), one.content.accepted
    return Request(one.model, one.settings, kind, t0, t1, reason, begin, since, accepted, spans)


# ---- making versions -------------------------------------------------------------------------------------------------


def make(context: Context, read: Progress, requests: Sequence[Request], hour: int) -> tuple[Progress, list[Made]]:
    """Make versions at the end of an hour and commit them, some at a time; returns the progress as it is then.

    A model that has sent nothing for weeks, or nothing but what incidents leave out, keeps the version that it has.
    Raises ConflictError where a drain or another evaluation was faster; what was committed before stays.
    """
    made: list[Made] = []
    progress = read
    for some in packs(sorted(requests, key=lambda one: one.model.id), lambda one: one.model.events):
        with context.store.database.read() as conn:
            newest = model_store.newest_versions(conn, [request.model.id for request in some])
        versions = [newest.get(request.model.id, 0) + 1 for request in some]
        rows, pending = _made(context, some, versions, hour)
        with context.store.database.write() as conn:
            progress = model_store.advance(conn, progress)
            context.store.segments.commit(conn, [pending])
            model_store.add_baselines(conn, rows)
        models = {request.model.id: request.model for request in some}
        made += [Made(models[row.model_id], row) for row in rows]
    return progress, made


def _made(
    context: Context, requests: Sequence[Request], versions: Sequence[int], hour: int
) -> tuple[list[BaselineRow], Pending]:
    """The versions' rows, and the file of their counts; without those that too few events were found for."""
    hour_seconds, now = context.config.hour_seconds, context.clock()
    contents, counted, events = fit(context.store, requests, versions, hour, hour_seconds)
    enough = [count >= request.settings.min_samples for request, count in zip(requests, events.tolist(), strict=True)]
    version_of = {
        request.model.id: version for request, version, use in zip(requests, versions, enough, strict=True) if use
    }
    ids, place = np.unique(counted.model, return_inverse=True)
    baseline = np.array([version_of.get(one, 0) for one in ids.tolist()], np.int64)[place]
    kept = baseline > 0
    pending = event_store.write_counts(
        context.store,
        hour_seconds,
        counted.model[kept],
        counted.output[kept],
        baseline[kept],
        counted.hour[kept],
        counted.counts[kept],
        now,
    )
    rows = [
        BaselineRow(
            request.model.id,
            version,
            request.kind,
            request.t0,
            request.t1,
            content.to_json(),
            request.actor,
            request.reason,
            now,
        )
        for request, version, content in zip(requests, versions, contents, strict=True)
        if request.model.id in version_of
    ]
    return rows, pending


def packs(some: Iterable[T], events: Callable[[T], int]) -> Iterator[list[T]]:
    """Neighbours that have few enough events, which are read together, to fit into memory."""
    pack: list[T] = []
    total = 0
    for one in some:
        total += events(one)
        if pack and total > READ_EVENTS:
            yield pack
            pack, total = [], events(one)
        pack.append(one)
    if pack:
        yield pack


# ---- by hand ---------------------------------------------------------------------------------------------------------


def pin(
    context: Context, model_id: int, start: int, end: int, *, actor: str, reason: str, also: Also | None = None
) -> int:
    """Compare a model with its events of [start, end) (unix seconds) from now on; returns the new version.

    Raises ConfigError where the span is not one, or holds fewer events than the model's min_samples; NotFoundError
    where there is no such model.
    """
    if not 0 <= start < end:
        raise ConfigError(["end: has to lie after start"])
    if end - start > HISTORY_DAYS * DAY_HOURS * context.config.hour_seconds:
        raise ConfigError([f"start: at most {HISTORY_DAYS} days can be pinned"])

    def request(state: _State) -> Request:
        return state.request("pinned", start, end, actor, reason)

    return _change(context, model_id, request, also)


def unpin(context: Context, model_id: int, *, actor: str, reason: str, also: Also | None = None) -> int:
    """Compare a model with its own recent past again, by its settings; returns the new version."""

    def request(state: _State) -> Request:
        begin = max(state.begin, state.hour - REACH_HOURS * context.config.hour_seconds)
        return state.request("sliding", begin, state.hour, actor, reason)

    return _change(context, model_id, request, also)


def accept(context: Context, model_id: int, *, actor: str, reason: str, also: Also | None = None) -> int:
    """Take the current window for normal: it resolves the incident of drift, and the baseline begins anew from there.

    Returns the new version. Raises ConfigError where the window holds fewer events than the model's min_samples;
    NotFoundError where there is no such model.
    """

    def request(state: _State) -> Request:
        t0 = state.hour - state.window
        found = state.request("accepted", t0, state.hour, actor, reason)
        return replace(found, begin=t0, since=t0, accepted=-1)

    def resolve(conn: sa.Connection) -> None:
        for incident in incidents.active(conn):
            if incident.model_id == model_id and incident.kind == "psi":
                outbox.record(conn, incident, lifecycle.act(incident, "accept", actor, reason, context.clock()))
        if also is not None:
            also(conn)

    return _change(context, model_id, request, resolve)


@dataclass(frozen=True)
class _State:
    """What a version made by hand begins with.

    hour: end of the newest evaluated hour; window: length of the current window, seconds
    """

    model: MonitoredModel
    settings: MonitorConfig
    content: Content | None
    spans: Sequence[Span]
    hour: int
    window: int

    @property
    def begin(self) -> int:
        """Where the history begins."""
        return max(self.model.first_event_at or 0, (self.content.since if self.content else None) or 0)

    def request(self, kind: str, t0: int, t1: int, actor: str, reason: str) -> Request:
        """A version like the present one, over the events of [t0, t1)."""
        since, accepted = (self.content.since, self.content.accepted) if self.content else (None, 0)
        spans = self.spans if kind == "sliding" else ()
        return Request(self.model, self.settings, kind, t0, t1, reason, self.begin, since, accepted, spans, actor)


def _change(context: Context, model_id: int, request: Callable[[_State], Request], also: Also | None) -> int:
    """Make a version because somebody asked for it."""

    def attempt() -> int:
        with context.store.database.read() as conn:
            progress = model_store.progress(conn)
            wanted = request(_state(context, conn, model_id, progress))
            version = model_store.newest_versions(conn, [model_id]).get(model_id, 0) + 1
        hour = wanted.t1 if progress.evaluated_until is None else progress.evaluated_until
        found = event_store.read_events(context.store, wanted.t0, wanted.t1, ["ts"], [model_id])
        if len(found["ts"]) < wanted.settings.min_samples:
            raise ConfigError(
                [f"start: only {len(found['ts'])} events lie in that time, {wanted.settings.min_samples} are needed"]
            )
        rows, pending = _made(context, [wanted], [version], hour)
        if not rows:
            raise ConfigError([f"start: fewer than {wanted.settings.min_samples} events lie outside of incidents"])
        with context.store.database.write() as conn:
            model_store.advance(conn, progress)
            context.store.segments.commit(conn, [pending])
            model_store.add_baselines(conn, rows)
            if also is not None:
                also(conn)
        return version

    return persistently(attempt)


def _state(context: Context, conn: sa.Connection, model_id: int, progress: Progress) -> _State:
    model = model_store.model(conn, model_id)
    if model is None:
        raise NotFoundError(f"there is no model {model_id}")
    hour_seconds = context.config.hour_seconds
    settings = model.monitor_config(context.config.monitoring)
    row = model_store.current_baselines(conn, [model_id]).get(model_id)
    state = model_store.states(conn, [model_id]).get(model_id)
    outputs = Assessment.from_json(state.assessment).outputs if state is not None else ()
    days = max((output.days for output in outputs), default=0)
    hour = progress.evaluated_until
    return _State(
        model,
        settings,
        None if row is None else Content.from_json(row.bins),
        [(one.from_hour, one.until_hour) for one in incidents.drift_spans(conn, 0, [model_id])],
        int(context.clock()) // hour_seconds * hour_seconds if hour is None else hour,
        max(settings.current_hours, days * DAY_HOURS) * hour_seconds,
    )
