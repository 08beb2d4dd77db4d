"""Forecasts as series: every forecast step at the time it is about, past ones and those ahead of now."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.emitter.exposition import version_label
from sentinel_core.errors import StoreError
from sentinel_core.promql import matchers as language
from sentinel_core.promql.errors import BadQueryError, NotSupportedError, TooBusyError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import LOOKBACK, STALE, BoolArray, Labels, Samples, Vector
from sentinel_core.query.forecast_cache import LOAD_CELLS, ForecastCache
from sentinel_core.query.forecast_matrices import Block, Picked, View, Wanted, distinct, look_back
from sentinel_core.query.forecast_watches import HORIZON, Watch, Watches
from sentinel_core.query.sampled import Metadata
from sentinel_core.series import Matcher
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray

CACHE_BYTES = 256 * 2**20  # of forecasts kept in RAM
VERSION, LEAD, ORIGIN = "sentinel_version", "sentinel_lead", "sentinel_origin"
_FAMILIES: Mapping[str, tuple[str, str]] = {  # quantity and help text by what follows the name of the series
    "_sentinel_predicted": ("mean", "Forecast of {name}, at the time that it is about."),
    "_sentinel_predicted_lower": ("lower", "Lower bound of the forecast of {name}, at the time that it is about."),
    "_sentinel_predicted_upper": ("upper", "Upper bound of the forecast of {name}, at the time that it is about."),
}
_INNER: Mapping[str, tuple[str, str]] = {  # the same of watches that have an inner level
    "_sentinel_predicted_inner_lower": ("inner_lower", "Lower bound of the inner level of the forecast of {name}."),
    "_sentinel_predicted_inner_upper": ("inner_upper", "Upper bound of the inner level of the forecast of {name}."),
}
_OWN = frozenset({"__name__", HORIZON, VERSION, LEAD, ORIGIN})  # labels that are not the series'
_REMEMBERED = 256  # selectors


@dataclass(frozen=True)
class _Chosen:
    """What a selector means of one watch: `rows` of its series under the name of one family, in one view."""

    watch: Watch
    family: str
    view: View
    rows: IntArray
    marks: Labels  # the lead or the origin that was asked for

    @property
    def wanted(self) -> Wanted:
        members = self.watch.members.fingerprints
        return Wanted(self.watch.id, self.watch.horizon_steps, len(members), members[self.rows])

    @property
    def step(self) -> int:
        """In milliseconds."""
        return self.watch.step_seconds * 1000

    @property
    def lookback(self) -> int:
        return max(LOOKBACK, self.step)

    @property
    def is_inner(self) -> bool:
        return self.view.quantity.startswith("inner")

    @property
    def identity(self) -> tuple[str, str, Labels]:
        """Of two with the same one the first wins, series by series, wherever it has a forecast."""
        return (self.family, self.watch.horizon, self.marks)

    def labels(self, at: IntArray, version: int) -> list[Labels]:
        """Labels of some of its series, by index in `rows`."""
        own = (("__name__", self.family), (HORIZON, self.watch.horizon), (VERSION, version_label(version)), *self.marks)
        return self.watch.members.labelled(self.rows[at], own)


@dataclass(frozen=True)
class _Piece:
    """Series of one version of one watch, arrays [n, T]."""

    labels: list[Labels]
    values: FloatArray
    present: BoolArray


class ForecastSource:
    """A Source of the names in _FAMILIES and _INNER; threads may share it.

    Labels: the series' own, sentinel_horizon and sentinel_version; by default a time has the newest forecast made for
    it. `sentinel_lead="5m"` asks for the one made that long before, `sentinel_origin="2026-01-31T12:00:00Z"` for all of
    the newest forecast made at or before then; that label is on the series then.
    """

    def __init__(self, store: Store, watches: Watches, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache = ForecastCache(store, cache_bytes)
        self._watches = watches
        self._chosen: tuple[tuple[Watch, ...], int, dict[tuple[Matcher, ...], list[list[_Chosen]]]] = ((), -1, {})

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return the newest sample at each of these times, by look-back of 5 minutes or one step."""
        with _answered():
            matching = language.compile(matchers)
            groups = self._choose(matchers, matching, budget)
            self._warm(groups, int(times[0]) - 1, int(times[-1]), budget)
            pieces: list[_Piece] = []
            for group in groups:
                picked = [self._pick(one, times, budget) for one in group]
                for index, worse in enumerate(group):
                    for better in range(index):
                        mine, theirs = _shared(worse, group[better])
                        picked[index].present[mine] &= ~picked[better].present[theirs]
                for one, found in zip(group, picked, strict=True):
                    pieces += _pieces(one, found, matching, timestamps)
            return _vector(pieces, len(times), unite=any(len(group) > 1 for group in groups))

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return the samples of start < t <= end; a stale marker ends a version's series where another takes over."""
        with _answered():
            matching = language.compile(matchers)
            labels: list[Labels] = []
            runs: list[tuple[IntArray, IntArray, FloatArray]] = []
            lookbacks: list[int] = []
            groups = self._choose(matchers, matching, budget)
            self._warm(groups, start + 1, end, budget)
            for group in groups:
                for one, block in self._visible(group, start + 1, end, budget):
                    for version in _versions(block.versions, block.leads > 0, matching):
                        at, row, column, values = _samples(block, version)
                        runs.append((row + len(labels), (column.astype(np.int64) + block.first) * one.step, values))
                        labels += one.labels(at, version)
                        lookbacks += [one.lookback] * len(at)
            return _flat(labels, runs, lookbacks)

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series that have a forecast for a time in [start, end]."""
        with _answered():
            matching = language.compile(matchers)
            # Where there is a mean there are bounds, and of the inner ones both: one reading does for all of them.
            chosen = [
                replace(one, view=one.view._replace(quantity="inner_lower" if one.is_inner else "mean"))
                for group in self._choose(matchers, matching, budget)
                for one in group
            ]
            self._warm([chosen], start, end, budget)
            found: dict[Labels, None] = {}
            for one in chosen:
                low, high = self._bounds([one], start, end)
                first, last, wanted = -(-low // one.step), high // one.step, one.wanted
                every = replace(wanted, fingerprints=one.watch.members.fingerprints)
                seen: dict[int, BoolArray] = {}
                for version, some in self._cache.census(one.watch.step_seconds, one.view, every, first, last, budget):
                    if matching.of_label(VERSION, version_label(version)):
                        mine = np.isin(wanted.fingerprints, some, assume_unique=True)
                        seen[version] = seen[version] | mine if version in seen else mine
                for version, mine in seen.items():
                    found.update(dict.fromkeys(one.labels(np.flatnonzero(mine), version)))
            return list(found)

    def metadata(self) -> Metadata:
        """Return type and help of each name."""
        with _answered():
            return {
                name + suffix: ("gauge", text.format(name=name))
                for watch in self._watches.load()
                for name in sorted(watch.members.names)
                for suffix, (_, text) in _families(watch).items()
            }

    # -- what a selector means -------------------------------------------------------------------------------------
    def _choose(self, matchers: Sequence[Matcher], matching: Matching, budget: Budget) -> list[list[_Chosen]]:
        """Return what a selector means, those together whose series may be the same, the better ones first."""
        generation = self._cache.listing().generation
        watches = self._watches.load()
        before, made_for, remembered = self._chosen
        if before is not watches or made_for != generation:
            remembered = {}
            self._chosen = (watches, generation, remembered)
        key = tuple(matchers)
        groups = remembered.get(key)
        if groups is None:
            by_identity: dict[tuple[str, str, Labels], list[_Chosen]] = {}
            for watch in watches:
                for one in self._of_watch(watch, key, matching, budget):
                    by_identity.setdefault(one.identity, []).append(one)
            groups = list(by_identity.values())
            if len(remembered) >= _REMEMBERED:
                remembered.clear()
            remembered[key] = groups
        return groups

    def _of_watch(
        self, watch: Watch, matchers: tuple[Matcher, ...], matching: Matching, budget: Budget
    ) -> Iterator[_Chosen]:
        if not matching.of_label(HORIZON, watch.horizon):
            return
        about_series = tuple(one for one in matchers if one.label not in _OWN)
        for name in sorted(watch.members.names):
            for suffix, (quantity, _) in _families(watch).items():
                if not matching.of_name(name + suffix):
                    continue
                rows = watch.members.rows(name, about_series, matching)
                if len(rows):
                    for view, marks in self._views(watch, quantity, matchers, matching, budget):
                        yield _Chosen(watch, name + suffix, view, rows, marks)

    def _views(
        self, watch: Watch, quantity: str, matchers: Sequence[Matcher], matching: Matching, budget: Budget
    ) -> Iterator[tuple[View, Labels]]:
        """The views that the matchers on lead and origin mean: without these labels, unless they refuse that."""
        by_lead, by_origin = not matching.of_label(LEAD, ""), not matching.of_label(ORIGIN, "")
        if by_lead and by_origin:
            raise NotSupportedError(f"{LEAD} and {ORIGIN} in one selector")
        if by_origin:
            text = next((one.value for one in matchers if (one.label, one.operator) == (ORIGIN, "=")), None)
            if text is None:
                raise NotSupportedError(f'{ORIGIN} other than by {ORIGIN}="<time>"')
            origin = self._cache.newest_origin(watch.step_seconds, watch.id, _seconds(text), budget)
            if origin is not None and matching.of_label(ORIGIN, text):
                yield View(quantity, origin=origin), ((ORIGIN, text),)
        elif by_lead:
            for text, lead in _leads(watch, matchers).items():
                if matching.of_label(LEAD, text):
                    yield View(quantity, lead=lead), ((LEAD, text),)
        else:
            yield View(quantity), ()

    # -- values ----------------------------------------------------------------------------------------------------
    def _pick(self, chosen: _Chosen, times: IntArray, budget: Budget) -> Picked:
        """Look back from each of some times, reading a bounded part of the past at once."""
        budget.spend(len(chosen.rows) * len(times))
        spacing = int(times[1] - times[0]) if len(times) > 1 else 1
        columns = max(1, LOAD_CELLS // len(chosen.rows) - chosen.lookback // chosen.step)
        width = max(1, columns * chosen.step // spacing)
        parts = []
        for start in range(0, len(times), width):
            budget.check()
            part = times[start : start + width]
            first = (int(part[0]) - chosen.lookback) // chosen.step + 1
            block = self._read(chosen, first, int(part[-1]) // chosen.step, budget)
            parts.append(look_back(block, chosen.step, part, chosen.lookback))
        if len(parts) == 1:
            return parts[0]
        names = ("values", "versions", "times", "present")
        return Picked(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names))

    def _bounds(self, group: Sequence[_Chosen], start: int, end: int) -> tuple[int, int]:
        """The part of [start, end] (ms) that there are segments for; an end before its start where that is none."""
        steps = self._cache.listing().steps
        spans = [steps[one.watch.step_seconds].extent for one in group if one.watch.step_seconds in steps]
        if not spans:
            return 0, -1
        return max(start, 1000 * min(low for low, _ in spans)), min(end, 1000 * max(high for _, high in spans))

    def _visible(
        self, group: Sequence[_Chosen], start: int, end: int, budget: Budget
    ) -> Iterator[tuple[_Chosen, Block]]:
        """Yield the forecasts for [start, end] (ms) but for those where a better watch has one of the same series."""
        start, end = self._bounds(group, start, end)
        better: list[tuple[_Chosen, Block]] = []
        reach = max(one.lookback for one in group) if len(group) > 1 else 0
        for one in group:
            first, last = -(-start // one.step), end // one.step
            if last < first:
                continue
            extended = first - reach // one.step
            budget.spend(len(one.rows) * (last - extended + 1))
            block = self._read(one, extended, last, budget)
            times = np.arange(extended, last + 1) * one.step
            for other, theirs in better:
                mine, rows = _shared(one, other)
                if len(mine):
                    block.leads[mine] *= ~look_back(theirs, other.step, times, other.lookback).present[rows]
            better.append((one, block))
            yield one, block.since(first)

    def _warm(self, groups: Sequence[Sequence[_Chosen]], start: int, end: int, budget: Budget) -> None:
        """Read what many watches need in [start, end] (ms) and before at once, where the cache can hold it."""
        together: dict[tuple[int, View], list[_Chosen]] = {}
        for group in groups:
            for one in group:
                together.setdefault((one.watch.step_seconds, one.view), []).append(one)
        for (step, view), some in together.items():
            low, high = self._bounds(some, start - some[0].lookback, end)
            first, last = low // some[0].step, high // some[0].step
            cells = sum(len(one.watch.members.fingerprints) for one in some) * (last - first + 1)
            if len(some) > 1 and 0 < cells < LOAD_CELLS:
                self._cache.load(step, view, [one.wanted for one in some], first, last, budget)

    def _read(self, chosen: _Chosen, first: int, last: int, budget: Budget) -> Block:
        return self._cache.read(chosen.watch.step_seconds, chosen.view, [chosen.wanted], first, last, budget)[0]


def _families(watch: Watch) -> Mapping[str, tuple[str, str]]:
    return {**_FAMILIES, **_INNER} if watch.inner else _FAMILIES


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise TooBusyError(str(error)) from error


def _seconds(text: str) -> int:
    """A time by RFC 3339 in unix seconds, rounded down."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError
        return int(time.timestamp() // 1)
    except (ValueError, OverflowError):
        raise BadQueryError(f"{ORIGIN}={text!r} is not a time; write 2026-01-31T12:00:00Z") from None


def _leads(watch: Watch, matchers: Sequence[Matcher]) -> dict[str, int]:
    """The leads that a selector may ask for by the text of its label: as it writes them, or as we do."""
    texts = [one.value for one in matchers if (one.label, one.operator) == (LEAD, "=")]
    step = watch.step_seconds
    if not texts:
        return {format_duration(lead * step): lead for lead in range(1, watch.horizon_steps + 1)}
    try:
        lead, rest = divmod(parse_duration(texts[0]), step)
    except ValueError:
        raise BadQueryError(f"{LEAD}={texts[0]!r} is not a duration; write 30s, 5m or 1h") from None
    return {texts[0]: lead} if not rest and lead <= watch.horizon_steps else {}


def _shared(one: _Chosen, other: _Chosen) -> tuple[IntArray, IntArray]:
    """Indexes of the series that both have, in one and in the other."""
    _, mine, theirs = np.intersect1d(
        one.wanted.fingerprints, other.wanted.fingerprints, assume_unique=True, return_indices=True
    )
    return mine, theirs


def _versions(versions: NDArray[np.int32], present: BoolArray, matching: Matching) -> list[int]:
    """The versions that are anywhere present and that a selector lets through."""
    return [one for one in distinct(versions[present]) if matching.of_label(VERSION, version_label(one))]


def _pieces(chosen: _Chosen, picked: Picked, matching: Matching, timestamps: bool) -> Iterator[_Piece]:
    values = picked.times if timestamps else picked.values
    for version in _versions(picked.versions, picked.present, matching):
        mine = picked.present & (picked.versions == version)
        at = np.flatnonzero(mine.any(axis=1))
        labels = chosen.labels(at, version)
        yield _Piece(labels, values, mine) if len(at) == len(mine) else _Piece(labels, values[at], mine[at])


def _vector(pieces: Sequence[_Piece], steps: int, *, unite: bool) -> Vector:
    """Put pieces together; `unite`: those with equal labels, which are never there at once, are one series."""
    labels = [one for piece in pieces for one in piece.labels]
    if not labels:
        return Vector.empty(steps)
    if len(pieces) == 1:
        return Vector.of(labels, pieces[0].values, pieces[0].present)
    values, present = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("values", "present"))
    numbers: dict[Labels, int] = {}
    if not unite or len(set(labels)) == len(labels):
        return Vector.of(labels, values, present)
    row = np.array([numbers.setdefault(one, len(numbers)) for one in labels])
    united, there = np.zeros((len(numbers), steps)), np.zeros((len(numbers), steps), bool)
    at, column = np.nonzero(present)
    united[row[at], column], there[row[at], column] = values[at, column], True
    return Vector.of(tuple(numbers), united, there)


