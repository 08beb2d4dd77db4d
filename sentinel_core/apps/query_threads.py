"""The threads that queries are worked on: some for what we know ourselves, others for what Prometheus is asked for.

So Prometheus may hang as long as it likes: what is ours is answered all the same.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sentinel_core.promql.errors import TooBusyError

OURS, BOTH, THEIRS = "ours", "both", "theirs"  # of whom a query is; of one of THEIRS every byte comes from Prometheus
WAITING_PER_THREAD = 16  # queries that wait: a dashboard sends dozens at once
FORWARDING_PER_THREAD = 4  # queries that are passed on at once for one that is evaluated here
PIECE_BYTES = 1 << 20  # of an answer that are sent at once

Compress = Callable[[bytes, bool], bytes]  # what is sent instead of some bytes, which may be the last


class RejectedError(TooBusyError):
    """More queries at once than may wait."""


class Work(Protocol):
    """A query; while it goes on its `lane` may change, before an empty piece."""

    @property
    def lane(self) -> str:
        """OURS at first."""
        ...


class Threads:
    """So many for each kind of query, and a queue of so many before each."""

    def __init__(self, concurrency: int) -> None:
        sizes = {OURS: concurrency, BOTH: concurrency, THEIRS: FORWARDING_PER_THREAD * concurrency}
        self._pools = {lane: ThreadPoolExecutor(size, f"sentinel-query-{lane}") for lane, size in sizes.items()}
        self._most = {lane: size * (1 + WAITING_PER_THREAD) for lane, size in sizes.items()}
        self._under_way: Counter[str] = Counter()

    def close(self) -> None:
        """Wait for them to end."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def enter(self, lane: str) -> None:
        """Count a query; RejectedError where too many wait already."""
        if self._under_way[lane] >= self._most[lane]:
            raise RejectedError("too many queries at once; ask again in a moment, or raise query_concurrency")
        self._under_way[lane] += 1

    def leave(self, lane: str) -> None:
        """It is done, or goes elsewhere."""
        self._under_way[lane] -= 1

    async def run(self, lane: str, pieces: Iterator[bytes], compress: Compress) -> tuple[bytes, bool]:
        """Return the next PIECE_BYTES of an answer, and whether they are the last."""
        return await asyncio.get_running_loop().run_in_executor(self._pools[lane], _next_piece, pieces, compress)


class Place:
    """Where one query is worked on; a context manager. RejectedError where there is no room."""

    def __init__(self, threads: Threads, work: Work) -> None:
        self._threads, self._work, self._lane = threads, work, work.lane

    def __enter__(self) -> "Place":
        self._threads.enter(self._lane)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.leave(self._lane)

    async def piece(self, pieces: Iterator[bytes], compress: Compress) -> tuple[bytes, bool]:
        """Return the next bytes of its answer, and whether they are the last."""
        body, last = await self._threads.run(self._lane, pieces, compress)
        while self._lane != self._work.lane:
            self._threads.enter(self._work.lane)
            self._threads.leave(self._lane)
            self._lane = self._work.lane
            body, last = await self._threads.run(self._lane, pieces, compress)
        return body, last


def _next_piece(pieces: Iterator[bytes], compress: Compress) -> tuple[bytes, bool]:
    parts, size = [], 0
    for piece in pieces:
        if not piece:  # what follows is for other threads
            return b"", False
        parts.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            return compress(b"".join(parts), False), False
    return compress(b"".join(parts), True), True
