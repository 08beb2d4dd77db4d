"""Users, their passwords and sessions, the first admin's link, and the throttle: in SQL, with moved clocks."""

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.errors import ConflictError, InvalidError, NotFoundError
from sentinel_core.security import audit, sessions, throttle, users
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.principals import LOCAL, ROLES, SCOPES, Principal, command_line
from sentinel_core.storage import model_store, schema
from sentinel_core.storage.store import Store

BY = command_line("ada")


def add(connection: sa.Connection, name: str = "grace", role: str = "viewer", project_id: int | None = None) -> int:
    return users.create(connection, BY, name=name, password_hash="…", role=role, project_id=project_id, now=1.0)


# ---- users


def test_a_user_is_found_however_the_name_is_written(store: Store) -> None:
    """Names are lower case; each is there once, and what is no name is nobody's."""
    with store.database.write() as connection:
        user_id = add(connection, " Grace@Example.org ", "operator")
        assert users.find(connection, "GRACE@example.org") == users.get(connection, user_id)
        assert users.get(connection, user_id).principal == Principal(
            "grace@example.org", "user", None, "operator", id=str(user_id)
        )
        with pytest.raises(ConflictError, match=r"there is a user grace@example\.org already"):
            add(connection, "grace@example.ORG")
        assert [users.find(connection, name) for name in ("", "x", "\0", "ü")] == [None] * 4
        with pytest.raises(NotFoundError):
            users.get(connection, 99)


@pytest.mark.parametrize("name", ["", " ", "-a", "a b", "a" * 65, "grä", "a\0", "<b>"])
def test_names_that_cannot_be_are_refused(sqlite_store: Store, name: str) -> None:
    """A name is plain characters, and a role one of three; both problems are named at once."""
    with sqlite_store.database.write() as connection:
        with pytest.raises(InvalidError) as caught:
            add(connection, name, "root")
        assert set(caught.value.problems) == {"name", "role"}
        with pytest.raises(NotFoundError, match="no project 99"):
            add(connection, project_id=99)


def test_the_last_admin_stays(store: Store) -> None:
    """Nobody can disable or demote the last one who may manage users; an admin of one project is no such one."""
    with store.database.write() as connection:
        first = add(connection, "a", "admin")
        add(connection, "b", "admin", project_id=1)
        for leave in (
            lambda: users.set_disabled(connection, BY, first, True, now=2.0),
            lambda: users.set_role(connection, BY, first, "viewer", now=2.0),
        ):
            with pytest.raises(ConflictError, match="a is the last admin; make another one first"):
                leave()
        add(connection, "c", "admin")
        users.set_disabled(connection, BY, first, True, now=2.0)
        assert users.get(connection, first).disabled_at == 2.0
        users.set_disabled(connection, BY, first, False, now=3.0)
        assert users.get(connection, first).disabled_at is None
        users.set_role(connection, BY, first, "operator", now=4.0)
        with pytest.raises(InvalidError):
            users.set_role(connection, BY, first, "root", now=4.0)
        actions = [entry.action for entry in audit.entries(connection)]
    assert actions == ["user.role", "user.enable", "user.disable", "user.create", "user.create", "user.create"]


def test_a_new_password_ends_the_other_sessions_and_forgives_guesses(store: Store) -> None:
    """All sessions end, but for the one it was changed in; nobody has to wait because somebody guessed before."""
    with store.database.write() as connection:
        user_id = add(connection)
        for _ in range(3):
            throttle.claim(connection, {"user:grace": 0}, now=2.0 + _ * 60)
        kept, other = (sessions.open_session(connection, user_id, now=2.0) for _ in range(2))
        users.set_password(connection, BY, user_id, "new", keep=kept.token, now=200.0)
        assert users.password_hash(connection, user_id) == "new"
        assert sessions.find(connection, kept.token, now=200.0) is not None
        assert sessions.find(connection, other.token, now=200.0) is None
        assert throttle.claim(connection, {"user:grace": 1}, now=200.0) == 0
        users.set_password(connection, BY, user_id, "newer", now=201.0)
        assert sessions.find(connection, kept.token, now=201.0) is None
        assert "new" not in str([entry.detail for entry in audit.entries(connection)])


def test_another_hash_of_the_same_password_never_undoes_a_change(sqlite_store: Store) -> None:
    """A hash that was brought up to date is kept only where the password is still the one it was made from."""
    with sqlite_store.database.write() as connection:
        user_id = add(connection)
        users.rehash(connection, user_id, "…", "better")
        users.rehash(connection, user_id, "…", "late")
        assert users.password_hash(connection, user_id) == "better"


# ---- the first admin


