import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from sentinel_core import registry
from sentinel_core.errors import ArtifactError, ConflictError, RegistryError
from sentinel_core.forecasts import Fitted
from sentinel_core.models import LinearTrendModel
from sentinel_core.models.base import BatchModel
from sentinel_core.registry import Version
from sentinel_core.storage import watch_store
from sentinel_core.storage.store import Store
from sentinel_core.windows import Window

WATCH = 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'sentinel.db'}", str(tmp_path / "data")) as store:
        store.database.migrate()
        with store.database.write() as conn:
            watch_store.sync_watches(conn, [("w", "w")], 0.0)
        yield store


def fitted() -> Fitted:
    model = LinearTrendModel("1m", "5m", "30m")
    values = np.arange(80, dtype=float).reshape(2, 40)
    model.fit_window(Window(np.array([3, 8]), np.arange(40) * 60, values, 60))
    return Fitted(
        model,
        versions=np.array([1, 1], np.int32),
        offsets=np.zeros((2, 5, 2)),
        mae=np.ones((2, 5)),
        limits=np.zeros((2, 2)),
        inner=np.empty((2, 0, 2)),
        usual=np.ones((2, 3)),
    )


def construct(model_class: str, lookback: str, model_params: Mapping[str, Any]) -> BatchModel:
    return LinearTrendModel("1m", "5m", lookback, **model_params)


def a_version(number: int, **fields: Any) -> Version:
    blank = Version(
        watch_id=WATCH,
        version=number,
        parent=None,
        kind="retrain",
        reason="test",
        model_class="LinearTrendModel",
        spec_digest="d",
        path=f"models/w/v{number}.joblib",
        sha256="",
        bytes=0,
        feature_names="[]",
        series=2,
        series_refitted=2,
        span_start=0,
        span_end=2400,
        mae=1.0,
        champion_mae=None,
        coverage=0.95,
        accepted=True,
        run_id="run",
        created_at=float(number),
    )
    return replace(blank, **fields)


def second_serves(conn: sa.Connection) -> None:
    """v1 was promoted, then v2 from it."""
    registry.record(conn, a_version(1))
    registry.record(conn, a_version(2, parent=1))
    registry.promote(conn, WATCH, 1, parent=None, reason="r", run_id=None)
    registry.promote(conn, WATCH, 2, parent=1, reason="r", run_id=None)


def test_an_artifact_comes_back_as_it_was() -> None:
    """What was dumped forecasts the same after it was loaded."""
    before = fitted()
    content, sha256 = registry.dump(before, before.model.feature_names)
    version = a_version(1, sha256=sha256, bytes=len(content), feature_names=_names(before))
    after = registry.load(content, version, construct)
    window = Window(np.array([3, 8]), np.arange(40) * 60, np.arange(80, dtype=float).reshape(2, 40), 60)
    np.testing.assert_array_equal(after.model.predict_window(window, 5), before.model.predict_window(window, 5))
    np.testing.assert_array_equal(after.versions, before.versions)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("the artifact was unpickled before it was verified",))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: pickle.dumps(Bomb()),
    ],
)
def test_what_the_registry_did_not_record_is_never_unpickled(tamper: Any) -> None:
    """Truncated, flipped and foreign bytes are refused before anything in them runs, with the remedy."""
    before = fitted()
    content, sha256 = registry.dump(before, ())
    with pytest.raises(ArtifactError, match=r"does not match its SHA-256.*retrain the watch"):
        registry.load(tamper(content), a_version(1, sha256=sha256, bytes=len(content)), construct)


def test_an_artifact_of_another_grid_is_refused() -> None:
    """A horizon or granularity other than the watch's is named."""
    before = fitted()
    content, sha256 = registry.dump(before, before.model.feature_names)
    version = a_version(1, sha256=sha256, feature_names=_names(before))
    with pytest.raises(ArtifactError, match="forecasts 5m in steps of 1m, its watch 10m"):
        registry.load(content, version, lambda *_: LinearTrendModel("1m", "10m", "30m"))


def test_numbers_are_never_reused(store: Store) -> None:
    """The next number follows the highest ever recorded, deleted artifacts included."""
    with store.database.write() as conn:
        assert registry.next_version(conn, WATCH) == 1
        registry.record(conn, a_version(1))
        registry.record(conn, a_version(2))
        registry.mark_deleted(conn, [registry.version(conn, WATCH, 2)])
        assert registry.next_version(conn, WATCH) == 3
    with pytest.raises(ConflictError, match="v2 was taken"), store.database.write() as conn:
        registry.record(conn, a_version(2))


