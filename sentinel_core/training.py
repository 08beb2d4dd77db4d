"""Train on a copy, validate on held-back origins at every lead, and judge each series against its champion."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sentinel_core import forecasts, intervals, usual
from sentinel_core.errors import ModelError
from sentinel_core.forecasts import Fitted
from sentinel_core.models.base import BatchModel, Residuals
from sentinel_core.models.rows import between_knots, held_back_origins, nanmean
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.windows import FloatArray, IntArray, Window

FAIR_ORIGINS = 8  # origins after the champion's own data from which a comparison is fair to both


@dataclass(frozen=True)
class Candidate:
    """The outcome of one training; arrays are per series of the window, in its order.

    fitted:       every series' parameters, those of rejected series included
    accepted:     bool [n], the candidate is finite and not worse than its champion (or that one has drifted high)
    errors:       fingerprint -> what the model did wrong with that series, which is not accepted then
    mae:          float64 [n], the candidate's held-back MAE over all leads and origins (NaN where unmeasurable)
    compared_mae: float64 [n], its MAE where it was compared with the champion: on origins that neither has seen, or,
                  where there are too few of them, on origins that both have
    champion_mae: float64 [n], the champion's on the same origins (NaN where there is no champion)
    coverage:     float, share of held-back actuals inside bounds calibrated on others (NaN where unmeasurable)
    """

    fitted: Fitted
    accepted: NDArray[np.bool_]
    mae: FloatArray
    compared_mae: FloatArray
    champion_mae: FloatArray
    coverage: float
    errors: Mapping[int, str] = field(default_factory=dict)


def enough_samples(window: Window, lookback: int, horizon: int) -> NDArray[np.bool_]:
    """Which series can be trained: the span from their first to their last sample holds lookback + horizon steps."""
    finite = np.isfinite(window.values)
    first = np.argmax(finite, axis=1)
    last = finite.shape[1] - 1 - np.argmax(finite[:, ::-1], axis=1)
    ready: NDArray[np.bool_] = finite.any(axis=1) & (last - first + 1 >= lookback + horizon)
    return ready


def train(
    build: Callable[[], BatchModel],
    window: Window,
    *,
    version: int,
    level: float,
    inner_level: float | None = None,
    bounds: Sequence[float] = (),
    champion: Fitted | None = None,
    champion_end: int | None = None,
    drifted: NDArray[np.bool_] | None = None,
    finetune: bool = False,
    drift_window: int = 60,
) -> Candidate:
    """Fit (or, with `finetune`, continue the champion) and validate every series of the window.

    bounds:       of the watch: lowest and highest value that is forecast
    champion:     its series may be some of the window's, none (cold start), or others
    champion_end: newest timestamp the champion has seen, unix seconds; where enough origins lie after it, those judge
    drifted:      bool [n], series whose champion has drifted high: their candidate need only be finite
    drift_window: steps, over which what is usual is measured

    Raises ModelError when the model fails for the whole window.
    """
    known = _known(champion, window)
    if finetune:
        if champion is None or not known.all():
            raise ModelError("a finetune needs a champion that knows every series; retrain instead")
        if champion_end is None:
            raise ModelError("a finetune needs to know how far its champion has seen; retrain instead")
    template = build()
    horizon, lookback = template.horizon_steps, template.lookback_steps
    fresh = int((window.timestamps > champion_end).sum()) if finetune and champion_end is not None else None
    origins = held_back_origins(window.values.shape[1], lookback, horizon, fresh)
    if champion_end is not None and not finetune:
        origins = np.union1d(origins, _unseen_origins(window, champion_end, lookback, horizon))
    before = window.columns(slice(0, int(origins[0]) + 1)) if len(origins) else window
    champion_model = champion.model.take(window.fingerprints[known]) if champion is not None and known.any() else None

    def fit(seen: Window, judge: bool = True) -> tuple[BatchModel, Residuals | None]:
        if finetune:
            assert champion is not None
            assert champion_end is not None
            model = champion.model.take(window.fingerprints)
            unseen = int((seen.timestamps > champion_end).sum())
            # a champion that has seen it all learns its newest lookback again rather than nothing
            model.update_window(seen, max(unseen, min(lookback, len(seen.timestamps))))
            return model, None
        model = build()
        return model, model.fit_and_judge(seen) if judge else model.fit_window(seen)

    limits = forecasts.limits(window, bounds)
    if finetune and champion is not None:  # which has seen what lies before
        known_limits = champion.take(window.fingerprints).limits
        limits[:, 0] = np.fmin(limits[:, 0], known_limits[:, 0])
        limits[:, 1] = np.fmax(limits[:, 1], known_limits[:, 1])
    failed: dict[int, str] = {}
    leads = np.arange(1, horizon + 1)
    unseen = window.timestamps[origins] >= champion_end if champion_end is not None else np.ones(len(origins), bool)
    fair = unseen.sum() >= FAIR_ORIGINS
    model, judged = fit(window)
    if judged is None or (champion_model is not None and fair):
        validated = residuals(fit(before, judge=False)[0], window, origins, leads, limits, failed)
    failed |= model.errors
    errors, measured_leads = (validated, None) if judged is None else (judged.errors, judged.leads)
    every_lead = _every_lead(errors, measured_leads)
    mae = nanmean(every_lead)
    compared_mae, champion_mae = mae, np.full(len(mae), np.nan)
    if champion_model is not None:
        if not finetune and not fair:  # the champion knows these actuals: only what has learnt from them is its equal
            counted = np.ones(len(origins), bool)
            compared = residuals(model, window, origins, leads, limits)
        else:
            counted = unseen if unseen.any() else ~unseen
            compared = validated[:, counted]
        compared_mae = _mean_absolute(compared)
        with suppress(Exception):  # a champion that fails on its own series is no reason to keep it
            champion_mae[known] = _mean_absolute(
                residuals(champion_model, window.rows(known), origins[counted], leads, limits[known])
            )

    lead_mae = _positive(every_lead, window)
    levels = [level] if inner_level is None else [level, inner_level]
    offsets, *narrower = intervals.of_levels(errors, levels, measured_leads)
    inner = narrower[0] if narrower else np.empty((len(offsets), 0, 2))
    if finetune and champion is not None:  # a little new history does not tell what is usual
        expected = champion.take(window.fingerprints).usual
    else:
        span = judged.span if judged is not None else int(origins[-1] - origins[0]) if len(origins) else 0
        expected = usual.measure(errors, span, window, cycle_steps(window.step_seconds, horizon), drift_window)
    if finetune and champion is not None and len(origins) < FAIR_ORIGINS:
        champion_rows = champion.take(window.fingerprints)  # too few residuals to replace what a full training measured
        lead_mae, offsets, inner = champion_rows.mae, champion_rows.offsets, champion_rows.inner
    finite = np.isfinite(model.predict_window(window.newest(model.context_steps), horizon)).all(axis=1)
    failed |= model.errors
    finite &= ~np.isin(window.fingerprints, list(failed))
    better = ~known | ~np.isfinite(champion_mae) | (compared_mae <= champion_mae)
    if drifted is not None:
        better |= drifted
    versions = np.full(len(window.fingerprints), version, np.int32)
    fitted = Fitted(model, versions, offsets, lead_mae, limits, inner, expected)
    coverage = _cross_coverage(errors, level, measured_leads)
    return Candidate(fitted, finite & better, mae, compared_mae, champion_mae, coverage, failed)


def residuals(
    model: BatchModel,
    window: Window,
    origins: IntArray,
    leads: IntArray,
    limits: FloatArray,
    failed: dict[int, str] | None = None,
) -> FloatArray:
    """actual - forecast from each origin column: [n, origins, leads]; NaN where the actual is a gap.

    limits: [n, 2], lowest and highest value that is forecast
    failed: what went wrong by fingerprint; such a series is not asked, and what goes wrong is added
    """
    failed = {} if failed is None else failed
    forecast = np.full((len(window.fingerprints), len(origins), len(leads)), np.nan)
    asked = ~np.isin(window.fingerprints, list(failed))
    if not (asked.any() and len(origins)):
        return forecast
    if not asked.all():
        model = model.take(window.fingerprints[asked])
    forecast[asked] = model.forecast_from(window.rows(asked), origins, leads)
    failed |= model.errors
    forecast = np.clip(forecast, limits[:, None, :1], limits[:, None, 1:])
    errors: FloatArray = window.values[:, origins[:, None] + leads] - forecast
    return errors


def _known(champion: Fitted | None, window: Window) -> NDArray[np.bool_]:
    if champion is None:
        return np.zeros(len(window.fingerprints), bool)
    return np.isin(window.fingerprints, champion.model.fingerprints)


def _unseen_origins(window: Window, champion_end: int, lookback: int, horizon: int) -> IntArray:
    """Origins from which neither the champion nor the validation has seen what came; as dense as FAIR_ORIGINS wants."""
    last = len(window.timestamps) - horizon - 1
    first = max(int(np.searchsorted(window.timestamps, champion_end)), lookback - 1)
    if first > last:
        return np.empty(0, np.int64)
    return np.unique(np.linspace(first, last, 2 * FAIR_ORIGINS).round().astype(np.int64))


def _cross_coverage(errors: FloatArray, level: float, leads: IntArray | None) -> float:
    """Share of actuals inside bounds that were calibrated on the other half of the origins; NaN with too few of them.

    On the residuals they were calibrated on, bounds hold what they promise by construction.
    """
    middle = errors.shape[1] // 2  # older and newer half: neighbouring origins share most of their actuals
    halves = errors[:, :middle], errors[:, middle:]
    if errors.shape[1] < 4:
        return float("nan")
    columns = slice(None) if leads is None else leads - 1
    held = [
        intervals.coverage(measured, intervals.offsets(calibrated, level, leads)[:, columns])
        for calibrated, measured in (halves, halves[::-1])
    ]
    return float(np.mean(held))


def _mean_absolute(errors: FloatArray) -> FloatArray:
    """Mean over origins and leads [n]; NaN where nothing could be measured."""
    return nanmean(np.abs(errors).reshape(len(errors), -1))


def _every_lead(errors: FloatArray, leads: IntArray | None) -> FloatArray:
    """Mean absolute error per lead [n, horizon], of errors [n, origins, K] at some leads or (None) at each."""
    measured = nanmean(np.abs(errors).transpose(0, 2, 1))
    if leads is None:
        return measured
    every = np.arange(1, int(leads[-1]) + 1)
    return between_knots(measured[:, :, None], leads, every[None])[:, :, 0]


def _positive(mae: FloatArray, window: Window) -> FloatArray:
    """Per-lead MAE that may divide: gaps filled by the series' mean, floored at a millionth of the series' size."""
    size = nanmean(np.abs(window.values))
    floor = np.maximum(1e-6 * np.nan_to_num(size), np.finfo(float).tiny)
    filled = np.where(np.isfinite(mae), mae, nanmean(mae)[:, None])
    return np.maximum(np.where(np.isfinite(filled), filled, floor[:, None]), floor[:, None])
