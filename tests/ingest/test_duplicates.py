"""What was counted already is known, against a set that is obviously right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.monitoring import duplicates
from sentinel_core.monitoring.duplicates import DAY_SECONDS, REMEMBERED_DAYS, Remembered, first_of_each, of_model

IDS = st.lists(st.integers(-30, 30), max_size=30)
TODAY = 20_000


@pytest.fixture(scope="module", autouse=True)
def _small() -> "pytest.Generator[None]":
    """Runs so short that every path is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "SEAL_AT", 8)
        patch.setattr(duplicates, "MAX_RUN", 24)
        yield


@given(st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=20))
def test_new_is_what_a_set_says(commits: list[tuple[list[int], int]]) -> None:
    """Any sequence of commits: first in itself and in none before; 0 is always new."""
    remembered, known = Remembered(), set[int]()
    for ids, days_ago in commits:
        expected = []
        before = set(known)
        for one in ids:
            expected.append(one == 0 or one not in before)
            before.add(one)
        array = np.array(ids, np.int64)
        new = remembered.new(array)
        assert new.tolist() == expected
        assert new.tolist() == first_of_each(array, np.array(sorted(known), np.int64)).tolist()
        remembered.add(array[new], np.full(int(new.sum()), (TODAY - days_ago) * DAY_SECONDS))
        known |= set(ids) - {0}
        assert len(remembered) == len(known)


def test_old_days_are_forgotten() -> None:
    """Eight days after the event's time; what could still come again is known."""
    remembered = Remembered()
    ids = np.arange(1, 11)
    for day in (TODAY - REMEMBERED_DAYS - 1, TODAY - REMEMBERED_DAYS):
        remembered.add(ids + 100 * day, np.full(10, day * DAY_SECONDS))
    remembered.forget(TODAY * DAY_SECONDS + 5)
    assert remembered.new(ids + 100 * (TODAY - REMEMBERED_DAYS - 1)).all()
    assert not remembered.new(ids + 100 * (TODAY - REMEMBERED_DAYS)).any()


def test_memory_is_bounded() -> None:
    """Beyond the limit the oldest go first."""
    remembered = Remembered(limit=100)
    for start in range(0, 1000, 10):
        remembered.add(np.arange(start, start + 10) + 1, np.full(10, TODAY * DAY_SECONDS))
        remembered.forget(TODAY * DAY_SECONDS)
    assert 70 <= len(remembered) <= 110
    assert not remembered.new(np.array([1000, 999])).any()
    assert remembered.new(np.array([1])).all()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_models_do_not_share_digests(ids: list[int], one: int, other: int) -> None:
    """The same event_id under another model is another digest; 0 stays 0, and nothing else becomes 0."""
    array = np.array(ids, np.int64)
    first, second = (of_model(array, np.full(len(ids), model, np.int32)) for model in (one, other))
    assert ((first == 0) == (array == 0)).all()
    if one != other:
        assert ((first != second) | (array == 0)).all()
