"""Fit, forecast and update every built-in over many series, beside the package of the same models on PyPI, in one run.

    python -m benchmarks.fit [--series 1000] [--samples 1440] [--theirs 5] [--wheel FILE]

sentinel-mlops fits one series at a time, so a few of the same series are timed, through its own Trainer and Predictor.
Its hold-out check, which repeats a forecast for a tenth of all rows and only logs the result, is left out in its
favour; nothing is held back on our side either. It is installed once, without its dependencies, into a cache folder.
The default model, which that package has not, is timed once more on what it is made for: two weeks of five minutes, a
day ahead, and an hour's update. Times are process CPU; both sides compute on one thread, for CPU time would count the
others' waiting.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sentinel_core.models import (
    ARIMAModel,
    ExponentialSmoothingModel,
    LinearTrendModel,
    SeasonalRidgeModel,
    SGDRegressorModel,
)
from sentinel_core.models.base import BatchModel
from sentinel_core.windows import FloatArray, Window

REQUIREMENT = "sentinel-mlops==1.0.0"
CACHE = Path.home() / ".cache" / "sentinel-benchmarks" / "sentinel-mlops-1.0.0"
GRID = ("1m", "5m", "30m")
DAY_AHEAD, TWO_WEEKS = ("5m", "1d", "3h"), 14 * 288
UPDATE_STEPS = 12
START = 1_704_067_200
THEIRS: tuple[type[BatchModel], ...] = (LinearTrendModel, ExponentialSmoothingModel, ARIMAModel, SGDRegressorModel)
BUILT_INS: tuple[type[BatchModel], ...] = (*THEIRS, SeasonalRidgeModel)
WANTED_RATIO = 20.0
WANTED_MS = 2.5, 0.1  # of the default model on two weeks: fit and forecast, update


def sample_series(n: int, samples: int) -> FloatArray:
    """Waves of a day with noise, a wandering level, and growth for some, [n, samples]."""
    rng = np.random.default_rng(0)
    t = np.arange(samples)
    wave = np.sin(2 * np.pi * (t / 1440 + rng.random((n, 1))))
    walk = np.cumsum(rng.normal(0, 0.05, (n, samples)), axis=1)
    return 10 + 3 * wave + walk + rng.normal(0, 0.3, (n, samples)) + rng.exponential(1, (n, 1)) * t / samples


def ours(model_class: type[BatchModel], values: FloatArray, grid: tuple[str, str, str] = GRID) -> FloatArray:
    """CPU milliseconds per series: to fit all and forecast each once, and to learn UPDATE_STEPS new samples, [2]."""
    model = model_class(*grid)
    step = model.step_seconds
    window = Window(np.arange(len(values)), START + step * np.arange(values.shape[1]), values, step)
    known = window.columns(slice(0, -UPDATE_STEPS))
    began = time.process_time()
    model.fit_window(known)
    forecast = model.predict_window(known.newest(model.context_steps), model.horizon_steps)
    fitted = time.process_time()
    model.update_window(window, UPDATE_STEPS)
    updated = time.process_time()
    assert np.isfinite(forecast).all()
    return 1e3 * np.array([fitted - began, updated - fitted]) / len(values)


def install(requirement: str) -> str | None:
    """Make the other package importable; the reason where that is not possible."""
    if not (CACHE / "sentinel").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(CACHE), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    sys.path.insert(0, str(CACHE))
    return None


def theirs(name: str, values: FloatArray) -> float:
    """CPU seconds per series of the other package to do the same, one series after the other."""
    from sentinel.config import WatchConfig  # type: ignore[import-not-found]
    from sentinel.ingestor.buffer import MetricBuffer  # type: ignore[import-not-found]
    from sentinel.pipeline import models  # type: ignore[import-not-found]
    from sentinel.pipeline.predictor import Predictor  # type: ignore[import-not-found]
    from sentinel.pipeline.trainer import Trainer  # type: ignore[import-not-found]

    granularity, horizon, lookback = GRID
    Trainer._validate = lambda *_: {"mae": 0.0, "mape": 0.0}
    timestamps = START + 60.0 * np.arange(values.shape[1])
    seconds = 0.0
    for series in values:
        config = WatchConfig(
            metric="m",
            model_class=getattr(models, name),
            granularity=granularity,
            horizon=horizon,
            lookback=lookback,
        )
        buffer = MetricBuffer("m", f"{60 * len(series)}s", granularity)
        buffer.push_many(list(zip(timestamps.tolist(), series.tolist(), strict=True)))
        registry = _Registry()
        began = time.process_time()
        Trainer(config, buffer, registry).run()
        answer = Predictor(config, buffer, registry).predict()
        seconds += time.process_time() - began
        assert answer is not None, f"{name} gave no forecast"
    return seconds / len(values)


class _Registry:
    """The other package's registry without its disk: what Trainer and Predictor ask of it."""

    def __init__(self) -> None:
        self.version_store = types.SimpleNamespace(next_version_id=lambda: "v1")
        self._model: Any = None
        self._version: Any = None

    def get_model(self) -> Any:
        return self._model

    def promote(self, model: Any, version: Any) -> None:
        self._model, self._version = model, version

    def is_ready(self) -> bool:
        return self._model is not None

    def active_version(self) -> Any:
        return self._version


def _best(measure: Callable[[], FloatArray], times: int) -> FloatArray:
    best: FloatArray = np.min([measure() for _ in range(times)], axis=0)
    return best


def main() -> int:
    """Print a table; exit 1 when a built-in is less than WANTED_RATIO times as fast, or the default above WANTED_MS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1440)
    parser.add_argument("--theirs", type=int, default=5, help="series that the other package fits")
    parser.add_argument("--wheel", default=REQUIREMENT, help="what pip installs to compare with")
    arguments = parser.parse_args()
    values = sample_series(arguments.series, arguments.samples)
    missing = install(arguments.wheel)
    if missing:
        print(f"{REQUIREMENT} is not here to compare with ({missing}); our own times only")
    logging.disable(logging.CRITICAL)
    print(f"{arguments.series} series x {arguments.samples} samples; ms CPU per series: fit and one forecast; update")
    slow = 0
    for model_class in BUILT_INS:
        mine, update = _best(lambda model_class=model_class: ours(model_class, values), 2)  # type: ignore[misc]
        line = f"{model_class.__name__:28s} ours {mine:8.3f} {update:8.3f}"
        if not missing and model_class in THEIRS:
            with np.errstate(all="ignore"):
                theirs(model_class.__name__, values[:1])  # imports and caches are not its fitting
                other = 1e3 * theirs(model_class.__name__, values[: arguments.theirs])
            slow += other / mine < WANTED_RATIO
            line += f"   {REQUIREMENT} {other:8.1f}   {other / mine:7.0f} x"
        print(line)
    weeks = sample_series(300, TWO_WEEKS)
    mine, update = _best(lambda: ours(SeasonalRidgeModel, weeks, DAY_AHEAD), 3)
    slow += mine > WANTED_MS[0] or update > WANTED_MS[1]
    print(f"{'two weeks of 5m, a day ahead':28s} ours {mine:8.3f} {update:8.3f}")
    return int(slow > 0)


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:  # read when numpy is loaded, so start again
        again = [sys.executable, "-m", "benchmarks.fit", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "OMP_NUM_THREADS": "1"})
    sys.exit(main())
