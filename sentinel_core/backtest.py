"""Backtest by rolling origins: a model learns what came before, is judged on what came after, and so on until now.

Every score has one signature, `score(judged) -> [n, leads]`: per series and lead over all origins, NaN where nothing
could be compared. What a watch's table shows of it is the median over its series, of the coverage the mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from sentinel_core.forecasts import Fitted
from sentinel_core.models.rows import knots, nanmean
from sentinel_core.training import residuals
from sentinel_core.windows import FloatArray, IntArray, Window

NAIVE = "seasonal naive"
FOLDS = 4  # trainings, each judged until the next
ORIGINS = 24  # that each of them forecasts from
MARGIN = 0.03  # of the error: what is less may turn round next week
NEARLY_NONE = 0.01  # of the day before's error: what is less is no error, and no reason to take another model


@dataclass(frozen=True)
class Fold:
    """One training: the columns it may see, and the columns after it to forecast from."""

    seen: slice
    origins: IntArray


@dataclass(frozen=True)
class Judged:
    """Forecasts of n series from some origins beside what came; all [n, origins, leads], NaN where nothing is known.

    errors: actual - forecast
    inside: 1 where the actual was inside the bounds, 0 where it was not
    naive:  errors of the seasonal naive
    """

    errors: FloatArray
    inside: FloatArray
    naive: FloatArray


@dataclass(frozen=True)
class Standing:
    """How a model did on a watch.

    scores:  of each of SCORES, one number a lead
    overall: geometric mean of the MASE at the reported leads; NaN where it could not be measured
    by_fold: the same of each fold
    cpu_ms:  of one training and its forecasts, per series; None where other processes did the work
    problem: what went wrong, with some or all of the series
    """

    model: str
    scores: Mapping[str, tuple[float, ...]]
    overall: float
    by_fold: tuple[float, ...]
    cpu_ms: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Advice:
    """What to do, in words; `model` is what to write as model_class, None where it may stay as it is."""

    text: str
    model: str | None = None


# ---- what to forecast, and from where --------------------------------------------------------------------------------


def folds(samples: int, history: int, lookback: int, horizon: int) -> list[Fold]:
    """Trainings over a history of so many columns: the first sees its older half, and up to `history` columns.

    Origins lie anywhere in equal parts of the time until the next training, as a fixed stride would meet the same
    minutes of every hour. Empty where there is too little to train on and to judge.

    >>> [(fold.seen.start, fold.seen.stop, len(fold.origins)) for fold in folds(2_000, 1_000, 30, 5)]
    [(1, 1001, 24), (250, 1250, 24), (499, 1499, 24), (747, 1747, 24)]
    """
    first, last = max(samples // 2, lookback + horizon - 1), samples - horizon - 1
    if first > last:
        return []
    starts = np.unique(np.linspace(first, last + 1, FOLDS + 1).round().astype(np.int64)).tolist()
    rng = np.random.default_rng(0)
    found = []
    for start, stop in pairwise(starts):
        edges = np.unique(np.linspace(start, stop, ORIGINS + 1).round().astype(np.int64))
        origins = rng.integers(edges[:-1], edges[1:])
        found.append(Fold(slice(max(0, start + 1 - history), start + 1), origins))
    return found


def reported_leads(horizon: int) -> tuple[int, ...]:
    """The first, the middle and the last lead.

    >>> reported_leads(60), reported_leads(1)
    ((1, 30, 60), (1,))
    """
    return tuple(sorted({1, -(-horizon // 2), horizon}))


def judged_leads(horizon: int) -> tuple[int, ...]:
    """The reported leads and, for a curve, the powers of two.

    >>> judged_leads(12)
    (1, 2, 4, 6, 8, 12)
    """
    return tuple(sorted({*knots(horizon).tolist(), *reported_leads(horizon)}))


def judge(
    fitted: Fitted, window: Window, origins: IntArray, leads: Sequence[int], failed: dict[int, str]
) -> tuple[FloatArray, FloatArray]:
    """Errors and insides of the fitted series [n, origins, leads] from these columns of the window.

    failed: gets what the model did wrong by fingerprint; such a series is NaN from there on
    """
    at = np.array(leads) - 1
    errors = residuals(fitted.model, window, origins, np.array(leads), fitted.limits, failed)
    lower, upper = fitted.offsets[:, None, at, 0], fitted.offsets[:, None, at, 1]
    return errors, np.where(np.isfinite(errors), (errors >= lower) & (errors <= upper), np.nan)


# ---- scores ----------------------------------------------------------------------------------------------------------


def mae(judged: Judged) -> FloatArray:
    """Mean absolute error, in the metric's unit."""
    return _over_origins(np.abs(judged.errors))


