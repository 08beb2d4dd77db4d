"""Logging in and out, the first admin's one-time link, and changing one's password.

Plain forms, which work without JavaScript. A wrong name, a wrong password and a disabled user look alike and take as
long; attempts are slowed down by name and by address, but a browser that has logged in as somebody before has a count
of its own, so that nobody who guesses can keep that person out.
"""

import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import anyio
from anyio import to_thread
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from sentinel_core.apps.access import Access, Caller, equal, read_form
from sentinel_core.errors import RequestError, StoreError
from sentinel_core.security import audit, sessions, throttle, users
from sentinel_core.security.passwords import HASHES_AT_ONCE, Passwords
from sentinel_core.security.sessions import Session

HASHES_WAITING = 20  # beyond, people are asked to come back rather than to wait
FREE_OF_NAME, FREE_OF_ADDRESS = 5, 20  # attempts before one has to wait; an office shares an address
DEVICE_SECONDS = 400 * 86_400
WRONG = "The name or the password is wrong."

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class Render(Protocol):
    """Makes a page from a template; blocks."""

    def __call__(
        self, request: Request, template: str, caller: Caller | None, now: float, *, code: int = 200, **context: Any
    ) -> Response: ...


def routes(access: Access, render: Render, passwords: Passwords | None = None) -> list[BaseRoute]:
    """GET/POST /login, /setup and /password, POST /logout; to be mounted at the root."""
    login = _Login(access, render, passwords or Passwords())
    served: list[tuple[str, str, Endpoint]] = [
        ("GET", "/login", login.form),
        ("POST", "/login", login.log_in),
        ("POST", "/logout", login.log_out),
        ("GET", "/setup", login.setup_form),
        ("POST", "/setup", login.set_up),
        ("GET", "/password", login.password_form),
        ("POST", "/password", login.change_password),
    ]
    return [Route(path, login.answered(endpoint), methods=[method]) for method, path, endpoint in served]


