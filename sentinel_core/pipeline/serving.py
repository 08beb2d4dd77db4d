"""What serves: the fitted model behind each watch's active version, verified, and the way back when it is damaged."""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from sentinel_core import registry
from sentinel_core.config import WatchConfig
from sentinel_core.errors import ArtifactError, RegistryError, SentinelError
from sentinel_core.forecasts import Fitted
from sentinel_core.models import catalogue
from sentinel_core.models.base import BatchModel
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import ActivationReport
from sentinel_core.registry import Version
from sentinel_core.storage import series_models, watch_store


def load_version(context: Context, watch: WatchConfig, version: Version) -> Fitted:
    """The fitted model of one version; ArtifactError where its file is missing or not what the registry recorded."""
    if version.sha256 not in context.shelf:
        try:
            content = context.store.segments.folder.fetch(version.path)
        except FileNotFoundError:
            raise ArtifactError(
                f"the artifact of version v{version.version} is missing at {version.path}; restore it from a backup, "
                "roll back, or retrain the watch"
            ) from None

        def construct(model_class: str, lookback: str, model_params: Mapping[str, Any]) -> BatchModel:
            if version.spec_digest == watch.digest_until(version.span_end):
                return catalogue.build(watch)
            # its model_params hold the holidays that it knew
            then = dataclasses.replace(watch, model_class=model_class, lookback=lookback, holidays=None)
            return catalogue.build(dataclasses.replace(then, model_params=model_params))

        context.shelf[version.sha256] = registry.load(content, version, construct)
    return context.shelf[version.sha256]


def load_serving(
    context: Context, watches: Iterable[WatchConfig], ids: Mapping[str, int]
) -> tuple[dict[str, tuple[Fitted, Version]], dict[str, str]]:
    """Each watch's serving model by slug, and what was wrong with those that had to fall back or have none.

    A damaged artifact is not loaded: the newest older version that proves itself serves instead, until a person acts.
    """
    with context.store.database.read() as conn:
        serving = registry.serving(conn)
    models: dict[str, tuple[Fitted, Version]] = {}
    problems: dict[str, str] = {}
    for watch in watches:
        found = serving.get(ids[watch.slug])
        if found is None:
            continue
        try:
            models[watch.slug] = load_version(context, watch, found[1]), found[1]
        except SentinelError as error:
            problems[watch.slug] = str(error)
            fallback = _previous_good(context, watch, found[1])
            if fallback is not None:
                models[watch.slug] = fallback
                problems[watch.slug] += f" Meanwhile v{fallback[1].version} serves."
    return models, problems


def _previous_good(context: Context, watch: WatchConfig, damaged: Version) -> tuple[Fitted, Version] | None:
    with context.store.database.read() as conn:
        older = registry.versions(conn, damaged.watch_id)
    for version in older:
        if version.version < damaged.version and version.accepted and version.deleted_at is None:
            try:
                return load_version(context, watch, version), version
            except SentinelError:
                continue
    return None


def forget_drift(conn: sa.Connection, watch_id: int) -> None:
    """Drift was measured on another version: the one that serves now starts without a verdict."""
    watch_store.update_state(conn, watch_id, severity="none", drift_mae=None, drift_low=0, drift_high=0, drift_scored=0)


def roll_back(context: Context, slug: str, *, version: int | None, reason: str, run_id: str | None) -> ActivationReport:
    """Serve the previous (or a named) version and hold it; the artifact must prove itself first."""
    watch = context.config.watch(slug)
    watch_id = context.watch_ids()[slug]
    with context.store.database.read() as conn:
        target = registry.predecessor(conn, watch_id) if version is None else registry.version(conn, watch_id, version)
    if target.deleted_at is None:
        load_version(context, watch, target)
    with context.store.database.write() as conn:
        previous = registry.roll_back(conn, watch_id, target.version, reason=reason, run_id=run_id)
        forget_drift(conn, watch_id)
    _note_models(context, watch, target)
    return _report(slug, "rollback", target, previous, True, reason)


def release(context: Context, slug: str, *, reason: str, run_id: str | None) -> ActivationReport:
    """End a rollback's hold; the newest candidate that was accepted while it held serves from now on."""
    watch_id = context.watch_ids()[slug]
    with context.store.database.write() as conn:
        before = registry.serving(conn)[watch_id][1] if watch_id in registry.serving(conn) else None
        registry.release(conn, watch_id, reason=reason, run_id=run_id)
        after = registry.serving(conn)[watch_id][1]
        forget_drift(conn, watch_id)
    _note_models(context, context.config.watch(slug), after)
    return _report(slug, "release", after, before.version if before else None, False, reason)


def serving(context: Context, slug: str) -> ActivationReport:
    """What serves a watch now, and why; RegistryError where nothing does."""
    watch_id = context.watch_ids()[slug]
    with context.store.database.read() as conn:
        found = registry.serving(conn).get(watch_id)
        last = registry.last_activation(conn, watch_id)
    if found is None or last is None:
        raise RegistryError(f"nothing serves {slug} yet: it has not been trained")
    return _report(slug, "confirm", found[1], last.previous, found[0].pinned, f"{last.action}: {last.reason}")


def _note_models(context: Context, watch: WatchConfig, version: Version) -> None:
    """Say which model each series has now; of an artifact that cannot be read nobody knows."""
    with suppress(SentinelError):
        model = load_version(context, watch, version).model
        with context.store.database.write() as conn:
            series_models.note(conn, version.watch_id, model.fingerprints, model.model_names)


def _report(
    slug: str, action: str, version: Version, previous: int | None, pinned: bool, reason: str
) -> ActivationReport:
    return ActivationReport(
        slug,
        action,
        version.version,
        previous,
        pinned,
        reason,
        version.run_id,
        version.span_start,
        version.span_end,
        version.sha256,
    )
