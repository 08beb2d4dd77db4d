"""Forecasts as dense matrices: series by grid times, and how rows are laid over them.

Columns are numbered by time: column c is the time c * step seconds. A chunk is some of one watch's series in one view
over WIDTH columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentinel_core.promql.values import BoolArray
from sentinel_core.storage.parquet import Columns
from sentinel_core.windows import FloatArray, IntArray, unique

WIDTH = 256  # columns of a chunk
PART_BITS = 8  # a watch of more than 2^8 series is split: a month of one series costs 256 of them, not 10,000
_LEAST = -(2**63)


class View(NamedTuple):
    """What of the forecasts is asked for: by default for each time the newest one made for it.

    quantity: mean, lower, upper, inner_lower or inner_upper
    lead:     the one made so many steps before; 0: any
    origin:   only those made then, unix seconds
    """

    quantity: str = "mean"
    lead: int = 0
    origin: int | None = None


@dataclass(frozen=True)
class Wanted:
    """Series of one watch: `fingerprints` ascending, out of about `members`; `horizon_steps` is its longest lead."""

    watch: int
    horizon_steps: int
    members: int
    fingerprints: IntArray

    @property
    def bits(self) -> int:
        """The watch's series are in 2^bits parts, by the first bits of their fingerprints."""
        return min(14, max(0, (self.members - 1).bit_length() - PART_BITS))


@dataclass(frozen=True)
class Block:
    """Forecasts [n, C] of the series asked for, over the columns first … first + C - 1.

    versions: int32; leads: int16, 0 where there is none, and what is in values and versions then means nothing
    """

    first: int
    values: FloatArray
    versions: NDArray[np.int32]
    leads: NDArray[np.int16]

    def since(self, first: int) -> "Block":
        """The part from a column on."""
        cut = slice(first - self.first, None)
        return Block(first, self.values[:, cut], self.versions[:, cut], self.leads[:, cut])


@dataclass(frozen=True)
class Picked:
    """What stands for each of some times [T], by look-back: arrays [n, T]; `times` in seconds."""

    values: FloatArray
    versions: NDArray[np.int32]
    times: FloatArray
    present: BoolArray


class Unit(NamedTuple):
    """A part of a watch's series in one view."""

    step: int
    watch: int
    view: View
    bits: int
    part: int

    @property
    def fingerprints(self) -> tuple[int, int]:
        """The least and the greatest that belongs here."""
        size = 64 - self.bits
        return (self.part << size) + _LEAST, ((self.part + 1) << size) + _LEAST - 1


@dataclass
class Chunk:
    """`position`: everything up to there is in it; `generation` of the listing that it was last compared with."""

    fingerprints: IntArray
    values: FloatArray
    versions: NDArray[np.int32]
    leads: NDArray[np.int16]
    position: int
    generation: int

    @property
    def bytes(self) -> int:
        return self.fingerprints.nbytes + self.values.nbytes + self.versions.nbytes + self.leads.nbytes + 512


