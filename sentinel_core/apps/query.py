"""The query API under /api/v1, as Grafana and Prometheus' own tools ask it: who may, how many at once, for how long.

Everything that takes time happens on threads of its own: reading, evaluating, formatting, compressing. An answer leaves
in pieces, so that neither a long one nor a slow client holds the memory or the event loop.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from isal import isal_zlib
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sentinel_core.apps.query_endpoints import ENDPOINTS, JSON, Ask
from sentinel_core.apps.query_form import read_form
from sentinel_core.apps.query_threads import Place, RejectedError, Threads
from sentinel_core.apps.services import Services
from sentinel_core.config import SentinelConfig
from sentinel_core.durations import parse_duration
from sentinel_core.emitter.exposition import accepts_gzip
from sentinel_core.errors import SentinelError, explain
from sentinel_core.promql import answer
from sentinel_core.promql.errors import QueryError, QueryTimeoutError
from sentinel_core.promql.limits import Budget
from sentinel_core.query.actuals import ActualSource
from sentinel_core.query.crossings import CrossingSource
from sentinel_core.query.forecast_watches import Watches
from sentinel_core.query.forecasts import ForecastSource
from sentinel_core.query.own_metrics import STEP_SECONDS, ModelsOf, OwnMetrics
from sentinel_core.query.production import ProductionSource
from sentinel_core.query.quality import QualitySource
from sentinel_core.query.sources import OurSource, Sources
from sentinel_core.query.upstream import Upstream, UpstreamError

logger = logging.getLogger(__name__)

PREFIX = "/api/v1"
BODY_SECONDS = 30.0  # a form that has not come by then does not come
SEND_SECONDS = 30.0  # a client that takes no megabyte in that time takes no more
_GZIP_LEVEL, _GZIP_FORMAT = 1, 31


class QueryMetrics:
    """What the API counts about itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "sentinel_query_requests",
            "Requests to the query API, by endpoint and outcome; rejected: too many at once.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "sentinel_query_seconds",
            "Time to the last byte of an answer of the query API.",
            ["endpoint"],
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30),
            registry=registry,
        )


class QueryApi:
    """Admits, runs and answers requests."""

    def __init__(self, services: Services, registry: CollectorRegistry) -> None:
        self.services = services
        self.metrics = QueryMetrics(registry)
        self._upstreams = _Upstreams(services.config)
        self._own = OwnMetrics(registry, lambda: services.live.served.snapshot)
        watches = Watches(services.store, services.config)
        self._sources = Sources(
            forecasts=ForecastSource(services.store, watches),
            quality=QualitySource(services.store, services.config, watches),
            crossings=CrossingSource(services.store, services.config, watches),
            actuals=ActualSource(services.store, services.config, watches, services.now),
            production=self._production,
            own=self._own,
            upstream=self._upstreams.current,
        )
        self.threads = Threads(services.config().query_concurrency)

    def routes(self) -> list[BaseRoute]:
        """Every endpoint but buildinfo."""
        return [Route(f"{PREFIX}/{path}", _Endpoint(self, path, methods, work)) for path, methods, work in ENDPOINTS]

    async def run(self) -> None:
        """Remember our own metrics until cancelled."""
        while True:
            await run_in_threadpool(self._record)
            started = self.services.live.served.snapshot.read_at is not None
            await asyncio.sleep(STEP_SECONDS if started else 1.0)

    def _record(self) -> None:
        try:
            self._own.record(self.services.now())
        except Exception:
            logger.exception("our own metrics could not be remembered")

    def close(self) -> None:
        """Wait for the threads to end."""
        self.threads.close()
        self._upstreams.close()

    def _production(self, projects: frozenset[str] | None) -> list[OurSource]:
        services = self.services
        models = ProductionSource(services.store, services.config, services.now, projects)
        return [models] if projects is None else [models, ModelsOf(self._own, projects)]

    async def ask(self, request: Request, endpoint: str) -> Ask:
        """Read a request; QueryError and HTTPException for what is not answered."""
        projects = await self._projects(request)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                form = await read_form(request)
        except TimeoutError:
            raise HTTPException(408, f"the form did not arrive within {BODY_SECONDS:g} s") from None
        config = self.services.config()
        seconds = float(parse_duration(config.query_timeout))
        if form.text("timeout"):
            seconds = min(seconds, form.duration("timeout") / 1_000)
        budget = Budget(config.query_samples, time.monotonic() + seconds)
        now = round(self.services.now() * 1_000)
        return Ask(form, self._sources.of(projects), budget, now, endpoint, request.path_params.get("name", ""))

    async def _projects(self, request: Request) -> frozenset[str] | None:
        access = self.services.access
        if access.reads_all(request):
            return None
        caller = await access.caller(request, reading=True)
        if caller is None:
            headers = {"www-authenticate": "Bearer"}
            raise HTTPException(401, "send a key that may read: `Authorization: Bearer sml_live_…`", headers)
        if not caller.principal.may("read"):
            raise HTTPException(403, f"{caller.principal.actor} may not read; make a key with --scope read")
        return await access.projects(caller.principal)


