"""What the demo's models in production score: three streams of events as a function of time, one of which drifts.

Time runs in steps, the demo's "hours"; 24 of them are its day, as the monitoring rule counts. The story begins with the
scoring app: a quarter of a day is quiet, then fraud gets a new kind of customer, few at first, many from the third day
on, and after a day of that they are gone. Later another model falls silent for two days. Then it begins again.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

STEP_SECONDS = 5  # the demo's monitor_step: a day of the rule is two minutes
DAY_STEPS = 24
HISTORY_STEPS = 28 * DAY_STEPS  # four weeks, what the rule compares with: 56 minutes
STORY_STEPS = 15 * DAY_STEPS  # half an hour, then it is told again
EVENTS_PER_STEP = 40  # of each model

FRAUD, ROUTER, CHURN = "demo-fraud-score", "demo-ticket-router", "demo-churn-score"
MODELS = (FRAUD, ROUTER, CHURN)

_FEW, _MANY = 0.2, 0.7  # share of new customers: PSI about 0.15 and 1.5
_FEW_FROM, _MANY_FROM, _GONE_FROM = DAY_STEPS // 4, 2 * DAY_STEPS, 3 * DAY_STEPS
_SILENT_FROM, _SILENT_UNTIL = 6 * DAY_STEPS, 8 * DAY_STEPS
_QUEUES = ("billing", "delivery", "returns", "login")
_MISSING = 0.04  # share of churn scores that are null, as they have always been


@dataclass(frozen=True)
class Scored:
    """One event, with the arguments that `sentinel_core.client` takes."""

    model_id: str
    event_time: datetime
    event_id: str
    score: float | None = None
    prediction: str | None = None


def scored(step: int, since: int) -> Iterator[Scored]:
    """The events of one step (unix seconds // STEP_SECONDS) of a story that began at step `since`.

    The same step gives the same event ids whenever it is asked for: what is sent again after a restart is known.
    """
    tale = (step - since) % STORY_STEPS if step >= since else 0  # the past is calm
    for model in MODELS:
        random = _random(model, step)
        moments = step * STEP_SECONDS + np.sort(random.uniform(0.0, STEP_SECONDS, EVENTS_PER_STEP))
        for number, (moment, values) in enumerate(zip(moments, _values(model, tale, random), strict=False)):
            yield Scored(model, datetime.fromtimestamp(moment, UTC), f"{step}-{number}", **values)


def new_customers(tale: int) -> float:
    """Share of them among fraud's events, so many steps into the story."""
    return 0.0 if not _FEW_FROM <= tale < _GONE_FROM else _FEW if tale < _MANY_FROM else _MANY


def _values(model: str, tale: int, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Score and prediction of each event of a step; none while the model is silent."""
    count = EVENTS_PER_STEP
    if model == FRAUD:
        new = random.random(count) < new_customers(tale)
        scores = np.where(new, random.beta(5.0, 4.0, count), random.beta(2.0, 9.0, count))
        yield from ({"score": float(one), "prediction": "review" if one > 0.25 else "approve"} for one in scores)
    elif model == ROUTER:
        yield from ({"prediction": _QUEUES[one]} for one in random.choice(4, count, p=(0.45, 0.3, 0.15, 0.1)))
    elif not _SILENT_FROM <= tale < _SILENT_UNTIL:
        scores, missing = random.beta(3.0, 3.0, count), random.random(count) < _MISSING
        yield from ({"score": None if gone else float(one)} for one, gone in zip(scores, missing, strict=True))


def _random(model: str, step: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{model}:{step}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
