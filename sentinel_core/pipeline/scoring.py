"""Score the forecasts whose time has come, and keep each watch's drift."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import drift
from sentinel_core.config import WatchConfig
from sentinel_core.forecasts import Fitted
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reading import late_steps
from sentinel_core.pipeline.reports import DriftReport, WatchDrift
from sentinel_core.pipeline.serving import load_serving
from sentinel_core.registry import Version
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.windows import FloatArray, IntArray

LIVE, REPLAY = 0, 1
Serving = Mapping[str, tuple[Fitted, Version]]


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
    serving, failures = load_serving(context, context.config.watches, ids)
    by_step: dict[int, list[WatchConfig]] = {}
    for watch in context.config.watches:
        if watch.slug in serving:
            by_step.setdefault(watch.step_seconds, []).append(watch)
    rows, found = 0, []
    for step, watches in by_step.items():
        first, last = start, end
        if mode == "live":
            stands = [state.scraped_until for w in watches if (state := states[w.slug]).scraped_until is not None]
            last = max(stands, default=end)
            done = [state.scored_until for w in watches if (state := states[w.slug]).scored_until is not None]
            first = min(min(done, default=last), last) - late_steps(step) * step
        scores = _score(context, step, first, last, watches, ids, serving, LIVE)
        rows += len(scores.mae)
        pending = [forecast_store.write_scores(context.store, step, _columns(scores))] if len(scores.mae) else []
        if mode == "live":
            kept, updates = _verdicts(context, step, last, watches, ids, serving, scores)
            found += kept
        else:
            replayed = _score(context, step, first, last, watches, ids, serving, REPLAY)
            rows += len(replayed.mae)
            found += _span_verdicts(watches, ids, replayed)
            updates = []
        with context.store.database.write() as conn:
            context.store.segments.commit(conn, pending)
            watch_store.update_states(conn, updates)
            context.flush(conn)
    return DriftReport(rows, tuple(found), failures)


def drifting(context: Context, watch: WatchConfig, fitted: Fitted, end: int) -> NDArray[np.int8]:
    """Severity of each series of the fitted model now (order of its fingerprints), from the stored scores."""
    watch_id = context.watch_ids()[watch.slug]
    stored = _recent_scores(context, watch.step_seconds, end, watch.drift_window)
    mine = stored["watch"] == watch_id
    errors = _errors(stored, mine, watch, fitted, end)
    rolling, scored = drift.rolling_mean(errors, watch.drift_window)
    return drift.severity(
        rolling, scored, watch.drift_finetune_threshold, watch.drift_retrain_threshold, watch.drift_window
    )


def _score(
    context: Context,
    step: int,
    first: int,
    last: int,
    watches: Sequence[WatchConfig],
    ids: Mapping[str, int],
    serving: Serving,
    mode: int,
) -> drift.Scores:
    rows = forecast_store.forecasts_for(context.store, step, first, last, mode=mode)
    wanted = np.isin(rows["watch"], [ids[watch.slug] for watch in watches])
    rows = {name: values[wanted] for name, values in rows.items()}
    actuals = windows_store.read_window(context.store, step, np.unique(rows["fp"]), first, last)
    return drift.score(
        rows["watch"],
        rows["fp"],
        rows["ts"],
        rows["version"],
        rows["mean"],
        _lead_mae(rows, watches, ids, serving),
        actuals,
    )


def _lead_mae(
    rows: Mapping[str, NDArray[Any]], watches: Sequence[WatchConfig], ids: Mapping[str, int], serving: Serving
) -> FloatArray:
    """Training MAE behind each row's series and lead; NaN for rows of a version that no longer serves the series."""
    result = np.full(len(rows["fp"]), np.nan)
    order = np.argsort(rows["watch"], kind="stable")
    owners = rows["watch"][order]
    for watch in watches:
        fitted = serving[watch.slug][0]
        span = slice(*np.searchsorted(owners, [ids[watch.slug], ids[watch.slug] + 1]))
        mine = order[span]
        index, known = _positions(fitted.model.fingerprints, rows["fp"][mine])
        lead = rows["lead"][mine].astype(np.int64) - 1
        known &= (lead < fitted.mae.shape[1]) & (fitted.versions[index] == rows["version"][mine])
        result[mine[known]] = fitted.mae[index[known], lead[known]]
    return result


