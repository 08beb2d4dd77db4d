"""The latest live outputs of every watch, in RAM: what /metrics, the page and the self-metrics show.

A snapshot is frozen. The loader makes a new one when the store has changed, and keeps every part of the old one that
has not: a tick of one watch costs the reading of that watch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core import registry
from sentinel_core.config import SentinelConfig, WatchConfig
from sentinel_core.emitter.production import Production, ProductionLoader, Waiting
from sentinel_core.errors import StoreError
from sentinel_core.registry import Active, Version
from sentinel_core.series import Series
from sentinel_core.storage import forecast_store, quality_store, series_models, watch_store
from sentinel_core.storage.quality_store import Quality
from sentinel_core.storage.segments import SegmentGoneError
from sentinel_core.storage.store import Store
from sentinel_core.storage.watch_store import CounterKey, WatchState
from sentinel_core.thresholds import Crossing, crossings
from sentinel_core.windows import FloatArray, IntArray, positions

SCORE_SECONDS = 300  # a score stands for as long, or a step: not every series has a sample at every step
RETRY_SECONDS = 5.0  # for what could not be read: a file may come back without a commit
VALUES = ("mean", "lower", "upper", "inner_lower", "inner_upper")
_COLUMNS = ("watch", "fp", "lead", *VALUES, "version")


@dataclass(frozen=True)
class Forecasts:
    """The live forecast of a watch's series of one name; rows are series, columns are leads.

    name:     what the forecast gauges are called after (a counter's rate has its own)
    origin:   unix seconds, the last time known to the forecast; lead k is for origin + k * step_seconds
    leads:    int64 [leads], ascending
    versions: int32 [n]: the version that last fitted the series, 0 for its last value, -v for pooled by version v
    mean, lower, upper: float64 [n, leads]; NaN where there is no forecast
    inner_lower, inner_upper: the same, of the watch's inner level; NaN without one
    crossings: of each of the watch's thresholds, over the whole horizon
    anomaly:  float64 [n], how unusual the newest value that has been scored was; NaN where none has been of late
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
    inner_lower: NDArray[np.float64]
    inner_upper: NDArray[np.float64]
    anomaly: NDArray[np.float64]
    crossings: tuple[Crossing, ...] = ()

    def at_leads(self, chosen: NDArray[np.bool_]) -> "Forecasts":
        """The same with some leads only, by mask."""
        cut = {name: getattr(self, name)[:, chosen] for name in VALUES}
        return replace(self, leads=self.leads[chosen], **cut)

    def of_series(self, chosen: NDArray[np.bool_]) -> "Forecasts":
        """The same with some series only, by mask; itself when that is all of them, so that caches still know it."""
        if chosen.all():
            return self
        arrays = ("fingerprints", "versions", *VALUES, "anomaly")
        cut: dict[str, Any] = {name: getattr(self, name)[chosen] for name in arrays}
        cut["crossings"] = tuple(one.of_series(chosen) for one in self.crossings)
        return replace(self, series=tuple(self.series[i] for i in np.flatnonzero(chosen)), **cut)


# What stands in for the state of a watch that the store has not seen yet.
UNSEEN = WatchState(
    watch_id=0, slug="", selector="", kind=None, scrape_interval=None, scraped_until=None, last_tick_at=None,
    last_error=None, last_error_at=None, series_live=0, buffer_fill=0.0, unlearnt=0, forecast_origin=None,
    forecast_segment_id=None, scored_until=None, verified_until=None, severity=None, drift_mae=None, drift_low=0,
    drift_high=0, drift_scored=0,
)  # fmt: skip


@dataclass(frozen=True)
class WatchView:
    """One configured watch: its state, what serves, its live series by fingerprint and their forecasts.

    `unreadable` says why the forecasts are not the newest, if they are not.
    """

    config: WatchConfig
    state: WatchState = UNSEEN
    serving: tuple[Active, Version] | None = None
    live: Mapping[int, Series] = field(default_factory=dict)
    forecasts: tuple[Forecasts, ...] = ()
    unreadable: str | None = None
    quality: tuple[Quality, ...] = ()  # of its forecasts over a day, by lead
    models: Mapping[str, int] = field(default_factory=dict)  # live series by the model that forecasts them


@dataclass(frozen=True)
class Snapshot:
    """All watches in configuration order, and when the store was last seen to hold this (unix seconds).

    `watches` and `production` are the same objects as in the snapshot before where nothing in them has changed.
    """

    watches: tuple[WatchView, ...] = ()
    production: Production = field(default_factory=Production)
    waiting: Waiting = field(default_factory=Waiting)
    counters: Mapping[CounterKey, float] = field(default_factory=dict)
    dropped: int = 0  # series that an earlier watch with the same horizon shows already
    read_at: float | None = None

    @property
    def forecasts(self) -> Iterable[Forecasts]:
        """Every live forecast."""
        return (block for watch in self.watches for block in watch.forecasts)


@dataclass(frozen=True)
class _Known:
    """What the loader remembers of one watch between two snapshots."""

    state: WatchState = UNSEEN
    labels: Mapping[int, Series] = field(default_factory=dict)  # live series by fingerprint
    forecasts: tuple[Forecasts, ...] = ()
    unreadable: str | None = None
    quality: tuple[Quality, ...] = ()
    models: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[IntArray, FloatArray] = (np.empty(0, np.int64), np.empty(0))  # by ascending fingerprint


_NOTHING = _Known()
_GONE = Series("", ())  # stands for a series that has vanished since the forecast


class SnapshotLoader:
    """Reads snapshots; not thread-safe: one thread asks. A watch that cannot be read keeps what it last had."""

    def __init__(self, store: Store, config: SentinelConfig) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}
        self._watches: dict[str, WatchConfig] = {}
        self._production = ProductionLoader()
        self.configure(config)

    def configure(self, config: SentinelConfig) -> None:
        """Use another configuration from the next load on."""
        before, self._watches = self._watches, {watch.slug: watch for watch in config.watches}
        for slug in before.keys() & self._watches.keys():
            if before[slug].thresholds != self._watches[slug].thresholds:
                self._known.pop(slug, None)
        self._token: int | None = None
        self._retry_at = math.inf
        self._snapshot = Snapshot()

    def load(self, now: float) -> Snapshot:
        """Return the newest snapshot: the last one, confirmed at `now`, when the store has not changed.

        StoreError when the store cannot be read at all.
        """
        token = self._store.database.change_token()  # before reading: what commits meanwhile is seen by the next load
        if token != self._token or now >= self._retry_at:
            self._snapshot = self._read()
            self._token = token
            broken = any(watch.unreadable for watch in self._snapshot.watches)
            self._retry_at = now + RETRY_SECONDS if broken else math.inf
        self._snapshot = replace(self._snapshot, read_at=now)
        return self._snapshot

    def _read(self) -> Snapshot:
        with self._store.database.read() as connection:
            registered = watch_store.states(connection)
            states = {slug: registered.get(slug, UNSEEN) for slug in self._watches}
            serving = registry.serving(connection)
            counters = watch_store.counters(connection)
            production, waiting = self._production.read(connection)
            moved = {slug: state for slug, state in states.items() if self._moved(slug, state)}
            qualities = quality_store.newest(connection) if moved else {}
            labels = self._read_labels(connection, moved)
            models = series_models.counts(connection, [state.watch_id for state in moved.values()])
        self._known = {slug: known for slug, known in self._known.items() if slug in self._watches}
        to_read, to_score = [], []
        for slug, state in moved.items():
            known = self._known.get(slug, _NOTHING)
            if state.forecast_origin is not None and (_issue(state) != _issue(known.state) or known.unreadable):
                to_read.append(slug)
            scored = state.scored_until is not None
            if scored and (state.scored_until != known.state.scored_until or known.unreadable):
                to_score.append(slug)
            kept = _living(known.forecasts, labels[slug]) if state.forecast_origin is not None else ()
            told = qualities.get(state.watch_id, ()), models.get(state.watch_id, {})
            self._known[slug] = _Known(state, labels[slug], kept, None, *told, scores=known.scores)
        for key, group in groupby(sorted(to_read, key=self._segment), key=self._segment):
            self._read_segment(*key, list(group))
        for until, group in groupby(sorted(to_score, key=self._scored), key=self._scored):
            self._read_scores(*until, list(group))
        for slug in {*to_read, *to_score}:
            known = self._known[slug]
            self._known[slug] = replace(known, forecasts=tuple(_scored(one, *known.scores) for one in known.forecasts))
        views, dropped = self._views(serving)
        before = self._snapshot.watches
        unchanged = len(views) == len(before) and all(map(_same, views, before))
        return Snapshot(before if unchanged else views, production, waiting, counters, dropped)

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
            live = set(watch_store.live_series(connection, state.watch_id)[1].tolist())
            if live - known.keys():
                members = watch_store.series_of(connection, [state.watch_id])
                known = {member.fingerprint: member.series for member in members}
            found[slug] = known if live == known.keys() else {fp: known[fp] for fp in live if fp in known}
        return found

    def _segment(self, slug: str) -> tuple[int, int, int]:
        return self._watches[slug].step_seconds, *_issue(self._known[slug].state)

    def _read_segment(self, step_seconds: int, origin: int, segment_id: int, slugs: Sequence[str]) -> None:
        """Read what one tick issued for some watches of one granularity."""
        store = self._store
        try:
            try:
                segment = store.segments.get(segment_id)
                rows = store.segments.read([segment], _COLUMNS, "mode = 0 and origin = ?", (origin,))
            except SegmentGoneError:  # compaction has merged it into another
                end = origin + step_seconds * max(self._watches[slug].horizon_steps for slug in slugs)
                rows = forecast_store.read_forecasts(store, step_seconds, origin=origin, ts_range=(origin, end))
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
            if stop > start:
                self._known[slug] = replace(known, forecasts=_blocks(self._watches[slug], origin, mine, known))
            else:
                lost = "its newest forecast is not in the data store any more; the next tick makes another"
                self._known[slug] = replace(known, unreadable=lost)

    def _scored(self, slug: str) -> tuple[int, int]:
        return self._watches[slug].step_seconds, self._known[slug].state.scored_until or 0

    def _read_scores(self, step_seconds: int, until: int, slugs: Sequence[str]) -> None:
        """Read each series' newest anomaly score of some watches of one granularity; of long ago none."""
        since = until - max(SCORE_SECONDS, step_seconds) + 1
        try:
            rows = forecast_store.read_scores(self._store, step_seconds, since, until)
        except StoreError as error:
            for slug in slugs:
                self._known[slug] = replace(self._known[slug], unreadable=str(error))
            return
        for slug in slugs:
            known = self._known[slug]
            mine = (rows["watch"] == known.state.watch_id) & np.isfinite(rows["anomaly"])
            fingerprints, newest = np.unique(rows["fp"][mine][::-1], return_index=True)  # rows are sorted by time
            self._known[slug] = replace(known, scores=(fingerprints, rows["anomaly"][mine][::-1][newest]))

    def _views(self, serving: Mapping[int, tuple[Active, Version]]) -> tuple[tuple[WatchView, ...], int]:
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
            active = serving.get(known.state.watch_id)
            told = known.labels, tuple(blocks), known.unreadable, known.quality, known.models
            views.append(WatchView(watch, known.state, active, *told))
        return tuple(views), dropped


