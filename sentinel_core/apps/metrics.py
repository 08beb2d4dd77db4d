"""/metrics and what stands behind it: the newest snapshot with its rendered bytes, kept fresh in the background.

Requests only pick up what is ready; reading the store and rendering happen on one thread beside the event loop. While
the store cannot be read, the last snapshot goes on being served, and its age is said.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.exposition import (
    OPENMETRICS,
    OPENMETRICS_END,
    ForecastRenderer,
    Section,
    accepts_gzip,
    content_type,
    gzip_of,
    plain,
)
from sentinel_core.emitter.self_metrics import ProductionCollector, SidecarMetrics, SnapshotCollector, encode
from sentinel_core.emitter.snapshot import Forecasts, Snapshot, SnapshotLoader
from sentinel_core.errors import StoreError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
REST_FACTOR = 9  # a look that takes long is followed by a rest: at most a tenth of a core
STATE_SECONDS = 5.0  # the ages among the self-metrics move even when the store does not
_EMPTY = Section.of()
_PROJECT = re.compile(rb'^[^#].*?[{,]project="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Served:
    """What requests are answered from; `problem` says why the store cannot be read, if it cannot."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    forecasts: Section = _EMPTY
    state: Mapping[str, Section] = field(default_factory=dict)  # by format, those that somebody asks for
    production: Mapping[str, Section] = field(default_factory=dict)  # the same
    rendered_at: float = 0.0
    problem: str | None = None


class Live:
    """Keeps `served` fresh; `now` is the wall clock in unix seconds."""

    def __init__(
        self,
        loader: SnapshotLoader,
        config: SentinelConfig,
        metrics: SidecarMetrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.served = Served(problem="the store has not been read yet")
        self.ending = False  # the server stops: whoever follows `served` lets go
        self._loader = loader
        self._metrics = metrics
        self._now = now
        self._thread = ThreadPoolExecutor(1, "sentinel-snapshot")
        self._scrapes = ThreadPoolExecutor(1, "sentinel-metrics")  # of its own: it waits for nobody who asks the store
        self._renderer = _renderer(config)
        self._formats: set[str] = set()
        self._rendered: tuple[Forecasts, ...] | None = None

    async def run(self) -> None:
        """Refresh until cancelled; under a stream of events every look finds a commit, and reads."""
        while True:
            began = time.perf_counter()
            await self.refresh()
            await asyncio.sleep(max(POLL_SECONDS, REST_FACTOR * (time.perf_counter() - began)))

    async def refresh(self) -> None:
        """Look at the store once; any error becomes `served.problem`, and what was served goes on being served."""
        await self._on_thread(self._refresh)

    async def configure(self, config: SentinelConfig) -> None:
        """Show the watches of another configuration, in its way."""

        def configure() -> None:
            self._loader.configure(config)
            self._renderer = _renderer(config)
            self._rendered = None
            self._refresh()

        await self._on_thread(configure)

    async def _on_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._thread.shutdown()
        self._scrapes.shutdown()

    def _refresh(self) -> None:
        try:
            now = self._now()
            try:
                snapshot, problem = self._loader.load(now), None
            except Exception as error:
                snapshot, problem = self.served.snapshot, self._explain(error)
            self._render(snapshot, problem, now)
        except Exception as error:  # something in the store that cannot be shown; the next look may find other things
            self.served = replace(self.served, problem=self._explain(error))
            self._metrics.store_up.set(0)

    def _explain(self, error: Exception) -> str:
        problem = str(error) or type(error).__name__
        if not isinstance(error, StoreError) and problem != self.served.problem:  # once, not at every look
            logger.error("the store could not be read or shown", exc_info=error)
        return problem

    def _render(self, snapshot: Snapshot, problem: str | None, now: float) -> None:
        served = self.served
        forecasts, blocks = served.forecasts, tuple(snapshot.forecasts)
        if self._rendered is None or not _same(blocks, self._rendered):
            forecasts = Section.of(*self._renderer.render(blocks))
            self._rendered = blocks
        state, rendered_at = served.state, served.rendered_at
        if snapshot.watches is not served.snapshot.watches or now - rendered_at >= STATE_SECONDS:
            state = {kind: _state(snapshot, now, kind) for kind in tuple(self._formats)}
            rendered_at = now
        production = served.production if snapshot.production is served.snapshot.production else {}
        production = {kind: production.get(kind) or _production(snapshot, kind) for kind in tuple(self._formats)}
        self._metrics.store_up.set(problem is None)
        self._metrics.snapshot_time.set(snapshot.read_at or 0)
        self.served = Served(snapshot, forecasts, state, production, rendered_at, problem)

    async def metrics(self, request: Request, projects: Collection[str] | None = None) -> Response:
        """GET /metrics; of models in production those of `projects`, or all (None). 10,000 models take 0.3 s."""
        return await asyncio.get_running_loop().run_in_executor(self._scrapes, self._metrics_page, request, projects)

    def _metrics_page(self, request: Request, projects: Collection[str] | None) -> Response:
        kind = content_type(request.headers.get("accept", ""))
        own = encode(self._metrics.registry, kind) + (OPENMETRICS_END if kind == OPENMETRICS else b"")
        served = self.served
        self._formats.add(kind)
        state = served.state.get(kind) or _state(served.snapshot, self._now(), kind)
        production = served.production.get(kind) or _production(served.snapshot, kind)
        sections = [served.forecasts, production, state, Section.of(own)]
        if projects is not None:
            sections[1:] = [_of_projects(section, projects) for section in sections[1:]]
        headers = {"content-type": kind, "vary": "Accept, Accept-Encoding", "cache-control": "no-store"}
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            return Response(gzip_of(sections), headers=headers | {"content-encoding": "gzip"})
        return Response(plain(sections), headers=headers)


def _same(some: Sequence[Forecasts], others: Sequence[Forecasts]) -> bool:
    """Whether two snapshots share every forecast: then the lines are the same too."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _of_projects(section: Section, projects: Collection[str]) -> Section:
    """Without the lines of other projects."""
    # a quote inside of another label's value is escaped, so that this finds the label and nothing else
    allowed = {name.replace("\\", "\\\\").replace('"', '\\"').encode() for name in projects}
    lines = ((line, _PROJECT.search(line)) for line in b"".join(section.pieces).split(b"\n"))
    return Section.of(b"\n".join(line for line, found in lines if found is None or found[1] in allowed))


def _state(snapshot: Snapshot, now: float, kind: str) -> Section:
    return Section.of(encode(SnapshotCollector(snapshot, now), kind))


def _production(snapshot: Snapshot, kind: str) -> Section:
    return Section.of(encode(ProductionCollector(snapshot.production), kind))


def _renderer(config: SentinelConfig) -> ForecastRenderer:
    return ForecastRenderer(bounds=config.emit_confidence_bounds, steps=config.emit_steps)
