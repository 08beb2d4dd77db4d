"""Watches, their state, coverage, series and counters, on both SQL backends."""

import itertools
import time

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.series import Series
from sentinel_core.storage import watch_store
from sentinel_core.storage.schema import watches
from sentinel_core.storage.store import Store

STEP = 60


@pytest.fixture
def watch(store: Store) -> int:
    """A registered watch."""
    with store.database.write() as connection:
        return watch_store.sync_watches(connection, [("a", "up")], 1.0)["a"]


def series(count: int, start: int = 0) -> list[Series]:
    return [Series.of("up", {"instance": f"host-{index}", "zone": "ü"}) for index in range(start, start + count)]


def test_watches_come_go_and_return_as_themselves(store: Store) -> None:
    """A removed watch is retired, not deleted; the same slug later is the same watch, with its newest selector."""
    with store.database.write() as connection:
        first = watch_store.sync_watches(connection, [("a", "up"), ("b", "down")], 1.0)
        assert list(first) == ["a", "b"]
        assert watch_store.sync_watches(connection, [("b", "down")], 2.0) == {"b": first["b"]}
        assert list(watch_store.states(connection)) == ["b"]
        assert connection.execute(sa.select(watches.c.retired_at).where(watches.c.slug == "a")).scalar_one() == 2.0
        again = watch_store.sync_watches(connection, [("c", "new"), ("a", 'up{job="x"}')], 3.0)
        assert again["a"] == first["a"]
        assert watch_store.states(connection)["a"].selector == 'up{job="x"}'
        assert watch_store.watch_ids(connection) == again


def test_a_new_watch_has_a_state(store: Store, watch: int) -> None:
    """Nothing known yet, and nothing counted."""
    with store.database.read() as connection:
        state = watch_store.states(connection)["a"]
    assert (state.watch_id, state.slug, state.selector) == (watch, "a", "up")
    assert state.kind is None
    assert state.series_live == 0


def test_states_are_updated_column_by_column(store: Store, watch: int) -> None:
    """One watch or many, each row with its own columns; the others stay."""
    with store.database.write() as connection:
        ids = watch_store.sync_watches(connection, [("a", "up"), ("b", "down")], 1.0)
        watch_store.update_state(connection, watch, kind="gauge", scraped_until=120)
        rows = [
            {"watch_id": watch, "severity": "low", "drift_mae": 0.5},
            {"watch_id": ids["b"], "last_error": "no such metric"},
        ]
        watch_store.update_states(connection, rows)
        watch_store.update_states(connection, [])
    with store.database.read() as connection:
        states = watch_store.states(connection)
    assert (states["a"].kind, states["a"].scraped_until, states["a"].severity) == ("gauge", 120, "low")
    assert (states["b"].last_error, states["b"].severity) == ("no such metric", None)


def test_a_thousand_states_take_one_short_transaction(store: Store) -> None:
    """The write that every tick of a large fleet makes stays far below the gate's patience."""
    with store.database.write() as connection:
        ids = watch_store.sync_watches(connection, [(f"w{index}", "up") for index in range(1000)], 1.0)
    rows = [{"watch_id": one, "scraped_until": 60, "last_tick_at": 1.0, "last_error": None} for one in ids.values()]
    begun = time.monotonic()
    with store.database.write() as connection:
        watch_store.update_states(connection, rows)
    assert time.monotonic() - begun < 2
    with store.database.read() as connection:
        assert {state.scraped_until for state in watch_store.states(connection).values()} == {60}


# ---- coverage --------------------------------------------------------------------------------------------------------
def test_touching_spans_merge_and_holes_are_what_is_left(store: Store, watch: int) -> None:
    """Neighbours on the grid are one span; the holes between are what a backfill has to fill."""
    with store.database.write() as connection:
        for t0, t1 in [(0, 120), (300, 360), (180, 180)]:
            watch_store.add_coverage(connection, watch, t0, t1, STEP)
        assert watch_store.coverage(connection, watch) == [(0, 180), (300, 360)]
        assert watch_store.uncovered(connection, watch, 0, 420, STEP) == [(240, 240), (420, 420)]
        watch_store.add_coverage(connection, watch, 60, 300, STEP)
        assert watch_store.coverage(connection, watch) == [(0, 360)]
        assert watch_store.uncovered(connection, watch, 60, 360, STEP) == []
        watch_store.forget_coverage(connection, 180)
        assert watch_store.coverage(connection, watch) == [(180, 360)]


spans = st.tuples(st.integers(0, 40), st.integers(0, 15)).map(lambda pair: (pair[0] * STEP, sum(pair) * STEP))


@given(added=st.lists(spans, max_size=12), asked=spans)
def test_holes_are_the_grid_points_in_no_span(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    """Against a set of timestamps."""
    covered = {ts for t0, t1 in added for ts in range(t0, t1 + 1, STEP)}
    merged: list[tuple[int, int]] = []
    for ts in sorted(covered):
        if merged and merged[-1][1] == ts - STEP:
            merged[-1] = (merged[-1][0], ts)
        else:
            merged.append((ts, ts))
    found = watch_store.holes(merged, *asked, STEP)
    points = [ts for t0, t1 in found for ts in range(t0, t1 + 1, STEP)]
    assert points == [ts for ts in range(asked[0], asked[1] + 1, STEP) if ts not in covered]


def test_coverage_merges_like_a_set_of_timestamps(store: Store, watch: int) -> None:
    """Random spans in random order, checked against the set after each."""
    rng = np.random.default_rng(0)
    covered: set[int] = set()
    with store.database.write() as connection:
        for _ in range(60):
            t0 = int(rng.integers(0, 100)) * STEP
            t1 = t0 + int(rng.integers(0, 8)) * STEP
            watch_store.add_coverage(connection, watch, t0, t1, STEP)
            covered |= set(range(t0, t1 + 1, STEP))
            found = watch_store.coverage(connection, watch)
            assert [ts for a, b in found for ts in range(a, b + 1, STEP)] == sorted(covered)
            assert all(b + STEP < a for (_, b), (a, _) in itertools.pairwise(found))


# ---- series ----------------------------------------------------------------------------------------------------------
def test_series_are_members_until_they_vanish(store: Store, watch: int) -> None:
    """Added once, vanished, revived; labels come back as they were."""
    some = series(3)
    with store.database.write() as connection:
        watch_store.add_series(connection, watch, some, 100)
        watch_store.add_series(connection, watch, some, 200)  # known already: first_seen stays
        watch_store.mark_vanished(connection, watch, [some[0].fingerprint], 300)
        owners, live = watch_store.live_series(connection, watch)
        assert sorted(live.tolist()) == sorted(one.fingerprint for one in some[1:])
        assert set(owners.tolist()) == {watch}
        assert watch_store.known_series(connection, watch) == {one.fingerprint for one in some}
        members = watch_store.series_of(connection, [watch], live_only=False)
        assert {member.series for member in members} == set(some)
        assert {(member.series, member.first_seen, member.vanished_at) for member in members} >= {(some[0], 100, 300)}
        assert len(watch_store.series_of(connection, [watch])) == 2
        watch_store.mark_revived(connection, watch, np.array([some[0].fingerprint]))
        assert len(watch_store.live_series(connection, watch)[0]) == 3


def test_retired_watches_have_no_live_series(store: Store, watch: int) -> None:
    """Asked for all watches, only active ones answer; a watch by id answers always."""
    with store.database.write() as connection:
        watch_store.add_series(connection, watch, series(2), 100)
        other = watch_store.sync_watches(connection, [("b", "up")], 2.0)["b"]
        watch_store.add_series(connection, other, series(1), 100)
        owners, fingerprints = watch_store.live_series(connection)
        assert owners.tolist() == [other]
        assert fingerprints.tolist() == [series(1)[0].fingerprint]
        assert len(watch_store.live_series(connection, watch)[0]) == 2


def test_no_series_is_an_empty_answer(store: Store, watch: int) -> None:
    """Arrays of the right type and no rows; marking nothing is fine."""
    with store.database.write() as connection:
        watch_store.add_series(connection, watch, [], 100)
        watch_store.mark_vanished(connection, watch, [], 100)
        owners, fingerprints = watch_store.live_series(connection)
        assert (owners.dtype, fingerprints.dtype, len(owners)) == (np.int32, np.int64, 0)
        assert watch_store.series_of(connection, []) == []


def test_ten_thousand_series_fit_in_one_statement(store: Store, watch: int) -> None:
    """No limit on bound parameters is in the way of the largest watch."""
    many = series(10_000)
    with store.database.write() as connection:
        watch_store.add_series(connection, watch, many, 100)
        watch_store.mark_vanished(connection, watch, [one.fingerprint for one in many[:9000]], 200)
        fingerprints = watch_store.live_series(connection, watch)[1]
    assert len(fingerprints) == 1000
    assert (np.diff(fingerprints) > 0).all()


# ---- counters --------------------------------------------------------------------------------------------------------
def test_counters_add_up_across_processes(store: Store) -> None:
    """Each process adds what it counted; labels are part of the name, in any order."""
    with store.database.write() as connection:
        watch_store.increment(connection, {("requests", (("code", "200"), ("zone", "a"))): 2.0, ("ticks", ()): 1.0})
        watch_store.increment(connection, {("requests", (("zone", "a"), ("code", "200"))): 3.0})
        watch_store.increment(connection, {})
        assert watch_store.counters(connection) == {
            ("requests", (("code", "200"), ("zone", "a"))): 5.0,
            ("ticks", ()): 1.0,
        }


def test_series_that_left_long_ago_are_forgotten(store: Store, watch: int) -> None:
    """Those that vanished before a time, and all of a watch that was retired before it."""
    with store.database.write() as connection:
        other = watch_store.sync_watches(connection, [("a", "up"), ("b", "down")], 1.0)["b"]
        for one in (watch, other):
            watch_store.add_series(connection, one, series(3), 60)
        fingerprints = [each.fingerprint for each in series(3)]
        watch_store.mark_vanished(connection, watch, fingerprints[:1], 100)
        watch_store.mark_vanished(connection, watch, fingerprints[1:2], 200)
        watch_store.sync_watches(connection, [("a", "up")], 100.0)
        assert watch_store.retired_watches(connection, 150) == [other]
        assert watch_store.forget_series(connection, 150) == 4
        assert watch_store.known_series(connection, watch) == set(fingerprints[1:])
        assert watch_store.known_series(connection, other) == set()


def test_a_registration_need_not_retire(store: Store, watch: int) -> None:
    """New watches are added and retired ones revived; those that are not named stay."""
    with store.database.write() as connection:
        assert list(watch_store.sync_watches(connection, [("b", "down")], 2.0, retire=False)) == ["a", "b"]
