"""Keys: made, shown once, recognised from RAM, rotated with an overlap, revoked at once."""

import re
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError, StoreError
from sentinel_core.security import audit, keys
from sentinel_core.security.keys import KeyRing, NewKey
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.storage import model_store, schema
from sentinel_core.storage.store import Store
from tests.apps.server import eventually
from tests.security.site import Clock

BY = command_line("ada")
DAY = 86_400.0


def make(store: Store, pepper: Pepper, clock: Clock, **values: Any) -> NewKey:
    """A key in a transaction of its own."""
    given = {"project_id": 1, "name": "fraud-service", "scopes": ["ingest"]} | values
    with store.database.write() as connection:
        return keys.create(connection, BY, pepper, now=clock.now, **given)


def ring(store: Store, pepper: Pepper, clock: Clock) -> KeyRing:
    """A ring that has looked, and follows nobody."""
    found = KeyRing(store, pepper, clock)
    found.look()
    return found


def rows(store: Store) -> list[Any]:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(schema.api_keys)))


def test_a_key_is_recognised_and_stored_as_a_hash_only(store: Store, pepper: Pepper, clock: Clock) -> None:
    """The text has the documented form, tells whose it is, and is in no column; another pepper does not know it."""
    key = make(store, pepper, clock, scopes=["read", "ingest"], events_per_second=50.0)
    assert re.fullmatch(r"sml_live_[0-9a-f]{16}_[0-9a-f]{64}", key.text)
    principal = ring(store, pepper, clock).authenticate(key.text)
    assert principal is not None
    assert (principal.kind, principal.id, principal.name) == ("key", key.id, "fraud-service")
    assert (principal.project_id, principal.events_per_second) == (1, 50.0)
    assert principal.scopes == {"ingest", "read"}
    secret = key.text.rpartition("_")[2]
    assert not any(secret in str(value) for value in rows(store)[0])
    assert ring(store, Pepper(b"q" * 32), clock).authenticate(key.text) is None


def test_what_is_no_live_key_is_nobodys(sqlite_store: Store, pepper: Pepper, clock: Clock) -> None:
    """Unknown ids, another key's secret, other forms and nothing at all are refused."""
    key, other = (make(sqlite_store, pepper, clock) for _ in range(2))
    head, _, secret = key.text.rpartition("_")
    known = ring(sqlite_store, pepper, clock)
    wrong = ["", "x", "ü" * 90, head, f"{head}_", f"{head}_{secret[:-1]}", f"{head}_{secret}0", f" {key.text}"]
    wrong += [key.text.upper(), f"{other.text.rpartition('_')[0]}_{secret}", f"sml_live_{'0' * 16}_{secret}"]
    assert [known.authenticate(text) for text in wrong] == [None] * len(wrong)


def test_an_expired_key_is_refused_from_its_second_on(sqlite_store: Store, pepper: Pepper, clock: Clock) -> None:
    """Expiry needs nobody to look."""
    key = make(sqlite_store, pepper, clock, expires_at=clock.now + 10)
    known = ring(sqlite_store, pepper, clock)
    clock.now += 9.9
    assert known.authenticate(key.text) is not None
    clock.now += 0.1
    assert known.authenticate(key.text) is None


def test_a_rotated_key_stays_good_for_the_overlap(store: Store, pepper: Pepper, clock: Clock) -> None:
    """Both keys are good for the stated time, then only the new one, with the same rights and as long a life."""
    old = make(store, pepper, clock, scopes=["ingest"], expires_at=clock.now + 90 * DAY, events_per_second=7.0)
    clock.now += 60 * DAY
    with store.database.write() as connection:
        new = keys.rotate(connection, BY, pepper, old.id, overlap_seconds=DAY, now=clock.now)
    known = ring(store, pepper, clock)
    principals = [known.authenticate(key.text) for key in (old, new)]
    assert principals[0] is not None
    assert principals[1] == replace(principals[0], id=new.id)
    with store.database.read() as connection:
        assert keys.get(connection, new.id).expires_at == clock.now + 90 * DAY
    clock.now += DAY
    assert known.authenticate(old.text) is None
    assert known.authenticate(new.text) is not None


