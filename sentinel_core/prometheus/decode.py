"""Prometheus' JSON answers to arrays: typed by msgspec, samples parsed a series at a time, no object per sample kept.

A range answer spends nine tenths of its bytes on `[1700000000,"1.5"]` pairs. They stay raw bytes until, series by
series, quotes and brackets are deleted and the rest is parsed as one flat JSON array of numbers: twice as fast as
typed pairs, and only one series' Python floats are alive at a time.

Every function raises msgspec.ValidationError for JSON that is not what Prometheus answers, and its parent
msgspec.DecodeError for what is no whole JSON at all (a truncated body); the client decides what that means.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import numpy as np

from sentinel_core.collector import collector_paused
from sentinel_core.windows import FloatArray, IntArray

Labels = dict[str, str]
T = TypeVar("T")


class Answer(msgspec.Struct, Generic[T]):
    """The envelope of every answer; `status` is "success" or "error"."""

    status: str
    data: T | None = None
    errorType: str = ""  # noqa: N815 (the API's own spelling)
    error: str = ""
    warnings: list[str] = []  # msgspec copies mutable defaults


class _Row(msgspec.Struct):
    metric: msgspec.Raw
    values: msgspec.Raw = msgspec.Raw(b"[]")
    histograms: msgspec.Raw = msgspec.Raw(b"")  # native histograms: samples that are no numbers


class _Rows(msgspec.Struct):
    resultType: str  # noqa: N815
    result: list[_Row]


class _Point(msgspec.Struct):
    metric: Labels
    value: tuple[float, str] | None = None


class _Typed(msgspec.Struct):
    resultType: str  # noqa: N815
    result: msgspec.Raw


class Description(msgspec.Struct):
    """One entry of /api/v1/metadata."""

    type: str
    help: str = ""
    unit: str = ""


class NativeHistogramsError(msgspec.ValidationError):
    """Samples that are histograms, and no numbers."""


_ROWS = msgspec.json.Decoder(Answer[_Rows])
_TYPED = msgspec.json.Decoder(Answer[_Typed])
_LABELS = msgspec.json.Decoder(Labels)
_NUMBERS = msgspec.json.Decoder(list[float])


@dataclass(frozen=True)
class Matrix:
    """Samples of n series on a regular grid of T timestamps, in the order in which Prometheus first named them.

    labels:     [n], with `__name__` where Prometheus kept it; distinct
    timestamps: int64 [T], unix seconds
    values:     float64 [n, T]; NaN where there is no sample, or one that is NaN or infinite
    samples:    int64 [n], how many samples came
    non_finite: int64 [n], how many of them were NaN or infinite
    """

    labels: list[Labels]
    timestamps: IntArray
    values: FloatArray
    samples: IntArray
    non_finite: IntArray


def successful(answer: Answer[T]) -> T:
    """Return the data of an answer; ValidationError with Prometheus' own words where it has none."""
    if answer.status != "success" or answer.data is None:
        raise msgspec.ValidationError(answer.error or f"an answer of status {answer.status!r} without data")
    return answer.data


