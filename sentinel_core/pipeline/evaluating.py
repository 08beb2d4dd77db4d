"""Every model is compared with its past once an hour; what that means for incidents commits with it."""

from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import EvaluationReport, MonitorPlan


def due(context: Context, now: float | None = None) -> MonitorPlan | None:
    """What there is to do: events to drain, complete hours to evaluate, late hours to make again; None for nothing."""
    raise NotImplementedError


def evaluate(
    context: Context, start: int | None = None, end: int | None = None, *, mode: str = "live"
) -> EvaluationReport:
    """Evaluate hours, oldest first; `start` and `end` are ends of hours, unix seconds, inclusive.

    mode="live": every complete hour that was not evaluated yet (at most 7 * 24 back, up to `end`), with what follows:
    states, incidents, alerts; and hours that late events touched are made again.
    mode="replay": the hours that end in [start, end] once more, over the baselines of then. Nothing but PSI is written.
    """
    raise NotImplementedError
