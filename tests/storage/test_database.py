"""The SQL store as its users meet it: on real SQLite files and a real PostgreSQL server."""

import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sentinel_core.errors import StoreError
from sentinel_core.storage import quality_store, series_models, watch_store
from sentinel_core.storage.database import MIGRATIONS, SCHEMA_REVISION, Database
from sentinel_core.storage.schema import api_keys, counters, metadata
from sentinel_core.storage.store import Store


def add(connection: sa.Connection, amount: float = 1.0) -> None:
    """Add to a counter the unsafe way: read, then write."""
    value = connection.execute(sa.select(counters.c.value)).scalar()
    if value is None:
        connection.execute(counters.insert().values(name="n", labels="{}", value=amount))
    else:
        connection.execute(counters.update().values(value=value + amount))


def fail_half_way(database: Database) -> None:
    with database.write() as connection:
        add(connection)
        raise RuntimeError("half way")


def total(database: Database) -> float:
    with database.read() as connection:
        return float(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(counters.c.value), 0))).scalar_one())


def test_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    """What the migrations create is what schema.py declares, types and defaults included."""
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        assert compare_metadata(context, metadata) == []


def test_the_known_revision_is_the_newest_migration() -> None:
    """The constant that spares ticks the import of Alembic agrees with the files."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]


def test_keys_of_before_stay_those_of_their_project(sql_url: str) -> None:
    """A store with a key from before keys of every project keeps it, and then takes one of every project."""
    database = Database(sql_url)
    with database.append() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    row = {"project_id": 1, "name": "n", "hash": "h", "pepper": "p", "scopes": "read", "created_by": "c"}
    with database.write() as connection:
        connection.execute(api_keys.insert().values(id="a", created_at=0.0, **row))
    database.migrate()
    with database.write() as connection:
        connection.execute(api_keys.insert().values(id="b", created_at=1.0, **{**row, "project_id": None}))
        rows = connection.execute(sa.select(api_keys.c.id, api_keys.c.project_id).order_by("id")).all()
    assert [tuple(one) for one in rows] == [("a", 1), ("b", None)]
    database.close()


def test_a_store_of_the_release_before_keeps_what_it_knows(sql_url: str) -> None:
    """Watches, their state and their series stay; of what was not measured then, nothing is known."""
    database = Database(sql_url)
    with database.append() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for statement in (
            "insert into watches (id, slug, selector, created_at) values (1, 'w', 'up', 0)",
            "insert into watch_state (watch_id, scraped_until, scored_until) values (1, 120, 60)",
            "insert into series (watch_id, fingerprint, name, labels, first_seen) values (1, -7, 'up', '{}', 0)",
        ):
            connection.execute(sa.text(statement))
    database.migrate()
    with database.write() as connection:
        state = watch_store.states(connection)["w"]
        assert (state.scraped_until, state.scored_until, state.verified_until) == (120, 60, None)
        assert [one.fingerprint for one in watch_store.series_of(connection, [1])] == [-7]
        assert series_models.counts(connection, [1]) == quality_store.newest(connection) == {}
        series_models.note(connection, 1, np.array([-7]), ["LinearTrendModel"])
        assert series_models.names(connection, 1, [-7]) == {-7: "LinearTrendModel"}
    database.close()


def test_processes_that_migrate_at_once_do_it_once(sql_url: str) -> None:
    """Four processes start on an empty store; all succeed."""
    code = f"from sentinel_core.storage.database import Database; Database({sql_url!r}).migrate()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    database = Database(sql_url)
    database.require_schema()
    database.close()


def test_an_ordinary_start_does_not_import_alembic_or_duckdb(tmp_path: Path) -> None:
    """A fresh process per tick pays for what it uses: a migrated store opens without the heavy libraries."""
    url = f"sqlite:///{tmp_path}/s.db"
    first = Database(url)
    first.migrate()
    first.close()
    code = (
        "import sys; from sentinel_core.storage.store import Store; "
        f"store = Store.open({url!r}, {str(tmp_path)!r}); store.database.migrate(); "
        "print(sorted({'alembic', 'duckdb', 'obstore', 'fsspec'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_newer_schema_is_refused_with_the_way_out(store: Store) -> None:
    """A store written by a newer Sentinel is left alone, and the message says what to do."""
    with store.database.write() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(StoreError, match=r"newer Sentinel \(schema 9999.*upgrade Sentinel, or point artifact_store"):
        store.database.migrate()


def test_a_store_without_tables_says_who_creates_them(sql_url: str) -> None:
    """Reading before the first migration tells to start Sentinel once."""
    database = Database(sql_url)
    with pytest.raises(StoreError, match="start `sentinel up` once"):
        total(database)
    with pytest.raises(StoreError, match="start `sentinel up` once"):
        database.require_schema()
    database.close()


def test_an_error_inside_a_write_leaves_nothing(store: Store) -> None:
    """A transaction that raises is rolled back whole."""
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(store.database)
    assert total(store.database) == 0


def test_writers_queue_so_that_read_then_write_is_safe(store: Store) -> None:
    """Eight threads read a counter and write it back plus one; no update is lost."""

    def work(_: int) -> None:
        with store.database.write() as connection:
            add(connection)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(80)))
    assert total(store.database) == 80


def test_a_reader_sees_one_snapshot(store: Store) -> None:
    """What commits while a reader is open stays out of its sight."""
    with store.database.read() as reader:
        before = reader.execute(sa.select(sa.func.count()).select_from(counters)).scalar_one()
        with store.database.write() as connection:
            add(connection)
        assert reader.execute(sa.select(sa.func.count()).select_from(counters)).scalar_one() == before
    assert total(store.database) == 1


def test_the_change_token_moves_with_commits_only(store: Store) -> None:
    """Equal while nothing is committed, different after any commit, whoever made it."""
    first = store.database.change_token()
    assert store.database.change_token() == first
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(store.database)
    assert store.database.change_token() == first
    with store.database.write() as connection:
        add(connection)
    second = store.database.change_token()
    assert second != first
    other = Database(store.database.url.render_as_string(hide_password=False))
    with other.write() as connection:
        add(connection)
    other.close()
    assert store.database.change_token() != second


def test_a_stuck_writer_is_named_after_the_wait(sql_url: str) -> None:
    """Who waits longer than the limit gets a StoreError that says what to look for; the store works on afterwards."""
    holder = Database(sql_url)
    holder.migrate()
    waiting = Database(sql_url, lock_seconds=0.3)
    with holder.write() as connection:
        add(connection)
        with pytest.raises(StoreError, match="locked by another writer"), waiting.write():
            pass
    with waiting.write() as connection:
        add(connection)
    assert total(waiting) == 2
    waiting.close()
    holder.close()


def test_a_pool_without_a_free_connection_refuses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind somebody who is stuck every connection waits; the next one to ask is told so."""
    monkeypatch.setattr(store.database.engine.pool, "_timeout", 0.1)
    with ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(store.database.read())
        with pytest.raises(StoreError, match="too busy"):
            stack.enter_context(store.database.read())


