"""What people change through the API, from asking to the audit."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from sentinel_core.apps.api.values import moment
from sentinel_core.storage import schema
from tests.api.world import MODEL, NOW, PASSWORD, SLACK, World, problem
from tests.apps.server import eventually


def test_an_incident_from_opening_to_closing(world: World) -> None:
    """Each action moves the incident, is in its timeline with actor and reason, and in the audit."""
    path = f"/v1/incidents/{world.mine.incident}"
    assert world.ask("viewer", "GET", path).json()["possible"] == ["acknowledge", "resolve", "accept"]
    problem(world.ask("operator", "POST", f"{path}/close"), 409)
    one = world.ask("operator", "POST", f"{path}/acknowledge", {"reason": "looking"}).json()
    assert (one["state"], one["acknowledged_at"]) == ("acknowledged", "2027-01-15T08:01:00Z")
    problem(world.ask("operator", "POST", f"{path}/acknowledge"), 409)
    assert world.ask("operator", "POST", f"{path}/resolve", {"reason": "fixed"}).json()["state"] == "resolved"
    assert world.ask("admin key", "POST", f"{path}/close").json()["state"] == "closed"
    assert world.ask("viewer", "GET", path).json()["possible"] == []
    steps = world.ask("viewer", "GET", f"{path}/timeline").json()["items"]
    assert [(step["kind"], step["actor"], step["reason"]) for step in steps[1:]] == [
        ("acknowledged", "operator", "looking"),
        ("resolved", "operator", "fixed"),
        ("closed", "key admin", "by hand"),
    ]
    assert steps[0]["assessment"]["outputs"][0]["adjusted"] == 0.38
    assert world.audited()[-3:] == ["incident.acknowledge", "incident.resolve", "incident.close"]


def test_two_who_acknowledge_at_once(world: World) -> None:
    """One of them does, the others are told; there is one row in the timeline."""
    path = f"/v1/incidents/{world.mine.incident}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.ask("operator", "POST", f"{path}/acknowledge"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert len(world.ask("viewer", "GET", f"{path}/timeline").json()["items"]) == 2


def test_settings_by_compare_and_set(world: World) -> None:
    """PATCH changes what is named, PUT gives the rest back; If-Match refuses what has become stale."""
    path = f"/v1/models/{world.mine.model}/settings"
    before = world.ask("viewer", "GET", path)
    tag = before.headers["etag"]
    assert before.json()["own"] == {}
    changed = world.ask("operator", "PATCH", path, {"warn": 0.15, "min_samples": 300}, **{"if-match": tag})
    assert changed.json()["own"] == {"warn": 0.15, "min_samples": 300}
    assert changed.json()["effective"]["warn"] == 0.15
    assert changed.headers["etag"] != tag
    problem(world.ask("operator", "PATCH", path, {"warn": 0.2}, **{"if-match": tag}), 412)
    problem(world.ask("operator", "PATCH", path, {"warn": 0.2}, **{"if-match": "odd"}), 412)
    any_tag = world.ask("operator", "PATCH", path, {"warn": None, "bins": 8}, **{"if-match": "*"})
    assert any_tag.json()["own"] == {"min_samples": 300, "bins": 8}
    assert world.ask("operator", "PUT", path, {"silence": False}).json()["own"] == {"silence": False}
    assert world.ask("viewer", "GET", "/v1/monitoring").json()["silence"] is True
    assert world.audited()[-1] == "model.settings"


def test_enabling_and_disabling(world: World) -> None:
    """A model is switched off, which ends its incident, and on; doing so twice changes nothing more."""
    path = f"/v1/models/{world.mine.model}"
    for action, enabled in (("disable", False), ("disable", False), ("enable", True)):
        assert world.ask("operator", "POST", f"{path}/{action}").json()["enabled"] is enabled
        incident = world.ask("viewer", "GET", f"/v1/incidents/{world.mine.incident}").json()
        assert incident["state"] == "resolved"  # nobody evaluates it any more
    assert [one for one in world.audited() if one.startswith("model")] == ["model.disable", "model.enable"]


def test_a_model_as_it_was_evaluated(world: World) -> None:
    """A model's page of numbers: state, worst output, interval, bins and its incident."""
    one = world.ask("viewer", "GET", f"/v1/models/{world.mine.model}").json()
    assert (one["name"], one["state"], one["output"], one["adjusted_psi"]) == (MODEL, "critical", "score", 0.38)
    assert (one["incident_id"], one["incident_severity"]) == (world.mine.incident, "critical")
    output = one["assessment"]["outputs"][0]
    assert (output["lower"], output["upper"], output["limit"]) == (0.3, 0.5, 0.05)
    assert [each["name"] for each in output["bins"]] == ["up to 0.5", "above 0.5"]
    baselines = world.ask("viewer", "GET", f"/v1/models/{world.mine.model}/baselines").json()["items"]
    assert [(each["version"], each["kind"], each["in_use"]) for each in baselines] == [(1, "sliding", False)]


