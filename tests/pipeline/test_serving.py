"""Going back to another version."""

from collections.abc import Callable
from typing import Any

import pytest

from sentinel_core import WatchConfig, registry
from sentinel_core.errors import RegistryError
from sentinel_core.pipeline import serving
from tests.moved_world import World


def test_a_version_that_retention_takes_during_a_rollback_is_refused(
    world: World, load: Callable[..., WatchConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that concludes between the check of the artifact and the rollback leaves what serves as it is."""
    first = world.engine(load())
    (slug,) = first.sync_watches()
    first.train([slug], kind="cold_start", reason="test")
    engine = world.engine(load(lookback="20m"))
    engine.train([slug], kind="retrain", reason="test")
    check = serving.load_version

    def slowly(*arguments: Any) -> Any:
        checked = check(*arguments)
        with first.store.database.write() as conn:
            registry.mark_deleted(conn, [arguments[2]])
        return checked

    monkeypatch.setattr(serving, "load_version", slowly)
    with pytest.raises(RegistryError, match="the artifact of v1 is gone"):
        engine.roll_back(slug, version=1, reason="test")
    assert (engine.serving(slug).version, engine.serving(slug).pinned) == (2, False)
