"""Keep the store small: compact, let old data go, collect what nobody reads any more."""

from dataclasses import asdict

import sqlalchemy as sa

from sentinel_core.durations import parse_duration
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import schema
from sentinel_core.storage.compaction import compact

KEPT_ACTIONS_SECONDS = 30 * 86_400  # decisions are looked back on for a day; a month lets a person ask why


def maintain(context: Context) -> dict[str, int]:
    """Compact segments, apply the retentions, delete files past their grace; returns counts of what was done."""
    config, now = context.config, context.clock()
    done = asdict(
        compact(
            context.store,
            now,
            window_retention_seconds=parse_duration(config.window_retention),
            forecast_retention_seconds=parse_duration(config.forecast_retention),
        )
    )
    done["files_deleted"] = context.store.segments.collect_garbage(now)
    with context.store.database.write() as conn:
        old = schema.actions.c.decided_at < now - KEPT_ACTIONS_SECONDS
        done["actions_forgotten"] = conn.execute(sa.delete(schema.actions).where(old)).rowcount
        context.flush(conn)
    return done