def test_a_link_makes_the_first_admin_once(store: Store) -> None:
    """Good for an hour, spent by its use, superseded by the next one, and none where there is a user."""
    with store.database.write() as connection:
        old = users.first_link(connection, now=0.0)
        token = users.first_link(connection, now=10.0)
        assert old is not None
        assert token is not None
        assert [users.link_is_good(connection, one, now=20.0) for one in (old, token, "", "x")] == [
            False,
            True,
            False,
            False,
        ]
        assert users.link_is_good(connection, token, now=10.0 + 3599)
        assert not users.link_is_good(connection, token, now=10.0 + 3600)
        stored = connection.execute(sa.select(schema.one_time_links.c.token_hash)).scalars().all()
        assert token not in stored
        user_id = users.create_first(connection, token, name="ada", password_hash="…", now=30.0)
        assert users.get(connection, user_id).principal.may("govern")
        assert [entry.actor for entry in audit.entries(connection)] == ["one-time link"]
        with pytest.raises(NotFoundError, match="this link is used, too old"):
            users.create_first(connection, token, name="eve", password_hash="…", now=31.0)
        assert users.first_link(connection, now=40.0) is None


def test_a_link_is_void_once_there_is_a_user(sqlite_store: Store) -> None:
    """Whoever was made from the command line meanwhile ends the link, disabled or not."""
    with sqlite_store.database.write() as connection:
        token = users.first_link(connection, now=0.0)
        assert token is not None
        user_id = add(connection)
        users.set_disabled(connection, BY, user_id, True, now=1.0)
        with pytest.raises(NotFoundError):
            users.create_first(connection, token, name="eve", password_hash="…", now=2.0)


# ---- sessions


def test_a_session_ends_when_it_rests_and_when_it_is_old(store: Store) -> None:
    """Eight hours without use end it, use prolongs it, and a week ends it whatever happens; the store has hashes."""
    with store.database.write() as connection:
        user_id = add(connection)
        session = sessions.open_session(connection, user_id, now=0.0)
        stored = connection.execute(sa.select(schema.sessions)).one()
        assert session.token not in [str(value) for value in stored]
        assert sessions.find(connection, session.token, now=sessions.IDLE_SECONDS - 1) == session
        assert sessions.find(connection, session.token, now=sessions.IDLE_SECONDS) is None
        assert not sessions.needs_renewal(session, 59.0)
        now = 0.0
        while sessions.needs_renewal(session, now := now + 3 * 3600):
            sessions.renew(connection, session, now=now)
            found = sessions.find(connection, session.token, now=now)
            assert found is not None
            session = found
        assert session.expires_at == sessions.ABSOLUTE_SECONDS
        assert sessions.find(connection, session.token, now=sessions.ABSOLUTE_SECONDS) is None


def test_sessions_are_each_their_own(store: Store) -> None:
    """Tokens and CSRF tokens differ, logging out ends one, and expired ones are forgotten at the next login."""
    with store.database.write() as connection:
        user_id = add(connection)
        one, two = (sessions.open_session(connection, user_id, now=0.0) for _ in range(2))
        assert len({one.token, two.token, one.csrf, two.csrf}) == 4
        sessions.end(connection, one.token)
        assert sessions.find(connection, one.token, now=1.0) is None
        assert sessions.find(connection, two.token, now=1.0) == two
        sessions.open_session(connection, user_id, now=sessions.IDLE_SECONDS)
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.sessions)) == 1


# ---- passwords