def test_waiting_writers_get_their_turn(tmp_path: Path) -> None:
    """Beside a writer that never pauses, another one is served within a few transactions."""
    database = Database(f"sqlite:///{tmp_path}/s.db")
    database.migrate()
    stop = threading.Event()

    def greedy() -> None:
        while not stop.is_set():
            with database.write() as connection:
                add(connection)
                time.sleep(0.005)

    thread = threading.Thread(target=greedy)
    thread.start()
    waits = []
    for _ in range(10):
        begun = time.monotonic()
        with database.write() as connection:
            add(connection)
        waits.append(time.monotonic() - begun)
    stop.set()
    thread.join()
    database.close()
    assert sorted(waits)[5] < 0.5


def test_a_foreign_lock_on_the_file_is_explained(tmp_path: Path) -> None:
    """A database browser that holds a transaction open is what the message suggests."""
    database = Database(f"sqlite:///{tmp_path}/s.db", lock_seconds=0.2)
    database.migrate()
    foreign = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    foreign.execute("begin immediate")
    with pytest.raises(StoreError, match="database browser"), database.write():
        pass
    foreign.close()
    database.close()


def test_a_full_database_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """SQLite's own "disk is full" becomes the words about space; committed rows stay readable."""
    database = Database(f"sqlite:///{tmp_path}/s.db")
    database.migrate()
    with database.write() as connection:
        add(connection)

    def fill() -> None:
        with database.write() as connection:
            pages = connection.exec_driver_sql("pragma page_count").scalar_one()
            connection.exec_driver_sql(f"pragma max_page_count = {pages + 2}")
            rows = [{"name": f"{i}", "labels": "x" * 500, "value": 0.0} for i in range(1000)]
            connection.execute(counters.insert(), rows)

    with pytest.raises(StoreError, match=r"no space left on the disk of sqlite.*free space or move artifact_store"):
        fill()
    assert total(database) == 1
    database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql://host/db", "not supported"),
        ("not a url", "is not a URL"),
    ],
)
def test_urls_that_no_store_can_have_are_refused(url: str, words: str) -> None:
    """Each says what to write instead."""
    with pytest.raises(StoreError, match=words):
        Database(url)


def test_a_password_never_reaches_a_message() -> None:
    """An unreachable server is named without its password."""
    database = Database("postgresql://sentinel:hunter2@127.0.0.1:9/db")
    with pytest.raises(StoreError) as caught, database.read():
        pass
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    database.close()
