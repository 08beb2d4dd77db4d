"""The same store with its data in a bucket."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sentinel_core.errors import StoreError
from sentinel_core.storage import windows_store
from sentinel_core.storage.compaction import compact
from sentinel_core.storage.store import Store
from tests.storage.s3_server import S3Server
from tests.storage.samples import START, STEP, commit, window


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 endpoint, named by the usual environment variables."""
    server = S3Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    yield server
    server.close()


@pytest.fixture
def s3_store(bucket: S3Server, tmp_path: Path) -> Iterator[Store]:
    """A migrated store whose data is in the bucket, below a prefix."""
    with Store.open(f"sqlite:///{tmp_path}/s.db", "s3://fleet/sentinel") as store:
        store.database.migrate()
        yield store


def test_windows_live_in_a_bucket(s3_store: Store, bucket: S3Server) -> None:
    """Written, read, compacted and collected over HTTP, by the same code."""
    for index in range(3):
        ts = START + index * STEP
        commit(s3_store, windows_store.write_windows(s3_store, STEP, [window([1, 2], ts, ts)], now=ts))
    assert all(key.startswith("/fleet/sentinel/windows/60/") for key in bucket.objects)
    before = windows_store.read_window(s3_store, STEP, np.array([1, 2]), START, START + 2 * STEP)
    assert before.values.tolist() == [[1e6, 1e6 + 1, 1e6 + 2], [2e6, 2e6 + 1, 2e6 + 2]]
    assert compact(s3_store, START + 7200).merged == 3
    assert len(bucket.objects) == 4
    assert s3_store.segments.collect_garbage(START + 9999, grace_seconds=1) == 3
    assert len(bucket.objects) == 1
    after = windows_store.read_window(s3_store, STEP, np.array([1, 2]), START, START + 2 * STEP)
    np.testing.assert_array_equal(after.values, before.values)


def test_other_files_live_in_the_bucket_too(s3_store: Store) -> None:
    """Published, fetched, and FileNotFoundError for what is not there."""
    folder = s3_store.segments.folder
    assert folder.publish("models/v1", lambda path: _fill(path, b"\x00parameters")) == 11
    assert folder.fetch("models/v1") == b"\x00parameters"
    folder.delete(["models/v1", "models/never"])
    with pytest.raises(FileNotFoundError):
        folder.fetch("models/v1")


def _fill(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def test_a_bucket_that_lost_an_object_says_which(s3_store: Store, bucket: S3Server) -> None:
    """As with a local file."""
    commit(s3_store, windows_store.write_windows(s3_store, STEP, [window([1], START, START)], now=START))
    bucket.objects.clear()
    with pytest.raises(StoreError, match=r"windows/60/.* is missing from s3://fleet/sentinel"):
        windows_store.read_window(s3_store, STEP, np.array([1]), START, START)


def test_a_bucket_out_of_reach_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an exception of some library."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Store.open(f"sqlite:///{tmp_path}/s.db", "s3://elsewhere") as store:
        nothing = window([1], START, START)
        with pytest.raises(StoreError, match=r"s3://elsewhere refuses: .*check data_url and the AWS_\* variables"):
            windows_store.write_windows(store, STEP, [nothing], now=START)
