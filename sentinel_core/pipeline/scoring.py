"""Score the forecasts whose time has come, and keep each watch's drift and how unusual each series is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import drift
from sentinel_core.config import WatchConfig
from sentinel_core.forecasts import Fitted
from sentinel_core.pipeline.challenging import CHALLENGERS, challengers
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reading import late_steps
from sentinel_core.pipeline.reports import DriftReport, WatchDrift
from sentinel_core.pipeline.served import Columns, Served
from sentinel_core.pipeline.serving import load_serving
from sentinel_core.pipeline.unusual import unusual
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.storage.forecast_store import LIVE, REPLAY, row_keys
from sentinel_core.windows import FloatArray, IntArray, unique


def score_drift(context: Context, start: int, end: int, *, mode: str = "live") -> DriftReport:
    """Compare stored forecasts with the actuals at their own time and lead.

    mode "live": what has become known since the last tick (and the late steps again); updates every watch's drift, from
    which the actions are decided
    mode "replay": the span [start, end]; stores the scores of live forecasts again (their actuals may have been
    backfilled) and reports how the replayed ones did, touching no watch's drift
    """
    ids = context.watch_ids()
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        living = watch_store.live_series(conn)
    serving, failures = load_serving(context, context.config.watches, ids)
    by_step: dict[int, list[WatchConfig]] = {}
    for watch in context.config.watches:
        if watch.slug in serving:
            by_step.setdefault(watch.step_seconds, []).append(watch)
    rows, found = 0, []
    for step, watches in by_step.items():
        served = Served(watches, [ids[w.slug] for w in watches], [serving[w.slug][0] for w in watches], living)
        first, last = start, end
        if mode == "live":
            mine = [states[watch.slug] for watch in watches]
            last = max((state.scraped_until for state in mine if state.scraped_until is not None), default=end)
            done = min((state.scored_until for state in mine if state.scored_until is not None), default=last)
            # older scores are in no verdict: a watch that was away for weeks must not make a tick read them all
            first = max(min(done, last) - late_steps(step) * step, last - _span(watches) * step)
        longest = max(watch.quiet_steps for watch in watches)
        back = max(longest, _span(watches)) if mode == "live" else longest
        stored = forecast_store.read_scores(context.store, step, first - back * step, last)
        scores = _score(context, step, first, last, served, LIVE, stored)
        rows += len(scores["ts"])
        kept = _new_or_serving(stored, served, scores)
        pending = [forecast_store.write_scores(context.store, step, kept)] if len(kept["ts"]) else []
        updates: list[dict[str, object]] = []
        if mode == "live":
            joined = {name: np.concatenate([stored[name], values]) for name, values in kept.items()}
            verdicts = _judge(served, _rolling(served, joined, step, last))
            until = [min(last, state.scraped_until or last) for state in mine]  # one that fails alone is behind
            updates = list(map(_update, served.ids, until, verdicts))
            found += verdicts
        else:
            replayed = _score(context, step, first, last, served, REPLAY, stored)
            rows += len(replayed["ts"])
            found += _judge_span(served, replayed)
        with context.store.database.write() as conn:
            context.store.segments.commit(conn, pending)
            watch_store.update_states(conn, updates)
            context.flush(conn)
    return DriftReport(rows, tuple(found), failures)


def drifting(context: Context, watch: WatchConfig, fitted: Fitted, end: int) -> NDArray[np.int8]:
    """Severity of each series of the fitted model now (order of its fingerprints), from the stored scores."""
    with context.store.database.read() as conn:
        watch_id = watch_store.states(conn)[watch.slug].watch_id
        living = watch_store.live_series(conn, watch_id)
    served = Served([watch], [watch_id], [fitted], living)
    stored = _recent(context, watch.step_seconds, end, [watch])
    return _severity(served, _rolling(served, stored, watch.step_seconds, end))


def _score(
    context: Context, step: int, first: int, last: int, served: Served, mode: int, stored: Columns
) -> dict[str, NDArray[Any]]:
    """Rows of the `scores` dataset, of forecasts about [first, last]; stored: those of the steps before too."""
    rows = forecast_store.forecasts_for(context.store, step, first, last, mode=mode)
    wanted = np.isin(rows["watch"], served.ids) & served.counted(rows)
    rows = {name: values[wanted] for name, values in rows.items()}
    position, current = served.find(rows)
    lead = np.minimum(rows["lead"].astype(np.int64), served.mae.shape[1]) - 1
    actuals = windows_store.read_window(context.store, step, unique(rows["fp"]), first, last)
    scores = drift.score(
        rows["watch"],
        rows["fp"],
        rows["ts"],
        rows["version"],
        rows["mean"],
        np.where(current, served.mae[position, lead], np.nan),
        current,
        actuals,
    )
    quiet = {watch_id: watch.quiet_steps for watch_id, watch in zip(served.ids, served.watches, strict=True)}
    about = scores.watch, scores.fingerprint, scores.timestamp
    return {
        "watch": scores.watch,
        "fp": scores.fingerprint,
        "ts": scores.timestamp,
        "version": scores.version,
        "mae": scores.mae,
        "scaled": scores.scaled,
        **challengers(context, step, served, scores),
        "anomaly": unusual(about, rows, actuals, stored, quiet),
    }


def _new_or_serving(stored: Columns, served: Served, fresh: Columns) -> dict[str, NDArray[Any]]:
    """What may be stored. A version that no longer serves keeps the score it once got: its training MAE, by which that
    was scaled, is not known here any more, and a rollback to it will want it."""
    _, serving = served.find(fresh)
    known = np.isin(_score_keys(fresh), _score_keys(stored))
    keep = serving | ~known
    return {name: values[keep] for name, values in fresh.items()}


def _score_keys(rows: Columns) -> IntArray:
    return row_keys(*(rows[name] for name in forecast_store.KEYS["scores"]))


def _recent(context: Context, step: int, end: int, watches: Sequence[WatchConfig]) -> Columns:
    return forecast_store.read_scores(context.store, step, end - _span(watches) * step, end)


def _span(watches: Sequence[WatchConfig]) -> int:
    """Steps looked back on: twice the window, so that gaps among the last steps do not shrink it."""
    return 2 * max(watch.drift_window for watch in watches)


@dataclass(frozen=True)
class _Rolling:
    """How the living series of `Served` do over their windows, [n] each.

    error:   in the watch's drift_unit; NaN where nothing is known
    scored:  steps behind it
    outdone: a forecast that costs nothing did better, or the watch does not ask
    """

    error: FloatArray
    scored: IntArray
    outdone: NDArray[np.bool_]

    @classmethod
    def of(cls, served: Served, means: Mapping[str, FloatArray], scored: IntArray) -> "_Rolling":
        """From the means [n] of the columns of `scores`."""
        in_mae = served.each([watch.drift_unit == "mae" for watch in served.watches])
        error, outdone = np.where(in_mae, means["mae"], means["scaled"]), np.ones(len(scored), bool)
        if served.auto.any():
            strength = drift.strength(means["scaled"], means["seasonal"], scored, served.window, served.usual)
            error = np.where(served.auto, strength, error)
            outdone = ~served.auto | (means["mae"] > np.fmin(means["naive"], means["seasonal"]))
        return cls(np.where(served.live, error, np.nan), np.where(served.live, scored, 0), outdone)


def _rolling(served: Served, stored: Columns, step: int, end: int) -> _Rolling:
    """Of serving versions, from rows of `scores`; of two for the same step the later one counts."""
    span = _span(served.watches)
    position, current = served.find(stored)
    current &= served.counted(stored)
    column = span - 1 - (end - stored["ts"]) // step
    current &= (column >= 0) & (column < span)

    def mean(name: str) -> tuple[FloatArray, IntArray]:
        errors = np.full((len(served.versions), span), np.nan)
        errors[position[current], column[current]] = stored[name][current]
        return drift.rolling_mean(errors, served.window)

    found = {name: mean(name) for name in _judged_by(served)}
    return _Rolling.of(served, {name: means for name, (means, _) in found.items()}, found["mae"][1])


def _judged_by(served: Served) -> tuple[str, ...]:
    """The columns of `scores` that a verdict needs."""
    return ("mae", "scaled", *CHALLENGERS) if served.auto.any() else ("mae", "scaled")


def _severity(served: Served, rolling: _Rolling) -> NDArray[np.int8]:
    return drift.severity(
        rolling.error,
        drift.judged(rolling.scored, served.window, served.auto),
        served.each([watch.drift_finetune_threshold for watch in served.watches]),
        served.each([watch.drift_retrain_threshold for watch in served.watches]),
        rolling.outdone,
    )


def _judge(served: Served, rolling: _Rolling) -> list[WatchDrift]:
    """Each watch's drift: the severity of its worst living series, and how many series stand at each."""
    severity = _severity(served, rolling)
    judged = drift.judged(rolling.scored, served.window, served.auto)
    owner = np.repeat(np.arange(len(served.watches)), served.counts)

    def count(which: NDArray[np.bool_]) -> list[int]:
        return [int(n) for n in np.bincount(owner[which], minlength=len(served.watches))]

    worst = np.full(len(served.watches), -np.inf)
    np.maximum.at(worst, owner, np.where(np.isfinite(rolling.error), rolling.error, -np.inf))
    low, high, verdicts = count(severity == drift.LOW), count(severity == drift.HIGH), count(judged)
    return [
        WatchDrift(
            watch.slug,
            drift.SEVERITIES[drift.HIGH if high[k] else drift.LOW if low[k] else drift.NONE],
            float(worst[k]) if np.isfinite(worst[k]) else None,
            low[k],
            high[k],
            verdicts[k],
        )
        for k, watch in enumerate(served.watches)
    ]


def _judge_span(served: Served, rows: Columns) -> list[WatchDrift]:
    """How replayed forecasts did over a whole span, of watches that have any; whatever version made them."""
    position, known = served.locate(rows["watch"], rows["fp"])

    def mean(name: str) -> tuple[FloatArray, IntArray]:
        finite = known & np.isfinite(rows[name])
        count = np.bincount(position[finite], minlength=len(served.versions))
        total = np.bincount(position[finite], weights=rows[name][finite], minlength=len(served.versions))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan), count

    found = {name: mean(name) for name in _judged_by(served)}
    rolling = _Rolling.of(served, {name: means for name, (means, _) in found.items()}, found["mae"][1])
    return [one for one in _judge(served, rolling) if one.drift_mae is not None]


def _update(watch_id: int, scored_until: int, verdict: WatchDrift) -> dict[str, object]:
    """A watch's new columns in `watch_state`."""
    return {
        "watch_id": watch_id,
        "scored_until": scored_until,
        "severity": verdict.severity,
        "drift_mae": verdict.drift_mae,
        "drift_low": verdict.low,
        "drift_high": verdict.high,
        "drift_scored": verdict.scored,
    }
