"""The sidecar: one HTTP port with /metrics, health, status, the JSON API and the pages. It never trains.

`python -m sentinel_core.apps.sidecar` serves the configuration that `sentinel_core.config.load_config` finds.
"""

import asyncio
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinel_core.apps import events, ui
from sentinel_core.apps.access import Access, is_near
from sentinel_core.apps.api.application import PREFIX, create_api
from sentinel_core.apps.api.problems import problem
from sentinel_core.apps.event_writer import EventWriter
from sentinel_core.apps.metrics import Live
from sentinel_core.apps.query import QueryApi
from sentinel_core.apps.services import Services
from sentinel_core.config import SentinelConfig, config_path, is_loopback, load_config
from sentinel_core.emitter.self_metrics import SidecarMetrics
from sentinel_core.emitter.snapshot import SnapshotLoader
from sentinel_core.errors import ConfigError, SentinelError, ServiceError, StoreError
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.secret import Pepper, load_pepper
from sentinel_core.storage.store import Store

Status = Callable[[SentinelConfig], Mapping[str, Any]]

# Nothing foreign is ever loaded, and nothing inline runs: labels come from other people's processes.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
FIXED_AT_START = ("bind_address", "emitter_port", "resolved_sql_url", "resolved_data_url", "query_concurrency")