def test_a_baseline_needs_events(world: World) -> None:
    """A span that is none, or without enough events, cannot be pinned; nor can an empty window be accepted."""
    path = f"/v1/models/{world.mine.model}/baseline"
    for start, end in (("2027-01-14", "2027-01-08"), ("2027-01-08", "2027-01-14"), ("1970-01-01", "9998-12-31")):
        span = {"start": f"{start}T00:00:00Z", "end": f"{end}T00:00:00Z"}
        found = problem(world.ask("operator", "POST", f"{path}/pin", span), 422)
        assert found["errors"][0]["pointer"] in ("#/start", "#/end")
    for empty in (f"{path}/accept", f"/v1/incidents/{world.mine.incident}/accept"):
        assert problem(world.ask("operator", "POST", empty), 422)["errors"][0]["pointer"] == "#"
    assert not [one for one in world.audited() if one.startswith("baseline")]


def test_deleting_a_model(world: World) -> None:
    """What was stored of it is counted and gone, with its incidents; the other project's namesake stays."""
    path = f"/v1/models/{world.mine.model}"
    deleted = world.ask("admin key", "DELETE", path).json()
    assert deleted["model"] == MODEL
    assert deleted["tables"]["baselines"] == 1
    problem(world.ask("admin key", "GET", path), 404)
    problem(world.ask("admin key", "DELETE", path), 404)
    problem(world.ask("admin key", "GET", f"/v1/incidents/{world.mine.incident}"), 404)
    assert world.ask("other read key", "GET", f"/v1/models/{world.theirs.model}").status_code == 200
    assert world.audited()[-1] == "model.delete"


def test_dead_alerts_are_sent_again(world: World) -> None:
    """A dead delivery is listed, owed again once, and no more than once."""
    dead = world.ask("viewer", "GET", "/v1/deliveries?state=dead").json()["items"]
    assert [(one["receiver"], one["last_error"]) for one in dead] == [("on-call", "404")]
    path = f"/v1/deliveries/{world.mine.delivery}/resend"
    assert world.ask("operator", "POST", path).status_code == 204
    problem(world.ask("operator", "POST", path), 409)
    assert world.ask("viewer", "GET", "/v1/deliveries?state=dead").json()["items"] == []
    mine = world.ask("viewer", "GET", f"/v1/incidents/{world.mine.incident}/deliveries").json()["items"]
    assert [one["state"] for one in mine] == ["pending"]


@contextmanager
def nobody_there() -> Iterator[str]:
    """An address on this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    yield f"http://127.0.0.1:{port}/"


def test_receivers_never_show_their_secrets(world: World) -> None:
    """A receiver's secrets are masked, stay when they come back masked, and are in no answer and no audit."""
    path = f"/v1/receivers/{world.mine.receiver}"
    shown = world.ask("viewer", "GET", path).json()
    assert shown["settings"] == {"url": "********"}
    changed = world.ask("admin key", "PATCH", path, {"name": "nights", "min_severity": "critical"})
    assert (changed.json()["name"], changed.json()["min_severity"]) == ("nights", "critical")
    with world.store.database.read() as conn:
        stored = conn.scalar(sa.select(schema.receivers.c.settings).where(schema.receivers.c.id == world.mine.receiver))
        details = conn.scalars(sa.select(schema.audit_log.c.detail)).all()
    assert SLACK in str(stored)
    assert not any("secret" in detail for detail in details)
    with nobody_there() as url:
        refused = world.ask("admin key", "PATCH", path, {"settings": {"url": url}})
    assert problem(refused, 422)["errors"][0]["pointer"] == "#/settings/url"
    assert world.ask("admin key", "DELETE", path).status_code == 204
    problem(world.ask("admin key", "GET", path), 404)
    assert world.audited()[-2:] == ["receiver.change", "receiver.remove"]


