"""Issue forecasts: live ones from the newest origin, and replays from any past origin without looking ahead."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import forecasts, registry, training
from sentinel_core.config import WatchConfig
from sentinel_core.errors import ModelError, SentinelError, StoreError, explain
from sentinel_core.forecasts import Fitted, Forecast
from sentinel_core.models import catalogue
from sentinel_core.models.adapter import FiveMethodBatchModel
from sentinel_core.pipeline.adapting import Widths
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import ForecastReport
from sentinel_core.pipeline.serving import load_serving, load_version
from sentinel_core.pipeline.showing import context_window, shown_window
from sentinel_core.pipeline.threshold_incidents import Expected, follow_thresholds
from sentinel_core.registry import Version
from sentinel_core.storage import forecast_store, watch_store
from sentinel_core.storage.forecast_store import LIVE, REPLAY
from sentinel_core.windows import IntArray, Window, grid, unique

UNLEARNT_CONTEXT_STEPS = 120  # what a series that no version knows is scaled by
MAX_REPLAY_ROWS = 50_000_000
DAY = 86_400


@dataclass(frozen=True)
class _Job:
    """One watch's live series and what forecasts them."""

    watch: WatchConfig
    watch_id: int
    fingerprints: IntArray
    fitted: Fitted | None  # None: the serving artifact cannot be read, nor any older one
    version: Version | None


def issue_forecasts(
    context: Context, start: int, end: int, *, mode: str = "live", slugs: Sequence[str] | None = None
) -> ForecastReport:
    """Forecast from origins in [start, end], unix seconds.

    mode "live": the newest origin of each watch, which is what the sidecar shows; origins that were missed since the
    last one are kept as replays, but for a person's five methods: they take their time, and a tick must not wait
    mode "replay": every origin in the span, each with the version that served then, or one refitted on data before it
    """
    if mode != "live":
        return _replay(context, start, end, slugs)
    try:
        return _issue_live(context, slugs)
    except Exception as error:
        with suppress(StoreError):  # it may refuse this too
            _note_failure(context, slugs, explain(error))
        raise


def _note_failure(context: Context, slugs: Sequence[str] | None, problem: str) -> None:
    """Say of each watch that was left without a forecast of its newest samples why that is."""
    with context.store.database.write() as conn:
        states = watch_store.states(conn)
        left = [states[watch.slug] for watch in context.chosen(slugs) if watch.slug in states]
        found = {state.watch_id: problem for state in left if state.scraped_until != state.forecast_origin}
        watch_store.note_errors(conn, "forecast", found, context.clock())


def _issue_live(context: Context, slugs: Sequence[str] | None) -> ForecastReport:
    ids = context.watch_ids()
    watches = context.chosen(slugs)
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        owner, fingerprints = watch_store.live_series(conn, None)
        active = registry.active_versions(conn)
    models, failures = load_serving(context, watches, ids)
    live = _by_owner(owner, fingerprints)
    due: dict[tuple[bool, int, int], list[_Job]] = {}
    report = _Tally(failures)
    began = context.clock()
    missed: list[tuple[WatchConfig, int, int]] = []
    expected: list[Expected] = []
    for watch in watches:
        state = states.get(watch.slug)
        if state is None or state.scraped_until is None or not (watch.slug in models or watch.slug in failures):
            continue
        origin = state.scraped_until
        fitted, version = models.get(watch.slug, (None, None))
        members = live.get(ids[watch.slug], fingerprints[:0])
        job = _Job(watch, ids[watch.slug], members, fitted, version)
        # a person's model may take its time, or hang: the built-ins' forecasts stand before it is asked
        own = fitted is not None and isinstance(fitted.model, FiveMethodBatchModel)
        due.setdefault((own, watch.step_seconds, origin), []).append(job)
        if not own and state.forecast_origin is not None and origin - state.forecast_origin > watch.step_seconds:
            missed.append((watch, state.forecast_origin + watch.step_seconds, origin - watch.step_seconds))
    for (_, step, origin), jobs in sorted(due.items(), key=lambda item: item[0]):
        rounds = (states[job.watch.slug].verified_until for job in jobs)
        widths = Widths.read(context.store, step, [one for one in rounds if one is not None])
        blocks = _forecast(context, step, origin, jobs, widths, report)
        if not blocks:
            continue
        unlearnt = dict.fromkeys((block.watch_id for block in blocks), 0)
        for block in blocks:
            unlearnt[block.watch_id] += int((block.forecast.versions <= 0).sum())
        columns = _columns(blocks, step, origin, LIVE)
        pending = forecast_store.write_forecasts(context.store, step, columns)
        with context.store.database.write() as conn:
            (segment,) = context.store.segments.commit(conn, [pending])
            # promoted or rolled back meanwhile: whoever did that has issued anew, and must not be painted over
            now_active = registry.active_versions(conn)
            rows = [
                {"watch_id": watch_id, "forecast_origin": origin, "forecast_segment_id": segment, "unlearnt": count}
                for watch_id, count in unlearnt.items()
                if now_active.get(watch_id) == active.get(watch_id)
            ]
            watch_store.update_states(conn, rows)
            errors = {job.watch_id: report.failures.get(job.watch.slug) for job in jobs}
            watch_store.note_errors(conn, "forecast", errors, context.clock())
            context.count("sentinel_forecasts_total", sum(len(block.fingerprints) for block in blocks))
            context.flush(conn)
        report.add(blocks, len(columns["fp"]), 1)
        limited = {job.watch_id: job.watch for job in jobs if job.watch.thresholds}
        expected += [
            Expected(limited[block.watch_id], block.watch_id, origin, block.fingerprints, block.forecast)
            for block in blocks
            if block.watch_id in limited
        ]
    follow_thresholds(context, expected)
    context.count("sentinel_forecast_seconds_sum", context.clock() - began)
    context.count("sentinel_forecast_seconds_count")
    for watch, first, last in missed:
        _replay_watch(context, watch, ids[watch.slug], max(first, last - DAY), last, report)
    return report.done(len(watches))


