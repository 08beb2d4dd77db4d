"""What several families of tests share: a real Prometheus with a week of history, real stores, and patience."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from sentinel_core.config import WatchConfig
from sentinel_core.storage.store import Store
from tests.emitter.fleet import Fleet, Opener
from tests.postgres_server import fresh_database, running_postgres
from tests.prometheus_server import PrometheusServer, missing_programs

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler.loadscope import LoadScopeScheduling

WHOLE_PRODUCTS = ("tests/product/", "tests/dagster/test_end_to_end.py", "tests/test_up.py")

# A busy machine is no failure: time is asserted in benchmarks, not by each property's 200 ms.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """With `-n`, one worker has the whole products, one after the other, as each is several processes that mostly wait.

    The others have the rest, file after file, so that what a file shares is made once.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "products" if nodeid.startswith(WHOLE_PRODUCTS) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n` the whole products begin first, as they take longest; by itself what is quick to fail comes first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_PRODUCTS))


@pytest.fixture(scope="session")
def prometheus_programs() -> None:
    """Skip where Prometheus is not installed; fail there in CI, which must not skip what it promises."""
    if missing := missing_programs():
        message = f"{' and '.join(missing)} not on PATH; apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def prometheus(prometheus_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A running Prometheus with the default History; shared, so tests leave it running."""
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"))
    server.load()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_prometheus(prometheus_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A running Prometheus without history, for tests that stop, pause or kill it."""
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A running PostgreSQL; skipped where it is not installed, failed in CI."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database, dropped afterwards."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sentinel.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(sql_url: str, tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store."""
    with Store.open(sql_url, str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty store on SQLite, for tests that the SQL backend cannot matter to."""
    with Store.open(f"sqlite:///{tmp_path}/sentinel.db", str(tmp_path / "data")) as opened:
        opened.database.migrate()
        yield opened


@pytest.fixture
def open_fleet(tmp_path: Path) -> Iterator[Opener]:
    """Opens fleets and closes them."""
    opened: list[Fleet] = []

    def opener(*watches: WatchConfig) -> Fleet:
        opened.append(Fleet.open(tmp_path, watches))
        return opened[-1]

    yield opener
    for fleet in opened:
        fleet.store.close()