def mase(judged: Judged) -> FloatArray:
    """MAE by that of the seasonal naive at the same times; NaN where that made no error."""
    both = np.isfinite(judged.errors) & np.isfinite(judged.naive)
    own, naive = (_over_origins(np.where(both, np.abs(one), np.nan)) for one in (judged.errors, judged.naive))
    return own / np.where(naive > 0, naive, np.nan)


def bias(judged: Judged) -> FloatArray:
    """Mean of forecast - actual: positive where forecasts are too high."""
    return _over_origins(-judged.errors)


def coverage(judged: Judged) -> FloatArray:
    """Share of actuals inside the bounds."""
    return _over_origins(judged.inside)


Score = Callable[[Judged], FloatArray]
SCORES: Mapping[str, Score] = MappingProxyType({"mae": mae, "mase": mase, "bias": bias, "coverage": coverage})


def standing(
    model: str,
    parts: Sequence[Judged],
    leads: Sequence[int],
    *,
    cpu_ms: float | None = None,
    problem: str | None = None,
) -> Standing:
    """Sum up what a model did in each fold; the last of `leads` is the horizon. Without folds every score is NaN."""
    nothing = (float("nan"),) * len(leads)
    if not parts:
        return Standing(model, dict.fromkeys(SCORES, nothing), float("nan"), (), cpu_ms, problem)
    whole = Judged(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in _FIELDS))
    scores = {
        name: tuple((nanmean(score(whole).T) if score is coverage else _medians(score(whole))).tolist())
        for name, score in SCORES.items()
    }
    by_fold = tuple(_overall(part, leads) for part in parts)
    return Standing(model, scores, _overall(whole, leads), by_fold, cpu_ms, problem)


# ---- what follows from them ------------------------------------------------------------------------------------------


def advise(standings: Sequence[Standing], own: str, *, params: bool = False) -> Advice:
    """Recommend a model of those that stood; another one than `own` only where it is better, and not by one fold.

    One that failed somewhere is not recommended, however well it did elsewhere.

    params: the watch has model_params, which another model would not understand
    """
    by_name = {one.model: one for one in standings}
    able = [one for one in standings if one.model != NAIVE and np.isfinite(one.overall)]
    able = [one for one in able if one.problem is None or one.model == own]
    if not able:
        return Advice("Nothing can be said: no forecast could be compared with repeating the day before.")
    best, now = min(able, key=lambda one: one.overall), by_name[own]
    beaten = "" if best.overall < 1 else " None is better than repeating the day before, whose MASE is 1."
    away = " and remove model_params" if params else ""
    if not np.isfinite(now.overall):
        why = f" ({now.problem})" if now.problem else ""
        return Advice(
            f"{own} could not be judged{why}; {best.model} does best: MASE {best.overall:.2f}. Write it{away}.{beaten}",
            best.model,
        )
    won = sum(one < other for one, other in zip(best.by_fold, now.by_fold, strict=True))
    gain, often = (
        (now.overall - best.overall) / max(now.overall, NEARLY_NONE),
        f"better in {won} of {len(now.by_fold)} trainings",
    )
    if best is now:
        return Advice(f"Keep {own}: no other model is better than its MASE of {now.overall:.2f}.{beaten}")
    compared = f"MASE {best.overall:.2f} against {now.overall:.2f}"
    if gain < MARGIN or 2 * won <= len(now.by_fold):
        return Advice(f"Keep {own}: {best.model} is hardly better ({compared}, {often}).{beaten}")
    return Advice(
        f"Take {best.model} instead of {own}{away}: its error is {gain:.0%} lower ({compared}), {often}.{beaten}",
        best.model,
    )


_FIELDS = ("errors", "inside", "naive")


def _over_origins(values: FloatArray) -> FloatArray:
    return nanmean(values.transpose(0, 2, 1))


def _medians(values: FloatArray) -> FloatArray:
    """Median over series [leads]; NaN where no series has one."""
    found = np.full(values.shape[1], np.nan)
    some = np.isfinite(values).any(axis=0)
    found[some] = np.nanmedian(values[:, some], axis=0)
    return found


def _overall(judged: Judged, leads: Sequence[int]) -> float:
    at = [leads.index(lead) for lead in reported_leads(leads[-1])]
    with np.errstate(divide="ignore"):  # a model that is never wrong
        return float(np.exp(np.log(_medians(mase(judged))[at]).mean()))