@dataclass(frozen=True)
class _Block:
    watch_id: int
    fingerprints: IntArray
    forecast: Forecast


def _forecast(
    context: Context, step: int, origin: int, jobs: Sequence[_Job], widths: Widths, report: "_Tally"
) -> list[_Block]:
    """Forecast many watches from one origin: those of one model, grid and what is ignored run as one."""
    learnt: dict[str, list[tuple[_Job, Fitted]]] = {}
    blocks: list[_Block] = []
    for job in jobs:
        if job.fitted is None:
            blocks.append(_last_values(context, origin, job, job.fingerprints))
            continue
        if np.array_equal(job.fingerprints, job.fitted.model.fingerprints):  # as it nearly always is
            learnt.setdefault(_signature(job), []).append((job, job.fitted))
            continue
        known = np.isin(job.fingerprints, job.fitted.model.fingerprints)
        if known.any():
            learnt.setdefault(_signature(job), []).append((job, job.fitted.take(job.fingerprints[known])))
        fresh = job.fingerprints[~known]
        if len(fresh):
            window = context_window(context, job.watch, fresh, origin, UNLEARNT_CONTEXT_STEPS)
            number = 0 if job.version is None else job.version.version
            try:
                forecast = forecasts.issue_unlearnt(
                    job.fitted, window, job.watch.horizon_steps, number, job.watch.bounds
                )
            except Exception as error:  # a person's model may raise anything when it pools; the last value never does
                report.failures[job.watch.slug] = explain(error)
                forecast = forecasts.issue_unlearnt(None, window, job.watch.horizon_steps, number, job.watch.bounds)
            blocks.append(_Block(job.watch_id, fresh, forecast))
    for members in learnt.values():
        try:
            blocks += _forecast_together(context, step, origin, members, widths, report)
        except Exception as failure:  # a person's model may raise anything, and must not take other watches with it
            errors = failure.errors if isinstance(failure, ModelError) else {}
            for member in members:
                job, part = member
                if errors:  # it failed with every series; asked again, it would
                    mine = {one: errors[one] for one in part.model.fingerprints.tolist() if one in errors}
                    if mine:
                        report.failures[job.watch.slug] = context.blame(job.watch, job.watch_id, mine)
                    blocks.append(_last_values(context, origin, job, part.model.fingerprints))
                    continue
                try:
                    blocks += _forecast_together(context, step, origin, [member], widths, report)
                except Exception as error:
                    report.failures[job.watch.slug] = explain(error)
                    blocks.append(_last_values(context, origin, job, part.model.fingerprints))
    return blocks


