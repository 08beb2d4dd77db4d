"""What the seasonal ridge sees of a series: recent averages, and what the same hour, day and week brought before.

Every column is a distance from the newest value or from the daily profile, so that a coefficient is a share to believe.
A profile is read as it was before the column it is compared with: one that had seen it would look better than it is.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from sentinel_core import calendars
from sentinel_core.features import DAY_SECONDS
from sentinel_core.models.seasonal_ridge_averages import Numbers, averages, carry, delayed, moving_mean, newest_averages
from sentinel_core.windows import IntArray

HOUR_SECONDS, WEEK_SECONDS = 3_600, 7 * DAY_SECONDS
MOST_SLOTS = 288  # of a day; finer ones only learn noise
WEEK_SLOTS = 48  # of a day in the weekly profile
STEP = np.float32(0.15)  # of the profile towards a slot's newest value, once it has seen six
WEEK_STEP = np.float32(0.3)
CLIP = 3.0  # a visit counts as no farther from its slot's profile than this, in mean distances from the median
MEMORIES = (2, 5, 12, 36, 144)  # of the averages, in steps
SMOOTH_SECONDS = 1_800  # the smooth profile is a mean of this much on either side
HOURS_REMEMBERED = 12
HOUR_CLIP = 4.0  # mean distances from the hour's mean
MOST_HOUR_STEPS = 60

OWN = (
    "one",
    *(f"mean_{memory}" for memory in MEMORIES),
    "median_3",
    "before",
    "middle",
    "smooth_slot",
    "short_deviation",
    "long_deviation",
    "week_slot",
    "last_day",
    "last_week",
    "hour_slot",
)
TARGET = ("target_slot", "target_smooth_slot", "target_week_slot", "target_last_day", "target_last_week", "target_hour")
NAMES = (*OWN, *TARGET)


@dataclass(frozen=True)
class Calendar:
    """The cycles of a grid: its season (the day, or the week where steps are too long), the week and the hour.

    >>> Calendar(300).season_steps, Calendar(300).hour_steps, Calendar(86_400).season_steps
    (288, 12, 7)
    """

    step_seconds: int
    holidays: str | None = None  # of which place
    timezone: str = "UTC"
    season_seconds: int = field(init=False)
    season_slots: int = field(init=False)
    week_slots: int = field(init=False)

    def __post_init__(self) -> None:
        season = DAY_SECONDS if 2 * self.step_seconds <= DAY_SECONDS else WEEK_SECONDS
        object.__setattr__(self, "season_seconds", season)
        object.__setattr__(self, "season_slots", max(1, min(MOST_SLOTS, season // self.step_seconds)))
        by_week = min(7 * WEEK_SLOTS, WEEK_SECONDS // self.step_seconds) if season == DAY_SECONDS else 1
        object.__setattr__(self, "week_slots", by_week)

    @property
    def season_steps(self) -> int:
        return max(1, self.season_seconds // self.step_seconds)

    @property
    def week_steps(self) -> int:
        return max(1, WEEK_SECONDS // self.step_seconds)

    @property
    def hour_steps(self) -> int:
        """Steps of an hour, 0 where it has no pattern of its own on this grid."""
        steps = HOUR_SECONDS // self.step_seconds
        return steps if HOUR_SECONDS % self.step_seconds == 0 and 3 <= steps <= MOST_HOUR_STEPS else 0

    def as_usual(self, times: IntArray) -> IntArray:
        """Days to add to ascending times [T] so that each day of the week is like its others: holidays are Sundays."""
        days = np.zeros(len(times), np.int64)
        if self.holidays is not None and len(times):
            reach = times[0] - DAY_SECONDS, times[-1] + DAY_SECONDS  # a year begins on another day elsewhere
            first, last = (datetime.fromtimestamp(int(time), UTC).year for time in reach)
            for year in range(first, last + 1):
                for start, end, later in calendars.holidays(self.holidays, self.timezone, year):
                    days[slice(*np.searchsorted(times, [start, end + 1]))] = later
        return days

    @property
    def context_steps(self) -> int:
        """How many columns the averages and the pattern of the hour want to see."""
        return max(3 * MEMORIES[-1], 2 * HOURS_REMEMBERED * self.hour_steps)


def start(n: int, calendar: Calendar) -> dict[str, NDArray[np.float32]]:
    """Profiles that have seen nothing: now and before the newest visit, [n, 2, slots], and visits [n, slots]."""
    empty = {}
    for key, slots in (("season", calendar.season_slots), ("week", calendar.week_slots)):
        empty[f"{key}_now"] = np.full((n, 2, slots), np.nan, np.float32)
        empty[f"{key}_before"] = np.full((n, 2, slots), np.nan, np.float32)
        empty[f"{key}_visits"] = np.zeros((n, slots), np.float32)
    return empty


@dataclass(frozen=True)
class Columns:
    """The features of every column of a window and of some columns after it.

    own:    [n, len(OWN), T] of origins, or [n, len(OWN), 1] of the newest one
    level:  [n, T] the newest value at each origin, in units of scale
    season: (profile, smooth profile) [n, T + ahead], 0 where not known
    known:  [n, T + ahead] where the profile is known
    others: (week profile, last day, last week) less the smooth profile, and the hour's pattern, [n, T + ahead]
    """

    calendar: Calendar
    own: Numbers
    level: Numbers
    season: tuple[Numbers, Numbers]
    known: NDArray[np.bool_]
    others: tuple[Numbers, Numbers, Numbers]
    hour: Numbers

    def aim(self, origins: IntArray, leads: IntArray | int, level: Numbers, out: Numbers) -> NDArray[np.bool_]:
        """Write the features that depend on the lead to `out` [n, len(TARGET), k], for k pairs of origin and lead.

        level: [n, k] at the origins. Returns where the target's profile was known, [n, k].
        """
        calendar = self.calendar
        by_season = as_slice(origins + _within(leads, calendar.season_steps))
        by_week = as_slice(origins + _within(leads, calendar.week_steps))
        known = self.known[:, by_season]
        for k, profile in enumerate(self.season):
            np.multiply(profile[:, by_season] - level, known, out=out[:, k])
        out[:, 2] = self.others[0][:, by_week]
        out[:, 3] = self.others[1][:, by_season]
        out[:, 4] = self.others[2][:, by_week]
        out[:, 5] = self.hour[:, origins + _within(leads, calendar.hour_steps)] if calendar.hour_steps else 0.0
        return known


def _within(leads: IntArray | int, period: int) -> IntArray | int:
    """The lead, less whole periods until it is within one: what was known of that slot at the origin."""
    return (leads - 1) % period + 1


def columns(
    z: Numbers,
    timestamps: IntArray,
    ahead: int,
    calendar: Calendar,
    profiles: dict[str, NDArray[np.float32]],
    learnt_until: IntArray,
    *,
    newest: bool = False,
) -> tuple[Columns, dict[str, NDArray[np.float32]]]:
    """Features of z [n, T] (NaN in gaps) and of `ahead` columns after it, and the profiles when they have seen it all.

    learnt_until: [n], columns up to this time are known to the profiles already
    newest:       the newest column is the only origin
    """
    n, samples = z.shape
    step = calendar.step_seconds
    first = timestamps[0] if len(timestamps) else 0
    times = first + step * np.arange(samples + ahead, dtype=np.int64)
    season, week, after = _read_profiles(z, times, calendar, profiles, learnt_until)
    reach = max(1, SMOOTH_SECONDS // step) if calendar.season_slots > 47 else 1
    profile, smooth = season[0], moving_mean(season[0], reach)
    known = np.isfinite(profile) & np.isfinite(smooth)
    profile, smooth = np.where(known, profile, np.float32(0)), np.where(known, smooth, np.float32(0))
    week_reach = calendar.season_steps // WEEK_SLOTS
    last_day = _less(season[1], smooth, known)
    smooth_week = moving_mean(week.reshape(2 * n, len(times)), week_reach).reshape(week.shape)
    by_week, last_week = (_less(part, smooth, known) for part in smooth_week)

    level = carry(z)
    seen = known[:, :samples]
    deviation = np.where(seen, level - smooth[:, :samples], np.float32(0))
    memories = max(2, calendar.season_steps // 24), max(3, calendar.season_steps // 3)
    hour = _hour_pattern(level, ahead, calendar.hour_steps)
    at = slice(samples - 1 if newest else 0, samples)
    mean = newest_averages if newest else averages
    now, one, two = (part[:, at] for part in (level, delayed(level, 1), delayed(level, 2)))
    own = np.empty((n, len(OWN), now.shape[1]), z.dtype)
    own[:, 0] = 1.0
    end = 1 + len(MEMORIES)
    own[:, 1:end] = mean(level, MEMORIES) - now[:, None]
    own[:, end] = np.maximum(np.minimum(now, one), np.minimum(np.maximum(now, one), two)) - now
    own[:, end + 1] = one - now
    own[:, end + 2] = -now  # the median, about which z is centred
    own[:, end + 3] = -deviation[:, at]
    own[:, end + 4 : end + 6] = mean(deviation, [min(m, MEMORIES[-1]) for m in memories])
    own[:, end + 6] = by_week[:, at]
    own[:, end + 7] = last_day[:, at]
    own[:, end + 8] = last_week[:, at]
    own[:, end + 9] = hour[:, at]
    found = Columns(calendar, own, level, (profile, smooth), known, (by_week, last_day, last_week), hour)
    return found, after


def _read_profiles(
    z: Numbers,
    times: IntArray,
    calendar: Calendar,
    profiles: dict[str, NDArray[np.float32]],
    learnt_until: IntArray,
) -> tuple[Numbers, Numbers, dict[str, NDArray[np.float32]]]:
    """Season and week as they were before each column, [2, n, columns] each, and the profiles after the last one."""
    read: list[Numbers] = []
    after: dict[str, Numbers] = {}
    later = calendar.as_usual(times)
    for key, seconds, slots, steps in (
        ("season", calendar.season_seconds, calendar.season_slots, STEP),
        ("week", WEEK_SECONDS, calendar.week_slots, WEEK_STEP),
    ):
        state = [profiles[f"{key}_{part}"] for part in ("now", "before", "visits")]
        if slots < 2:
            read.append(np.full((2, len(z), len(times)), np.nan, np.float32))
        else:
            days = later if seconds == WEEK_SECONDS else np.zeros_like(later)
            found, state = _learn(z, times, days, seconds, slots, steps, state, learnt_until)
            read.append(found)
        after |= {f"{key}_{part}": value for part, value in zip(("now", "before", "visits"), state, strict=True)}
    return read[0], read[1], after


def _learn(
    z: Numbers,
    times: IntArray,
    days: IntArray,
    seconds: int,
    slots: int,
    steps: np.float32,
    state: list[NDArray[np.float32]],
    learnt_until: IntArray,
) -> tuple[Numbers, list[NDArray[np.float32]]]:
    """One cycle after the other: what each slot was before, then what it is when the cycle is over.

    days: [columns], how many later a column's slot is than its time says; where that changes, a cycle is over
    """
    now, before, visits = (part.copy() for part in state)
    samples = z.shape[1]
    moved = times + DAY_SECONDS * days
    slot = moved % seconds * slots // seconds
    cycle = moved // seconds
    out = np.empty((2, len(z), len(times)), np.float32)
    fresh = int(np.searchsorted(times, learnt_until.min(), side="right")) if len(learnt_until) else 0
    for k in range(2):
        out[k, :, :fresh] = before[:, k, slot[:fresh]]
    edges = np.flatnonzero(np.diff(cycle[fresh:], prepend=-1) | np.diff(days[fresh:], prepend=0)) + fresh
    for start, end in zip(edges, np.append(edges, len(times))[1:], strict=True):
        read = as_slice(slot[start:end])
        for k in range(2):
            out[k, :, start:end] = now[:, k, read]
        old = times[start:end] <= learnt_until[:, None]
        some_old = bool(old.any())
        if some_old:
            for k in range(2):
                out[k, :, start:end] = np.where(old, before[:, k, read], out[k, :, start:end])
        end = min(end, samples)
        if end <= start:
            continue
        part = z[:, start:end]
        finite = np.isfinite(part)
        if some_old:
            finite &= ~old[:, : end - start]
        within = slot[start:end]
        starts = np.flatnonzero(np.diff(within, prepend=-1))
        at = as_slice(within[starts])
        value: Numbers = np.where(finite, part, np.float32(0)).astype(np.float32, copy=False)
        if len(starts) < end - start:
            count = np.add.reduceat(finite.astype(np.float32), starts, axis=1)
            value = np.add.reduceat(value, starts, axis=1) / np.maximum(count, np.float32(1))
            finite = count > 0
        if not finite.any():
            continue
        profile, newest = now[:, 0, at].copy(), now[:, 1, at].copy()
        seen = visits[:, at] + finite
        visits[:, at] = seen
        share = np.maximum(1 / np.maximum(seen, np.float32(1)), steps)
        moved = profile + share * np.clip(value - profile, -CLIP, CLIP)
        learnt: Numbers = np.where(np.isnan(profile), value, moved)
        whole = bool(finite.all())
        for k, (was, is_now) in enumerate(((profile, learnt), (newest, value))):
            before[:, k, at] = was if whole else np.where(finite, was, before[:, k, at])
            now[:, k, at] = is_now if whole else np.where(finite, is_now, was)
    return out, [now, before, visits]


def as_slice(index: IntArray) -> IntArray | slice:
    """The same positions as a slice where they are consecutive, which is read and written faster."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (len(index) < 3 or bool((np.diff(index) == 1).all())):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _less(values: Numbers, smooth: Numbers, known: NDArray[np.bool_]) -> Numbers:
    """values - smooth, 0 where either is unknown."""
    return np.where(known & np.isfinite(values), values - smooth, np.float32(0))


