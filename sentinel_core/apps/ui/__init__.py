"""The pages: plain HTML and forms, which htmx and server-sent events make live where there is JavaScript."""

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from sentinel_core.apps import login
from sentinel_core.apps.services import Services
from sentinel_core.apps.ui import incident, model, overview, settings, watch
from sentinel_core.apps.ui.changes import Changes
from sentinel_core.apps.ui.pages import STATIC, Handler, Pages, Visit
from sentinel_core.errors import NotFoundError
from sentinel_core.security.principals import Action

_READ: Sequence[tuple[str, Handler, Action]] = (
    ("/", overview.overview, "read"),
    ("/models/{model_id:int}", model.model, "read"),
    ("/models/{model_id:int}/delete", model.ask_deletion, "administer"),
    ("/incidents", incident.listing, "read"),
    ("/incidents/{incident_id:int}", incident.incident, "read"),
    ("/watches/{slug}", watch.watch, "read"),
    ("/settings", settings.first, "read"),
    ("/settings/keys", settings.list_keys, "administer"),
    ("/settings/receivers", settings.list_receivers, "read"),
    ("/settings/users", settings.list_users, "govern"),
    ("/settings/projects", settings.list_projects, "read"),
    ("/settings/audit", settings.list_audit, "administer"),
)
_CHANGE: Sequence[tuple[str, Handler, Action]] = (
    ("/models/{model_id:int}/settings", model.save_settings, "operate"),
    ("/models/{model_id:int}/enabled", model.enable, "operate"),
    ("/models/{model_id:int}/baseline", model.change_baseline, "operate"),
    ("/models/{model_id:int}/delete", model.delete, "administer"),
    ("/incidents/{incident_id:int}/{action}", incident.act, "operate"),
    ("/deliveries/{delivery_id:int}/resend", incident.resend, "operate"),
    ("/settings/keys", settings.create_key, "administer"),
    ("/settings/keys/{key_id}/rotate", settings.rotate_key, "administer"),
    ("/settings/keys/{key_id}/revoke", settings.revoke_key, "administer"),
    ("/settings/receivers", settings.create_receiver, "administer"),
    ("/settings/receivers/{receiver_id:int}", settings.change_receiver, "administer"),
    ("/settings/receivers/{receiver_id:int}/test", settings.test_receiver, "administer"),
    ("/settings/receivers/{receiver_id:int}/remove", settings.remove_receiver, "administer"),
    ("/settings/users", settings.create_user, "govern"),
    ("/settings/users/{user_id:int}", settings.change_user, "govern"),
    ("/settings/projects", settings.create_project, "govern"),
    ("/settings/projects/{project_id:int}", settings.change_project, "govern"),
)


def routes(services: Services) -> list[BaseRoute]:
    """Every page, the targets of their forms, logging in and out, what they load, and the stream of changes."""
    pages = Pages(services)
    served: list[BaseRoute] = [
        *(pages.route(path, handler, action=action) for path, handler, action in _READ),
        *(pages.route(path, handler, action=action, post=True) for path, handler, action in _CHANGE),
        *login.routes(services.access, pages.render, services.passwords),
        Mount("/static", _Kept(directory=STATIC)),
        pages.route("/{path:path}", _nothing),
    ]
    packed = Mount("", routes=served, middleware=[Middleware(GZipMiddleware, minimum_size=1000)])
    return [Route("/changes", Changes(services).stream), packed]


def _nothing(visit: Visit) -> Response:
    """GET of anything else."""
    raise NotFoundError(f"there is no page {visit.request.url.path}")


class _Kept(StaticFiles):
    """Static files; whoever names the version of one may keep it for good."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file."""
        response = await super().get_response(path, scope)
        if scope["query_string"].startswith(b"v=") and response.status_code == 200:
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
