"""Pages of lists: whole, in order, and unmoved by what is added meanwhile."""

import pytest

from sentinel_core.storage import model_store
from tests.api.world import NOW, World, open_incident


def pages(world: World, path: str, caller: str = "admin key") -> list[list[int | str]]:
    """The ids on each page of a list."""
    found, cursor = [], ""
    while True:
        join = "&" if "?" in path else "?"
        answer = world.ask(caller, "GET", f"{path}{join}limit=2{cursor}").json()
        found.append([item["id"] for item in answer["items"]])
        if answer["next"] is None:
            return found
        cursor = f"&cursor={answer['next']}"


def fill(world: World, count: int) -> None:
    """Add models with an incident each, and keys."""
    project = world.mine.project
    with world.store.database.write() as conn:
        for i in range(count):
            model = model_store.register(conn, [(project, f"model-{i}")], NOW)[project, f"model-{i}"]
            open_incident(conn, project, model.id, model.name)


@pytest.mark.parametrize(
    "path", ["models", "incidents", "deliveries", "receivers", "keys", "audit", "projects", "users"]
)
def test_pages_hold_everything_once(world: World, path: str) -> None:
    """Reading page by page is reading the list."""
    fill(world, 4)
    caller = "admin" if path in ("projects", "users") else "admin key"
    whole = [item["id"] for item in world.ask(caller, "GET", f"/v1/{path}").json()["items"]]
    found = pages(world, f"/v1/{path}", caller)
    assert [one for page in found for one in page] == whole
    assert world.ask(caller, "GET", f"/v1/{path}?cursor=").json()["items"][0]["id"] == whole[0]
    assert all(len(page) == 2 for page in found[:-1])


@pytest.mark.parametrize("path", ["models", "incidents", "keys", "audit"])
def test_what_is_added_moves_no_page(world: World, path: str) -> None:
    """Between two pages something is added: nothing is shown twice, and nothing that was there is left out."""
    fill(world, 3)
    before = [item["id"] for item in world.ask("admin key", "GET", f"/v1/{path}").json()["items"]]
    first = world.ask("admin key", "GET", f"/v1/{path}?limit=2").json()
    with world.store.database.write() as conn:
        model = model_store.register(conn, [(world.mine.project, "late")], NOW)[world.mine.project, "late"]
        open_incident(conn, world.mine.project, model.id, "late")
    world.ask("admin key", "POST", "/v1/keys", {"name": "late", "scopes": ["read"]})
    rest = world.ask("admin key", "GET", f"/v1/{path}?cursor={first['next']}").json()
    shown = [item["id"] for item in first["items"] + rest["items"]]
    assert len(shown) == len(set(shown))
    assert [one for one in shown if one in before] == before


def test_models_are_filtered(world: World) -> None:
    """By state, by name, by whether they are evaluated; pages count what is left."""
    fill(world, 3)
    project = world.mine.project
    with world.store.database.write() as conn:
        off = model_store.register(conn, [(project, "off")], NOW)[project, "off"]
        model_store.set_enabled(conn, off.id, False)

    def names(query: str) -> list[str]:
        return [item["name"] for item in world.ask("read key", "GET", f"/v1/models?{query}").json()["items"]]

    assert names("state=critical") == ["fraud-model"]
    assert names("state=critical&state=ok") == ["fraud-model"]
    assert names("state=ok") == []
    assert names("enabled=false") == ["off"]
    assert names("name=model-1") == ["model-1"]
    assert [len(page) for page in pages(world, "/v1/models?enabled=true", "read key")] == [2, 2]


def test_incidents_are_filtered(world: World) -> None:
    """By state, severity, kind and model."""
    fill(world, 2)
    world.ask("operator", "POST", f"/v1/incidents/{world.mine.incident}/acknowledge")

    def count(query: str) -> int:
        return len(world.ask("read key", "GET", f"/v1/incidents?{query}").json()["items"])

    assert count("state=open") == 2
    assert count("state=open&state=acknowledged") == 3
    assert count("state=closed") == 0
    assert count("severity=critical&kind=psi") == 3
    assert count("severity=warn") == 0
    assert count(f"model_id={world.mine.model}") == 1
    assert count("watch_id=1") == 0
