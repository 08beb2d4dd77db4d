"""The pepper: from the environment or from a file that whoever comes first makes."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sentinel_core.config import SentinelConfig
from sentinel_core.errors import ConfigError, StoreError
from sentinel_core.security.secret import Pepper, load_pepper
from sentinel_core.storage.store import Store


@pytest.fixture
def config(tmp_path: Path) -> SentinelConfig:
    return SentinelConfig(artifact_store=str(tmp_path / "store"))


def test_the_file_is_made_once_and_for_its_owner_only(config: SentinelConfig) -> None:
    """The first call makes the folder and the file with mode 0600 and nothing beside it; the next ones read it."""
    first = load_pepper(config, {})
    path = config.store_path / "secret.key"
    assert load_pepper(config, {}) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) == 64
    assert list(config.store_path.iterdir()) == [path]


def test_processes_that_come_at_once_agree(config: SentinelConfig) -> None:
    """Whoever comes first makes the file; the others use it, and nobody sees half of it."""
    program = (
        "import sys; from sentinel_core.config import SentinelConfig; from sentinel_core.security.secret import *;"
        "config = SentinelConfig(artifact_store=sys.argv[1]); sys.stdin.readline(); print(load_pepper(config, {}).mark)"
    )
    command = [sys.executable, "-c", program, str(config.store_path)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    marks = {process.communicate(timeout=30)[0] for process in started}
    assert marks == {load_pepper(config, {}).mark + "\n"}


def test_the_environment_comes_first(config: SentinelConfig) -> None:
    """$SENTINEL_SECRET is used as it is, and no file is made."""
    assert load_pepper(config, {"SENTINEL_SECRET": "s" * 32}).secret == b"s" * 32
    assert not config.store_path.exists()


@pytest.mark.parametrize("text", ["", "s" * 31])
def test_a_short_secret_is_refused(config: SentinelConfig, text: str) -> None:
    """Fewer than 32 bytes are refused with the command that prints a good one."""
    with pytest.raises(ConfigError, match=r"SENTINEL_SECRET: has fewer than 32 bytes; `openssl rand -hex 32` prints"):
        load_pepper(config, {"SENTINEL_SECRET": text})


def test_a_file_that_was_cut_off_is_refused(config: SentinelConfig) -> None:
    """An emptied file is no secret, and is not quietly replaced by another one."""
    load_pepper(config, {})
    path = config.store_path / "secret.key"
    path.write_text("abc\n")
    with pytest.raises(StoreError, match="restore it from a backup"):
        load_pepper(config, {})
    assert path.read_text() == "abc\n"


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A folder that cannot be is one message with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"secret\.key: .*; keys are hashed with it"):
        load_pepper(SentinelConfig(artifact_store=str(tmp_path / "file" / "store")), {})


def test_purposes_share_no_digest_and_nothing_shows_the_secret() -> None:
    """A digest for one purpose is none for another, and the secret is in no repr."""
    pepper = Pepper(b"p" * 32)
    assert pepper.digest("key", "x") != pepper.digest("login", "x")
    assert "ppp" not in repr(pepper)
    assert len({pepper.mark, Pepper(b"q" * 32).mark}) == 2


def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    """What receivers are sent with lies in it: neither the file nor what SQLite keeps beside it is for others."""
    with Store.open(f"sqlite:///{tmp_path}/sentinel.db", str(tmp_path / "data")) as store:
        store.database.migrate()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("sentinel.db*")}
    del modes["sentinel.db.gate"]  # is empty
    assert modes.keys() >= {"sentinel.db", "sentinel.db-wal"}
    assert set(modes.values()) == {0o600}
