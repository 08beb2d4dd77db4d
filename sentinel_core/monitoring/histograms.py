"""Bins made from a baseline, and events counted in them by the hour.

Numbers: cut points at the baseline's quantiles; a value that holds a tenth of it has a bin of its own; the ends are
open. Labels: the most frequent ones, "other" for the rest of what the baseline knew, "new" for what it did not know.
Both have a bin for missing values. A histogram is a row of WIDTH counts, the first `len(bins)` of them used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

WIDTH = 26  # columns of a stored histogram
OWN_BIN = 0.10  # share of the baseline from which a number has a bin of its own
MOST_BINS = 15  # quantile bins: with a bin for each tenth and the gaps between them they fit into WIDTH
LABELS, LABEL_SHARE, LABEL_EVENTS = 20, 0.005, 5  # labels with a bin of their own: how many, of what share and count
KNOWN = 4_096  # labels that a baseline remembers, the most frequent ones; the rest counts as new on both sides
_TABLE = 1 << 22  # hours that are looked up in a table, as long as they lie within so many


@dataclass(frozen=True)
class Bins:
    """The bins of one output of one model.

    edges:  cut points of numbers, ascending: bin i holds edges[i-1] < value <= edges[i], and the bin after them what is
            above; the last one is for missing values
    labels: fingerprints that have a bin each; then come other, new and missing
    known:  the fingerprints behind "other", as the bytes of little-endian int64, sorted
    once:   those of them that the baseline has seen just once, likewise: see `hourly_counts`
    """

    kind: Literal["numeric", "label"]
    edges: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    known: bytes = b""
    once: bytes = b""

    def __len__(self) -> int:
        """How many of the WIDTH counts are used."""
        return len(self.edges) + 2 if self.kind == "numeric" else len(self.labels) + 3

    def names(self, texts: Mapping[int, str]) -> list[str]:
        """What people call the bins, in the order of the counts; `texts` are the labels' by fingerprint.

        >>> Bins("numeric", edges=(np.nextafter(0.5, 0), 0.5, 0.8)).names({})
        ['below 0.5', '0.5', '0.5 to 0.8', 'above 0.8', 'missing']
        >>> Bins("label", labels=(7, 8)).names({7: "approve"})
        ['approve', 'label 0000000000000008', 'other', 'new', 'missing']
        """
        if self.kind == "label":
            named = [texts.get(label, f"label {label & (1 << 64) - 1:016x}") for label in self.labels]
            return [*named, "other", "new", "missing"]
        if not self.edges:
            return ["any value", "missing"]
        # The edge just below a value of its own is shown as that value.
        own = [*(np.nextafter(self.edges[:-1], np.inf) == self.edges[1:]).tolist(), False]
        cuts = [self.edges[i + 1] if own[i] else self.edges[i] for i in range(len(own))]
        digits = next((d for d in range(4, 17) if len({f"{cut:.{d}g}" for cut in cuts}) == len(set(cuts))), 17)
        shown = [f"{cut:.{digits}g}" for cut in cuts]
        inner = [shown[i] if own[i - 1] else f"{shown[i - 1]} to {shown[i]}" for i in range(1, len(cuts))]
        return [f"below {shown[0]}" if own[0] else f"up to {shown[0]}", *inner, f"above {shown[-1]}", "missing"]

    def to_json(self) -> bytes:
        """JSON, to be stored with the baseline."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Bins":
        """What `to_json` has made."""
        return msgspec.json.decode(text, type=cls)

    def index(self, values: FloatArray | IntArray, *, fitting: bool = False) -> IntArray:
        """The bin of each value [n]; see `hourly_counts`."""
        if self.kind == "numeric":
            found = np.searchsorted(self._edges, values)  # NaN is greater than everything
            found += np.isnan(values)
            return found
        fingerprints, seen, seen_fitting = self._lookup
        other = len(self.labels)
        found = np.full(len(values), other + 1)
        if len(fingerprints):
            place = np.minimum(np.searchsorted(fingerprints, values), len(fingerprints) - 1)
            match = fingerprints[place] == values
            found[match] = (seen_fitting if fitting else seen)[place[match]]
        found[values == 0] = other + 2
        return found

    @cached_property
    def _edges(self) -> FloatArray:
        return np.array(self.edges, dtype=np.float64)

    @cached_property
    def _lookup(self) -> tuple[IntArray, IntArray, IntArray]:
        """Sorted fingerprints and the bin of each: afterwards, and while the baseline itself is counted."""
        own = np.array(self.labels, dtype=np.int64)
        known = np.frombuffer(self.known, dtype="<i8").astype(np.int64)
        fingerprints = np.concatenate([own, known])
        codes = np.concatenate([np.arange(len(own)), np.full(len(known), len(own))])
        fitting = codes + np.isin(fingerprints, np.frombuffer(self.once, dtype="<i8"))
        order = np.argsort(fingerprints)
        return fingerprints[order], codes[order], fitting[order]


@dataclass(frozen=True)
class HourlyCounts:
    """Histograms of the hours that have events, by (subject, hour): int64 [rows], int64 [rows], int32 [rows, WIDTH]."""

    subject: IntArray
    hour: IntArray
    counts: NDArray[np.int32]


def fit_bins(subject: IntArray, values: FloatArray | IntArray, most: Sequence[int]) -> list[Bins | None]:
    """Bins for the subjects 0, 1, … len(most) - 1 from the values of their baselines; None where all are missing.

    subject: [n] whose value it is; rows in any order, fastest where grouped
    values:  [n] float64 numbers (NaN: missing) or int64 fingerprints of labels (0: missing)
    most:    how many quantile bins each subject wants (for numbers)
    """
    fitted: list[Bins | None] = [None] * len(most)
    for one, group, _ in _groups(subject, values):
        if group.dtype.kind == "f":
            numbers = group[~np.isnan(group)]
            fitted[one] = _fit_numbers(np.sort(numbers), min(most[one], MOST_BINS)) if len(numbers) else None
        else:
            labels = group[group != 0]
            fitted[one] = _fit_labels(labels.astype(np.int64, copy=False)) if len(labels) else None
    return fitted


