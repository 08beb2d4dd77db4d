"""How a watch is doing, in words: for the page's cards and its one-line summary."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sentinel_core.emitter.snapshot import WatchView

LATE_STEPS = 3  # a watch that missed this many ticks is late


@dataclass(frozen=True)
class Condition:
    """How a watch is doing: `kind` is a class of the style sheet, a lower rank is worse."""

    rank: int
    kind: str
    icon: str
    name: str
    text: str


FAILING = Condition(0, "bad", "✕", "failing", "The last attempt failed")
UNREADABLE = Condition(1, "bad", "✕", "unreadable", "Its newest forecasts cannot be read; older ones are shown")
DRIFTED = Condition(2, "bad", "▲", "drifted", "Forecasts are far off; a retraining is due")
LATE = Condition(3, "warn", "◷", "late", "Its forecasts are not up to date; the runs of `tick` in Dagster say why")
DRIFTING = Condition(4, "warn", "△", "drifting", "Forecasts are getting worse; a finetuning is due")
WAITING = Condition(5, "wait", "○", "waiting", "Waiting for its first forecast")
FORECASTING = Condition(6, "good", "●", "forecasting", "Forecasting")


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
    """The state of the whole product in one line.

    >>> sentence([], 0.0)
    'Nothing is watched yet'
    """
    if not watches:
        return "Nothing is watched yet"
    conditions = sorted((condition(watch, now) for watch in watches), key=lambda one: one.rank)
    counts = Counter(one.name for one in conditions)  # in the order of its keys: worst first
    series = sum(watch.state.series_live for watch in watches)
    if len(counts) == 1:
        state = ("all " if len(watches) > 1 else "") + conditions[0].name
    else:
        state = ", ".join(f"{count}\N{NO-BREAK SPACE}{name}" for name, count in counts.items())
    fresh = [watch.state.fresh_at for watch in watches if watch.forecasts and watch.state.fresh_at]
    newest = f"; newest forecast {age(now - max(fresh))} ago" if fresh else ""
    return f"{plural(len(watches), 'watch', 'watches')}, {plural(series, 'series', 'series')}: {state}{newest}"


def plural(count: int, one: str, many: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "watch", "watches"), plural(1000, "watch", "watches")
    ('1 watch', '1,000 watches')
    """
    return f"{count:,} {one if count == 1 else many}"


def age(seconds: float) -> str:
    """How long ago, in one unit.

    >>> [age(seconds) for seconds in (0.4, 12, 200, 7300, 400000)]
    ['0 s', '12 s', '3 min', '2 h', '4 d']
    """
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 60 and seconds >= 90):
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 1:.0f} s"
