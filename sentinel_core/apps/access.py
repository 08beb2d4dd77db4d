"""Who sends a request: a key, somebody who logged in, or somebody on this machine; and whether they may.

Every page and endpoint asks here. A write with a session needs the session's CSRF token, and that is checked here too.
"""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from sentinel_core.config import SentinelConfig
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.principals import Action, Principal
from sentinel_core.security.sessions import Session
from sentinel_core.storage.store import Store

FORM_BYTES = 64 * 1024


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
    """Recognises callers. One per application; `backend` is what Services is."""

    def __init__(
        self, store: Store, keyring: KeyRing, config: Callable[[], SentinelConfig], now: Callable[[], float]
    ) -> None:
        self.store, self.keyring, self.config, self.now = store, keyring, config, now

    async def caller(self, request: Request, *, local: bool = False) -> Caller | None:
        """Return who sends a request; None where nobody is recognised.

        `Authorization: Bearer <key>` counts alone where it is sent. Then the session's cookie: HTTPException(403) where
        a write lacks the session's token (header X-CSRF-Token, or the form's field `csrf`). With `local`, for pages:
        then anybody on this machine as a viewer, unless require_login.
        """
        raise NotImplementedError

    async def require(self, request: Request, action: Action, project_id: int | None = None) -> Caller:
        """For the API: the caller, who may do it; HTTPException 401 or 403 otherwise."""
        raise NotImplementedError

    async def require_page(self, request: Request, action: Action = "read", project_id: int | None = None) -> Caller:
        """For pages: as `require`, but on this machine one may read without a login, and is sent to it otherwise."""
        raise NotImplementedError


async def read_form(request: Request, limit: int = FORM_BYTES) -> dict[str, str]:
    """Return the fields of a urlencoded form; HTTPException 413 or 415 for what is none. May be called again."""
    raise NotImplementedError
