"""What every command begins with: may they, is it theirs, and are the values possible."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from sentinel_core.apps.services import Backend
from sentinel_core.errors import ConfigError, ForbiddenError, InvalidError, NotFoundError
from sentinel_core.pipeline.context import Context
from sentinel_core.security.principals import Action, Principal
from sentinel_core.storage import model_store
from sentinel_core.storage.model_store import Project

_DOING: dict[Action, str] = {
    "ingest": "send events",
    "read": "read",
    "operate": "change models and incidents",
    "administer": "manage keys, receivers and the project",
    "govern": "manage users and projects, or what is of every project",
}


def allow(principal: Principal, action: Action) -> None:
    """ForbiddenError unless the principal may do such a thing at all."""
    if not principal.may(action):
        raise ForbiddenError(f"{principal.actor} may not {_DOING[action]}; an admin can change that")


def project_of(conn: sa.Connection, principal: Principal, project_id: int) -> Project:
    """One of the projects that they see."""
    project = model_store.project(conn, project_id) if principal.sees(project_id) else None
    if project is None:
        raise NotFoundError(f"there is no project {project_id}")
    return project


@contextmanager
def valid(*, named: bool = True) -> Iterator[None]:
    """What is a problem of somebody's values, not of the configuration: "field: what is wrong and what to write".

    named: whether they named the fields; where they did not, the problem is the whole request's
    """
    try:
        yield
    except ConfigError as error:
        fields = (problem.partition(": ") for problem in error.problems)
        raise InvalidError({name if named else "": text or name for name, _, text in fields}) from None


def context(backend: Backend) -> Context:
    """What the pipeline's steps work with."""
    return Context(backend.config(), backend.store, backend.now)