def _same(view: WatchView, before: WatchView) -> bool:
    """Whether two views show the same."""
    return (
        view.config is before.config
        and view.state == before.state
        and view.serving == before.serving
        and view.live is before.live
        and view.models == before.models
        and view.unreadable == before.unreadable
        and len(view.forecasts) == len(before.forecasts)
        and all(one is other for one, other in zip(view.forecasts, before.forecasts, strict=True))
    )


def _scored(block: Forecasts, fingerprints: IntArray, scores: FloatArray) -> Forecasts:
    """A block with its series' scores; itself where they are what it has."""
    anomaly = np.full(len(block.fingerprints), np.nan)
    if len(fingerprints):
        row, known = positions(fingerprints, block.fingerprints)
        anomaly[known] = scores[row[known]]
    return block if np.array_equal(anomaly, block.anomaly, equal_nan=True) else replace(block, anomaly=anomaly)


def _issue(state: WatchState) -> tuple[int, int]:
    """Origin and segment of a watch's newest forecast, zeros where there is none."""
    return state.forecast_origin or 0, state.forecast_segment_id or 0


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
    for key in VALUES:
        matrices[key] = np.full((len(fingerprints), len(leads)), np.nan)
        matrices[key][row, column] = rows[key]  # the last row wins where a forecast was issued again
    versions = np.zeros(len(fingerprints), np.int32)
    versions[row] = rows["version"]
    series = [known.labels.get(fingerprint, _GONE) for fingerprint in fingerprints.tolist()]
    names = np.array([one.name for one in series], dtype=object)
    whole = len(leads) == watch.horizon_steps  # of an old forecast compaction keeps a few leads only
    blocks = []
    for name in dict.fromkeys(one.name for one in series if one is not _GONE):
        chosen = names == name
        mine = fingerprints[chosen]
        same = (old.series for old in known.forecasts if np.array_equal(old.fingerprints, mine))
        members = next(same, None) or tuple(one for one in series if one.name == name)
        cut = {key: matrix[chosen] for key, matrix in matrices.items()}
        head = (watch.slug, name, watch.horizon, watch.step_seconds, origin)
        outer = cut["mean"], cut["lower"], cut["upper"]
        met = crossings(*outer, watch.level, watch.thresholds, watch.bounds) if whole else ()
        unscored = np.full(len(mine), np.nan)
        blocks.append(Forecasts(*head, members, mine, leads, versions[chosen], **cut, anomaly=unscored, crossings=met))
    return tuple(blocks)
