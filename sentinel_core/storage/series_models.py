"""Which model forecasts each series of a watch: what a watch that chooses for each has chosen."""

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.storage import schema
from sentinel_core.storage.statements import in_lists
from sentinel_core.windows import IntArray


def note(
    connection: sa.Connection, watch_id: int, fingerprints: IntArray, names: Sequence[str] | NDArray[np.str_]
) -> None:
    """Note which model forecasts which series of a watch; only what has changed is written."""
    table = schema.series
    known = connection.execute(sa.select(table.c.fingerprint, table.c.model).where(table.c.watch_id == watch_id))
    wanted = dict(zip(fingerprints.tolist(), map(str, names), strict=True))
    changed: dict[str | None, list[int]] = {}
    for fingerprint, model in known:
        if wanted.get(fingerprint) != model:
            changed.setdefault(wanted.get(fingerprint), []).append(fingerprint)
    for name, members in changed.items():
        for some in in_lists(members):
            mine = (table.c.watch_id == watch_id) & table.c.fingerprint.in_(some)
            connection.execute(table.update().where(mine).values(model=name))


def names(connection: sa.Connection, watch_id: int, fingerprints: Sequence[int]) -> dict[int, str]:
    """The model of each of a few series, where one has learnt it."""
    table = schema.series
    mine = (table.c.watch_id == watch_id) & table.c.fingerprint.in_(fingerprints) & table.c.model.is_not(None)
    return {row[0]: row[1] for row in connection.execute(sa.select(table.c.fingerprint, table.c.model).where(mine))}


def counts(connection: sa.Connection, watch_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many live series each model has, by watch, the most frequent first."""
    table, count = schema.series, sa.func.count()
    found: dict[int, dict[str, int]] = {}
    for some in in_lists(watch_ids):
        live = table.c.watch_id.in_(some) & table.c.vanished_at.is_(None) & table.c.model.is_not(None)
        query = sa.select(table.c.watch_id, table.c.model, count).where(live).group_by(table.c.watch_id, table.c.model)
        for watch_id, model, series in connection.execute(query.order_by(count.desc(), table.c.model)):
            found.setdefault(watch_id, {})[model] = series
    return found
