"""The pages to log in beside two of a test's own, on a real server; and a browser that fills in forms."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sentinel_core.apps import login
from sentinel_core.apps.access import Access, Caller
from sentinel_core.apps.services import Services
from sentinel_core.apps.ui.pages import Pages
from sentinel_core.config import SentinelConfig
from sentinel_core.security import users
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.passwords import Passwords
from sentinel_core.security.principals import command_line
from sentinel_core.security.secret import Pepper
from sentinel_core.storage.store import Store
from tests.apps.server import running

PASSWORD = "correct horse battery"
BY = command_line("ada")


@dataclass
class Clock:
    """Unix seconds, until somebody moves them."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A sidecar's worth of access, without the rest; `config` may be changed while it runs."""

    store: Store
    clock: Clock
    passwords: Passwords
    pepper: Pepper
    private: bool = True
    config: SentinelConfig = field(default_factory=SentinelConfig)

    def __post_init__(self) -> None:
        self.keyring = KeyRing(self.store, self.pepper, self.clock)
        self.keyring.look()

    def app(self) -> Starlette:
        access = Access(self.store, self.keyring, lambda: self.config, self.clock, private=self.private)
        services = SimpleNamespace(store=self.store, config=lambda: self.config, now=self.clock)
        render = Pages(cast(Services, services)).render

        def who(caller: Caller) -> Response:
            return JSONResponse({"name": caller.principal.name, "kind": caller.principal.kind, "csrf": caller.csrf})

        async def api(request: Request) -> Response:
            caller = await access.caller(request)
            return who(caller) if caller else Response(status_code=401)

        async def page(request: Request) -> Response:
            return who(await access.require_page(request, "read" if request.method == "GET" else "operate"))

        own = [Route("/api", api, methods=["GET", "POST"]), Route("/page", page, methods=["GET", "POST"])]
        return Starlette(routes=[*login.routes(access, render, self.passwords), *own])

    @contextmanager
    def served(self) -> Iterator["Browser"]:
        """Serve it and yield a browser without cookies."""
        with running(self.app()) as client, ExitStack() as held:
            yield Browser(client.base_url, held)

    def user(self, name: str = "grace", role: str = "operator", password_hash: str | None = None) -> int:
        """A user with PASSWORD."""
        with self.store.database.write() as connection:
            return users.create(
                connection,
                BY,
                name=name,
                password_hash=password_hash or self.passwords.hash(PASSWORD),
                role=role,
                now=self.clock.now,
            )

    def change(self, change: Callable[[Any], Any]) -> None:
        """Something in a write transaction."""
        with self.store.database.write() as connection:
            change(connection)


class Browser:
    """Keeps cookies, follows no redirect by itself, and sends the forms of pages."""

    def __init__(self, base_url: httpx.URL, held: ExitStack, headers: dict[str, str] | None = None) -> None:
        self.http = held.enter_context(httpx.Client(base_url=base_url, timeout=10, headers=headers))
        self._base_url, self._held = base_url, held

    def another(self, **headers: str) -> "Browser":
        """A browser of its own at the same site."""
        return Browser(self._base_url, self._held, {name.replace("_", "-"): value for name, value in headers.items()})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def fields(self, page: str) -> dict[str, str]:
        """The fields of a page's form, as they are before anybody types."""
        inputs = (dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<input[^>]*>", self.get(page).text))
        return {one["name"]: one.get("value", "") for one in inputs}

    def submit(self, path: str, page: str | None = None, **typed: str) -> httpx.Response:
        """Load a page, and send its form with what is typed."""
        return self.http.post(path, data=self.fields(page or path) | typed)

    def log_in(self, name: str = "grace", password: str = PASSWORD, next: str = "/") -> httpx.Response:
        return self.submit("/login", name=name, password=password, next=next)

    def csrf(self) -> str:
        """The session's token."""
        return str(self.get("/api").json()["csrf"])


def set_cookies(response: httpx.Response) -> dict[str, Sequence[str]]:
    """Attributes of each cookie that a response sets, by what it is for, in lower case."""
    found = {}
    for line in response.headers.get_list("set-cookie"):
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        found[name.rpartition("_")[2]] = [name, value.strip('"'), *(one.lower() for one in attributes)]
    return found
