"""Hours evaluated again, over the baselines of then: because late events touched them, or because somebody asks."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.pipeline.baselining import packs
from sentinel_core.pipeline.binning import recount
from sentinel_core.pipeline.context import Context, persistently
from sentinel_core.pipeline.judging import Past
from sentinel_core.pipeline.windowing import (
    DAY_HOURS,
    REACH_HOURS,
    Counted,
    Evaluated,
    Judged,
    judge,
    psi_rows,
    stored_sums,
)
from sentinel_core.storage import event_store, model_store
from sentinel_core.storage.event_store import LIVE, BlockSums
from sentinel_core.storage.model_store import MonitoredModel
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.store import Store


def replay(context: Context, hours: Sequence[int], mode: int) -> Iterator[tuple[int, list[Evaluated]]]:
    """Evaluate hours (ends) again and write the scores, nothing else; yields each hour with its models as it goes.

    Models are taken some at a time, so an hour may come more than once.
    """
    with context.store.database.read() as conn:
        models = [one for one in model_store.models(conn) if one.enabled]
    for some in packs(models, lambda one: one.events):  # of versions that serve no more they are counted anew
        with context.store.database.read() as conn:
            past = Past(conn, context.config, some)
        wanted = {hour: past.judged(hour) for hour in hours}
        rows = []
        for hour, evaluated in evaluate_again(context.store, wanted, context.config.hour_seconds, past.texts):
            rows.append(psi_rows(evaluated, hour, mode))
            yield hour, evaluated
        pending = event_store.write_psi(context.store, context.config.hour_seconds, _joined(rows), context.clock())
        with context.store.database.write() as conn:
            context.store.segments.commit(conn, [pending])


def make_late_again(context: Context) -> int:
    """Evaluate again what late events have changed; returns how many evaluations (of one model at one hour) were made.

    Only scores are written: incidents go by evaluations of new hours, and the next one sees the late events too.
    """
    return persistently(lambda: _late(context))


def _late(context: Context) -> int:
    store, hour_seconds = context.store, context.config.hour_seconds
    with store.database.read() as conn:
        progress = model_store.progress(conn)
        late = model_store.late_hours(conn)
        if not late or progress.evaluated_until is None:
            return 0
        ids = {model_id for model_id, _ in late}
        models = [one for one in model_store.models(conn) if one.id in ids and one.enabled]
        past = Past(conn, context.config, models)
        lengths = {
            one.id: _window_hours(context, one, states.get(one.id))
            for states in [model_store.states(conn, ids)]
            for one in models
        }
    touched: dict[int, set[int]] = {}
    for model_id, start in late:
        for age in range(1, lengths.get(model_id, 0) + 1):
            hour = start + age * hour_seconds
            if hour <= progress.evaluated_until:
                touched.setdefault(hour, set()).add(model_id)
    wanted = {hour: [one for one in past.judged(hour) if one.model.id in touched[hour]] for hour in sorted(touched)}
    found = [
        (hour, evaluated) for hour, evaluated in evaluate_again(store, wanted, hour_seconds, past.texts) if evaluated
    ]
    rows = [psi_rows(evaluated, hour, LIVE) for hour, evaluated in found]
    pending = event_store.write_psi(store, hour_seconds, _joined(rows), context.clock())
    with store.database.write() as conn:
        model_store.advance(conn, progress)
        store.segments.commit(conn, [pending])
        model_store.clear_late_hours(conn, late)
    return sum(len(evaluated) for _, evaluated in found)


def _window_hours(context: Context, model: MonitoredModel, state: model_store.StateRow | None) -> int:
    """The longest window that an hour of a model may lie in."""
    outputs = () if state is None else Assessment.from_json(state.assessment).outputs
    days = max((output.days for output in outputs), default=0)
    return max(model.monitor_config(context.config.monitoring).current_hours, days * DAY_HOURS)


def evaluate_again(
    store: Store, wanted: Mapping[int, Sequence[Judged]], hour_seconds: int, texts: Mapping[int, Mapping[int, str]]
) -> Iterator[tuple[int, list[Evaluated]]]:
    """Evaluate models at hours; counts of versions that serve no more are made anew, from the events."""
    counted: dict[int, Counted] = {}  # by version: a model has one at a time, so that models share them
    old: dict[int, dict[int, Judged]] = {}
    for judged in wanted.values():
        for one in judged:
            if one.version != one.model.baseline_version:
                old.setdefault(one.version, {})[one.model.id] = one
    for version, members in old.items():
        start = min(wanted) - REACH_HOURS * hour_seconds
        counted[version] = recount(store, list(members.values()), start, hour_seconds)
    for hour, judged in wanted.items():
        serving = [one for one in judged if one.version == one.model.baseline_version]
        sums = [stored_sums(store, serving, hour, hour_seconds)]
        for version in {one.version for one in judged if one.version != one.model.baseline_version}:
            mine = [one for one in judged if one.version == version and version != one.model.baseline_version]
            sums.append(counted[version].sums(mine, hour, hour_seconds))
        yield hour, judge(judged, _together(sums), hour, hour_seconds, texts)


def _together(sums: Sequence[BlockSums]) -> BlockSums:
    width = max(one.counts.shape[1] for one in sums)
    return BlockSums(
        np.concatenate([one.model for one in sums]),
        np.concatenate([one.output for one in sums]),
        np.concatenate([one.age for one in sums]),
        np.concatenate([np.pad(one.counts, ((0, 0), (0, width - one.counts.shape[1]))) for one in sums]),
    )


def _joined(rows: Sequence[Columns]) -> Columns:
    if not rows:
        return event_store.no_psi()
    return {name: np.concatenate([one[name] for one in rows]) for name in event_store.PSI_COLUMNS}
