"""Real stores, on SQLite in a temporary folder and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_core.storage.store import Store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sentinel.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(sql_url: str, tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store."""
    with Store.open(sql_url, str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store on SQLite, for tests that the SQL backend cannot matter to."""
    with Store.open(f"sqlite:///{tmp_path}/sentinel.db", str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened
