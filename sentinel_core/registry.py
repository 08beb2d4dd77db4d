"""Versions of models: artifacts that prove themselves before they are read, promotion, rollback, retention."""

import hashlib
import io
import json
import math
import pickle
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.errors import ArtifactError, ConflictError, RegistryError
from sentinel_core.forecasts import Fitted
from sentinel_core.models.base import BatchModel
from sentinel_core.storage.schema import activations, active_models, model_versions

FORMAT = "sentinel-model-1"
ARTIFACT = re.compile(r"models/[A-Za-z0-9_.-]+/v\d+-[0-9a-f]{8}\.joblib")  # only what trainings have named is deleted


@dataclass(frozen=True)
class Version:
    """One row of `model_versions`."""

    watch_id: int
    version: int
    parent: int | None
    kind: str
    reason: str
    model_class: str
    spec_digest: str
    path: str
    sha256: str
    bytes: int
    feature_names: str
    series: int
    series_refitted: int
    span_start: int
    span_end: int
    mae: float | None
    champion_mae: float | None
    coverage: float | None
    accepted: bool
    run_id: str | None
    created_at: float
    deleted_at: float | None = None


@dataclass(frozen=True)
class Active:
    """Which version of a watch serves; a pinned one stays until released."""

    watch_id: int
    version: int
    pinned: bool
    changed_at: float


# ---- artifacts -------------------------------------------------------------------------------------------------------
def dump(fitted: Fitted, feature_names: Sequence[str]) -> tuple[bytes, str]:
    """Serialise to joblib bytes of plain values, and their SHA-256."""
    model = fitted.model
    arrays: dict[str, NDArray[Any]] = {
        "fingerprints": model.fingerprints,
        **fitted.measured,
        **{f"parameters.{name}": array for name, array in model.parameters.items()},
    }
    layout, data = _pack(arrays)
    buffer = io.BytesIO()
    joblib.dump(
        {
            "format": FORMAT,
            "code_version": model.code_version,
            "granularity": model.granularity,
            "horizon": model.horizon,
            "lookback": model.lookback,
            "model_params": model.model_params,
            "feature_names": list(feature_names),
            "layout": layout,
            "data": data,
        },
        buffer,
    )
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()


def _pack(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, bytes]:
    """All arrays as one run of bytes and its layout. joblib reads an array in 50 µs of Python, and a tick reads a dozen
    for each of perhaps a thousand watches; this way it is one. An object array's items must be bytes."""
    layout, parts = [], []
    for name, array in arrays.items():
        if array.dtype == object:
            layout.append([name, "bytes", [len(item) for item in array]])
            parts.append(b"".join(array))
        else:
            layout.append([name, array.dtype.str, list(array.shape)])
            parts.append(np.ascontiguousarray(array).tobytes())
    return json.dumps(layout), b"".join(parts)


