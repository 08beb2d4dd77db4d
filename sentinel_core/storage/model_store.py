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
from sentinel_core.storage.statements import in_lists, insert_or

DEFAULT_PROJECT = 1
MAX_LABEL_NAMES = 1000  # of one model: enough to name every bin that a person will ever see
_SETTINGS = frozenset(field.name for field in fields(MonitorConfig))


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

    def full_name(self, projects: Mapping[int, str]) -> str:
        """What people call it: "<project>/<name>"; projects: their names by id."""
        return f"{projects[self.project_id]}/{self.name}"

    def monitor_config(self, defaults: MonitorConfig) -> MonitorConfig:
        """The settings that this model is evaluated with: the configuration's, less what is its own.

        A setting that is unknown or no longer valid is the configuration's: an upgrade must not stop the evaluation.
        """
        if not self.settings:  # most have none, and checking a thousand costs as much as their evaluation
            return defaults
        own = {name: value for name, value in self.settings.items() if name in _SETTINGS}
        config = replace(defaults, **own)
        return defaults if validation.monitor_problems(config, "") else config


@dataclass(frozen=True)
class Progress:
    """How far everything was evaluated. Drain and evaluation read it first and `advance` it when they commit."""

    evaluated_until: int | None  # end of the newest evaluated hour
    revision: int


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
    return [Project(**row._mapping) for row in connection.execute(sa.select(schema.projects).order_by("id"))]


def project_names(connection: sa.Connection) -> dict[int, str]:
    """Return what every project is called, by id."""
    return {one.id: one.name for one in projects(connection)}


def project(connection: sa.Connection, project_id: int) -> Project | None:
    """Return one project."""
    row = connection.execute(sa.select(schema.projects).where(schema.projects.c.id == project_id)).first()
    return None if row is None else Project(**row._mapping)