def _hour_pattern(level: Numbers, ahead: int, hour_steps: int) -> Numbers:
    """What the same step of the hours before was above their mean [n, T + ahead]; hours end with the window."""
    n, samples = level.shape
    if not hour_steps or samples < 2 * hour_steps:
        return np.zeros((n, samples + ahead), np.float32)
    hours = -(-samples // hour_steps)
    missing = hours * hour_steps - samples
    padded = np.concatenate([np.repeat(level[:, :1], missing, axis=1), level], axis=1).reshape(n, hours, hour_steps)
    above = padded - padded.mean(axis=2, keepdims=True)
    limit = HOUR_CLIP * np.abs(above).mean(axis=(1, 2), keepdims=True)
    above = np.clip(above, -limit, limit).transpose(0, 2, 1).reshape(n * hour_steps, hours)
    mean = averages(np.ascontiguousarray(above), [HOURS_REMEMBERED])[:, 0].reshape(n, hour_steps, hours)
    more = -(-ahead // hour_steps)
    pattern = np.zeros((n, hours + max(1, more), hour_steps), level.dtype)
    pattern[:, 1 : hours + 1] = mean.transpose(0, 2, 1)
    pattern[:, hours + 1 :] = pattern[:, hours : hours + 1]
    read: Numbers = pattern.reshape(n, pattern.shape[1] * hour_steps)[:, missing : missing + samples + ahead]
    return read
