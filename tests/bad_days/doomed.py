"""A process that is killed by its test: `python -m tests.bad_days.doomed train|tick STORE PROMETHEUS NOW MARKER`."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from sentinel_core import WatchConfig
from sentinel_core.storage.segments import SegmentStore
from tests.moved_world import Clock, World


def watches() -> list[WatchConfig]:
    """What test_versions' and test_killed's worlds watch."""
    quick = {"model_class": "LinearTrendModel", "history": "2h", "drift_cooldown": "1m"}
    quick |= {"drift_finetune_threshold": 1e6, "drift_retrain_threshold": 2e6, "lookback": "10m"}
    return [WatchConfig(metric="even", **quick), WatchConfig(metric="zero", **quick)]


def train(world: World, marker: Path) -> None:
    """Train up to where the artifact is on the disk, and stay there."""

    def keep(self: SegmentStore, name: str, content: bytes) -> None:
        marker.touch()
        time.sleep(600)

    SegmentStore.keep = keep  # type: ignore[method-assign]
    engine = world.engine(*watches())
    engine.train(engine.sync_watches()[:1], kind="retrain", reason="test", run_id="doomed")


def tick(world: World, marker: Path) -> None:
    """Tick minute after minute, beginning at the store's own time."""
    engine = world.engine(*watches())
    newest = engine.status()["even"]["last_tick"]
    assert isinstance(newest, float)
    world.clock.now = max(world.clock.now, newest)
    marker.touch()
    while True:
        world.tick(engine)


def main(what: str, store: str, prometheus: str, now: str, marker: str) -> None:
    with ExitStack() as stack:
        world = World(Path(store), prometheus, Clock(float(now)), stack)
        (train if what == "train" else tick)(world, Path(marker))


if __name__ == "__main__":
    main(*sys.argv[1:])
