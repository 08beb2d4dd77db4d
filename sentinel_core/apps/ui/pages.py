"""What every page is made with: the templates, who visits, and how errors become pages."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
import sqlalchemy as sa
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sentinel_core.apps.access import Caller, read_form
from sentinel_core.apps.services import Services
from sentinel_core.apps.ui import words
from sentinel_core.apps.ui.plot import short_number
from sentinel_core.durations import format_duration
from sentinel_core.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, StoreError
from sentinel_core.security.principals import Action, Principal
from sentinel_core.storage import schema

logger = logging.getLogger(__name__)

MOST_ID = 2**31 - 1  # what an INTEGER of PostgreSQL holds
STATIC = Path(__file__).parent.parent / "static"
SAID = {  # what a page says after a change; addresses carry the key only
    "acknowledged": "Acknowledged. Alerts go on; the others see that you look after it.",
    "resolved": "Resolved. If it lasts, the next evaluation reopens the incident and says so.",
    "closed": "Closed. If it comes back within a day, the incident reopens.",
    "accepted": "Accepted as the new normal: the current window is the baseline now.",
    "pinned": "The baseline is pinned. The next evaluation compares with it.",
    "saved": "Saved. The next evaluation uses it.",
    "enabled": "Monitoring is on. The next evaluation includes this model.",
    "disabled": "Monitoring is off. Events are recorded all the same.",
    "deleted": "Deleted, with everything that was stored of it.",
    "revoked": "The key is revoked: from now on nobody can use it.",
    "receiver": "The receiver is there. Send it a test message.",
    "changed": "Changed.",
    "removed": "The receiver is removed.",
    "resent": "The alert is owed again; it is sent within a minute.",
    "user": "The user can log in now.",
    "project": "The project is there. Make a key for it next.",
    "password": "Your password is changed. You are logged out everywhere else.",
}


_CODES: Mapping[type[Exception], int] = {NotFoundError: 404, ForbiddenError: 403, ConflictError: 409, InvalidError: 422}


@dataclass(frozen=True)
class Trouble:
    """Why a form was not accepted: what is wrong by field ("" for the whole), and what had been typed."""

    form: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)
    code: int = 200


NO_TROUBLE = Trouble()


@dataclass(frozen=True)
class Visit:
    """One request of a page by somebody who may make it."""

    request: Request
    caller: Caller
    form: Mapping[str, str]
    pages: "Pages"
    now: float

    @property
    def services(self) -> Services:
        """What the sidecar works with."""
        return self.pages.services

    @property
    def principal(self) -> Principal:
        """Who visits."""
        return self.caller.principal

    def unreadable(self, problem: str | None) -> str | None:
        """What a page says that shows the last snapshot because of a problem with the store."""
        if problem is None:
            return None
        read_at = self.services.live.served.snapshot.read_at
        held = f" This page shows what it held {words.age(self.now - read_at)} ago." if read_at else ""
        return f"The store cannot be read. {problem}.{held}"

    def number(self, name: str) -> int:
        """A number in the path; NotFoundError for one that nothing can have."""
        number: int = self.request.path_params[name]
        if number > MOST_ID:
            raise NotFoundError(f"there is nothing with the number {number}")
        return number

    def asked(self, *names: str) -> dict[str, str]:
        """Parameters of the query, empty where they are not there."""
        return {name: self.request.query_params.get(name, "").strip() for name in names}

    def render(self, template: str, trouble: Trouble = NO_TROUBLE, code: int = 200, **context: Any) -> Response:
        """A page."""
        return self.pages.render(
            self.request, template, self.caller, self.now, code=max(code, trouble.code), trouble=trouble, **context
        )

    def go(self, path: str, said: str = "", anchor: str = "") -> Response:
        """To another page, which then says what was done."""
        query = f"?{urlencode({'said': said})}" if said else ""
        return RedirectResponse(f"{path}{query}{f'#{anchor}' if anchor else ''}", 303)

    def attempt(self, form: str, change: Callable[[], Any], again: Callable[[Trouble], Response]) -> Response | None:
        """Make a change; where it cannot be made, the page `again` with its form as it was typed, and why."""
        try:
            change()
        except InvalidError as error:
            return again(Trouble(form, error.problems, self.form, 422))
        except ConflictError as error:
            return again(Trouble(form, {"": str(error)}, self.form, 409))
        return None


Handler = Callable[[Visit], Response]


class Pages:
    """The templates with their filters, and routes to handlers that block: they run beside the event loop."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("sentinel_core.apps"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        names = ["psi", "share", "count", "whole", "moment", "iso", "absolute", "ago"]
        names += ["field_moment", "error_unit", "breakable"]
        self._environment.filters |= {name: getattr(words, name) for name in names}
        self._environment.filters |= {"number": short_number, "duration": format_duration}
        self._environment.globals |= {"static": static, "plural": words.plural, "version": version("sentinel")}

    def route(self, path: str, handler: Handler, *, post: bool = False, action: Action = "read") -> Route:
        """A page, or with `post` the target of a form, for those who may do `action`."""

        async def endpoint(request: Request) -> Response:
            caller = None
            try:
                caller = await self.services.access.require_page(request, action)
                form = await read_form(request) if post else {}
                return await run_in_threadpool(handler, Visit(request, caller, form, self, self.services.now()))
            except HTTPException as error:
                if error.status_code < 400:
                    return Response(status_code=error.status_code, headers=error.headers)
                failure, code = error.detail, error.status_code
            except tuple(_CODES) as error:
                failure, code = f"{error}.", next(code for kind, code in _CODES.items() if isinstance(error, kind))
            except StoreError as error:
                logger.warning("%s: %s", request.url.path, error)
                failure, code = f"The store cannot be read or written: {error}.", 503
            return await run_in_threadpool(self.failed, request, caller, failure, code)

        return Route(path, endpoint, methods=["POST"] if post else ["GET"])

    def failed(self, request: Request, caller: Caller | None, failure: str, code: int) -> Response:
        """A page that says what cannot be done."""
        return self.render(request, "error.html", caller, self.services.now(), code=code, failure=failure)

    def render(
        self, request: Request, template: str, caller: Caller | None, now: float, *, code: int = 200, **context: Any
    ) -> Response:
        """Any page; `caller` is None where nobody is recognised, as on the page to log in."""
        here, query = request.url.path, [pair for pair in request.query_params.multi_items() if pair[0] != "said"]
        common = {
            "caller": caller,
            "csrf_field": Markup('<input type="hidden" name="csrf" value="{}">').format(caller.csrf if caller else ""),
            "here": here,
            "url": f"{here}?{urlencode(query)}" if query else here,
            "now": now,
            "section": "",
            "said": SAID.get(request.query_params.get("said", "")),
            "problem": None,
            "trouble": NO_TROUBLE,
            "dagster": self.dagster(request),
            "active": self._active(caller.principal) if caller else 0,
        }
        page = self._environment.get_template(template).render(common | context)
        return HTMLResponse(page, code, headers={"cache-control": "no-store"})

    def dagster(self, request: Request) -> str:
        """Where people of this machine find Dagster."""
        config = self.services.config()
        host = request.url.hostname or config.bind_address
        return f"http://{f'[{host}]' if ':' in host else host}:{config.dagster_port}"

    def _active(self, principal: Principal) -> int:
        """How many incidents of theirs are open or acknowledged."""
        table = schema.incidents
        query = sa.select(sa.func.count(table.c.active_key))
        if principal.project_id is not None:
            query = query.where(table.c.project_id == principal.project_id)
        try:
            with self.services.store.database.read() as connection:
                return connection.scalar(query) or 0
        except StoreError:  # the page says so
            return 0


@cache
def static(name: str) -> str:
    """The address of a static file, which changes with its content: browsers may keep it for good."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"
