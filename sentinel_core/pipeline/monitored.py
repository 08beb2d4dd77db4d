"""What people and other programs ask about models in production; the JSON API, the pages and /metrics read it here.

Nothing here checks who asks: pass `project_id` wherever the answer must be one project's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sentinel_core.config import MonitorConfig, SentinelConfig
from sentinel_core.monitoring.assessment import Assessment
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray


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
    psi: FloatArray
    adjusted: FloatArray
    lower: FloatArray
    upper: FloatArray
    floor: FloatArray
    limit: FloatArray  # upper end of the normal range of psi
    p: FloatArray
    n_baseline: FloatArray
    n_current: FloatArray
    baseline: IntArray  # version
    days: IntArray
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
    raise NotImplementedError


def model(conn: sa.Connection, config: SentinelConfig, project_id: int | None, model_id: int) -> ModelView | None:
    """Return one model; None where there is none or where it is another project's."""
    raise NotImplementedError


def baselines(conn: sa.Connection, model_id: int) -> list[BaselineRow]:
    """Return every baseline version that a model had, newest first."""
    raise NotImplementedError


def score_history(store: Store, config: SentinelConfig, model_id: int, t0: int, t1: int) -> list[OutputHistory]:
    """Return the evaluations of hours that end in [t0, t1], one history per output that was monitored."""
    raise NotImplementedError


def distributions(
    store: Store, config: SentinelConfig, model_id: int, hour: int | None = None
) -> list[OutputDistribution]:
    """Return what the evaluation of an hour (its end; None: the newest) compares, per output; empty before the first."""
    raise NotImplementedError


def activity(store: Store, config: SentinelConfig, model_id: int, t0: int, t1: int) -> Activity:
    """Return how many events came for each hour of [t0, t1), by event time."""
    raise NotImplementedError
