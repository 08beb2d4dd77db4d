"""Every error of the JSON API, as RFC 9457 has it: application/problem+json."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sentinel_core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StoreError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5  # after the store refused: a lock is gone by then, a full disk is not, and both may be asked again


class StaleError(ConflictError):
    """If-Match names a revision that is no more."""


class Fault(BaseModel):
    """What is wrong with one value: a member of the body (`pointer`), or a parameter."""

    detail: str
    pointer: str | None = Field(None, description="RFC 6901, into the body", examples=["#/name"])
    parameter: str | None = None


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What happened, and what to do", examples=["there is no model 7"])
    errors: list[Fault] | None = Field(None, description="What is wrong with each value, where values are wrong")


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, errors: Sequence[Mapping[str, str]] = ()
) -> Response:
    """A problem document.

    detail: what happened and what to do
    errors: what is wrong with each field: `detail` with `pointer` (into the body) or `parameter`
    """
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    content["detail"] = _printable(detail)
    if errors:
        content["errors"] = [{key: _printable(text) for key, text in error.items()} for error in errors]
    return Response(msgspec.json.encode(content), status, headers, MEDIA_TYPE)


def _printable(text: str) -> str:
    """Half of a surrogate pair, sent as a field's name, cannot be encoded in the answer."""
    return text.encode("utf-8", "backslashreplace").decode()


def pointer(path: Iterable[str | int]) -> str:
    """An RFC 6901 pointer as a URI fragment.

    >>> pointer(["settings", "a/b", 0])
    '#/settings/a~1b/0'
    """
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def install(app: FastAPI, methods: Callable[[str], Iterable[str]]) -> None:
    """Answer every error of an application so; `methods` are those that a path (of a request's URL) has."""

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return problem(404, f"{request.url.path} is not an endpoint; /v1/docs lists them")
        assert error.status_code == 405, error
        allow = ", ".join(methods(request.url.path))
        return problem(405, f"{request.method} is not possible here, but {allow}", headers={"allow": allow})

    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(InvalidError, _invalid)
    app.add_exception_handler(ForbiddenError, lambda _, error: problem(403, str(error)))
    app.add_exception_handler(NotFoundError, lambda _, error: problem(404, str(error)))
    app.add_exception_handler(StaleError, lambda _, error: problem(412, str(error)))
    app.add_exception_handler(ConflictError, lambda _, error: problem(409, str(error)))
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(Exception, _broken)


def _unprocessable(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = []
    for one in error.errors():
        place, *path = one["loc"]
        message = str(one["msg"]).removeprefix("Value error, ")
        errors.append({"detail": message} | _place(str(place), path))
    return _refused(errors)


def _place(place: str, path: Sequence[str | int]) -> dict[str, str]:
    return {"pointer": pointer(path)} if place == "body" else {"parameter": ".".join(map(str, path))}


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidError)
    return _refused(
        [{"detail": text, "pointer": pointer(name.split(".") if name else ())} for name, text in error.problems.items()]
    )


def _refused(errors: Sequence[Mapping[str, str]]) -> Response:
    where = ", ".join(error.get("pointer") or error["parameter"] for error in errors)
    return problem(422, f"The request cannot be processed; see errors: {where}", errors=errors)


def _unavailable(_: Request, error: Exception) -> Response:
    return problem(503, str(error), headers={"retry-after": str(RETRY_SECONDS)})


def _broken(_request: Request, _error: Exception) -> Response:
    """The server logs it: Starlette raises it once more."""
    return problem(500, "Sentinel failed to answer; its log says why")
