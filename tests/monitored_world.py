"""Models in production on a store whose "now" is moved by the test: weeks are lived through in a second."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core import SentinelConfig
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.lifecycle import Incident
from sentinel_core.monitoring.event_columns import EventColumns, encode
from sentinel_core.monitoring.events import fingerprint
from sentinel_core.pipeline import Engine
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import EvaluationReport
from sentinel_core.storage import event_log, model_store
from sentinel_core.storage.store import Store
from tests.moved_world import Clock

HOUR, DAY, WEEK = 3_600, 86_400, 604_800
START = 1_767_225_600 // WEEK * WEEK  # midnight of a Thursday


@dataclass
class MonitoredWorld:
    """A store, an engine on it, its clock, and what sends events."""

    folder: Path
    stack: ExitStack
    sql_url: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock(float(START))
        self.rng = np.random.default_rng(self.seed)
        self.engine = self.another()
        self.store: Store = self.engine.store
        self.engine.evaluate()  # from here on hours are evaluated; what is sent of before is history

    def another(self, **settings: Any) -> Engine:
        """An engine as another process would open it, perhaps configured otherwise."""
        config = SentinelConfig(
            **{"artifact_store": str(self.folder), "sql_url": self.sql_url, **self.settings, **settings}
        )
        store = self.stack.enter_context(Store.open(config.resolved_sql_url, config.resolved_data_url))
        store.database.migrate()
        return Engine(Context(config, store, self.clock))

    def grow_up(self, **events: Any) -> None:
        """Give a model five weeks of history, and evaluate it once."""
        self.send(**{"t0": START - 35 * DAY, "t1": START, **events})
        self.engine.drain()
        self.clock.now = START + 60.0
        self.live(1)

    def model(self, name: str = "fraud", project_id: int = 1) -> int:
        """The id of a model, registered where it is new."""
        with self.store.database.write() as conn:
            return model_store.register(conn, [(project_id, name)], self.clock())[project_id, name].id

    def send(
        self,
        name: str = "fraud",
        *,
        t0: float,
        t1: float,
        rate: float = 100.0,
        mean: float = 0.0,
        scores: NDArray[np.float64] | None = None,
        numbers: NDArray[np.float64] | None = None,
        labels: Mapping[str, float] | None = None,
        project_id: int = 1,
    ) -> int:
        """Append events of [t0, t1) to the log, as the sidecar does; `rate` per hour. Returns how many."""
        count = round((t1 - t0) / HOUR * rate) if scores is None else len(scores)
        ts = np.sort(self.rng.integers(int(t0), int(t1), count))
        label, texts = np.zeros(count, np.int64), {}
        if labels is not None:
            prints = np.array([fingerprint(text) for text in labels], np.int64)
            label = self.rng.choice(prints, count, p=list(labels.values()))
            texts = {fingerprint(text): text for text in labels}
        columns = EventColumns(
            model=np.full(count, self.model(name, project_id), np.int32),
            ts=ts,
            id=self.rng.integers(1, 2**62, count),
            score=self.rng.normal(mean, 1.0, count) if scores is None and labels is None else _or_nan(scores, count),
            number=_or_nan(numbers, count),
            label=label,
            texts=texts,
        )
        self.append(columns)
        return count

    def append(self, columns: EventColumns) -> None:
        """One group commit."""
        with self.store.database.append() as conn:
            event_log.append(conn, self.clock(), len(columns), encode(columns))

    def live(self, hours: int, name: str = "fraud", **events: Any) -> list[EvaluationReport]:
        """Let hours pass with their events; a week at a time is drained, and its hours are evaluated in order."""
        reports = []
        while hours:
            some, begin = min(hours, 7 * 24), int(self.clock.now) // HOUR * HOUR
            if events.get("rate", 1.0):
                self.send(name, t0=begin, t1=begin + some * HOUR, **events)
            self.clock.now = begin + some * HOUR + 60.0
            self.engine.drain()
            reports.append(self.engine.evaluate())
            hours -= some
        return reports

    def skip(self, hours: int, **events: Any) -> None:
        """Let hours pass with their events that nobody evaluates, which costs a test nothing."""
        begin = int(self.clock.now) // HOUR * HOUR
        self.clock.now = begin + hours * HOUR + 60.0
        with self.store.database.write() as conn:
            model_store.advance(conn, model_store.progress(conn), begin + hours * HOUR)
        self.send(t0=begin, t1=begin + hours * HOUR, **events)
        self.engine.drain()
        with self.store.database.write() as conn:
            model_store.clear_late_hours(conn, model_store.late_hours(conn))

    def incidents(self) -> list[Incident]:
        """Every incident, oldest first."""
        with self.store.database.read() as conn:
            return incidents.list_incidents(conn)[::-1]

    def state(self, name: str = "fraud") -> str:
        """The state of a model by its newest evaluation."""
        model_id = self.model(name)
        with self.store.database.read() as conn:
            return model_store.states(conn)[model_id].state


def _or_nan(values: NDArray[np.float64] | None, count: int) -> NDArray[np.float64]:
    return np.full(count, np.nan) if values is None else values