def _last_values(context: Context, origin: int, job: _Job, fingerprints: IntArray) -> _Block:
    """Where a model fails altogether something honest still stands: the last value, marked as such."""
    window = context_window(context, job.watch, fingerprints, origin, UNLEARNT_CONTEXT_STEPS)
    forecast = forecasts.issue_unlearnt(None, window, job.watch.horizon_steps, 0, job.watch.bounds)
    return _Block(job.watch_id, window.fingerprints, forecast)


def _forecast_together(
    context: Context, step: int, origin: int, members: Sequence[tuple[_Job, Fitted]], widths: Widths, report: "_Tally"
) -> list[_Block]:
    owner = np.repeat(
        np.array([job.watch_id for job, _ in members], np.int32), [len(part.versions) for _, part in members]
    )
    fitted = widths.widened(forecasts.concat([part for _, part in members]), owner)
    rows = fitted.model.fingerprints
    distinct = unique(rows)
    watch = members[0][0].watch
    window = context_window(context, watch, distinct, origin, fitted.model.context_steps)
    aligned = Window(rows, window.timestamps, window.values[np.searchsorted(distinct, rows)], step)
    forecast = forecasts.issue(fitted, aligned, watch.horizon_steps)
    blocks, at = [], 0
    for job, part in members:
        cut = slice(at, at + len(part.model.fingerprints))
        blocks.append(_Block(job.watch_id, rows[cut], forecast.rows(cut)))
        wrong = {one: fitted.model.errors[one] for one in rows[cut].tolist() if one in fitted.model.errors}
        if wrong:
            report.failures[job.watch.slug] = context.blame(job.watch, job.watch_id, wrong)
        at = cut.stop
    return blocks


def _signature(job: _Job) -> str:
    assert job.fitted is not None
    assert job.version is not None
    model = job.fitted.model
    spec = [job.version.model_class, model.horizon_steps, model.lookback_steps, sorted(model.model_params.items())]
    return json.dumps([*spec, job.watch.ignored], default=str)


def _by_owner(owner: NDArray[np.int32], fingerprints: IntArray) -> dict[int, IntArray]:
    """Ascending fingerprints of each watch."""
    order = np.lexsort((fingerprints, owner))
    owner, fingerprints = owner[order], fingerprints[order]
    ids, starts = np.unique(owner, return_index=True)
    return dict(zip(ids.tolist(), np.split(fingerprints, starts[1:]), strict=True)) if len(ids) else {}


def _columns(blocks: Sequence[_Block], step: int, origin: int, mode: int) -> dict[str, NDArray[Any]]:
    """Rows of the `forecasts` dataset, one per series and lead."""
    same_horizon: dict[int, list[_Block]] = {}
    for block in blocks:
        same_horizon.setdefault(block.forecast.mean.shape[1], []).append(block)
    parts = [_rows(some, horizon, step, origin, mode) for horizon, some in same_horizon.items()]
    return {name: np.concatenate([part[name] for part in parts]) for name in forecast_store.FORECAST_COLUMNS}


def _rows(blocks: Sequence[_Block], horizon: int, step: int, origin: int, mode: int) -> dict[str, NDArray[Any]]:
    counts = [len(block.fingerprints) for block in blocks]
    n = sum(counts)
    leads = np.tile(np.arange(1, horizon + 1), n)
    return {
        "watch": np.repeat(np.array([block.watch_id for block in blocks], np.int32), np.array(counts) * horizon),
        "fp": np.repeat(np.concatenate([block.fingerprints for block in blocks]), horizon),
        "origin": np.full(n * horizon, origin, np.int64),
        "ts": origin + leads * step,
        "lead": leads.astype(np.int16),
        **{
            name: np.concatenate([getattr(block.forecast, name) for block in blocks]).ravel()
            for name in ("mean", "lower", "upper", "inner_lower", "inner_upper")
        },
        "version": np.repeat(np.concatenate([block.forecast.versions for block in blocks]), horizon),
        "mode": np.full(n * horizon, mode, np.int8),
    }


# ---- replay ----------------------------------------------------------------------------------------------------------
def _replay(context: Context, start: int, end: int, slugs: Sequence[str] | None) -> ForecastReport:
    ids = context.watch_ids()
    watches = context.chosen(slugs)
    report = _Tally({})
    for watch in watches:
        _replay_watch(context, watch, ids[watch.slug], start, end, report)
    return report.done(len(watches))


