"""Score the forecasts whose time has come, and keep each watch's drift and how unusual each series is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from sentinel_core.pipeline.unusual import unusual
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.storage.forecast_store import LIVE, REPLAY, row_keys
from sentinel_core.windows import FloatArray, IntArray, inside, unique

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Served:
    """Every series that a version serves, of many watches of one granularity, one after the other.

    A tick's cost must not grow with the number of watches: everything is looked up and judged for all at once.
    """

    watches: Sequence[WatchConfig]
    ids: Sequence[int]
    fitted: Sequence[Fitted]
    living: tuple[NDArray[np.int32], IntArray]  # watch ids and fingerprints of all living series

    @cached_property
    def counts(self) -> IntArray:
        return np.array([len(one.versions) for one in self.fitted], np.int64)

    @cached_property
    def versions(self) -> NDArray[np.int32]:
        return np.concatenate([one.versions for one in self.fitted])

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which series live: one that misbehaved and is gone no longer counts."""
        position, known = self.locate(*self.living)
        mask = np.zeros(len(self.versions), bool)
        mask[position[known]] = True
        return mask

    @cached_property
    def mae(self) -> FloatArray:
        """Held-back MAE [n, longest horizon], NaN beyond a watch's own horizon."""
        longest = max(one.mae.shape[1] for one in self.fitted)
        joined = np.full((int(self.counts.sum()), longest), np.nan)
        at = 0
        for one in self.fitted:
            joined[at : at + len(one.mae), : one.mae.shape[1]] = one.mae
            at += len(one.mae)
        return joined

    def each(self, values: Sequence[float]) -> NDArray[Any]:
        """One value per watch as one per series."""
        return np.repeat(np.array(values), self.counts)

    @cached_property
    def _index(self) -> tuple[IntArray, IntArray]:
        fingerprints = np.concatenate([one.model.fingerprints for one in self.fitted])
        keys = row_keys(self.each(self.ids), fingerprints)
        order = np.argsort(keys)
        return keys[order], order

    def locate(self, watch: NDArray[Any], fingerprint: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Position of each (watch, series), and whether it is really there."""
        keys, order = self._index
        wanted = row_keys(watch, fingerprint)
        if not len(keys):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return order[place], keys[place] == wanted

    def find(self, rows: Columns) -> tuple[IntArray, NDArray[np.bool_]]:
        """Position of each row's (watch, fp), and whether the row's version is the one that serves there."""
        position, known = self.locate(rows["watch"], rows["fp"])
        return position, known & (self.versions[position] == rows["version"]) if len(self.versions) else known

    def counted(self, rows: Columns) -> NDArray[np.bool_]:
        """Which rows (watch, ts) are of times that their watch does not ignore."""
        counted = np.ones(len(rows["ts"]), bool)
        for watch, watch_id in zip(self.watches, self.ids, strict=True):
            if watch.ignored:
                counted &= (rows["watch"] != watch_id) | ~inside(rows["ts"], watch.ignored)
        return counted


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
        served = _Served(watches, [ids[w.slug] for w in watches], [serving[w.slug][0] for w in watches], living)
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
            verdicts = _judge(served, *_rolling(served, joined, step, last))
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
    served = _Served([watch], [watch_id], [fitted], living)
    stored = _recent(context, watch.step_seconds, end, [watch])
    return _severity(served, *_rolling(served, stored, watch.step_seconds, end))


def _score(
    context: Context, step: int, first: int, last: int, served: _Served, mode: int, stored: Columns
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
        "anomaly": unusual(about, rows, actuals, stored, quiet),
    }


def _new_or_serving(stored: Columns, served: _Served, fresh: Columns) -> dict[str, NDArray[Any]]:
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


def _rolling(served: _Served, stored: Columns, step: int, end: int) -> tuple[FloatArray, IntArray]:
    """Rolling error of each series in its watch's unit [n], and the scored steps behind it; of serving versions.

    stored: rows of `scores`; of two for the same step the later one counts
    """
    span = _span(served.watches)
    errors = np.full((len(served.versions), span), np.nan)
    position, current = served.find(stored)
    current &= served.counted(stored)
    column = span - 1 - (end - stored["ts"]) // step
    current &= (column >= 0) & (column < span)
    in_mae = served.each([watch.drift_unit == "mae" for watch in served.watches])
    value = np.where(in_mae[position], stored["mae"], stored["scaled"]) if len(position) else stored["mae"]
    errors[position[current], column[current]] = value[current]
    return drift.rolling_mean(errors, served.each([watch.drift_window for watch in served.watches]))


def _severity(served: _Served, rolling: FloatArray, scored: IntArray) -> NDArray[np.int8]:
    return drift.severity(
        np.where(served.live, rolling, np.nan),
        scored,
        served.each([watch.drift_finetune_threshold for watch in served.watches]),
        served.each([watch.drift_retrain_threshold for watch in served.watches]),
        served.each([watch.drift_window for watch in served.watches]),
    )


def _judge(served: _Served, rolling: FloatArray, scored: IntArray) -> list[WatchDrift]:
    """Each watch's drift: the severity of its worst living series, and how many series stand at each."""
    rolling, scored = np.where(served.live, rolling, np.nan), np.where(served.live, scored, 0)
    severity = _severity(served, rolling, scored)
    judged = drift.judged(scored, served.each([watch.drift_window for watch in served.watches]))
    owner = np.repeat(np.arange(len(served.watches)), served.counts)

    def count(which: NDArray[np.bool_]) -> list[int]:
        return [int(n) for n in np.bincount(owner[which], minlength=len(served.watches))]

    worst = np.full(len(served.watches), -np.inf)
    np.maximum.at(worst, owner, np.where(np.isfinite(rolling), rolling, -np.inf))
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


def _judge_span(served: _Served, rows: Columns) -> list[WatchDrift]:
    """How replayed forecasts did over a whole span, of watches that have any; whatever version made them."""
    position, known = served.locate(rows["watch"], rows["fp"])
    in_mae = served.each([watch.drift_unit == "mae" for watch in served.watches])
    value = np.where(in_mae[position], rows["mae"], rows["scaled"]) if len(position) else rows["mae"]
    known &= np.isfinite(value)
    count = np.bincount(position[known], minlength=len(served.versions))
    total = np.bincount(position[known], weights=value[known], minlength=len(served.versions))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return [one for one in _judge(served, mean, count) if one.drift_mae is not None]


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
