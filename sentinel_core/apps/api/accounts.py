"""Keys, users, projects, and the audit of every change."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from sentinel_core.apps import commands
from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.values import (
    DEFAULT_LIMIT,
    Answer,
    Body,
    Cursor,
    FilterId,
    Id,
    IdIn,
    Limit,
    Moment,
    MomentIn,
    Name,
    Next,
    TextCursor,
    example,
    moment,
    moment_or_none,
    page_of,
)
from sentinel_core.errors import InvalidError, NotFoundError
from sentinel_core.security import audit, keys, users
from sentinel_core.security.passwords import MAX_LENGTH, MIN_LENGTH
from sentinel_core.security.principals import Role, Scope
from sentinel_core.storage import model_store

router = APIRouter()

KeyId = Annotated[str, Path(max_length=16, pattern="^[0-9a-f]{16}$", examples=["0123456789abcdef"])]
UserName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
Password = Annotated[str, StringConstraints(min_length=MIN_LENGTH, max_length=MAX_LENGTH)]
_TAKEN = {"s409": "The name is taken"}

# ---- keys ------------------------------------------------------------------------------------------------------------


class Key(Answer):
    """A key; its secret is stored nowhere."""

    id: str = Field(description="The public part: sml_live_<id>_…")
    project_id: int | None = Field(description="null: every project")
    name: str
    scopes: list[Scope]
    state: Literal["live", "expired", "revoked"]
    events_per_second: float | None = Field(description="null: the configuration's")
    created_by: str
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute")


class Keys(Answer):
    """A page of keys, oldest first."""

    items: list[Key]
    next: Next


class NewKey(Body):
    """A key to make."""

    name: Name = Field(examples=["fraud-service"])
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = Field(
        description="ingest: send events; read: GET; admin: everything of its project but users and projects",
        examples=[["ingest"]],
    )
    expires_at: MomentIn | None = None
    events_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None, description="How many events it may send; none: the configuration's"
    )
    project_id: IdIn | None = Field(None, description="Yours, unless you see every project")
    all_projects: bool = Field(False, description="Of every project instead; for who sees all, and to read only")


class Rotation(Body):
    """How long the old key goes on being good."""

    model_config = example(overlap_seconds=3600)

    overlap_seconds: Annotated[float, Field(ge=0, le=90 * 86_400)] = 86_400.0


class MadeKey(Key):
    """A new key, shown this once."""

    key: str = Field(description="Keep it: it is not shown again", examples=["sml_live_0123456789abcdef_…"])


def _key(row: keys.Key, now: float) -> dict[str, Any]:
    times = ("expires_at", "revoked_at", "last_used_at")
    return {
        **{name: getattr(row, name) for name in ("id", "project_id", "name", "events_per_second", "created_by")},
        **{name: moment_or_none(getattr(row, name)) for name in times},
        "scopes": sorted(row.scopes),
        "state": row.state(now),
        "created_at": moment(row.created_at),
    }


def _key_of(call: Call, key_id: str) -> dict[str, Any]:
    with call.services.store.database.read() as conn:
        try:
            row = keys.get(conn, key_id)
        except NotFoundError:
            row = None
    if row is None or not call.principal.sees(row.project_id):
        raise NotFoundError(f"there is no key {key_id}")
    return _key(row, call.services.now())


@router.get("/keys", **needs("administer"), summary="List keys", tags=["Keys"])
def list_keys(
    call: Caller, project_id: FilterId = None, cursor: TextCursor = None, limit: Limit = DEFAULT_LIMIT
) -> Keys:
    """The keys of your project, oldest first, revoked ones included."""
    with call.services.store.database.read() as conn:
        rows = keys.list_keys(conn, call.within(project_id))
    known = [row.id for row in rows]
    after = rows[known.index(cursor) + 1 :] if cursor in known else rows if cursor is None else []
    now = call.services.now()
    return Keys(**page_of(after, limit, lambda row: Key(**_key(row, now)), lambda row: row.id))


@router.post(
    "/keys", **needs("administer", s404="No such project"), summary="Make a key", status_code=201, tags=["Keys"]
)
def create_key(call: Caller, new: NewKey) -> MadeKey:
    """Make a key of your project. The answer holds it, this once."""
    if new.all_projects and new.project_id is not None:
        raise InvalidError({"all_projects": "leave project_id out with it"})
    made = commands.create_key(
        call.services,
        call.principal,
        None if new.all_projects else call.into(new.project_id),
        new.name,
        new.scopes,
        expires_at=new.expires_at,
        events_per_second=new.events_per_second,
    )
    return MadeKey(**_key_of(call, made.id), key=made.text)


@router.get("/keys/{key_id}", **needs("administer"), summary="Read a key", tags=["Keys"])
def read_key(call: Caller, key_id: KeyId) -> Key:
    """Everything about a key but its secret."""
    return Key(**_key_of(call, key_id))


@router.post(
    "/keys/{key_id}/rotate",
    **needs("administer", s409="It is expired or revoked"),
    summary="Rotate a key",
    status_code=201,
    tags=["Keys"],
)
def rotate_key(call: Caller, key_id: KeyId, rotation: Rotation | None = None) -> MadeKey:
    """Make a key like this one, which stays good for a while, so that its users can change over."""
    overlap = (rotation or Rotation()).overlap_seconds
    made = commands.rotate_key(call.services, call.principal, key_id, overlap_seconds=overlap)
    return MadeKey(**_key_of(call, made.id), key=made.text)


@router.post("/keys/{key_id}/revoke", **needs("administer"), summary="Revoke a key", tags=["Keys"])
def revoke_key(call: Caller, key_id: KeyId) -> Key:
    """End a key: here at once, in other processes within a second."""
    commands.revoke_key(call.services, call.principal, key_id)
    return Key(**_key_of(call, key_id))


# ---- users -----------------------------------------------------------------------------------------------------------


class User(Answer):
    """Somebody who may log in."""

    id: int
    name: str
    role: Role
    project_id: int | None = Field(description="null: every project")
    created_at: Moment
    disabled_at: Moment | None


class Users(Answer):
    """A page of users."""

    items: list[User]
    next: Next


class NewUser(Body):
    """A user to add."""

    name: UserName = Field(description="Capitals do not count", examples=["ada"])
    password: Password = Field(examples=["several words are good"])
    role: Role
    project_id: IdIn | None = Field(None, description="null: every project")


class UserChange(Body):
    """What to change; what is not named stays."""

    model_config = example(role="operator")

    role: Role | None = None
    password: Password | None = Field(None, description="Ends the user's sessions")
    disabled: bool | None = Field(None, description="Whether the user may not log in; true ends their sessions")


def _user(row: users.User) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=row.role,
        project_id=row.project_id,
        created_at=moment(row.created_at),
        disabled_at=moment_or_none(row.disabled_at),
    )


def _user_of(call: Call, user_id: int) -> User:
    with call.services.store.database.read() as conn:
        return _user(users.get(conn, user_id))


@router.get("/users", **needs("govern"), summary="List users", tags=["Users"])
def list_users(call: Caller, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> Users:
    """Everybody who may log in, and who once could, oldest first."""
    with call.services.store.database.read() as conn:
        rows = users.list_users(conn)
    after = sorted((row for row in rows if row.id > (cursor or 0)), key=lambda row: row.id)
    return Users(**page_of(after, limit, _user, lambda row: row.id))


@router.post(
    "/users", **needs("govern", **_TAKEN, s404="No such project"), summary="Add a user", status_code=201, tags=["Users"]
)
def create_user(call: Caller, new: NewUser) -> User:
    """Add a user of one project, or of all."""
    user_id = commands.create_user(call.services, call.principal, new.name, new.password, new.role, new.project_id)
    return _user_of(call, user_id)


@router.get("/users/{user_id}", **needs("govern"), summary="Read a user", tags=["Users"])
def read_user(call: Caller, user_id: Id) -> User:
    """A user."""
    return _user_of(call, user_id)


@router.patch(
    "/users/{user_id}",
    **needs("govern", s409="Nobody would be left to administer"),
    summary="Change a user",
    tags=["Users"],
)
def change_user(call: Caller, user_id: Id, change: UserChange) -> User:
    """Change what is named."""
    commands.change_user(call.services, call.principal, user_id, **change.model_dump(exclude_none=True))
    return _user_of(call, user_id)


# ---- projects --------------------------------------------------------------------------------------------------------


class Project(Answer):
    """A tenant: models, incidents, receivers and keys belong to one."""

    id: int
    name: str
    monitor_new_models: bool = Field(description="Whether models that register themselves start enabled")
    created_at: Moment


class Projects(Answer):
    """A page of projects."""

    items: list[Project]
    next: Next


class NewProject(Body):
    """A project to add."""

    name: Name = Field(examples=["payments"])
    monitor_new_models: bool = True


class ProjectChange(Body):
    """What to change; what is not named stays."""

    model_config = example(monitor_new_models=False)

    name: Name | None = Field(None, description="For admins of every project")
    monitor_new_models: bool | None = None


def _project(row: model_store.Project) -> Project:
    return Project(
        id=row.id, name=row.name, monitor_new_models=row.monitor_new_models, created_at=moment(row.created_at)
    )


def _project_of(call: Call, project_id: int) -> Project:
    with call.services.store.database.read() as conn:
        row = model_store.project(conn, project_id) if call.principal.sees(project_id) else None
    if row is None:
        raise NotFoundError(f"there is no project {project_id}")
    return _project(row)


@router.get("/projects", **needs("read"), summary="List projects", tags=["Projects"])
def list_projects(call: Caller, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> Projects:
    """The projects that you see."""
    with call.services.store.database.read() as conn:
        rows = model_store.projects(conn)
    mine = [row for row in rows if call.principal.sees(row.id) and row.id > (cursor or 0)]
    return Projects(**page_of(mine, limit, _project, lambda row: row.id))


@router.post("/projects", **needs("govern", **_TAKEN), summary="Add a project", status_code=201, tags=["Projects"])
def create_project(call: Caller, new: NewProject) -> Project:
    """Add a project; then make a key of it."""
    project_id = commands.create_project(
        call.services, call.principal, new.name, monitor_new_models=new.monitor_new_models
    )
    return _project_of(call, project_id)


@router.get("/projects/{project_id}", **needs("read"), summary="Read a project", tags=["Projects"])
def read_project(call: Caller, project_id: Id) -> Project:
    """A project."""
    return _project_of(call, project_id)


@router.patch("/projects/{project_id}", **needs("administer", **_TAKEN), summary="Change a project", tags=["Projects"])
def change_project(call: Caller, project_id: Id, change: ProjectChange) -> Project:
    """Change what is named."""
    commands.change_project(call.services, call.principal, project_id, **change.model_dump(exclude_none=True))
    return _project_of(call, project_id)


# ---- audit -----------------------------------------------------------------------------------------------------------


class Entry(Answer):
    """One change: who did what to what."""

    id: int
    at: Moment
    actor: str
    project_id: int | None = Field(description="null: the installation")
    action: str = Field(examples=["key.create"])
    target: str
    detail: dict[str, Any]


class Entries(Answer):
    """A page of the audit, newest first."""

    items: list[Entry]
    next: Next


@router.get("/audit", **needs("administer"), summary="Read the audit", tags=["Audit"])
def read_audit(
    call: Caller, project_id: FilterId = None, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Entries:
    """Every change that somebody made in your project, newest first."""
    with call.services.store.database.read() as conn:
        rows = audit.entries(conn, call.within(project_id), before=cursor, limit=limit + 1)

    def shown(row: audit.Entry) -> Entry:
        same = ("id", "actor", "project_id", "action", "target")
        return Entry(**{name: getattr(row, name) for name in same}, at=moment(row.at), detail=dict(row.detail))

    return Entries(**page_of(rows, limit, shown, lambda row: row.id))