def test_a_receiver_that_cannot_be_reached_is_an_answer(world: World) -> None:
    """A test alert that does not arrive is no failure of the request: it says why."""
    outcome = world.ask("admin key", "POST", f"/v1/receivers/{world.mine.receiver}/test").json()
    assert outcome["delivered"] is False
    assert outcome["detail"]
    assert world.audited()[-1] == "receiver.test"


def test_taken_names(world: World) -> None:
    """A name that is taken is a conflict, also for many who take it at once."""
    world.ask("admin", "POST", "/v1/projects", {"name": "payments"})
    problem(world.ask("admin", "POST", "/v1/projects", {"name": "payments"}), 409)
    problem(world.ask("admin", "PATCH", "/v1/projects/1", {"name": "payments"}), 409)
    problem(world.ask("admin", "POST", "/v1/users", {"name": "Viewer", "password": PASSWORD, "role": "viewer"}), 409)
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda _: world.ask("admin", "POST", "/v1/projects", {"name": "rush"}), range(6))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


def test_a_key_from_making_to_revoking(world: World) -> None:
    """A key is shown once, works at once, is rotated with an overlap, and refused as soon as it is revoked."""
    made = world.ask("admin key", "POST", "/v1/keys", {"name": "fraud-service", "scopes": ["read"]}).json()
    text = made.pop("key")
    assert text.startswith(f"sml_live_{made['id']}_")
    shown = world.ask("admin key", "GET", f"/v1/keys/{made['id']}")
    assert shown.json() == made
    assert text not in world.ask("admin key", "GET", "/v1/keys").text

    def works(key: str) -> bool:
        return world.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200

    assert works(text)
    rotated = world.ask("admin key", "POST", f"/v1/keys/{made['id']}/rotate", {"overlap_seconds": 3600}).json()
    assert works(text)
    assert works(rotated["key"])
    assert (rotated["name"], rotated["scopes"]) == ("fraud-service", ["read"])
    assert world.ask("admin key", "POST", f"/v1/keys/{made['id']}/revoke").json()["state"] == "revoked"
    assert not works(text)
    assert works(rotated["key"])
    problem(world.ask("admin key", "POST", f"/v1/keys/{made['id']}/rotate"), 409)
    assert world.audited()[-3:] == ["key.create", "key.rotate", "key.revoke"]


def test_a_key_of_every_project_is_for_those_who_see_all(world: World) -> None:
    """An admin of all makes one, to read; an admin of one project neither makes nor sees nor ends it."""
    asked = {"name": "grafana", "scopes": ["read"], "all_projects": True}
    problem(world.ask("admin key", "POST", "/v1/keys", asked), 403)
    problem(world.ask("admin", "POST", "/v1/keys", {**asked, "project_id": 1}), 422)
    problem(world.ask("admin", "POST", "/v1/keys", {**asked, "scopes": ["ingest"]}), 422)
    made = world.ask("admin", "POST", "/v1/keys", asked).json()
    assert made["project_id"] is None
    everything = world.client.get("/v1/models", headers={"authorization": f"Bearer {made['key']}"})
    assert everything.json()["items"] == world.ask("admin", "GET", "/v1/models").json()["items"]
    problem(world.ask("admin key", "GET", f"/v1/keys/{made['id']}"), 404)
    problem(world.ask("admin key", "POST", f"/v1/keys/{made['id']}/revoke"), 404)
    assert made["id"] not in world.ask("admin key", "GET", "/v1/keys").text
    assert world.ask("admin", "POST", f"/v1/keys/{made['id']}/revoke").json()["state"] == "revoked"


