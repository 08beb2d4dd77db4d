"""Forecasts in RAM, read from the segments once.

A chunk is good for as long as nothing was committed that lies above what it was made of; what was is overlaid. Merged
segments keep the place of what is in them, so a merge changes nothing here, and neither does thinning.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import sqlalchemy as sa

from sentinel_core.promql.limits import Budget
from sentinel_core.query.forecast_matrices import (
    WIDTH,
    Block,
    Chunk,
    Sheet,
    Unit,
    View,
    Wanted,
    assembled,
    by_unit,
    span,
    units_of,
    versions_in,
)
from sentinel_core.storage.forecast_store import LIVE
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.schema import segments as table
from sentinel_core.storage.segments import Segment, SegmentGoneError
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, unique

LOAD_CELLS = 4_000_000  # of one reading: about 0.3 GB while it lasts
_REMEMBERED = 256  # newest origins
_CENSUSES = 2000  # of chunks; of 10,000 series each takes 80 KB
_ATTEMPTS = 4  # of a reading whose files are compacted and collected under it
_FEW = 1000  # fingerprints in one condition
_LEAST = -(2**63)

T = TypeVar("T")


@dataclass(frozen=True)
class _Step:
    """The live segments of one granularity in overlay order, and what of them is compared often."""

    segments: tuple[Segment, ...]
    t0: IntArray
    t1: IntArray
    positions: IntArray

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "_Step":
        columns = (np.array([getattr(one, name) for one in segments], np.int64) for name in ("t0", "t1", "position"))
        return cls(tuple(segments), *columns)

    @property
    def extent(self) -> tuple[int, int]:
        """Least and greatest time."""
        return int(self.t0.min()), int(self.t1.max())

    def overlapping(self, start: int, end: int, above: int = -1) -> list[Segment]:
        """The segments with a time in [start, end] that lie above a position, lowest first."""
        chosen = (self.t1 >= start) & (self.t0 <= end) & (self.positions > above)
        return [self.segments[index] for index in np.flatnonzero(chosen)]

    def top(self, start: int, end: int) -> int:
        """The highest position among those with a time in [start, end]; -1 where there is none."""
        return int(self.positions[(self.t1 >= start) & (self.t0 <= end)].max(initial=-1))


@dataclass(frozen=True)
class Listing:
    """The forecast segments there are, by granularity; `generation` differs between different ones."""

    generation: int
    newest: int | None
    steps: Mapping[int, _Step]


_Key = tuple[Unit, int]  # and the chunk's index: its first column is index * WIDTH


class ForecastCache:
    """Blocks of live forecasts; threads may share it, one of them at a time reads the disk."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._guard = threading.Lock()  # of the chunks, held for moments
        self._chunks: OrderedDict[_Key, Chunk] = OrderedDict()  # the least lately used first
        self._bytes = 0
        self._reading = threading.Lock()
        self._origins: dict[tuple[int, int, int], tuple[int, int | None]] = {}  # and the top of what they were found in
        self._census: dict[tuple[int, View, int, int], tuple[int, list[tuple[int, IntArray]]]] = {}  # the same
        self._asking = threading.Lock()
        self._token: int | None = None
        self._listing = Listing(0, None, {})

    @property
    def bytes(self) -> int:
        """What the chunks take."""
        return self._bytes

    # -- what there is ---------------------------------------------------------------------------------------------
    def listing(self, *, anew: bool = False) -> Listing:
        """Return the segments there are now; without a commit since the last call SQL is not asked.

        anew: even where nothing was added, as some may have gone
        """
        with self._asking:
            token = self._store.database.change_token()  # first: what commits meanwhile is seen by the next call
            if anew or token != self._token:
                newest_id = sa.select(sa.func.max(table.c.id)).where(table.c.dataset == "forecasts")
                with self._store.database.read() as connection:
                    newest = connection.scalar(newest_id)
                if anew or newest != self._listing.newest:
                    self._listing = self._listed(newest)
                self._token = token
            return self._listing

    def _listed(self, newest: int | None) -> Listing:
        by_step: dict[int, list[Segment]] = {}
        for one in self._store.segments.segments("forecasts"):
            by_step.setdefault(int(one.key), []).append(one)
        steps = {step: _Step.of(some) for step, some in by_step.items()}
        return Listing(self._listing.generation + 1, newest, steps)

    def newest_origin(self, step: int, watch: int, until: int, budget: Budget) -> int | None:
        """Return the origin of a watch's newest forecast made at or before a time, unix seconds; None before all."""
        return self._with_files(lambda listing: self._newest_origin(listing, step, watch, until, budget))

    def _newest_origin(self, listing: Listing, step: int, watch: int, until: int, budget: Budget) -> int | None:
        known, key = listing.steps.get(step), (step, watch, until)
        if known is None:
            return None
        top, remembered = known.top(_LEAST, until + step), self._origins.get(key)
        if remembered is not None and remembered[0] == top:
            return remembered[1]
        segments = sorted(known.overlapping(_LEAST, until + step), key=lambda one: one.t1, reverse=True)
        sql = (
            f"select max(origin) as origin from {{files}} where mode = {LIVE} and watch = {watch} and origin <= {until}"
        )
        sql = f"select origin from ({sql}) where origin is not null"
        found: list[int] = []
        at, size = 0, 8
        # In a file are no later origins than a step before its last time.
        while at < len(segments) and (not found or max(found) < min(until, segments[at].t1 - step)):
            budget.check()
            found += self._store.segments.query(segments[at : at + size], sql)["origin"].tolist()
            at, size = at + size, 2 * size
        if len(self._origins) >= _REMEMBERED:
            self._origins.clear()
        self._origins[key] = (top, max(found, default=None))
        return max(found, default=None)

    def _with_files(self, read: Callable[[Listing], T]) -> T:
        """Return what is read by a listing, with a fresh one whenever a file was collected under it."""
        for attempt in range(_ATTEMPTS):
            try:
                return read(self.listing(anew=attempt > 0))
            except SegmentGoneError:
                continue
        return read(self.listing(anew=True))

    # -- blocks ----------------------------------------------------------------------------------------------------
    def read(
        self, step: int, view: View, wanted: Sequence[Wanted], first: int, last: int, budget: Budget
    ) -> list[Block]:
        """Return a block of the columns first … last for each, in order.

        Raises StoreError, and QueryTimeoutError while it waits.
        """
        chunks = self.load(step, view, wanted, first, last, budget)
        return [assembled(one, chunks, step, view, range(first, last + 1)) for one in wanted]

    def load(
        self, step: int, view: View, wanted: Sequence[Wanted], first: int, last: int, budget: Budget
    ) -> dict[Unit, dict[int, Chunk]]:
        """Read what `read` needs, for all of `wanted` at once; return it by part and index."""
        low, high = first, last + 1
        if view.origin is not None:
            horizon = max(one.horizon_steps for one in wanted)
            low, high = max(low, view.origin // step + 1), min(high, view.origin // step + horizon + 1)
        indexes = range(low // WIDTH, -(-high // WIDTH)) if low < high else range(0)
        return self._with_files(lambda listing: self._find(listing, step, view, wanted, indexes, budget))

    def census(
        self, step: int, view: View, wanted: Wanted, first: int, last: int, budget: Budget
    ) -> Iterator[tuple[int, IntArray]]:
        """Yield versions and the series that have a forecast by them in the columns first … last, any of them twice.

        Whole chunks are remembered, as people ask for the series of days.
        """
        for index in range(first // WIDTH, last // WIDTH + 1):
            budget.check()
            low, high = max(first, index * WIDTH), min(last, (index + 1) * WIDTH - 1)
            known, key = self.listing().steps.get(step), (step, view, wanted.watch, index)
            top = known.top(*span(step, index)) if known else -1
            remembered = self._census.get(key)
            if remembered is None or remembered[0] != top or high - low + 1 < WIDTH:
                block = self.read(step, view, [wanted], low, high, budget)[0]
                remembered = (top, versions_in(block, wanted.fingerprints))
                if high - low + 1 == WIDTH:
                    if len(self._census) >= _CENSUSES:
                        self._census.clear()
                    self._census[key] = remembered
            yield from remembered[1]

    def _find(
        self, listing: Listing, step: int, view: View, wanted: Sequence[Wanted], indexes: range, budget: Budget
    ) -> dict[Unit, dict[int, Chunk]]:
        """Return the chunks by unit and index; there is none where no segment is."""
        units = {unit: one for one in wanted for unit, _ in units_of(step, view, one)}
        found: dict[Unit, dict[int, Chunk]] = {unit: {} for unit in units}
        tops = {index: listing.steps[step].top(*span(step, index)) for index in indexes if step in listing.steps}
        keys = [(unit, index) for index, top in tops.items() if top >= 0 for unit in units]
        missing = self._take(listing, keys, tops, found)
        if missing:
            with self._disk(budget):
                missing = self._take(listing, missing, tops, found)  # somebody may have read them meanwhile
                self._overlay(listing, missing, found)
                absent = [key for key in missing if key[1] not in found[key[0]]]
                for some, run in _runs(absent, units):
                    budget.check()
                    self._load(listing, {unit: units[unit] for unit in some}, run, found)
        return found

    def _take(
        self,
        listing: Listing,
        keys: Iterable[_Key],
        tops: Mapping[int, int],
        found: Mapping[Unit, dict[int, Chunk]],
    ) -> list[_Key]:
        """Put what is at hand into `found`; return the other keys."""
        missing = []
        with self._guard:
            for key in keys:
                chunk = self._chunks.get(key)
                if chunk is None or (chunk.generation != listing.generation and chunk.position < tops[key[1]]):
                    missing.append(key)
                    continue
                chunk.generation = listing.generation
                self._chunks.move_to_end(key)
                found[key[0]][key[1]] = chunk
        return missing

    @contextmanager
    def _disk(self, budget: Budget) -> Iterator[None]:
        while not self._reading.acquire(timeout=0.2):
            budget.check()
        try:
            yield
        finally:
            self._reading.release()

    def _store_chunk(self, key: _Key, chunk: Chunk, found: Mapping[Unit, dict[int, Chunk]]) -> None:
        found[key[0]][key[1]] = chunk
        with self._guard:
            before = self._chunks.pop(key, None)
            self._bytes += chunk.bytes - (before.bytes if before else 0)
            self._chunks[key] = chunk
            while self._bytes > self._max_bytes:
                self._bytes -= self._chunks.popitem(last=False)[1].bytes

    # -- reading segments ------------------------------------------------------------------------------------------
    def _overlay(self, listing: Listing, keys: Sequence[_Key], found: Mapping[Unit, dict[int, Chunk]]) -> None:
        """Bring the chunks that there are up to date, where what is new is not too much."""
        with self._guard:
            stale = {key: self._chunks[key] for key in keys if key in self._chunks}
        if not stale:
            return
        unit = next(iter(stale))[0]
        known = listing.steps[unit.step]
        indexes = [index for _, index in stale]
        start, end = span(unit.step, min(indexes))[0], span(unit.step, max(indexes))[1]
        fresh = known.overlapping(start, end, above=min(chunk.position for chunk in stale.values()))
        if sum(one.rows for one in fresh) > LOAD_CELLS:
            return
        units = list(dict.fromkeys(unit for unit, _ in stale))
        rows = by_unit(units, self._rows(fresh, units, start, end))
        position = int(known.positions.max())
        for (unit, index), chunk in stale.items():
            sheet = Sheet(index * WIDTH, WIDTH, chunk)
            sheet.add(unit.step, rows[unit], unit.view.quantity)
            self._store_chunk((unit, index), sheet.chunks(position, listing.generation)[0], found)

    def _load(
        self, listing: Listing, units: Mapping[Unit, Wanted], run: range, found: Mapping[Unit, dict[int, Chunk]]
    ) -> None:
        """Read the chunks of some units from the segments."""
        (step, _, view, _, _), known = next(iter(units)), listing.steps[next(iter(units)).step]
        start, end = span(step, run[0])[0], span(step, run[-1])[1]
        segments = known.overlapping(start, end)
        newest = not view.lead and view.origin is None
        sheets = {unit: Sheet(run[0] * WIDTH, WIDTH * len(run)) for unit in units}
        rows = by_unit(list(units), self._rows(segments, list(units), start, end, "lead = 1" if newest else "true"))
        for unit, sheet in sheets.items():
            sheet.add(step, rows[unit], view.quantity)
        if newest:
            self._fill(known, units, sheets, start, end)
        position = int(known.positions.max())
        for unit, sheet in sheets.items():
            for index, chunk in zip(run, sheet.chunks(position, listing.generation), strict=True):
                self._store_chunk((unit, index), chunk, found)

    def _fill(
        self, known: _Step, units: Mapping[Unit, Wanted], sheets: Mapping[Unit, "Sheet"], start: int, end: int
    ) -> None:
        """Give times without a forecast of lead 1 the newest one made before: what is ahead, and missed ticks.

        An origin that has lead k for a time has lead 1 for k - 1 steps before it: so few rows may be meant.
        """
        step = next(iter(units)).step
        longest = max(one.horizon_steps for one in units.values())
        earlier = known.overlapping(start - (longest - 1) * step, start - step)
        before = self._rows(earlier, list(units), start - (longest - 1) * step, start - step, "lead = 1")
        times, origins, fingerprints = [], [], []
        for unit, rows in by_unit(list(units), before).items():
            cells = sheets[unit].gaps(rows["fp"], rows["ts"] // step, units[unit].horizon_steps)
            times.append(unique(cells[1]) * step)
            origins.append((unique(cells[2]) - 1) * step)
            fingerprints.append(unique(cells[0]))
        wanted = np.concatenate(times)
        if not len(wanted):
            return
        start, end = int(wanted.min()), int(wanted.max())
        segments = known.overlapping(start, end)
        condition = f"lead between 2 and {longest} and {_among('ts', unique(wanted))}"
        if not any(one.thinned for one in segments):  # else the next longer lead that was kept may stand in
            condition += f" and {_among('origin', unique(np.concatenate(origins)))}"
        if sum(map(len, fingerprints)) <= _FEW:
            condition += f" and {_among('fp', unique(np.concatenate(fingerprints)))}"
        for unit, rows in by_unit(list(units), self._rows(segments, list(units), start, end, condition)).items():
            sheets[unit].add(step, rows, unit.view.quantity)

    def _rows(
        self, segments: Sequence[Segment], units: Sequence[Unit], start: int, end: int, condition: str = "true"
    ) -> Columns:
        """Return the rows of some units in a view, lowest segment first; a forecast that is not finite is none."""
        view, watches = units[0].view, sorted({unit.watch for unit in units})
        conditions = [f"mode = {LIVE} and ts between {start} and {end} and isfinite({view.quantity})", condition]
        conditions.append(f"watch = {watches[0]}" if len(watches) == 1 else _among("watch", watches))
        if view.lead:
            conditions.append(f"lead = {view.lead}")
        if view.origin is not None:
            conditions.append(f"origin = {view.origin}")
        if len(watches) == 1 and units[0].bits:
            low, high = (limit(unit.fingerprints[side] for unit in units) for side, limit in ((0, min), (1, max)))
            conditions.append(f"fp between {low} and {high}")
        columns = ("watch", "fp", "ts", "lead", "version", view.quantity)
        return self._store.segments.read(segments, columns, " and ".join(conditions))


def _runs(keys: Iterable[_Key], units: Mapping[Unit, Wanted]) -> list[tuple[tuple[Unit, ...], range]]:
    """Group what is to be read, each group about LOAD_CELLS at most: units, and the indexes of their chunks."""
    by_index: dict[int, list[Unit]] = {}
    for unit, index in keys:
        by_index.setdefault(index, []).append(unit)
    runs: list[tuple[tuple[Unit, ...], range]] = []
    for index in sorted(by_index):
        for pack in _packs(by_index[index], units):
            cells = sum(_cells(unit, units) for unit in pack)
            before = next((at for at, (some, run) in enumerate(runs) if some == pack and run.stop == index), None)
            if before is not None and cells * (len(runs[before][1]) + 1) <= LOAD_CELLS:
                runs[before] = (pack, range(runs[before][1].start, index + 1))
            else:
                runs.append((pack, range(index, index + 1)))
    return runs


def _packs(some: Iterable[Unit], units: Mapping[Unit, Wanted]) -> Iterator[tuple[Unit, ...]]:
    pack: list[Unit] = []
    for unit in some:
        if pack and sum(_cells(one, units) for one in [*pack, unit]) > LOAD_CELLS:
            yield tuple(pack)
            pack = []
        pack.append(unit)
    yield tuple(pack)


def _cells(unit: Unit, units: Mapping[Unit, Wanted]) -> int:
    return ((units[unit].members >> unit.bits) + 1) * WIDTH


def _among(column: str, values: Iterable[int]) -> str:
    return f"list_contains([{', '.join(str(int(value)) for value in values)}], {column})"
