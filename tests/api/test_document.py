"""The OpenAPI document, and the page made of it."""

import html
import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from typing import Any

import pytest

from sentinel_core.config import MonitorConfig
from tests.api.world import World, operations

COMMON = {"401", "403", "503"}


@pytest.fixture(scope="module")
def document(still_world: World) -> dict[str, Any]:
    """The document as anybody may read it."""
    answer = still_world.client.get("/v1/openapi.json")
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()
    return content


def test_every_operation_is_documented_whole(document: dict[str, Any]) -> None:
    """Each has a summary, words, a tag, one good answer and every status that many may answer; errors are problems."""
    tags = {tag["name"] for tag in document["tags"]}
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert set(operation["tags"]) <= tags, where
        statuses = set(operation["responses"])
        expected = COMMON | ({"404"} if "{" in path else set())
        if operation.get("parameters") or "requestBody" in operation:
            expected |= {"422"}
        if "requestBody" in operation:
            expected |= {"400", "413", "415"}
        assert statuses >= expected, where
        assert len([status for status in statuses if status < "400"]) == 1, where
        for status, answer in operation["responses"].items():
            assert answer["description"], (where, status)
            assert status < "400" or list(answer["content"]) == ["application/problem+json"], (where, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No $ref is broken, and no schema is unused."""
    names = set(document["components"]["schemas"])
    found = set(re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')))
    assert found == names


def test_settings_are_those_of_the_configuration(document: dict[str, Any]) -> None:
    """What can be read and changed of a model's settings is what the configuration has."""
    names = {field.name for field in fields(MonitorConfig)}
    for schema in ("Settings", "SettingsChange"):
        assert set(document["components"]["schemas"][schema]["properties"]) == names


class Page(HTMLParser):
    """What a page links to, defines, loads and runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what matters of an element."""
        values = dict(attributes)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        href = values.get("href") or ""
        if tag == "a" and href.startswith("#"):
            self.anchors.add(href[1:])
        if tag in ("link", "img", "script", "iframe"):
            self.loaded.append(str(values.get("href") or values.get("src")))
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if tag in ("script", "style"):
            self.inline.append(tag)


def test_the_page_reads_without_anything_foreign(still_world: World, document: dict[str, Any]) -> None:
    """It needs no key, loads nothing from elsewhere and runs nothing; each endpoint and schema can be linked to."""
    answer = still_world.client.get("/v1/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = Page(answer.text)
    assert page.inline == []
    assert all(address.startswith("/static/") for address in page.loaded)
    for address in page.loaded:
        assert still_world.client.get(address).status_code == 200
    assert len(page.ids) == len(set(page.ids))
    assert page.anchors <= set(page.ids)
    ids = {operation["operationId"] for _, _, operation in operations(document)}
    assert ids | {f"schema-{name}" for name in document["components"]["schemas"]} <= set(page.ids)


def test_the_examples_are_right(world: World) -> None:
    """What the page shows to be sent is understood as it stands."""
    page = html.unescape(world.client.get("/v1/docs").text)
    tried = 0
    for method, path, operation in operations(world.client.get("/v1/openapi.json").json()):
        shown = re.search(rf"curl -X {method} '[^']*{re.escape(path)}' .*?-d '(.*?)'</code>", page, re.DOTALL)
        if "requestBody" not in operation or "{" in path or path in ("/v1/receivers", "/v1/events", "/v1/events/batch"):
            continue  # an address that leads nowhere from here, and times that are long past
        assert shown is not None, path
        body = json.loads(shown[1]) | ({"project_id": 1} if path == "/v1/keys" else {})
        answer = world.ask("admin", method, path, body)
        assert answer.status_code == 201, (path, answer.text)
        tried += 1
    assert tried == 3
    settings = world.mine.path("/v1/models/{model_id}/settings")
    example = {"critical": 0.3, "warn": 0.15}
    assert json.dumps(example, indent=2) in page
    assert world.ask("operator", "PATCH", settings, example).status_code == 200
