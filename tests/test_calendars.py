"""Spans and days that a watch treats apart."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core import calendars
from sentinel_core.windows import Window, inside

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("texts", "timezone", "first", "last"),
    [
        (["2026-11-20"], "UTC", -12 * 3600, 12 * 3600 - 1),
        (["2026-11-20"], "Europe/Berlin", -13 * 3600, 11 * 3600 - 1),
        (["2026-11-20/2026-11-21"], "UTC", -12 * 3600, 36 * 3600 - 1),
        (["2026-11-20T08:00/2026-11-20T12:30"], "UTC", -4 * 3600, 1800),
        (["2026-11-20T08:00/2026-11-20T12:30"], "Europe/Berlin", -5 * 3600, -1800),
        (["2026-11-20T08:00Z / 2026-11-20T12:30-05:00"], "Europe/Berlin", -4 * 3600, 5 * 3600 + 1800),
        (["2026-11-20T10:00/2026-11-20"], "UTC", -2 * 3600, 12 * 3600 - 1),
        (["2026-11-20T12:00/2026-11-20T14:00", "2026-11-20T11:00/2026-11-20T13:00"], "UTC", -3600, 7200),
        (["2026-11-20T11:00/2026-11-20T15:00", "2026-11-20T12:00/2026-11-20T13:00"], "UTC", -3600, 3 * 3600),
    ],
)
def test_a_span_is_days_or_times(texts: list[str], timezone: str, first: int, last: int) -> None:
    """Days are whole and in the timezone, times too unless they have an offset; what overlaps is one span."""
    ((found_first, found_last),) = calendars.spans(texts, timezone)
    assert (found_first - NOON, found_last - NOON) == (first, last)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=6))
def test_inside_is_what_a_loop_finds(spans: list[tuple[int, int]]) -> None:
    """However spans lie to each other, the merged ones hold just the seconds that any of them holds."""
    texts = [f"{_text(start)}/{_text(start + length)}" for start, length in spans]
    merged = calendars.spans(texts)
    times = np.arange(70)
    slow = [any(start <= time <= start + length for start, length in spans) for time in times]
    assert inside(times, merged).tolist() == slow
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))


def test_ignored_samples_are_gaps_and_the_window_stays() -> None:
    """`without` leaves its window as it was, and gives it back where nothing of it is ignored."""
    window = Window(np.array([1]), np.array([0, 60, 120]), np.array([[1.0, 2.0, 3.0]]), 60)
    gappy: Any = window.without([(30, 60)]).values
    np.testing.assert_array_equal(gappy, [[1.0, np.nan, 3.0]])
    assert window.values[0, 1] == 2.0
    assert window.without([(121, 999)]) is window


def test_holidays_are_whole_days_of_their_place() -> None:
    """They begin and end at the timezone's midnight, and are followed by the weekend as that place has it."""
    begin = int(datetime(2024, 7, 4, 4, tzinfo=UTC).timestamp())  # a Thursday
    assert (begin, begin + 86_399, 3) in calendars.holidays("US-NY", "America/New_York", 2024)
    (first, _, later) = calendars.holidays("IL", "UTC", 2024)[0]
    assert datetime.fromtimestamp(first + later * 86_400, UTC).weekday() == 5  # Saturday
    assert len(calendars.holidays("DE-BY", "UTC", 2024)) > len(calendars.holidays("DE", "UTC", 2024))


def _text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()
