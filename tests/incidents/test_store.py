"""Incidents as rows, on SQLite and PostgreSQL: one door, compare-and-set, and what is read of them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from sentinel_core.alerts import outbox, receivers
from sentinel_core.errors import ConflictError, NotFoundError
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.lifecycle import Subject
from sentinel_core.storage import schema
from sentinel_core.storage.store import Store
from tests.incidents.situations import HOUR, START, acted, condition, evaluated, model, opened


def rows(store: Store, table: sa.Table) -> int:
    with store.database.read() as conn:
        return int(conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_a_life_is_stored_with_its_timeline(store: Store) -> None:
    """Each transition is a row with actor, reason, values and baseline version; evaluations in between are none."""
    with store.database.write() as conn:
        incident = opened(conn, model(conn))
        incident = evaluated(conn, incident, "warning", 1)
        incident = evaluated(conn, incident, "critical", 2)
        incident = acted(conn, incident, "acknowledge", 2)
        for hour in (3, 4, 5):
            incident = evaluated(conn, incident, "ok", hour, calm=True)
        incident = acted(conn, incident, "close", 6)
    with store.database.read() as conn:
        timeline = incidents.timeline(conn, incident.id)
        assert incidents.get(conn, incident.id) == incident
    assert [(row.revision, row.kind, row.state, row.severity, row.actor) for row in timeline] == [
        (1, "opened", "open", "warn", "sentinel"),
        (2, "escalated", "open", "critical", "sentinel"),
        (3, "acknowledged", "acknowledged", "critical", "ann"),
        (4, "resolved", "resolved", "critical", "sentinel"),
        (5, "closed", "closed", "critical", "ann"),
    ]
    assert [row.reason for row in timeline][1:3] == ["found critical", "because"]
    assert [row.hour for row in timeline] == [START, START + 2 * HOUR, None, START + 5 * HOUR, None]
    assert {row.baseline_version for row in timeline} == {1}
    assert '"psi":0.31' in timeline[1].assessment
    assert incident.until_hour == START + 5 * HOUR


def test_what_evaluations_need_is_found_by_subject(store: Store) -> None:
    """Active incidents, and ended ones that may yet reopen; the newest of each subject."""
    with store.database.write() as conn:
        first, second, third = (opened(conn, model(conn, name)) for name in "abc")
        acted(conn, second, "resolve", 1)
        third = acted(conn, third, "resolve", 1)
        acted(conn, third, "close", 10)
    with store.database.read() as conn:
        assert incidents.current(conn, START + 25 * HOUR).keys() == {first.key, second.key, third.key}
        assert incidents.current(conn, START + 30 * HOUR).keys() == {first.key, third.key}
        assert [one.id for one in incidents.active(conn)] == [first.id]
    with store.database.write() as conn:
        newer = opened(conn, second, hour=30)
    with store.database.read() as conn:
        assert incidents.current(conn, START + 25 * HOUR)[second.key].id == newer.id


def test_lists_filter_and_page(store: Store) -> None:
    """By state, severity, kind and subject, newest first; a project sees its own."""
    with store.database.write() as conn:
        other = conn.execute(schema.projects.insert().values(name="other", created_at=0.0)).inserted_primary_key
        assert other is not None
        mine = [opened(conn, model(conn, f"m{i}"), "critical" if i else "warning") for i in range(3)]
        theirs = opened(conn, model(conn, "m0", project_id=other[0]))
        acted(conn, mine[2], "resolve")
    ids = [one.id for one in mine]
    with store.database.read() as conn:

        def listed(project_id: int | None = None, **filters: object) -> list[int]:
            return [one.id for one in incidents.list_incidents(conn, project_id, **filters)]  # type: ignore[arg-type]

        assert listed() == [theirs.id, *ids[::-1]]
        assert listed(1) == ids[::-1]
        assert listed(1, limit=2) == ids[:0:-1]
        assert listed(1, limit=2, before=ids[1]) == ids[:1]
        assert listed(states=["resolved"]) == [ids[2]]
        assert listed(severity="critical") == [ids[2], ids[1]]
        assert listed(kind="forecast") == []
        assert listed(model_id=mine[1].model_id) == [ids[1]]
        assert incidents.get(conn, theirs.id, other[0]).subject == "m0"
        with pytest.raises(NotFoundError, match=f"no incident {theirs.id}"):
            incidents.get(conn, theirs.id, 1)
        assert incidents.count_by_state(conn) == {
            (1, "open", "warn"): 1,
            (1, "open", "critical"): 1,
            (1, "resolved", "critical"): 1,
            (other[0], "open", "warn"): 1,
        }


def test_hours_of_drift_are_told_for_later_baselines(store: Store) -> None:
    """From the window that found it to the newest evaluation; other kinds of incidents have none."""
    with store.database.write() as conn:
        incident = evaluated(conn, opened(conn, model(conn)), "warning", 3)
        silent = Subject(1, "silence", "fraud-model", model_id=incident.model_id)
        opened(conn, silent)
    with store.database.read() as conn:
        span = incidents.Span(incident.model_id or 0, START - 24 * HOUR, START + 3 * HOUR, 1)
        assert incidents.drift_spans(conn, START) == [span]
        assert incidents.drift_spans(conn, START, [0]) == []
        assert incidents.drift_spans(conn, START + 3 * HOUR) == []


def test_two_workers_never_make_two_incidents(store: Store) -> None:
    """Eight threads decide on the same snapshot that a drift is new; one writes, the others hear of it."""
    with store.database.write() as conn:
        subject = model(conn)
    transition = lifecycle.evaluate(None, condition("warning"), START)
    assert transition is not None

    def work(_: int) -> bool:
        try:
            with store.database.write() as conn:
                outbox.record(conn, subject, transition)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == [False] * 7 + [True]
    assert rows(store, schema.incidents) == rows(store, schema.incident_transitions) == 1


PROCESS = """
import sys
from sentinel_core.alerts import outbox
from sentinel_core.errors import ConflictError
from sentinel_core.incidents import lifecycle, store
from sentinel_core.incidents.lifecycle import Subject
from sentinel_core.storage.database import Database
from tests.incidents.situations import START, HOUR, condition

