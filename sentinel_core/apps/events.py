"""POST /v1/events and /v1/events/batch: who may send, how much, in which form; 202 once it is on the disk.

Plain ASGI over msgspec: a framework's validation would cost four times the whole of this.
"""

import asyncio
import logging
import math
import time
import zlib
from collections import OrderedDict

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sentinel_core.apps.api.problems import MEDIA_TYPE, RETRY_SECONDS, problem
from sentinel_core.apps.services import Services
from sentinel_core.errors import ServiceError, StoreError
from sentinel_core.monitoring import events
from sentinel_core.monitoring.events import Digest, Problem, Submission
from sentinel_core.security.principals import Principal

logger = logging.getLogger(__name__)

MAX_BODY = 2 * 2**20  # bytes, inflated: a thousand events with the longest texts need half of it
MAX_BUFFERED = 256 * 2**20  # bytes of all bodies that are being received
BODY_SECONDS = 30.0  # a body that has not come by then does not come
MAX_RETRY_SECONDS = 86_400.0  # what a key is told at most: its rate may be next to nothing
MAX_KEYS = 10_000  # whose rates are remembered

_JSON = ("application/json",)
_LINES = ("application/x-ndjson", "application/jsonl", "application/ndjson")


def routes(services: Services) -> list[BaseRoute]:
    """The two routes; they come before whatever else is below /v1."""
    rates, buffered = Rates(), _Buffered()
    return [
        Route(path, _Ingest(services, batch, rates, buffered))
        for path, batch in (("/v1/events", False), ("/v1/events/batch", True))
    ]


class Rates:
    """Events a second of each key, as token buckets that hold one second's worth. `now` is a monotonic clock."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> tokens, when

    def wait(self, key: str, rate: float, now: float) -> float:
        """Seconds until the key may send again; 0: now."""
        tokens = self._tokens(key, rate, now)
        return 0.0 if tokens > 0 else -tokens / rate

    def spend(self, key: str, rate: float, now: float, count: int) -> None:
        """Take what was sent; the last request may overdraw, and the next ones wait for it."""
        self._buckets[key] = (self._tokens(key, rate, now) - count, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)

    def _tokens(self, key: str, rate: float, now: float) -> float:
        tokens, since = self._buckets.get(key, (rate, now))
        return min(rate, tokens + (now - since) * rate)


class _Buffered:
    """Bytes of all bodies under way: many slow clients together must not fill the memory."""

    size = 0


class _RefusedError(Exception):
    """The request is answered with this."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.response = problem(
            status, detail, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


