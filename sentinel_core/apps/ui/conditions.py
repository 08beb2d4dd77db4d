"""How a watch or a model is doing, in words: for the overview's rows, its one-line summary and the pages' headings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sentinel_core.apps.ui.words import age, plural
from sentinel_core.emitter.snapshot import WatchView

LATE_STEPS = 3  # a watch that missed this many ticks is late


@dataclass(frozen=True)
class Condition:
    """How a watch or a model is doing: `kind` is a class of the style sheet, a lower rank is worse.

    icon: a name in icons.html
    """

    rank: int
    kind: str
    icon: str
    name: str
    text: str


FAILING = Condition(1, "bad", "cross", "failing", "The last attempt failed")
UNREADABLE = Condition(2, "bad", "cross", "unreadable", "Its newest forecasts cannot be read; older ones are shown")
DRIFTED = Condition(3, "bad", "octagon", "drifted", "Forecasts are far off; a retraining is due")
LATE = Condition(6, "warn", "clock", "late", "Its forecasts are not up to date; the runs of `tick` in Dagster say why")
DRIFTING = Condition(7, "warn", "triangle", "drifting", "Forecasts are getting worse; a finetuning is due")
WAITING = Condition(9, "wait", "dots", "waiting", "Waiting for its first forecast")
FORECASTING = Condition(10, "good", "check", "forecasting", "Forecasting")

UNASSESSED = Condition(9, "wait", "dots", "waiting", "Its first evaluation comes with the next full hour")
OFF = Condition(11, "wait", "pause", "not monitored", "Its events are recorded; nobody is told when they change")
OF_MODELS = {
    "critical": Condition(0, "bad", "octagon", "critical", "Its outputs have changed far beyond what chance brings"),
    "warning": Condition(4, "warn", "triangle", "warning", "Its outputs have changed beyond what chance brings"),
    "no_data": Condition(5, "warn", "silence", "silent", "No events came in its current window"),
    "insufficient_data": Condition(8, "wait", "dots", "too few events", "Too few events yet for a verdict"),
    "ok": Condition(10, "good", "check", "ok", "Its outputs look like their baseline"),
}


def of_model(enabled: bool, state: str | None) -> Condition:
    """How a model is doing by its newest evaluation (None: it has none).

    >>> of_model(True, "critical").kind, of_model(False, "critical").name, of_model(True, None).name
    ('bad', 'not monitored', 'waiting')
    """
    if not enabled:
        return OFF
    return UNASSESSED if state is None else OF_MODELS[state]


def condition(watch: WatchView, now: float) -> Condition:
    """The worst thing that can be said of a watch at `now`."""
    state, fresh_at = watch.state, watch.state.fresh_at
    if state.last_error and (fresh_at is None or (state.last_error_at or 0) >= fresh_at):
        return FAILING
    if watch.unreadable:
        return UNREADABLE
    if state.severity == "high":
        return DRIFTED
    if fresh_at is not None and now - fresh_at > max(60, LATE_STEPS * watch.config.step_seconds):
        return LATE
    if not watch.forecasts:
        return waiting(watch)
    return DRIFTING if state.severity == "low" else FORECASTING


def waiting(watch: WatchView) -> Condition:
    """Why a healthy watch has no forecast yet."""
    fill = watch.state.buffer_fill
    if watch.state.last_tick_at is None:
        text = "Waiting for its first tick"
    elif fill < 1:
        text = f"Collecting samples: {fill:.0%} of the lookback is there"
    elif watch.serving is None:
        text = "Waiting for its first model to be trained"
    else:
        text = "Its model is trained; the first forecast comes with the next tick"
    return replace(WAITING, text=text)


def sentence(watches: Sequence[WatchView], now: float) -> str:
    """The state of all watches in one line.

    >>> sentence([], 0.0)
    'Nothing is watched yet'
    """
    if not watches:
        return "Nothing is watched yet"
    series = sum(watch.state.series_live for watch in watches)
    fresh = [watch.state.fresh_at for watch in watches if watch.forecasts and watch.state.fresh_at]
    newest = f"; newest forecast {age(now - max(fresh))} ago" if fresh else ""
    counted = f"{plural(len(watches), 'watch', 'watches')}, {plural(series, 'series', 'series')}"
    return f"{counted}: {counts([condition(watch, now) for watch in watches])}{newest}"


def counts(conditions: Sequence[Condition]) -> str:
    """How many are how, worst first.

    >>> counts([OFF, OF_MODELS["ok"], OF_MODELS["ok"]]), counts([OFF, OFF]), counts([OFF])
    ('2\\xa0ok, 1\\xa0not monitored', 'all not monitored', 'not monitored')
    """
    counted = Counter(one.name for one in sorted(conditions, key=lambda one: one.rank))  # keys in order: worst first
    if len(counted) == 1:
        return ("all " if len(conditions) > 1 else "") + next(iter(counted))
    return ", ".join(f"{count}\N{NO-BREAK SPACE}{name}" for name, count in counted.items())
