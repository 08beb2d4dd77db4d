"""How often drift retrains a series to which nothing was done, and how much of what was done to one it finds.

    python -m benchmarks.forecast_drift [FOLDER]

FOLDER: of `*_5m.npz` files with `values` [series, time] (../shared/accuracy/data_dev where it is there); without one,
series are generated. Each is watched for a week with the product's own functions: trained on the week before, forecast
an hour ahead at every step, scored, judged, and trained anew whenever a decision says so, with its cooldown. Then
again, with something done to it on the third day:

    level      from then on three times its usual distance from its median higher, or lower
    variance   what is left of it without its hourly mean counts three times
    season     everything comes six hours later

A retraining of an untouched series counts as false, though real series do drift by themselves.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentinel_core import actions, drift, training
from sentinel_core.config import DRIFT_THRESHOLDS, WatchConfig
from sentinel_core.durations import parse_duration
from sentinel_core.forecasts import Fitted
from sentinel_core.models.rows import knots, nanmean
from sentinel_core.models.seasonal_naive import cycle_steps
from sentinel_core.models.seasonal_ridge import SeasonalRidgeModel
from sentinel_core.pipeline.challenging import mean_over_leads
from sentinel_core.pipeline.deciding import REPEAT_COOLDOWNS
from sentinel_core.query.quality import rolling_means
from sentinel_core.windows import FloatArray, Window

DATA = Path(__file__).parents[2] / "shared" / "accuracy" / "data_dev"
SAMPLE = {"bitbrains_5m": 60, "wsd_5m": 58, "nab_5m": 30, "cluster_5m": 14}
KINDS = ("level", "variance", "season")
STEP, DAY = 300, 288
HORIZON_STEPS, LOOKBACK_STEPS = 12, 36
HISTORY_DAYS = 7
FIRST_DAYS = (2, 4)  # of history, after which the first models are trained; then every HISTORY_DAYS
BLOCK = 64  # series at once
WANTED_FALSE, WANTED_FOUND = 0.3, 0.75  # retrains a day and series; of level shifts in quiet series
EPOCH = 1_704_067_200
FINETUNE, RETRAIN = 1, 2
Actions = NDArray[np.int8]


def drift_actions(values: FloatArray, step_seconds: int, unit: str = "auto", start: int | None = None) -> Actions:
    """What drift would have done to each series at each step [n, T]: 0 nothing, 1 finetune, 2 retrain.

    Nothing is known of later steps. Each series is a watch of its own, trained first after FIRST_DAYS[0] days, then by
    the clock, and whenever drift says so; a finetune learns all anew, as what it comes to differs little.

    start: the column of the first training, if not that
    """
    n, length = values.shape
    day = 86_400 // step_seconds
    first = [days * day for days in FIRST_DAYS] if start is None else []
    later = range(HISTORY_DAYS * day if start is None else start, max(length, 1), HISTORY_DAYS * day)
    clock = [*first, *later, length]
    done = np.zeros((n, length), np.int8)
    acted: list[list[int]] = [[] for _ in range(n)]
    for begin, end in pairwise(clock):
        trained = {row: begin for row in range(n) if begin < length}
        while trained:  # once more for each series that is trained again before the clock does it
            again: dict[int, int] = {}
            rows = sorted(trained)
            for at in range(0, len(rows), BLOCK):
                some = rows[at : at + BLOCK]
                severity = _watched(values, some, [trained[row] for row in some], min(end, length), step_seconds, unit)
                for row, levels in zip(some, severity, strict=True):
                    found = _first(levels, trained[row], acted[row], step_seconds)
                    if found is not None:
                        column, kind = found
                        done[row, column] = kind
                        acted[row].append(column)
                        again[row] = column + 1
            trained = {row: column for row, column in again.items() if column < min(end, length) - 1}
    return done


def _first(levels: NDArray[np.int8], trained: int, acted: Sequence[int], step_seconds: int) -> tuple[int, int] | None:
    """The first action that drift at these levels leads to: its column, and its kind."""
    cooldown = parse_duration(WatchConfig.drift_cooldown)
    for place in np.flatnonzero(levels).tolist():
        column = trained + place
        tried = {}
        if acted:
            recent = sum(1 for one in acted[:-1] if (column - one) * step_seconds < REPEAT_COOLDOWNS * cooldown)
            tried = {actions.DRIFT: actions.Tried(acted[-1] * step_seconds, repeats=recent)}
        facts = actions.WatchFacts(
            "one", True, False, False, drift.SEVERITIES[levels[place]], 0, cooldown, False, tried
        )
        decision = actions.decide(facts, column * step_seconds)
        if decision is not None:
            return column, RETRAIN if decision.kind == actions.RETRAIN else FINETUNE
    return None


def _watched(
    values: FloatArray, rows: Sequence[int], trained: Sequence[int], end: int, step_seconds: int, unit: str
) -> list[NDArray[np.int8]]:
    """Severity of some series at every step from their training to the end, each trained on what came before."""
    history = min(HISTORY_DAYS * 86_400 // step_seconds, min(trained))
    longest = max(end - column for column in trained)
    shifted = np.full((len(rows), history + longest), np.nan)  # all are trained at the same column
    for place, (row, column) in enumerate(zip(rows, trained, strict=True)):
        part = values[row, column - history : end]
        shifted[place, : len(part)] = part
    times = EPOCH + step_seconds * np.arange(shifted.shape[1], dtype=np.int64)
    window = Window(np.arange(len(rows)), times, shifted, step_seconds)
    steps = [f"{count * step_seconds}s" for count in (1, HORIZON_STEPS, LOOKBACK_STEPS)]
    known = window.columns(slice(0, history))
    fitted = training.train(lambda: SeasonalRidgeModel(*steps), known, version=1, level=0.95).fitted
    severity = _judged(fitted, window, history, unit)
    return [levels[: end - column] for levels, column in zip(severity, trained, strict=True)]


def _judged(fitted: Fitted, window: Window, history: int, unit: str) -> NDArray[np.int8]:
    """Severity [n, steps after the history] of forecasts issued since."""
    n, length = window.values.shape
    errors = _errors(fitted, window, history)
    size = np.full(n, WatchConfig.drift_window)
    means = {}
    for name, one in errors.items():
        known = np.nonzero(np.isfinite(one))
        means[name] = np.full(one.shape, np.nan)
        (means[name][known],) = rolling_means(*known, int(size[0]), one[known])
    scored = np.minimum(np.cumsum(np.isfinite(errors["mae"]), axis=1), size[:, None])
    severity = np.zeros((n, length - history), np.int8)
    finetune, retrain = (np.full(n, threshold) for threshold in DRIFT_THRESHOLDS[unit])
    for k in range(length - history):
        now = {name: one[:, k] for name, one in means.items()}
        outdone, rolling = np.ones(n, bool), now["mae" if unit == "mae" else "scaled"]
        if unit == "auto":
            rolling = drift.strength(now["scaled"], now["seasonal"], scored[:, k], size, fitted.usual)
            outdone = now["mae"] > np.fmin(now["naive"], now["seasonal"])
        often = drift.judged(scored[:, k], size, np.full(n, unit == "auto"))
        severity[:, k] = drift.severity(rolling, often, finetune, retrain, outdone)
    return severity


def _errors(fitted: Fitted, window: Window, history: int) -> dict[str, FloatArray]:
    """The columns of `scores` [n, steps after the history]: of the forecasts issued since, and of the free ones."""
    values, model = window.values, fitted.model
    length = values.shape[1]
    leads = np.arange(1, HORIZON_STEPS + 1)
    origins = np.arange(history - 1, length - 1)
    forecasts = model.forecast_from(window, origins, leads)
    forecasts = np.clip(forecasts, fitted.limits[:, None, :1], fitted.limits[:, None, 1:])
    by_lead = np.full((len(values), length - history, HORIZON_STEPS), np.nan)  # of each target
    for lead in leads.tolist():
        actual = values[:, history - 1 + lead :]
        by_lead[:, lead - 1 :, lead - 1] = np.abs(actual - forecasts[:, : actual.shape[1], lead - 1])
    now, at = values[:, history:], knots(HORIZON_STEPS)
    before = np.stack([values[:, history - lead : length - lead] for lead in at.tolist()], axis=2)
    cycle = cycle_steps(window.step_seconds, HORIZON_STEPS)
    with np.errstate(over="ignore"):
        scaled = np.minimum(nanmean(by_lead / fitted.mae[:, None, :]), drift.MOST_SCALED)
    off = np.abs(now[:, :, None] - before)
    return {
        "mae": nanmean(by_lead),
        "scaled": scaled,
        "naive": mean_over_leads(off.reshape(-1, len(at)), at).reshape(now.shape),
        "seasonal": np.abs(now - values[:, history - cycle : length - cycle]),
    }


# ---- the table
def changed(values: FloatArray, kind: str, at: int) -> FloatArray:
    """The same series [n, T] with something done to them from a column on."""
    out, history = values.copy(), values[:, at - HISTORY_DAYS * DAY : at]
    middle = np.nanmedian(history, axis=1, keepdims=True)
    if kind == "level":
        side = np.random.default_rng(3).choice([-1, 1], (len(values), 1))
        out[:, at:] += side * 3 * nanmean(np.abs(history - middle))[:, None]
    elif kind == "variance":
        hour = np.ones(12) / 12
        smooth = np.stack([np.convolve(np.where(np.isfinite(one), one, mid), hour, "same")
                           for one, mid in zip(values, middle[:, 0], strict=True)])  # fmt: skip
        out[:, at:] += 2 * (values - smooth)[:, at:]
    else:
        out[:, at:] = values[:, at - DAY // 4 : -DAY // 4]
    return out


def real_series(folder: Path) -> FloatArray:
    """The last two weeks of some series of each set, drawn with a seed."""
    rng, parts = np.random.default_rng(1), []
    for name, count in SAMPLE.items():
        values = np.load(folder / f"{name}.npz", allow_pickle=False)["values"].astype(float)
        parts.append(values[np.sort(rng.permutation(len(values))[:count]), -2 * HISTORY_DAYS * DAY :])
    return np.concatenate(parts)


def generated_series(n: int) -> FloatArray:
    """Two weeks of daily waves, some with noise that remembers, bursts, or a level that wanders."""
    rng, t = np.random.default_rng(0), np.arange(2 * HISTORY_DAYS * DAY)
    wave = np.sin(2 * np.pi * (t / DAY + rng.random((n, 1)))) * rng.uniform(0, 3, (n, 1))
    noise = rng.standard_t(3, (n, len(t))) * np.exp(rng.normal(0, 0.3, (n, len(t) // 48)).repeat(48, axis=1))
    walk = np.cumsum(rng.normal(0, 0.02, (n, len(t))), axis=1) * (rng.random((n, 1)) < 0.5)
    series: FloatArray = 20 + wave + noise + walk
    return series


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each drift_unit; 1 where "auto" is not what is wanted of it."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    folder = Path(arguments[0]) if arguments else DATA
    real = folder.is_dir()
    values = real_series(folder) if real else generated_series(64)
    print(f"{len(values)} {'real' if real else 'generated'} series, {HISTORY_DAYS} days each; found within 24 h:")
    print("of all / of those quiet before".rjust(92))
    print(f"{'drift_unit':12}{'retrains':>10}{'finetunes':>10}{'ever':>6}" + "".join(f"{kind:>18}" for kind in KINDS))
    start = HISTORY_DAYS * DAY
    at = start + 2 * DAY + DAY // 3
    good = True
    for unit in ("scaled", "auto"):  # "mae" means nothing over series of many sizes
        done = drift_actions(values, STEP, unit, start)
        rates = [(done == kind).sum() / len(values) / HISTORY_DAYS for kind in (RETRAIN, FINETUNE)]
        quiet, line = ~(done[:, :at] == RETRAIN).any(axis=1), ""
        for kind in KINDS:
            hit = (drift_actions(changed(values, kind, at), STEP, unit, start)[:, at : at + DAY] == RETRAIN).any(axis=1)
            of_quiet = hit[quiet].mean() if quiet.any() else np.nan
            line += f"{f'{hit.mean():.0%} / {of_quiet:.0%}':>18}"
            good &= unit != "auto" or kind != "level" or of_quiet >= WANTED_FOUND
        good &= unit != "auto" or rates[0] <= WANTED_FALSE
        ever = (done == RETRAIN).any(axis=1).mean()
        print(f"{unit:12}{rates[0]:>8.2f}/d{rates[1]:>8.2f}/d{ever:>6.0%}{line}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
