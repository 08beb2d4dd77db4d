"""What a request to the query API asks: its form, times, durations and limits, as Prometheus reads them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from starlette.requests import Request

from sentinel_core.promql.errors import BadQueryError
from sentinel_core.promql.limits import MAX_POINTS

MAX_FORM_BYTES = 128 * 1024  # an expression has 8 KiB at most, and match[] may be there several times
MAX_FIELDS = 1_000
EARLIEST, LATEST = -(2**52), 2**52  # ms: as seconds, a float holds them exactly; 142,000 years

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UNITS: Mapping[str, int] = {
    "y": 365 * 86_400_000, "w": 7 * 86_400_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1,
}  # fmt: skip
_DURATION = re.compile("".join(rf"(?:(\d{{1,15}}){unit})?" for unit in _UNITS), re.ASCII)
_ESCAPE = re.compile(r"__|_([0-9a-fA-F]{1,6})_|_")


@dataclass(frozen=True)
class Form:
    """The fields of a URL and of a body, as they came; names may repeat."""

    pairs: Sequence[tuple[str, str]]

    def text(self, name: str) -> str:
        """The first field of a name; empty where there is none."""
        return next((value for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every field of a name."""
        return [value for key, value in self.pairs if key == name]

    def time(self, name: str, default: int | None = None) -> int:
        """Milliseconds since 1970, from seconds or RFC 3339."""
        text = self.text(name)
        if not text and default is not None:
            return default
        found = _milliseconds(text)
        if found is None:
            raise BadQueryError(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp')
        return found

    def duration(self, name: str) -> int:
        """Milliseconds, from seconds or as in `1h30m`."""
        text = self.text(name)
        if _NUMBER.fullmatch(text):
            found = float(text) * 1_000
        elif text and (parts := _DURATION.fullmatch(text)):
            found = float(
                sum(int(count or 0) * size for count, size in zip(parts.groups(), _UNITS.values(), strict=True))
            )
        else:
            raise BadQueryError(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration')
        if abs(found) > LATEST:
            raise BadQueryError(
                f'invalid parameter "{name}": cannot parse "{text}" to a valid duration: it is too long'
            )
        return int(found)

    def limit(self, name: str = "limit") -> int:
        """How much at most; 0: all."""
        text = self.text(name)
        if text and not re.fullmatch(r"\d{1,15}", text, re.ASCII):
            raise BadQueryError(f'invalid parameter "{name}": limit must be non-negative, not "{text}"')
        return int(text or 0)

    def steps(self) -> tuple[int, int, int]:
        """Start, end and step of a range query, milliseconds."""
        start, end = self.time("start"), self.time("end")
        if end < start:
            raise BadQueryError('invalid parameter "end": end timestamp must not be before start time')
        step = self.duration("step")
        if step <= 0:
            raise BadQueryError(
                'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
                "Try a positive integer"
            )
        if (end - start) // step >= MAX_POINTS:
            raise BadQueryError(
                f"exceeded maximum resolution of {MAX_POINTS:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        return start, end, step


async def read_form(request: Request) -> Form:
    """Read the fields of a request, a form's before the URL's; BadQueryError for what is none, or is too large."""
    raw = [request.url.query]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise BadQueryError(f"the request has more than {MAX_FORM_BYTES:,} bytes; ask for less at once")
    try:
        if kind == "application/x-www-form-urlencoded":
            raw.insert(0, body.decode())
        pairs = [
            pair
            for text in raw
            for pair in parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        ]
    except ValueError:  # too many fields, or no UTF-8
        raise BadQueryError(f"the request is not a form in UTF-8 of at most {MAX_FIELDS:,} fields") from None
    return Form(pairs)


def label_name(text: str) -> str:
    """Read the name of a label in a path, where `U__…` stands for one that is not of ASCII letters, digits and `_`.

    >>> label_name("U__service_2e_name"), label_name("job")
    ('service.name', 'job')
    """
    name = text
    if text.startswith("U__"):
        name = _ESCAPE.sub(lambda found: "_" if found[0] == "__" else _character(found[1], text), text[3:])
    if not name:
        raise BadQueryError(f'invalid label name: "{text}"')
    return name


def _character(code: str | None, text: str) -> str:
    if code is None or int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) < 0xE000:
        raise BadQueryError(f'invalid label name: "{text}"')
    return chr(int(code, 16))


def _milliseconds(text: str) -> int | None:
    found = None
    if _NUMBER.fullmatch(text):
        found = float(text) * 1_000
    elif _RFC3339.fullmatch(text):
        try:
            found = datetime.fromisoformat(text.upper()).timestamp() * 1_000
        except ValueError:  # the 30th of February
            return None
    return round(found) if found is not None and EARLIEST <= found <= LATEST else None
