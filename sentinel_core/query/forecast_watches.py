"""Whose forecasts there are: the configured watches and the retired ones, with their series."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.config import SentinelConfig
from sentinel_core.durations import format_duration
from sentinel_core.promql import matchers as language
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import BoolArray, Labels
from sentinel_core.series import Matcher, Series
from sentinel_core.storage import schema, watch_store
from sentinel_core.storage.segments import SegmentGoneError
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray

HORIZON = "sentinel_horizon"
_REMEMBERED = 256  # selections of a watch's series
_LABELS = 100_000  # label sets of a watch's series, about 30 MB


@dataclass(frozen=True, eq=False)
class Members:
    """Every series that a watch has or had: fingerprints int64 [n], ascending, and what they stand for."""

    fingerprints: IntArray
    series: tuple[Series, ...]
    _columns: dict[str, tuple[list[str], NDArray[np.int64]]] = field(default_factory=dict)
    _chosen: dict[tuple[str, tuple[Matcher, ...]], IntArray] = field(default_factory=dict)
    _labels: dict[Labels, dict[int, Labels]] = field(default_factory=dict)

    @cached_property
    def names(self) -> frozenset[str]:
        """What they are called."""
        return frozenset(one.name for one in self.series)

    def rows(self, name: str, matchers: tuple[Matcher, ...], matching: Matching) -> IntArray:
        """Return which of the series of a name match; `matching` knows all of `matchers`. Remembered."""
        key = (name, matchers)
        rows = self._chosen.get(key)
        if rows is None:
            keep = self._where("__name__", name.__eq__)
            for label in dict.fromkeys(one.label for one in matchers):
                keep &= self._where(label, partial(matching.of_label, label))
            rows = np.flatnonzero(keep)
            if len(self._chosen) >= _REMEMBERED:
                self._chosen.clear()
            self._chosen[key] = rows
        return rows

    def labelled(self, rows: IntArray, own: Labels) -> list[Labels]:
        """Return the labels of some series with others of ours, which win. Remembered."""
        known = self._labels.get(own)
        if known is None:
            if sum(map(len, self._labels.values())) > _LABELS:
                self._labels.clear()
            known = self._labels[own] = {}
        found = []
        for row in rows.tolist():
            labels = known.get(row)
            if labels is None:
                labels = known[row] = tuple(sorted({**dict(self.series[row].labels), **dict(own)}.items()))
            found.append(labels)
        return found

    def _where(self, label: str, condition: Callable[[str], bool]) -> BoolArray:
        """Where a condition holds on a label's value; each value is tested once."""
        values, codes = self._column(label)
        verdicts: BoolArray = np.fromiter(map(condition, values), bool, len(values))[codes]
        return verdicts

    def _column(self, label: str) -> tuple[list[str], NDArray[np.int64]]:
        """Distinct values of a label and each series' index in them."""
        column = self._columns.get(label)
        if column is None:
            numbers: dict[str, int] = {}
            texts = (one.name if label == "__name__" else dict(one.labels).get(label, "") for one in self.series)
            codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(self.series))
            column = self._columns[label] = (list(numbers), codes)
        return column


@dataclass(frozen=True)
class Watch:
    """A watch with series; `horizon` as it is on them; `inner`: its forecasts have bounds of an inner level."""

    id: int
    step_seconds: int
    horizon: str
    horizon_steps: int
    members: Members
    inner: bool = False


@dataclass(frozen=True)
class Asked:
    """What a selector asks of a watch's series of one name: `rows` of its members under the names with `suffixes`."""

    watch: Watch
    name: str
    suffixes: tuple[str, ...]
    rows: IntArray


def asked(
    watches: Iterable[Watch], matchers: Sequence[Matcher], suffixes: Collection[str], own: Collection[str] = ()
) -> Iterator[Asked]:
    """Yield each watch and name that a selector matches, without the series that an earlier watch is asked for.

    suffixes: what follows the names of series in ours
    own:      labels that we add to the series'; with HORIZON among them, a series is told of once for each horizon
    """
    matching = language.compile(matchers)
    others = tuple(one for one in matchers if one.label not in {"__name__", *own})
    taken: dict[tuple[str, str], IntArray] = {}
    for watch in watches:
        horizon = watch.horizon if HORIZON in own else ""
        if horizon and not matching.of_label(HORIZON, horizon):
            continue
        for name in sorted(watch.members.names):
            wanted = tuple(suffix for suffix in suffixes if matching.of_name(name + suffix))
            if not wanted:
                continue
            rows = watch.members.rows(name, others, matching)
            earlier = taken.get((name, horizon), rows[:0])
            rows = rows[~np.isin(watch.members.fingerprints[rows], earlier)]
            taken[name, horizon] = np.concatenate([earlier, watch.members.fingerprints[rows]])
            if len(rows):
                yield Asked(watch, name, wanted, rows)


