"""Requests generated from the OpenAPI document, right and wrong ones, by everybody: no failure of ours, no leak.

$SENTINEL_GENERATED_REQUESTS says how many in all; without it a few hundred, always the same ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sentinel_core.storage import model_store
from tests.api.test_permissions import MAY, TABLE
from tests.api.world import NOW, World, open_incident, open_world

REQUESTS = int(os.environ.get("SENTINEL_GENERATED_REQUESTS", "0"))
MARK = "only-mine-7f3a"  # the name of a model that nobody else may ever read
CALLERS = ("admin", "admin key", "other admin key", "other project admin", "operator", "read key", "ingest key")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world on each kind of store, with a model that bears the mark, and a key and a user to spare."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with open_world(tmp_path, url) as world:
        mine = world.mine
        with world.store.database.write() as conn:
            model = model_store.register(conn, [(mine.project, MARK)], NOW)[mine.project, MARK]
            open_incident(conn, mine.project, model.id, MARK)
        for tenant, caller in ((mine, "admin key"), (world.theirs, "other admin key")):
            tenant.key = world.ask(caller, "POST", "/v1/keys", {"name": "spare", "scopes": ["read"]}).json()["id"]
        yield world


def test_generated_requests(world: World) -> None:
    """Each is answered with a documented status and what the document says, and with what its sender may do and see."""
    document = world.client.get("/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    operations = sorted((result.ok() for result in schema.get_all_operations()), key=lambda one: one.method == "delete")
    each = max(1, REQUESTS // (2 * len(operations))) if REQUESTS else 4 if world.store.database.is_sqlite else 2
    sent = 0
    with requests.Session() as session:
        for operation in operations:
            for mode in GenerationMode:

                @hypothesis.settings(
                    max_examples=each,
                    derandomize=not REQUESTS,
                    database=None,
                    deadline=None,
                    phases=[hypothesis.Phase.generate],
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
                @hypothesis.given(
                    case=operation.as_strategy(generation_mode=mode),
                    caller=st.sampled_from((*CALLERS, "nobody")),
                    place=st.sampled_from(["generated", "mine", "mine", "theirs"]),
                )
                def check(case: Case, caller: str, place: str) -> None:
                    nonlocal sent
                    sent += 1
                    _check(world, session, case, caller, place)

                check()
    assert sent >= len(operations)


def _check(world: World, session: requests.Session, case: Case, caller: str, place: str) -> None:
    if place != "generated" and case.path_parameters:
        tenant = world.mine if place == "mine" else world.theirs
        known = {"model_id": tenant.model, "incident_id": tenant.incident, "receiver_id": tenant.receiver}
        known |= {"delivery_id": tenant.delivery, "project_id": tenant.project}
        real: dict[str, Any] = {**known, "key_id": tenant.key, "user_id": 2**31 - 1}
        case.path_parameters = {name: real[name] for name in case.path_parameters}
    identity = world.callers[caller]
    for name in list(case.headers or {}):
        if name.lower() in ("authorization", "cookie", "x-csrf-token"):
            del case.headers[name]
    case.cookies.clear()
    answer = case.call(base_url=str(world.client.base_url), session=session, headers=identity, timeout=30)
    case.validate_response(answer, checks=CHECKS)
    needs = TABLE.get(f"{case.method.upper()} {case.operation.path}")
    if answer.status_code < 400:
        assert needs in MAY[caller.removeprefix("other ") if "key" in caller else caller], case.as_curl_command()
    if caller.startswith("other "):
        assert MARK not in answer.text, case.as_curl_command()
