"""Try every model on a watch's own past, in parallel: what `sentinel evaluate` and Dagster's job show."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import joblib
import numpy as np

from sentinel_core import backtest, training
from sentinel_core.backtest import NAIVE, Fold, Judged, Standing
from sentinel_core.config import WatchConfig
from sentinel_core.durations import format_duration
from sentinel_core.errors import SentinelError, explain
from sentinel_core.models import catalogue
from sentinel_core.models.adapter import FiveMethodBatchModel
from sentinel_core.models.base import BatchModel
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.issuing import trimmed
from sentinel_core.pipeline.learning import BLOCK_SAMPLES
from sentinel_core.pipeline.reading import read_newest
from sentinel_core.pipeline.reports import BacktestReport
from sentinel_core.storage import watch_store, windows_store
from sentinel_core.windows import FloatArray, Window

MOST_SERIES = 256  # of a watch: the median over so many hardly moves with more, and fingerprints draw them fairly
Progress = Callable[[str, int, int], None]  # slug, how many trainings are done, of how many


@dataclass(frozen=True)
class _Task:
    """One training of one model, judged until the next."""

    model: str
    build: Callable[[], BatchModel]
    window: Window
    fold: Fold
    level: float
    leads: tuple[int, ...]


@dataclass(frozen=True)
class _Outcome:
    """errors and inside as in Judged, all NaN where there is a problem with the whole; seconds of CPU, all series."""

    task: _Task
    errors: FloatArray
    inside: FloatArray
    seconds: float
    failed: Mapping[int, str]
    problem: str | None = None


def run(
    context: Context, slugs: Sequence[str] | None, *, since_seconds: int, progress: Progress | None = None
) -> Iterator[BacktestReport]:
    """Report on each watch as it is done; what of its newest `since_seconds` was never read is read and kept.

    A watch that cannot be judged has a problem in its report and stops no other. To end it early, close the generator.
    """
    for watch in context.chosen(slugs):
        report = BacktestReport(watch.slug, watch.selector, watch.step_seconds, watch.level, _own(watch))
        try:
            yield _watch(context, watch, report, since_seconds // watch.step_seconds, progress)
        except SentinelError as error:
            yield replace(report, problem=str(error))


def _watch(
    context: Context, watch: WatchConfig, report: BacktestReport, steps: int, progress: Progress | None
) -> BacktestReport:
    watch_id = context.watch_ids()[watch.slug]
    end = read_newest(context, watch, steps)
    with context.store.database.read() as conn:
        _, live = watch_store.live_series(conn, watch_id)
    most = max(1, min(MOST_SERIES, BLOCK_SAMPLES // max(1, steps)))
    chosen = (
        np.sort(live)[np.unique(np.linspace(0, len(live) - 1, most).round().astype(np.int64))] if len(live) else live
    )
    start = end - (steps - 1) * watch.step_seconds
    window = trimmed(windows_store.read_window(context.store, watch.step_seconds, chosen, start, end))
    folds = backtest.folds(len(window.timestamps), watch.history_steps, watch.lookback_steps, watch.horizon_steps)
    ready = np.zeros(len(chosen), bool)
    if folds:
        seen = window.columns(folds[-1].seen)
        ready = training.enough_samples(seen, watch.lookback_steps, watch.horizon_steps)
    if not ready.any():
        need = format_duration((watch.lookback_steps + 2 * watch.horizon_steps) * watch.step_seconds)
        return replace(report, problem=f"no series has {need} of history ({watch.lookback} + 2 x {watch.horizon}) yet")
    window = window.rows(ready)
    leads = backtest.judged_leads(watch.horizon_steps)
    tasks = [
        _Task(model, build, window, fold, watch.level, leads)
        for model, build in contestants(watch).items()
        for fold in folds
    ]
    outcomes: dict[str, list[_Outcome]] = {}
    for done, outcome in enumerate(_perform(tasks), 1):
        outcomes.setdefault(outcome.task.model, []).append(outcome)
        if progress is not None:
            progress(watch.slug, done, len(tasks))
    standings = _standings(context, watch, watch_id, folds, outcomes)
    return replace(
        report,
        leads=leads,
        reported=backtest.reported_leads(watch.horizon_steps),
        series=len(window.fingerprints),
        of_series=len(live),
        start=int(window.timestamps[folds[0].origins[0]]),
        end=end,
        trained=len(folds),
        origins=sum(len(fold.origins) for fold in folds),
        standings=standings,
        advice=backtest.advise(standings, report.own, params=bool(watch.model_params)),
    )


def contestants(watch: WatchConfig) -> dict[str, Callable[[], BatchModel]]:
    """The seasonal naive, every built-in, and the watch's own model, by what they are called."""
    grid = watch.granularity, watch.horizon, watch.lookback
    named = {
        name: partial(catalogue.build, replace(watch, model_class=name, model_params={}))
        for name in catalogue.BUILT_INS
    }
    return {NAIVE: partial(SeasonalNaive, *grid), **named, _own(watch): partial(catalogue.build, watch)}


