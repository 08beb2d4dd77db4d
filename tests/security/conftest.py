"""Stores, a clock that is moved by hand, and argon2 at its cheapest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from sentinel_core.security.passwords import Passwords
from sentinel_core.security.secret import Pepper
from sentinel_core.storage.store import Store


@dataclass
class Clock:
    """Unix seconds, until somebody moves them."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def pepper() -> Pepper:
    """The secret of an installation."""
    return Pepper(b"p" * 32)


@pytest.fixture
def passwords() -> Passwords:
    """Hashing that costs next to nothing."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store, on SQLite and on PostgreSQL."""
    sqlite = f"sqlite:///{tmp_path}/sentinel.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Store.open(url, str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store, for tests that the SQL backend cannot matter to."""
    with Store.open(f"sqlite:///{tmp_path}/sentinel.db", str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened
