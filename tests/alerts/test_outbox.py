"""Who is owed what, and in which order it may be sent; on SQLite and PostgreSQL."""

import pytest
import sqlalchemy as sa

from sentinel_core.alerts import outbox, receivers
from sentinel_core.alerts.outbox import LEASE_SECONDS, Claimed, Outcome
from sentinel_core.errors import ConflictError, NotFoundError
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.lifecycle import Incident
from sentinel_core.storage import schema
from sentinel_core.storage.store import Store
from tests.incidents.situations import HOUR, START, acted, condition, evaluated, model, opened

NOW = START + 1_000 * HOUR


def receiver(conn: sa.Connection, name: str = "r", min_severity: str = "warn", enabled: bool = True) -> int:
    return receivers.add(conn, 1, name, "slack", {"url": "x"}, 0.0, min_severity=min_severity, enabled=enabled)


def told(conn: sa.Connection, receiver_id: int) -> list[str]:
    """The steps that a receiver is or was owed, oldest first."""
    steps = {row.id: row.kind for one in incidents.list_incidents(conn) for row in incidents.timeline(conn, one.id)}
    return [steps[row.transition_id] for row in incidents.deliveries(conn, receiver_id=receiver_id)][::-1]


def calm(conn: sa.Connection, incident: Incident, hour: int) -> Incident:
    for later in range(hour, hour + 3):
        incident = evaluated(conn, incident, "ok", later, calm=True)
    return incident


def claim(conn: sa.Connection, now: float = NOW, each: int = 8, **busy: int) -> list[Claimed]:
    return outbox.claim(conn, "me", now, each, {int(name[1:]): count for name, count in busy.items()})


def delivered(one: Claimed, again: float | None = None) -> Outcome:
    return Outcome(one.id, "delivered", 1, again, None, NOW)


def test_everything_but_acknowledging_and_putting_away_is_told(store: Store) -> None:
    """Opened, escalated, resolved, reopened; a quiet transition is told to nobody."""
    with store.database.write() as conn:
        mine = receiver(conn)
        incident = opened(conn, model(conn))
        incident = evaluated(conn, incident, "critical", 1)
        incident = acted(conn, incident, "acknowledge", 1)
        incident = calm(conn, incident, 2)
        incident = evaluated(conn, incident, "warning", 9)
        incident = acted(conn, incident, "accept", 9)
        acted(conn, incident, "close", 10)
        assert told(conn, mine) == ["opened", "escalated", "resolved", "reopened", "accepted"]
        transition = lifecycle.evaluate(None, condition("warning"), START)
        assert transition is not None
        outbox.record(conn, model(conn, "quiet"), transition, quiet=True)
        assert len(told(conn, mine)) == 5


def test_who_wants_critical_ones_hears_of_them_to_their_end(store: Store) -> None:
    """A warning is not theirs; what became critical is, down to its end, and not what comes after that."""
    with store.database.write() as conn:
        mine = receiver(conn, min_severity="critical")
        incident = opened(conn, model(conn))
        incident = calm(conn, incident, 1)
        assert told(conn, mine) == []
        incident = evaluated(conn, incident, "warning", 5)
        incident = evaluated(conn, incident, "critical", 6)
        for hour in range(7, 7 + lifecycle.EASED_EVALUATIONS):
            incident = evaluated(conn, incident, "warning", hour, eased=True)
        incident = calm(conn, incident, 40)
        incident = evaluated(conn, incident, "warning", 45)
        acted(conn, incident, "resolve", 45)
        assert told(conn, mine) == ["escalated", "downgraded", "resolved"]


def test_disabled_receivers_and_those_of_other_projects_hear_nothing(store: Store) -> None:
    """Nor does one that was added later hear the end of what it never heard of."""
    with store.database.write() as conn:
        off = receiver(conn, "off", enabled=False)
        other = conn.execute(schema.projects.insert().values(name="other", created_at=0.0)).inserted_primary_key
        assert other is not None
        theirs = receivers.add(conn, other[0], "r", "slack", {}, 0.0)
        incident = opened(conn, model(conn))
        late = receiver(conn, "late")
        acted(conn, incident, "resolve")
        assert [told(conn, one) for one in (off, theirs, late)] == [[], [], []]


def test_a_pair_is_sent_in_order_and_pairs_are_independent(store: Store) -> None:
    """The next alert of an incident is claimed after the one before has arrived, or is dead."""
    with store.database.write() as conn:
        first, second = receiver(conn, "a"), receiver(conn, "b")
        incident = evaluated(conn, opened(conn, model(conn)), "critical", 1)
        opened(conn, model(conn, "other"))
        claimed = claim(conn)
        assert sorted((one.receiver_id, one.subject, one.step) for one in claimed) == [
            (first, "fraud-model", "opened"),
            (first, "other", "opened"),
            (second, "fraud-model", "opened"),
            (second, "other", "opened"),
        ]
        assert claim(conn) == []
        mine = [one for one in claimed if one.incident_id == incident.id]
        outbox.settle(conn, "me", [delivered(mine[0]), Outcome(mine[1].id, "dead", 3, None, "404", None)])
        assert [(one.receiver_id, one.step) for one in claim(conn)] == [(first, "escalated"), (second, "escalated")]


def test_what_waits_for_a_retry_holds_back_what_follows(store: Store) -> None:
    """Order before speed: the second alert of a pair waits with the first, and so does the dispatcher's clock."""
    with store.database.write() as conn:
        receiver(conn)
        evaluated(conn, opened(conn, model(conn)), "critical", 1)
        (one,) = claim(conn)
        outbox.settle(conn, "me", [Outcome(one.id, "pending", 1, NOW + 60, "down", None)])
        assert claim(conn) == []
        assert outbox.next_due(conn) == NOW + 60
        assert [again.id for again in claim(conn, NOW + 60)] == [one.id]


def test_a_lease_runs_out_and_who_lost_it_settles_nothing(store: Store) -> None:
    """A dispatcher that died delays an alert by its lease; one that only slept does not overrule its successor."""
    with store.database.write() as conn:
        receiver(conn)
        opened(conn, model(conn))
        (one,) = claim(conn)
        assert outbox.claim(conn, "other", NOW + LEASE_SECONDS - 1, 8, {}) == []
        assert outbox.next_due(conn) == NOW + LEASE_SECONDS
        (again,) = outbox.claim(conn, "other", NOW + LEASE_SECONDS, 8, {})
        assert again.id == one.id
        outbox.settle(conn, "me", [Outcome(one.id, "dead", 1, None, "late", None)])
        (row,) = incidents.deliveries(conn)
        assert (row.state, row.last_error) == ("pending", None)


def test_no_receiver_gets_more_than_its_share(store: Store) -> None:
    """Up to `each` under way per receiver, the longest due first, whatever another one has to wait for."""
    with store.database.write() as conn:
        busy, idle = receiver(conn, "busy"), receiver(conn, "idle")
        for number in range(6):
            opened(conn, model(conn, f"m{number}"), hour=number)
        claimed = outbox.claim(conn, "me", NOW, 4, {busy: 3})
        assert [(one.receiver_id, one.subject) for one in claimed if one.receiver_id == busy] == [(busy, "m0")]
        assert [one.subject for one in claimed if one.receiver_id == idle] == ["m0", "m1", "m2", "m3"]


def test_only_the_newest_alert_of_an_active_incident_is_repeated(store: Store) -> None:
    """A newer one takes over, and nothing is repeated while a newer one is pending or under way."""
    with store.database.write() as conn:
        receiver(conn)
        incident = opened(conn, model(conn))
        (first,) = claim(conn)
        outbox.settle(conn, "me", [delivered(first, NOW + 300)])
        assert outbox.next_due(conn) == NOW + 300
        assert [(one.id, one.state) for one in claim(conn, NOW + 300)] == [(first.id, "delivered")]
        evaluated(conn, incident, "critical", 1)
        assert claim(conn, NOW + 301) == []  # the repetition is under way
        outbox.settle(conn, "me", [delivered(first, NOW + 600)])
        (second,) = claim(conn, NOW + 600)
        assert second.step == "escalated"
        outbox.settle(conn, "me", [delivered(second, NOW + 900)])
        assert [one.id for one in claim(conn, NOW + 10_000)] == [second.id]


def test_a_receiver_that_asks_for_rest_gets_it(store: Store) -> None:
    """All that it is owed waits; others are sent."""
    with store.database.write() as conn:
        tired, other = receiver(conn, "tired"), receiver(conn, "other")
        for number in range(3):
            opened(conn, model(conn, f"m{number}"))
        claimed = [one for one in claim(conn, each=1) if one.receiver_id == tired]
        outbox.settle(conn, "me", [Outcome(claimed[0].id, "pending", 1, NOW + 30, "429", None, NOW + 30)])
        assert {one.receiver_id for one in claim(conn, NOW + 29)} == {other}
        assert len([one for one in claim(conn, NOW + 30) if one.receiver_id == tired]) == 3


def test_a_dead_one_is_sent_again_by_hand_only(store: Store) -> None:
    """Resending starts its attempts anew; what is not dead, not there or not theirs is refused."""
    with store.database.write() as conn:
        receiver(conn)
        opened(conn, model(conn))
        (one,) = claim(conn)
        with pytest.raises(ConflictError, match="is pending; only a dead one"):
            outbox.resend(conn, one.id, NOW)
        outbox.settle(conn, "me", [Outcome(one.id, "dead", 3, None, "404", None)])
        assert outbox.next_due(conn) is None
        with pytest.raises(NotFoundError):
            outbox.resend(conn, one.id, NOW, project_id=99)
        with pytest.raises(NotFoundError):
            outbox.resend(conn, one.id + 1, NOW)
        outbox.resend(conn, one.id, NOW, project_id=1)
        assert [(again.id, again.attempts) for again in claim(conn)] == [(one.id, 0)]


def test_a_disabled_receiver_is_not_sent_to_until_it_is_enabled(store: Store) -> None:
    """What it is owed already waits, and wakes no dispatcher."""
    with store.database.write() as conn:
        mine = receiver(conn)
        opened(conn, model(conn))
        receivers.change(conn, mine, enabled=False)
        assert (claim(conn), outbox.next_due(conn)) == ([], None)
        receivers.change(conn, mine, enabled=True)
        assert len(claim(conn)) == 1
