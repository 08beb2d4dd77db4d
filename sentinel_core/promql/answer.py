"""Values as the JSON of Prometheus' HTTP API, in pieces, without a loop over samples: 1.4 million in 0.15 s.

Numbers are texts, written as Go writes them: no exponent from 1e-6 to 1e21, no ".0", `NaN`, `+Inf` and `-Inf`.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from sentinel_core.promql.values import Labels, Notes, Samples, Scalar, Text, Vector
from sentinel_core.windows import FloatArray, IntArray

TRUNCATED = "results truncated due to limit"
_PIECE = 5_000  # samples between two yields of the interpreter: 2 ms
_END = b'"]]}'  # of the last point and its series
_encode = msgspec.json.Encoder().encode
_EXPONENT = re.compile(rb"(-?[\d.]+)e([+-]?\d+)")


def answer(
    value: Scalar | Text | Vector | Samples, times: IntArray, notes: Notes, *, ranged: bool, limit: int = 0
) -> Iterator[bytes]:
    """Yield the body of an answer to `query_range`, or to `query` where it is not `ranged` and `times` has one.

    limit: series at most, and a warning where there were more; 0: all
    """
    if isinstance(value, Scalar) and ranged:
        value = Vector.of([()], value.values[None, :])
    warnings = list(notes.warnings)
    if limit and isinstance(value, Vector | Samples) and len(value.labels) > limit:
        value = _first(value, limit)
        warnings.append(TRUNCATED)
    if isinstance(value, Scalar):
        kind, rows = "scalar", _single(times, texts(value.values)[0])
    elif isinstance(value, Text):
        kind, rows = "string", _single(times, _encode(value.value)[1:-1])
    elif isinstance(value, Samples):
        kind, rows = "matrix", _of_samples(value)
    elif ranged:
        kind, rows = "matrix", _matrix(value, times)
    else:
        kind, rows = "vector", _vector(value, times)
    yield b'{"status":"success","data":{"resultType":"%s","result":[' % kind.encode()
    yield from rows
    yield b"]}" + _ending(warnings, list(notes.infos))


def listing(data: Any, warnings: Sequence[str] = ()) -> bytes:
    """Return the body of every other answer.

    >>> listing(["job"])
    b'{"status":"success","data":["job"]}'
    """
    return b'{"status":"success","data":' + _encode(data) + _ending(warnings, ())


def failure(kind: str, message: str) -> bytes:
    """Return the body of an answer that says why there is none; `kind` is its `errorType`."""
    return _encode({"status": "error", "errorType": kind, "error": message})


def texts(values: FloatArray) -> list[bytes]:
    """Return numbers as Go's `strconv` writes them in Prometheus' answers.

    >>> texts(np.array([1.0, 2.5, 1.5e-6, 1e-7, 1.25e20, 1e21, np.inf, -0.0]))
    [b'1', b'2.5', b'0.0000015', b'1e-07', b'125000000000000000000', b'1e+21', b'+Inf', b'-0']
    """
    if not len(values):
        return []
    encoded: bytes = _encode(values.tolist())[1:-1] + b","
    encoded = encoded.replace(b".0,", b",")
    if b"e" in encoded:
        encoded = _EXPONENT.sub(_go, encoded)
    found = encoded.split(b",")
    found.pop()
    if b"null" in encoded:
        for index in np.flatnonzero(~np.isfinite(values)).tolist():
            number = values[index]
            found[index] = b"NaN" if number != number else b"+Inf" if number > 0 else b"-Inf"
    return found


def _go(found: re.Match[bytes]) -> bytes:
    exponent = int(found[2])
    if -6 <= exponent < 21:
        return f"{Decimal(found[0].decode()):f}".encode()
    return b"%se%+03d" % (found[1], exponent)


def _single(times: IntArray, text: bytes) -> Iterator[bytes]:
    yield b'%s,"%s"' % (_seconds(times)[0], text)


def _seconds(times: IntArray) -> list[bytes]:
    """Milliseconds as seconds, with a fraction only where there is one."""
    return texts(times / 1000)


def _first(value: Vector | Samples, limit: int) -> Vector | Samples:
    if isinstance(value, Vector):
        some = slice(limit)
        return Vector(value.labels[some], value.values[some], value.present[some], value.nameless[some])
    end = int(value.offsets[limit])
    return Samples(
        value.labels[:limit],
        value.offsets[: limit + 1],
        value.times[:end],
        value.values[:end],
        value.lookback[:limit],
    )


def _metric(labels: Labels) -> bytes:
    return _encode(dict(labels))


def _vector(value: Vector, times: IntArray) -> Iterator[bytes]:
    (at,) = _seconds(times)
    middle = b',"value":[%s,"' % at
    for low in range(0, len(value.labels), _PIECE):
        chunk = slice(low, low + _PIECE)
        labels = value.labels[chunk]
        parts = [b'"]},{"metric":', b"", middle, b""] * len(labels)
        parts[0] = b'{"metric":' if low == 0 else b',{"metric":'
        parts[1::4] = map(_metric, labels)
        parts[3::4] = texts(value.values[chunk, 0])
        yield b"".join(parts) + b'"]}'
        time.sleep(0)  # lets the thread that answers requests in


def _matrix(value: Vector, times: IntArray) -> Iterator[bytes]:
    seconds = _seconds(times)
    starts = [b'[%s,"' % second for second in seconds]
    later = [b'"],' + start for start in starts]
    rows = max(1, _PIECE // len(times))
    for low in range(0, len(value.labels), rows):
        chunk = slice(low, low + rows)
        labels, present = value.labels[chunk], value.present[chunk]
        if present.all():
            numbers, parts = texts(value.values[chunk].ravel()), later * len(labels)
        else:
            numbers = texts(value.values[chunk][present])
            parts = list(compress(later * len(labels), present.ravel().tolist()))
        offsets = np.cumsum(present.sum(1)).tolist()
        firsts = [starts[first] for first in present.argmax(1).tolist()]
        yield _rows(labels, [0, *offsets[:-1]], firsts, parts, numbers, leading=low == 0)
        time.sleep(0)
    if value.labels:
        yield _END


def _of_samples(value: Samples) -> Iterator[bytes]:
    begins = value.offsets[:-1]
    for low in range(0, len(value.times), _PIECE):  # whatever series they are of: one may have millions
        part = slice(low, low + _PIECE)
        starts = [b'[%s,"' % second for second in _seconds(value.times[part])]
        here = slice(*np.searchsorted(begins, [low, low + _PIECE]))
        offsets = (begins[here] - low).tolist()
        firsts = [starts[offset] for offset in offsets]
        parts = [b'"],' + start for start in starts]
        yield _rows(value.labels[here], offsets, firsts, parts, texts(value.values[part]), leading=low == 0)
        time.sleep(0)
    if len(value.times):
        yield _END


def _rows(
    labels: Sequence[Labels],
    offsets: Sequence[int],
    firsts: Sequence[bytes],
    parts: list[bytes],
    numbers: list[bytes],
    *,
    leading: bool,
) -> bytes:
    """Points and the series that begin among them: `parts` stands before each number and ends the point before.

    The last point is left open, as its series may go on. No series is empty.
    offsets: where in them each series begins; firsts: what stands before its first number
    """
    for one, offset, first in zip(labels, offsets, firsts, strict=True):
        parts[offset] = b'"]]},{"metric":%s,"values":[%s' % (_metric(one), first)
    if leading:  # nothing to end
        parts[0] = parts[0][5:]
    joined = [b""] * (2 * len(numbers))
    joined[0::2] = parts
    joined[1::2] = numbers
    return b"".join(joined)


def _ending(warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    ending: Mapping[str, Sequence[str]] = {"warnings": warnings, "infos": infos}
    return b"".join(b',"%s":%s' % (name.encode(), _encode(found)) for name, found in ending.items() if found) + b"}"
