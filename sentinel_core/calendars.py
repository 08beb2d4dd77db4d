"""Days that are not like the others: the spans that a watch ignores."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

Spans = tuple[tuple[int, int], ...]  # [first, last] unix seconds, both within; ascending, apart from each other


def spans(texts: Sequence[str], timezone: str = "UTC") -> Spans:
    """What `ignore` says; ValueError names the entry that cannot be read and what to write.

    An entry is a day, or two days or times with a slash between them. A time without an offset, and every day, is in
    the timezone; a day at the end is wholly within.

    >>> spans(["1970-01-02", "1970-01-01T08:00/1970-01-01T12:30+02:00"])
    ((28800, 37800), (86400, 172799))
    """
    zone = ZoneInfo(timezone)
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_span(text, zone) for text in texts):
        if merged and first <= merged[-1][1] + 1:
            first, last = merged[-1][0], max(last, merged.pop()[1])
        merged.append((first, last))
    return tuple(merged)


def _span(text: str, zone: ZoneInfo) -> tuple[int, int]:
    begin, _, end = (part.strip() for part in text.partition("/"))
    try:
        first, last = _moments(begin, zone)[0], _moments(end or begin, zone)[1]
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a span of time; write a day as 2026-11-20, or 2026-11-20T08:00/2026-11-20T12:30"
        ) from None
    if "/" in text and not end:
        raise ValueError(f"{text!r} has no end; write it after the slash")
    if last < first:
        raise ValueError(f"{text!r} ends before it begins; write the earlier time first")
    return first, last


def _moments(text: str, zone: ZoneInfo) -> tuple[int, int]:
    """The first and the last second that a day or a time names."""
    if len(text) > len("2026-11-20"):
        moment = datetime.fromisoformat(text)
        second = int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp())
        return second, second
    day = date.fromisoformat(text)
    return _midnight(day, zone), _midnight(day + timedelta(days=1), zone) - 1


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
