"""From requests to the event log: one thread that commits whatever waits, and says what had been counted already.

Every request that arrives while a commit is under way shares the next one, so that a hundred small requests cost one
fsync. Nothing is acknowledged before its commit has returned.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from queue import Empty, SimpleQueue

import numpy as np
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sentinel_core.errors import ServiceError, explain
from sentinel_core.monitoring.duplicates import DAY_SECONDS, REMEMBERED_DAYS, Remembered, of_model
from sentinel_core.monitoring.event_columns import EventColumns, decode, encode
from sentinel_core.monitoring.events import Submission
from sentinel_core.storage import event_log, event_store, model_store
from sentinel_core.storage.schema import monitored_models
from sentinel_core.storage.store import Store

logger = logging.getLogger(__name__)

MAX_WAITING = 200_000  # events: some 100 MB, and four seconds of work
MAX_COMMIT = 20_000  # events of one commit: half a megabyte, 20 ms
Key = tuple[int, str]  # project and name of a model


@dataclass(frozen=True)
class Result:
    """What became of the events of one request; all of it is on the disk."""

    accepted: int
    duplicates: int  # had been counted before, or stand earlier in the same request


class EventMetrics:
    """What the ingest says about itself; `model` is empty where an event was refused before its model was known."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "sentinel_events", "Events received, by outcome.", ["project", "model", "outcome"], registry=registry
        )
        self.waiting = Gauge("sentinel_events_waiting", "Events that wait for their commit.", registry=registry)
        self.commit_seconds = Histogram(
            "sentinel_events_commit_seconds",
            "One group commit, fsync included.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    project_id: int
    events: Submission
    future: asyncio.Future[Result]


class EventWriter:
    """Writes what is submitted on one event loop; `now` is the wall clock in unix seconds."""

    def __init__(
        self, store: Store, now: Callable[[], float] = time.time, registry: CollectorRegistry | None = None
    ) -> None:
        self._store = store
        self._now = now
        self._metrics = EventMetrics(registry or CollectorRegistry())
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0  # events; changed on the event loop only
        self._thread: threading.Thread | None = None
        self._models: dict[Key, int] = {}
        self._projects: dict[int, str] = {}
        self._seen: Remembered | None = None  # None until the store could be read

    def start(self) -> None:
        """Begin to write; what the last days brought is read first, and requests wait for it."""
        self._thread = threading.Thread(target=self._run, name="sentinel-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end; blocks."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def submit(self, project_id: int, events: Submission) -> asyncio.Future[Result]:
        """Return what becomes of a request's events, once they are durable; to be called on the event loop.

        Raises ServiceError where too much waits already. The future raises StoreError where the store refuses, and then
        none of the events is kept.
        """
        if self._waiting + len(events) > MAX_WAITING:
            raise ServiceError(f"{self._waiting} events wait for the disk already: send them again in a moment")
        self._waiting += len(events)
        self._metrics.waiting.set(self._waiting)
        waiting = _Waiting(project_id, events, asyncio.get_running_loop().create_future())
        self._queue.put(waiting)
        return waiting.future

    def count_rejected(self, project_id: int, models: Mapping[str, int]) -> None:
        """Count events that were refused, by the name of their model; any thread."""
        for name, count in models.items():
            known = name if (project_id, name) in self._models else ""  # a client must not invent label values
            self._count(project_id, known, "rejected", count)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._seen = self._remember()
        except Exception as error:  # the first request tries again, and is told
            logger.warning("events of the last days could not be read: %s", explain(error))
        stopping = False
        while not stopping:
            group, stopping = self._take()
            if not group:
                continue
            outcome: Sequence[Result] | Exception
            try:
                with self._metrics.commit_seconds.time():
                    outcome = self._commit(group)
            except Exception as error:
                logger.warning("%d requests with events could not be kept: %s", len(group), explain(error))
                outcome = error
            group[0].future.get_loop().call_soon_threadsafe(self._answer, group, outcome)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Wait for a request, and take all that wait with it; whether it was the last."""
        group: list[_Waiting] = []
        count = 0
        one = self._queue.get()
        while one is not None:
            group.append(one)
            count += len(one.events)
            if count >= MAX_COMMIT:
                return group, False
            try:
                one = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _answer(self, group: Sequence[_Waiting], outcome: Sequence[Result] | Exception) -> None:
        """On the event loop: wake the requests."""
        self._waiting -= sum(len(one.events) for one in group)
        self._metrics.waiting.set(self._waiting)
        for place, one in enumerate(group):
            if one.future.done():  # its client has gone
                continue
            if isinstance(outcome, Exception):
                one.future.set_exception(outcome)
            else:
                one.future.set_result(outcome[place])

    def _commit(self, group: Sequence[_Waiting]) -> list[Result]:
        if self._seen is None:
            self._seen = self._remember()
        wanted = {(one.project_id, name) for one in group for name in set(one.events.models)}
        now = self._now()
        # A new model moves the change token, so that whoever shows models hears of it; plain events need not queue.
        database = self._store.database
        with database.append() if wanted <= self._models.keys() else database.write() as connection:
            models = self._ids(connection, wanted, now)
            self._name_projects(connection)
            columns = _columns(group, models)
            new = self._seen.new(columns.id)
            kept = columns.where(new)
            if len(kept):
                event_log.append(connection, now, len(kept), encode(kept))
        self._models.update(models)  # not before: SQLite gives the id of a model that was rolled back to the next one
        self._seen.add(kept.id, kept.ts)
        self._seen.forget(now)
        names = {number: key for key, number in models.items()}
        for outcome, counted in (("accepted", new), ("duplicate", ~new)):
            for number, count in zip(*np.unique(columns.model[counted], return_counts=True), strict=True):
                self._count(*names[int(number)], outcome, int(count))
        ends = np.cumsum([len(one.events) for one in group])
        accepted = np.diff(np.concatenate([[0], np.cumsum(new)])[np.concatenate([[0], ends])])
        return [Result(int(count), len(one.events) - int(count)) for count, one in zip(accepted, group, strict=True)]

    def _ids(self, connection: sa.Connection, wanted: Collection[Key], now: float) -> dict[Key, int]:
        """The models' ids; unknown ones, and those deleted since we saw them, are registered."""
        known = {key: self._models[key] for key in wanted if key in self._models}
        alive = sa.select(sa.func.count()).where(monitored_models.c.id.in_(list(known.values())))
        if len(known) < len(wanted) or connection.execute(alive).scalar_one() < len(known):
            known = {key: model.id for key, model in model_store.register(connection, wanted, now).items()}
        return known

    def _name_projects(self, connection: sa.Connection) -> None:
        """Know what projects are called; where one is renamed counting begins anew, as another may take its name."""
        names = model_store.project_names(connection)
        if any(names.get(one) != name for one, name in self._projects.items()):
            self._metrics.events.clear()
        self._projects = names

    def _count(self, project_id: int, model: str, outcome: str, count: int) -> None:
        project = self._projects.get(project_id, str(project_id))
        self._metrics.events.labels(project, model, outcome).inc(count)

    def _remember(self) -> Remembered:
        """Read the digests of the last days: first of the log, then of the segments that a drain moves them to."""
        seen, now, after = Remembered(), self._now(), 0
        with self._store.database.read() as connection:
            self._name_projects(connection)
        while True:
            with self._store.database.read() as connection:
                rows = event_log.read(connection, after=after)
            if not rows:
                break
            for row in rows:
                columns = decode(row.payload)
                seen.add(columns.id, columns.ts)
            after = rows[-1].id
        today = int(now) // DAY_SECONDS
        for day in range(today + 1, today - REMEMBERED_DAYS - 1, -1):
            start = day * DAY_SECONDS  # day by day: half the memory, and a day's files are its own
            found = event_store.read_events(self._store, start, start + DAY_SECONDS, ["id", "ts"])
            seen.add(found["id"], found["ts"])
            seen.forget(now)
        return seen


def _columns(group: Sequence[_Waiting], models: Mapping[Key, int]) -> EventColumns:
    """The events of several requests as columns, in their order."""
    events = [one.events for one in group]
    model = np.array([models[one.project_id, name] for one in group for name in one.events.models], np.int32)
    texts: dict[int, str] = {}
    for one in events:
        texts.update(one.texts)
    return EventColumns(
        model=model,
        ts=np.array(list(chain.from_iterable(one.ts for one in events)), np.int64),
        id=of_model(np.array(list(chain.from_iterable(one.ids for one in events)), np.int64), model),
        score=np.array(list(chain.from_iterable(one.scores for one in events)), np.float64),
        number=np.array(list(chain.from_iterable(one.numbers for one in events)), np.float64),
        label=np.array(list(chain.from_iterable(one.labels for one in events)), np.int64),
        texts=texts,
    )
