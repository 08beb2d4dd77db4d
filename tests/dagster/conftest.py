"""A fake engine behind the resource, and an instance of its own for every test."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from sentinel_core.config import SentinelConfig
from sentinel_dagster.definitions import build_defs
from tests.dagster.fake_engine import FakeEngine, FakeEngineResource, watch

# What the location itself ignores (see sentinel_dagster/__init__.py), where pytest has reset the filters.
BETA = "ignore:Parameter `:dagster_shared.utils.warnings.BetaWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Dagster call beta what this folder's tests run on purpose."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(BETA))


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeEngine]:
    """An engine with two watches, one of them below a minute."""
    watches = [watch("temperature"), watch("requests_total", granularity="15s", cron="*/30 * * * *")]
    FakeEngineResource.engines[request.node.nodeid] = FakeEngine(SentinelConfig(watches=watches))
    yield FakeEngineResource.engines[request.node.nodeid]
    del FakeEngineResource.engines[request.node.nodeid]


@pytest.fixture
def engine(request: pytest.FixtureRequest, fake: FakeEngine) -> FakeEngineResource:
    """The resource that yields the fake."""
    return FakeEngineResource(name=request.node.nodeid)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def defs(fake: FakeEngine, engine: FakeEngineResource) -> dg.Definitions:
    """The definitions of the fake's configuration."""
    return build_defs(fake.config, resource_overrides={"engine": engine})
