"""Two projects with the same names in them: neither sees, changes or learns of anything of the other's."""

from typing import Any

import pytest
import sqlalchemy as sa

from sentinel_core.apps.api.door import BODILESS
from sentinel_core.storage import schema
from tests.api.test_permissions import NOWHERE, TABLE
from tests.api.world import NOW, World, problem

STRANGERS = ("other admin key", "other project admin")
BODIES: dict[str, Any] = {
    "PATCH /v1/models/{model_id}/settings": {"warn": 0.2},
    "PUT /v1/models/{model_id}/settings": {},
    "POST /v1/models/{model_id}/baseline/pin": {"start": "2027-01-08T00:00:00Z", "end": "2027-01-14T00:00:00Z"},
    "PATCH /v1/receivers/{receiver_id}": {"enabled": False},
    "PATCH /v1/projects/{project_id}": {"monitor_new_models": False},
}


def rows(world: World) -> dict[str, list[Any]]:
    """Every row that a stranger might change."""
    with world.store.database.read() as conn:
        return {
            table.name: [tuple(row) for row in conn.execute(sa.select(table))]
            for table in schema.metadata.sorted_tables
            if table.name not in ("sessions", "api_keys", "counters", "changes")
        }


@pytest.mark.parametrize("caller", STRANGERS)
def test_another_projects_ids_do_not_exist(still_world: World, caller: str) -> None:
    """Each operation answers another project's id exactly as one that there never was, and changes nothing."""
    before = rows(still_world)
    for one, action in TABLE.items():
        method, path = one.split(" ")
        if "{" not in path or action == "govern":
            continue
        body = None if method in BODILESS else BODIES.get(one, {})
        theirs, nobodys = still_world.mine.path(path), path.format(**NOWHERE)
        answers = [problem(still_world.ask(caller, method, at, body), 404)["detail"] for at in (theirs, nobodys)]
        ids = [at.split("/")[3] for at in (theirs, nobodys)]
        assert answers[0].replace(ids[0], "") == answers[1].replace(ids[1], ""), one
    assert rows(still_world) == before


@pytest.mark.parametrize("caller", STRANGERS)
def test_lists_hold_ones_own_alone(still_world: World, caller: str) -> None:
    """Every list shows what is one's own, and asking for another project's is asking for none."""
    mine, theirs = still_world.mine, still_world.theirs
    for path in ("models", "incidents", "deliveries", "receivers", "keys", "audit", "projects"):
        items = still_world.ask(caller, "GET", f"/v1/{path}").json()["items"]
        assert items, path
        if path == "deliveries":
            assert {item["incident_id"] for item in items} == {theirs.incident}
        else:
            key = "id" if path == "projects" else "project_id"
            assert {item[key] for item in items} == {theirs.project}, path
        if path != "projects":
            problem(still_world.ask(caller, "GET", f"/v1/{path}?project_id={mine.project}"), 404)
    for query in (f"incidents?model_id={mine.model}", f"deliveries?receiver_id={mine.receiver}"):
        assert still_world.ask(caller, "GET", f"/v1/{query}").json()["items"] == []


def test_nothing_is_put_into_another_project(still_world: World) -> None:
    """Keys and receivers cannot be made in another project, whose existence is not admitted either."""
    project = still_world.mine.project
    key = {"name": "spy", "scopes": ["read"], "project_id": project}
    receiver = {"name": "spy", "kind": "slack", "settings": {"url": "https://192.0.2.1/x"}, "project_id": project}
    for caller in STRANGERS:
        assert problem(still_world.ask(caller, "POST", "/v1/keys", key), 404)["detail"] == "there is no project 1"
        problem(still_world.ask(caller, "POST", "/v1/receivers", receiver), 404)


def test_who_sees_every_project_says_which(world: World) -> None:
    """An admin of all projects reads all of them, filters by one, and names the project of what they add."""
    projects = {item["project_id"] for item in world.ask("admin", "GET", "/v1/incidents").json()["items"]}
    assert projects == {world.mine.project, world.theirs.project}
    one = world.ask("admin", "GET", f"/v1/incidents?project_id={world.theirs.project}").json()["items"]
    assert [item["id"] for item in one] == [world.theirs.incident]
    key = {"name": "ours", "scopes": ["read"]}
    assert problem(world.ask("admin", "POST", "/v1/keys", key), 422)["errors"][0]["pointer"] == "#/project_id"
    made = world.ask("admin", "POST", "/v1/keys", key | {"project_id": world.theirs.project}).json()
    assert made["project_id"] == world.theirs.project
    missing = {"name": "ours", "scopes": ["read"], "project_id": 99}
    problem(world.ask("admin", "POST", "/v1/keys", missing), 404)


def test_events_land_in_the_keys_project(world: World) -> None:
    """The same model name, sent with two keys, is two models."""
    event = {"model_id": "new-model", "event_time": "2027-01-15T08:00:00Z", "score": 0.5}
    for caller in ("ingest key", "other ingest key"):
        answer = world.ask(caller, "POST", "/v1/events", event)
        assert answer.status_code == 202, (answer.text, NOW)
    with world.store.database.read() as conn:
        models = schema.monitored_models
        found = conn.execute(sa.select(models.c.project_id).where(models.c.name == "new-model")).scalars().all()
    assert sorted(found) == [world.mine.project, world.theirs.project]
