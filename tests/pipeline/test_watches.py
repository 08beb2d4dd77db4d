"""Which watches are registered, and what is left of those that went."""

from collections.abc import Callable

import pytest

from sentinel_core import Sentinel, WatchConfig, registry
from sentinel_core.errors import RegistryError
from sentinel_core.pipeline.serving import load_version
from sentinel_core.storage import watch_store
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def test_a_script_with_one_watch_retires_no_other(world: World, load: Watch) -> None:
    """Asking about, training and rolling back one watch leave the others of the store alone; a sync retires them."""
    both = world.engine(load(), load(horizon="10m"))
    slugs = both.sync_watches()
    with pytest.raises(RegistryError, match="nothing serves yet"):
        Sentinel(world.config(load())).rollback("shop_load")
    one = world.engine(load())
    one.train(slugs[:1], kind="cold_start", reason="test")
    one.decide_actions()
    with one.store.database.read() as conn:
        assert list(watch_store.watch_ids(conn)) == slugs
    assert one.sync_watches() == slugs[:1]
    with one.store.database.read() as conn:
        assert list(watch_store.watch_ids(conn)) == slugs[:1]


def test_a_watch_that_went_long_ago_leaves_what_served(world: World, load: Watch) -> None:
    """After the retention of its samples its series and older artifacts go; it may return with its active version."""
    first = world.engine(load())
    (slug,) = first.sync_watches()
    first.train([slug], kind="cold_start", reason="test")
    changed = world.engine(load(lookback="20m"))
    changed.train([slug], kind="retrain", reason="test")
    empty = world.engine()
    empty.sync_watches()
    assert empty.maintain()["series_forgotten"] == 0
    world.clock.now += 31 * 86_400
    done = empty.maintain()
    assert done["series_forgotten"] == 6
    with empty.store.database.read() as conn:
        newest, oldest = registry.versions(conn, 1)
        assert watch_store.known_series(conn, 1) == set()
    assert oldest.deleted_at is not None
    assert newest.deleted_at is None
    folder = empty.store.segments.folder
    assert oldest.path not in [name for name, _ in folder.files()]
    again = world.engine(load(lookback="20m"))
    assert again.sync_watches() == [slug]
    assert again.serving(slug).version == 2
    assert load_version(again.context, again.config.watches[0], newest).model.fingerprints.size == 6
