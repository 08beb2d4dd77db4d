"""What every step of the pipeline works with: configuration, store, clock, and the counts it leaves behind."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.errors import ConfigError, ConflictError
from sentinel_core.forecasts import Fitted
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.storage import watch_store
from sentinel_core.storage.store import Store

SKEW = "sentinel_clock_skew_seconds"
ATTEMPTS = 5  # of what another process was faster than
T = TypeVar("T")
CounterKey = tuple[str, tuple[tuple[str, str], ...]]  # metric name, sorted labels


def persistently(attempt: Callable[[], T]) -> T:
    """Read, decide and commit again where somebody else was faster; the last attempt's ConflictError is raised."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ConflictError:
            continue
    return attempt()


@dataclass
class Context:
    """One process' view of the product. Steps may run in threads: `count` and the caches are guarded."""

    config: SentinelConfig
    store: Store
    clock: Callable[[], float] = time.time
    shelf: dict[str, Fitted] = field(default_factory=dict)  # loaded artifacts by SHA-256
    _counts: dict[CounterKey, float] = field(default_factory=dict)
    _gauges: dict[CounterKey, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ids: dict[str, int] | None = None
    _synced: bool = False

    def client(self) -> PrometheusClient:
        """A client of the configured Prometheus; use it as a context manager."""
        return PrometheusClient(
            self.config.prometheus_url,
            timeout=self.config.scrape_timeout,
            auth=self.config.auth,
            observe=self._observe,
        )

    def _observe(self, endpoint: str, seconds: float, outcome: str) -> None:
        self.count("sentinel_source_requests_total", endpoint=endpoint, outcome=outcome)
        self.count("sentinel_source_request_seconds_sum", seconds, endpoint=endpoint)
        self.count("sentinel_source_request_seconds_count", endpoint=endpoint)

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a self-metric; it reaches the store with the next `flush`."""
        with self._lock:
            key = name, tuple(sorted(labels.items()))
            self._counts[key] = self._counts.get(key, 0.0) + amount

    def gauge(self, name: str, value: float) -> None:
        """Set a self-metric; it reaches the store with the next `flush`."""
        with self._lock:
            self._gauges[name, ()] = value

    def source_time(self, client: PrometheusClient) -> float:
        """Prometheus' own clock, unix seconds; its lead over ours becomes a self-metric, which `due` asks for."""
        now = client.now()
        self.gauge(SKEW, now - self.clock())
        return now

    def flush(self, conn: sa.Connection) -> None:
        """Write the counts of this process so far into the store's, in the caller's transaction."""
        with self._lock:
            counts, self._counts = self._counts, {}
            gauges, self._gauges = self._gauges, {}
        watch_store.increment(conn, counts)
        watch_store.assign(conn, gauges)

    def blame(self, watch: WatchConfig, watch_id: int, errors: Mapping[int, str]) -> str:
        """What a model did wrong (by fingerprint) in a person's words: the class, one of the series, the remedy."""
        fingerprint, text = next(iter(errors.items()))
        with self.store.database.read() as conn:
            members = watch_store.series_of(conn, [watch_id], live_only=False)
        series = next((one.series.selector for one in members if one.fingerprint == fingerprint), str(fingerprint))
        return (
            f"{watch.model_path} failed for {len(errors)} series, for example {series}: {text}; "
            "try the class with sentinel_core.models.conformance"
        )

    def chosen(self, slugs: Iterable[str] | None) -> list[WatchConfig]:
        """The configured watches with these slugs, or all; ConfigError for one that is not configured."""
        if slugs is None:
            return list(self.config.watches)
        by_slug = {watch.slug: watch for watch in self.config.watches}
        wanted = list(slugs)
        unknown = [slug for slug in wanted if slug not in by_slug]
        if unknown:
            raise ConfigError([f"no watch {slug!r}; configured: {', '.join(by_slug) or 'none'}" for slug in unknown])
        return [by_slug[slug] for slug in wanted]

    def watch_ids(self) -> dict[str, int]:
        """Ids of the configured watches by slug; registers new ones.

        Others stay as they are: a script may be configured with a few of the watches that run.
        """
        if self._ids is None:
            self._ids = self._register(retire=False)
        return self._ids

    def sync_watches(self) -> dict[str, int]:
        """The same, and retires those that left the configuration; for the processes that run the applied one.

        Once a process: when a long run ends its configuration may be old, and must not win over a newer one.
        """
        if not self._synced:
            self._ids, self._synced = self._register(retire=True), True
        return self.watch_ids()

    def _register(self, *, retire: bool) -> dict[str, int]:
        wanted = {watch.slug: watch.selector for watch in self.config.watches}
        with self.store.database.read() as conn:
            known = watch_store.watch_ids(conn)
        if wanted.keys() - known.keys() or (retire and known.keys() - wanted.keys()):
            with self.store.database.write() as conn:
                known = watch_store.sync_watches(conn, wanted.items(), self.clock(), retire=retire)
        return {slug: known[slug] for slug in wanted}
