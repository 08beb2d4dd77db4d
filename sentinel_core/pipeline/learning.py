"""Train watches: read the missing history, fit in blocks, judge, record a version, promote it, forecast at once."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np

from sentinel_core import drift, plots, registry, training
from sentinel_core.actions import COLD_START, DECIDED, FINETUNE, PERSON, RETRAIN
from sentinel_core.config import WatchConfig
from sentinel_core.errors import ModelError, SentinelError, explain
from sentinel_core.forecasts import NAIVE, Fitted
from sentinel_core.models import catalogue
from sentinel_core.pipeline import deciding
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.issuing import issue_forecasts, trimmed
from sentinel_core.pipeline.reading import read_newest
from sentinel_core.pipeline.reports import TrainingReport
from sentinel_core.pipeline.scoring import drifting
from sentinel_core.pipeline.serving import forget_drift, load_serving
from sentinel_core.pipeline.showing import shown_window
from sentinel_core.registry import Version
from sentinel_core.storage import forecast_store, series_models, watch_store
from sentinel_core.training import Candidate
from sentinel_core.windows import IntArray, Window, unique

BLOCK_SAMPLES = 8_000_000  # values fitted at once: 64 MB, and a few times that inside a model
REMEMBERED_SECONDS = 86_400  # a vanished series keeps its parameters for a day, in case it comes back


@dataclass(frozen=True)
class _Task:
    """One watch's training: what to fit, from what, on which span."""

    watch: WatchConfig
    watch_id: int
    kind: str
    fingerprints: IntArray
    champion: tuple[Fitted, Version] | None
    parent: int | None  # the version that serves, even where its artifact cannot be read any more
    start: int
    end: int


def train(
    context: Context,
    slugs: Sequence[str],
    *,
    kind: str,
    reason: str,
    cause: str = PERSON,
    run_id: str | None = None,
) -> list[TrainingReport]:
    """Train each watch and report on each; a watch that fails leaves what serves untouched and stops no other.

    kind: cold_start (series that no version has learnt), finetune or retrain
    cause: who asks. On behalf of a decision only watches whose decision still waits for it are trained; the others'
    reports are `skipped`
    """
    reports = []
    for watch in context.chosen(slugs):
        watch_id = context.watch_ids()[watch.slug]
        with deciding.leased(context, watch_id, kind, reason, cause, run_id) as lease:
            if lease is None:
                skipped = cause in DECIDED
                detail = "its decision was answered meanwhile" if skipped else "another run is training it"
                reports.append(replace(_nothing(watch, kind, reason, detail), skipped=skipped))
                continue
            began = context.clock()
            try:
                report = _train_watch(context, watch, watch_id, kind, lease, run_id)
            except Exception as error:  # a person's model may raise anything; other watches must not suffer from it
                detail = explain(error)
                if isinstance(error, ModelError) and error.errors:
                    detail = context.blame(watch, watch_id, error.errors)
                report = _failed(context, watch, watch_id, kind, lease, detail)
            seconds = context.clock() - began
            reports.append(replace(report, seconds=seconds))
            context.count("sentinel_training_seconds_sum", seconds, kind=report.kind)
            context.count("sentinel_training_seconds_count", kind=report.kind)
        if report.promoted:
            with suppress(SentinelError):  # it serves already; the next tick forecasts with it
                issue_forecasts(context, 0, 0, mode="live", slugs=[watch.slug])
    with context.store.database.write() as conn:
        context.flush(conn)
    return reports


def _train_watch(
    context: Context, watch: WatchConfig, watch_id: int, kind: str, lease: deciding.Lease, run_id: str | None
) -> TrainingReport:
    end = read_newest(context, watch, watch.history_steps)
    start = end - (watch.history_steps - 1) * watch.step_seconds
    champions, _ = load_serving(context, [watch], {watch.slug: watch_id})
    champion = champions.get(watch.slug)
    with context.store.database.read() as conn:
        active = registry.serving(conn).get(watch_id)
    parent = None if active is None else active[1].version
    if champion is not None and champion[1].spec_digest != watch.digest_until(champion[1].span_end):
        kind = RETRAIN  # another model, grid or parameters: there is nothing to continue
    fingerprints, kind = _choose(context, watch, watch_id, kind, champion, lease, end)
    if not len(fingerprints):
        return _failed(context, watch, watch_id, kind, lease, "there is no series to train", waits=parent is not None)
    task = _Task(watch, watch_id, kind, fingerprints, champion, parent, start, end)
    candidates, trained_start, sample = _fit(context, task)
    if not candidates:
        need = watch.lookback_steps + watch.horizon_steps
        detail = f"no series has {need} steps ({watch.lookback} + {watch.horizon}) of history yet"
        return _failed(context, watch, watch_id, kind, lease, detail, waits=parent is not None)
    return _conclude(context, task, candidates, trained_start, sample, lease, run_id)