class _Login:
    def __init__(self, access: Access, render: Render, passwords: Passwords) -> None:
        self._access, self._render, self._passwords = access, render, passwords
        self._store, self._now = access.store, access.now
        self._limiter = anyio.CapacityLimiter(HASHES_AT_ONCE)
        self._waiting = 0

    def answered(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, with a page for what it refuses."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except HTTPException as error:
                if error.status_code < 400:
                    return Response(status_code=error.status_code, headers=error.headers)
                code, failure, headers = error.status_code, error.detail, error.headers or {}
            except StoreError as error:
                code, failure, headers = 503, str(error), {}
            response = await self._page(request, "error.html", None, code, failure=f"{failure}.")
            response.headers.update(headers)
            return response

        return answer

    # ---- log in

    async def form(self, request: Request) -> Response:
        """GET /login, with `next`: where to go afterwards."""
        if (caller := await self._access.caller(request)) and caller.session:
            return RedirectResponse(own_path(request.query_params.get("next", "")), 303)
        return await self._login_page(request, {"next": request.query_params.get("next", "")})

    async def log_in(self, request: Request) -> Response:
        """POST /login: name, password, next and csrf."""
        form = await read_form(request)
        if not equal(form.get("csrf", ""), self._login_token(self._login_nonce(request)) or "-"):
            problem = "This page was open for too long, or your browser keeps no cookies. Please try again."
            return await self._login_page(request, form, 403, problem)
        name, password = form.get("name", "").strip().lower()[:64], form.get("password", "")
        device = self._device(request, name)
        subject = f"device:{device}" if device else f"user:{name}"
        free = {subject: FREE_OF_NAME} | ({} if device else {f"address:{_address(request)}": FREE_OF_ADDRESS})
        if wait := await self._attempt(free):
            return await self._too_often(request, wait, lambda **more: self._login_page(request, form, 429, **more))
        verified = await self._hashing(lambda: self._verify(name, password))
        session = await run_in_threadpool(self._open, request, subject, *verified) if verified else None
        if session is None:
            return await self._login_page(request, form, 403, WRONG)
        response = RedirectResponse(own_path(form.get("next", "")), 303)
        self._set_cookie(request, response, "session", session.token)
        device = device or secrets.token_urlsafe(16)
        self._set_cookie(
            request, response, "device", f"{device}.{self._device_mark(device, name)}", max_age=DEVICE_SECONDS
        )
        return response

    def _verify(self, name: str, password: str) -> tuple[int, str, str | None] | None:
        """The user, the hash that was found right, and another one where today's parameters differ; None: wrong."""
        with self._store.database.read() as connection:
            user = users.find(connection, name)
            known = users.password_hash(connection, user.id) if user else None
        right = self._passwords.verify(known, password)
        if user is None or known is None or not right or user.disabled_at is not None:
            return None
        return user.id, known, self._passwords.hash(password) if self._passwords.outdated(known) else None

    def _open(self, request: Request, subject: str, user_id: int, known: str, renewed: str | None) -> Session | None:
        """A session under a fresh token, instead of the one that the browser may have had."""
        with self._store.database.write() as connection:
            user = users.get(connection, user_id)
            if user.disabled_at is not None or users.password_hash(connection, user_id) != known:  # since a moment ago
                return None
            throttle.clear(connection, subject)
            if renewed is not None:
                users.rehash(connection, user_id, known, renewed)
            if before := request.cookies.get(self._access.cookie(request, "session")):
                sessions.end(connection, before)
            detail = {"address": _address(request)}
            now = self._now()
            audit.write(connection, user.principal, "user.login", f"user {user.name}", detail, project_id=None, now=now)
            return sessions.open_session(connection, user_id, now=now)

    async def _login_page(
        self, request: Request, form: dict[str, str], code: int = 200, problem: str | None = None
    ) -> Response:
        nonce = self._login_nonce(request) or secrets.token_urlsafe(16)
        values = {
            "next": own_path(form.get("next", "")),
            "name": form.get("name", "")[:64],
            "token": self._login_token(nonce),
            "nobody": not await run_in_threadpool(self._anybody),
        }
        response = await self._page(request, "login.html", None, code, problem=problem, **values)
        self._set_cookie(request, response, "login", nonce, samesite="strict")
        return response

    def _anybody(self) -> bool:
        with self._store.database.read() as connection:
            return users.exist(connection)

    # ---- log out

    async def log_out(self, request: Request) -> Response:
        """POST /logout, with csrf."""
        caller = await self._access.caller(request)
        if caller is not None and caller.session is not None:
            await run_in_threadpool(self._end, caller, caller.session)
        response = RedirectResponse("/login", 303)
        name, secure = self._access.cookie(request, "session"), self._access.is_secure(request)
        response.delete_cookie(name, secure=secure, httponly=True)
        return response

    def _end(self, caller: Caller, session: Session) -> None:
        who = caller.principal
        with self._store.database.write() as connection:
            sessions.end(connection, session.token)
            audit.write(connection, who, "user.logout", f"user {who.name}", project_id=None, now=self._now())

    # ---- the first admin

    async def setup_form(self, request: Request) -> Response:
        """GET /setup?token=…, as `sentinel up` printed it; looking at it does not use it."""
        return await self._setup_page(request, {"token": request.query_params.get("token", "")})

    async def set_up(self, request: Request) -> Response:
        """POST /setup: token, name, password and again. The token is what another site does not know."""
        form = await read_form(request)
        token, name, password = (form.get(field, "") for field in ("token", "name", "password"))
        if not await run_in_threadpool(self._link_is_good, token):
            return await self._setup_page(request, form)
        if password != form.get("again"):
            return await self._setup_page(request, form, "The two passwords differ.")
        try:
            hashed = await self._hashing(lambda: self._passwords.hash(password))
            session = await run_in_threadpool(self._create_first, token, name, hashed)
        except RequestError as error:
            return await self._setup_page(request, form, f"{error}.")
        response = RedirectResponse("/", 303)
        self._set_cookie(request, response, "session", session.token)
        return response

    def _link_is_good(self, token: str) -> bool:
        with self._store.database.read() as connection:
            return users.link_is_good(connection, token, now=self._now())

    def _create_first(self, token: str, name: str, hashed: str) -> Session:
        with self._store.database.write() as connection:
            user_id = users.create_first(connection, token, name=name, password_hash=hashed, now=self._now())
            return sessions.open_session(connection, user_id, now=self._now())

    async def _setup_page(self, request: Request, form: dict[str, str], problem: str | None = None) -> Response:
        token = form.get("token", "")
        good = await run_in_threadpool(self._link_is_good, token)
        code = (422 if problem else 200) if good else 410
        values = {"good": good, "token": token, "name": form.get("name", "")[:64]}
        return await self._page(
            request, "setup.html", None, code, problem=problem if good else f"{users.LINK_IS_SPENT}.", **values
        )

    # ---- one's own password

    async def password_form(self, request: Request) -> Response:
        """GET /password."""
        return await self._page(request, "password.html", await self._user(request), problem=None)

    async def change_password(self, request: Request) -> Response:
        """POST /password: current, password, again and csrf; ends the user's other sessions."""
        caller = await self._user(request)
        form = await read_form(request)
        user_id, fresh = int(caller.principal.id), form.get("password", "")

        async def refuse(code: int = 422, problem: str | None = None) -> Response:
            return await self._page(request, "password.html", caller, code, problem=problem)

        if wait := await self._attempt({f"password:{user_id}": FREE_OF_NAME}):
            return await self._too_often(request, wait, lambda **more: refuse(429, **more))
        if not await self._hashing(lambda: self._verify(caller.principal.name, form.get("current", ""))):
            return await refuse(403, "The current password is wrong.")
        if fresh != form.get("again"):
            return await refuse(problem="The two new passwords differ.")
        try:
            hashed = await self._hashing(lambda: self._passwords.hash(fresh))
        except RequestError as error:
            return await refuse(problem=f"{error}.")
        await run_in_threadpool(self._change_password, caller, user_id, hashed)
        return RedirectResponse("/?said=password", 303)

    def _change_password(self, caller: Caller, user_id: int, hashed: str) -> None:
        keep = caller.session.token if caller.session else None
        with self._store.database.write() as connection:
            throttle.clear(connection, f"password:{user_id}")
            users.set_password(connection, caller.principal, user_id, hashed, keep=keep, now=self._now())

    async def _user(self, request: Request) -> Caller:
        """Somebody who logged in; others are sent to do so."""
        caller = await self._access.require_page(request)
        if caller.session is None:
            raise HTTPException(303, "log in first", {"Location": "/login?next=%2Fpassword"})
        return caller

    # ---- shared

    async def _page(
        self, request: Request, template: str, caller: Caller | None, code: int = 200, **context: Any
    ) -> Response:
        return await run_in_threadpool(
            lambda: self._render(request, template, caller, self._now(), code=code, **context)
        )

    async def _attempt(self, free: dict[str, int]) -> float:
        """Count an attempt; seconds to wait where it must not be made now."""

        def claim() -> float:
            with self._store.database.write() as connection:
                return throttle.claim(connection, free, now=self._now())

        return await run_in_threadpool(claim)

    async def _too_often(self, request: Request, wait: float, page: Callable[..., Any]) -> Response:
        seconds = max(1, round(wait + 0.5))
        response: Response = await page(problem=f"Too many attempts. Please try again in {seconds} s.")
        response.headers["retry-after"] = str(seconds)
        return response

    async def _hashing(self, work: Callable[[], T]) -> T:
        """Run what hashes beside the event loop: few at once, and not many in the queue."""
        if self._waiting >= HASHES_WAITING:
            raise HTTPException(503, "too many people log in at once; try again in a moment", {"Retry-After": "5"})
        self._waiting += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._waiting -= 1

    def _set_cookie(
        self,
        request: Request,
        response: Response,
        purpose: str,
        value: str,
        *,
        samesite: Any = "lax",
        max_age: int | None = None,
    ) -> None:
        """A cookie that scripts do not see; without max_age it ends with the browser."""
        name, secure = self._access.cookie(request, purpose), self._access.is_secure(request)
        response.set_cookie(name, value, max_age=max_age, secure=secure, httponly=True, samesite=samesite)

    def _login_nonce(self, request: Request) -> str:
        return request.cookies.get(self._access.cookie(request, "login"), "")[:64]

    def _login_token(self, nonce: str) -> str:
        """What the login form holds besides; another site can send neither it nor its cookie."""
        return self._access.keyring.pepper.digest("login", nonce) if nonce else ""

    def _device(self, request: Request, name: str) -> str | None:
        """What this browser was called when somebody of this name logged in with it; None where nobody has."""
        device, _, mark = request.cookies.get(self._access.cookie(request, "device"), "").partition(".")
        return device[:64] if device and equal(mark, self._device_mark(device, name)) else None

    def _device_mark(self, device: str, name: str) -> str:
        return self._access.keyring.pepper.digest("device", f"{device}\0{name}")


def own_path(path: str) -> str:
    r"""A path of ours, as it is; "/" for anything that a browser might take for another site, or for the login again.

    >>> [own_path(path) for path in ("/incidents/7?tab=2", "//evil.example", "https://evil.example", r"/\evil.example")]
    ['/incidents/7?tab=2', '/', '/', '/']
    """
    plain = path.isascii() and path.isprintable() and " " not in path and "\\" not in path
    if (
        not plain
        or not path.startswith("/")
        or path.startswith("//")
        or path.startswith(("/login", "/logout", "/setup"))
    ):
        return "/"
    return path


def _address(request: Request) -> str:
    """Whose attempts count together: an IPv4 address, or an IPv6 network that one customer has."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)
