"""The SQL store: SQLite in one file by default, PostgreSQL beyond one machine; the same promises on both.

- `read()` is one consistent snapshot.
- `write()` is one transaction, and write transactions queue: one at a time, in the order they came, so that the order
  of ids is the order of commits. Keep file I/O out of it, and no more than about 10,000 rows in it.
- A commit is on the disk when `write()` returns.
"""

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sentinel_core.errors import StoreError
from sentinel_core.storage.schema import changes

SCHEMA_REVISION = "0004"  # the newest file in migrations/versions; a test proves it
MIGRATIONS = Path(__file__).parent / "migrations"
WAL_ATTEMPTS = 100  # five seconds for processes that open a new file at once
LOCK_SECONDS = 60.0  # a write transaction takes milliseconds; after a minute of queueing somebody is stuck
MIGRATION_LOCK = 0x53454E54  # PostgreSQL advisory lock, "SENT"; used before the first table exists

_WRITE = "sentinel_write"
_REMEDY_DISK = "free space or move artifact_store (sql_url, data_url) to a larger disk"


class Database:
    """Connections to one SQL URL; safe to share between threads, to be opened anew in each process."""

    def __init__(self, url: str, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.lock_seconds = lock_seconds
        self.url = _with_driver(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.shown_url = self.url.render_as_string(hide_password=True)
        self._token_lock = threading.Lock()
        self._token_connection: sqlite3.Connection | None = None
        try:
            self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine()
        except ImportError as error:
            raise StoreError(
                f"{self.shown_url} needs a driver that is not installed: pip install 'sentinel[postgres]'"
            ) from error

    # -- engines ---------------------------------------------------------------------------------------------------

    def _sqlite_engine(self) -> sa.Engine:
        if not self.url.database or self.url.database == ":memory:":
            raise StoreError("sql_url names no file; several processes share it: write sqlite:////path/to/sentinel.db")
        self._path = Path(self.url.database).absolute()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot create the folder of {self._path}: {error.strerror}; choose another artifact_store"
            ) from error
        # isolation_level=None: the driver begins nothing by itself; `_begin` below does.
        engine = sa.create_engine(self.url, connect_args={"isolation_level": None, "timeout": self.lock_seconds})
        sa.event.listen(engine, "do_connect", lambda *_: _create_privately(self._path))
        sa.event.listen(engine, "connect", _sqlite_pragmas)
        sa.event.listen(engine, "begin", _sqlite_begin)
        return engine

    def _postgres_engine(self) -> sa.Engine:
        options = f"-c lock_timeout={int(self.lock_seconds * 1000)} -c timezone=UTC"
        return sa.create_engine(self.url, connect_args={"options": options, "connect_timeout": 10}, pool_pre_ping=True)

    # -- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one snapshot of the store.

        Raises StoreError where the store refuses.
        """
        options: dict[str, Any] = (
            {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with self._translated(), self.engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yield a connection inside ONE write transaction: committed at the end, rolled back when anything raises.

        Raises StoreError for a full disk, a lock held for too long and an unreachable server.
        """
        with self._exclusive() as connection:
            if not self.is_sqlite:  # takes the row's lock, which is the queue
                connection.execute(changes.update().values(value=changes.c.value + 1))
            yield connection

    @contextmanager
    def append(self) -> Iterator[sa.Connection]:
        """Yield a connection inside one transaction that only adds rows whose order nobody relies on.

        Durable as `write()` is. On PostgreSQL it neither queues behind other writers nor moves the change token.
        """
        with self._exclusive() as connection:
            yield connection

    @contextmanager
    def _exclusive(self) -> Iterator[sa.Connection]:
        options = {_WRITE: True}
        with (
            self._translated(),
            self._gate(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """Queue the writers of an SQLite file: its own busy handler is unfair (4.1 s beside a busy writer, 4 ms so)."""
        if not self.is_sqlite:
            yield
            return
        gate = self._path.with_name(self._path.name + ".gate")
        try:
            descriptor = os.open(gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"cannot open {gate}: {error.strerror}; artifact_store must be writable") from error
        try:
            if not _lock(descriptor, self.lock_seconds):
                raise StoreError(
                    f"{self._path} has been locked by another writer for {self.lock_seconds:g} s: end the process that "
                    f"holds {gate} (`fuser {gate}` names it). Only local disks are supported, not NFS or SMB"
                )
            try:
                yield
            finally:
                fcntl.flock(
                    descriptor, fcntl.LOCK_UN
                )  # also frees it where a forked child has inherited the descriptor
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise StoreError(
                    f"{gate} cannot be locked: keep artifact_store on a local disk, not on NFS or SMB"
                ) from error
            raise
        finally:
            with suppress(OSError):
                os.close(descriptor)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:  # locks, full disks, lost servers; IntegrityError stays what it is
            raise StoreError(self._explain(error)) from error
        except sa.exc.TimeoutError as error:  # of the pool: every connection waits for somebody else's transaction
            raise StoreError(f"{self.shown_url} is too busy: {error}; try again in a moment") from error
        except sa.exc.ProgrammingError as error:
            if any(words in str(error.orig) for words in ("no such table", "no such column", "does not exist")):
                raise StoreError(_UNMIGRATED.format(url=self.shown_url)) from error
            raise

    def _explain(self, error: sa.exc.OperationalError) -> str:
        text = str(error.orig).strip()
        state = getattr(error.orig, "sqlstate", None)
        if "disk is full" in text or state == "53100":
            return f"no space left on the disk of {self.shown_url}: {_REMEDY_DISK}"
        if "disk I/O error" in text:
            return f"the disk of {self.shown_url} fails ({text}): check the disk; only local disks are supported"
        if "database is locked" in text or state == "55P03":
            return (
                f"{self.shown_url} has been locked by another writer for {self.lock_seconds:g} s: end the program that "
                "holds a transaction open (a database browser, a backup). Only local disks are supported"
            )
        if "no such table" in text or "no such column" in text:
            return _UNMIGRATED.format(url=self.shown_url)
        if "readonly database" in text or "unable to open" in text:
            return f"cannot write {self.shown_url} ({text}): check the permissions of artifact_store"
        return f"{self.shown_url} refuses: {text}"

    def scrub(self) -> None:
        """Overwrite what was deleted: SQLite keeps deleted rows in its free pages, PostgreSQL vacuums by itself.

        Takes a second for each few hundred megabytes. What a reader still sees stays in the write-ahead log until the
        next checkpoint.
        """
        if not self.is_sqlite:
            return
        with self._gate(), suppress(sqlite3.OperationalError):  # a busy reader: what it sees goes with the next one
            connection = self.engine.raw_connection()
            try:
                for statement in ("vacuum", "pragma wal_checkpoint(truncate)"):
                    connection.cursor().execute(statement).fetchall()
            finally:
                connection.close()

    # -- schema ----------------------------------------------------------------------------------------------------

    def schema_revision(self) -> str | None:
        """Return the revision that the tables have, or None before the first migration."""
        with self._translated(), self.engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("select version_num from alembic_version")).scalar()

    def migrate(self) -> None:
        """Create or upgrade the tables; cheap when there is nothing to do. Safe from many processes at once.

        Raises StoreError where a newer Sentinel has written the store.
        """
        if self._is_current(self.schema_revision()):
            return
        # Alembic costs 0.3 s to import: only here, never in an ordinary tick.
        from alembic import command
        from alembic.config import Config

        with self._exclusive() as connection:
            if not self.is_sqlite:  # the row that queues writers does not exist yet
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def require_schema(self) -> None:
        """Raise StoreError unless the tables are those that this code knows."""
        if not self._is_current(self.schema_revision()):
            raise StoreError(_UNMIGRATED.format(url=self.shown_url))

    def _is_current(self, revision: str | None) -> bool:
        if revision is not None and revision > SCHEMA_REVISION:
            raise StoreError(
                f"{self.shown_url} was written by a newer Sentinel (schema {revision}, this one knows {SCHEMA_REVISION}"
                "): upgrade Sentinel, or point artifact_store (sql_url) elsewhere"
            )
        return revision == SCHEMA_REVISION

    # -- change token ----------------------------------------------------------------------------------------------

    def change_token(self) -> int:
        """Return a number that differs once anything has been committed since the last call (SQLite: 9 µs).

        Compare it for equality only, and only with tokens of this same object.
        """
        if not self.is_sqlite:
            with self.read() as connection:
                return int(connection.execute(sa.select(changes.c.value)).scalar_one())
        with self._token_lock:
            try:
                if self._token_connection is None:
                    # data_version counts what OTHER connections commit, so it needs a connection that never writes.
                    self._token_connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                return int(self._token_connection.execute("pragma data_version").fetchone()[0])
            except sqlite3.Error as error:
                raise StoreError(
                    f"cannot read {self._path}: {error}; check the permissions of artifact_store"
                ) from error

    def close(self) -> None:
        """Close every connection."""
        with self._token_lock:
            if self._token_connection is not None:
                self._token_connection.close()
                self._token_connection = None
        self.engine.dispose()


_UNMIGRATED = (
    "{url} has not the tables that this Sentinel needs: start `sentinel up` once, which creates and upgrades them"
)


def _with_driver(url: str) -> sa.URL:
    """Parse the URL; plain `postgresql://` means psycopg 3, the driver that the extra installs."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise StoreError(
            f"sql_url is not a URL: {error}; write sqlite:////path/to/file.db or postgresql://user@host/db"
        ) from error
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"sql_url {parsed.drivername}: is not supported; use sqlite:// or postgresql://")
    return parsed


def _create_privately(path: Path) -> None:
    """Make a new database its owner's only, as it holds receivers' secrets; SQLite says what fails."""
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for attempt in range(WAL_ATTEMPTS):  # changing the mode of a new file ignores the busy timeout
        try:
            cursor.execute("pragma journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if attempt == WAL_ATTEMPTS - 1:
                raise
            time.sleep(0.05)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"pragma {pragma}")
    cursor.close()


def _sqlite_begin(connection: sa.Connection) -> None:
    # A deferred BEGIN that upgrades to a write fails at once, whatever the busy timeout: writers say so first.
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lock(descriptor: int, seconds: float) -> bool:
    """Take the file lock, waiting in the kernel's queue (fair; polling is not) for at most `seconds`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    waiter = _Waiter(os.dup(descriptor))  # of its own, so that giving up never closes a descriptor in use
    waiter.start()
    return waiter.wait(seconds)


class _Waiter(threading.Thread):
    """Waits for a file lock that has no timeout of its own; a lock that comes after all is given back."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="sentinel-write-gate", daemon=True)
        self._descriptor = descriptor
        self._done = threading.Event()
        self._guard = threading.Lock()
        self._abandoned = False
        self._error: OSError | None = None

    def run(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._guard:
            if self._abandoned:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._done.set()
        os.close(self._descriptor)  # the lock belongs to the open file, which the waiter's caller still holds

    def wait(self, seconds: float) -> bool:
        self._done.wait(seconds)
        with self._guard:
            self._abandoned = not self._done.is_set()
            if self._error is not None:
                raise self._error
            return not self._abandoned