def create_app(
    source: SentinelConfig | Path,
    store: Store,
    *,
    status: Status,
    now: Callable[[], float] = time.time,
    pepper: Pepper | None = None,
) -> Starlette:
    """Assemble the sidecar over an open store.

    source: the configuration, or the file it is in, which POST /-/reload then reads again
    status: what GET /status.json answers for a configuration; called beside the event loop
    pepper: what keys are hashed with; None: the artifact store's own
    Raises ConfigError where the file cannot be used, StoreError where the pepper cannot.
    """
    sidecar = _Sidecar(source, store, status, now, pepper)
    api = Mount(PREFIX, create_api(sidecar.services))
    api.path_regex = re.compile(f"^{PREFIX}/(?P<path>.*)$", re.DOTALL)  # also with a line break in it
    routes = [
        *events.routes(sidecar.services),
        api,
        Route("/metrics", sidecar.metrics_page),
        Route("/-/healthy", sidecar.healthy),
        Route("/-/ready", sidecar.ready),
        Route("/-/reload", sidecar.reload, methods=["POST", "PUT"]),
        Route("/status.json", sidecar.status),
        Route("/readme", readme),
        Route("/api/v1/status/buildinfo", buildinfo),
        *sidecar.queries.routes(),
        Route("/api/{path:path}", no_such_endpoint, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        *ui.routes(sidecar.services),
    ]
    observed = Middleware(_Observed, metrics=sidecar.metrics)
    guarded = Middleware(_Guarded, private=sidecar.private)
    app = Starlette(routes=routes, middleware=[observed, guarded], lifespan=sidecar.lifespan)
    app.state.live = sidecar.live  # for the Server, which ends the streams of it
    return app


class _Sidecar:
    """The configuration in use, and the small endpoints."""

    def __init__(
        self,
        source: SentinelConfig | Path,
        store: Store,
        status: Status,
        now: Callable[[], float],
        pepper: Pepper | None,
    ) -> None:
        self._file = source if isinstance(source, Path) else None
        self._status = status
        self.config = source if isinstance(source, SentinelConfig) else load_config(source)
        self.metrics = SidecarMetrics(version("sentinel"))
        self.live = Live(SnapshotLoader(store, self.config), self.config, self.metrics, now)
        self.private = is_loopback(self.config.bind_address)
        keyring = KeyRing(store, pepper or load_pepper(self.config, {}), now)
        self.services = Services(
            store=store,
            config=lambda: self.config,
            now=now,
            keyring=keyring,
            passwords=Passwords(),
            access=Access(store, keyring, lambda: self.config, now, private=self.private),
            writer=EventWriter(store, now, self.metrics.registry),
            live=self.live,
        )
        self.queries = QueryApi(self.services, self.metrics.registry)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Keep snapshot and keys fresh, and write events, while the server runs."""
        await run_in_threadpool(self.services.keyring.start)
        self.services.writer.start()
        running = [asyncio.create_task(task) for task in (self.live.run(), self.queries.run())]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self.live.close()
            await run_in_threadpool(self.services.writer.stop)
            await run_in_threadpool(self.services.keyring.close)
            await run_in_threadpool(self.queries.close)  # last: it may wait for a Prometheus that hangs

    async def healthy(self, _: Request) -> Response:
        """GET /-/healthy: the process answers."""
        return PlainTextResponse("Sentinel is healthy.\n")

    async def ready(self, _: Request) -> Response:
        """GET /-/ready: 200 once a forecast is served, or without watches the store is read; else 503 and why not."""
        served = self.live.served
        waiting = len(served.snapshot.watches)
        if next(iter(served.snapshot.forecasts), None) is not None or not (waiting or served.problem):
            return PlainTextResponse("Sentinel is ready.\n")
        reason = served.problem or (
            f"no watch of {waiting} has a forecast yet; the page at / says what each is waiting for"
        )
        return PlainTextResponse(f"Sentinel is not ready: {reason}.\n", 503)

    async def metrics_page(self, request: Request) -> Response:
        """GET /metrics: off this machine the models of a project are shown to its keys, and to who may see it.

        What comes through a proxy does not come from this machine.
        """
        access = self.services.access
        projects: frozenset[str] | None = None
        if not access.reads_all(request):
            try:
                caller = await access.caller(request)
                reads = caller is not None and caller.principal.may("read")
                projects = await access.projects(caller.principal) if caller and reads else frozenset()
            except StoreError as error:
                return _problem(503, "unavailable", str(error))
        return await self.live.metrics(request, projects)

    async def status(self, _: Request) -> Response:
        """GET /status.json: the status of every watch, as `Sentinel.status()` returns it."""
        try:
            return _json(await run_in_threadpool(self._status, self.config))
        except StoreError as error:
            return _problem(503, "unavailable", str(error))

    async def reload(self, request: Request) -> Response:
        """POST /-/reload, from this machine only: read the configuration file again, or say what is wrong with it."""
        if not is_near(request):
            return _problem(403, "forbidden", "POST /-/reload is answered on this machine only")
        if self._file is None:
            return _problem(409, "bad_data", "this sidecar was not started from a configuration file")
        try:
            config = await run_in_threadpool(load_config, self._file)
        except ConfigError as error:
            self.metrics.reload_successful.set(0)
            return _problem(400, "bad_data", str(error), problems=error.problems)
        fixed = [name for name in FIXED_AT_START if getattr(config, name) != getattr(self.config, name)]
        self.config = config
        await self.live.configure(config)
        self.metrics.reload_successful.set(1)
        return _json({"status": "success", "data": {"watches": len(config.watches), "needs_restart": fixed}})


async def buildinfo(_: Request) -> Response:
    """GET /api/v1/status/buildinfo, in Prometheus' shape; no `features`: with them Grafana takes us for Mimir."""
    return _json({"status": "success", "data": {"version": version("sentinel")}})


async def readme(_: Request) -> Response:
    """GET /readme: the README that this installation was built from."""
    return PlainTextResponse(str(metadata("sentinel").json.get("description", "")))


async def no_such_endpoint(request: Request) -> Response:
    """Everything else below /api."""
    return _problem(404, "not_found", f"{request.url.path} is not an endpoint of this sidecar")


def _json(content: Any, code: int = 200) -> Response:
    return Response(msgspec.json.encode(content), code, media_type="application/json")


def _problem(code: int, kind: str, message: str, **more: Any) -> Response:
    return _json({"status": "error", "errorType": kind, "error": message, **more}, code)


class _Observed:
    """Counts and times requests by route, and puts the security headers on every answer."""

    ROUTES = (
        "/",
        "/changes",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/-/reload",
        "/status.json",
        "/api/v1/status/buildinfo",
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/labels",
        "/api/v1/series",
        "/v1/events",
        "/v1/events/batch",
    )

    def __init__(self, app: ASGIApp, metrics: SidecarMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, code = time.perf_counter(), 500
        path = scope["path"]
        api = PREFIX if path.startswith(f"{PREFIX}/") else "other"  # a client must not invent label values
        route = path if path in self.ROUTES else api

        async def send_observed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._metrics.requests.labels(route, str(code)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)


class _Guarded:
    """Refuses what a page of another site makes a browser ask: by a name rebound to this machine, or by a POST.

    private: whether only this machine is answered, and so only under its own names
    """

    def __init__(self, app: ASGIApp, private: bool) -> None:
        self._app = app
        self._private = private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["path"].startswith(f"{PREFIX}/"):
            await problem(403, reason)(scope, receive, send)
        else:
            await _problem(403, "forbidden", reason)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:
            host = "?"
        if self._private and host and not is_loopback(host):  # none: no browser
            return "this address answers as localhost only; a proxy before it has to send the header Host: localhost"
        if method not in ("GET", "HEAD") and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return f"a {method} of another site's page is not answered"
        return None


def listen(config: SentinelConfig) -> socket.socket:
    """Bind the configured address; ServiceError with the remedy where that is not possible."""
    address, port = config.bind_address, config.emitter_port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=2048)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {address}:{port}: {error.strerror}. Stop the program that holds the port "
            f"(`ss -ltnp 'sport = :{port}'` names it), or set emitter_port or bind_address to something else"
        ) from error


class Server(uvicorn.Server):
    """Ends the streams of changes before it waits for what is under way: they would never end by themselves."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once by uvicorn, when it is told to stop."""
        app = self.config.app
        assert isinstance(app, Starlette)
        app.state.live.ending = True
        await super().shutdown(sockets)


def serve(
    source: SentinelConfig | Path, store: Store, *, status: Status, sock: socket.socket, pepper: Pepper | None = None
) -> None:
    """Serve on a bound socket until SIGINT or SIGTERM."""
    app = create_app(source, store, status=status, pepper=pepper)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    Server(config).run(sockets=[sock])


def main() -> int:
    """Serve the configuration that is found; 1 and the reason on stderr where that is not possible."""
    # Here, because the pipeline brings the models' libraries, which a program that only embeds the app need not load.
    from sentinel_core.pipeline.context import Context
    from sentinel_core.pipeline.status import status

    try:
        file = config_path()
        config = load_config(file)
        with listen(config) as sock, Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
            store.database.migrate()
            pepper = load_pepper(config, os.environ)
            serve(file or config, store, status=lambda now: status(Context(now, store)), sock=sock, pepper=pepper)
    except SentinelError as error:
        print(f"sentinel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
