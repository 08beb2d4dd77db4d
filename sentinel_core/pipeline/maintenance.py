"""Keep the store small: compact, let old data go, collect what nobody reads any more."""

from dataclasses import asdict

import sqlalchemy as sa

from sentinel_core import registry
from sentinel_core.durations import parse_duration
from sentinel_core.incidents import store as incidents
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.windowing import REACH_HOURS
from sentinel_core.security import audit
from sentinel_core.storage import model_store, quality_store, schema, watch_store
from sentinel_core.storage.compaction import DAY_SECONDS, compact
from sentinel_core.storage.segments import GRACE_SECONDS

KEPT_ACTIONS_SECONDS = 30 * 86_400  # decisions are looked back on for a day; a month lets a person ask why


def maintain(context: Context) -> dict[str, int]:
    """Compact segments, apply the retentions, delete files past their grace; returns counts of what was done."""
    config, now = context.config, context.clock()
    window_retention, event_retention = parse_duration(config.window_retention), parse_duration(config.event_retention)
    psi_retention = parse_duration(config.psi_retention)
    done = asdict(
        compact(
            context.store,
            now,
            window_retention_seconds=window_retention,
            forecast_retention_seconds=parse_duration(config.forecast_retention),
            event_retention_seconds=event_retention,
            # counts say nothing of single events: they stay for as long as windows reach
            count_retention_seconds=max(event_retention, REACH_HOURS * config.hour_seconds + DAY_SECONDS),
            psi_retention_seconds=psi_retention,
        )
    )
    with context.store.database.write() as conn:
        done["quality_forgotten"] = quality_store.forget(conn, now - parse_duration(config.forecast_retention))
        done["series_forgotten"] = watch_store.forget_series(conn, now - window_retention)
        for watch_id in watch_store.retired_watches(conn, now - window_retention):
            # what served stays, for a watch that returns
            registry.mark_deleted(conn, registry.surplus(conn, watch_id, keep=0))
        old = schema.actions.c.decided_at < now - KEPT_ACTIONS_SECONDS
        done["actions_forgotten"] = conn.execute(sa.delete(schema.actions).where(old)).rowcount
        done["baselines_forgotten"] = model_store.forget_baselines(conn, now - psi_retention)
        done["audit_forgotten"] = audit.forget(conn, now - parse_duration(config.audit_retention))
        context.flush(conn)
    done["incidents_forgotten"] = _forget_incidents(context, now - parse_duration(config.incident_retention))
    done["files_deleted"] = context.store.segments.collect_garbage(now) + _collect_artifacts(context, now)
    return done


def _forget_incidents(context: Context, before: float) -> int:
    """Forget incidents that were over before a time, some at a time, so that nobody waits for long."""
    forgotten = 0
    while True:
        with context.store.database.write() as conn:
            some = incidents.forget(conn, before)
        if not some:
            return forgotten
        forgotten += some


def _collect_artifacts(context: Context, now: float) -> int:
    """Delete artifacts that no version names; the grace is for a training that is about to record its own."""
    folder = context.store.segments.folder
    aged = [name for name, modified in folder.files() if modified < now - GRACE_SECONDS]
    with context.store.database.read() as conn:
        orphans = registry.orphans(conn, aged)
    folder.delete(orphans)
    return len(orphans)
