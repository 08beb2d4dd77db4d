"""The client: a bounded buffer and one background thread that empties it."""

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpcore  # noqa: F401 - httpx imports it late, in our thread: a fork meanwhile would leave half of it
import httpx

from sentinel_core.client._protocol import Answer, answer_of, encode_event, pause, request_of

logger = logging.getLogger("sentinel_core.client")

EXIT_SECONDS = 5.0  # a program that ends waits no longer for its last events
FLUSHING_PAUSE = 0.2  # seconds between attempts while somebody waits for them
MAX_BATCH = 1_000  # Sentinel takes no more in one request


@dataclass(frozen=True)
class Stats:
    """Events since the client was made, by what became of them."""

    accepted: int = 0
    duplicates: int = 0  # had been counted already: a repeated event_id
    rejected: int = 0  # refused by Sentinel; the log says why
    dropped: int = 0  # the buffer was full, or the client was closed before they could be sent
    invalid: int = 0  # arguments that cannot be sent; the log says why
    waiting: int = 0  # in the buffer or on their way


class Client:
    """Sends events in the background. Safe to use from many threads, and after a fork.

    url:      of the sidecar, as http://localhost:8080
    key:      of scope ingest
    batch:    events of one request, at most 1,000
    interval: seconds that an event waits for company
    buffer:   events that wait while Sentinel is away; then the oldest are dropped
    timeout:  seconds for one request

    Nothing here raises, nor does the constructor: what is wrong is logged (`sentinel_core.client`) and counted.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        batch: int = 500,
        interval: float = 1.0,
        buffer: int = 100_000,
        timeout: float = 10.0,
    ) -> None:
        self._url = f"{str(url).strip().rstrip('/')}/v1/events/batch"
        self._key = str(key).strip()
        self._batch = min(max(1, batch), MAX_BATCH)
        self._interval = interval
        self._limit = max(1, buffer)
        self._timeout = timeout
        self._unusable = _unusable(self._url, self._key if key else "")
        if self._unusable:
            logger.error("no event will be sent: %s", self._unusable)
        self._begin()
        _clients.add(self)
        atexit.register(self.close, EXIT_SECONDS)

    def _begin(self) -> None:
        """Everything that a forked child must not share with its parent, who sends what waits."""
        self._changed = threading.Condition()
        self._buffer: deque[bytes] = deque()
        self._first_at = 0.0  # monotonic: when the oldest of the buffer came
        self._added = self._settled = 0
        self._flushing = 0  # calls of flush that wait
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._http: httpx.Client | None = None  # the thread's own
        self._stats = Stats()
        self._said: set[str] = set()

    def send(
        self,
        model_id: str,
        score: float | None = None,
        prediction: str | bool | float | None = None,
        event_time: datetime | None = None,
        event_id: str | None = None,
    ) -> None:
        """Send one event, soon.

        score:      what the model computed; None or NaN: it answered nothing
        prediction: what was decided: a label, a truth value or a number
        event_time: when, with its time zone; default: now
        event_id:   unique per model; an event that is sent again with the same one is counted once. Default: a new one
        """
        try:
            if self._unusable:
                raise ValueError(self._unusable)
            event = encode_event(model_id, score, prediction, event_time, event_id)
        except Exception as error:  # whatever an argument's own methods raise: the caller goes on
            with self._changed:
                self._count(invalid=1)
                self._say_once(f"an event cannot be sent: {error}")
            return
        with self._changed:
            if self._stopped:
                self._count(dropped=1)
                self._say_once("an event is dropped: the client is closed")
                return
            self._added += 1
            self._buffer.append(event)
            if len(self._buffer) == 1:
                self._first_at = time.monotonic()
            elif len(self._buffer) > self._limit:
                self._buffer.popleft()
                self._settle(dropped=1)
                self._say_once(f"the buffer of {self._limit} events is full: the oldest are dropped")
            if self._thread is None:
                self._start()
            if len(self._buffer) in (1, self._batch):
                self._changed.notify_all()

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait until everything sent so far has reached Sentinel (or was refused); False where it has not in time."""
        with self._changed:
            wanted = self._added
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._settled >= wanted or self._stopped, timeout) and (
                    self._settled >= wanted
                )
            finally:
                self._flushing -= 1

    def close(self, timeout: float | None = EXIT_SECONDS) -> None:
        """Flush, and end the thread; what could not be sent in time is dropped."""
        self.flush(timeout)
        with self._changed:
            self._stopped = True
            left = self._added - self._settled
            if left:
                self._settle(dropped=left)
                self._buffer.clear()
                logger.warning("%d events could not be sent in time and are dropped", left)
            self._changed.notify_all()
        atexit.unregister(self.close)

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        with self._changed:
            return replace(self._stats, waiting=self._added - self._settled)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- under the lock --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="sentinel-client", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends: the next event tries again
            return
        self._thread = thread
        if "multiprocessing" in sys.modules:  # whose children end without atexit
            from multiprocessing import parent_process, util

            if parent_process() is not None:
                util.Finalize(None, self.close, (EXIT_SECONDS,), exitpriority=10)

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def _settle(self, **more: int) -> None:
        self._count(**more)
        self._settled += sum(more.values())
        self._changed.notify_all()

    def _say_once(self, text: str) -> None:
        if text not in self._said and len(self._said) < 100:
            self._said.add(text)
            logger.warning("%s (said once)", text)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with ExitStack() as stack:
            while events := self._next():
                self._deliver(stack, events)

    def _next(self) -> list[bytes]:
        """Wait for a batch; empty: the client is closed."""
        with self._changed:
            while not self._stopped:
                waited = time.monotonic() - self._first_at
                if self._buffer and (len(self._buffer) >= self._batch or self._flushing or waited >= self._interval):
                    break
                self._changed.wait(self._interval - waited if self._buffer else None)
            events = [self._buffer.popleft() for _ in range(min(self._batch, len(self._buffer)))]
            self._first_at = time.monotonic()
            return events

    def _deliver(self, stack: ExitStack, events: Sequence[bytes]) -> None:
        """Send until the batch is settled, or the client closed."""
        attempt = 0
        while not self._stopped:
            try:
                answer = self._attempt(stack, events)
            except Exception as error:  # refused, slow, a broken answer: the same events go once more
                answer = Answer(False, reason=f"{type(error).__name__}: {error}")
            if answer.split:
                middle = len(events) // 2
                self._deliver(stack, events[:middle])
                self._deliver(stack, events[middle:])
                return
            with self._changed:
                if self._stopped:  # counted as dropped already
                    return
                if answer.reason:
                    self._say_once(f"Sentinel at {self._url}: {answer.reason}")
                if answer.taken:
                    self._taken(answer, len(events))
                    if attempt:
                        self._said.clear()  # the next outage is said again
                    return
                attempt += 1
                self._rest(pause(attempt), answer.wait)

    def _attempt(self, stack: ExitStack, events: Sequence[bytes]) -> Answer:
        if self._http is None:
            self._http = stack.enter_context(httpx.Client(timeout=self._timeout))
        body, headers = request_of(events, self._key)
        return answer_of(self._http.post(self._url, content=body, headers=headers), len(events), time.time())

    def _taken(self, answer: Answer, events: int) -> None:
        self._count(accepted=answer.accepted, duplicates=answer.duplicates, rejected=answer.rejected)
        self._settled += events
        self._changed.notify_all()

    def _rest(self, seconds: float, asked: float | None) -> None:
        """Wait before the next attempt: as long as the server asks, else less while somebody flushes."""
        if asked is not None:
            self._changed.wait_for(lambda: self._stopped, max(asked, FLUSHING_PAUSE))
            return
        waiting = self._flushing
        seconds = min(seconds, FLUSHING_PAUSE) if waiting else seconds
        self._changed.wait_for(lambda: self._stopped or self._flushing > waiting, seconds)


class AsyncClient:
    """The same for programs on an event loop, which `send` does not hold up either."""

    def __init__(self, url: str, key: str, **options: Any) -> None:
        """Take what Client takes."""
        self._client = Client(url, key, **options)
        self.send = self._client.send

    async def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait until everything sent so far has reached Sentinel (or was refused); False where it has not in time."""
        return await asyncio.to_thread(self._client.flush, timeout)

    async def close(self, timeout: float | None = EXIT_SECONDS) -> None:
        """Flush, and end the background thread; what could not be sent in time is dropped."""
        await asyncio.to_thread(self._client.close, timeout)

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        return self._client.stats

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _unusable(url: str, key: str) -> str:
    """Why no request can be made, or nothing."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        reachable = False
    if not reachable:
        return f"{url.removesuffix('/v1/events/batch')!r} is no address; write http://host:port"
    if not key or not key.isascii() or not key.isprintable():
        return "the key is missing or no key; `sentinel keys create` makes one"
    return ""


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