def test_rotation_lets_no_key_live_longer_and_no_dead_one_again(
    sqlite_store: Store, pepper: Pepper, clock: Clock
) -> None:
    """A key that expires before the overlap's end does so; an expired or revoked one has no successor."""
    key = make(sqlite_store, pepper, clock, expires_at=clock.now + 10)
    with sqlite_store.database.write() as connection:
        keys.rotate(connection, BY, pepper, key.id, overlap_seconds=DAY, now=clock.now)
        assert keys.get(connection, key.id).expires_at == clock.now + 10
        for overlap in (-1.0, 100 * DAY, float("nan")):
            with pytest.raises(InvalidError, match="overlap"):
                keys.rotate(connection, BY, pepper, key.id, overlap_seconds=overlap, now=clock.now)
        with pytest.raises(ConflictError, match="is expired; create a new one"):
            keys.rotate(connection, BY, pepper, key.id, overlap_seconds=DAY, now=clock.now + 10)
        keys.revoke(connection, BY, key.id, now=clock.now)
        with pytest.raises(ConflictError, match="is revoked"):
            keys.rotate(connection, BY, pepper, key.id, overlap_seconds=DAY, now=clock.now)


def test_a_revoked_key_is_refused_after_a_look(store: Store, pepper: Pepper, clock: Clock) -> None:
    """In the process that revokes it a look puts it in force at once; revoking twice is revoking once."""
    key = make(store, pepper, clock)
    known = ring(store, pepper, clock)
    assert known.authenticate(key.text) is not None
    with store.database.write() as connection:
        keys.revoke(connection, BY, key.id, now=clock.now)
        keys.revoke(connection, BY, key.id, now=clock.now + 5)
    known.look()
    assert known.authenticate(key.text) is None
    assert rows(store)[0].revoked_at == clock.now


def test_a_ring_follows_what_other_processes_change(store: Store, pepper: Pepper, clock: Clock) -> None:
    """A started ring learns of new and of revoked keys by itself."""
    key = make(store, pepper, clock)
    with Store.open(store.database.url.render_as_string(hide_password=False), store.segments.folder.url) as other:
        known = KeyRing(other, pepper, clock)
        known.start()
        try:
            second = make(store, pepper, clock)
            eventually(lambda: known.authenticate(second.text) is not None)
            with store.database.write() as connection:
                keys.revoke(connection, BY, key.id, now=clock.now)
            eventually(lambda: known.authenticate(key.text) is None)
        finally:
            known.close()


