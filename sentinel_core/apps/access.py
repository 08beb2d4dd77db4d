"""Who sends a request: a key, somebody who logged in, or somebody on this machine; and whether they may.

Every page and endpoint asks here. A write with a session needs the session's CSRF token, and that is checked here too.
"""

import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sentinel_core.config import SentinelConfig, is_loopback
from sentinel_core.errors import StoreError
from sentinel_core.security import sessions, users
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.principals import LOCAL, Action, Principal
from sentinel_core.security.sessions import Session
from sentinel_core.storage import model_store
from sentinel_core.storage.store import Store

FORM_BYTES = 64 * 1024
FORM_FIELDS = 200
READING = ("GET", "HEAD", "OPTIONS")
FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")  # a proxy was in between


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    principal: Principal
    session: Session | None = None  # of a user

    @property
    def csrf(self) -> str:
        """What a form of theirs holds as `csrf`, or htmx sends as X-CSRF-Token; empty without a session."""
        return self.session.csrf if self.session else ""


class Access:
    """Recognises callers; one per application.

    private: whether only this machine is answered
    """

    def __init__(
        self,
        store: Store,
        keyring: KeyRing,
        config: Callable[[], SentinelConfig],
        now: Callable[[], float],
        *,
        private: bool,
    ) -> None:
        self.store, self.keyring, self.config, self.now = store, keyring, config, now
        self._private = private

    async def caller(self, request: Request, *, local: bool = False, reading: bool = False) -> Caller | None:
        """Return who sends a request; None where nobody is recognised.

        `Authorization: Bearer <key>` counts alone where it is sent. Then the session's cookie: HTTPException(403) where
        a write lacks the session's token (header X-CSRF-Token, or the form's field `csrf`). With `local`, for pages:
        then anybody on this machine as a viewer, unless require_login. `reading`: nothing is written, whatever the
        method. StoreError where the store does not answer.
        """
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            principal = await self.keyring.recognise(text.strip())
            return None if principal is None else Caller(principal)
        if token := request.cookies.get(self.cookie(request, "session")):
            caller = await run_in_threadpool(self._of_session, token)
            if caller is not None:
                if not reading and request.method not in READING:
                    await _require_csrf(request, caller)
                return caller
        return Caller(LOCAL) if local and self._is_local(request) else None

    def reads_all(self, request: Request) -> bool:
        """Whether somebody on this machine asks, and only this machine is answered: numbers need no key then."""
        return self._private and is_near(request)

    async def projects(self, principal: Principal) -> frozenset[str] | None:
        """The names of the projects that somebody sees; None: all. StoreError where the store does not answer."""
        project_id = principal.project_id
        if project_id is None:
            return None

        def name() -> frozenset[str]:
            with self.store.database.read() as connection:
                project = model_store.project(connection, project_id)
            return frozenset({project.name} if project else ())

        return await run_in_threadpool(name)

    async def require_page(self, request: Request, action: Action = "read") -> Caller:
        """For pages: the caller, who may do it; HTTPException 403 otherwise, or the way to the login."""
        caller = await self.caller(request, local=True)
        if caller is None or (caller.principal.kind == "local" and not caller.principal.may(action)):
            raise _login_first(request)
        if not caller.principal.may(action):
            raise HTTPException(403, f"{caller.principal.actor} may not do that; an admin can change it")
        return caller

    def cookie(self, request: Request, purpose: str) -> str:
        """The name of a cookie: its own for each port, which cookies know nothing of; bound to the host on TLS."""
        name = f"sentinel_{self.config().emitter_port}_{purpose}"
        return f"__Host-{name}" if self.is_secure(request) else name

    def is_secure(self, request: Request) -> bool:
        """Whether people reach us over TLS, so that cookies may go no other way."""
        return request.url.scheme == "https" or (self.config().external_url or "").startswith("https://")

    def _of_session(self, token: str) -> Caller | None:
        now = self.now()
        with self.store.database.read() as connection:
            session = sessions.find(connection, token, now=now)
            user = users.get(connection, session.user_id) if session else None
        if session is None or user is None or user.disabled_at is not None:
            return None
        if sessions.needs_renewal(session, now):
            with suppress(StoreError), self.store.database.write() as connection:  # a full disk must not log people out
                sessions.renew(connection, session, now=now)
        return Caller(user.principal, session)

    def _is_local(self, request: Request) -> bool:
        """Whether somebody on this machine asks, and reads what needs no login."""
        config = self.config()
        public = config.external_url is not None and not is_loopback(urlsplit(config.external_url).hostname or "")
        return not config.require_login and not public and self.reads_all(request)


def is_near(request: Request) -> bool:
    """Whether a request comes from this machine, and through no proxy on it."""
    near = request.client is not None and is_loopback(request.client.host)
    return near and not any(header in request.headers for header in FORWARDING)


async def read_form(request: Request, limit: int = FORM_BYTES) -> dict[str, str]:
    """Return the fields of a urlencoded form, the last one of each name; may be called again.

    HTTPException 400, 413 or 415 for what is none, or too large.
    """
    found: dict[str, str] | None = getattr(request.state, "form", None)
    if found is None:
        found = request.state.form = await _parse(request, limit)
    return found


async def _parse(request: Request, limit: int) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"a form has at most {limit} bytes")
    if not body:
        return {}
    if not _is_form(request):
        raise HTTPException(415, "send the form as application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(bytes(body).decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict")
    except ValueError:  # too many fields, or no UTF-8
        pairs = [("", "\0")]
    if any("\0" in name or "\0" in value for name, value in pairs):  # PostgreSQL cannot hold it, and nobody types it
        raise HTTPException(400, f"the form is not UTF-8 text of at most {FORM_FIELDS} fields")
    return dict(pairs)


def equal(left: str, right: str) -> bool:
    """Whether two secrets are the same, in constant time."""
    return hmac.compare_digest(left.encode(errors="replace"), right.encode(errors="replace"))


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/x-www-form-urlencoded"


async def _require_csrf(request: Request, caller: Caller) -> None:
    sent = request.headers.get("x-csrf-token")
    if sent is None and _is_form(request):
        sent = (await read_form(request)).get("csrf")
    if not sent or not equal(sent, caller.csrf):
        raise HTTPException(403, "this form was not made for your session: load its page again, and repeat the change")


def _login_first(request: Request) -> HTTPException:
    """To the login, and back here afterwards; htmx would put a redirect's page into a corner of the current one."""
    htmx = "hx-request" in request.headers
    here = urlsplit(request.headers.get("hx-current-url", "/")) if htmx or request.method != "GET" else request.url
    wanted = f"{here.path}?{here.query}" if here.query else here.path
    target = f"/login?{urlencode({'next': wanted})}" if wanted != "/" else "/login"
    if htmx:
        return HTTPException(401, "log in first", {"HX-Redirect": target})
    return HTTPException(303, "log in first", {"Location": target})