def _replay_watch(context: Context, watch: WatchConfig, watch_id: int, start: int, end: int, report: "_Tally") -> None:
    """Forecast one watch from every origin in the span, day by day, and keep the rows as replays."""
    step = watch.step_seconds
    try:
        with context.store.database.read() as conn:
            known = np.sort(np.fromiter(watch_store.known_series(conn, watch_id), np.int64))
            history = registry.history(conn, watch_id)
        rows = len(known) * watch.horizon_steps * ((end - start) // step + 1)
        if rows > MAX_REPLAY_ROWS:
            raise SentinelError(f"a replay of {rows:,} forecasts is too much at once; choose a shorter span")
        for first in range(start - start % DAY, end + 1, DAY):
            origins = grid(max(start, first), min(end, first + DAY - 1), step)
            for fitted, version, some in _models_then(context, watch, history, known, origins):
                _replay_origins(context, watch, watch_id, fitted, version, some, report)
    except Exception as error:  # a person's model may raise anything, and must not take other watches with it
        report.failures[watch.slug] = explain(error)


def _models_then(
    context: Context,
    watch: WatchConfig,
    history: Sequence[tuple[float, registry.Version]],
    known: IntArray,
    origins: IntArray,
) -> list[tuple[Fitted, int, IntArray]]:
    """Which model serves which origins: what was active then, else one fitted on the history before them."""
    served: dict[int, list[int]] = {}
    by_number = {version.version: version for _, version in history}
    for origin in origins.tolist():
        active = [version.version for at, version in history if at <= origin]
        number = active[-1] if active and by_number[active[-1]].deleted_at is None else 0
        served.setdefault(number, []).append(origin)
    found = []
    for number, some in served.items():
        if number:
            found.append((load_version(context, watch, by_number[number]), number, np.array(some)))
            continue
        begin = some[0] - (watch.history_steps - 1) * watch.step_seconds
        before = shown_window(context, watch, known, begin, some[0])
        ready = training.enough_samples(before, watch.lookback_steps, watch.horizon_steps)
        if ready.any():
            candidate = training.train(
                lambda: catalogue.build(watch),
                trimmed(before.rows(ready)),
                version=0,
                level=watch.level,
                inner_level=watch.inner_level,
                drift_window=watch.drift_window,
                bounds=watch.bounds,
            )
            found.append((candidate.fitted, 0, np.array(some)))
    return found


def _replay_origins(
    context: Context,
    watch: WatchConfig,
    watch_id: int,
    fitted: Fitted,
    version: int,
    origins: IntArray,
    report: "_Tally",
) -> None:
    step, steps = watch.step_seconds, fitted.model.context_steps
    rows = np.sort(fitted.model.fingerprints)
    ordered = fitted.take(rows)
    window = shown_window(context, watch, rows, int(origins[0]) - (steps - 1) * step, int(origins[-1]))
    for hour in unique(origins // 3600):
        columns, count = [], 0
        for origin in origins[origins // 3600 == hour].tolist():
            seen = window.until(origin).newest(steps)
            alive = np.flatnonzero(np.isfinite(seen.values).any(axis=1))
            if not len(alive):
                continue
            forecast = forecasts.issue(ordered.take(rows[alive]), seen.rows(alive), watch.horizon_steps)
            block = _Block(watch_id, rows[alive], forecast)
            columns.append(_columns([block], step, origin, REPLAY))
            report.add([block], len(columns[-1]["fp"]), 1)
            count += 1
        if count:
            merged = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
            pending = forecast_store.write_forecasts(context.store, step, merged)
            with context.store.database.write() as conn:
                context.store.segments.commit(conn, [pending])


def trimmed(window: Window) -> Window:
    """Without the columns before any series' first sample: "7d, or what there is"."""
    finite = np.isfinite(window.values).any(axis=0)
    return window.columns(slice(int(np.argmax(finite)), None)) if finite.any() else window.columns(slice(0, 0))


class _Tally:
    """Sums over the blocks of one report."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        self.series: set[tuple[int, int]] = set()
        self.origins = self.rows = self.pooled = self.naive = 0

    def add(self, blocks: Sequence[_Block], rows: int, origins: int) -> None:
        self.rows += rows
        self.origins += origins
        for block in blocks:
            self.series.update((block.watch_id, fingerprint) for fingerprint in block.fingerprints.tolist())
            self.pooled += int((block.forecast.versions < 0).sum())
            self.naive += int((block.forecast.versions == forecasts.NAIVE).sum())

    def done(self, watches: int) -> ForecastReport:
        return ForecastReport(
            watches, len(self.series), self.origins, self.rows, self.pooled, self.naive, self.failures
        )
