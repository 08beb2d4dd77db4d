"""What expressions are evaluated to. S series, T steps; times are milliseconds since 1970, as in Prometheus.

A value may be NaN and be there all the same, so a vector says by a mask where it has one. In raw samples Prometheus'
stale marker, a NaN of its own bits, ends a series.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

Labels = tuple[tuple[str, str], ...]  # sorted by name, `__name__` among them; no empty values
BoolArray = NDArray[np.bool_]

LOOKBACK = 300_000  # ms: how long a sample stands for what comes after it
_STALE_BITS = np.uint64(0x7FF0000000000002)
STALE = float(_STALE_BITS.view(np.float64))  # only for arrays: arithmetic in Python may lose its bits


@dataclass(frozen=True)
class Scalar:
    """values: float64 [T]."""

    values: FloatArray


@dataclass(frozen=True)
class Text:
    """A string; only literals have one."""

    value: str


@dataclass(frozen=True)
class Vector:
    """values: float64 [S, T]; present: bool [S, T], where there is a value. What is not present holds anything.

    A series that is present nowhere may be there. `nameless` (bool [S]): `__name__` is still among the labels and goes
    at the end of the evaluation, as in Prometheus 3 with delayed name removal; until then labels may repeat but for it.
    """

    labels: tuple[Labels, ...]
    values: FloatArray
    present: BoolArray
    nameless: BoolArray

    @classmethod
    def of(cls, labels: Sequence[Labels], values: FloatArray, present: BoolArray | None = None) -> "Vector":
        """Series that keep their names; present everywhere where no mask says otherwise."""
        there = np.ones(values.shape, bool) if present is None else present
        return cls(tuple(labels), values, there, np.zeros(len(labels), bool))

    @classmethod
    def empty(cls, steps: int) -> "Vector":
        """No series."""
        return cls.of((), np.empty((0, steps)))

    def seen(self) -> "Vector":
        """Its series that are present at any step."""
        there: BoolArray = np.logical_or.reduce(self.present, axis=1)
        return self if there.all() else self.rows(there)

    def rows(self, chosen: IntArray | BoolArray) -> "Vector":
        """These series in this order: row numbers, or a mask [S]."""
        numbers = np.arange(len(self.labels))[chosen]
        labels = tuple([self.labels[row] for row in numbers.tolist()])
        return Vector(labels, self.values[numbers], self.present[numbers], self.nameless[numbers])


@dataclass(frozen=True)
class Samples:
    """Raw samples of many series, one series after the other.

    offsets:  int64 [S + 1]; series i has the samples offsets[i] … offsets[i + 1] - 1
    times:    int64 [N], ascending within a series
    values:   float64 [N]; stale markers are among them (see `is_stale`)
    lookback: int64 [S] ms: how long a sample of a series stands for what comes after it
    """

    labels: tuple[Labels, ...]
    offsets: IntArray
    times: IntArray
    values: FloatArray
    lookback: IntArray

    @classmethod
    def of(
        cls, labels: Sequence[Labels], times: Sequence[IntArray], values: Sequence[FloatArray], lookback: int = LOOKBACK
    ) -> "Samples":
        """Build from arrays of each series."""
        lengths = np.array([0, *map(len, times)], np.int64)
        return cls(
            tuple(labels),
            np.cumsum(lengths),
            np.concatenate([np.empty(0, np.int64), *times]).astype(np.int64, copy=False),
            np.concatenate([np.empty(0), *values]),
            np.full(len(labels), lookback, np.int64),
        )


@dataclass
class Notes:
    """What a caller should know of an answer, in Prometheus' words: "PromQL warning: …" and "PromQL info: …"."""

    warnings: dict[str, None] = field(default_factory=dict)  # ordered, each once
    infos: dict[str, None] = field(default_factory=dict)
    positions: tuple[str, ...] = ()  # "line:column" of the function that is evaluated and of its arguments

    def of(self, positions: tuple[str, ...]) -> "Notes":
        """The same notes, for whoever evaluates a function at these places."""
        return replace(self, positions=positions)

    def warn(self, text: str, argument: int = 1) -> None:
        """Something may be wrong with the answer, because of an argument; 0 is the function itself."""
        self.warnings[f"PromQL warning: {text}{self._place(argument)}"] = None

    def inform(self, text: str, argument: int = 1) -> None:
        """Something about an argument looks like a mistake."""
        self.infos[f"PromQL info: {text}{self._place(argument)}"] = None

    def _place(self, argument: int) -> str:
        return f" ({self.positions[argument]})" if self.positions else ""


def said(value: float) -> str:
    """Return a number as messages say it, which is Go's %g: with an exponent from a million on.

    >>> [said(one) for one in (1.5, 200000, 1e6, 12345678.5, 0.00001, float("inf"), float("nan"))]
    ['1.5', '200000', '1e+06', '1.23456785e+07', '1e-05', '+Inf', 'NaN']
    """
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "+Inf" if value > 0 else "-Inf"
    exact = Decimal(repr(float(value))).normalize()
    if -4 <= exact.adjusted() < 6:
        return f"{exact:f}"
    digits, exponent = f"{exact:e}".split("e")
    return f"{digits}e{int(exponent):+03d}"


def is_stale(values: FloatArray) -> BoolArray:
    """Where values are Prometheus' stale marker, which ordinary NaN is not.

    >>> is_stale(np.array([1.0, np.nan, STALE])).tolist()
    [False, False, True]
    """
    marked: BoolArray = values.view(np.uint64) == _STALE_BITS
    return marked


def without(labels: Labels, *names: str) -> Labels:
    """The labels but for some.

    >>> without((("__name__", "up"), ("job", "api")), "__name__")
    (('job', 'api'),)
    """
    return tuple(pair for pair in labels if pair[0] not in names)