def test_passwords_are_argon2id_with_the_documented_cost(passwords: Passwords) -> None:
    """The default is argon2id with 64 MiB and three passes; a hash of other parameters is out of date."""
    hashed = Passwords().hash("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert Passwords().outdated(passwords.hash("correct horse battery"))
    assert not Passwords().outdated(hashed)


def test_only_the_password_is_right(passwords: Passwords) -> None:
    """Another one, another hash and no user at all are wrong; composed and decomposed letters are the same."""
    hashed = passwords.hash("Zürich Zürich")
    assert passwords.verify(hashed, "Zürich Zürich")
    assert passwords.verify(hashed, "Zu\u0308rich Zu\u0308rich")
    assert not passwords.verify(hashed, "zürich zürich")
    assert not passwords.verify("no hash", "Zürich Zürich")
    assert not passwords.verify(None, "nobody's password")


@pytest.mark.parametrize("password", ["", "eleven char", "x" * 1025])
def test_short_and_endless_passwords_are_refused(passwords: Passwords, password: str) -> None:
    """A password takes 12 to 1,024 characters."""
    with pytest.raises(InvalidError, match="12 to 1024 characters"):
        passwords.hash(password)


def test_nobodys_password_takes_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such user, just as much is computed."""
    done: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            done.append("verify")
            return super().verify(hash, password)

    passwords = Passwords(Counting(time_cost=1, memory_cost=8, parallelism=1))
    known = passwords.hash("correct horse battery")
    for candidate in (known, None):
        assert not passwords.verify(candidate, "a wrong password")
    assert done == ["verify", "verify"]


# ---- throttle


def test_attempts_are_free_first_and_then_wait_ever_longer(store: Store) -> None:
    """Three free attempts, then pauses that double up to a minute; an attempt during a pause is not counted."""
    with store.database.write() as connection:
        subjects, now = {"user:grace": 3, "address:10.0.0.1": 100}, 0.0
        assert [throttle.claim(connection, subjects, now=now) for _ in range(3)] == [0.0] * 3
        pauses = []
        for _ in range(8):
            wait = throttle.claim(connection, subjects, now=now)
            assert throttle.claim(connection, subjects, now=now) == wait
            pauses.append(wait)
            now += wait
            assert throttle.claim(connection, subjects, now=now) == 0
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
        assert throttle.claim(connection, {"user:ada": 3, "address:10.0.0.1": 100}, now=now) == 0


def test_the_longest_wait_of_all_subjects_counts(sqlite_store: Store) -> None:
    """One subject in a pause is enough, and then none is counted."""
    with sqlite_store.database.write() as connection:
        throttle.claim(connection, {"address:a": 1}, now=0.0)
        assert throttle.claim(connection, {"user:x": 2, "address:a": 1}, now=0.0) == 1
        assert [throttle.claim(connection, {"user:x": 2}, now=0.0) for _ in range(3)] == [0, 0, 1]


def test_failures_are_forgotten(sqlite_store: Store) -> None:
    """After an hour without an attempt, and after a success; a clock that was set back locks nobody out."""
    with sqlite_store.database.write() as connection:
        for now in (0.0, 100.0, 200.0):
            throttle.claim(connection, {"user:x": 1, "user:y": 1}, now=now)
        throttle.clear(connection, "user:y")
        assert throttle.claim(connection, {"user:y": 1}, now=200.0) == 0
        assert throttle.claim(connection, {"user:x": 1}, now=200.0) == 4
        assert [throttle.claim(connection, {"user:x": 1}, now=200.0 + 3601) for _ in range(2)] == [0, 1]
        throttle.claim(connection, {"user:z": 1}, now=1e6)
        assert throttle.claim(connection, {"user:z": 1}, now=0.0) == 0


# ---- principals and audit

ACTIONS = ("ingest", "read", "operate", "administer", "govern")


def test_rights_are_as_documented() -> None:
    """Each role and scope may do exactly what the manual's table says."""
    of_role = {role: [a for a in ACTIONS if Principal("x", "user", None, role).may(a)] for role in ROLES}
    assert of_role == {
        "viewer": ["read"],
        "operator": ["read", "operate"],
        "admin": ["read", "operate", "administer", "govern"],
    }
    of_scope = {s: [a for a in ACTIONS if Principal("x", "key", 1, scopes=frozenset({s})).may(a)] for s in SCOPES}
    assert of_scope == {
        "ingest": ["ingest"],
        "read": ["read"],
        "admin": ["ingest", "read", "operate", "administer"],
    }
    assert [a for a in ACTIONS if LOCAL.may(a)] == ["read"]
    assert not Principal("x", "user", 1, "admin").may("govern")
    assert not Principal("x", "user", None).may("read")


@given(st.sampled_from(ROLES), st.none() | st.integers(1, 3), st.integers(1, 3), st.sampled_from(ACTIONS))
def test_nobody_may_anything_in_a_project_of_others(role: str, own: int | None, other: int, action: str) -> None:
    """What is allowed in a project is allowed somewhere, and only in a project that they see."""
    principal = Principal("x", "user", own, role)  # type: ignore[arg-type]  # drawn from the roles
    allowed = principal.may(action, other)  # type: ignore[arg-type]  # drawn from the actions
    assert allowed == (principal.may(action) and principal.sees(other))  # type: ignore[arg-type]
    assert principal.sees(other) == (own in (None, other))


def test_the_audit_is_read_by_project_and_forgotten_by_age(store: Store) -> None:
    """Newest first, a page at a time, of one project or of all; what is older than a time goes."""
    with store.database.write() as connection:
        other = model_store.add_project(connection, "payments", 0.0)
        for at in range(6):
            audit.write(connection, BY, "a", f"t{at}", {"n": at}, project_id=[1, other, None][at % 3], now=float(at))
        assert [entry.at for entry in audit.entries(connection)] == [5, 4, 3, 2, 1, 0]
        assert [entry.target for entry in audit.entries(connection, 1)] == ["t3", "t0"]
        first = audit.entries(connection, limit=2)
        assert [entry.at for entry in audit.entries(connection, before=first[-1].id, limit=2)] == [3, 2]
        assert audit.forget(connection, 4.0) == 4
        assert [entry.detail for entry in audit.entries(connection)] == [{"n": 5}, {"n": 4}]