def test_a_user_from_adding_to_disabling(world: World) -> None:
    """A user is added, given another role and password, and disabled; no answer holds a password."""
    added = world.ask("admin", "POST", "/v1/users", {"name": "ada", "password": PASSWORD, "role": "viewer"})
    assert added.status_code == 201
    path = f"/v1/users/{added.json()['id']}"
    changed = world.ask("admin", "PATCH", path, {"role": "operator", "password": PASSWORD[::-1]}).json()
    assert (changed["role"], changed["project_id"]) == ("operator", None)
    assert world.ask("admin", "PATCH", path, {"disabled": True}).json()["disabled_at"]
    assert world.ask("admin", "PATCH", path, {"disabled": False}).json()["disabled_at"] is None
    assert "argon2" not in world.ask("admin", "GET", "/v1/users").text
    problem(world.ask("admin", "POST", "/v1/users", {"name": "bob", "password": "short", "role": "viewer"}), 422)


def test_the_last_admin_stays(world: World) -> None:
    """Nobody can lock everybody out."""
    users = world.ask("admin", "GET", "/v1/users").json()["items"]
    admin = next(user["id"] for user in users if user["name"] == "admin")
    problem(world.ask("admin", "PATCH", f"/v1/users/{admin}", {"role": "viewer"}), 409)
    problem(world.ask("admin", "PATCH", f"/v1/users/{admin}", {"disabled": True}), 409)


def test_a_projects_name_is_the_installations(world: World) -> None:
    """An admin of a project says how its models start, but does not rename it."""
    path = f"/v1/projects/{world.mine.project}"
    assert world.ask("admin key", "PATCH", path, {"monitor_new_models": False}).json()["monitor_new_models"] is False
    problem(world.ask("admin key", "PATCH", path, {"name": "mine"}), 403)
    assert world.ask("admin", "PATCH", path, {"name": "mine"}).json()["name"] == "mine"
    entry = world.ask("admin key", "GET", "/v1/audit").json()["items"][0]
    assert (entry["action"], entry["actor"], entry["detail"]) == ("project.change", "admin", {"name": "mine"})


def test_a_renamed_project_is_called_so_on_metrics(world: World) -> None:
    """Its old name may be given to another project, whose keys must not see what was counted under it."""
    event = {"model_id": "new", "event_time": moment(NOW), "score": 0.5}
    assert world.ask("ingest key", "POST", "/v1/events", event).status_code == 202
    path = f"/v1/projects/{world.mine.project}"
    assert world.ask("admin", "PATCH", path, {"name": "renamed"}).status_code == 200
    assert world.ask("ingest key", "POST", "/v1/events", event).status_code == 202
    eventually(lambda: 'project="default"' not in world.client.get("/metrics").text)
    assert 'model="new",outcome="accepted",project="renamed"} 1.0' in world.client.get("/metrics").text


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x00b", "a\u202eb"])
def test_a_projects_name_can_be_read(world: World, name: str) -> None:
    """Whoever sends it, by whatever door: it is refused before PostgreSQL would."""
    problem(world.ask("admin", "POST", "/v1/projects", {"name": name}), 422)
    problem(world.ask("admin", "PATCH", f"/v1/projects/{world.mine.project}", {"name": name}), 422)


@pytest.mark.parametrize("path", ["drift", "activity"])
def test_a_model_without_events_has_no_history(world: World, path: str) -> None:
    """Before its first event a model's history is empty, whatever span is asked for."""
    for query in ("", "?start=1970-01-01T00:00:00Z", "?end=1970-01-01T00:00:00Z", "?end=9998-12-31T23:59:59Z"):
        answer = world.ask("viewer", "GET", f"/v1/models/{world.mine.model}/{path}{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"] == []


def test_the_newest_distributions(world: World) -> None:
    """They are those of the newest evaluation, or of the hour that is asked for; elsewhere nothing was."""
    path = f"/v1/models/{world.mine.model}/distributions"
    for query in ("", "?hour=2027-01-15T08:00:00Z"):
        items = world.ask("viewer", "GET", path + query).json()["items"]
        assert [(one["output"], [each["current"] for each in one["bins"]]) for one in items] == [("score", [0.4, 0.6])]
    assert world.ask("viewer", "GET", f"{path}?hour=1970-01-01T00:00:00Z").json()["items"] == []
    ahead = world.ask("viewer", "GET", f"{path}?hour=9998-12-31T23:59:59Z").json()["items"]
    assert [one["n_current"] for one in ahead] == [0]
