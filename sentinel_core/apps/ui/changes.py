"""GET /changes: tells open pages, as server-sent events, that the store holds something new."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sentinel_core.apps.services import Services
from sentinel_core.emitter.snapshot import Snapshot
from sentinel_core.errors import StoreError

LOOK_SECONDS = 0.5
REST_SECONDS = 3.0  # a page fetches itself anew at most so often
QUIET_SECONDS = 20.0  # a comment after so long shows proxies, and us, that the other end is there
MOST = 200  # streams at once; a browser that is turned away asks again later


class Changes:
    """Follows the snapshot that the sidecar keeps of the store, so that streams cost the store nothing."""

    def __init__(self, services: Services) -> None:
        self._live, self._access = services.live, services.access
        self.open = 0  # streams

    async def stream(self, request: Request) -> Response:
        """GET /changes, for whoever may read pages."""
        try:
            await self._access.require_page(request)
        except StoreError as error:
            return PlainTextResponse(str(error), 503)
        if self.open >= MOST:
            return PlainTextResponse("too many pages are open", 503, headers={"retry-after": "30"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return _Stream(self, headers)

    async def events(self) -> AsyncIterator[str]:
        """What a stream holds."""
        yield "retry: 2000\n\n"
        seen, quiet, rest = self._live.served.snapshot, 0.0, 0.0
        while not self._live.ending:
            await asyncio.sleep(LOOK_SECONDS)
            quiet, rest = quiet + LOOK_SECONDS, rest - LOOK_SECONDS
            newest = self._live.served.snapshot
            if rest <= 0 and _differs(newest, seen):
                seen, quiet, rest = newest, 0.0, REST_SECONDS
                yield "event: change\ndata: .\n\n"
            elif quiet >= QUIET_SECONDS:
                quiet = 0.0
                yield ": still here\n\n"


class _Stream(StreamingResponse):
    """Counts itself before anything else can run: a crowd that comes at once must not pass while none has begun."""

    def __init__(self, changes: Changes, headers: Mapping[str, str]) -> None:
        super().__init__(changes.events(), media_type="text/event-stream", headers=headers)
        self._changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._changes.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._changes.open -= 1


def _differs(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots show different things: their parts are the same objects where nothing has changed.

    Events that wait for their drain are left out: under a stream of them every page would ask all the time.
    """
    same = one.watches is other.watches and one.production is other.production
    return not same or one.waiting.deliveries != other.waiting.deliveries
