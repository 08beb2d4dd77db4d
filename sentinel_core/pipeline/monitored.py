"""What people and other programs ask about models in production; the JSON API, the pages and /metrics read it here.

Nothing here checks who asks: pass `project_id` wherever the answer must be one project's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from sentinel_core.config import MonitorConfig, SentinelConfig
from sentinel_core.incidents import store as incidents
from sentinel_core.monitoring.assessment import OUTPUTS, Assessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.pipeline.judging import Past
from sentinel_core.pipeline.replaying import evaluate_again
from sentinel_core.storage import event_log, event_store, model_store
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray, grid


@dataclass(frozen=True)
class ModelView:
    """A model as lists and pages show it.

    hour: end of the newest evaluated hour, unix seconds; None before the first evaluation
    state: of that evaluation (ok | warning | critical | insufficient_data | no_data); None before the first
    incident_id: of the psi incident that is open or acknowledged, else of the silence, else None
    """

    model: MonitoredModel
    settings: MonitorConfig  # in effect
    hour: int | None
    state: str | None
    assessment: Assessment | None
    incident_id: int | None
    incident_severity: str | None


@dataclass(frozen=True)
class OutputHistory:
    """PSI over time of one output of a model; arrays of one length, one entry per evaluated hour, ascending."""

    output: int  # 0 score, 1 number, 2 label
    hours: IntArray  # ends of the evaluated hours, unix seconds
    psi: FloatArray  # NaN where there was no verdict, and in the following six
    adjusted: FloatArray
    lower: FloatArray
    upper: FloatArray
    floor: FloatArray
    limit: FloatArray  # upper end of the normal range of psi
    p: FloatArray
    n_baseline: FloatArray
    n_current: FloatArray
    baseline: IntArray  # version
    days: IntArray  # length of the current window; 0: less than a day
    state: Sequence[str]


@dataclass(frozen=True)
class OutputDistribution:
    """The two distributions that were compared; sequences of one length, one entry per bin that is used."""

    output: int
    bins: Sequence[str]  # what people call them
    baseline: Sequence[float]  # share of the baseline's events, 0 … 1
    current: Sequence[float]
    contributions: Sequence[float]  # to the PSI
    n_baseline: float
    n_current: float


@dataclass(frozen=True)
class Activity:
    """Events of one model by hour."""

    hours: IntArray  # starts of hours, unix seconds, ascending, every hour of the span
    events: IntArray  # drained so far
    undrained: int  # acknowledged and not yet in a segment, of all hours and all models


def models(
    conn: sa.Connection, config: SentinelConfig, project_id: int | None, *, after: int = 0, limit: int | None = None
) -> list[ModelView]:
    """Return the models of one project (None: of all) by id, each with its newest assessment and open incident."""
    found = model_store.models(conn, project_id, after=after, limit=limit)
    return _views(conn, config, found)


def model(conn: sa.Connection, config: SentinelConfig, project_id: int | None, model_id: int) -> ModelView | None:
    """Return one model; None where there is none or where it is another project's."""
    found = model_store.model(conn, model_id, project_id)
    return None if found is None else _views(conn, config, [found])[0]


def _views(conn: sa.Connection, config: SentinelConfig, found: Sequence[MonitoredModel]) -> list[ModelView]:
    states = model_store.states(conn, [one.id for one in found])
    active = incidents.active(conn)
    current = {one.model_id: one for kind in ("silence", "psi") for one in active if one.kind == kind}  # psi wins
    views = []
    for one in found:
        state, incident = states.get(one.id), current.get(one.id)
        views.append(
            ModelView(
                one,
                one.monitor_config(config.monitoring),
                None if state is None else state.hour,
                None if state is None else state.state,
                None if state is None else Assessment.from_json(state.assessment),
                None if incident is None else incident.id,
                None if incident is None else incident.severity,
            )
        )
    return views


def baselines(conn: sa.Connection, model_id: int) -> list[BaselineRow]:
    """Return every baseline version that a model had, newest first."""
    return model_store.baselines(conn, [model_id])[::-1]


def score_history(store: Store, config: SentinelConfig, model_id: int, t0: int, t1: int) -> list[OutputHistory]:
    """Return the evaluations of hours that end in [t0, t1], one history per output that was monitored.

    Of an hour that was evaluated again, by late events or a replay, the newest evaluation.
    """
    rows = event_store.read_psi(store, config.hour_seconds, t0, t1, model_ids=[model_id])
    found = []
    for output in np.unique(rows["output"]).tolist():
        mine = {name: column[rows["output"] == output] for name, column in rows.items()}
        numbers = ("psi", "adjusted", "lower", "upper", "floor", "limit", "p", "n_baseline", "n_current")
        found.append(
            OutputHistory(
                output=output,
                hours=mine["ts"],
                baseline=mine["baseline"].astype(np.int64),
                days=mine["days"].astype(np.int64),
                state=[State(code).name.lower() for code in mine["state"].tolist()],
                **{name: mine[name] for name in numbers},
            )
        )
    return found


def distributions(
    store: Store, config: SentinelConfig, model_id: int, hour: int | None = None
) -> list[OutputDistribution]:
    """Return what the evaluation of an hour (its end; None: the newest) compares; empty before the first."""
    with store.database.read() as conn:
        state = model_store.states(conn, [model_id]).get(model_id)
        found = model_store.model(conn, model_id)
        past = None if found is None else Past(conn, config, [found])
    if state is None or past is None:
        return []
    if hour is None or hour == state.hour:
        return _distributions(Assessment.from_json(state.assessment))
    again = evaluate_again(store, {hour: past.judged(hour)}, config.hour_seconds, past.texts)
    return [shown for _, evaluated in again for one in evaluated for shown in _distributions(one.assessment)]


def _distributions(assessment: Assessment) -> list[OutputDistribution]:
    return [
        OutputDistribution(
            output=OUTPUTS.index(one.output),
            bins=[share.name for share in one.bins],
            baseline=[share.baseline for share in one.bins],
            current=[share.current for share in one.bins],
            contributions=[share.contribution for share in one.bins],
            n_baseline=one.n_baseline,
            n_current=one.n_current,
        )
        for one in assessment.outputs
    ]


def activity(store: Store, config: SentinelConfig, model_id: int, t0: int, t1: int) -> Activity:
    """Return how many events came for each hour of [t0, t1), by event time."""
    step = config.hour_seconds
    with store.database.read() as conn:
        undrained = event_log.backlog(conn).events
    hours = grid(t0 // step * step, t1 - 1, step)
    ts = event_store.read_events(store, t0, t1, ["ts"], [model_id])["ts"]
    place = (ts - t0 // step * step) // step
    return Activity(hours, np.bincount(place, minlength=len(hours)).astype(np.int64), undrained)
