"""Who may do what: every operation of the document by every kind of caller."""

from typing import Any

import pytest

from sentinel_core.apps.api.door import BODILESS
from tests.api.world import World, operations, problem

NEEDS = {
    "ingest": ["POST /v1/events", "POST /v1/events/batch"],
    "read": [
        "GET /v1/models",
        "GET /v1/models/{model_id}",
        "GET /v1/models/{model_id}/settings",
        "GET /v1/models/{model_id}/baselines",
        "GET /v1/models/{model_id}/drift",
        "GET /v1/models/{model_id}/distributions",
        "GET /v1/models/{model_id}/activity",
        "GET /v1/monitoring",
        "GET /v1/incidents",
        "GET /v1/incidents/{incident_id}",
        "GET /v1/incidents/{incident_id}/timeline",
        "GET /v1/incidents/{incident_id}/deliveries",
        "GET /v1/deliveries",
        "GET /v1/receivers",
        "GET /v1/receivers/{receiver_id}",
        "GET /v1/projects",
        "GET /v1/projects/{project_id}",
    ],
    "operate": [
        "POST /v1/models/{model_id}/enable",
        "POST /v1/models/{model_id}/disable",
        "PATCH /v1/models/{model_id}/settings",
        "PUT /v1/models/{model_id}/settings",
        "POST /v1/models/{model_id}/baseline/pin",
        "POST /v1/models/{model_id}/baseline/unpin",
        "POST /v1/models/{model_id}/baseline/accept",
        "POST /v1/incidents/{incident_id}/acknowledge",
        "POST /v1/incidents/{incident_id}/resolve",
        "POST /v1/incidents/{incident_id}/close",
        "POST /v1/incidents/{incident_id}/accept",
        "POST /v1/deliveries/{delivery_id}/resend",
    ],
    "administer": [
        "DELETE /v1/models/{model_id}",
        "POST /v1/receivers",
        "PATCH /v1/receivers/{receiver_id}",
        "DELETE /v1/receivers/{receiver_id}",
        "POST /v1/receivers/{receiver_id}/test",
        "GET /v1/keys",
        "POST /v1/keys",
        "GET /v1/keys/{key_id}",
        "POST /v1/keys/{key_id}/rotate",
        "POST /v1/keys/{key_id}/revoke",
        "PATCH /v1/projects/{project_id}",
        "GET /v1/audit",
    ],
    "govern": [
        "GET /v1/users",
        "POST /v1/users",
        "GET /v1/users/{user_id}",
        "PATCH /v1/users/{user_id}",
        "POST /v1/projects",
    ],
}
MAY = {
    "nobody": set[str](),
    "ingest key": {"ingest"},
    "read key": {"read"},
    "admin key": {"ingest", "read", "operate", "administer"},
    "viewer": {"read"},
    "operator": {"read", "operate"},
    "project admin": {"read", "operate", "administer"},
    "admin": {"read", "operate", "administer", "govern"},
    "other project admin": {"read", "operate", "administer"},
}
TABLE = {one: action for action, some in NEEDS.items() for one in some}
NOWHERE = {
    "model_id": 2**31 - 1,
    "incident_id": 2**31 - 1,
    "receiver_id": 2**31 - 1,
    "delivery_id": 2**31 - 1,
    "user_id": 2**31 - 1,
    "project_id": 2**31 - 1,
    "key_id": "0" * 16,
}


def test_the_table_is_the_document(still_world: World) -> None:
    """Every operation of the document is in the table, and the document says what it needs."""
    document = still_world.client.get("/v1/openapi.json").json()
    said = {f"{method} {path}": operation["x-permission"] for method, path, operation in operations(document)}
    assert said == TABLE


@pytest.mark.parametrize("caller", MAY)
def test_every_operation_by_every_caller(still_world: World, caller: str) -> None:
    """Who may not is answered 401 or 403, before ids and bodies are looked at; who may is not."""
    for one, action in TABLE.items():
        method, path = one.split(" ")
        body: Any = None if method in BODILESS else {"unknown": 1}
        answer = still_world.ask(caller, method, path.format(**NOWHERE), body)
        if action in MAY[caller]:
            assert answer.status_code in (200, 404, 422), (caller, one, answer.text)
        elif caller == "nobody" or (action == "ingest" and "key" not in caller):  # a session sends no events
            problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        else:
            problem(answer, 403)


def test_a_session_writes_with_its_token_only(still_world: World) -> None:
    """A cookie without its CSRF token, or with another session's, changes nothing."""
    path = f"/v1/incidents/{still_world.mine.incident}/acknowledge"
    cookie = {"cookie": still_world.callers["operator"]["cookie"]}
    problem(still_world.client.post(path, headers=cookie), 403)
    foreign = {**cookie, "x-csrf-token": still_world.callers["admin"]["x-csrf-token"]}
    problem(still_world.client.post(path, headers=foreign), 403)
    form = {**cookie, "content-type": "application/x-www-form-urlencoded"}
    problem(still_world.client.post(path, headers=form, content=b"reason=x"), 403)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer sml_live_",
        "Basic YTpi",
        "Bearer sml_live_0000000000000000_" + "0" * 64,
        "Bearer \xe9",
    ],
)
def test_no_key_is_no_key(still_world: World, authorization: str) -> None:
    """Whatever is no live key is answered 401, on reading and on sending events alike."""
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/events")):
        headers = {"authorization": authorization.encode("latin-1"), "content-type": "application/json"}
        problem(still_world.client.request(method, path, headers=headers), 401)  # type: ignore[arg-type]
