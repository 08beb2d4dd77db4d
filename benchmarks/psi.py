"""PSI of 1,000 models over 10 million events: the first evaluation, which makes the baselines, and each hourly one.

The events lie in segments, as drain and compaction leave them. Measured is `Engine.evaluate` over a real store, with
its reads and commits. Beside it the same question (the last day against the four weeks before) answered from the raw
events, as it has to be where no counts are kept: plainly with numpy, model by model, and by Evidently where it is
installed (`pip install evidently 'pandas<3'`), over some of the models and scaled up.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sentinel_core import SentinelConfig
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import event_store, model_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.store import Store

MODELS, EVENTS, DAYS = 1_000, 10_000_000, 35
HOUR, DAY = 3_600, 86_400
START = 1_767_225_600  # midnight
END = START + DAYS * DAY
HOURS = 7  # evaluated one by one
FIRST_LIMIT, HOURLY_LIMIT = 3.0, 0.2  # seconds
EVIDENTLY_MODELS = 20
Floats = NDArray[np.float64]


def build(store: Store) -> None:
    """Registered models with their events of five weeks, a file per day; all but the last hour is evaluated."""
    store.database.migrate()
    rng = np.random.default_rng(0)
    with store.database.write() as conn:
        names = [(1, f"model-{index:04d}") for index in range(MODELS)]
        ids = np.array([one.id for one in model_store.register(conn, names, START).values()], np.int64)
        model_store.note_events(conn, [(one, EVENTS // MODELS, START, END - 1) for one in ids.tolist()])
        model_store.advance(conn, model_store.progress(conn), END - HOUR)
    each = EVENTS // DAYS
    for day in range(DAYS):
        columns = {
            "model": rng.choice(ids, each).astype(np.int32),
            "ts": START + day * DAY + rng.integers(0, DAY, each),
            "id": np.zeros(each, np.int64),
            "score": rng.normal(size=each),
            "number": np.full(each, np.nan),
            "label": np.zeros(each, np.int64),
        }
        pending = event_store.write_events(store, columns, START)
        with store.database.write() as conn:
            store.segments.commit(conn, [pending])


def psi(baseline: Floats, current: Floats) -> float:
    """Ten quantile bins, plainly."""
    edges = np.quantile(baseline, np.linspace(0, 1, 11)[1:-1])
    b, c = (np.bincount(np.searchsorted(edges, side), minlength=10) / len(side) + 1e-6 for side in (baseline, current))
    return float(((c - b) * np.log(c / b)).sum())


def plainly(store: Store) -> None:
    """Read the events and compare each model's last day with the four weeks before."""
    for model, baseline, current in sides(store, MODELS):
        assert psi(baseline, current) < 1, model


def evidently(store: Store, models: int) -> None:
    """The same by Evidently's public API, over some models."""
    import pandas as pd  # type: ignore[import-not-found,unused-ignore]
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
    from evidently.metrics import ValueDrift  # type: ignore[import-not-found]

    definition = DataDefinition(numerical_columns=["score"])
    for _, *both in sides(store, models):
        reference, current = (Dataset.from_pandas(pd.DataFrame({"score": one}), definition) for one in both)
        Report([ValueDrift(column="score", method="psi")]).run(reference_data=reference, current_data=current)


def sides(store: Store, count: int) -> list[tuple[int, Floats, Floats]]:
    """(model, scores of the four weeks before, scores of the last day) of some models, from the segments."""
    rows = event_store.read_events(store, END - 29 * DAY, END, ("model", "ts", "score"), range(1, count + 1))
    order = np.argsort(rows["model"], kind="stable")
    models, scores, last = rows["model"][order], rows["score"][order], rows["ts"][order] >= END - DAY
    cuts = np.searchsorted(models, np.arange(1, count + 2))
    found = []
    for model, (start, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True), 1):
        mine, new = scores[start:end], last[start:end]
        found.append((model, mine[~new], mine[new]))
    return found


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run() -> None:
    """Print what was measured; exit with 1 above the limits."""
    now = END + 60.0
    with tempfile.TemporaryDirectory() as folder:
        config = SentinelConfig(artifact_store=folder)
        with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            build(store)
            engine = Engine(Context(config, store, lambda: now))
            first = seconds(engine.evaluate)
            hours = []
            for _ in range(HOURS):
                now += HOUR
                hours.append(seconds(engine.evaluate))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            compact(store, now)
            plain = seconds(lambda: plainly(store))
            try:
                evidently(store, 1)  # its imports take seconds
                theirs = seconds(lambda: evidently(store, EVIDENTLY_MODELS)) * MODELS / EVIDENTLY_MODELS
            except ImportError:
                theirs = None
    hourly = sorted(hours)[HOURS // 2]
    print(f"{MODELS:,} models, {EVENTS / 1e6:.0f}M events over {DAYS} days; wall clock, reads and commits included")
    print(f"  first evaluation: {first:.2f} s (limit {FIRST_LIMIT:g}); {peak:.0f} MB at the peak")
    print(f"  each hour: {hourly:.3f} s (limit {HOURLY_LIMIT:g})")
    print(f"  plainly from the events: {plain:.2f} s an hour, {plain / hourly:.0f}x")
    if theirs is None:
        print("  Evidently: not installed, skipped")
    else:
        print(f"  Evidently: {theirs:.0f} s an hour ({EVIDENTLY_MODELS} models scaled up), {theirs / hourly:.0f}x")
    if first > FIRST_LIMIT or hourly > HOURLY_LIMIT:
        print("  above a limit")
        sys.exit(1)


if __name__ == "__main__":
    run()
