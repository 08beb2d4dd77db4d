"""The small types that requests and answers are made of: times, texts, ids, cursors, pages."""

import base64
import binascii
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

Row = TypeVar("Row")
Position = TypeVar("Position", int, str)

MAX_ID = 2**31 - 1  # PostgreSQL's integers
MAX_TIME = 253_370_764_800  # the year 9999: what a date can be written for
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Body(BaseModel):
    """What a request may hold: nothing unknown, no number written as text, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def example(**members: Any) -> ConfigDict:
    """The `model_config` of a body that people start from."""
    return ConfigDict(json_schema_extra={"examples": [members]})


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


def parse_moment(text: Any) -> float:
    """Unix seconds of an RFC 3339 time; ValueError where it is none, or has no offset.

    >>> parse_moment("2026-01-01T00:00:00.5+01:00")
    1767222000.5
    """
    if not isinstance(text, str) or not _RFC3339.fullmatch(text):
        raise ValueError("write a time with its offset, as 2026-01-31T12:00:00Z")
    seconds = datetime.fromisoformat(text.upper()).timestamp()
    if not 0 <= seconds < MAX_TIME:
        raise ValueError("is out of range: from 1970 until 9998")
    return seconds


def moment(seconds: float) -> str:
    """The RFC 3339 time of unix seconds, to the millisecond.

    >>> moment(1767222000.5), moment(1767222000)
    ('2025-12-31T23:00:00.500Z', '2025-12-31T23:00:00Z')
    """
    whole = float(seconds).is_integer()
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds" if whole else "milliseconds")
    return text.replace("+00:00", "Z")


def moment_or_none(seconds: float | None) -> str | None:
    """The same where there may be none."""
    return None if seconds is None else moment(seconds)


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity: null.

    >>> finite(float("nan")), finite(0.1)
    (None, 0.1)
    """
    return None if value is None or not math.isfinite(value) else value


_MOMENT_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]})
Moment = Annotated[str, _MOMENT_SCHEMA]  # of answers
MomentIn = Annotated[float, BeforeValidator(parse_moment), _MOMENT_SCHEMA]  # of requests: unix seconds once validated

# One line of text: what PostgreSQL cannot hold (NUL), and what no header or log should carry, is refused.
_LINE = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_LINE)]
Reason = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]


class Because(Body):
    """Why something is done; shown in the timeline and the audit."""

    model_config = example(reason="the new release was expected to do this")

    reason: Reason = ""


Id = Annotated[int, Path(ge=1, le=MAX_ID)]
IdIn = Annotated[int, Field(ge=1, le=MAX_ID)]
FilterId = Annotated[int | None, Query(ge=1, le=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many items at most")]


def encode_cursor(position: int | str) -> str:
    """Where the next page begins, opaque to clients: they must not rely on what is inside.

    >>> decode_cursor(encode_cursor(41), int)
    41
    """
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(text: str, kind: type[Position]) -> Position:
    """The position in a cursor; ValueError where it was not made by `encode_cursor`."""
    try:
        position = msgspec.json.decode(base64.urlsafe_b64decode(f"{text}==="), type=kind)
        if not isinstance(position, int) or 0 <= position < 2**62:
            return position
    except (ValueError, binascii.Error, msgspec.DecodeError):
        pass
    raise ValueError("is no cursor: send back `next` of the page before, or none for the first page")


_PAGE = Query(alias="cursor", description="`next` of the page before; none: the first page")
_TEXT = WithJsonSchema({"type": "string"})
_NUMBER = BeforeValidator(lambda text: decode_cursor(text, int) if text else None)
_NAME = BeforeValidator(lambda text: decode_cursor(text, str) if text else None)
Cursor = Annotated[int | None, _PAGE, _NUMBER, _TEXT]
TextCursor = Annotated[str | None, _PAGE, _NAME, _TEXT]


def page_of(
    rows: Sequence[Row], limit: int, view: Callable[[Row], Any], key: Callable[[Row], int | str]
) -> dict[str, Any]:
    """A page of `limit` from up to `limit + 1` rows: one more tells that another page follows."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"items": [view(row) for row in shown], "next": encode_cursor(key(shown[-1])) if more else None}


Next = Annotated[str | None, Field(description="Cursor of the next page; null: this was the last")]
