"""A sidecar that other machines reach: what needs a key there, and what does not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sentinel_core.apps.metrics import _of_projects
from sentinel_core.apps.sidecar import create_app
from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.exposition import Section, plain
from sentinel_core.storage import model_store
from sentinel_core.storage.store import Store
from tests.api.world import NOW, PEPPER, World, problem
from tests.apps.server import eventually, running


@pytest.fixture
def elsewhere(world: World) -> Iterator[httpx.Client]:
    """A client of a sidecar over the same store that is bound to every address."""
    config = replace(world.config, bind_address="0.0.0.0")
    app = create_app(config, world.store, status=lambda _: {}, now=lambda: NOW + 60.0, pepper=PEPPER)
    with running(app) as client:
        client.headers["host"] = "sentinel.example"
        yield client


def test_reading_needs_a_key_or_a_login(elsewhere: httpx.Client, world: World) -> None:
    """Any name is answered; pages lead to the login, the API wants a key, its page and health do not."""
    page = elsewhere.get("/", follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert elsewhere.get("/", headers=world.callers["viewer"]).status_code == 200
    problem(elsewhere.get("/v1/models"), 401)
    assert elsewhere.get("/v1/models", headers=world.callers["read key"]).status_code == 200
    for path in ("/v1/docs", "/v1/openapi.json", "/-/healthy", "/readme", "/static/icon.svg"):
        assert elsewhere.get(path).status_code == 200


def test_metrics_show_a_projects_models_to_its_keys(elsewhere: httpx.Client, world: World) -> None:
    """Without a key there are Sentinel's own metrics and the forecasts'; with one its project's models besides."""

    def projects(caller: str) -> set[str]:
        lines = elsewhere.get("/metrics", headers=world.callers[caller]).text.splitlines()
        assert any(line.startswith("sentinel_build_info") for line in lines)
        return {line.split('project="')[1].split('"')[0] for line in lines if line.startswith("sentinel_model_state{")}

    eventually(lambda: projects("admin") == {"default", "other"})
    assert projects("read key") == {"default"}
    assert projects("other read key") == {"other"}
    assert projects("ingest key") == projects("nobody") == set()


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "via"])
def test_a_proxy_on_this_machine_is_not_this_machine(world: World, header: str) -> None:
    """What came through one sees no model without a key, and cannot reload; a scrape from beside it sees them all."""

    def metrics(**headers: str) -> str:
        return world.client.get("/metrics", headers=headers).text

    eventually(lambda: 'project="other"' in metrics())
    assert "sentinel_model_state{" not in metrics(**{header: "203.0.113.7"})
    seen = metrics(**{header: "203.0.113.7"}, **world.callers["read key"])
    assert 'project="default"' in seen
    assert 'project="other"' not in seen
    assert world.client.post("/-/reload").status_code == 409
    assert world.client.post("/-/reload", headers={header: "203.0.113.7"}).status_code == 403


def test_odd_names_of_projects_and_models() -> None:
    """A name with quotes in it is told from another's, and a model cannot pretend to be of another project."""
    lines = [
        b'm{model="x # y, z",project="a\\"b"} 1\n',
        b'm{model="\\",project=\\"mine",project="b"} 1\n',
        b"# HELP m project\n",
    ]
    shown = plain([_of_projects(Section.of(*lines), ['a"b'])])
    assert shown == lines[0] + lines[2]
    assert plain([_of_projects(Section.of(*lines), ["mine"])]) == lines[2]


def test_embedded_without_keys(tmp_path: Path) -> None:
    """An application over a fresh store works without anybody having made a key."""
    config = SentinelConfig(artifact_store=str(tmp_path))
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        store.database.migrate()
        with running(create_app(config, store, status=lambda _: {})) as client:
            assert client.get("/").status_code == 200
            assert client.get("/metrics").status_code == 200
            problem(client.get("/v1/models"), 401)
        with store.database.read() as conn:
            assert [project.name for project in model_store.projects(conn)] == ["default"]
