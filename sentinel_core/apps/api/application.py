"""The FastAPI application below /v1: its routes, its document (with the routes of ingest, which are not its own)."""

from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse
from starlette.routing import compile_path

from sentinel_core.apps.api import accounts, history, incidents, ingest_document, models, problems, receivers, tuning
from sentinel_core.apps.api.docs import METHODS, Docs
from sentinel_core.apps.api.door import MAX_BODY, Door
from sentinel_core.apps.services import Services

PREFIX = "/v1"
ROUTERS = (
    models.router,
    tuning.router,
    history.router,
    incidents.router,
    incidents.sending,
    receivers.router,
    accounts.router,
)

DESCRIPTION = f"""\
Everything the pages do, for programs. A key decides the project; nothing of another project can be seen, and its ids
answer 404.

Send a key as `Authorization: Bearer sml_live_…`; `sentinel keys create NAME --scope read` prints one. Scope ingest
sends events, read reads, admin does everything in its project but govern (users and projects). A browser's session
works too; its writes need the header X-CSRF-Token.

Lists have pages: send `next` of one as `cursor` for the one after. Pages do not shift when something is added. Times
are RFC 3339 with an offset. Bodies are JSON of at most {MAX_BODY:,} bytes; unknown members are refused. Errors are
RFC 9457 problems, as application/problem+json."""

TAGS = [
    {"name": "Events", "description": "What models predicted. 202 means that it is on the disk."},
    {"name": "Models", "description": "Models in production, compared with their past once an hour."},
    {"name": "Incidents", "description": "Episodes of drift, of silence, and of forecasts that do not recover."},
    {"name": "Alerts", "description": "Who is told of incidents, and whether it reached them."},
    {"name": "Keys", "description": "What programs authenticate with."},
    {"name": "Users", "description": "Who may log in."},
    {"name": "Projects", "description": "Tenants."},
    {"name": "Audit", "description": "Who changed what."},
]

_EVERYWHERE = {
    401: "No key, or one that is unknown, expired or revoked",
    403: "The key's scopes or the user's role do not allow it, or the request comes from another site's page",
    503: "The store does not answer; Retry-After says when to try again",
}
_WITH_BODY = {
    400: "The body is not JSON",
    413: "The body is too large",
    415: "The body is not application/json, or compressed",
}


def create_api(services: Services) -> FastAPI:
    """The application, to be mounted at /v1."""
    api = FastAPI(
        title="Sentinel",
        version=version("sentinel"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for router in ROUTERS:
        api.include_router(router)

    @cache
    def document() -> dict[str, Any]:  # when somebody asks: it takes a quarter of a second
        return _document(api)

    def methods(path: str) -> list[str]:
        found = [item for known, item in document()["paths"].items() if compile_path(known)[0].match(path)]
        return sorted({method.upper() for item in found for method in item})

    problems.install(api, methods)

    @api.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return document()

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(Docs(document(), services.config().public_url).render())

    api.add_middleware(Door, services=services)
    return api


def _document(api: FastAPI) -> dict[str, Any]:
    """What FastAPI knows, with every status that an endpoint may answer, and the routes of ingest."""
    document = get_openapi(
        title="Sentinel API", version=api.version, description=DESCRIPTION, routes=api.routes, tags=TAGS
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(ingest_document.SCHEMAS)
    document["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key, as sml_live_…"},
    }
    document["security"] = [{"key": []}]
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                _complete(item[method], named="{" in path)
    document["paths"] = ingest_document.PATHS | {PREFIX + path: item for path, item in document["paths"].items()}
    return document


def _complete(operation: dict[str, Any], *, named: bool) -> None:
    """Add what many endpoints answer; all errors are problems."""
    responses = operation["responses"]
    answers = dict(_EVERYWHERE)
    if named:
        answers[404] = "There is none with this id in your project"
    if any(parameter["name"] == "project_id" for parameter in operation.get("parameters", ())):
        answers.setdefault(404, "There is no such project, or it is not yours")
    if "requestBody" in operation:
        answers |= _WITH_BODY
    if "422" in responses:
        answers[422] = "Values that cannot be; `errors` names each"
    for status, text in answers.items():
        if status == 422 or str(status) not in responses:
            responses[str(status)] = {"description": text}
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if "503" in responses:
        responses["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    if "401" in responses:
        responses["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    operation["responses"] = dict(sorted(responses.items()))
