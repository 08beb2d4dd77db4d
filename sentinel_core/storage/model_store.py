"""Projects, monitored models, their settings, states, baselines and labels, and how far everything was evaluated.

Every function takes a connection, so that a drain or an evaluation changes all of it in one transaction. Nothing here
knows a rule: settings, bins and assessments are text whose meaning is `monitoring`'s.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from sentinel_core import validation
from sentinel_core.config import MonitorConfig
from sentinel_core.errors import ConfigError, ConflictError
from sentinel_core.storage import schema
from sentinel_core.storage.watch_store import _insert as insert_or

DEFAULT_PROJECT = 1
MAX_LABEL_NAMES = 1000  # of one model: enough to name every bin that a person will ever see
_IN_LIST = 1000  # values in one IN (…): far below SQLite's limit


@dataclass(frozen=True)
class Project:
    """A tenant."""

    id: int
    name: str
    monitor_new_models: bool  # whether models that register themselves start enabled
    created_at: float


@dataclass(frozen=True)
class MonitoredModel:
    """A row of `monitored_models`: a model in production that has sent events."""

    id: int
    project_id: int
    name: str
    enabled: bool
    settings: Mapping[str, Any]  # what differs from the configuration's `monitoring`
    baseline_version: int | None
    events: int  # drained so far, duplicates not counted
    first_event_at: int | None
    last_event_at: int | None
    revision: int
    created_at: float

    def monitor_config(self, defaults: MonitorConfig) -> MonitorConfig:
        """The settings that this model is evaluated with: the configuration's, less what is its own.

        A setting that is unknown or no longer valid is the configuration's: an upgrade must not stop the evaluation.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class StateRow:
    """A row of `monitor_states`: the newest evaluation; `assessment` is JSON of monitoring.Assessment."""

    model_id: int
    hour: int
    state: str
    assessment: str


@dataclass(frozen=True)
class BaselineRow:
    """A row of `baselines`; `bins` is JSON of pipeline.baselining.Content."""

    model_id: int
    version: int
    kind: str  # sliding | pinned | accepted
    t0: int
    t1: int
    bins: str
    actor: str
    reason: str
    created_at: float


# ---- projects --------------------------------------------------------------------------------------------------------


def projects(connection: sa.Connection) -> list[Project]:
    """Return every project by id."""
    raise NotImplementedError


def project(connection: sa.Connection, project_id: int) -> Project | None:
    """Return one project."""
    raise NotImplementedError


def add_project(connection: sa.Connection, name: str, now: float, *, monitor_new_models: bool = True) -> int:
    """Add a project; returns its id. Raises ConflictError where the name is taken."""
    raise NotImplementedError


def change_project(
    connection: sa.Connection, project_id: int, *, name: str | None = None, monitor_new_models: bool | None = None
) -> None:
    """Change what is given. Raises ConflictError where the name is taken."""
    raise NotImplementedError


# ---- models ----------------------------------------------------------------------------------------------------------


def models(
    connection: sa.Connection, project_id: int | None = None, *, after: int = 0, limit: int | None = None
) -> list[MonitoredModel]:
    """Return the models of one project (None: of all) by id; `after` and `limit` page through them."""
    raise NotImplementedError


def model(connection: sa.Connection, model_id: int, project_id: int | None = None) -> MonitoredModel | None:
    """Return one model; None where there is none, or where it is another project's (None: any project may ask)."""
    raise NotImplementedError


def model_named(connection: sa.Connection, project_id: int, name: str) -> MonitoredModel | None:
    """Return the model that a project's events call so."""
    raise NotImplementedError


def register(
    connection: sa.Connection, names: Collection[tuple[int, str]], now: float
) -> dict[tuple[int, str], MonitoredModel]:
    """Return the models with these (project id, name), registering those that are new; safe under concurrency."""
    raise NotImplementedError


def set_enabled(connection: sa.Connection, model_id: int, enabled: bool) -> None:
    """Switch the evaluation of a model on or off; its events are recorded all the same."""
    raise NotImplementedError


def update_settings(
    connection: sa.Connection,
    model_id: int,
    changes: Mapping[str, Any],
    defaults: MonitorConfig,
    *,
    merge: bool = True,
    revision: int | None = None,
) -> MonitoredModel:
    """Change a model's settings; the next evaluation uses them. Returns the model as it is now.

    changes: fields of MonitorConfig; None gives a field back to the configuration
    merge: whether fields that are not named keep what they have, or go back to the configuration too
    revision: what the model's was when it was read; ConflictError where somebody changed it since
    Raises ConfigError with every problem, each line beginning with the field's name.
    """
    raise NotImplementedError
