"""A model over time: PSI, distributions and events by hour."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.models import Bin, ModelState, Output, find
from sentinel_core.apps.api.values import (
    Answer,
    Cursor,
    Id,
    Moment,
    MomentIn,
    Next,
    encode_cursor,
    finite,
    moment,
)
from sentinel_core.monitoring.assessment import OUTPUTS
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.monitored import OutputHistory

router = APIRouter(tags=["Models"])

DEFAULT_HOURS = 7 * 24

Start = Annotated[MomentIn | None, Query(description="None: a week of hours before the end")]
End = Annotated[MomentIn | None, Query(description="None: now")]
Hours = Annotated[int, Query(ge=1, le=1000, description="How many hours at most; one without anything has no item")]


class Score(Answer):
    """One output in one evaluation."""

    hour: Moment = Field(description="End of the evaluated hour")
    output: Output
    state: ModelState
    psi: float | None
    adjusted: float | None
    lower: float | None = Field(description="Of the 95 % interval of the true PSI")
    upper: float | None
    floor: float | None
    limit: float | None = Field(description="Upper end of the PSI's normal range")
    p: float | None
    n_baseline: float | None
    n_current: float | None
    baseline_version: int
    days: int


class Scores(Answer):
    """A page of the history, oldest first; a page may hold fewer items than hours, or none, and not be the last."""

    items: list[Score]
    next: Next


class Distribution(Answer):
    """The two distributions of one output that were compared."""

    output: Output
    n_baseline: float
    n_current: float
    bins: list[Bin]


class Distributions(Answer):
    """What one evaluation compared, per output; empty before the first."""

    items: list[Distribution]


class HourOfEvents(Answer):
    """Events of one hour, by their own time."""

    hour: Moment = Field(description="Its start")
    events: int


class Activity(Answer):
    """A page of hours, oldest first."""

    items: list[HourOfEvents]
    next: Next


def _span(call: Call, model_id: int, start: float | None, end: float | None, cursor: int | None) -> range:
    """Starts of the hours to show: within [start, end) and where the model has events; from the cursor on."""
    hour = call.services.config().hour_seconds
    model = find(call, model_id).model
    if model.first_event_at is None:
        return range(0)
    now = call.services.now()
    last = min(now if end is None else end, now)
    first = last - DEFAULT_HOURS * hour if start is None else start
    begin, finish = int(max(first, model.first_event_at) // hour) * hour, -int(-last // hour) * hour
    return range(begin if cursor is None else max(begin, cursor), finish, hour)


def _next(hours: range, limit: int) -> str | None:
    return encode_cursor(hours[limit]) if len(hours) > limit else None


@router.get("/models/{model_id}/drift", **needs("read"), summary="Read the PSI over time")
def read_drift(
    call: Caller,
    model_id: Id,
    start: Start = None,
    end: End = None,
    cursor: Cursor = None,
    limit: Hours = DEFAULT_HOURS,
) -> Scores:
    """Every evaluation between two times, an item per output."""
    hours = _span(call, model_id, start, end, cursor)
    shown = hours[:limit]
    if not shown:
        return Scores(items=[], next=None)
    # an hour's evaluation bears the time of its end
    first, last = shown[0] + hours.step, shown[-1] + hours.step
    found = monitored.score_history(call.services.store, call.services.config(), model_id, first, last)
    items = [_score(history, i) for history in found for i in range(len(history.hours))]
    items.sort(key=lambda item: item.hour)
    return Scores(items=items, next=_next(hours, limit))


def _score(history: OutputHistory, i: int) -> Score:
    return Score(
        hour=moment(int(history.hours[i])),
        output=OUTPUTS[history.output],  # type: ignore[arg-type]
        state=history.state[i],  # type: ignore[arg-type]
        baseline_version=int(history.baseline[i]),
        days=int(history.days[i]),
        **{name: finite(float(getattr(history, name)[i])) for name in _NUMBERS},
    )


_NUMBERS = ("psi", "adjusted", "lower", "upper", "floor", "limit", "p", "n_baseline", "n_current")


@router.get("/models/{model_id}/distributions", **needs("read"), summary="Read the distributions")
def read_distributions(
    call: Caller,
    model_id: Id,
    hour: Annotated[MomentIn | None, Query(description="End of an evaluated hour; none: the newest")] = None,
) -> Distributions:
    """What an evaluation compared: each bin's share of baseline and current window, and what it adds to the PSI."""
    find(call, model_id)
    step = call.services.config().hour_seconds
    at = None if hour is None else int(hour // step) * step
    found = monitored.distributions(call.services.store, call.services.config(), model_id, at)
    return Distributions(
        items=[
            Distribution(
                output=OUTPUTS[one.output],  # type: ignore[arg-type]
                n_baseline=one.n_baseline,
                n_current=one.n_current,
                bins=[
                    Bin(name=name, baseline=baseline, current=current, contribution=finite(contribution))
                    for name, baseline, current, contribution in zip(
                        one.bins, one.baseline, one.current, one.contributions, strict=True
                    )
                ],
            )
            for one in found
        ]
    )


@router.get("/models/{model_id}/activity", **needs("read"), summary="Read the events by hour")
def read_activity(
    call: Caller,
    model_id: Id,
    start: Start = None,
    end: End = None,
    cursor: Cursor = None,
    limit: Hours = DEFAULT_HOURS,
) -> Activity:
    """How many events came for each hour."""
    hours = _span(call, model_id, start, end, cursor)
    shown = hours[:limit]
    if not shown:
        return Activity(items=[], next=None)
    found = monitored.activity(call.services.store, call.services.config(), model_id, shown[0], shown[-1] + hours.step)
    pairs = zip(found.hours.tolist(), found.events.tolist(), strict=True)
    items = [HourOfEvents(hour=moment(at), events=events) for at, events in pairs]
    return Activity(items=items, next=_next(hours, limit))
