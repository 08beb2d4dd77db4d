"""A clock that is moved by hand, argon2 at its cheapest, and a site with a browser at it."""

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from sentinel_core.security.passwords import Passwords
from sentinel_core.security.secret import Pepper
from sentinel_core.storage.store import Store
from tests.security.site import Browser, Clock, Site


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def pepper() -> Pepper:
    """The secret of an installation."""
    return Pepper(b"p" * 32)


@pytest.fixture
def passwords() -> Passwords:
    """Hashing that costs next to nothing."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def site(sqlite_store: Store, clock: Clock, passwords: Passwords, pepper: Pepper) -> Site:
    """A sidecar's worth of access."""
    return Site(sqlite_store, clock, passwords, pepper)


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    """At a site with the user grace, an operator."""
    site.user()
    with site.served() as found:
        yield found
