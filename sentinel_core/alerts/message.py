"""What an alert says: what happened, how serious it is, why, and what happens next. Shared with the pages.

The assessments it reads, as JSON in `incidents.assessment`:

- psi: monitoring.Assessment
- silence: {"last_event_at": unix seconds, "expected": events at the same time of the week before, "hours": of silence}
- forecast: {"mae": of the worst series, "threshold": for high, "unit": "mae" | "scaled", "series_high": series with
  high drift, "series": with a verdict, "retrained_at": unix seconds, "worst": the worst series' text}
"""


def headline(kind: str, subject: str, assessment: str) -> str:
    """One plain sentence on what happened.

    "fraud-model: the distribution of scores has moved: PSI 0.31, normal up to 0.04"
    """
    raise NotImplementedError


def what_next(kind: str, state: str, acknowledged_by: str | None = None) -> str:
    """One plain sentence on what happens next to an incident in a state."""
    raise NotImplementedError
