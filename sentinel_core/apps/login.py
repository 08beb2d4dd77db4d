"""Logging in and out, the first admin's one-time link, and changing one's password: GET/POST /login, /setup, /password,
POST /logout. Plain forms; they work without JavaScript."""

from starlette.routing import BaseRoute

from sentinel_core.apps.access import Access
from sentinel_core.security.passwords import Passwords


def routes(access: Access, passwords: Passwords | None = None) -> list[BaseRoute]:
    """The routes, to be mounted at the root."""
    raise NotImplementedError