class Watches:
    """Knows the watches; threads may share it."""

    def __init__(self, store: Store, config: Callable[[], SentinelConfig]) -> None:
        self._store = store
        self._config = config
        self._lock = threading.Lock()
        self._token: int | None = None
        self._seen: tuple[int | None, SentinelConfig] | None = None  # the newest segment, and
        self._watches: tuple[Watch, ...] = ()
        self._members: dict[int, tuple[tuple[int, int], Members]] = {}  # and how many there were, the newest when
        self._retired: dict[int, tuple[int, int]] = {}  # step and horizon_steps, once known

    def load(self) -> tuple[Watch, ...]:
        """Return the watches, those first whose series win over equal ones: as configured, then the newest.

        While nothing is different, the very same ones.
        """
        config = self._config()
        with self._lock:
            token = self._store.database.change_token()  # first: what commits meanwhile is seen by the next call
            if self._seen is None or token != self._token or self._seen[1] is not config:
                seen = (self._newest(), config)
                if seen != self._seen:
                    found = self._read(config)
                    self._watches = self._watches if found == self._watches else found
                    self._seen = seen
                self._token = token
            return self._watches

    def living(self, watch_id: int, start: int, end: int) -> IntArray:
        """Return the fingerprints of the series of a watch that lived in [start, end], unix seconds."""
        table = schema.series
        lived = (table.c.first_seen <= end) & sa.func.coalesce(table.c.vanished_at >= start, sa.true())
        query = sa.select(table.c.fingerprint).where(table.c.watch_id == watch_id, lived)
        with self._store.database.read() as connection:
            return np.array(connection.execute(query).scalars().all(), np.int64)

    def _newest(self) -> int | None:
        """The newest segment of what ticks leave: series are registered before anything of them is written."""
        table = schema.segments
        newest = sa.select(sa.func.max(table.c.id)).where(table.c.dataset.in_(["windows", "forecasts"]))
        with self._store.database.read() as connection:
            found: int | None = connection.scalar(newest)
        return found

    def _read(self, config: SentinelConfig) -> tuple[Watch, ...]:
        watches, state, series = schema.watches, schema.watch_state, schema.series
        registered = sa.select(watches.c.id, watches.c.slug, state.c.forecast_origin, state.c.forecast_segment_id)
        counted = sa.select(series.c.watch_id, sa.func.count(), sa.func.max(series.c.first_seen))
        with self._store.database.read() as connection:
            rows = connection.execute(registered.join_from(watches, state, isouter=True)).all()
            counts = {row[0]: (row[1], row[2]) for row in connection.execute(counted.group_by(series.c.watch_id))}
            changed = [
                one for one, count in counts.items() if one not in self._members or self._members[one][0] != count
            ]
            read = _members(connection, changed)
        kept = {one: known for one, known in self._members.items() if one in counts}
        self._members = kept | {one: (counts[one], read[one]) for one in changed if one in read}
        ids = {row.slug: row.id for row in rows}
        found = [
            Watch(
                ids[watch.slug],
                watch.step_seconds,
                watch.horizon,
                watch.horizon_steps,
                self._members[ids[watch.slug]][1],
                watch.inner_level is not None,
            )
            for watch in config.watches
            if ids.get(watch.slug) in self._members
        ]
        configured = {watch.slug for watch in config.watches}
        for row in sorted(rows, key=lambda row: -row.id):
            if row.slug in configured or row.id not in self._members or row.forecast_segment_id is None:
                continue
            shape = self._shape(row.id, row.forecast_origin, row.forecast_segment_id)
            if shape is not None:
                step, steps = shape
                found.append(Watch(row.id, step, format_duration(step * steps), steps, self._members[row.id][1]))
        return tuple(found)

    def _shape(self, watch_id: int, origin: int, segment_id: int) -> tuple[int, int] | None:
        """Return the step and the leads of a retired watch, as its last forecast has them; None where that is gone."""
        if watch_id not in self._retired:
            try:
                segment = self._store.segments.get(segment_id)
                where = "watch = ? and origin = ?"
                leads = self._store.segments.read([segment], ["lead"], where, (watch_id, origin))["lead"]
            except SegmentGoneError:
                return None
            if not len(leads):
                return None
            self._retired[watch_id] = (int(segment.key), int(leads.max()))
        return self._retired[watch_id]


def _members(connection: sa.Connection, watch_ids: Sequence[int]) -> Mapping[int, Members]:
    """Read the series of some watches."""
    found: dict[int, list[watch_store.Member]] = {}
    for member in watch_store.series_of(connection, watch_ids, live_only=False):
        found.setdefault(member.watch_id, []).append(member)
    return {
        watch_id: Members(np.array([one.fingerprint for one in some], np.int64), tuple(one.series for one in some))
        for watch_id, some in found.items()
    }