def _choose(
    context: Context,
    watch: WatchConfig,
    watch_id: int,
    kind: str,
    champion: tuple[Fitted, Version] | None,
    lease: deciding.Lease,
    end: int,
) -> tuple[IntArray, str]:
    """Which series to fit: new ones for a cold start, the drifting ones for a drift decision, otherwise all."""
    with context.store.database.read() as conn:
        _, live = watch_store.live_series(conn, watch_id)
    live = np.sort(live)
    if champion is None:
        return live, COLD_START
    known = np.isin(live, champion[0].model.fingerprints)
    if kind == COLD_START:
        return np.intersect1d(live, np.union1d(live[~known], _unlearnt(context, watch, watch_id))), kind
    if lease.cause == "drift":
        severity = drifting(context, watch, champion[0], end)
        at_least = drift.HIGH if kind != FINETUNE else drift.LOW
        return np.intersect1d(live, champion[0].model.fingerprints[severity >= at_least]), kind
    return (live[known] if kind == FINETUNE else live), kind


def _unlearnt(context: Context, watch: WatchConfig, watch_id: int) -> IntArray:
    """Series whose newest forecast comes from no version of their own: new ones, and those whose model fails."""
    with context.store.database.read() as conn:
        state = watch_store.states(conn).get(watch.slug)
    if state is None or state.forecast_segment_id is None:
        return np.empty(0, np.int64)
    rows = forecast_store.read_segment(
        context.store, state.forecast_segment_id, watch_ids=[watch_id], origin=state.forecast_origin
    )
    return unique(rows["fp"][rows["version"] <= NAIVE])


