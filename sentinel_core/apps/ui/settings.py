"""/settings: keys, receivers, users, projects and the audit; each a page with its forms."""

import base64
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote as quote_url

from starlette.responses import Response

from sentinel_core.alerts import receivers
from sentinel_core.apps import commands
from sentinel_core.apps.ui.pages import MOST_ID, NO_TROUBLE, Trouble, Visit
from sentinel_core.errors import InvalidError
from sentinel_core.incidents import store as incidents
from sentinel_core.security import audit, keys, users
from sentinel_core.security.principals import ROLES, SCOPES, Action
from sentinel_core.storage import model_store
from sentinel_core.storage.model_store import Project

TABS: tuple[tuple[str, str, Action], ...] = (
    ("keys", "Keys", "administer"),
    ("receivers", "Receivers", "read"),
    ("users", "Users", "govern"),
    ("projects", "Projects", "read"),
    ("audit", "Audit", "administer"),
)
RECEIVERS = {
    "slack": "Slack",
    "webhook": "Webhook",
    "alertmanager": "Alertmanager",
    "apprise": "Apprise (e-mail and others)",
}
AUDIT_ROWS = 100
DEAD_ROWS = 50
DAY = 86_400.0
MOST_DAYS = 36_500  # of a key's life


def first(visit: Visit) -> Response:
    """GET /settings: the first of them that they may see."""
    return visit.go(f"/settings/{next(name for name, _, action in TABS if visit.principal.may(action))}")


def _page(visit: Visit, name: str, trouble: Trouble, **context: Any) -> Response:
    tabs = [(f"/settings/{path}", text) for path, text, action in TABS if visit.principal.may(action)]
    return visit.render(f"settings_{name}.html", trouble, section="Settings", tabs=tabs, **context)


def _projects(visit: Visit) -> list[Project]:
    with visit.services.store.database.read() as connection:
        return [one for one in model_store.projects(connection) if visit.principal.sees(one.id)]


def _number(visit: Visit, name: str, kind: Callable[[str], Any] = float) -> Any:
    """A number that was typed, None where the field is empty; InvalidError for anything else."""
    text = visit.form.get(name, "").strip()
    try:
        number = kind(text) if text else None
    except ValueError:
        raise InvalidError({name: "is not a number"}) from None
    if number is not None and not 0 <= number <= MOST_ID:  # nor is NaN
        raise InvalidError({name: "is too large, or less than nothing"})
    return number


# ---- keys ------------------------------------------------------------------------------------------------------------


def list_keys(visit: Visit, trouble: Trouble = NO_TROUBLE, fresh: keys.NewKey | None = None) -> Response:
    """GET /settings/keys; `fresh` is a key that was made just now, which is shown this once."""
    with visit.services.store.database.read() as connection:
        found = keys.list_keys(connection, visit.principal.project_id)
    found.sort(key=lambda one: (one.state(visit.now) != "live", -one.created_at))
    projects = _projects(visit)
    names = {one.id: one.name for one in projects}
    return _page(visit, "keys", trouble, keys=found, projects=projects, names=names, fresh=fresh, scopes=SCOPES)


def create_key(visit: Visit) -> Response:
    """POST /settings/keys."""
    fresh: list[keys.NewKey] = []

    def change() -> None:
        days, rate = _number(visit, "days"), _number(visit, "rate")
        project_id = None if visit.form.get("project") == "every" else _number(visit, "project", int) or 0
        scopes = [scope for scope in SCOPES if visit.form.get(f"scope_{scope}")]
        if days is not None and days > MOST_DAYS:
            raise InvalidError({"days": f"is more than {MOST_DAYS:,}; leave it empty for a key without an end"})
        expires_at = None if days is None else visit.now + days * DAY
        name = visit.form.get("name", "").strip()
        made = commands.create_key(
            visit.services,
            visit.principal,
            project_id,
            name,
            scopes,
            expires_at=expires_at,
            events_per_second=rate,
        )
        fresh.append(made)

    return visit.attempt("key", change, lambda trouble: list_keys(visit, trouble)) or list_keys(visit, fresh=fresh[0])


def rotate_key(visit: Visit) -> Response:
    """POST /settings/keys/{key_id}/rotate, with the `hours` for which the old one stays good."""
    key_id = visit.request.path_params["key_id"]
    fresh: list[keys.NewKey] = []

    def change() -> None:
        overlap = 3600.0 * (_number(visit, "hours") or 0.0)
        fresh.append(commands.rotate_key(visit.services, visit.principal, key_id, overlap_seconds=overlap))

    return visit.attempt("keys", change, lambda trouble: list_keys(visit, trouble)) or list_keys(visit, fresh=fresh[0])


def revoke_key(visit: Visit) -> Response:
    """POST /settings/keys/{key_id}/revoke."""
    commands.revoke_key(visit.services, visit.principal, visit.request.path_params["key_id"])
    return visit.go("/settings/keys", "revoked")


# ---- receivers -------------------------------------------------------------------------------------------------------


def list_receivers(
    visit: Visit, trouble: Trouble = NO_TROUBLE, outcome: commands.TestOutcome | None = None
) -> Response:
    """GET /settings/receivers; `kind` opens the form for one, `outcome` is what became of a test."""
    scope = visit.principal.project_id
    with visit.services.store.database.read() as connection:
        found = receivers.list_receivers(connection, scope)
        dead = incidents.deliveries(connection, scope, state="dead", limit=DEAD_ROWS)
    kind = trouble.typed.get("kind") or visit.asked("kind")["kind"]
    projects = _projects(visit)
    return _page(
        visit,
        "receivers",
        trouble,
        receivers=[(one, receivers.shown(one.kind, one.settings)) for one in found],
        dead=dead,
        kinds=RECEIVERS,
        kind=kind if kind in RECEIVERS else "",
        projects=projects,
        names={one.id: one.name for one in projects},
        outcome=outcome,
        secret="whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),  # a suggestion
    )


def create_receiver(visit: Visit) -> Response:
    """POST /settings/receivers."""
    form = visit.form

    def change() -> None:
        project_id = _number(visit, "project", int) or 0
        commands.create_receiver(
            visit.services,
            visit.principal,
            project_id,
            form.get("name", "").strip(),
            form.get("kind", ""),
            _receiver_settings(visit),
            min_severity=form.get("min_severity", "warn"),
        )

    failed = visit.attempt("receiver", change, lambda trouble: list_receivers(visit, trouble))
    return failed or visit.go("/settings/receivers", "receiver")


def _receiver_settings(visit: Visit) -> dict[str, Any]:
    """What was typed of a receiver's settings; empty fields are left out."""
    settings: dict[str, Any] = {}
    for name in ("url", "secret", "bearer_token"):
        if text := visit.form.get(f"settings.{name}", "").strip():
            settings[name] = text
    if urls := visit.form.get("settings.urls", "").split():
        settings["urls"] = urls
    if lines := visit.form.get("settings.labels", "").split():
        pairs = [line.partition("=") for line in lines]
        if not all(name and equals for name, equals, _ in pairs):
            raise InvalidError({"settings.labels": "write one name=value in each line"})
        settings["labels"] = {name: value for name, _, value in pairs}
    return settings


def test_receiver(visit: Visit) -> Response:
    """POST /settings/receivers/{receiver_id}/test."""
    return list_receivers(
        visit, outcome=commands.test_receiver(visit.services, visit.principal, visit.number("receiver_id"))
    )


def change_receiver(visit: Visit) -> Response:
    """POST /settings/receivers/{receiver_id}, with `enabled` yes or no."""
    receiver_id, enabled = visit.number("receiver_id"), visit.form.get("enabled") == "yes"
    commands.change_receiver(visit.services, visit.principal, receiver_id, enabled=enabled)
    return visit.go("/settings/receivers", "changed")


def remove_receiver(visit: Visit) -> Response:
    """POST /settings/receivers/{receiver_id}/remove."""
    commands.remove_receiver(visit.services, visit.principal, visit.number("receiver_id"))
    return visit.go("/settings/receivers", "removed")


# ---- users -----------------------------------------------------------------------------------------------------------


def list_users(visit: Visit, trouble: Trouble = NO_TROUBLE) -> Response:
    """GET /settings/users."""
    with visit.services.store.database.read() as connection:
        found = users.list_users(connection)
    projects = _projects(visit)
    names = {one.id: one.name for one in projects}
    return _page(visit, "users", trouble, users=found, projects=projects, names=names, roles=ROLES)


def create_user(visit: Visit) -> Response:
    """POST /settings/users."""
    form = visit.form

    def change() -> None:
        commands.create_user(
            visit.services,
            visit.principal,
            form.get("name", "").strip(),
            form.get("password", ""),
            form.get("role", ""),
            _number(visit, "project", int),
        )

    failed = visit.attempt("user", change, lambda trouble: list_users(visit, trouble))
    return failed or visit.go("/settings/users", "user")


def change_user(visit: Visit) -> Response:
    """POST /settings/users/{user_id}, with a `role`, a `password` or `disabled` yes or no."""
    user_id, form = visit.number("user_id"), visit.form
    changes: dict[str, Any] = {name: form[name] for name in ("role", "password") if form.get(name)}
    if form.get("disabled"):
        changes["disabled"] = form["disabled"] == "yes"

    def change() -> None:
        commands.change_user(visit.services, visit.principal, user_id, **changes)

    failed = visit.attempt(f"user-{user_id}", change, lambda trouble: list_users(visit, trouble))
    return failed or visit.go("/settings/users", "changed")


# ---- projects --------------------------------------------------------------------------------------------------------


def list_projects(visit: Visit, trouble: Trouble = NO_TROUBLE) -> Response:
    """GET /settings/projects."""
    projects = _projects(visit)
    with visit.services.store.database.read() as connection:
        models = model_store.models(connection, visit.principal.project_id)
    count = {one.id: sum(model.project_id == one.id for model in models) for one in projects}
    return _page(visit, "projects", trouble, projects=projects, count=count)


def create_project(visit: Visit) -> Response:
    """POST /settings/projects."""
    form = visit.form

    def change() -> None:
        new_models = form.get("monitor_new_models") == "yes"
        commands.create_project(
            visit.services, visit.principal, form.get("name", "").strip(), monitor_new_models=new_models
        )

    failed = visit.attempt("project", change, lambda trouble: list_projects(visit, trouble))
    return failed or visit.go("/settings/projects", "project")


def change_project(visit: Visit) -> Response:
    """POST /settings/projects/{project_id}: whether new models start monitored."""
    project_id, new_models = visit.number("project_id"), visit.form.get("monitor_new_models") == "yes"
    commands.change_project(visit.services, visit.principal, project_id, monitor_new_models=new_models)
    return visit.go("/settings/projects", "changed")


# ---- audit -----------------------------------------------------------------------------------------------------------


def list_audit(visit: Visit) -> Response:
    """GET /settings/audit; `before` is the last id of the page before."""
    before = visit.asked("before")["before"]
    with visit.services.store.database.read() as connection:
        found = audit.entries(
            connection,
            visit.principal.project_id,
            before=int(before) if before.isdigit() and len(before) < 10 else None,
            limit=AUDIT_ROWS + 1,
        )
    older = f"/settings/audit?before={quote_url(str(found[AUDIT_ROWS - 1].id))}" if len(found) > AUDIT_ROWS else None
    return _page(visit, "audit", NO_TROUBLE, entries=found[:AUDIT_ROWS], older=older)
