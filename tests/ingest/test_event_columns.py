"""The bytes of the event log hold every bit of what was accepted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.monitoring.event_columns import COLUMNS, EventColumns, decode, encode

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
EVENTS = st.lists(st.tuples(INT32, INT64, INT64, st.floats(), st.floats(), INT64), max_size=40)
TEXTS = st.dictionaries(INT64, st.text(), max_size=5)


def columns_of(rows: list[tuple[int, int, int, float, float, int]], texts: dict[int, str]) -> EventColumns:
    arrays = {name: np.array([row[place] for row in rows], kind) for place, (name, kind) in enumerate(COLUMNS.items())}
    return EventColumns(**arrays, texts=texts)


def same(one: EventColumns, other: EventColumns) -> bool:
    return one.texts == other.texts and all(
        getattr(one, name).dtype == kind and getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name, kind in COLUMNS.items()
    )


@given(EVENTS, TEXTS)
def test_columns_survive_their_payload(
    rows: list[tuple[int, int, int, float, float, int]], texts: dict[int, str]
) -> None:
    """Bit for bit, with NaN, minus zero, no event and one event."""
    columns = columns_of(rows, texts)
    assert same(decode(encode(columns)), columns)


@given(EVENTS, EVENTS)
def test_columns_are_concatenated_and_filtered_in_order(
    first: list[tuple[int, int, int, float, float, int]], second: list[tuple[int, int, int, float, float, int]]
) -> None:
    """Two parts are the events of both, and a mask leaves those where it holds."""
    whole = EventColumns.concatenated([columns_of(first, {1: "a"}), columns_of(second, {2: "b"})])
    assert same(whole, columns_of(first + second, {1: "a", 2: "b"}))
    mask = np.arange(len(whole)) % 2 == 0
    assert same(whole.where(mask), columns_of((first + second)[::2], {1: "a", 2: "b"}))


def test_a_column_of_one_value_costs_one_value() -> None:
    """What most events lack (a label, a number) takes no room."""
    rows = [(1, 1_700_000_000, k, k / 7, float("nan"), 0) for k in range(1000)]
    assert len(encode(columns_of(rows, {}))) < 17 * 1000


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"[]", encode(columns_of([(1, 2, 3, 4.0, 5.0, 6)] * 3, {}))[:-9]])
def test_foreign_bytes_are_an_error(payload: bytes) -> None:
    """Nothing is read from what was not written."""
    with pytest.raises(ValueError, match="not a payload"):
        decode(payload)


def test_a_newer_payload_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that a newer Sentinel has written says so."""
    monkeypatch.setattr("sentinel_core.monitoring.event_columns._FORMAT", 2)
    newer = encode(columns_of([], {}))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="upgrade"):
        decode(newer)


def test_columns_are_those_of_the_dataclass() -> None:
    """COLUMNS names every field but the texts."""
    assert [*COLUMNS, "texts"] == [field.name for field in dataclasses.fields(EventColumns)]
