"""Segments: what readers see, what a crash may leave, and what the collector may take."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from sentinel_core.errors import ConflictError, StoreError
from sentinel_core.storage import windows_store
from sentinel_core.storage.data_folder import LocalFolder
from sentinel_core.storage.parquet import ParquetEngine
from sentinel_core.storage.schema import segments as table
from sentinel_core.storage.segments import Pending, SegmentGoneError, SegmentStore
from sentinel_core.storage.store import Store
from tests.storage.samples import NOW, START, STEP, commit, window

KEY = str(STEP)


def written(store: Store, t0: int = START, value: float = 1.0, now: float = NOW) -> Pending:
    return windows_store.write_windows(store, STEP, [window([1, 2], t0, t0 + STEP, value)], now=now)


def listed(store: Store) -> list[int]:
    return [segment.id for segment in store.segments.segments("windows", KEY)]


def files(store: Store) -> set[str]:
    return {name for name, _ in store.segments.folder.files()}


def age(store: Store, seconds: float) -> None:
    """Make every file look written that long before NOW."""
    for name in files(store):
        os.utime(store.segments.folder.address(name), (NOW - seconds, NOW - seconds))


def test_a_segment_exists_once_its_row_has_committed(store: Store) -> None:
    """Written files are invisible; a rolled-back commit leaves them so; a commit shows all of them."""
    pendings = [written(store), written(store, START + 3600)]
    assert listed(store) == []
    with pytest.raises(RuntimeError):
        fail_after_commit(store, pendings)
    assert listed(store) == []
    assert commit(store, *pendings) == listed(store)
    assert len(listed(store)) == 2


def fail_after_commit(store: Store, pendings: list[Pending]) -> None:
    with store.database.write() as connection:
        store.segments.commit(connection, pendings)
        raise RuntimeError


def test_segments_are_found_by_overlap(store: Store) -> None:
    """Both ends of the asked span and of a segment are inclusive."""
    (one,) = commit(store, written(store))
    found = [
        bool(store.segments.segments("windows", KEY, t0, t1))
        for t0, t1 in [(START - 60, START - 1), (START - 60, START), (START + 60, START + 90), (START + 61, START + 90)]
    ]
    assert found == [False, True, True, False]
    assert store.segments.get(one).rows == 4
    assert store.segments.segments("windows", "300") == []


def test_replacing_is_compare_and_set(store: Store) -> None:
    """Of two that replace the same segment the second fails, and nothing of it is visible."""
    (old,) = commit(store, written(store))
    first, second = written(store), written(store)
    (new,) = commit(store, first, drop=[old])
    with pytest.raises(ConflictError, match="read again"):
        commit(store, second, drop=[old])
    assert listed(store) == [new]
    with pytest.raises(SegmentGoneError):
        store.segments.get(old)


def test_nothing_to_write_writes_nothing(store: Store) -> None:
    """All gaps: no file, no row, and the commit is fine."""
    pending = windows_store.write_windows(store, STEP, [window([1, 2], START, START + STEP, np.nan)])
    assert commit(store, pending) == []
    assert files(store) == set()


def test_file_and_folder_are_synced_before_the_catalogue_commits(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order on which durability rests: file, its folder, and only then the row."""
    store = sqlite_store
    log: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        log.append("file" if target.suffix == ".parquet" else f"folder {target.name}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    sa.event.listen(store.database.engine, "commit", lambda _: log.append("commit"))
    commit(store, written(store))
    assert log[-3:] == ["file", f"folder {KEY}", "commit"]
    assert {"folder data", "folder windows"} < set(log[:-3])  # the entry of each new folder in its parent
    log.clear()
    commit(store, written(store))
    assert log == ["file", f"folder {KEY}", "commit"]


def test_the_kernel_is_asked_to_sync_in_that_order(sqlite_store: Store, tmp_path: Path) -> None:
    """strace sees the Parquet file, its folder and the write-ahead log synced, in this order."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    commit(sqlite_store, written(sqlite_store))  # folders and tables exist: only the steady state is traced
    url = sqlite_store.database.url.render_as_string()
    code = (
        "from sentinel_core.storage.store import Store; from tests.storage.test_segments import *\n"
        f"with Store.open({url!r}, {sqlite_store.segments.folder.url!r}) as store: commit(store, written(store))"
    )
    trace = tmp_path / "trace"
    run = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", trace, sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if run.returncode and "ptrace" in run.stderr:
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    calls = [line.split("<", 1)[1].split(">")[0] for line in trace.read_text().splitlines() if "sync(" in line]
    kinds = ["file" if call.endswith(".parquet") else "folder" if call.endswith(f"/{KEY}") else "log" for call in calls]
    assert kinds[:3] == ["file", "folder", "log"]


def test_a_reader_gets_a_fresh_list_when_its_files_are_compacted_and_collected(store: Store) -> None:
    """Between listing and reading, a compaction and the collector take the files; the read succeeds all the same."""
    (old,) = commit(store, written(store, value=1.0))
    calls = []

    def read(found: list[windows_store.Segment]) -> list[float]:
        calls.append([segment.id for segment in found])
        if len(calls) == 1:
            commit(store, written(store, value=2.0), drop=[old])
            store.segments.collect_garbage(NOW + 10, grace_seconds=1)
        return store.segments.read(found, ["v"])["v"].tolist()

    assert store.segments.live("windows", KEY, START, START + STEP, read) == [2.0] * 4
    assert len(calls) == 2


def test_a_lost_file_is_an_error_with_its_name(store: Store) -> None:
    """A live segment whose file somebody deleted is not silently empty."""
    commit(store, written(store))
    store.segments.folder.delete(list(files(store)))
    with pytest.raises(StoreError, match=r"windows/60/.*is missing from .*restore it from a backup"):
        windows_store.read_window(store, STEP, np.array([1, 2]), START, START + STEP)


def test_a_damaged_file_is_an_error_with_its_place(store: Store) -> None:
    """A truncated Parquet file is named, not read as if it were whole."""
    commit(store, written(store))
    (name,) = files(store)
    path = Path(store.segments.folder.address(name))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"refuses: .*check its permissions and its disk"):
        windows_store.read_window(store, STEP, np.array([1, 2]), START, START + STEP)


def test_files_are_read_in_list_order_even_through_a_join(store: Store) -> None:
    """`in (…)` becomes a hash join inside DuckDB, which would mix the files; the order of overlays rests on them."""
    rng = np.random.default_rng(0)
    fingerprints = np.unique(rng.integers(-(2**62), 2**62, 3000))
    for index in range(4):
        commit(store, windows_store.write_windows(store, STEP, [window(fingerprints, START, START + 9 * STEP, index)]))
    wanted = ", ".join(map(str, fingerprints[::7]))
    read = store.segments.read(store.segments.segments("windows"), ["v"], f"fp in ({wanted})")["v"]
    assert read.tolist() == sorted(read.tolist())


# ---- the collector ---------------------------------------------------------------------------------------------------
def test_the_collector_takes_dropped_files_after_the_grace(store: Store) -> None:
    """A replaced file stays readable for the grace, then goes, and its row with it."""
    (old,) = commit(store, written(store))
    commit(store, written(store, now=NOW), drop=[old])
    assert store.segments.collect_garbage(NOW + 100, grace_seconds=200) == 0
    assert len(files(store)) == 2
    assert store.segments.collect_garbage(NOW + 300, grace_seconds=200) == 1
    assert len(files(store)) == 1
    with store.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 1


def test_the_collector_takes_orphans_after_the_grace(store: Store) -> None:
    """A file whose writer died before its commit goes; a young one may still be committed."""
    written(store)
    age(store, 100)
    assert store.segments.collect_garbage(NOW, grace_seconds=200) == 0
    assert store.segments.collect_garbage(NOW, grace_seconds=50) == 1
    assert files(store) == set()


def test_a_writer_slower_than_the_grace_is_told_and_not_lost(store: Store) -> None:
    """The collector took its file: the commit fails loudly instead of showing a segment without a file."""
    pending = written(store)
    age(store, 100)
    store.segments.collect_garbage(NOW, grace_seconds=50)
    with pytest.raises(ConflictError, match="write it again"):
        commit(store, pending)
    assert listed(store) == []


def test_a_claimed_orphan_cannot_be_committed(store: Store) -> None:
    """Between the collector's claim and its deletion the file still exists; the writer loses to the claim."""
    pending = written(store)
    with store.database.write() as connection:
        claim = {"dataset": "orphan", "key": "", "t0": 0, "t1": 0, "rows": 0, "bytes": 0, "created_at": 0.0}
        connection.execute(table.insert().values(**claim, dropped_at=0.0, path=pending.parts[0].path))
    with pytest.raises(ConflictError, match="write it again"):
        commit(store, pending)


def test_the_collector_leaves_what_is_not_ours(store: Store) -> None:
    """A data_url that points at a folder with other things in it costs nobody a file."""
    root = Path(store.segments.folder.address(""))
    for name in ("notes.txt", "windows/60/mine.parquet", "models/v3.joblib"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("precious")
    age(store, 10_000)
    store.segments.collect_garbage(NOW, grace_seconds=1)
    assert files(store) == {"notes.txt", "windows/60/mine.parquet", "models/v3.joblib"}


def test_a_state_never_names_a_collected_segment(store: Store) -> None:
    """The reference from a watch's state is let go before its segment's row is deleted."""
    (old,) = commit(store, written(store))
    with store.database.write() as connection:
        connection.execute(sa.text("insert into watches (id, slug, selector, created_at) values (1, 'a', 'a', 0)"))
        connection.execute(sa.text(f"insert into watch_state (watch_id, forecast_segment_id) values (1, {old})"))
        store.segments.drop(connection, [old], NOW)
    assert store.segments.collect_garbage(NOW + 10, grace_seconds=1) == 1
    with store.database.read() as connection:
        assert connection.execute(sa.text("select forecast_segment_id from watch_state")).scalar_one() is None


def test_another_data_url_is_refused_until_the_files_are_there(store: Store, tmp_path: Path) -> None:
    """A catalogue whose newest files are all elsewhere says where they are missing; without files any place will do."""
    moved = SegmentStore(store.database, (tmp_path / "elsewhere").as_uri())
    moved.require_files()
    commit(store, written(store))
    store.segments.require_files()
    with pytest.raises(StoreError, match=r"elsewhere has none of the files .* move them there, or set data_url"):
        moved.require_files()


# ---- disks -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A real file system of one megabyte; only root can have one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f"mount -t tmpfs none {folder}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    return folder


def test_a_full_disk_leaves_the_store_as_it_was(small_disk: Path) -> None:
    """On a full disk writing fails with the remedy, leaves no file behind, and what was there is still readable."""
    code = (
        "from tests.storage.test_segments import fill_disk; import pathlib; "
        f"fill_disk(pathlib.Path({str(small_disk)!r}))"
    )
    mount = f'mount -t tmpfs -o size=1m none {small_disk} && exec {sys.executable} -c "$CODE"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], env={**os.environ, "CODE": code},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "no space left on file://" in run.stdout
    assert "free space or move artifact_store" in run.stdout


def fill_disk(folder: Path) -> None:
    """Write into a megabyte until it is full, then check what a reader sees."""
    with Store.open(f"sqlite:///{folder.parent}/s.db", str(folder)) as store:
        store.database.migrate()
        (kept,) = commit(store, written(store))
        rng = np.random.default_rng(0)
        noise = window(list(range(200)), START, START + 900 * STEP, rng.normal(size=(200, 901)))
        before = files(store)
        try:
            windows_store.write_windows(store, STEP, [noise])
        except StoreError as error:
            print(error)
        assert files(store) == before
        assert listed(store) == [kept]
        read = windows_store.read_window(store, STEP, np.array([1, 2]), START, START + STEP)
        assert (read.values == 1.0).all()


def test_a_path_that_duckdb_would_expand_is_refused(tmp_path: Path) -> None:
    """Glob characters in the data folder would make one segment's path match other files."""
    with pytest.raises(StoreError, match="must not contain"):
        LocalFolder(tmp_path / "a[b]")


@pytest.mark.parametrize("name", ["plain", "with space", "quote'd", "ümlaut", "per%cent"])
def test_any_ordinary_folder_name_works(tmp_path: Path, name: str) -> None:
    """Blanks, quotes and accents in the artifact store's path reach neither SQL nor URLs unescaped."""
    folder = tmp_path / name
    for data_url in (str(folder), folder.as_uri()):
        with Store.open(f"sqlite:///{folder}/s.db", data_url) as store:
            store.database.migrate()
            commit(store, written(store))
            read = windows_store.read_window(store, STEP, np.array([1, 2]), START, START + STEP)
            assert (read.values == 1.0).all()


def test_other_files_come_back_as_they_were_published(store: Store) -> None:
    """Artifacts lie beside the segments; a missing one is FileNotFoundError."""
    folder = store.segments.folder
    assert folder.publish("models/a/v1", lambda path: _fill(path, b"\x00parameters")) == 11
    assert folder.fetch("models/a/v1") == b"\x00parameters"
    folder.delete(["models/a/v1", "models/never"])
    with pytest.raises(FileNotFoundError):
        folder.fetch("models/a/v1")


def _fill(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def test_ctrl_c_in_a_query_is_no_failure() -> None:
    """DuckDB turns it into a RuntimeError, which somebody could take for something to try again."""
    engine = ParquetEngine(remote=False)
    query = "select sum(a.range * b.range) as total from range(200000) a, range(100000) b"
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.query([], query, {})
    finally:
        engine.close()
