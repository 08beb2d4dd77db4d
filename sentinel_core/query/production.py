"""Models in production over time: PSI and what came of it hour by hour, and how many incidents there were."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from sentinel_core.config import SentinelConfig
from sentinel_core.durations import parse_duration
from sentinel_core.emitter.production import INCIDENTS, INCIDENTS_HELP, PER_MODEL, incident_labels
from sentinel_core.monitoring.assessment import WORST_LAST
from sentinel_core.monitoring.monitor import State
from sentinel_core.promql import matchers as language
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import look_back, to_samples, within
from sentinel_core.promql.matchers import Matching
from sentinel_core.promql.values import LOOKBACK, STALE, Labels, Samples, Vector
from sentinel_core.query.sampled import NOTHING, Metadata, SampledSource, joined, named
from sentinel_core.series import Matcher
from sentinel_core.storage import event_store, schema
from sentinel_core.storage.parquet import Columns
from sentinel_core.storage.segments import Segment
from sentinel_core.storage.store import Store
from sentinel_core.windows import IntArray, grid

# What of emitter.production has a past, and the column of the dataset `psi` that it is in.
COLUMNS: Mapping[str, str] = {
    "sentinel_model_psi": "psi",
    "sentinel_model_psi_adjusted": "adjusted",
    "sentinel_model_psi_lower": "lower",
    "sentinel_model_psi_upper": "upper",
    "sentinel_model_psi_limit": "limit",
    "sentinel_model_state": "state",
    "sentinel_model_evaluated_timestamp_seconds": "ts",
}
NAMES = frozenset({*COLUMNS, INCIDENTS})
_BADNESS = np.array([WORST_LAST.index(state) for state in sorted(State)])
_SCRAPE = 60_000  # ms between the samples of incidents, which really change a few times a day
_FOREVER = 1 << 60  # ms: an incident stays as it is until its next transition
_TIME_BITS = 42  # of unix milliseconds, until the year 2109


class ProductionSource(SampledSource):
    """NAMES, labelled as on /metrics; cheap to make.

    A model has a sample for each evaluated hour, at its end: of its worst output. Incidents are counted from their
    transitions, as if somebody had scraped them each minute.
    """

    def __init__(
        self,
        store: Store,
        config: Callable[[], SentinelConfig],
        now: Callable[[], float],
        projects: Collection[str] | None = None,
    ) -> None:
        """projects: names of those that may be seen; None: all."""
        self._store = store
        self._config = config
        self._now = now
        self._projects = projects

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """Return each series' newest sample at each of these times; of incidents that is the newest change."""
        matching = language.compile(matchers)
        evaluated = self._evaluations(matching, int(times[0]) - self._lookback(), int(times[-1]), budget)
        return look_back(joined([evaluated, self._changes(matching, budget)]), times, budget, timestamps=timestamps)

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """Return models' hours, with a stale marker where one had no such value, and incidents minute by minute."""
        matching = language.compile(matchers)
        evaluated, changes = self._evaluations(matching, start, end, budget), self._changes(matching, budget)
        if len(changes.times):
            minutes = grid(max(start + 1, int(changes.times.min())), min(end, int(self._now() * 1000)), _SCRAPE)
            changes = to_samples(look_back(changes, minutes, budget), minutes)
        return joined([evaluated, changes])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series of which a sample stands for a time in [start, end]."""
        matching = language.compile(matchers)
        changes = self._changes(matching, budget)
        lasting = look_back(changes, np.array([start]), budget)
        found = {labels for labels, there in zip(lasting.labels, lasting.present[:, 0].tolist(), strict=True) if there}
        return [
            *self._evaluated(matching, start - self._lookback(), end),
            *(found | set(within(changes, start, end).labels)),
        ]

    def metadata(self) -> Metadata:
        """Gauges all, as on /metrics."""
        return {name: ("gauge", PER_MODEL[name]) for name in COLUMNS} | {INCIDENTS: ("gauge", INCIDENTS_HELP)}

    def _lookback(self) -> int:
        """Of models: an hour, and what its evaluation may take."""
        return self._config().hour_seconds * 1000 + LOOKBACK

    # -- models ----------------------------------------------------------------------------------------------------

    def _asked(self, matching: Matching) -> tuple[list[str], dict[int, dict[str, str]]]:
        """The names and the models (by id) that are asked for."""
        names = [name for name in COLUMNS if matching.of_name(name)]
        if not names:
            return [], {}
        models, projects = schema.monitored_models, schema.projects
        query = sa.select(models.c.id, models.c.name, projects.c.name).join_from(models, projects)
        if self._projects is not None:
            query = query.where(projects.c.name.in_(self._projects))
        with self._store.database.read() as connection:
            rows = connection.execute(query.order_by(models.c.id)).all()
        labels = [{"model": model, "project": project} for _, model, project in rows]
        chosen = matching.matches([named(names[0], one) for one in labels])
        return names, {row[0]: one for row, one, wanted in zip(rows, labels, chosen.tolist(), strict=True) if wanted}

    def _span(self, start: int, end: int) -> tuple[int, int]:
        """Unix seconds of evaluations that there may be in a span of ms; one that ends before it starts has none."""
        config, now = self._config(), int(self._now())
        return max(start // 1000, now - parse_duration(config.psi_retention) - 86_400), min(end // 1000, now)

    def _evaluations(self, matching: Matching, start: int, end: int, budget: Budget) -> Samples:
        names, models = self._asked(matching)
        hour = self._config().hour_seconds
        t0, t1 = self._span(start, end)
        if not models or t1 < t0:
            return NOTHING
        budget.spend(len(models) * ((t1 - t0) // hour + 1) * len(names))
        found = _worst(event_store.read_psi(self._store, hour, t0, t1, model_ids=models.keys()))
        ids, lengths = np.unique(found["model"], return_counts=True)
        columns = [found[COLUMNS[name]].astype(np.float64) for name in names]
        values = np.concatenate(columns)
        return Samples(
            tuple(named(name, models[model_id]) for name in names for model_id in ids.tolist()),
            np.concatenate([[0], np.cumsum(np.tile(lengths, len(names)))]),
            np.tile(found["ts"] * 1000, len(names)),
            np.where(np.isnan(values), STALE, values),
            np.full(len(names) * len(ids), self._lookback()),
        )

    def _evaluated(self, matching: Matching, start: int, end: int) -> list[Labels]:
        """The models' series, from one row per model: a label's values are asked for of months."""
        names, models = self._asked(matching)
        t0, t1 = self._span(start, end)
        if not models or t1 < t0:
            return []
        known = ", ".join(f'bool_or(not isnan("{COLUMNS[name]}"::double)) as {name}' for name in names)
        sql = f"select model::bigint as id, {known} from {{files}} where ts between {t0} and {t1} group by model"

        def read(segments: list[Segment]) -> Columns | None:
            return self._store.segments.query(segments, sql) if segments else None

        rows = self._store.segments.live("psi", str(self._config().hour_seconds), t0, t1, read)
        if rows is None:
            return []
        there = {name: set(rows["id"][rows[name].astype(bool)].tolist()) for name in names}
        return [named(name, labels) for name in names for one, labels in models.items() if one in there[name]]

    # -- incidents -------------------------------------------------------------------------------------------------

    def _changes(self, matching: Matching, budget: Budget) -> Samples:
        """How many incidents there are by their labels, from each change to the next one; until now and no longer."""
        rows = self._transitions() if matching.of_name(INCIDENTS) else []
        if not rows:
            return NOTHING
        budget.spend(4 * len(rows))
        keys: dict[tuple[str, ...], int] = {}
        key = np.array([keys.setdefault(tuple(row[2:]), len(keys)) for row in rows])
        labels = [named(INCIDENTS, incident_labels(*one)) for one in keys]
        now = int(self._now() * 1000)
        incident = np.array([row.incident_id for row in rows])
        ends = np.append(incident[1:] != incident[:-1], True)
        number = np.cumsum(ends) - ends << _TIME_BITS
        at = np.array([min(int(row.at * 1000), now) for row in rows])
        at = np.maximum.accumulate(number + at) - number  # no step before the one before it, whatever the clock said
        after = np.where(ends, now + LOOKBACK, np.append(at[1:], 0))

        wanted = np.tile(matching.matches(labels)[key], 2)
        key, time = np.tile(key, 2)[wanted], np.concatenate([at, after])[wanted]
        change = np.repeat([1, -1], len(rows))[wanted]
        order = np.lexsort((time, key))
        key, time, count = key[order], time[order], np.cumsum(change[order])
        last = np.append((key[1:] != key[:-1]) | (time[1:] != time[:-1]), True)[: len(key)]  # of changes at one time
        key, time, count = key[last], time[last], count[last]
        chosen, lengths = np.unique(key, return_counts=True)
        return Samples(
            tuple(labels[one] for one in chosen.tolist()),
            np.concatenate([[0], np.cumsum(lengths)]),
            time,
            np.where(count, count, STALE),
            np.full(len(chosen), _FOREVER),
        )

    def _transitions(self) -> Sequence[sa.Row[Any]]:
        """Every incident's, one incident after the other: its id, the time, and what `incident_labels` takes."""
        steps, incidents = schema.incident_transitions, schema.incidents
        projects, watches = schema.projects, schema.watches
        about = sa.func.coalesce(watches.c.slug, incidents.c.subject)  # a watch is called by its slug on /metrics
        what = [projects.c.name.label("project"), incidents.c.kind, about, steps.c.state, steps.c.severity]
        query = sa.select(*[steps.c.incident_id, steps.c.at, *what]).join_from(steps, incidents)
        query = query.join(projects, projects.c.id == incidents.c.project_id)
        query = query.outerjoin(watches, watches.c.id == incidents.c.watch_id)
        if self._projects is not None:
            query = query.where(projects.c.name.in_(self._projects))
        with self._store.database.read() as connection:
            return connection.execute(query.order_by(steps.c.incident_id, steps.c.revision)).all()


def _worst(rows: Columns) -> Columns:
    """Of each model and hour the row of its worst output, as `Assessment.worst` chooses; sorted by model and hour."""
    adjusted = np.nan_to_num(rows["adjusted"], nan=0.0)
    order = np.lexsort((-rows["output"], adjusted, _BADNESS[rows["state"]], rows["ts"], rows["model"]))
    found = {name: column[order] for name, column in rows.items()}
    last = np.ones(len(order), bool)
    last[:-1] = (found["model"][1:] != found["model"][:-1]) | (found["ts"][1:] != found["ts"][:-1])
    return {name: column[last] for name, column in found.items()}