class Sheet:
    """Matrices in the making, over some columns; `chunk`: what they begin with, which stays as it is."""

    def __init__(self, first: int, width: int, chunk: Chunk | None = None) -> None:
        self._first, self._width = first, width
        self._fingerprints = np.empty(0, np.int64)
        self._values = np.empty((0, width))
        self._versions = np.empty((0, width), np.int32)
        self._leads = np.empty((0, width), np.int16)
        if chunk is not None:
            self._fingerprints = chunk.fingerprints
            self._values, self._versions, self._leads = chunk.values.copy(), chunk.versions.copy(), chunk.leads.copy()

    def add(self, step: int, rows: Columns, quantity: str) -> None:
        """Lay rows over what is there: the shorter lead wins, and of equal ones the later row."""
        column = rows["ts"] // step - self._first
        inside = (column >= 0) & (column < self._width)
        if not inside.all():
            column, rows = column[inside], {name: values[inside] for name, values in rows.items()}
        self._grow(rows["fp"])
        lead = rows["lead"]
        cell = np.searchsorted(self._fingerprints, rows["fp"]) * self._width + column
        now = self._leads.ravel()[cell]
        order = np.flatnonzero((now == 0) | (lead <= now))
        if len(lead) and lead.min() != lead.max():
            order = order[np.argsort(-lead[order], kind="stable")]
        cell = cell[order]  # of a cell that is named twice numpy keeps the last value
        self._leads.ravel()[cell] = lead[order]
        self._values.ravel()[cell] = rows[quantity][order]
        self._versions.ravel()[cell] = rows["version"][order]

    def gaps(self, fingerprints: IntArray, columns: IntArray, horizon: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return fingerprint, column, and column of the last forecast before it, of each gap that a lead may fill.

        fingerprints, columns: where there was a forecast before the first column
        """
        self._grow(fingerprints)
        before = np.full(len(self._fingerprints), _LEAST // 2)
        np.maximum.at(before, np.searchsorted(self._fingerprints, fingerprints), columns)
        column = np.arange(self._first, self._first + self._width)
        newest = np.maximum.accumulate(np.where(self._leads > 0, column, before[:, None]), axis=1)
        row, gap = np.nonzero((self._leads == 0) & (column - newest < horizon))
        return self._fingerprints[row], column[gap], newest[row, gap]

    def chunks(self, position: int, generation: int) -> list[Chunk]:
        """Cut into chunks, each with the series that it has."""
        found = []
        for start in range(0, self._width, WIDTH):
            span = slice(start, start + WIDTH)
            there = (self._leads[:, span] > 0).any(axis=1)
            values, versions, leads = self._values[there, span], self._versions[there, span], self._leads[there, span]
            found.append(Chunk(self._fingerprints[there], values, versions, leads, position, generation))
        return found

    def _grow(self, fingerprints: IntArray) -> None:
        """Make room for more series."""
        every = unique(np.concatenate([self._fingerprints, unique(fingerprints)]))
        if len(every) == len(self._fingerprints):
            return
        at = np.searchsorted(every, self._fingerprints)
        for name in ("_values", "_versions", "_leads"):
            before = getattr(self, name)
            after = np.zeros((len(every), self._width), before.dtype)
            after[at] = before
            setattr(self, name, after)
        self._fingerprints = every


def by_unit(units: Sequence[Unit], rows: Columns) -> dict[Unit, Columns]:
    """Rows by the unit that they belong to, in their order; rows of no unit are left out."""
    if len(units) == 1 and not units[0].bits:  # the rows are those of its watch already
        return {units[0]: rows}
    order = np.argsort(rows["watch"], kind="stable")
    watches = rows["watch"][order]
    mine: dict[int, tuple[IntArray, IntArray]] = {}  # of a watch: its rows by part, and where each part begins
    found = {}
    for unit in units:
        if unit.watch not in mine:
            some = order[slice(*np.searchsorted(watches, [unit.watch, unit.watch + 1]))]
            parts = _parts(rows["fp"][some], unit.bits)
            by_part = np.argsort(parts, kind="stable")
            starts = np.searchsorted(parts[by_part], np.arange((1 << unit.bits) + 1))
            mine[unit.watch] = some[by_part], starts
        some, starts = mine[unit.watch]
        chosen = some[starts[unit.part] : starts[unit.part + 1]]
        found[unit] = {name: column[chosen] for name, column in rows.items()}
    return found


def _parts(fingerprints: IntArray, bits: int) -> NDArray[np.int16]:
    """The part that each belongs to; 16 bits are sorted many times faster than 64."""
    if not bits:
        return np.zeros(len(fingerprints), np.int16)
    return ((fingerprints >> (64 - bits)) + (1 << (bits - 1))).astype(np.int16)


def assembled(
    wanted: Wanted, chunks: Mapping[Unit, Mapping[int, Chunk]], step: int, view: View, columns: range
) -> Block:
    """Put a block of some columns together from the chunks of a watch's parts."""
    shape = (len(wanted.fingerprints), len(columns))
    leads, versions = np.zeros(shape, np.int16), np.zeros(shape, np.int32)
    values = np.zeros(shape)
    for unit, part in units_of(step, view, wanted):
        mine = wanted.fingerprints[part]
        for index, chunk in chunks[unit].items():
            at = np.searchsorted(chunk.fingerprints, mine)
            there = at < len(chunk.fingerprints)
            there[there] = chunk.fingerprints[at[there]] == mine[there]
            whole = len(mine) == len(chunk.fingerprints) and there.all()
            rows = part if whole else part.start + np.flatnonzero(there)
            source = slice(None) if whole else at[there]
            start, stop = max(columns.start, index * WIDTH), min(columns.stop, (index + 1) * WIDTH)
            inner, outer = (
                slice(start - index * WIDTH, stop - index * WIDTH),
                slice(start - columns.start, stop - columns.start),
            )
            values[rows, outer] = chunk.values[source, inner]
            versions[rows, outer] = chunk.versions[source, inner]
            leads[rows, outer] = chunk.leads[source, inner]
    return Block(columns.start, values, versions, leads)


def span(step: int, index: int) -> tuple[int, int]:
    """First and last time of a chunk, unix seconds."""
    return index * WIDTH * step, ((index + 1) * WIDTH - 1) * step


def units_of(step: int, view: View, wanted: Wanted) -> list[tuple[Unit, slice]]:
    """The parts of a watch that some of the series are in, and which of them those are."""
    count = 1 << wanted.bits
    if count == 1:
        return [(Unit(step, wanted.watch, view, 0, 0), slice(0, len(wanted.fingerprints)))]
    units = [Unit(step, wanted.watch, view, wanted.bits, part) for part in range(count)]
    edges = np.searchsorted(wanted.fingerprints, [unit.fingerprints[0] for unit in units]).tolist()
    spans = zip(edges, [*edges[1:], len(wanted.fingerprints)], strict=True)
    return [(unit, slice(low, high)) for unit, (low, high) in zip(units, spans, strict=True) if high > low]


def look_back(block: Block, step: int, times: IntArray, lookback: int) -> Picked:
    """Return each series' newest forecast at each time (ms); the block begins a look-back before the first."""
    there = block.leads > 0
    column = np.clip(times // step - block.first, 0, there.shape[1] - 1)
    alike = bool((there == there[0]).all())  # as it is unless series came or went
    pattern = there[:1] if alike else there
    newest = np.maximum.accumulate(np.where(pattern, np.arange(there.shape[1], dtype=np.int32), np.int32(-1)), axis=1)
    at = newest[:, column].astype(np.int64)
    shape = (len(there), len(times))
    taken = (at + block.first) * step
    present = (at >= 0) & (taken > times - lookback) & (taken <= times)
    at = np.maximum(at, 0)
    if alike:
        values, versions = block.values[:, at[0]], block.versions[:, at[0]]
    else:
        values = np.take_along_axis(block.values, at, axis=1)
        versions = np.take_along_axis(block.versions, at, axis=1)
    return Picked(values, versions, np.broadcast_to(taken / 1000, shape), np.broadcast_to(present, shape).copy())


def versions_in(block: Block, fingerprints: IntArray) -> list[tuple[int, IntArray]]:
    """Return each version that is in a block, with the fingerprints of the series that it has a forecast of."""
    there = block.leads > 0
    versions = distinct(block.versions[there])
    return [(version, fingerprints[(there & (block.versions == version)).any(axis=1)]) for version in versions]


def distinct(versions: NDArray[np.int32]) -> list[int]:
    """Ascending distinct versions; usually there is one."""
    same = len(versions) and (versions == versions[0]).all()
    found: list[int] = (versions[:1] if same else unique(versions.astype(np.int64))).tolist()
    return found