def hourly_counts(
    bins: Sequence[Bins | None],
    subject: IntArray,
    hour: IntArray,
    values: FloatArray | IntArray,
    *,
    fitting: bool = False,
) -> HourlyCounts:
    """Count values [n] in the bins of their subject [n] by hour [n]; subjects without bins are left out.

    hour:    any integers that stand for hours (their starts, or their numbers)
    fitting: these are the values that the bins were made from. A label seen just once counts as new then, as the next
             window's labels will that the baseline has missed by chance (Good and Turing): 2,000 labels without drift
             have a PSI of 0.06 so, and of 0.83 without.
    """
    hours, number = _numbered(hour)
    found_subject, found_hour, found_counts = [], [], []
    for one, group, at in _groups(subject, values, number):
        chosen = bins[one]
        if chosen is None:
            continue
        cells = at * WIDTH + chosen.index(group, fitting=fitting)
        first = int(at.min())
        table = np.bincount(cells - first * WIDTH, minlength=(int(at.max()) - first + 1) * WIDTH).reshape(-1, WIDTH)
        filled = np.flatnonzero(table.any(axis=1))
        found_subject.append(np.full(len(filled), one))
        found_hour.append(hours[filled + first])
        found_counts.append(table[filled].astype(np.int32))
    if not found_counts:
        return HourlyCounts(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, WIDTH), np.int32))
    return HourlyCounts(np.concatenate(found_subject), np.concatenate(found_hour), np.concatenate(found_counts))


def _groups(
    subject: IntArray, values: FloatArray | IntArray, number: IntArray | None = None
) -> Iterator[tuple[int, FloatArray | IntArray, IntArray]]:
    """Each subject with its values and, where they are given, its numbers."""
    if not len(subject):
        return
    number = subject if number is None else number
    if (subject[1:] < subject[:-1]).any():
        short = subject.astype(np.uint16) if subject.min() >= 0 and subject.max() < 1 << 16 else subject
        order = np.argsort(short, kind="stable")  # of 16 bits a radix sort, ten times faster
        subject, values, number = subject[order], values[order], number[order]
    starts = np.flatnonzero(np.concatenate([[True], subject[1:] != subject[:-1]])).tolist()
    for start, end in zip(starts, [*starts[1:], len(subject)], strict=True):
        yield int(subject[start]), values[start:end], number[start:end]


def _numbered(hour: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct hours, ascending, and which of them each row has."""
    if not len(hour):
        return hour, hour
    first = int(hour.min())
    if int(hour.max()) - first >= _TABLE:
        hours, number = np.unique(hour, return_inverse=True)
        return hours, number
    seen = np.zeros(int(hour.max()) - first + 1, bool)
    seen[hour - first] = True
    return np.flatnonzero(seen) + first, (np.cumsum(seen) - 1)[hour - first]


def _fit_numbers(values: FloatArray, most: int) -> Bins:
    """Bins of sorted values: order statistics are the cut points, so that no range overflows and ties stay whole."""
    count = len(values)
    quantiles = values[np.ceil(np.arange(1, most) * count / most).astype(np.int64) - 1]
    candidates = np.unique(values[:: max(int(count * OWN_BIN), 1)])  # whoever holds a tenth lies on one of these
    held = np.searchsorted(values, candidates, "right") - np.searchsorted(values, candidates, "left")
    own = candidates[held >= max(count * OWN_BIN, 2)]
    with np.errstate(over="ignore"):  # below the least number there is no other
        before = np.nextafter(own, -np.inf)
    edges = np.unique(np.concatenate([quantiles, own, before]))
    edges = edges[np.isfinite(edges)]
    if len(own):
        fixed = np.isin(edges, own) | np.isin(edges, before)
        edges = _merged(edges, fixed, np.searchsorted(values, edges, "right") / count, 0.5 / most)
    return Bins("numeric", edges=tuple(edges.tolist()))


def _merged(edges: FloatArray, fixed: NDArray[np.bool_], below: FloatArray, least: float) -> FloatArray:
    """Edges without those that cut less than `least` off a bin: beside a value's own bin little may be left over.

    fixed: [edges] whether it bounds a value's own bin
    below: [edges] share of the baseline at or below each edge

    A value's own bin is never widened, and what lies between two of them stays apart, empty or not.
    """
    keep: list[int] = []
    for index in range(len(edges)):
        start = below[keep[-1]] if keep else 0.0
        if fixed[index]:
            if keep and not fixed[keep[-1]] and below[index] - start < least:
                keep.pop()  # the bin between the last quantile and the value's own
            keep.append(index)
        elif below[index] - start >= least:
            keep.append(index)
    if keep and not fixed[keep[-1]] and 1 - below[keep[-1]] < least:
        keep.pop()
    return edges[keep]


def _fit_labels(values: IntArray) -> Bins:
    fingerprints, count = np.unique(values, return_counts=True)
    order = np.argsort(-count, kind="stable")[: KNOWN + LABELS]
    fingerprints, count = fingerprints[order], count[order]
    own = (count >= max(len(values) * LABEL_SHARE, LABEL_EVENTS)) & (np.arange(len(order)) < LABELS)
    return Bins(
        "label",
        labels=tuple(fingerprints[own].tolist()),
        known=np.sort(fingerprints[~own]).astype("<i8").tobytes(),
        once=np.sort(fingerprints[~own & (count == 1)]).astype("<i8").tobytes(),
    )