class _Upstreams:
    """The Prometheus of the configuration in use; threads may share it."""

    def __init__(self, config: Callable[[], SentinelConfig]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._made: tuple[object, Upstream] | None = None

    def current(self) -> Upstream | None:
        """None where nothing is passed through; ConfigError where its secrets are missing."""
        config = self._config()
        if not config.query_passthrough:
            return None
        key = config.prometheus_url, config.auth
        with self._lock:
            if self._made is None or self._made[0] != key:
                self._made = key, Upstream.of(config)  # the one before closes when nobody reads from it any more
            return self._made[1]

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made[1].close()


class _Compress:
    """Turns pieces into one member of gzip where that is wanted."""

    def __init__(self, wanted: bool) -> None:
        self._engine: Any = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT) if wanted else None
        self.headers = {"vary": "Accept-Encoding"} | ({"content-encoding": "gzip"} if wanted else {})

    def __call__(self, data: bytes, last: bool) -> bytes:
        if self._engine is None:
            return data
        out: bytes = self._engine.compress(data)
        return out + self._engine.flush() if last else out


class _Endpoint:
    """One endpoint, as plain ASGI: a router's method check would send a wrong method to the next route."""

    def __init__(
        self, api: QueryApi, path: str, methods: tuple[str, ...], work: Callable[[Ask], Iterator[bytes]]
    ) -> None:
        self._api = api
        self._name = path.partition("/")[0]
        self._methods = methods
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, started, outcome = Request(scope, receive), time.perf_counter(), "failed"
        try:
            outcome = await self._respond(request, send)
        finally:
            self._api.metrics.requests.labels(self._name, outcome).inc()
            self._api.metrics.seconds.labels(self._name).observe(time.perf_counter() - started)

    async def _respond(self, request: Request, send: Send) -> str:
        """Answer, and say what came of it."""
        if request.method not in self._methods:
            headers = {"allow": ", ".join(self._methods)}
            response = _failure(405, "bad_data", f"{request.method} is not possible here", headers)
            outcome = "bad_data"
        else:
            try:
                ask = await self._api.ask(request, self._name)
                with Place(self._api.threads, ask) as place:
                    return await self._answer(ask, place, request, send)
            except ClientDisconnect:
                return "gone"
            except HTTPException as error:
                outcome = _REFUSALS.get(error.status_code, "bad_data")
                response = _failure(error.status_code, outcome, error.detail, error.headers)
            except QueryError as error:
                outcome = _OUTCOMES.get(type(error), error.kind)
                response = _failure(error.status, error.kind, str(error))
            except SentinelError as error:
                outcome = "unavailable"
                response = _failure(503, outcome, str(error))
            except Exception:
                logger.exception("a query could not be answered: %s", request.url.path)
                outcome = "internal"
                response = _failure(500, outcome, "Sentinel failed to answer this query; its log says why")
        await response(request.scope, request.receive, send)
        return outcome

    async def _answer(self, ask: Ask, place: Place, request: Request, send: Send) -> str:
        """Send an answer, and say what came of it; raises only while nothing of it has been sent."""
        pieces, compress = self._work(ask), _Compress(accepts_gzip(request.headers.get("accept-encoding", "")))
        watch = asyncio.create_task(_watch(request, ask))
        try:
            body, last = await place.piece(pieces, compress)
            outcome = "success" if ask.status < 400 else "refused_upstream"
            headers = {"content-type": ask.media_type, **compress.headers}
            if last:
                await Response(body, ask.status, headers)(request.scope, request.receive, send)
                return outcome
            begin = Response(None, ask.status, headers)
            del begin.headers["content-length"]
            await send({"type": "http.response.start", "status": ask.status, "headers": begin.raw_headers})
            try:
                await _rest(place, pieces, compress, body, ask, send)
            except Exception as error:  # too late for words: the connection is closed instead
                logger.warning("an answer of %s broke off: %s", request.url.path, explain(error))
                return "broken_off"
            return outcome
        except QueryTimeoutError:
            if ask.gone:
                return "gone"
            raise
        finally:
            watch.cancel()
            ask.budget.deadline = float("-inf")  # a thread may still be at it, where the server stops


_OUTCOMES = {RejectedError: "rejected", UpstreamError: "refused_upstream"}
_REFUSALS = {401: "unauthorized", 403: "forbidden"}


def _failure(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(answer.failure(kind, message), status, headers, JSON)


async def _watch(request: Request, ask: Ask) -> None:
    """End a query that nobody waits for any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ask.gone = True
    ask.budget.deadline = float("-inf")


async def _rest(place: Place, pieces: Iterator[bytes], compress: _Compress, body: bytes, ask: Ask, send: Send) -> None:
    """Send an answer whose first bytes are there."""
    last = False
    while True:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": not last})
        if last:
            return
        if ask.gone:
            raise ConnectionError("the client has gone")
        body, last = await place.piece(pieces, compress)