def _positions(haystack: IntArray, needles: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Index of each needle in an ascending haystack, and whether it is really there."""
    if not len(haystack):
        return np.zeros(len(needles), np.int64), np.zeros(len(needles), bool)
    index = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    return index, haystack[index] == needles


def _columns(scores: drift.Scores) -> dict[str, NDArray[Any]]:
    """Rows of the `scores` dataset."""
    return {
        "watch": scores.watch,
        "fp": scores.fingerprint,
        "ts": scores.timestamp,
        "version": scores.version,
        "mae": scores.mae,
        "scaled": scores.scaled,
    }


def _recent_scores(context: Context, step: int, end: int, window: int) -> dict[str, NDArray[Any]]:
    # twice the window, so that gaps among the last steps do not shrink it
    return forecast_store.read_scores(context.store, step, end - 2 * window * step, end)


def _errors(
    stored: Mapping[str, NDArray[Any]], mine: NDArray[Any], watch: WatchConfig, fitted: Fitted, end: int
) -> FloatArray:
    """Scores of a watch's serving versions as a dense [n, 2 * drift_window], newest last, NaN where there is none."""
    span, step = 2 * watch.drift_window, watch.step_seconds
    errors = np.full((len(fitted.model.fingerprints), span), np.nan)
    index, known = _positions(fitted.model.fingerprints, stored["fp"][mine])
    column = span - 1 - (end - stored["ts"][mine]) // step
    known &= (column >= 0) & (column < span) & (fitted.versions[index] == stored["version"][mine])
    value = stored["mae" if watch.drift_unit == "mae" else "scaled"][mine]
    errors[index[known], column[known]] = value[known]
    return errors


def _verdicts(
    context: Context,
    step: int,
    end: int,
    watches: Sequence[WatchConfig],
    ids: Mapping[str, int],
    serving: Serving,
    fresh: drift.Scores,
) -> tuple[list[WatchDrift], list[dict[str, object]]]:
    """Every watch's drift from the stored scores and the fresh ones that are about to be committed."""
    stored = _recent_scores(context, step, end, max(watch.drift_window for watch in watches))
    stored = {name: np.concatenate([stored[name], values]) for name, values in _columns(fresh).items()}
    order = np.argsort(stored["watch"], kind="stable")  # stable: fresh scores stay after the stored ones they replace
    owners = stored["watch"][order]
    found, updates = [], []
    for watch in watches:
        fitted = serving[watch.slug][0]
        mine = order[slice(*np.searchsorted(owners, [ids[watch.slug], ids[watch.slug] + 1]))]
        errors = _errors(stored, mine, watch, fitted, end)
        rolling, scored = drift.rolling_mean(errors, watch.drift_window)
        severity = drift.severity(
            rolling, scored, watch.drift_finetune_threshold, watch.drift_retrain_threshold, watch.drift_window
        )
        verdict = _summary(watch, severity, rolling, scored)
        found.append(verdict)
        updates.append(
            {
                "watch_id": ids[watch.slug],
                "scored_until": end,
                "severity": verdict.severity,
                "drift_mae": verdict.drift_mae,
                "drift_low": verdict.low,
                "drift_high": verdict.high,
                "drift_scored": verdict.scored,
            }
        )
    return found, updates


def _span_verdicts(
    watches: Sequence[WatchConfig], ids: Mapping[str, int], scores: drift.Scores
) -> list[WatchDrift]:
    """How replayed forecasts did over the whole span, per watch."""
    found = []
    for watch in watches:
        mine = scores.watch == ids[watch.slug]
        if not mine.any():
            continue
        value = (scores.mae if watch.drift_unit == "mae" else scores.scaled)[mine]
        fingerprints, row = np.unique(scores.fingerprint[mine], return_inverse=True)
        finite = np.isfinite(value)
        count = np.bincount(row[finite], minlength=len(fingerprints))
        total = np.bincount(row[finite], weights=value[finite], minlength=len(fingerprints))
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        severity = drift.severity(
            mean, count, watch.drift_finetune_threshold, watch.drift_retrain_threshold, watch.drift_window
        )
        found.append(_summary(watch, severity, mean, count))
    return found


def _summary(watch: WatchConfig, severity: NDArray[np.int8], rolling: FloatArray, scored: IntArray) -> WatchDrift:
    judged = scored >= min(drift.MIN_SCORED, watch.drift_window)
    finite = rolling[np.isfinite(rolling)]
    return WatchDrift(
        watch.slug,
        drift.SEVERITIES[int(severity.max(initial=0))],
        float(finite.max()) if len(finite) else None,
        int((severity == drift.LOW).sum()),
        int((severity == drift.HIGH).sum()),
        int(judged.sum()),
    )