def test_promotion_compares_and_sets_the_parent(store: Store) -> None:
    """A candidate judged against a champion that no longer serves is not promoted."""
    with store.database.write() as conn:
        for number in (1, 2, 3):
            registry.record(conn, a_version(number, parent=1 if number > 1 else None))
        assert registry.promote(conn, WATCH, 1, parent=None, reason="r", run_id=None)
        assert registry.promote(conn, WATCH, 2, parent=1, reason="r", run_id=None)
    with pytest.raises(ConflictError, match="v2 was promoted while v3"), store.database.write() as conn:
        registry.promote(conn, WATCH, 3, parent=1, reason="r", run_id=None)
    with pytest.raises(ConflictError, match="train again"), store.database.write() as conn:
        registry.promote(conn, WATCH, 3, parent=None, reason="r", run_id=None)


def test_a_rollback_holds_until_released(store: Store) -> None:
    """While it holds nothing is promoted; the release promotes the newest candidate accepted meanwhile."""
    with store.database.write() as conn:
        second_serves(conn)
        previous = registry.roll_back(conn, WATCH, registry.predecessor(conn, WATCH).version, reason="bad", run_id=None)
        assert previous == 2
        active, version = registry.serving(conn)[WATCH]
        assert (active.pinned, version.version) == (True, 1)
        registry.record(conn, a_version(3, parent=1, created_at=active.changed_at + 1))
        assert not registry.promote(conn, WATCH, 3, parent=1, reason="r", run_id=None)
        assert registry.release(conn, WATCH, reason="fixed", run_id=None) == 3
        active, version = registry.serving(conn)[WATCH]
        assert (active.pinned, version.version) == (False, 3)
        assert [v.version for _, v in registry.history(conn, WATCH)] == [1, 2, 1, 1, 3]


def test_a_release_does_not_bring_back_what_was_rolled_back(store: Store) -> None:
    """Without a newer candidate the version rolled back to goes on serving."""
    with store.database.write() as conn:
        second_serves(conn)
        registry.roll_back(conn, WATCH, 1, reason="bad", run_id=None)
        assert registry.release(conn, WATCH, reason="fixed", run_id=None) is None
        assert registry.serving(conn)[WATCH][1].version == 1
        with pytest.raises(RegistryError, match="nothing is pinned"):
            registry.release(conn, WATCH, reason="again", run_id=None)


def test_a_release_leaves_a_candidate_of_the_version_that_was_rolled_back(store: Store) -> None:
    """A training that was in flight from that version during the rollback is recorded, and never serves by itself."""
    with store.database.write() as conn:
        second_serves(conn)
        registry.roll_back(conn, WATCH, 1, reason="bad", run_id=None)
        active, _ = registry.serving(conn)[WATCH]
        registry.record(conn, a_version(3, parent=2, created_at=active.changed_at + 1))
        assert not registry.promote(conn, WATCH, 3, parent=2, reason="r", run_id=None)
        assert registry.release(conn, WATCH, reason="fixed", run_id=None) is None
        assert registry.serving(conn)[WATCH][1].version == 1


def test_rollbacks_that_cannot_be(store: Store) -> None:
    """No predecessor, no such version, no artifact: each says so."""
    with store.database.write() as conn:
        with pytest.raises(RegistryError, match="nothing serves yet"):
            registry.predecessor(conn, WATCH)
        registry.record(conn, a_version(1, deleted_at=1.0))
        registry.record(conn, a_version(2))
        registry.promote(conn, WATCH, 2, parent=None, reason="r", run_id=None)
        with pytest.raises(RegistryError, match="v2 has no predecessor"):
            registry.predecessor(conn, WATCH)
        with pytest.raises(RegistryError, match="no version v9; there are: v1, v2"):
            registry.version(conn, WATCH, 9)
        with pytest.raises(RegistryError, match="the artifact of v1 is gone"):
            registry.roll_back(conn, WATCH, 1, reason="r", run_id=None)


def test_the_active_and_the_last_full_version_are_always_kept(store: Store) -> None:
    """Beyond the newest few, what serves and the last full training stay."""
    with store.database.write() as conn:
        for number in range(1, 9):
            registry.record(conn, a_version(number, kind="finetune" if number > 3 else "retrain"))
        conn.execute(sa.insert(registry.active_models).values(watch_id=WATCH, version=2, changed_at=0.0))
        gone = registry.surplus(conn, WATCH, 2)
        assert sorted(version.version for version in gone) == [1, 4, 5, 6]


def _names(of: Fitted) -> str:
    return json.dumps(list(of.model.feature_names))