def test_the_store_is_read_only_where_it_changed(
    sqlite_store: Store, pepper: Pepper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks without a change in the store cost no query of the keys, and recognising costs no look."""
    key = make(sqlite_store, pepper, clock)
    known = ring(sqlite_store, pepper, clock)
    monkeypatch.setattr(known, "_read", lambda: pytest.fail("nothing has changed"))
    for _ in range(3):
        known.look()
        assert known.authenticate(key.text) is not None


def test_keys_that_cannot_be_checked_are_an_error(
    sqlite_store: Store, pepper: Pepper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring that has not reached the store for a minute recognises nobody: any key may have been revoked since."""
    key = make(sqlite_store, pepper, clock)
    known = KeyRing(sqlite_store, pepper, clock)
    with pytest.raises(StoreError, match="keys cannot be checked"):
        known.authenticate(key.text)
    known.look()
    assert known.authenticate(key.text) is not None
    monkeypatch.setattr(known, "_looked_at", known._looked_at - keys.STALE_SECONDS)
    with pytest.raises(StoreError, match="keys cannot be checked"):
        known.authenticate(key.text)


def test_last_use_is_written_later_and_never_back(store: Store, pepper: Pepper, clock: Clock) -> None:
    """Recognising writes nothing; what was used is written down when the ring closes, unless it is newer already."""
    key, unused = make(store, pepper, clock), make(store, pepper, clock, name="unused")
    known = ring(store, pepper, clock)
    known.authenticate(key.text)
    assert {row.last_used_at for row in rows(store)} == {None}
    known.close()
    assert {row.id: row.last_used_at for row in rows(store)} == {key.id: clock.now, unused.id: None}
    late = ring(store, pepper, Clock(clock.now - 100))
    late.authenticate(key.text)
    late.close()
    assert {row.id: row.last_used_at for row in rows(store)}[key.id] == clock.now


def test_threads_may_share_a_ring(sqlite_store: Store, pepper: Pepper, clock: Clock) -> None:
    """While one thread makes keys and looks, others recognise the first one all the time."""
    key = make(sqlite_store, pepper, clock)
    known = ring(sqlite_store, pepper, clock)
    failures: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            if known.authenticate(key.text) is None:
                failures.append(1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        fresh = make(sqlite_store, pepper, clock)
        known.look()
        assert known.authenticate(fresh.text) is not None
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_values_that_cannot_be_are_all_named(store: Store, pepper: Pepper, clock: Clock) -> None:
    """A key needs a name, known scopes, a future expiry, a rate above zero, and a project."""
    bad = {"name": "\0", "scopes": ["write"], "expires_at": clock.now, "events_per_second": 0.0}
    with pytest.raises(InvalidError) as caught:
        make(store, pepper, clock, **bad)
    assert set(caught.value.problems) == set(bad)
    with pytest.raises(InvalidError):
        make(store, pepper, clock, scopes=[])
    with pytest.raises(NotFoundError, match="no project 99"):
        make(store, pepper, clock, project_id=99)
    assert not rows(store)


def test_a_key_of_every_project_only_reads(store: Store, pepper: Pepper, clock: Clock) -> None:
    """Whoever has it sees everything and changes nothing; its successor is one, too."""
    for scopes in (["ingest"], ["read", "ingest"], ["admin"]):
        with pytest.raises(InvalidError, match="scopes: of a key of every project is read"):
            make(store, pepper, clock, project_id=None, scopes=scopes)
    old = make(store, pepper, clock, project_id=None, scopes=["read"])
    with store.database.write() as connection:
        new = keys.rotate(connection, BY, pepper, old.id, overlap_seconds=0.0, now=clock.now)
    principal = ring(store, pepper, clock).authenticate(new.text)
    assert principal is not None
    assert (principal.project_id, principal.may("read", 7), principal.may("administer")) == (None, True, False)
    with store.database.read() as connection:
        assert (keys.list_keys(connection, 1), len(keys.list_keys(connection))) == ([], 2)
        assert {entry.project_id for entry in audit.entries(connection)} == {None}


def test_keys_are_listed_by_project(store: Store, pepper: Pepper, clock: Clock) -> None:
    """A project's list holds its own keys; an id that is none is not found, whatever is in it."""
    with store.database.write() as connection:
        other = model_store.add_project(connection, "payments", clock.now)
    mine, theirs = make(store, pepper, clock), make(store, pepper, clock, project_id=other)
    with store.database.read() as connection:
        assert [key.id for key in keys.list_keys(connection, 1)] == [mine.id]
        assert {key.id for key in keys.list_keys(connection)} == {mine.id, theirs.id}
        for wrong in ("0" * 16, "", "\0", mine.text):
            with pytest.raises(NotFoundError):
                keys.get(connection, wrong)


def test_every_change_is_audited_without_the_secret(store: Store, pepper: Pepper, clock: Clock) -> None:
    """Who, what and which key; never the key itself."""
    key = make(store, pepper, clock)
    with store.database.write() as connection:
        new = keys.rotate(connection, BY, pepper, key.id, overlap_seconds=0.0, now=clock.now)
        keys.revoke(connection, BY, new.id, now=clock.now)
        noted = audit.entries(connection, 1)
    assert [entry.action for entry in noted] == ["key.revoke", "key.rotate", "key.create", "key.create"]
    assert {entry.actor for entry in noted} == {"ada (command line)"}
    assert noted[1].target == f"key {key.id}"
    assert noted[1].detail == {"name": "fraud-service", "successor": new.id, "good_until": clock.now}
    assert not any(secret.rpartition("_")[2] in str(noted) for secret in (key.text, new.text))


def test_a_failed_transaction_leaves_neither_key_nor_audit(store: Store, pepper: Pepper, clock: Clock) -> None:
    """The audit row is in the key's own transaction."""
    with suppress(RuntimeError), store.database.write() as connection:
        keys.create(connection, BY, pepper, project_id=1, name="x", scopes=["read"], now=clock.now)
        raise RuntimeError
    with store.database.read() as connection:
        assert (keys.list_keys(connection), audit.entries(connection)) == ([], [])


def test_keys_of_a_lost_pepper_are_named(sqlite_store: Store, pepper: Pepper, clock: Clock) -> None:
    """With another secret the live keys that nobody can use are said, with what to do; with theirs, nothing."""
    for name in ("a", "b"):
        make(sqlite_store, pepper, clock, name=name)
    make(sqlite_store, pepper, clock, name="gone", expires_at=clock.now + 1)
    clock.now += 1
    with sqlite_store.database.read() as connection:
        assert keys.lost(connection, pepper, now=clock.now) is None
        said = keys.lost(connection, Pepper(b"q" * 32), now=clock.now)
    assert said is not None
    assert said.startswith("2 keys were made with another secret, and nobody can use them any more (a, b): bring back")
