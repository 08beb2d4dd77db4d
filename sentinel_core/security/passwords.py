"""Passwords: what is accepted, and argon2id."""

import threading
import unicodedata
from contextlib import suppress
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sentinel_core.errors import InvalidError

MIN_LENGTH = 12  # characters
HASHES_AT_ONCE = 2  # in one process
MAX_LENGTH = 1024  # nobody types more, and hashing must not be made to read a novel


class Passwords:
    """Hashes and verifies; each takes 64 MiB and up to half a second of CPU: beside the event loop, few at once."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()  # argon2id, RFC 9106's second choice: t=3, 64 MiB, p=4
        self._free = threading.BoundedSemaphore(HASHES_AT_ONCE)

    def hash(self, password: str) -> str:
        """Hash a new password; InvalidError where it is too short or too long."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise InvalidError({"password": f"takes {MIN_LENGTH} to {MAX_LENGTH} characters; several words are good"})
        with self._free:
            return self._hasher.hash(_normal(password))

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password; just as slow where there is none to compare with (None: no such user)."""
        with self._free, suppress(VerificationError, InvalidHashError):
            reference = self._nobodys  # made by whoever comes first, known user or not
            return self._hasher.verify(password_hash or reference, _normal(password)) and password_hash is not None
        return False

    def outdated(self, password_hash: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash("nobody's password")


def _normal(password: str) -> str:
    """The same characters, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password)[:MAX_LENGTH]