def _blocks(context: Context, task: _Task) -> Iterator[tuple[IntArray, int, int | None]]:
    """Series to fit at once, the start of their window, and how far their champion has seen.

    Memory is bounded by the block and not by the number of series. A finetune continues each series from where the
    version that last fitted it stopped, which may be older than the one that serves.
    """
    watch, champion = task.watch, task.champion
    with context.store.database.read() as conn:
        first_sample = watch_store.first_sample(conn, task.watch_id)
        ends = {version.version: version.span_end for version in registry.versions(conn, task.watch_id)}
    start = task.start if first_sample is None else max(task.start, first_sample)  # "7d, or what there is"
    groups: list[tuple[IntArray, int, int | None]] = []
    if champion is None:
        groups.append((task.fingerprints, start, None))
    elif task.kind != FINETUNE:
        groups.append((task.fingerprints, start, champion[1].span_end))
    else:
        versions = champion[0].take(task.fingerprints).versions
        context_steps = max(champion[0].model.context_steps, 2 * watch.lookback_steps) + watch.horizon_steps
        for version in unique(versions.astype(np.int64)).tolist():
            seen = ends.get(version, champion[1].span_end)
            begin = max(start, seen - context_steps * watch.step_seconds)
            groups.append((task.fingerprints[versions == version], begin, seen))
    for fingerprints, begin, champion_end in groups:
        size = max(1, BLOCK_SAMPLES // ((task.end - begin) // watch.step_seconds + 1))
        for first in range(0, len(fingerprints), size):
            yield fingerprints[first : first + size], begin, champion_end


def _fit(context: Context, task: _Task) -> tuple[list[tuple[IntArray, Candidate]], int, Window | None]:
    """Fit every block: candidates with their series, the first timestamp used, and a few series to draw."""
    watch, champion = task.watch, task.champion
    severity = np.zeros(0, np.int8)
    if champion is not None:
        severity = drifting(context, watch, champion[0], task.end)
    candidates: list[tuple[IntArray, Candidate]] = []
    trained_start, sample = task.end, None
    for block, start, champion_end in _blocks(context, task):
        window = shown_window(context, watch, block, start, task.end)
        ready = training.enough_samples(window, watch.lookback_steps, watch.horizon_steps)
        if not ready.any():
            continue
        window = trimmed(window.rows(ready))
        drifted = np.zeros(len(window.fingerprints), bool)
        if champion is not None:
            drifted = np.isin(window.fingerprints, champion[0].model.fingerprints[severity == drift.HIGH])
            # what a person has configured serves, whether or not the old model was better; and what can be read
            changed = champion[1].spec_digest != watch.digest_until(champion[1].span_end)
            drifted |= changed or champion[1].version != task.parent
        candidates.append(
            (
                window.fingerprints,
                training.train(
                    lambda: catalogue.build(watch),
                    window,
                    version=0,
                    level=watch.level,
                    inner_level=watch.inner_level,
                    bounds=watch.bounds,
                    champion=None if champion is None else champion[0],
                    champion_end=champion_end,
                    drifted=drifted,
                    finetune=task.kind == FINETUNE,
                    drift_window=watch.drift_window,
                ),
            )
        )
        trained_start = min(trained_start, int(window.timestamps[0]))
        if sample is None:
            steps = max(6 * watch.lookback_steps, 24 * watch.horizon_steps)
            few = window.rows(slice(plots.MAX_PANELS)).newest(steps)
            sample = replace(few, values=few.values.copy())  # a view would hold the whole block until it is drawn
    return candidates, trained_start, sample


def _conclude(
    context: Context,
    task: _Task,
    candidates: Sequence[tuple[IntArray, Candidate]],
    trained_start: int,
    sample: Window | None,
    lease: deciding.Lease,
    run_id: str | None,
) -> TrainingReport:
    """Record the version, promote it if any series accepts it, and drop artifacts that are no longer kept."""
    watch, champion = task.watch, task.champion
    spec_changed = champion is not None and champion[1].spec_digest != watch.digest_until(champion[1].span_end)
    with context.store.database.read() as conn:
        number = registry.next_version(conn, task.watch_id)
        members = watch_store.series_of(conn, [task.watch_id], live_only=False)
    since = task.end - REMEMBERED_SECONDS
    remembered = [m.fingerprint for m in members if m.vanished_at is None or m.vanished_at > since]
    accepted = [c.fitted.take(fingerprints[c.accepted]) for fingerprints, c in candidates if c.accepted.any()]
    refitted = sum(len(fitted.versions) for fitted in accepted)
    total = sum(len(fingerprints) for fingerprints, _ in candidates)
    mae = np.concatenate([c.mae for _, c in candidates])
    compared_mae = _median(np.concatenate([c.compared_mae for _, c in candidates]))
    champion_mae = _median(np.concatenate([c.champion_mae for _, c in candidates]))
    measured = [(c.coverage, len(fingerprints)) for fingerprints, c in candidates if np.isfinite(c.coverage)]
    coverage = sum(share * n for share, n in measured) / sum(n for _, n in measured) if measured else None
    row = Version(
        watch_id=task.watch_id,
        version=number,
        parent=task.parent,
        kind=task.kind,
        reason=lease.reason,
        model_class=watch.model_path,
        spec_digest=watch.digest_until(task.end),
        path="",
        sha256="",
        bytes=0,
        feature_names=json.dumps(list(candidates[0][1].fitted.model.feature_names)),
        series=total,
        series_refitted=refitted,
        span_start=trained_start,
        span_end=task.end,
        mae=_median(mae),
        champion_mae=champion_mae,
        coverage=coverage,
        accepted=bool(accepted),
        run_id=run_id,
        created_at=context.clock(),
    )
    errors = {fingerprint: text for _, c in candidates for fingerprint, text in c.errors.items()}
    problem = context.blame(watch, task.watch_id, errors) if errors else None
    draw = None if sample is None else partial(_plot, task, candidates[0][1].fitted.take(sample.fingerprints), sample)
    if not accepted:
        detail = (
            f"rejected: no better than {_label(champion)} on the same origins "
            f"(MAE {compared_mae or np.nan:.4g} against {champion_mae or np.nan:.4g}, median over series)"
        )
        if not any(np.isfinite(mae)):
            detail, draw = f"rejected: {problem or 'its forecasts are not finite'}", None
            problem = detail
        with context.store.database.write() as conn:
            registry.record(conn, replace(row, deleted_at=context.clock()))
            deciding.finish(conn, lease, "rejected", detail, context.clock())
            watch_store.note_errors(conn, "training", {task.watch_id: problem}, context.clock())
            context.count("sentinel_trainings_total", kind=task.kind, outcome="rejected")
        return _report(task, row, lease, promoted=False, detail=detail, draw=draw)
    fitted = reduce(Fitted.put, [stamped(part, number) for part in accepted])
    if champion is not None and not spec_changed:
        known = np.intersect1d(champion[0].model.fingerprints, np.array(remembered, np.int64))
        kept = champion[0].take(known)
        fitted = kept.put(fitted) if len(kept.versions) else fitted
    content, sha256 = registry.dump(fitted, fitted.model.feature_names)
    path = f"models/{watch.slug}/v{number}-{uuid.uuid4().hex[:8]}.joblib"
    context.store.segments.keep(path, content)
    names = fitted.model.model_names
    served_mae = _median(fitted.mae.mean(axis=1))  # of all it serves, not only of what this training fitted
    row = replace(row, path=path, sha256=sha256, bytes=len(content), series=len(fitted.versions), mae=served_mae)
    with context.store.database.write() as conn:
        registry.record(conn, row)
        promoted = registry.promote(
            conn, task.watch_id, number, parent=row.parent, reason=f"{task.kind}: {lease.reason}", run_id=run_id
        )
        gone = registry.surplus(conn, task.watch_id, context.config.max_versions_per_metric)
        registry.mark_deleted(conn, gone)
        if promoted:
            forget_drift(conn, task.watch_id)
            series_models.note(conn, task.watch_id, fitted.model.fingerprints, names)
        detail = _verdict(task, refitted, total, champion, promoted)
        deciding.finish(conn, lease, "promoted" if promoted else "held", detail, context.clock())
        watch_store.note_errors(conn, "training", {task.watch_id: problem}, context.clock())
        context.count("sentinel_trainings_total", kind=task.kind, outcome="promoted" if promoted else "held")
    # after the commit: a crash in between leaves a file too many, never one too few
    context.store.segments.folder.delete([version.path for version in gone])
    models = dict(Counter(names.tolist()).most_common())
    return _report(task, row, lease, promoted=promoted, detail=detail, models=models, draw=draw)


def stamped(fitted: Fitted, number: int) -> Fitted:
    """The same, its series marked as last fitted by this version."""
    return replace(fitted, versions=np.full(len(fitted.versions), number, np.int32))


def _plot(task: _Task, fitted: Fitted, window: Window) -> bytes:
    return plots.forecast_png(window, fitted, title=f"{task.watch.selector}, {task.kind}")


def _verdict(task: _Task, refitted: int, total: int, champion: tuple[Fitted, Version] | None, promoted: bool) -> str:
    share = f"{refitted} of {total} series accepted the new parameters"
    if task.parent is None:
        return f"serves: first version, {share}"
    if promoted and (champion is None or champion[1].version != task.parent):
        return f"serves instead of v{task.parent}, whose artifact cannot be read: {share}"
    if not promoted:
        return f"recorded, does not serve: a rollback to {_label(champion)} holds; {share}"
    return f"serves instead of {_label(champion)}: {share}, the others keep theirs"


def _label(champion: tuple[Fitted, Version] | None) -> str:
    return "nothing" if champion is None else f"v{champion[1].version}"


def _median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _failed(
    context: Context,
    watch: WatchConfig,
    watch_id: int,
    kind: str,
    lease: deciding.Lease,
    detail: str,
    *,
    waits: bool = False,
) -> TrainingReport:
    """Note why nothing was trained; that new series of a watch which serves are too young yet is no error of it."""
    with context.store.database.write() as conn:
        deciding.finish(conn, lease, "failed", detail, context.clock())
        watch_store.note_errors(conn, "training", {watch_id: None if waits else detail}, context.clock())
        context.count("sentinel_trainings_total", kind=kind, outcome="failed")
    return _nothing(watch, kind, lease.reason, detail)


def _nothing(watch: WatchConfig, kind: str, reason: str, detail: str) -> TrainingReport:
    return TrainingReport(watch.slug, kind, reason, None, None, False, detail)


def _report(
    task: _Task,
    row: Version,
    lease: deciding.Lease,
    *,
    promoted: bool,
    detail: str,
    models: Mapping[str, int] | None = None,
    draw: Callable[[], bytes] | None = None,
) -> TrainingReport:
    return TrainingReport(
        slug=task.watch.slug,
        kind=task.kind,
        reason=lease.reason,
        version=row.version,
        parent=row.parent,
        promoted=promoted,
        detail=detail,
        series=row.series,
        series_refitted=row.series_refitted,
        span_start=row.span_start,
        span_end=row.span_end,
        sha256=row.sha256 or None,
        mae=row.mae,
        champion_mae=row.champion_mae,
        coverage=row.coverage,
        model_class=row.model_class,
        models=models or {},
        draw=draw,
    )