def _samples(block: Block, version: int) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Return one version's samples: its series' indexes in the block, and of each sample which of those, column, value.

    A stale marker is where the next forecast of a series is by another version.
    """
    there = block.leads > 0
    mine = there & (block.versions == version)
    at = np.flatnonzero(mine.any(axis=1))
    there, mine = there[at], mine[at]
    ends = there & ~mine
    if ends.any():
        columns = np.arange(there.shape[1], dtype=np.int32)
        newest = np.maximum.accumulate(np.where(there, columns, np.int32(-1)), axis=1)
        before = np.concatenate([np.full((len(at), 1), -1, np.int32), newest[:, :-1]], axis=1)
        ends &= (before >= 0) & np.take_along_axis(mine, np.maximum(before, 0), axis=1)
    row, column = np.nonzero(mine | ends)
    values = block.values[at[row], column]
    values[ends[row, column]] = STALE
    return at, row, column, values


def _flat(
    labels: Sequence[Labels], runs: Sequence[tuple[IntArray, IntArray, FloatArray]], lookbacks: Sequence[int]
) -> Samples:
    """Put samples (series, time, value), by series and time in each run, together; series with equal labels are one."""
    if not runs:
        return Samples.of((), (), ())
    series, times, values = (np.concatenate(some) for some in zip(*runs, strict=True))
    numbers: dict[Labels, int] = {}
    lookback = np.array(lookbacks, np.int64)
    row = np.array([numbers.setdefault(one, len(numbers)) for one in labels])
    if len(numbers) < len(labels):
        series = row[series]
        order = np.lexsort((times, series))
        series, times, values = series[order], times[order], values[order]
        longest = np.zeros(len(numbers), np.int64)
        np.maximum.at(longest, row, lookback)
        lookback = longest
    offsets = np.concatenate([[0], np.cumsum(np.bincount(series, minlength=len(numbers)))])
    return Samples(tuple(numbers), offsets, times, values, lookback)
