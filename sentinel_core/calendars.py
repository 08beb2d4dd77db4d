"""Days that are not like the others: the spans that a watch ignores, and public holidays."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
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


def check_holidays(place: str) -> None:
    """ValueError where `holidays` names no place whose holidays are known.

    >>> check_holidays("US-XY")
    Traceback (most recent call last):
    ValueError: 'US-XY' is unknown: Entity `US` does not have subdivision XY; write a country as DE, or a state as US-NY
    """
    try:
        _observed(place, 2025)
    except NotImplementedError as error:
        raise ValueError(f"{place!r} is unknown: {error}; write a country as DE, or a state as US-NY") from None


@lru_cache(maxsize=256)
def holidays(place: str, timezone: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """A year's public holidays: first and last second, and how many days later the weekend's last day is.

    place: ISO 3166 of a country, and of a part of it where one follows
    """
    zone = ZoneInfo(timezone)
    days, rest = _observed(place, year)
    return tuple(
        (_midnight(day, zone), _midnight(day + timedelta(days=1), zone) - 1, (rest - day.weekday()) % 7) for day in days
    )


def _observed(place: str, year: int) -> tuple[list[date], int]:
    """The holidays of a year, ascending, and the last weekday of the weekend (Monday is 0)."""
    from holidays import country_holidays  # here: the configuration imports quickly without it
    from holidays.registry import COUNTRIES

    country, _, part = place.partition("-")
    if not any(country in codes for _, *codes in COUNTRIES.values()):  # the package takes any name of its own for one
        raise NotImplementedError(f"there is no country {country!r}")
    found = country_holidays(country, subdiv=part or None, years=year)
    return sorted(found), max(found.weekend)


def _span(text: str, zone: ZoneInfo) -> tuple[int, int]:
    begin, _, end = (part.strip() for part in text.partition("/"))
    try:
        first, last = _moments(begin, zone)[0], _moments(end or begin, zone)[1]
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a span of time; write a day as 2026-11-20, or 2026-11-20T08:00/2026-11-20T12:30"
        ) from None
    if not end and ("/" in text or last == first):  # a day alone is a span, a moment alone is none
        raise ValueError(f"{text!r} has no end; write it after a slash")
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
