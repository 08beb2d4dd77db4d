"""The pepper: what keys are hashed with besides themselves, kept outside the database.

$SENTINEL_SECRET where it is set, which several machines on one PostgreSQL must share; else <artifact_store>/secret.key,
which whoever comes first creates.
"""

import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sentinel_core.config import SentinelConfig
from sentinel_core.errors import ConfigError, StoreError

VARIABLE = "SENTINEL_SECRET"
MIN_BYTES = 32


@dataclass(frozen=True)
class Pepper:
    """The secret of one installation; made by `load_pepper`."""

    secret: bytes = field(repr=False)

    def digest(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 of a text, hexadecimal; no two purposes share one."""
        return hmac.digest(self.secret, f"{purpose}\0{text}".encode(), "sha256").hex()

    @property
    def mark(self) -> str:
        """Tells this pepper from another one, and nothing about it."""
        return self.digest("mark", "")[:8]


def load_pepper(config: SentinelConfig, environ: Mapping[str, str]) -> Pepper:
    """Return the installation's pepper; made on first use.

    Raises ConfigError for a $SENTINEL_SECRET that is too short, StoreError for a file that cannot be read or written.
    """
    if (text := environ.get(VARIABLE)) is not None:
        if len(text.encode(errors="surrogateescape")) < MIN_BYTES:
            raise ConfigError(
                [f"${VARIABLE}: has fewer than {MIN_BYTES} bytes; `openssl rand -hex 32` prints a good one"]
            )
        return Pepper(text.encode(errors="surrogateescape"))
    path = config.store_path / "secret.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        content = path.read_bytes().strip()
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; keys are hashed with it: make it readable, or set ${VARIABLE}"
        ) from error
    if len(content) < MIN_BYTES:
        raise StoreError(
            f"{path} does not hold the {2 * MIN_BYTES} characters that were written: restore it from a backup; without "
            "it every key has to be made anew (remove the file, then `sentinel keys create`)"
        )
    return Pepper(content)


def _create(path: Path) -> None:
    """Put a fresh secret there, whole and on the disk before it has its name; one that is there already stays."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(fresh, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(MIN_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody came first
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
