"""A store as the pipeline leaves it: watches with series, actuals, forecasts and state, written through the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentinel_core import registry
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.registry import Version
from sentinel_core.series import Series
from sentinel_core.storage import forecast_store, schema, watch_store, windows_store
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window, grid

NOW = 1_800_000_000  # a multiple of a minute: the origin of most forecasts in these tests


@dataclass
class Fleet:
    """Writes what ticks and trainings would write."""

    config: SentinelConfig
    store: Store

    @classmethod
    def open(cls, folder: Path, watches: Sequence[WatchConfig], **settings: Any) -> "Fleet":
        """A migrated store in a folder, with these watches registered."""
        config = SentinelConfig(artifact_store=str(folder), watches=watches, **settings)
        store = Store.open(config.resolved_sql_url, config.resolved_data_url)
        store.database.migrate()
        fleet = cls(config, store)
        fleet.register()
        return fleet

    def register(self) -> None:
        """Make the configured watches known to the store."""
        with self.store.database.write() as connection:
            watch_store.sync_watches(connection, [(watch.slug, watch.selector) for watch in self.config.watches], NOW)

    def id(self, watch: WatchConfig) -> int:
        """The store's number of a watch."""
        with self.store.database.read() as connection:
            return watch_store.watch_ids(connection)[watch.slug]

    def state(self, watch: WatchConfig, **columns: Any) -> None:
        """Set columns of a watch's state."""
        with self.store.database.write() as connection:
            watch_store.update_state(connection, self.id(watch), **columns)

    def live(self, watch: WatchConfig, series: Sequence[Series]) -> None:
        """Add live series to a watch."""
        with self.store.database.write() as connection:
            watch_store.add_series(connection, self.id(watch), series, NOW)
            watch_store.update_state(connection, self.id(watch), series_live=len(series))

    def vanish(self, watch: WatchConfig, series: Series) -> None:
        """Let a series have had its last sample; as a tick does, with a change of the watch's state."""
        with self.store.database.write() as connection:
            watch_store.mark_vanished(connection, self.id(watch), [series.fingerprint], NOW)
            watch_store.update_state(connection, self.id(watch), last_tick_at=NOW + 60.0)

    def actuals(self, watch: WatchConfig, series: Sequence[Series], values: np.ndarray, end: int = NOW) -> None:
        """Write samples [n, T] of some series that end at a time."""
        step = watch.step_seconds
        fingerprints = np.array([one.fingerprint for one in series], np.int64)
        order = np.argsort(fingerprints)
        times = grid(end - (values.shape[1] - 1) * step, end, step)
        window = Window(fingerprints[order], times, values[order], step)
        pending = windows_store.write_windows(self.store, step, [window], now=float(end))
        with self.store.database.write() as connection:
            self.store.segments.commit(connection, [pending])
            watch_store.update_state(connection, self.id(watch), scraped_until=end, buffer_fill=1.0)

    def forecast(self, *issues: "Issue", origin: int = NOW, mode: int = 0) -> int:
        """Write the forecasts of one tick, all of one granularity, as one segment; return its number."""
        step = issues[0].watch.step_seconds
        parts = [issue.columns(self.id(issue.watch), origin, mode) for issue in issues]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        pending = forecast_store.write_forecasts(self.store, step, columns, now=float(origin))
        with self.store.database.write() as connection:
            (segment,) = self.store.segments.commit(connection, [pending])
            for issue in issues if mode == 0 else ():
                changes = {"forecast_origin": origin, "forecast_segment_id": segment, "last_tick_at": float(origin)}
                watch_store.update_state(connection, self.id(issue.watch), **changes)
        return segment

    def score(self, watch: WatchConfig, series: Sequence[Series], anomaly: np.ndarray, end: int = NOW) -> None:
        """Write the scores [n, T] of steps that end at a time, as ticks do."""
        step, (n, steps) = watch.step_seconds, anomaly.shape
        columns = {
            "watch": np.full(n * steps, self.id(watch)),
            "fp": np.repeat([one.fingerprint for one in series], steps),
            "ts": np.tile(grid(end - (steps - 1) * step, end, step), n),
            "version": np.ones(n * steps),
            "mae": np.ones(n * steps),
            "scaled": np.ones(n * steps),
            **dict.fromkeys(("naive", "seasonal"), np.full(anomaly.size, np.nan)),
            "anomaly": anomaly.ravel(),
        }
        pending = forecast_store.write_scores(self.store, step, columns, now=float(end))
        with self.store.database.write() as connection:
            self.store.segments.commit(connection, [pending])
        self.state(watch, scored_until=end)

    def serve(self, watch: WatchConfig, number: int = 1, mae: float = 0.5) -> None:
        """Let a version of a watch's model serve."""
        version = Version(
            watch_id=self.id(watch), version=number, parent=None, kind="retrain", reason="test", bytes=1,
            model_class=watch.model_path, spec_digest="", path=f"v{number}", sha256="0" * 64, feature_names="[]",
            series=1, series_refitted=1, span_start=NOW - 3600, span_end=NOW, mae=mae, champion_mae=None, coverage=0.95,
            accepted=True, run_id=None, created_at=float(NOW),
        )  # fmt: skip
        active = schema.active_models
        with self.store.database.write() as connection:
            registry.record(connection, version)
            connection.execute(active.delete().where(active.c.watch_id == version.watch_id))
            connection.execute(active.insert().values(watch_id=version.watch_id, version=number, changed_at=float(NOW)))


@dataclass(frozen=True)
class Issue:
    """The forecast of one watch: mean [n, leads] of n series, bounds at a distance, versions (one, or one for each).

    inner: distance of the inner bounds
    """

    watch: WatchConfig
    series: Sequence[Series]
    mean: np.ndarray
    versions: int | Sequence[int] = 1
    spread: float | np.ndarray = 1.0
    inner: float = np.nan

    def columns(self, watch_id: int, origin: int, mode: int) -> dict[str, np.ndarray]:
        """Rows as the `forecasts` dataset has them."""
        n, leads = self.mean.shape
        lead = np.tile(np.arange(1, leads + 1), n)
        fingerprints = np.array([one.fingerprint for one in self.series], np.int64)
        return {
            "watch": np.full(n * leads, watch_id),
            "fp": np.repeat(fingerprints, leads),
            "origin": np.full(n * leads, origin),
            "ts": origin + lead * self.watch.step_seconds,
            "lead": lead,
            "mean": self.mean.ravel(),
            "lower": (self.mean - self.spread).ravel(),
            "upper": (self.mean + self.spread).ravel(),
            "version": np.repeat(np.broadcast_to(self.versions, n), leads),
            "mode": np.full(n * leads, mode),
            "inner_lower": (self.mean - self.inner).ravel(),
            "inner_upper": (self.mean + self.inner).ravel(),
        }


Opener = Callable[..., Fleet]  # of the fixture `open_fleet`: watches in, a fleet out


def many(name: str, count: int, **labels: str) -> list[Series]:
    """Some series of one metric that differ in their `instance`."""
    return [Series.of(name, {**labels, "instance": f"10.0.{i // 250}.{i % 250}:9090"}) for i in range(count)]
