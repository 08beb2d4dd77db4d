"""The latest live outputs of every watch, in RAM: what /metrics, the page and the self-metrics show.

A snapshot is frozen. The loader makes a new one when the store has changed, and keeps every part of the old one that
has not: a tick of one watch costs the reading of that watch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.errors import StoreError
from sentinel_core.series import Series
from sentinel_core.storage import schema
from sentinel_core.storage.database import Database
from sentinel_core.storage.segments import SegmentStore

_COLUMNS = ("watch", "fp", "lead", "mean", "lower", "upper", "version")


@dataclass(frozen=True)
class Forecasts:
    """The live forecast of a watch's series of one name; rows are series, columns are leads.

    name:     what the forecast gauges are called after (a counter's rate has its own)
    origin:   unix seconds, the last time known to the forecast; lead k is for origin + k * step_seconds
    leads:    int64 [leads], ascending
    versions: int32 [n]: the version that last fitted the series, 0 for its last value, -v for pooled by version v
    mean, lower, upper: float64 [n, leads]; NaN where there is no forecast
    """

    slug: str
    name: str
    horizon: str
    step_seconds: int
    origin: int
    series: tuple[Series, ...]
    fingerprints: NDArray[np.int64]
    leads: NDArray[np.int64]
    versions: NDArray[np.int32]
    mean: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def at_leads(self, chosen: NDArray[np.bool_]) -> "Forecasts":
        """The same with some leads only, by mask."""
        cut = {name: getattr(self, name)[:, chosen] for name in ("mean", "lower", "upper")}
        return replace(self, leads=self.leads[chosen], **cut)

    def of_series(self, chosen: NDArray[np.bool_]) -> "Forecasts":
        """The same with some series only, by mask; itself when that is all of them, so that caches still know it."""
        if chosen.all():
            return self
        arrays = ("fingerprints", "versions", "mean", "lower", "upper")
        cut: dict[str, Any] = {name: getattr(self, name)[chosen] for name in arrays}
        return replace(self, series=tuple(self.series[i] for i in np.flatnonzero(chosen)), **cut)


@dataclass(frozen=True)
class WatchState:
    """What the store knows about a watch, as its tables have it; the defaults are those of a watch it never saw."""

    watch_id: int = 0
    kind: str | None = None
    scraped_until: int | None = None
    last_tick_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    series_live: int = 0
    buffer_fill: float = 0.0
    forecast_origin: int | None = None
    forecast_segment_id: int | None = None
    severity: str | None = None
    drift_mae: float | None = None
    drift_low: int = 0
    drift_high: int = 0
    drift_scored: int = 0
    active_version: int | None = None
    active_mae: float | None = None
    pinned: bool = False

    @property
    def issue(self) -> tuple[int, int] | None:
        """Segment and origin of the newest live forecast."""
        if self.forecast_segment_id is None or self.forecast_origin is None:
            return None
        return self.forecast_segment_id, self.forecast_origin


@dataclass(frozen=True)
class WatchView:
    """One configured watch: its state, its live forecasts, and why those could not be read if they could not."""

    config: WatchConfig
    state: WatchState = WatchState()
    forecasts: tuple[Forecasts, ...] = ()
    unreadable: str | None = None

    @property
    def series(self) -> int:
        """Series with a live forecast."""
        return sum(len(block.series) for block in self.forecasts)


@dataclass(frozen=True)
class Snapshot:
    """All watches in configuration order, and when the store was last seen to hold this (unix seconds)."""

    watches: tuple[WatchView, ...] = ()
    counters: tuple[tuple[str, Mapping[str, str], float], ...] = ()  # name, labels, value
    dropped: int = 0  # series that an earlier watch with the same horizon shows already
    read_at: float | None = None

    @property
    def forecasts(self) -> Iterable[Forecasts]:
        """Every live forecast."""
        return (block for watch in self.watches for block in watch.forecasts)


@dataclass(frozen=True)
class _Known:
    """What the loader remembers of one watch between two snapshots."""

    state: WatchState = WatchState()
    labels: Mapping[int, Series] = field(default_factory=dict)  # live series by fingerprint
    forecasts: tuple[Forecasts, ...] = ()
    unreadable: str | None = None


_NOTHING = _Known()
_GONE = Series("", ())  # stands for a series that has vanished since the forecast


class SnapshotLoader:
    """Reads snapshots; not thread-safe: one thread asks. A watch that cannot be read keeps what it last had."""

    def __init__(self, database: Database, segments: SegmentStore, config: SentinelConfig) -> None:
        self._database = database
        self._segments = segments
        self._known: dict[str, _Known] = {}
        self.configure(config)

    def configure(self, config: SentinelConfig) -> None:
        """Use another configuration from the next load on."""
        self._watches = {watch.slug: watch for watch in config.watches}
        self._token: int | None = None
        self._snapshot = Snapshot()

    def load(self, now: float) -> Snapshot:
        """Return the newest snapshot: the last one, confirmed at `now`, when the store has not changed.

        StoreError when the store cannot be read at all.
        """
        token = self._database.change_token()  # before reading: what commits meanwhile is seen by the next load
        if token != self._token:
            self._snapshot = self._read()
            broken = any(watch.unreadable for watch in self._snapshot.watches)
            self._token = None if broken else token  # a file may come back without a commit
        self._snapshot = replace(self._snapshot, read_at=now)
        return self._snapshot

    def _read(self) -> Snapshot:
        with self._database.read() as connection:
            states = _read_states(connection, self._watches)
            counters = tuple(_read_counters(connection))
            moved = {slug: state for slug, state in states.items() if self._moved(slug, state)}
            labels = self._read_labels(connection, moved)
        self._known = {slug: known for slug, known in self._known.items() if slug in self._watches}
        to_read = []
        for slug, state in moved.items():
            known = self._known.get(slug, _NOTHING)
            if state.issue is not None and (state.issue != known.state.issue or known.unreadable):
                to_read.append(slug)
            kept = _living(known.forecasts, labels[slug]) if state.issue else ()
            self._known[slug] = _Known(state, labels[slug], kept)
        for key, group in groupby(sorted(to_read, key=self._issue), key=self._issue):
            self._read_issue(*key, list(group))
        views, dropped = self._views()
        return Snapshot(views, counters, dropped)

    def _moved(self, slug: str, state: WatchState) -> bool:
        known = self._known.get(slug)
        return known is None or known.state != state or known.unreadable is not None

    def _read_labels(
        self, connection: sa.Connection, moved: Mapping[str, WatchState]
    ) -> dict[str, Mapping[int, Series]]:
        """The live series of some watches by fingerprint; only what is new is parsed."""
        found: dict[str, Mapping[int, Series]] = {}
        for slug, state in moved.items():
            known = self._known.get(slug, _NOTHING).labels
            live = _read_live(connection, state.watch_id)
            if live - known.keys():
                known = _read_series(connection, state.watch_id)
            found[slug] = known if live == known.keys() else {fp: known[fp] for fp in live if fp in known}
        return found

    def _issue(self, slug: str) -> tuple[int, int, int]:
        state = self._known[slug].state
        return self._watches[slug].step_seconds, *(state.issue or (0, 0))

    def _read_issue(self, step_seconds: int, segment_id: int, origin: int, slugs: Sequence[str]) -> None:
        """Read what one tick issued for some watches of one granularity: usually one segment."""
        end = origin + step_seconds * max(self._watches[slug].horizon_steps for slug in slugs)
        try:
            candidates = self._segments.segments("forecasts", str(step_seconds), origin + step_seconds, end)
            # Compaction merges old segments; then the rows are in another one that covers the same time.
            chosen = [segment for segment in candidates if segment.id == segment_id] or candidates
            rows = self._segments.read(chosen, _COLUMNS, "mode = 0 and origin = ?", (origin,))
        except StoreError as error:
            for slug in slugs:
                self._known[slug] = replace(self._known[slug], unreadable=str(error))
            return
        order = np.argsort(rows["watch"], kind="stable")
        rows = {name: column[order] for name, column in rows.items()}
        for slug in slugs:
            known = self._known[slug]
            start, stop = np.searchsorted(rows["watch"], [known.state.watch_id, known.state.watch_id + 1])
            mine = {name: column[start:stop] for name, column in rows.items()}
            blocks = _blocks(self._watches[slug], origin, mine, known)
            unreadable = None if stop > start else "its newest forecast is not in the data store any more"
            self._known[slug] = replace(known, forecasts=blocks or known.forecasts, unreadable=unreadable)

    def _views(self) -> tuple[tuple[WatchView, ...], int]:
        views, dropped = [], 0
        shown: dict[tuple[str, str], NDArray[np.int64]] = {}
        for slug, watch in self._watches.items():
            known = self._known[slug]
            blocks = []
            for block in known.forecasts:
                earlier = shown.get((block.name, block.horizon))
                if earlier is not None:
                    fresh = ~np.isin(block.fingerprints, earlier)
                    dropped += int((~fresh).sum())
                    block = block.of_series(fresh)
                shown[block.name, block.horizon] = np.union1d(block.fingerprints, [] if earlier is None else earlier)
                if block.series:
                    blocks.append(block)
            views.append(WatchView(watch, known.state, tuple(blocks), known.unreadable))
        return tuple(views), dropped


def _living(blocks: Iterable[Forecasts], live: Mapping[int, Series]) -> tuple[Forecasts, ...]:
    """The blocks without the series that have vanished since."""
    return tuple(
        block.of_series(np.fromiter((fp in live for fp in block.fingerprints.tolist()), bool)) for block in blocks
    )


def _blocks(watch: WatchConfig, origin: int, rows: Mapping[str, NDArray[Any]], known: _Known) -> tuple[Forecasts, ...]:
    """One watch's rows (a row per series and lead, any order) as matrices, one block per emitted name."""
    fingerprints, row = np.unique(rows["fp"], return_inverse=True)
    leads, column = np.unique(rows["lead"].astype(np.int64), return_inverse=True)
    matrices = {}
    for key in ("mean", "lower", "upper"):
        matrices[key] = np.full((len(fingerprints), len(leads)), np.nan)
        matrices[key][row, column] = rows[key]  # the last row wins where a forecast was issued again
    versions = np.zeros(len(fingerprints), np.int32)
    versions[row] = rows["version"]
    series = [known.labels.get(fingerprint, _GONE) for fingerprint in fingerprints.tolist()]
    names = np.array([one.name for one in series], dtype=object)
    blocks = []
    for name in dict.fromkeys(one.name for one in series if one is not _GONE):
        chosen = names == name
        mine = fingerprints[chosen]
        same = (old.series for old in known.forecasts if np.array_equal(old.fingerprints, mine))
        members = next(same, None) or tuple(one for one in series if one.name == name)
        cut = {key: matrix[chosen] for key, matrix in matrices.items()}
        head = (watch.slug, name, watch.horizon, watch.step_seconds, origin)
        blocks.append(Forecasts(*head, members, mine, leads, versions[chosen], **cut))
    return tuple(blocks)


def _read_states(connection: sa.Connection, slugs: Iterable[str]) -> dict[str, WatchState]:
    """The state of each configured watch; the default one for a watch that the store does not know yet."""
    watches, state = schema.watches, schema.watch_state
    active, versions = schema.active_models, schema.model_versions
    own = [state.c[entry.name] for entry in fields(WatchState) if entry.name in state.c and entry.name != "watch_id"]
    query = (
        sa.select(watches.c.slug, watches.c.id.label("watch_id"), *own)
        .add_columns(active.c.version.label("active_version"), active.c.pinned, versions.c.mae.label("active_mae"))
        .outerjoin_from(watches, state, state.c.watch_id == watches.c.id)
        .outerjoin(active, active.c.watch_id == watches.c.id)
        .outerjoin(versions, sa.and_(versions.c.watch_id == watches.c.id, versions.c.version == active.c.version))
    )
    states = dict.fromkeys(slugs, WatchState())
    for row in connection.execute(query):
        if row.slug in states:
            values = {key: value for key, value in row._mapping.items() if value is not None and key != "slug"}
            states[row.slug] = WatchState(**values)
    return states


def _read_live(connection: sa.Connection, watch_id: int) -> set[int]:
    """Fingerprints of a watch's series that have not vanished."""
    table = schema.series
    query = sa.select(table.c.fingerprint).where(table.c.watch_id == watch_id, table.c.vanished_at.is_(None))
    return set(connection.scalars(query))


def _read_series(connection: sa.Connection, watch_id: int) -> dict[int, Series]:
    """A watch's live series by fingerprint."""
    table = schema.series
    query = sa.select(table.c.fingerprint, table.c.name, table.c.labels)
    rows = connection.execute(query.where(table.c.watch_id == watch_id, table.c.vanished_at.is_(None)))
    return {row.fingerprint: Series.of(row.name, msgspec.json.decode(row.labels)) for row in rows}


def _read_counters(connection: sa.Connection) -> Iterable[tuple[str, Mapping[str, str], float]]:
    for row in connection.execute(sa.select(schema.counters)):
        yield row.name, msgspec.json.decode(row.labels, type=dict[str, str]), row.value
