"""A throw-away PostgreSQL for tests, from the machine's own programs."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


def _postgres_programs() -> Path | None:
    """The folder of initdb and postgres: Debian keeps them out of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """Start a throw-away PostgreSQL on a Unix socket; yields its URL, to be formatted with a database name."""
    pytest.importorskip("psycopg")
    programs = _postgres_programs()
    if programs is None:
        reason = "PostgreSQL's initdb and postgres are not installed (apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="sentinel-pg-"))  # short: a socket's path has at most 107 bytes
    identity: dict[str, object] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"],
            stdout=log, stderr=log, cwd=folder, **identity,
        )  # fmt: skip
    try:
        _await_socket(folder, server)
        yield f"postgresql+psycopg://postgres@/{{database}}?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)


def _await_socket(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.05)


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """An empty database on it; yields its URL."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    name = f"t{uuid.uuid4().hex}"
    host = server.split("host=")[1]
    with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(SQL("create database {}").format(Identifier(name)))
    try:
        yield server.format(database=name)
    finally:
        with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))
