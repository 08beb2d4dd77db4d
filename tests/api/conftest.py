"""A world for each test, and one for a file's tests that only look."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_core.apps import sidecar
from tests.api.world import CHEAP, World, open_world


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Argon2 at its cheapest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecar, "Passwords", lambda: CHEAP)
        yield


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two projects on SQLite."""
    with open_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def still_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same for tests that change nothing."""
    with open_world(tmp_path_factory.mktemp("still")) as world:
        yield world