database = Database(sys.argv[1])
subject = Subject(1, "psi", "fraud-model", model_id=int(sys.argv[2]))
made = 0
for hour in range(40):
    found = "critical" if hour % 8 == 7 else "warning"
    with database.read() as conn:
        incident = store.current(conn, START).get(subject.key)
    transition = lifecycle.evaluate(incident, condition(found, hour), START + hour * HOUR)
    if transition is not None:
        try:
            with database.write() as conn:
                outbox.record(conn, incident or subject, transition)
            made += 1
        except ConflictError:
            pass
print(made)
"""


def test_processes_that_evaluate_at_once_make_each_transition_once(store: Store) -> None:
    """Three processes evaluate the same hours: each hour is counted once, the timeline has no gap and no double."""
    with store.database.write() as conn:
        model_id = model(conn).model_id
        receivers.add(conn, 1, "r", "slack", {}, 0.0)
    url = store.database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", PROCESS, url, str(model_id)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    made = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(made) == 40
    with store.database.read() as conn:
        (incident,) = incidents.list_incidents(conn)
        assert [(row.revision, row.kind) for row in incidents.timeline(conn, incident.id)] == [
            (1, "opened"),
            (2, "escalated"),
        ]
        assert len(incidents.deliveries(conn)) == 2


def test_what_was_decided_on_old_values_is_refused_whole(store: Store) -> None:
    """A click and an evaluation that cross: the second is refused, and leaves neither row nor alert."""
    with store.database.write() as conn:
        receivers.add(conn, 1, "r", "slack", {}, 0.0)
        seen = opened(conn, model(conn))
        evaluated(conn, seen, "warning", 1)  # no transition, and yet the incident has moved
    before = rows(store, schema.deliveries), rows(store, schema.incident_transitions)
    for crossing in (
        lambda conn: acted(conn, seen, "resolve", 1),
        lambda conn: evaluated(conn, seen, "critical", 2),
    ):
        with pytest.raises(ConflictError, match="changed by somebody else first"), store.database.write() as conn:
            crossing(conn)
    assert (rows(store, schema.deliveries), rows(store, schema.incident_transitions)) == before


def test_an_error_in_the_transaction_leaves_no_part_of_a_transition(store: Store) -> None:
    """Incident, timeline and alerts come together or not at all."""
    with store.database.write() as conn:
        receivers.add(conn, 1, "r", "slack", {}, 0.0)
        subject = model(conn)
    broken = replace(subject, model_id=10_000)  # there is none

    def half_way() -> None:
        with store.database.write() as conn:
            opened(conn, subject)
            opened(conn, broken)

    with pytest.raises(sa.exc.IntegrityError):
        half_way()
    assert rows(store, schema.incidents) == rows(store, schema.incident_transitions) == 0
    assert rows(store, schema.deliveries) == 0


def test_old_ones_are_forgotten_with_all_that_belongs_to_them(store: Store) -> None:
    """Retention takes what is over and old, oldest first and in bites; active ones stay however old they are."""
    with store.database.write() as conn:
        receivers.add(conn, 1, "r", "slack", {}, 0.0)
        old = [acted(conn, opened(conn, model(conn, f"m{i}")), "resolve", i) for i in range(3)]
        active = opened(conn, model(conn, "active"))
        assert incidents.forget(conn, START + 1.5 * HOUR, limit=1) == 1
        assert incidents.forget(conn, START + 1.5 * HOUR) == 1
        assert incidents.forget(conn, START + 1.5 * HOUR) == 0
        assert [one.id for one in incidents.list_incidents(conn)] == [active.id, old[2].id]
        assert {one.incident_id for one in incidents.deliveries(conn)} == {active.id, old[2].id}
        assert incidents.timeline(conn, old[0].id) == []
        assert incidents.forget_model(conn, active.model_id or 0) == 1
        assert [one.id for one in incidents.list_incidents(conn)] == [old[2].id]
