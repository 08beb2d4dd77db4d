"""PSI of 1,000 models over 10 million events: the first evaluation, which makes the baselines, and each hourly one.

The events lie in segments, as the drain and the compaction leave them. Measured is `Engine.evaluate`, with its reads and
commits. Beside it, over the same events in memory: a plain pandas implementation, model by model, and Evidently's drift
report where it is installed (`pip install evidently`), both over a tenth of the models and scaled up.
"""

import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentinel_core import SentinelConfig
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import event_store, model_store
from sentinel_core.storage.store import Store

MODELS, EVENTS, DAYS = 1_000, 10_000_000, 35
HOUR, DAY = 3_600, 86_400
START = 1_767_225_600  # midnight
END = START + DAYS * DAY
HOURS = 6  # evaluated one by one
FIRST_LIMIT, HOURLY_LIMIT = 3.0, 0.2  # seconds
SHARE = 10  # peers see one model of so many


def measure() -> dict[str, float]:
    """Seconds of the first evaluation and of an hourly one (median), and the process' peak in MB."""
    with tempfile.TemporaryDirectory() as folder:
        config = SentinelConfig(artifact_store=folder)
        now = END + 60.0
        with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            engine = Engine(Context(config, store, lambda: now))
            build(store)
            first = _seconds(engine.evaluate)
            hourly = []
            for _ in range(HOURS):
                now += HOUR
                hourly.append(_seconds(engine.evaluate))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "hourly": sorted(hourly)[HOURS // 2], "mb": peak}


def build(store: Store) -> None:
    """Registered models and a segment of events per day; the hour before the last is evaluated."""
    store.database.migrate()
    rng = np.random.default_rng(0)
    with store.database.write() as conn:
        names = [(1, f"model-{index:04d}") for index in range(MODELS)]
        ids = np.array([one.id for one in model_store.register(conn, names, START).values()], np.int64)
        model_store.note_events(conn, [(one, EVENTS // MODELS, START, END - 1) for one in ids.tolist()])
        model_store.advance(conn, model_store.progress(conn), END - HOUR)
    each = EVENTS // DAYS
    for day in range(DAYS + 1):  # the last: what comes while the hours are evaluated
        columns = {
            "model": rng.choice(ids, each).astype(np.int32),
            "ts": START + day * DAY + rng.integers(0, DAY if day < DAYS else 0.25 * DAY, each),
            "id": np.zeros(each, np.int64),
            "score": rng.normal(size=each),
            "number": np.full(each, np.nan),
            "label": np.zeros(each, np.int64),
        }
        pending = event_store.write_events(store, columns, START)
        if day == DAYS:
            break
        with store.database.write() as conn:
            store.segments.commit(conn, [pending])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
