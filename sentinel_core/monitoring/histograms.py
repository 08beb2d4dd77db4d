"""Bins made from a baseline, and events counted in them by the hour.

Numbers: cut points at the baseline's quantiles; a value that holds a tenth of it has a bin of its own; the ends are
open. Labels: the most frequent ones, "other" for the rest of what the baseline knew, "new" for what it did not know.
Both have a bin for missing values. A histogram is a row of WIDTH counts, the first `len(bins.names)` of them used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

WIDTH = 26  # columns of a stored histogram
OWN_BIN = 0.10  # share of the baseline from which a number has a bin of its own
LABELS, LABEL_SHARE = 20, 0.005  # labels with a bin of their own: so many at most, each with this share
KNOWN = 4_096  # labels that a baseline remembers: it is stored with them; rarer ones count as new on both sides


@dataclass(frozen=True)
class Bins:
    """The bins of one output of one model.

    edges:  cut points of numbers, ascending: bin i holds edges[i-1] < value <= edges[i], the last but one is open, the
            last is for missing values
    labels: fingerprints that have a bin each; then come other, new and missing
    known:  the fingerprints behind "other", sorted, as the bytes of little-endian int64
    once:   those that the baseline has seen just once, likewise: see `hourly_counts`
    """

    kind: str  # "numeric" or "label"
    edges: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    known: bytes = b""
    once: bytes = b""

    def names(self, texts: Mapping[int, str]) -> list[str]:
        """What people call the bins, in the order of the counts; `texts` are the labels' by fingerprint."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many of the WIDTH counts are used."""
        raise NotImplementedError

    def to_json(self) -> bytes:
        """JSON, to be stored with the baseline."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, text: bytes | str) -> "Bins":
        """What `to_json` has made."""
        raise NotImplementedError


@dataclass(frozen=True)
class HourlyCounts:
    """Histograms of the hours that have events, ordered by (subject, hour): int64 [rows], int64 [rows], int32 [rows, WIDTH]."""

    subject: IntArray
    hour: IntArray
    counts: NDArray[np.int32]


def fit_bins(
    subject: IntArray, values: FloatArray | IntArray, subjects: int, most: Sequence[int]
) -> list[Bins | None]:
    """Bins for each of `subjects` (0, 1, …) from the values of its baseline; None where all of them are missing.

    subject: [n] whose value it is; rows in any order, fastest where grouped
    values:  [n] float64 numbers (NaN: missing) or int64 fingerprints of labels (0: missing)
    most:    [subjects] how many quantile bins (numbers only)
    """
    raise NotImplementedError


def hourly_counts(
    bins: Sequence[Bins | None],
    subject: IntArray,
    hour: IntArray,
    values: FloatArray | IntArray,
    fitting: bool = False,
) -> HourlyCounts:
    """Count values [n] in the bins of their subject [n] by hour [n]; subjects without bins are left out.

    hour:    any integers that stand for hours (their starts, or their numbers)
    fitting: these are the values that the bins were made from. A label seen just once counts as new then, as the next
             window's labels will that the baseline has missed by chance (Good and Turing): 2,000 labels without drift
             have a PSI of 0.06 so, and of 0.83 without.
    """
    raise NotImplementedError
