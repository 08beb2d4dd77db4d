"""Try every model on a watch's own past, in parallel: what `sentinel evaluate` and Dagster's job show."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor, wait

from sentinel_core import backtest, leash, training
from sentinel_core.backtest import NAIVE, Fold, Judged, Standing
from sentinel_core.config import WatchConfig
from sentinel_core.durations import format_duration
from sentinel_core.errors import ModelError, SentinelError, explain
from sentinel_core.models import catalogue
from sentinel_core.models.adapter import FiveMethodBatchModel
from sentinel_core.models.base import BatchModel
from sentinel_core.models.seasonal_naive import SeasonalNaive
from sentinel_core.models.workers import IDLE_SECONDS, ONE_THREAD
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.issuing import trimmed
from sentinel_core.pipeline.learning import BLOCK_SAMPLES
from sentinel_core.pipeline.reading import read_newest
from sentinel_core.pipeline.reports import BacktestReport
from sentinel_core.pipeline.showing import shown_window
from sentinel_core.storage import watch_store
from sentinel_core.windows import FloatArray, Window

MOST_SERIES = 256  # of a watch: the median over so many hardly moves with more, and fingerprints draw them fairly
Progress = Callable[[str, int, int], None]  # slug, how many trainings are done, of how many


@dataclass(frozen=True, eq=False)
class _Task:
    """One training of one model, judged until the next."""

    model: str
    build: Callable[[], BatchModel]
    window: Window
    fold: Fold
    level: float
    bounds: tuple[float, ...]
    leads: tuple[int, ...]


@dataclass(frozen=True)
class _Outcome:
    """What came of a task; errors and inside as in Judged, all NaN where there is a problem with the whole.

    seconds: of CPU, for all series; None where other processes did the work
    failed:  by fingerprint
    """

    errors: FloatArray
    inside: FloatArray
    seconds: float | None
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
            yield _watch(context, watch, report, max(1, since_seconds // watch.step_seconds), progress)
        except SentinelError as error:
            yield replace(report, problem=str(error))


def _watch(
    context: Context, watch: WatchConfig, report: BacktestReport, steps: int, progress: Progress | None
) -> BacktestReport:
    watch_id = context.watch_ids()[watch.slug]
    end = read_newest(context, watch, steps)
    with context.store.database.read() as conn:
        _, live = watch_store.live_series(conn, watch_id)
    most = min(len(live), MOST_SERIES, max(1, BLOCK_SAMPLES // steps))
    chosen = np.sort(live)[np.linspace(0, len(live) - 1, most).astype(np.int64)]
    start = end - (steps - 1) * watch.step_seconds
    window = trimmed(shown_window(context, watch, chosen, start, end))
    folds = backtest.folds(len(window.timestamps), watch.history_steps, watch.lookback_steps, watch.horizon_steps)
    ready = np.zeros(len(chosen), bool)
    if folds:
        seen = window.columns(folds[-1].seen)
        ready = training.enough_samples(seen, watch.lookback_steps, watch.horizon_steps)
    if not ready.any():
        need = format_duration((watch.lookback_steps + 2 * watch.horizon_steps) * watch.step_seconds)
        past = f"in the last {format_duration(steps * watch.step_seconds)}"
        return replace(
            report,
            problem=f"no series has {need} of history ({watch.lookback} + 2 x {watch.horizon}) {past}; go further back",
        )
    window = window.rows(ready)
    leads = backtest.judged_leads(watch.horizon_steps)
    tasks = [
        _Task(model, build, window, fold, watch.level, tuple(watch.bounds), leads)
        for model, build in contestants(watch).items()
        for fold in folds
    ]
    outcomes: dict[_Task, _Outcome] = {}
    with closing(_perform(tasks)) as performed:
        for task, outcome in performed:
            outcomes[task] = outcome
            if progress is not None:
                progress(watch.slug, len(outcomes), len(tasks))
    by_model: dict[str, list[_Outcome]] = {}
    for task in tasks:
        by_model.setdefault(task.model, []).append(outcomes[task])
    standings = _standings(context, watch, watch_id, by_model, leads)
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


def _perform(tasks: Sequence[_Task]) -> Generator[tuple[_Task, _Outcome]]:
    """The outcomes as they come: of models that have workers of their own from here, of all others from a pool's.

    Closing it, or Ctrl-C, kills the pool; with this process it goes by itself.
    """
    alone = [task for task in tasks if isinstance(task.build(), FiveMethodBatchModel)]
    shared = deque(task for task in tasks if task not in alone)
    width = min(joblib.cpu_count(), len(shared))
    pool = get_reusable_executor(
        max_workers=width,
        timeout=IDLE_SECONDS,
        env=ONE_THREAD,
        initializer=leash.hold,
        initargs=(os.getpid(),),
    )
    try:
        flying: dict[Future[_Outcome], _Task] = {}
        while shared or flying:
            while shared and len(flying) < width:  # no more than that: the pool cannot be killed while tasks queue
                task = shared.popleft()
                flying[pool.submit(_judged, task)] = task
            for future in wait(list(flying), return_when="FIRST_COMPLETED").done:
                yield flying.pop(future), future.result()
    except BrokenExecutor as error:
        raise ModelError(f"a worker died, as it does where memory is short: {error}") from error
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise
    for task in alone:
        yield task, replace(_judged(task), seconds=None)


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
            candidate = training.train(task.build, seen.rows(ready), version=1, level=task.level, bounds=task.bounds)
            failed.update(candidate.errors)
            errors[ready], inside[ready] = backtest.judge(
                candidate.fitted, window.rows(ready), origins, task.leads, failed
            )
    except Exception as error:  # a person's model may raise anything; the others must not suffer from it
        return _Outcome(np.full(shape, np.nan), np.full(shape, np.nan), None, failed, explain(error))
    return _Outcome(errors, inside, time.process_time() - began, failed)


def _standings(
    context: Context,
    watch: WatchConfig,
    watch_id: int,
    outcomes: Mapping[str, Sequence[_Outcome]],
    leads: Sequence[int],
) -> tuple[Standing, ...]:
    """Sum up what each model did, fold by fold; the best one first, those that could not be measured last."""
    standings = []
    for model, found in outcomes.items():
        parts = [
            Judged(one.errors, one.inside, naive.errors) for one, naive in zip(found, outcomes[NAIVE], strict=True)
        ]
        failed = {fingerprint: text for one in found for fingerprint, text in one.failed.items()}
        problem = next((one.problem for one in found if one.problem), None)
        if problem is None and failed:
            problem = context.blame(watch, watch_id, failed)
        seconds = [one.seconds / len(one.errors) for one in found if one.seconds is not None]
        cpu_ms = 1_000 * sum(seconds) / len(seconds) if seconds else None
        standings.append(backtest.standing(model, parts, leads, cpu_ms=cpu_ms, problem=problem))
    return tuple(sorted(standings, key=lambda one: (np.isnan(one.overall), one.overall)))
