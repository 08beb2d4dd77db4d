"""From the event log to segments: every acknowledged event lands once, in its own hour."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sentinel_core.errors import ConflictError, StoreError
from sentinel_core.monitoring.assessment import OUTPUTS
from sentinel_core.monitoring.duplicates import first_of_each
from sentinel_core.monitoring.event_columns import COLUMNS, EventColumns, decode
from sentinel_core.monitoring.histograms import hourly_counts
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.pipeline.reports import DrainReport
from sentinel_core.pipeline.windowing import Content
from sentinel_core.storage import event_log, event_store, model_store
from sentinel_core.storage.model_store import BaselineRow
from sentinel_core.storage.segments import Pending
from sentinel_core.windows import IntArray

MAX_EVENTS = 500_000  # of one transaction: 0.2 GB while they are sorted and counted


@dataclass
class _Done:
    """What was drained so far."""

    counts: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)
    new_models: list[str] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)  # id of a row that cannot be read -> why


def drain(context: Context) -> DrainReport:
    """Move everything that the event log holds into segments, in chunks of bounded size; the sidecar may append.

    One transaction per chunk: the events and their counts become visible and their rows leave the log, or nothing
    happens. Hours that were evaluated already are noted, to be evaluated again.

    Raises StoreError where a row of the log cannot be read; all others are drained before.
    """
    done = _Done()
    after: int | None = 0
    while after is not None:
        after = persistently(partial(_chunk, context, after, done))
    if done.broken:
        row, text = next(iter(done.broken.items()))
        raise StoreError(
            f"{len(done.broken)} rows of the event log cannot be read and stay in it, as row {row}: {text}"
        )
    counts = done.counts
    return DrainReport(
        counts["events"],
        counts["duplicates"],
        counts["dropped"],
        counts["log_rows"],
        tuple(done.new_models),
        dict(sorted(done.hours.items())),
        counts["late_hours"],
    )


def _chunk(context: Context, after: int, done: _Done) -> int | None:
    """Drain some rows behind an id; the last one's, or None where there are none left."""
    store, now, hour_seconds = context.store, context.clock(), context.config.hour_seconds
    with store.database.read() as conn:
        rows = event_log.read(conn, after=after, max_events=MAX_EVENTS)
        if not rows:
            return None
        progress = model_store.progress(conn)
        models = {one.id: one for one in model_store.models(conn)}
        projects = model_store.project_names(conn)
        baselines = model_store.current_baselines(conn)
    good: dict[int, EventColumns] = {}
    for row in rows:
        try:
            good[row.id] = decode(row.payload)
        except ValueError as error:
            done.broken[row.id] = str(error)
    found = EventColumns.concatenated(good.values())
    there = np.isin(found.model, np.fromiter(models, np.int32, len(models)))
    found, dropped = found.where(there), int((~there).sum())
    new = _new(context, found)
    found, duplicates = found.where(new), int((~new).sum())
    order = np.lexsort((found.ts, found.model))
    found = EventColumns(**{name: getattr(found, name)[order] for name in COLUMNS}, texts=found.texts)
    hour = found.ts // hour_seconds * hour_seconds
    pending = Pending.joined(
        [
            event_store.write_events(store, {name: getattr(found, name) for name in COLUMNS}, now),
            _counts(context, found, hour, baselines, now),
        ],
        now,
    )
    per_model = _per_model(found)
    late = _late(found.model, hour, baselines, progress.evaluated_until, hour_seconds)
    with store.database.write() as conn:
        model_store.advance(conn, progress)
        if event_log.delete(conn, list(good)) != len(good):
            raise ConflictError("another drain was faster: start again")
        store.segments.commit(conn, [pending])
        model_store.note_events(conn, per_model)
        model_store.add_labels(conn, _texts(found))
        model_store.add_late_hours(conn, late)
        context.count("sentinel_drained_events_total", len(found))
        context.flush(conn)
    done.counts.update(
        events=len(found), duplicates=duplicates, dropped=dropped, log_rows=len(good), late_hours=len(late)
    )
    done.hours.update(_tally(hour))
    done.new_models += [models[one].full_name(projects) for one, *_ in per_model if not models[one].events]
    return rows[-1].id


def _new(context: Context, events: EventColumns) -> np.ndarray:
    """Which events are neither repeated among these nor stored already; the door has let through what it forgot."""
    known = event_store.stored_ids(context.store, events.ts, events.id)
    return first_of_each(events.id, known)


def _counts(
    context: Context, events: EventColumns, hour: IntArray, baselines: Mapping[int, BaselineRow], now: float
) -> Pending:
    """Count events (sorted by model) of the models that have a baseline, in its bins."""
    ids = np.unique(events.model)
    known = [baselines.get(one) for one in ids.tolist()]
    contents = [None if row is None else Content.from_json(row.bins) for row in known]
    versions = np.array([0 if row is None else row.version for row in known], np.int64)
    subject = np.searchsorted(ids, events.model).astype(np.int64)
    parts = []
    for output, name in enumerate(OUTPUTS):
        bins = [None if content is None else content.outputs.get(output) for content in contents]
        if any(one is not None for one in bins):
            parts.append((output, hourly_counts(bins, subject, hour, getattr(events, name))))
    if not parts:
        return Pending((), now)
    place = np.concatenate([part.subject for _, part in parts])
    return event_store.write_counts(
        context.store,
        context.config.hour_seconds,
        ids[place],
        np.concatenate([np.full(len(part.subject), output) for output, part in parts]),
        versions[place],
        np.concatenate([part.hour for _, part in parts]),
        np.concatenate([part.counts for _, part in parts]),
        now,
    )


def _per_model(events: EventColumns) -> list[tuple[int, int, int, int]]:
    """(model, events, least and greatest time) of events that are sorted by (model, ts)."""
    ids, start, count = np.unique(events.model, return_index=True, return_counts=True)
    first, last = events.ts[start], events.ts[start + count - 1]
    return list(zip(ids.tolist(), count.tolist(), first.tolist(), last.tolist(), strict=True))


def _late(
    model: np.ndarray, hour: IntArray, baselines: Mapping[int, BaselineRow], until: int | None, hour_seconds: int
) -> list[tuple[int, int]]:
    """(model, hour) that were evaluated before these events came; a model without a baseline never was."""
    if until is None:
        return []
    past = hour + hour_seconds <= until
    pairs = np.unique(np.stack([model[past].astype(np.int64), hour[past]], axis=1), axis=0)
    return [(one, at) for one, at in pairs.tolist() if one in baselines]


def _texts(events: EventColumns) -> dict[int, dict[int, str]]:
    """What people call the labels, by model."""
    labelled = events.label != 0
    pairs = np.unique(np.stack([events.model[labelled].astype(np.int64), events.label[labelled]], axis=1), axis=0)
    found: dict[int, dict[int, str]] = {}
    for model, label in pairs.tolist():
        if label in events.texts:
            found.setdefault(model, {})[label] = events.texts[label]
    return found


def _tally(hour: IntArray) -> dict[int, int]:
    hours, count = np.unique(hour, return_counts=True)
    return dict(zip(hours.tolist(), count.tolist(), strict=True))