class MatrixBuilder:
    """Puts the answers of consecutive range queries onto one grid.

    timestamps: int64 [T], ascending by step_seconds
    expected_series: rows to make room for; more grow the array
    """

    def __init__(self, timestamps: IntArray, step_seconds: int, expected_series: int) -> None:
        self._timestamps = timestamps
        self._step = step_seconds
        self._labels: list[Labels] = []
        self._rows: dict[tuple[tuple[str, str], ...], int] = {}
        # Prometheus writes a label set the same way in every chunk, so its bytes find the row without decoding again.
        self._rows_by_bytes: dict[bytes, int] = {}
        self._values = np.full((expected_series, len(timestamps)), np.nan)
        self._samples = np.zeros(expected_series, dtype=np.int64)
        self._non_finite = np.zeros(expected_series, dtype=np.int64)

    def add(self, body: bytes) -> list[str]:
        """Decode one answer and place its samples; return Prometheus' warnings. A body that fails changes no values."""
        with collector_paused():
            answer = _ROWS.decode(body)
            data = successful(answer)
            if data.resultType != "matrix":
                raise msgspec.ValidationError(f"a {data.resultType} where a matrix was asked for")
            pairs = [_numbers(row) for row in data.result]
            if pairs:
                self._place([self._row(row.metric) for row in data.result], pairs)
        return answer.warnings

    @property
    def series(self) -> int:
        """How many series there are so far."""
        return len(self._labels)

    def matrix(self) -> Matrix:
        """What has been placed so far; the arrays are views."""
        n = self.series
        return Matrix(self._labels, self._timestamps, self._values[:n], self._samples[:n], self._non_finite[:n])

    def _row(self, metric: msgspec.Raw) -> int:
        text = bytes(metric)
        row = self._rows_by_bytes.get(text)
        if row is None:
            labels = _LABELS.decode(text)
            row = self._rows.setdefault(tuple(sorted(labels.items())), len(self._labels))
            self._rows_by_bytes[text] = row
            if row == len(self._labels):
                self._labels.append(labels)
        return row

    def _place(self, rows: list[int], pairs: list[FloatArray]) -> None:
        flat = np.concatenate(pairs)
        times, values = flat[0::2], flat[1::2]
        with np.errstate(invalid="ignore"):  # a time that is null or astronomic casts to nonsense, and is off the grid
            columns = ((times - self._timestamps[0]) / self._step).astype(np.int64)
        if not np.array_equal(self._timestamps.take(columns, mode="clip"), times):
            raise msgspec.ValidationError(f"samples that are not on the grid of {self._step} s that was asked for")
        self._reserve(len(self._labels))
        row_of_sample = np.repeat(np.asarray(rows, dtype=np.int64), [len(pair) // 2 for pair in pairs])
        bad = ~np.isfinite(values)
        self._values[row_of_sample, columns] = np.where(bad, np.nan, values)
        self._samples += np.bincount(row_of_sample, minlength=len(self._samples))
        self._non_finite += np.bincount(row_of_sample[bad], minlength=len(self._samples))

    def _reserve(self, rows: int) -> None:
        missing = rows - len(self._values)
        if missing > 0:
            more = max(missing, len(self._values) // 4)
            self._values = np.pad(self._values, ((0, more), (0, 0)), constant_values=np.nan)
            self._samples = np.pad(self._samples, (0, more))
            self._non_finite = np.pad(self._non_finite, (0, more))


@dataclass(frozen=True)
class Rows:
    """Samples of n series as they came.

    labels: [n], each sorted by name
    pairs:  [n] float64 [2 * samples]: times in unix seconds and values, alternating; NaN and infinities among them
    """

    labels: list[tuple[tuple[str, str], ...]]
    pairs: list[FloatArray]
    warnings: list[str]


def rows(body: bytes) -> Rows:
    """Decode a matrix: the answer of a range query, or of an instant one about a range selector."""
    with collector_paused():
        answer = _ROWS.decode(body)
        data = successful(answer)
        if data.resultType != "matrix":
            raise msgspec.ValidationError(f"a {data.resultType} where a matrix was asked for")
        labels = [tuple(sorted(_LABELS.decode(row.metric).items())) for row in data.result]
        return Rows(labels, [_numbers(row) for row in data.result], answer.warnings)


def sample_times(body: bytes) -> list[FloatArray]:
    """Decode the raw samples of a range selector; return each series' timestamps, unix seconds."""
    return [_numbers(row)[0::2] for row in successful(_ROWS.decode(body)).result]


def vector(body: bytes) -> list[tuple[Labels, float]]:
    """Decode an instant answer; a scalar is one value without labels.

    >>> vector(b'{"status":"success","data":{"resultType":"scalar","result":[4,"+Inf"]}}')
    [({}, inf)]
    """
    with collector_paused():
        data = successful(_TYPED.decode(body))
        if data.resultType == "scalar":
            return [({}, _float(msgspec.json.decode(data.result, type=tuple[float, str])[1]))]
        if data.resultType != "vector":
            raise msgspec.ValidationError(f"a {data.resultType} where numbers were asked for")
        points = msgspec.json.decode(data.result, type=list[_Point])
        return [(point.metric, _float(point.value[1])) for point in points if point.value is not None]


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise msgspec.ValidationError(f"{text!r} where a number was expected") from None


def _numbers(row: _Row) -> FloatArray:
    """Timestamps and values of one series, alternating: float64 [2 * samples]."""
    if bytes(row.histograms):
        raise NativeHistogramsError(
            "native histograms, which are no numbers; watch a query such as histogram_quantile(…)"
        )
    text = bytes(row.values)
    flat = text.translate(None, b'[]"')
    try:
        if b"N" in text or b"I" in text:  # NaN, +Inf, -Inf, which JSON has no number for
            numbers = np.array(flat.split(b",")).astype(np.float64)
        else:
            numbers = np.array(_NUMBERS.decode(b"[" + flat + b"]"), dtype=np.float64)
    except (msgspec.DecodeError, ValueError) as error:
        raise msgspec.ValidationError(f"samples that are no numbers: {error}") from None
    # A sample is exactly [time, "value"]; counting quotes catches triples and bare numbers that deletion would hide.
    if len(numbers) != text.count(b'"') or len(numbers) % 2:
        raise msgspec.ValidationError("samples that are not pairs of a time and a value")
    return numbers