def _own(watch: WatchConfig) -> str:
    """What the watch's model is called; with its parameters, as a built-in without any stands beside it."""
    return f"{watch.model_path} {json.dumps(dict(watch.model_params))}" if watch.model_params else watch.model_path


def _perform(tasks: Sequence[_Task]) -> Iterator[_Outcome]:
    """The outcomes as they come: of models that have workers of their own from here, of all others from joblib's."""
    alone = {task.model: isinstance(task.build(), FiveMethodBatchModel) for task in tasks}
    shared = [task for task in tasks if not alone[task.model]]
    # BLAS with several threads beside other workers waits more than it computes
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        pool = joblib.Parallel(n_jobs=-1, batch_size=1, return_as="generator_unordered")
        yield from pool(joblib.delayed(_judged)(task) for task in shared)
    for task in tasks:
        if alone[task.model]:
            yield replace(_judged(task), seconds=float("nan"))


def _judged(task: _Task) -> _Outcome:
    """Train as the product does, then forecast from the fold's origins."""
    window, origins = task.window, task.fold.origins
    shape = len(window.fingerprints), len(origins), len(task.leads)
    errors, inside = np.full(shape, np.nan), np.full(shape, np.nan)
    failed: dict[int, str] = {}
    began = time.process_time()
    try:
        model = task.build()
        seen = window.columns(task.fold.seen)
        ready = training.enough_samples(seen, model.lookback_steps, model.horizon_steps)
        if ready.any():
            candidate = training.train(task.build, seen.rows(ready), version=1, level=task.level)
            failed.update(candidate.errors)
            errors[ready], inside[ready] = backtest.judge(
                candidate.fitted, window.rows(ready), origins, task.leads, failed
            )
    except Exception as error:  # a person's model may raise anything; the others must not suffer from it
        return _Outcome(task, np.full(shape, np.nan), np.full(shape, np.nan), 0.0, failed, explain(error))
    return _Outcome(task, errors, inside, time.process_time() - began, failed)


def _standings(
    context: Context,
    watch: WatchConfig,
    watch_id: int,
    folds: Sequence[Fold],
    outcomes: Mapping[str, Sequence[_Outcome]],
) -> tuple[Standing, ...]:
    """Sum up each model's outcomes; the best one first, those that could not be measured last."""
    ordered = {model: sorted(found, key=lambda one: int(one.task.fold.origins[0])) for model, found in outcomes.items()}
    standings = []
    for model, found in ordered.items():
        parts = [Judged(one.errors, one.inside, naive.errors) for one, naive in zip(found, ordered[NAIVE], strict=True)]
        failed = {fingerprint: text for one in found for fingerprint, text in one.failed.items()}
        problem = next((one.problem for one in found if one.problem), None)
        if problem is None and failed:
            problem = context.blame(watch, watch_id, failed)
        trained = len(found[0].task.window.fingerprints) * len(folds)
        cpu_ms = 1_000 * sum(one.seconds for one in found) / trained
        standings.append(
            backtest.standing(
                model, parts, found[0].task.leads, cpu_ms=None if np.isnan(cpu_ms) else cpu_ms, problem=problem
            )
        )
    return tuple(sorted(standings, key=lambda one: (np.isnan(one.overall), one.overall)))