class _Ingest:
    """One of the two routes."""

    def __init__(self, services: Services, batch: bool, rates: Rates, buffered: _Buffered) -> None:
        self._services = services
        self._batch = batch
        self._rates = rates
        self._buffered = buffered
        self._digest = Digest(services.keyring.pepper.secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope["method"], Headers(scope=scope), receive)
        except _RefusedError as refused:
            response = refused.response
        except (ServiceError, StoreError) as error:
            response = problem(503, str(error), headers={"retry-after": str(RETRY_SECONDS)})
        except Exception:
            logger.exception("events could not be taken")
            response = problem(500, "Sentinel failed to take these events; its log says why")
        await response(scope, receive, send)

    async def _respond(self, method: str, headers: Headers, receive: Receive) -> Response:
        if method != "POST":
            raise _RefusedError(405, f"{method} is not possible here; POST events", allow="POST")
        principal = await self._principal(headers.get("authorization", ""))
        form = self._form(headers)
        inflate = _is_gzip(headers)
        rate = principal.events_per_second or self._services.config().events_per_second
        if (seconds := self._rates.wait(principal.id, rate, time.monotonic())) > 0:
            detail = f"this key may send {rate:g} events a second: wait {seconds:.1f} s"
            raise _RefusedError(429, detail, retry_after=str(math.ceil(min(seconds, MAX_RETRY_SECONDS))))
        body = await self._body(headers, receive)
        found = events.read(_inflated(body) if inflate else body, form, self._services.now(), self._digest)
        if isinstance(found, Problem):
            return _json(found.status, found)
        count = len(found) + len(found.rejected)
        self._rates.spend(principal.id, rate, time.monotonic(), count)
        assert principal.project_id is not None
        return await self._written(principal.project_id, found)

    async def _written(self, project_id: int, found: Submission) -> Response:
        writer = self._services.writer
        if found.refused:
            writer.count_rejected(project_id, found.refused)
        if found.rejected and not self._batch:
            one = found.rejected[0]
            return _json(one.status, msgspec.structs.replace(one, index=None))
        if not len(found):
            return _json(202, _Accepted(0, 0, found.rejected))
        result = await writer.submit(project_id, found)
        return _json(202, _Accepted(result.accepted, result.duplicates, found.rejected))

    async def _principal(self, authorization: str) -> Principal:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise _RefusedError(401, "send a key: `Authorization: Bearer sml_live_…`", www_authenticate="Bearer")
        principal = await self._services.keyring.recognise(text)
        if principal is None:
            detail = "this key is unknown, expired or revoked; `sentinel keys create` makes one"
            raise _RefusedError(401, detail, www_authenticate='Bearer error="invalid_token"')
        if not principal.may("ingest"):
            detail = "this key may not send events; make one with `sentinel keys create NAME --scope ingest`"
            raise _RefusedError(403, detail, www_authenticate='Bearer error="insufficient_scope", scope="ingest"')
        return principal

    def _form(self, headers: Headers) -> events.Form:
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media in _JSON:
            return "array" if self._batch else "event"
        if self._batch and media in _LINES:
            return "lines"
        wanted = " or ".join((*_JSON, *_LINES[: self._batch]))
        raise _RefusedError(415, f"Content-Type has to be {wanted}", accept_post=wanted.replace(" or ", ", "))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > MAX_BODY:
            raise _RefusedError(413, _LARGE)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await receive()
                body: bytes = message.get("body", b"")
                if message.get("more_body", False):
                    return await self._rest(body, receive)
        except TimeoutError:
            raise _RefusedError(408, f"the body did not arrive within {BODY_SECONDS:g} s", connection="close") from None
        if len(body) > MAX_BODY:
            raise _RefusedError(413, _LARGE)
        return body

    async def _rest(self, begun: bytes, receive: Receive) -> bytes:
        parts, size, more = [begun], len(begun), True
        self._buffered.size += size
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _RefusedError(400, "the body ended early")  # nobody is left to read it
                part = message.get("body", b"")
                more = message.get("more_body", False)
                parts.append(part)
                size += len(part)
                self._buffered.size += len(part)
                if size > MAX_BODY:
                    raise _RefusedError(413, _LARGE)
                if self._buffered.size > MAX_BUFFERED:
                    raise ServiceError("too many large bodies are under way: send this one again in a moment")
            return b"".join(parts)
        finally:
            self._buffered.size -= size


_LARGE = f"the body has more than {MAX_BODY >> 20} MiB; send several requests"


def _is_gzip(headers: Headers) -> bool:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise _RefusedError(
            415, f"Content-Encoding {coding[:40]} is not known; send gzip or none", accept_encoding="gzip"
        )
    return coding != "identity"


def _inflated(body: bytes) -> bytes:
    """Inflate gzip (of one member, or one for each event), never to more than MAX_BODY."""
    parts: list[bytes] = []
    room = MAX_BODY
    while body:
        if len(parts) == events.MAX_EVENTS:  # each costs a copy of the rest
            raise _RefusedError(413, f"the body has more than {events.MAX_EVENTS} gzip members; send fewer")
        engine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            parts.append(engine.decompress(body, room + 1))
        except zlib.error as error:
            raise _RefusedError(400, f"the body is not valid gzip: {error}") from None
        room -= len(parts[-1])
        if room < 0:
            raise _RefusedError(413, f"{_LARGE} (this is its size inflated)")
        if not engine.eof:
            raise _RefusedError(400, "the body is not valid gzip: it ends early")
        body = engine.unused_data
    return b"".join(parts)


class _Accepted(msgspec.Struct):
    """What a 202 holds."""

    accepted: int
    duplicates: int
    rejected: list[Problem]


_ENCODER = msgspec.json.Encoder()


def _json(status: int, content: _Accepted | Problem) -> Response:
    media = MEDIA_TYPE if isinstance(content, Problem) else "application/json"
    return Response(_ENCODER.encode(content), status, media_type=media)
