"""One tick's compute (score the forecasts whose time has come, issue new ones) as series and watches grow.

Each size runs in its own process over its own store: windows, a trained version of every watch and the forecasts of the
last horizon are written first, then one tick is measured, store reads and commits included, Prometheus not. It judges a
round of forecasts too, as one tick of sixty does.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sentinel_core import SentinelConfig, WatchConfig, registry
from sentinel_core.forecasts import Fitted
from sentinel_core.models import catalogue
from sentinel_core.pipeline import Engine
from sentinel_core.series import Series
from sentinel_core.storage import watch_store, windows_store
from sentinel_core.windows import Window, grid

STEP, HORIZON = 60, 5
NOW = 1_760_000_040
MODEL, DEFAULT = "ExponentialSmoothingModel", "SeasonalRidgeModel"
SIZES = ((10_000, 1, MODEL), (10_000, 1_000, MODEL), (100_000, 1, MODEL), (10_000, 1, DEFAULT))  # series, watches


def run() -> None:
    """Print CPU seconds and peak memory of a tick, and the ratios that matter."""
    print(f"tick compute, {HORIZON} leads, score + forecast with the store's reads and commits")
    found = {}
    for series, watches, model in SIZES:
        arguments = ["--series", str(series), "--watches", str(watches), "--model", model]
        command = [sys.executable, "-m", "benchmarks.tick", *arguments]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found[series, watches, model] = one
        what = f"{series:>7,} series in {watches:>5,} watches, {model}"
        print(f"  {what:<59}: {one['cpu']:6.2f} s CPU, {one['mb']:6.0f} MB peak")
    base, many, large, _ = found.values()
    print(f"  1 -> 1,000 watches: {many['cpu'] / base['cpu']:.2f}x CPU, {many['mb'] / base['mb']:.2f}x memory")
    print(f"  10k -> 100k series: {large['cpu'] / base['cpu']:.1f}x CPU")


def measure(series: int, watches: int, model: str, folder: Path) -> dict[str, float]:
    """Build a store and run one tick over it; CPU seconds of the tick, and the process' peak in MB."""
    each = series // watches
    config = SentinelConfig(
        artifact_store=str(folder),
        watches=[WatchConfig(metric=f"metric_{k}", model_class=model, max_series=series) for k in range(watches)],
    )
    with Engine.open(config) as engine:
        build(engine, each)
        origin = NOW // STEP * STEP
        for k in range(HORIZON + 1):
            _advance(engine, origin + k * STEP)
            engine.issue_forecasts(0, origin + k * STEP)
        _advance(engine, origin + (HORIZON + 1) * STEP)
        engine.context.shelf.clear()  # a tick is a fresh process: it loads and verifies every artifact
        began = time.process_time()
        report = engine.score_drift(0, origin + (HORIZON + 1) * STEP)
        issued = engine.issue_forecasts(0, origin + (HORIZON + 1) * STEP)
        cpu = time.process_time() - began
        assert issued.series == series
        assert report.rows >= series
    return {"cpu": cpu, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def build(engine: Engine, each: int) -> None:
    """Two hours of windows and a first version for every watch, as the pipeline would have left them."""
    rng = np.random.default_rng(0)
    times = grid(NOW - 7_200, NOW + 600, STEP)
    store, ids = engine.store, engine.context.watch_ids()
    for watch in engine.config.watches:
        members = [Series.of(watch.metric or "", {"i": str(i)}) for i in range(each)]
        members.sort(key=lambda one: one.fingerprint)
        fingerprints = np.array([one.fingerprint for one in members])
        values = rng.normal(size=(each, len(times))).cumsum(axis=1) + 100
        window = Window(fingerprints, times, values, STEP)
        model = catalogue.build(watch)
        model.fit_window(window.columns(slice(0, 120)))
        measured = {
            "versions": np.ones(each, np.int32),
            "offsets": np.ones((each, HORIZON, 2)),
            "mae": np.ones((each, HORIZON)),
        }
        fitted = Fitted.of(model, measured)
        content, sha256 = registry.dump(fitted, model.feature_names)
        path = f"models/{watch.slug}/v1.joblib"
        store.segments.folder.publish(path, lambda local, content=content: _write(local, content))
        pending = windows_store.write_windows(store, STEP, [window]) if each > 1_000 else None
        if pending is None:
            _POOL.append(window)
        watch_id = ids[watch.slug]
        with store.database.write() as conn:
            if pending is not None:
                store.segments.commit(conn, [pending])
            for start in range(0, each, 10_000):
                watch_store.add_series(conn, watch_id, members[start : start + 10_000], int(times[0]))
            registry.record(conn, _version(watch, watch_id, path, sha256, len(content), model.feature_names, each))
            registry.promote(conn, watch_id, 1, parent=None, reason="benchmark", run_id=None)
    if _POOL:
        pending = windows_store.write_windows(store, STEP, _POOL)
        with store.database.write() as conn:
            store.segments.commit(conn, [pending])
        _POOL.clear()


_POOL: list[Window] = []  # windows of small watches, written as the one segment that a tick would make of them


def _write(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def _advance(engine: Engine, until: int) -> None:
    with engine.store.database.write() as conn:
        watch_store.update_states(
            conn, [{"watch_id": one, "scraped_until": until} for one in engine.context.watch_ids().values()]
        )


def _version(
    watch: WatchConfig, watch_id: int, path: str, sha256: str, size: int, names: tuple[str, ...], series: int
) -> registry.Version:
    return registry.Version(
        watch_id=watch_id,
        version=1,
        parent=None,
        kind="cold_start",
        reason="benchmark",
        model_class=watch.model_path,
        spec_digest=watch.spec_digest,
        path=path,
        sha256=sha256,
        bytes=size,
        feature_names=json.dumps(list(names)),
        series=series,
        series_refitted=series,
        span_start=0,
        span_end=NOW,
        mae=1.0,
        champion_mae=None,
        coverage=None,
        accepted=True,
        run_id=None,
        created_at=float(NOW),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int)
    parser.add_argument("--watches", type=int)
    parser.add_argument("--model")
    asked = parser.parse_args()
    if asked.series is None:
        run()
    else:
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(measure(asked.series, asked.watches, asked.model, Path(temporary))))