def _unpack(layout: str, data: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for name, kind, shape in json.loads(layout):
        if kind == "bytes":
            arrays[name] = items = np.empty(len(shape), object)
            for k, length in enumerate(shape):
                items[k] = data[at : at + length]
                at += length
        else:
            dtype, count = np.dtype(kind), math.prod(shape)
            arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
    return arrays


def load(content: bytes, version: Version, construct: Callable[[str, str, Mapping[str, Any]], BatchModel]) -> Fitted:
    """Restore what `dump` wrote. The bytes are hashed before anything in them is interpreted.

    construct: (model_class, lookback, model_params) -> an empty model on its watch's granularity and horizon
    Raises ArtifactError for a file that is not, byte for byte, what the registry recorded.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != version.sha256:
        raise ArtifactError(
            f"the artifact of version v{version.version} at {version.path} does not match its SHA-256 in the registry "
            f"({len(content)} bytes, expected {version.bytes}): it was truncated, replaced or tampered with. It was "
            "not loaded. Restore the file from a backup, or retrain the watch."
        )
    # what joblib.dump writes is a plain pickle where it holds no array; the C unpickler reads it ten times faster
    state: Mapping[str, Any] = pickle.loads(content)
    if state.get("format") != FORMAT:
        raise ArtifactError(
            f"the artifact of version v{version.version} has format {state.get('format')!r}, this release reads "
            f"{FORMAT}; retrain the watch"
        )
    template = construct(version.model_class, state["lookback"], state["model_params"])
    if (state["granularity"], state["horizon"]) != (template.granularity, template.horizon):
        raise ArtifactError(
            f"the artifact of version v{version.version} forecasts {state['horizon']} in steps of "
            f"{state['granularity']}, its watch {template.horizon} in steps of {template.granularity}; retrain it"
        )
    if state["code_version"] != template.code_version:
        raise ArtifactError(
            f"version v{version.version} was trained by another release's {version.model_class} (code version "
            f"{state['code_version']}, this one has {template.code_version}); retrain the watch"
        )
    if state["feature_names"] != json.loads(version.feature_names):
        raise ArtifactError(f"the artifact of version v{version.version} has other features than the registry says")
    arrays = _unpack(state["layout"], state["data"])
    own = {name: array for name, array in arrays.items() if name.startswith("parameters.")}
    parameters = {name.removeprefix("parameters."): array for name, array in own.items()}
    model = template.with_rows(arrays["fingerprints"], parameters)
    return Fitted.of(model, arrays)


# ---- versions --------------------------------------------------------------------------------------------------------
def next_version(conn: sa.Connection, watch_id: int) -> int:
    """The number after the highest ever given; rows are never deleted, so none is used twice."""
    newest = conn.scalar(sa.select(sa.func.max(model_versions.c.version)).where(model_versions.c.watch_id == watch_id))
    return 1 + (newest or 0)


def record(conn: sa.Connection, version: Version) -> None:
    """Add a version; ConflictError when somebody else took the number first."""
    try:
        conn.execute(sa.insert(model_versions).values(**version.__dict__))
    except sa.exc.IntegrityError as error:
        raise ConflictError(f"version v{version.version} was taken by another training; try again") from error


def versions(conn: sa.Connection, watch_id: int) -> list[Version]:
    """Every version of a watch, newest first."""
    table = model_versions
    rows = conn.execute(sa.select(table).where(table.c.watch_id == watch_id).order_by(table.c.version.desc()))
    return [Version(**row._mapping) for row in rows]


def version(conn: sa.Connection, watch_id: int, number: int) -> Version:
    """One version; RegistryError naming those there are."""
    known = {found.version: found for found in versions(conn, watch_id)}
    if number not in known:
        names = ", ".join(f"v{found}" for found in sorted(known)) or "none"
        raise RegistryError(f"there is no version v{number}; there are: {names}")
    return known[number]


def serving(conn: sa.Connection) -> dict[int, tuple[Active, Version]]:
    """Every watch's active model with the version behind it, by watch id, in one query."""
    columns = [column.label(f"active_{column.name}") for column in active_models.c]  # in the order of Active's fields
    rows = conn.execute(
        sa.select(*columns, model_versions).join(
            model_versions,
            sa.and_(
                model_versions.c.watch_id == active_models.c.watch_id,
                model_versions.c.version == active_models.c.version,
            ),
        )
    )
    return {row[0]: (Active(*row[: len(columns)]), Version(*row[len(columns) :])) for row in rows}


def active_versions(conn: sa.Connection) -> dict[int, int]:
    """The number of each watch's active version, by watch id."""
    return {row.watch_id: row.version for row in conn.execute(sa.select(active_models))}


# ---- promotion -------------------------------------------------------------------------------------------------------
def promote(
    conn: sa.Connection, watch_id: int, number: int, *, parent: int | None, reason: str, run_id: str | None
) -> bool:
    """Let a version serve if its parent still does and nobody has pinned it; False where a rollback holds.

    Raises ConflictError when another version was promoted in between: the candidate was judged against the wrong one.
    """
    now = time.time()
    if parent is None:
        try:
            with conn.begin_nested():
                conn.execute(sa.insert(active_models).values(watch_id=watch_id, version=number, changed_at=now))
        except sa.exc.IntegrityError as error:
            raise ConflictError("another first version was promoted meanwhile; train again") from error
    else:
        swapped = conn.execute(
            sa.update(active_models)
            .where(
                active_models.c.watch_id == watch_id,
                active_models.c.version == parent,
                active_models.c.pinned.is_(False),
            )
            .values(version=number, changed_at=now)
        )
        if swapped.rowcount == 0:
            held = conn.execute(sa.select(active_models).where(active_models.c.watch_id == watch_id)).one()
            if held.pinned:
                return False
            raise ConflictError(f"v{held.version} was promoted while v{number} was trained from v{parent}; train again")
    _log(conn, watch_id, "promote", number, parent, reason, run_id, now)
    return True


def roll_back(conn: sa.Connection, watch_id: int, number: int, *, reason: str, run_id: str | None) -> int:
    """Let an older (or another) version serve and pin it until released; returns the version that served before.

    Whether its artifact is kept is asked here, in the caller's write transaction: a training may just have let it go.
    """
    now = time.time()
    target = version(conn, watch_id, number)
    active = conn.execute(sa.select(active_models).where(active_models.c.watch_id == watch_id)).one_or_none()
    if active is None:
        raise RegistryError("nothing serves yet, so there is nothing to roll back")
    if target.deleted_at is not None:
        raise RegistryError(
            f"the artifact of v{target.version} is gone: it was rejected, or max_versions_per_metric no longer keeps it"
        )
    conn.execute(
        sa.update(active_models)
        .where(active_models.c.watch_id == watch_id)
        .values(version=target.version, pinned=True, changed_at=now)
    )
    _log(conn, watch_id, "rollback", target.version, active.version, reason, run_id, now)
    return int(active.version)


def predecessor(conn: sa.Connection, watch_id: int) -> Version:
    """The version that a rollback without a name goes to: the newest kept one older than what serves."""
    active = conn.execute(sa.select(active_models).where(active_models.c.watch_id == watch_id)).one_or_none()
    if active is None:
        raise RegistryError("nothing serves yet, so there is nothing to roll back")
    for found in versions(conn, watch_id):
        if found.version < active.version and found.accepted and found.deleted_at is None:
            return found
    raise RegistryError(f"v{active.version} has no predecessor to roll back to: it is the oldest version that is kept")


def release(conn: sa.Connection, watch_id: int, *, reason: str, run_id: str | None) -> int | None:
    """End a rollback's hold. The newest candidate accepted while it held is promoted; returns it, or None.

    A candidate continues its parent: one whose training began on the version rolled back from is left alone.
    """
    now = time.time()
    active = conn.execute(sa.select(active_models).where(active_models.c.watch_id == watch_id)).one_or_none()
    if active is None or not active.pinned:
        raise RegistryError("nothing is pinned, so there is nothing to release")
    conn.execute(sa.update(active_models).where(active_models.c.watch_id == watch_id).values(pinned=False))
    _log(conn, watch_id, "release", active.version, active.version, reason, run_id, now)
    for found in versions(conn, watch_id):
        newer = found.created_at > active.changed_at and found.parent == active.version
        if newer and found.accepted and found.deleted_at is None:
            promote(conn, watch_id, found.version, parent=active.version, reason=reason, run_id=run_id)
            return found.version
    return None


@dataclass(frozen=True)
class Activation:
    """One change of what serves: a row of `activations`."""

    id: int
    watch_id: int
    action: str
    version: int
    previous: int | None
    reason: str
    run_id: str | None
    created_at: float


def last_activation(conn: sa.Connection, watch_id: int) -> Activation | None:
    """The newest change of what serves a watch."""
    newest = sa.select(activations).where(activations.c.watch_id == watch_id).order_by(activations.c.id.desc()).limit(1)
    row = conn.execute(newest).one_or_none()
    return None if row is None else Activation(**row._mapping)


def history(conn: sa.Connection, watch_id: int) -> list[tuple[float, Version]]:
    """(since when, version) for every version that ever served a watch, oldest first."""
    known = {found.version: found for found in versions(conn, watch_id)}
    changes = conn.execute(
        sa.select(activations.c.created_at, activations.c.version)
        .where(activations.c.watch_id == watch_id)
        .order_by(activations.c.id)
    )
    return [(at, known[number]) for at, number in changes]


def surplus(conn: sa.Connection, watch_id: int, keep: int) -> list[Version]:
    """Versions whose artifacts may go: all but the newest `keep`, what serves, and the last full training."""
    held = [found for found in versions(conn, watch_id) if found.deleted_at is None]
    active = conn.scalar(sa.select(active_models.c.version).where(active_models.c.watch_id == watch_id))
    full = (found.version for found in held if found.kind != "finetune" and found.series_refitted == found.series)
    last_full = next(full, None)
    return [found for found in held[keep:] if found.version not in (active, last_full)]


def orphans(conn: sa.Connection, names: Sequence[str]) -> list[str]:
    """Those of the files that are artifacts no version names: left by a training that died before it was recorded."""
    kept = set(conn.scalars(sa.select(model_versions.c.path).where(model_versions.c.deleted_at.is_(None))))
    return [name for name in names if ARTIFACT.fullmatch(name) and name not in kept]


def mark_deleted(conn: sa.Connection, gone: Sequence[Version]) -> None:
    """Note that artifacts are gone; the rows stay, so that numbers are never reused and lineage stays readable."""
    for found in gone:
        conn.execute(
            sa.update(model_versions)
            .where(model_versions.c.watch_id == found.watch_id, model_versions.c.version == found.version)
            .values(deleted_at=time.time())
        )


def _log(
    conn: sa.Connection,
    watch_id: int,
    action: str,
    number: int,
    previous: int | None,
    reason: str,
    run_id: str | None,
    now: float,
) -> None:
    conn.execute(
        sa.insert(activations).values(
            watch_id=watch_id,
            action=action,
            version=number,
            previous=previous,
            reason=reason,
            run_id=run_id,
            created_at=now,
        )
    )
