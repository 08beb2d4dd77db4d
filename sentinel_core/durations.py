"""Prometheus durations ("90s", "5m", "1h30m", "7d") to whole seconds and back."""

import re
from functools import lru_cache

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PATTERN = re.compile(r"(?:\d+[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")


@lru_cache(maxsize=1024)  # every model of every watch is built from three of them at each tick
def parse_duration(text: str) -> int:
    """Return whole seconds; ValueError names the text and the remedy.

    >>> parse_duration("1h30m")
    5400
    """
    if not isinstance(text, str) or not _PATTERN.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write 30s, 5m, 1h or 7d")
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if seconds <= 0:
        raise ValueError(f"{text!r} is not longer than zero")
    return seconds


def format_duration(seconds: int) -> str:
    """Return the shortest Prometheus duration.

    >>> format_duration(5400)
    '1h30m'
    """
    parts = []
    for unit, size in _UNITS.items():
        if unit == "w":  # Prometheus prints weeks, people read days
            continue
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
