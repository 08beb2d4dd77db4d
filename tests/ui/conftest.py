"""One world for the tests that look, and a Chromium that says what it does not like."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from sentinel_core.apps import sidecar
from tests.ui.world import CHEAP, World, open_world

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="package", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Argon2 at its cheapest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecar, "Passwords", lambda: CHEAP)
        yield


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, cheap_passwords: None) -> Iterator[World]:
    """Models, watches and incidents, for every test that only looks."""
    with open_world(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest.fixture(scope="module")
def empty_world(tmp_path_factory: pytest.TempPathFactory, cheap_passwords: None) -> Iterator[World]:
    """Nothing but people who may log in."""
    with open_world(tmp_path_factory.mktemp("empty"), empty=True) as opened:
        yield opened


@pytest.fixture(scope="module")  # no longer: while it runs, nothing else may use an event loop
def browser() -> Iterator[Browser]:
    """The machine's Chromium; without one the tests are skipped, but never in CI."""
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is missing; `make debian` installs it")
        pytest.skip(f"{CHROMIUM} is missing; apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()
