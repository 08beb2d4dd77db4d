"""The bytes of /metrics: forecasts rendered in bulk, in the text format 0.0.4 and in OpenMetrics 1.0, plain or gzip.

Forecast gauges are the same bytes in both formats, so they are rendered and compressed once per change; what differs
and what moves by itself (the self-metrics) is small and is appended to them as further sections.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from sentinel_core.emitter.snapshot import Forecasts
from sentinel_core.series import Series, quote
from sentinel_core.thresholds import Crossing

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_END = b"# EOF\n"

_CHUNK = 5_000  # gauges between two yields of the interpreter: unchunked, other requests waited 52 ms instead of 9
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"  # an empty final block, after sections that end on byte boundaries
_BOUNDS = (
    ("", "mean", "Forecast of {name}; sentinel_step says how many steps ahead."),
    ("_lower", "lower", "Lower bound of the forecast of {name}."),
    ("_upper", "upper", "Upper bound of the forecast of {name}."),
    ("_inner_lower", "inner_lower", "Lower bound of the inner level of the forecast of {name}."),
    ("_inner_upper", "inner_upper", "Upper bound of the inner level of the forecast of {name}."),
)
PROBABILITY, TIME = "_sentinel_crossing_probability", "_sentinel_time_to_threshold_seconds"
CROSSING: Mapping[str, str] = {
    PROBABILITY: "Probability that {name} gets across a threshold within the horizon.",
    TIME: "Median time until {name} gets across a threshold; only where it is within the horizon.",
}
ANOMALY = "_sentinel_anomaly_score"
ANOMALY_HELP = "How unusual the newest {name} is: 0 as forecast, 1 at the edge of its bounds."


def version_label(version: int) -> str:
    """Return the value of `sentinel_version`: the version that last fitted a series, 0 for none, -v for its pooled one.

    >>> [version_label(version) for version in (3, 0, -3)]
    ['v3', 'naive', 'v3-pooled']
    """
    return f"v{version}" if version > 0 else f"v{-version}-pooled" if version else "naive"


@dataclass
class _Labels:
    """The label part of every gauge of one block, row by row and lead by lead, and what it was made of.

    own: that of gauges of a series as a whole, row by row
    """

    series: tuple[Series, ...]
    versions: NDArray[np.int32]
    leads: NDArray[np.int64]
    horizon: str
    texts: list[bytes]
    own: list[bytes]

    def fits(self, block: Forecasts) -> bool:
        return (
            self.series is block.series
            and self.horizon == block.horizon
            and np.array_equal(self.leads, block.leads)
            and np.array_equal(self.versions, block.versions)
        )


class ForecastRenderer:
    """Renders forecasts to exposition lines, remembering label texts from one rendering to the next.

    100,000 gauges take about 15 ms of CPU when only their values changed, and ten times that when they are new.
    """

    def __init__(self, *, bounds: bool = False, steps: Sequence[int] = ()) -> None:
        self._bounds = _BOUNDS if bounds else _BOUNDS[:1]
        self._steps = np.array(sorted(set(steps)), dtype=np.int64)
        self._labels: dict[tuple[str, str], _Labels] = {}

    def render(self, blocks: Iterable[Forecasts]) -> list[bytes]:
        """Return the families of these forecasts in pieces, each family contiguous; a NaN forecast has no line.

        Pieces, because joining 18 MB costs as much as formatting the values in them.
        """
        shown = [self._thin(block) for block in blocks]
        self._labels = {key: self._labels_of(key, block) for block in shown for key in [(block.slug, block.name)]}
        by_name = sorted(shown, key=lambda block: block.name)  # stable: within a name, in configuration order
        pieces = list(self._families(by_name))
        if pieces:
            pieces[0] = pieces[0][1:]
            pieces.append(b"\n")
        return pieces

    def _thin(self, block: Forecasts) -> Forecasts:
        return block.at_leads(np.isin(block.leads, self._steps)) if len(self._steps) else block

    def _labels_of(self, key: tuple[str, str], block: Forecasts) -> _Labels:
        known = self._labels.get(key)
        if known and known.fits(block):
            return known
        texts = list(_label_texts(block)), list(_own_texts(block))
        return _Labels(block.series, block.versions, block.leads, block.horizon, *texts)

    def _families(self, blocks: Sequence[Forecasts]) -> Iterator[bytes]:
        # Every line starts, not ends, with its newline: the values come from one split and need no suffix then.
        for name, group in groupby(blocks, key=lambda block: block.name):
            members = list(group)
            for suffix, attribute, help_text in self._bounds:
                if attribute.startswith("inner") and not any(np.isfinite(one.inner_lower).any() for one in members):
                    continue
                family = f"{name}_sentinel_predicted{suffix}"
                yield f"\n# HELP {family} {help_text.format(name=name)}\n# TYPE {family} gauge".encode()
                for block in members:
                    labels = self._labels[block.slug, block.name].texts
                    yield from _lines(b"\n" + family.encode(), labels, getattr(block, attribute).ravel())
            unusual = [
                (self._labels[block.slug, block.name].own, block.anomaly)
                for block in members
                if np.isfinite(block.anomaly).any()
            ]
            yield from _of_series(name + ANOMALY, ANOMALY_HELP.format(name=name), unusual)
            crossing = [(self._crossing_labels(block, one), block, one) for block in members for one in block.crossings]
            for suffix, help_text in CROSSING.items():
                parts = [
                    (labels, one.probability if suffix == PROBABILITY else one.seconds(block.step_seconds))
                    for labels, block, one in crossing
                ]
                yield from _of_series(name + suffix, help_text.format(name=name), parts)

    def _crossing_labels(self, block: Forecasts, crossing: Crossing) -> list[bytes]:
        threshold = f",sentinel_threshold={quote(str(crossing.threshold))}}} ".encode()
        return [own.removesuffix(b"} ") + threshold for own in self._labels[block.slug, block.name].own]


def _of_series(
    family: str, help_text: str, parts: Sequence[tuple[list[bytes], NDArray[np.float64]]]
) -> Iterator[bytes]:
    """A family of one gauge for each series; none where nothing is in it."""
    if parts:
        yield f"\n# HELP {family} {help_text}\n# TYPE {family} gauge".encode()
    for labels, values in parts:
        yield from _lines(b"\n" + family.encode(), labels, values)


def _label_texts(block: Forecasts) -> Iterator[bytes]:
    steps = [f'sentinel_step="{lead}",sentinel_version=' for lead in block.leads]
    horizon = f"sentinel_horizon={quote(block.horizon)},"
    for series, version in zip(block.series, block.versions.tolist(), strict=True):
        start = "{" + "".join(f"{key}={quote(value)}," for key, value in series.labels) + horizon
        end = f'"{version_label(version)}"}} '
        for step in steps:
            yield f"{start}{step}{end}".encode()


def _own_texts(block: Forecasts) -> Iterator[bytes]:
    horizon = f"sentinel_horizon={quote(block.horizon)}}} "
    for series in block.series:
        yield ("{" + "".join(f"{key}={quote(value)}," for key, value in series.labels) + horizon).encode()


def _lines(head: bytes, labels: list[bytes], values: NDArray[np.float64]) -> Iterator[bytes]:
    for at in range(0, len(values), _CHUNK):
        chunk, texts = values[at : at + _CHUNK], labels[at : at + _CHUNK]
        finite = np.isfinite(chunk)
        if not finite.all():
            chunk, texts = chunk[finite], [texts[i] for i in np.flatnonzero(finite)]
        if not texts:
            continue
        parts = [head] * (3 * len(texts))
        parts[1::3] = texts
        parts[2::3] = msgspec.json.encode(chunk.tolist())[1:-1].split(b",")
        yield b"".join(parts)
        time.sleep(0)  # lets the thread that answers requests in


@dataclass(frozen=True)
class Section:
    """A part of a response, with what it takes to put it into a gzip stream without compressing it again."""

    pieces: tuple[bytes, ...]
    size: int
    deflated: bytes
    crc: int

    @classmethod
    def of(cls, *pieces: bytes) -> "Section":
        """Compress a text that is in pieces; the result ends on a byte boundary and refers to nothing before it."""
        compressor = isal_zlib.compressobj(isal_zlib.ISAL_BEST_SPEED, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
        deflated, crc = [], 0
        for piece in pieces:
            deflated.append(compressor.compress(piece))
            crc = isal_zlib.crc32(piece, crc)
        deflated.append(compressor.flush(isal_zlib.Z_FULL_FLUSH))
        return cls(pieces, sum(map(len, pieces)), b"".join(deflated), crc)


def plain(sections: Sequence[Section]) -> bytes:
    """Return the sections as they are."""
    return b"".join(piece for section in sections for piece in section.pieces)


def gzip_of(sections: Sequence[Section]) -> bytes:
    """Return the sections as ONE gzip member (several would be read only in part by zlib-based clients).

    >>> import gzip
    >>> gzip.decompress(gzip_of([Section.of(b"up "), Section.of(b"1")]))
    b'up 1'
    """
    crc, size = 0, 0
    for section in sections:
        crc = isal_zlib.crc32_combine(crc, section.crc, section.size)
        size += section.size
    trailer = _LAST_BLOCK + struct.pack("<II", crc, size & 0xFFFFFFFF)
    return b"".join([_GZIP_HEADER, *(section.deflated for section in sections), trailer])


def content_type(accept: str) -> str:
    """Choose PLAIN or OPENMETRICS by an Accept header; only a client that prefers OpenMetrics gets it.

    >>> content_type("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5") == OPENMETRICS
    True
    >>> content_type("*/*") == PLAIN
    True
    """
    openmetrics = _quality(accept, "application/openmetrics-text")
    return OPENMETRICS if openmetrics and openmetrics >= _quality(accept, "text/plain") else PLAIN


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip.

    >>> accepts_gzip("gzip, deflate"), accepts_gzip("gzip;q=0"), accepts_gzip("identity")
    (True, False, False)
    """
    return _quality(accept_encoding, "gzip") > 0


def _quality(header: str, choice: str) -> float:
    """The greatest `q` that a header gives to a choice it names; 0 where it does not, or says nothing readable."""
    best = 0.0
    for entry in header.split(","):
        value, *parameters = (part.strip().lower() for part in entry.split(";"))
        if value != choice:
            continue
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            best = max(best, float(quality))
        except ValueError:
            continue
    return best
