"""What cannot be asked is answered with a problem that says what to do, never with a failure of ours."""

from typing import Any

import pytest

from tests.api.world import World, problem

BIG = 10**30
SETTINGS = "/v1/models/{model}/settings"


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/models/0", "model_id"),
        ("/v1/models/-1", "model_id"),
        (f"/v1/models/{BIG}", "model_id"),
        ("/v1/models/2147483648", "model_id"),
        ("/v1/models/one", "model_id"),
        ("/v1/models/1.5", "model_id"),
        ("/v1/models/%00", "model_id"),
        ("/v1/models/a%0Ab", "model_id"),
        ("/v1/models/a%0Ab/drift", "model_id"),
        ("/v1/models/%ED%A0%80", "model_id"),
        ("/v1/models?limit=0", "limit"),
        ("/v1/models?limit=-5", "limit"),
        (f"/v1/models?limit={BIG}", "limit"),
        ("/v1/models?limit=NaN", "limit"),
        ("/v1/models?cursor=x", "cursor"),
        ("/v1/models?cursor=%ff", "cursor"),
        ("/v1/models?cursor=LTE", "cursor"),  # -1
        ("/v1/models?cursor=" + "A" * 4000, "cursor"),
        ("/v1/models?state=odd", "state.0"),
        ("/v1/models?name=%00", "name"),
        ("/v1/models?name=" + "x" * 201, "name"),
        ("/v1/models?enabled=perhaps", "enabled"),
        (f"/v1/models?project_id={BIG}", "project_id"),
        ("/v1/models/1/drift?start=yesterday", "start"),
        ("/v1/models/1/drift?start=2026-01-01T00:00:00", "start"),
        ("/v1/models/1/drift?start=99999-01-01T00:00:00Z", "start"),
        ("/v1/models/1/drift?end=0001-01-01T00:00:00%2B14:00", "end"),
        ("/v1/models/1/drift?end=2026-02-30T00:00:00Z", "end"),
        ("/v1/models/1/distributions?hour=9999-12-31T23:59:59-14:00", "hour"),
        ("/v1/incidents?severity=high", "severity"),
        ("/v1/incidents?kind=psi%00", "kind"),
        (f"/v1/incidents?model_id={BIG}", "model_id"),
        ("/v1/deliveries?state=lost", "state"),
    ],
)
def test_parameters(still_world: World, path: str, parameter: str) -> None:
    """A parameter that cannot be is named."""
    content = problem(still_world.ask("read key", "GET", path), 422)
    assert [error["parameter"] for error in content["errors"]] == [parameter]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"[" * 60_000, 400),
        (b'{"warn": NaN}', 400),
        (b'{"warn": Infinity}', 400),
        (b'{"warn": 1e999}', 400),
        (b'{"warn": ' + b"9" * 5000 + b"}", 400),
        (b'{"warn": "0.2"}', 422),
        (b'{"warn": true}', 422),
        (b'{"warn": -1}', 422),
        (b'{"warn": 0.3}', 422),  # more than critical
        (b'{"bins": 10000000000000000000000}', 422),
        (b'{"bins": 9223372036854775808}', 422),
        (b'{"bins": 4.5}', 422),
        (b'{"baseline": "\\ud800"}', 400),
        (b'{"baseline": "pinned"}', 422),
        (b'{"\\u0000": 1}', 422),
        (b'{"current_hours": 7}', 422),
        (b"\xff\xfe", 400),
        (b" " * 70_000, 413),
    ],
)
def test_bodies(still_world: World, content: bytes, status: int) -> None:
    """A body that is not JSON, or not what is asked for, is refused, and says where."""
    path = SETTINGS.format(model=still_world.mine.model)
    headers = {**still_world.callers["admin key"], "content-type": "application/json"}
    found = problem(still_world.client.patch(path, headers=headers, content=content), status)
    assert status != 422 or all(error["pointer"].startswith("#") for error in found["errors"])


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/keys", {"name": "", "scopes": ["read"]}, "#/name"),
        ("/v1/keys", {"name": "a\0b", "scopes": ["read"]}, "#/name"),
        ("/v1/keys", {"name": "x" * 121, "scopes": ["read"]}, "#/name"),
        ("/v1/keys", {"name": "   ", "scopes": ["read"]}, "#/name"),
        ("/v1/keys", {"name": "x", "scopes": []}, "#/scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["root"]}, "#/scopes/0"),
        ("/v1/keys", {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ("/v1/keys", {"name": "x", "scopes": ["read"], "expires_at": 1e10}, "#/expires_at"),
        ("/v1/keys", {"name": "x", "scopes": ["read"], "events_per_second": 0}, "#/events_per_second"),
        ("/v1/keys", {"name": "x", "scopes": ["read"], "project_id": 2**40}, "#/project_id"),
        ("/v1/receivers", {"name": "a\nb", "kind": "slack", "settings": {}}, "#/name"),
        ("/v1/receivers", {"name": "a", "kind": "pager", "settings": {}}, "#/kind"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": []}, "#/settings"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {}}, "#/settings/url"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {"url": "file:///etc/passwd"}}, "#/settings/url"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {"url": "http://127.0.0.1/"}}, "#/settings/url"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {"url": "http://[::1/"}}, "#/settings/url"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {"url": "\0"}}, "#/settings/url"),
        ("/v1/receivers", {"name": "a", "kind": "slack", "settings": {"url": 5}}, "#/settings/url"),
    ],
)
def test_fields(still_world: World, path: str, body: dict[str, Any], pointer: str) -> None:
    """A field that cannot be is pointed at."""
    content = problem(still_world.ask("admin key", "POST", path, body), 422)
    assert pointer in [error["pointer"] for error in content["errors"]]


def test_other_forms_of_bodies(still_world: World) -> None:
    """What is not plain JSON is answered 415."""
    path = SETTINGS.format(model=still_world.mine.model)
    for more in ({"content-type": "text/plain"}, {}, {"content-type": "application/json", "content-encoding": "gzip"}):
        headers = {**still_world.callers["admin key"], **more}
        problem(still_world.client.patch(path, headers=headers, content=b"{}"), 415)


def test_an_endless_body_is_not_read_to_its_end(still_world: World) -> None:
    """A body that comes in pieces is refused as soon as it is too large."""
    headers = {**still_world.callers["admin key"], "content-type": "application/json"}

    def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1000

    path = SETTINGS.format(model=still_world.mine.model)
    problem(still_world.client.patch(path, headers=headers, content=pieces()), 413)


def test_what_is_not_there(still_world: World) -> None:
    """Unknown endpoints are 404, other methods 405 with what is possible."""
    problem(still_world.ask("admin key", "GET", "/v1/nothing"), 404)
    problem(still_world.ask("admin key", "GET", "/v1/models/"), 404)
    for method, path, allowed in (
        ("PUT", "/v1/models", "GET"),
        ("OPTIONS", "/v1/keys", "GET, POST"),
        ("TRACE", f"/v1/models/{still_world.mine.model}/settings", "GET, PATCH, PUT"),
    ):
        answer = still_world.ask("admin key", method, path)
        problem(answer, 405)
        assert answer.headers["allow"] == allowed
    assert still_world.ask("admin key", "GET", "/v1/events").headers["allow"] == "POST"


def test_another_sites_page_is_told_so(still_world: World) -> None:
    """A request of another site's page is a 403 problem below /v1."""
    headers = {"sec-fetch-site": "cross-site"}
    problem(still_world.ask("admin key", "POST", "/v1/keys", {"name": "x", "scopes": ["read"]}, **headers), 403)


def test_a_store_that_refuses_is_unavailable(world: World) -> None:
    """Where the store does not answer the API says so with 503, and when to come back."""
    with world.store.database.write() as conn:
        conn.exec_driver_sql("drop table deliveries")
    answer = world.ask("read key", "GET", "/v1/deliveries")
    problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