def add_project(connection: sa.Connection, name: str, now: float, *, monitor_new_models: bool = True) -> int:
    """Add a project; returns its id. Raises ConflictError where the name is taken."""
    table = schema.projects
    _require_free(connection, name)
    values = {"name": name, "monitor_new_models": monitor_new_models, "created_at": now}
    inserted = connection.execute(table.insert().values(values)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def change_project(
    connection: sa.Connection, project_id: int, *, name: str | None = None, monitor_new_models: bool | None = None
) -> None:
    """Change what is given. Raises ConflictError where the name is taken."""
    table = schema.projects
    values: dict[str, Any] = {}
    if name is not None:
        _require_free(connection, name, project_id)
        values["name"] = name
    if monitor_new_models is not None:
        values["monitor_new_models"] = monitor_new_models
    if values:
        connection.execute(table.update().where(table.c.id == project_id).values(values))


def _require_free(connection: sa.Connection, name: str, own: int | None = None) -> None:
    taken = connection.scalar(sa.select(schema.projects.c.id).where(schema.projects.c.name == name))
    if taken is not None and taken != own:
        raise ConflictError(f"there is a project {name!r} already: choose another name")


# ---- models ----------------------------------------------------------------------------------------------------------


def models(
    connection: sa.Connection, project_id: int | None = None, *, after: int = 0, limit: int | None = None
) -> list[MonitoredModel]:
    """Return the models of one project (None: of all) by id; `after` and `limit` page through them."""
    table = schema.monitored_models
    query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
    if project_id is not None:
        query = query.where(table.c.project_id == project_id)
    return [_model(row) for row in connection.execute(query)]


def model(connection: sa.Connection, model_id: int, project_id: int | None = None) -> MonitoredModel | None:
    """Return one model; None where there is none, or where it is another project's (None: any project may ask)."""
    table = schema.monitored_models
    query = sa.select(table).where(table.c.id == model_id)
    if project_id is not None:
        query = query.where(table.c.project_id == project_id)
    row = connection.execute(query).first()
    return None if row is None else _model(row)


def model_named(connection: sa.Connection, project_id: int, name: str) -> MonitoredModel | None:
    """Return the model that a project's events call so."""
    return _named(connection, [(project_id, name)]).get((project_id, name))


def register(
    connection: sa.Connection, names: Collection[tuple[int, str]], now: float
) -> dict[tuple[int, str], MonitoredModel]:
    """Return the models with these (project id, name), registering those that are new; safe under concurrency.

    A name of a project that does not exist (any more) has no model.
    """
    found = _named(connection, names)
    enabled = {one.id: one.monitor_new_models for one in projects(connection)}
    fresh = [key for key in names if key not in found and key[0] in enabled]
    rows = [{"project_id": one, "name": name, "enabled": enabled[one], "created_at": now} for one, name in fresh]
    if rows:
        connection.execute(insert_or(connection, schema.monitored_models).on_conflict_do_nothing(), rows)
        found |= _named(connection, fresh)
    return found


def note_events(connection: sa.Connection, drained: Iterable[tuple[int, int, int, int]]) -> None:
    """Add what was drained to the models' counters: (model id, events, least and greatest event time)."""
    table = schema.monitored_models
    first, last = (sa.bindparam(name, type_=sa.BigInteger()) for name in ("first", "last"))
    rows = [{"one": one, "more": more, "first": t0, "last": t1} for one, more, t0, t1 in drained]
    if not rows:
        return
    update = table.update().where(table.c.id == sa.bindparam("one"))
    values = {
        "events": table.c.events + sa.bindparam("more"),
        "first_event_at": sa.case((table.c.first_event_at <= first, table.c.first_event_at), else_=first),
        "last_event_at": sa.case((table.c.last_event_at >= last, table.c.last_event_at), else_=last),
    }
    connection.execute(update.values(values), rows)


def set_enabled(connection: sa.Connection, model_id: int, enabled: bool) -> None:
    """Switch the evaluation of a model on or off; its events are recorded all the same."""
    table = schema.monitored_models
    changed = {"enabled": enabled, "revision": table.c.revision + 1}
    connection.execute(table.update().where(table.c.id == model_id, table.c.enabled != enabled).values(changed))


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
    table = schema.monitored_models
    found = model(connection, model_id)
    if found is None or (revision is not None and revision != found.revision):
        raise ConflictError("the model was changed or deleted by somebody else meanwhile: read it again")
    wanted = {**(found.settings if merge else {}), **changes}
    own = {name: value for name, value in wanted.items() if value is not None}
    unknown = [validation.unknown_field(name, name, sorted(_SETTINGS)) for name in own if name not in _SETTINGS]
    config = replace(defaults, **{name: value for name, value in own.items() if name in _SETTINGS})
    if problems := unknown + validation.monitor_problems(config, ""):
        raise ConfigError(problems)
    mine = (table.c.id == model_id) & (table.c.revision == found.revision)
    changed = {"settings": json.dumps(own, sort_keys=True), "revision": found.revision + 1}
    if connection.execute(table.update().where(mine).values(changed)).rowcount != 1:
        raise ConflictError("the model was changed by somebody else meanwhile: read it again")
    return replace(found, settings=own, revision=found.revision + 1)


def delete(connection: sa.Connection, model_id: int) -> dict[str, int]:
    """Delete a model with its state, baselines and labels; returns how many rows of which table. Incidents go first."""
    deleted = {}
    for table in (schema.monitor_states, schema.baselines, schema.label_names, schema.late_hours):
        deleted[table.name] = connection.execute(table.delete().where(table.c.model_id == model_id)).rowcount
    owner = schema.monitored_models
    deleted[owner.name] = connection.execute(owner.delete().where(owner.c.id == model_id)).rowcount
    return deleted


def _model(row: sa.Row[Any]) -> MonitoredModel:
    model_id, project_id, name, enabled, settings, version, events, first, last, revision, created_at = tuple(row)
    own = json.loads(settings) if settings != "{}" else {}
    return MonitoredModel(model_id, project_id, name, enabled, own, version, events, first, last, revision, created_at)


def _named(connection: sa.Connection, names: Iterable[tuple[int, str]]) -> dict[tuple[int, str], MonitoredModel]:
    table = schema.monitored_models
    by_project: dict[int, list[str]] = {}
    for project_id, name in names:
        by_project.setdefault(project_id, []).append(name)
    found: dict[tuple[int, str], MonitoredModel] = {}
    for project_id, mine in by_project.items():
        for chunk in in_lists(mine):
            query = sa.select(table).where(table.c.project_id == project_id, table.c.name.in_(chunk))
            found |= {(project_id, row.name): _model(row) for row in connection.execute(query)}
    return found


# ---- states ----------------------------------------------------------------------------------------------------------


def states(connection: sa.Connection, model_ids: Collection[int] | None = None) -> dict[int, StateRow]:
    """Return the newest evaluation of some models, or of all, by model id."""
    table = schema.monitor_states
    if model_ids is None:
        rows = connection.execute(sa.select(table)).all()
    else:
        rows = [row for chunk in in_lists(model_ids) for row in connection.execute(_of(table, chunk))]
    return {row.model_id: StateRow(**row._mapping) for row in rows}


def evaluated_hours(connection: sa.Connection) -> dict[int, int]:
    """Return the end of the newest evaluated hour by model id."""
    table = schema.monitor_states
    return {row.model_id: row.hour for row in connection.execute(sa.select(table.c.model_id, table.c.hour))}


def put_states(connection: sa.Connection, rows: Sequence[StateRow]) -> None:
    """Replace the newest evaluation of models."""
    if not rows:
        return
    insert = insert_or(connection, schema.monitor_states)
    set_ = {name: insert.excluded[name] for name in ("hour", "state", "assessment")}
    upsert = insert.on_conflict_do_update(index_elements=["model_id"], set_=set_)
    connection.execute(upsert, [vars(row) for row in rows])


def set_back(connection: sa.Connection, hour: int) -> None:
    """Let no evaluation be of a later hour: the clock was wrong."""
    table = schema.monitor_states
    connection.execute(table.update().where(table.c.hour > hour).values(hour=hour))


# ---- baselines -------------------------------------------------------------------------------------------------------


def baselines(connection: sa.Connection, model_ids: Collection[int] | None = None) -> list[BaselineRow]:
    """Return every version of some models, or of all, oldest first."""
    table = schema.baselines
    if model_ids is None:
        return _baselines(connection, sa.select(table))
    return [one for chunk in in_lists(model_ids) for one in _baselines(connection, _of(table, chunk))]


def current_baselines(connection: sa.Connection, model_ids: Collection[int] | None = None) -> dict[int, BaselineRow]:
    """Return the version that some models, or all, are compared with now, by model id; some have none yet."""
    table, owner = schema.baselines, schema.monitored_models
    query = sa.select(table).join(
        owner, (owner.c.id == table.c.model_id) & (owner.c.baseline_version == table.c.version)
    )
    if model_ids is None:
        found = _baselines(connection, query)
    else:
        found = [
            one
            for chunk in in_lists(model_ids)
            for one in _baselines(connection, query.where(table.c.model_id.in_(chunk)))
        ]
    return {one.model_id: one for one in found}


def baseline_versions(connection: sa.Connection) -> dict[int, int]:
    """Return the version that each model is compared with now, by model id; some have none yet."""
    table = schema.monitored_models
    query = sa.select(table.c.id, table.c.baseline_version).where(table.c.baseline_version.is_not(None))
    return {row.id: row.baseline_version for row in connection.execute(query)}


def forget_baselines(connection: sa.Connection, before: float) -> int:
    """Forget versions that were made before a time and serve no more; returns how many."""
    table, owner = schema.baselines, schema.monitored_models
    serving = sa.exists().where(owner.c.id == table.c.model_id, owner.c.baseline_version == table.c.version)
    return connection.execute(table.delete().where(table.c.created_at < before, ~serving)).rowcount


def newest_versions(connection: sa.Connection, model_ids: Collection[int]) -> dict[int, int]:
    """Return the highest version that each of some models ever had; those without one are missing."""
    table = schema.baselines
    query = sa.select(table.c.model_id, sa.func.max(table.c.version)).group_by(table.c.model_id)
    found: dict[int, int] = {}
    for chunk in in_lists(model_ids):
        found |= {row[0]: row[1] for row in connection.execute(query.where(table.c.model_id.in_(chunk)))}
    return found


def add_baselines(connection: sa.Connection, rows: Sequence[BaselineRow]) -> None:
    """Add versions and make each its model's current one."""
    if not rows:
        return
    owner = schema.monitored_models
    connection.execute(schema.baselines.insert(), [vars(row) for row in rows])
    update = owner.update().where(owner.c.id == sa.bindparam("one"))
    values = {"baseline_version": sa.bindparam("next"), "revision": owner.c.revision + 1}
    connection.execute(update.values(values), [{"one": row.model_id, "next": row.version} for row in rows])


def _baselines(connection: sa.Connection, query: sa.Select[Any]) -> list[BaselineRow]:
    ordered = query.order_by(schema.baselines.c.model_id, schema.baselines.c.version)
    return [BaselineRow(*row) for row in connection.execute(ordered)]


# ---- labels ----------------------------------------------------------------------------------------------------------


def labels(connection: sa.Connection, model_ids: Collection[int]) -> dict[int, dict[int, str]]:
    """Return the texts of labels by model id and fingerprint."""
    found: dict[int, dict[int, str]] = {}
    for chunk in in_lists(model_ids):
        for row in connection.execute(_of(schema.label_names, chunk)):
            found.setdefault(row.model_id, {})[row.label] = row.name
    return found


def add_labels(connection: sa.Connection, names: Mapping[int, Mapping[int, str]]) -> None:
    """Keep the texts of labels (model id -> fingerprint -> text); of each model the first MAX_LABEL_NAMES."""
    table = schema.label_names
    rows = []
    known = labels(connection, names)
    for model_id, texts in names.items():
        mine = known.get(model_id, {})
        fresh = [(label, text) for label, text in texts.items() if label not in mine]
        rows += [
            {"model_id": model_id, "label": label, "name": text}
            for label, text in fresh[: max(0, MAX_LABEL_NAMES - len(mine))]
        ]
    if rows:
        connection.execute(table.insert(), rows)


# ---- progress --------------------------------------------------------------------------------------------------------


def progress(connection: sa.Connection) -> Progress:
    """Return how far everything was evaluated."""
    table = schema.monitor_progress
    row = connection.execute(sa.select(table.c.evaluated_until, table.c.revision)).one()
    return Progress(row.evaluated_until, row.revision)


def advance(connection: sa.Connection, read: Progress, evaluated_until: int | None = None) -> Progress:
    """Claim what was done since `read` was read, and note how far it came; returns the progress as it is now.

    Raises ConflictError where a drain, an evaluation or a deletion was faster: what was computed is out of date.
    """
    table = schema.monitor_progress
    after = Progress(read.evaluated_until if evaluated_until is None else evaluated_until, read.revision + 1)
    update = table.update().where(table.c.revision == read.revision).values(vars(after))
    if connection.execute(update).rowcount != 1:
        raise ConflictError("another drain or evaluation was faster: start again")
    return after


def first_event(connection: sa.Connection) -> int | None:
    """Return the time of the oldest event that was ever drained, of any model; None where none was."""
    oldest: int | None = connection.scalar(sa.select(sa.func.min(schema.monitored_models.c.first_event_at)))
    return oldest


def has_late_hours(connection: sa.Connection) -> bool:
    """Whether there is an hour to be evaluated again."""
    return connection.scalar(sa.select(schema.late_hours.c.hour).limit(1)) is not None


def late_hours(connection: sa.Connection) -> list[tuple[int, int]]:
    """Return (model id, start of the hour) of hours that events came for after their evaluation, by model and hour."""
    table = schema.late_hours
    query = sa.select(table.c.model_id, table.c.hour).order_by(table.c.model_id, table.c.hour)
    return [(row.model_id, row.hour) for row in connection.execute(query)]


def add_late_hours(connection: sa.Connection, hours: Iterable[tuple[int, int]]) -> None:
    """Note hours (model id, start) that have to be evaluated again."""
    rows = [{"model_id": model_id, "hour": hour} for model_id, hour in hours]
    if rows:
        connection.execute(insert_or(connection, schema.late_hours).on_conflict_do_nothing(), rows)


def clear_late_hours(connection: sa.Connection, hours: Iterable[tuple[int, int]]) -> None:
    """Forget hours (model id, start) that were evaluated again."""
    table = schema.late_hours
    rows = [{"one": model_id, "at": hour} for model_id, hour in hours]
    if rows:
        mine = (table.c.model_id == sa.bindparam("one")) & (table.c.hour == sa.bindparam("at"))
        connection.execute(table.delete().where(mine), rows)


def _of(table: sa.Table, model_ids: Sequence[int]) -> sa.Select[Any]:
    return sa.select(table).where(table.c.model_id.in_(model_ids))
