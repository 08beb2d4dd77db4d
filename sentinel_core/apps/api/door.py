"""What comes before every endpoint of the JSON API: who asks, and is the body one that may be read at all."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinel_core.apps.api.problems import RETRY_SECONDS, Problem, problem
from sentinel_core.apps.commands import allow
from sentinel_core.apps.services import Services
from sentinel_core.errors import InvalidError, NotFoundError, StoreError
from sentinel_core.security.principals import Action, Principal

MAX_BODY = 65_536  # bytes; the largest that makes sense, a receiver's settings, has a tenth
OPEN = ("/openapi.json", "/docs")  # the same in every installation
BODILESS = ("GET", "HEAD", "OPTIONS", "TRACE")


@dataclass(frozen=True)
class Call:
    """What an endpoint works with."""

    services: Services
    principal: Principal

    @property
    def project_id(self) -> int | None:
        """The only project that the caller sees; None: every one."""
        return self.principal.project_id

    def within(self, project_id: int | None) -> int | None:
        """The project to list from, where one may be named; NotFoundError for another's."""
        if project_id is not None and not self.principal.sees(project_id):
            raise NotFoundError(f"there is no project {project_id}")
        return self.project_id if project_id is None else project_id

    def into(self, project_id: int | None) -> int:
        """The project to add something to; InvalidError where the caller has none and names none."""
        chosen = self.project_id if project_id is None else project_id
        if chosen is None:
            raise InvalidError({"project_id": "has to be named by somebody who sees every project"})
        return chosen


class Door:
    """Lets in whom `access` recognises, with a body that is JSON, whole, and of a bounded size."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) in OPEN:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            caller = await self._services.access.caller(request)
            if caller is None:
                raise HTTPException(401, "send a key, as Authorization: Bearer sml_live_…, or log in")
            body = b"" if request.method in BODILESS else await _body(request)
        except ClientDisconnect:
            return
        except HTTPException as error:
            challenge = {"www-authenticate": 'Bearer realm="Sentinel"'} if error.status_code == 401 else {}
            answer = problem(error.status_code, error.detail, headers={**(error.headers or {}), **challenge})
            await answer(scope, receive, send)
            return
        except StoreError as error:
            await problem(503, str(error), headers={"retry-after": str(RETRY_SECONDS)})(scope, receive, send)
            return
        scope.setdefault("state", {})["call"] = Call(self._services, caller.principal)
        await self._app(scope, _replay(body, receive), send)


async def _body(request: Request) -> bytes:
    """The whole body, checked to be JSON that may be decoded once more; HTTPException 400, 413 and 415."""
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json":
        raise HTTPException(415, f"a body is application/json, not {media[:80]}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "the body of this endpoint is not compressed")
    too_large = HTTPException(413, f"the body has more than {MAX_BODY:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BODY:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise too_large
    body = b"".join(parts)
    if not body:
        return body
    if "content-type" not in request.headers:
        raise HTTPException(415, "say what the body is: Content-Type: application/json")
    try:
        msgspec.json.decode(body)  # stricter than json: no NaN, no half surrogates, no integer of a thousand digits
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read, once more; then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _call(request: Request) -> Call:
    call: Call = request.state.call
    return call


Caller = Annotated[Call, Depends(_call)]


def needs(action: Action, **answers: str) -> dict[str, Any]:
    """What an endpoint's decorator takes: who may call it, said in the document and enforced before all else.

    answers: further statuses with their meaning, as `s409="…"`; `application` adds those that many have

    Raises ForbiddenError from the endpoint.
    """

    def permitted(caller: Caller) -> None:
        allow(caller.principal, action)

    responses = {int(status[1:]): {"description": text, "model": Problem} for status, text in answers.items()}
    return {
        "dependencies": [Depends(permitted)],
        "openapi_extra": {"x-permission": action},
        "responses": responses,
    }
