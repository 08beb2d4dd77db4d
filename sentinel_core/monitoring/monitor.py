"""The rule: current windows and their baselines out of blocks of counts, natural variation, and what state that is.

Time is cut into blocks that end at the end of the evaluated hour: age 0 is the newest, a block is as long as the
current window but at most a day. A window is a sum of blocks, so all subjects (one output of one model each) whose
blocks have the same length are assessed at once.

Nothing is remembered between evaluations: what is natural for a subject is learnt from the same blocks, by comparing
each day of the past with its own baseline. An hour can so be evaluated again, or replayed, and gives the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sentinel_core.monitoring import psi
from sentinel_core.monitoring.histograms import WIDTH
from sentinel_core.windows import FloatArray, IntArray

if TYPE_CHECKING:
    from sentinel_core.config import MonitorConfig

BoolArray = NDArray[np.bool_]

WEEK = 7  # days
WEEK_HOURS = WEEK * 24
HISTORY_DAYS = 42  # as long as counts are kept: the past from which a baseline and natural variation are taken
SURE = 1e-5  # noise alone brings a warning's PSI with at most this probability
# Natural variation mostly lies in one direction: the mean wanders. PSI is the square of a normal variable then, which
# exceeds its own mean eleven times on one of a thousand days. That mean is known from few days: it is taken one
# standard error higher. Where the mean wanders by 0.1 standard deviations, at 20 events an hour, this leaves 0.25 false
# incidents a year and finds a PSI of 0.25 within a day in 79 %; with 10 it is 0.46 and 81 %, with 12 it is 0.17 and
# 69 %. A test by chi-squared of B - 1 degrees alone has 1.4.
SELDOM = 11.0
# A window too small for the verdict that all is well is not grown where it is alarming as it is: the days before would
# dilute it. At weekends with a third of 20 events an hour that finds a PSI of 0.25 in time which it would not else.
ALARM_SHARE = 0.5  # of min_samples
# Before a subject has shown how its days differ, this PSI between two of the same weekday is natural. The belief weighs
# as much as so many days of evidence, and fades as they come: half of it after as many, a fifth after six weeks.
PRIOR_VARIATION, PRIOR_DAYS = 0.03, 10.0
# In the first week weekdays are unknown: a Saturday may differ from the days before by as much as two standard
# deviations' worth of PSI, and nothing tells that from drift.
UNKNOWN_WEEKDAYS = 2.0
SILENT_EVENTS = 20.0  # expected events whose absence is silence, not chance
YOUNG_SILENCE_DAYS = 3  # a silence as long as a weekend says nothing in the first week


class State(IntEnum):
    """What an evaluation found; the numbers are stored."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    INSUFFICIENT_DATA = 3  # too few events for a verdict
    NO_DATA = 4  # none at all in the current window


@dataclass(frozen=True)
class Settings:
    """MonitorConfig of each subject, as arrays [S]; the length of its blocks is the caller's, see `block_hours`."""

    current_days: IntArray  # 0: less than a day, one block
    max_days: IntArray
    same_weekday: BoolArray
    weeks: IntArray
    days: IntArray
    min_samples: FloatArray
    warn: FloatArray
    critical: FloatArray
    resolve: FloatArray

    @classmethod
    def of(cls, configs: Sequence["MonitorConfig"]) -> "Settings":
        """Stack the settings of subjects."""

        def integers(values: Iterator[int]) -> IntArray:
            return np.fromiter(values, np.int64, len(configs))

        def floats(values: Iterator[float]) -> FloatArray:
            return np.fromiter(values, np.float64, len(configs))

        return cls(
            current_days=integers(one.current_hours // 24 for one in configs),
            max_days=integers(one.max_current_days for one in configs),
            same_weekday=np.array([one.baseline == "same_weekday" for one in configs], bool),
            weeks=integers(one.baseline_weeks for one in configs),
            days=integers(one.baseline_days for one in configs),
            min_samples=floats(one.min_samples for one in configs),
            warn=floats(one.warn for one in configs),
            critical=floats(one.critical for one in configs),
            resolve=floats(one.resolve for one in configs),
        )


@dataclass(frozen=True)
class Frozen:
    """What F of the subjects are compared with instead of their past: a baseline pinned, or kept by an incident.

    rows:    int64 [F], which subjects
    profile: float64 [F, 168, W], see `profile`
    hours:   int64 [F], how much later the end of the evaluated hour is than that of the profile
    phi:     float64 [F]; NaN where it is learnt
    lasting: int64 [F], hours since the incident opened, -1 where there is none: its end is told by later events alone
    """

    rows: IntArray
    profile: FloatArray
    hours: IntArray
    phi: FloatArray
    lasting: IntArray


@dataclass(frozen=True)
class Verdicts:
    """One evaluation of S subjects, arrays [S] and [S, W]; without a verdict numbers are NaN, counts are not."""

    state: NDArray[np.int8]
    psi: FloatArray
    adjusted: FloatArray  # above what is natural on average; never negative
    lower: FloatArray  # 95 % interval of the true PSI
    upper: FloatArray
    floor: FloatArray  # what is natural on average
    limit: FloatArray  # upper end of the normal range: from here on psi is a warning
    p: FloatArray
    phi: FloatArray
    n_baseline: FloatArray
    n_current: FloatArray
    days: IntArray  # length of the current window; 0: less than a day
    calm: BoolArray  # low enough for an incident to resolve
    eased: BoolArray  # low enough for a critical incident to become a warning
    silent: BoolArray  # no events, where there used to be some at this time of the week
    baseline_counts: FloatArray
    current_counts: FloatArray

    @cached_property
    def contributions(self) -> FloatArray:
        """What each bin adds to the PSI [S, W]; 0 where a side is empty."""
        both = (self.n_baseline > 0) & (self.n_current > 0)
        return np.where(both[:, None], psi.contributions(self.baseline_counts, self.current_counts), 0.0)


def block_hours(config: "MonitorConfig") -> int:
    """Length of a block: the current window, but at most a day."""
    return min(24, config.current_hours)


def refit_due(history_days: IntArray, fitted_days: IntArray) -> BoolArray:
    """Whether new bins are due, where the history was `fitted_days` long when the present ones were made (0: none).

    A day of history makes the first ones; they are made again each time the history has doubled, and every four weeks
    from then on, because a distribution that wanders leaves its quantiles.
    """
    return (history_days >= 1) & (history_days >= fitted_days + np.minimum(fitted_days, 4 * WEEK))


def assess(
    blocks: FloatArray,
    per_day: int,
    history: IntArray,
    settings: Settings,
    frozen: Frozen | None = None,
    excluded: BoolArray | None = None,
) -> Verdicts:
    """Judge each subject's current window.

    blocks:   float64 [S, K, W], counts by age; K blocks of HISTORY_DAYS are looked at, fewer are fewer
    per_day:  blocks of a day
    history:  int64 [S], whole blocks since the subject's first event (or since a new normal was accepted)
    excluded: bool [S, K], blocks that share an hour with an incident: no baseline is made of them

    PSI at or above `limit` is a warning; the limit is the largest of
    - floor + warn, what the user asked for above what is natural on average;
    - what independent events reach with a probability of 1e-5, times phi;
    - floor + SELDOM times the variance along the direction in which days differ most;
    - floor + UNKNOWN_WEEKDAYS, where a same-weekday baseline has no week to go back to yet.

    A window with too few events grows by whole days; but one that has half of them and is alarming as it is does not.
    """
    filled = blocks.any(axis=(0, 1))
    if frozen is not None:
        filled |= (frozen.profile > 0).any(axis=(0, 1))
    used = int(np.flatnonzero(filled).max(initial=0)) + 1  # few models fill all columns
    past = _Past(blocks[:, :, :used], per_day, history, excluded)
    size = _sizes(past, settings)
    verdicts = _at_size(past, size, settings, frozen, blocks.shape[2])
    ungrown = np.maximum(settings.current_days * per_day, 1)
    enough = settings.min_samples * ALARM_SHARE
    early = (size > ungrown) & (past.events[np.arange(len(size)), np.minimum(ungrown, past.depth)] >= enough)
    if early.any():
        sooner = _at_size(
            past, np.where(early, ungrown, size), replace(settings, min_samples=enough), frozen, blocks.shape[2]
        )
        early &= (sooner.state == State.WARNING) | (sooner.state == State.CRITICAL)
        pairs = {one.name: (getattr(sooner, one.name), getattr(verdicts, one.name)) for one in fields(Verdicts)}
        verdicts = Verdicts(
            **{
                name: np.where(early[:, None] if new.ndim == 2 else early, new, old)
                for name, (new, old) in pairs.items()
            }
        )
    return verdicts


def _at_size(past: "_Past", size: IntArray, settings: Settings, frozen: Frozen | None, width: int) -> Verdicts:
    """The verdicts over current windows of `size` blocks."""
    per_day, (subjects, _, used) = past.per_day, past.total.shape
    found = _Found(np.zeros((subjects, used)), *np.zeros((3, subjects)))
    _compare(past, size, np.full(subjects, WEEK * per_day), settings.weeks, settings.same_weekday, found)
    young = settings.same_weekday & (found.baseline.sum(axis=1) == 0)
    step = np.maximum(size, per_day)
    wanted = np.maximum(np.where(young, WEEK, settings.days) * per_day // step, 1)
    _compare(past, size, step, wanted, ~settings.same_weekday | young, found)
    given_phi, lasting = np.full(subjects, np.nan), np.full(subjects, -1)
    if frozen is not None:
        given_phi[frozen.rows], lasting[frozen.rows], young[frozen.rows] = frozen.phi, frozen.lasting, False
        for row, counts, hours in zip(frozen.rows, frozen.profile[:, :, :used], frozen.hours, strict=True):
            found.baseline[row] = _at_hour(counts, int(hours), int(size[row]) * 24 // per_day)
    return _judge(past, size, settings, found, young, given_phi, lasting, width)


def profile(
    counts: FloatArray, history: IntArray, weeks: IntArray, skip: IntArray, excluded: BoolArray | None = None
) -> FloatArray:
    """Counts by hour of the week, [S, 168, W]: what a baseline is frozen as, so that Saturday night stays one.

    counts:   float64 [S, K, W] by hours of age, at most HISTORY_DAYS of them
    history:  int64 [S], whole hours since the subject's first event
    weeks:    int64 [S], how many are summed up for each hour of the week, the newest that are clean
    skip:     int64 [S], newest hours to leave out: the current window, where an incident opens
    excluded: bool [S, K], hours of incidents

    Phase 0 is the newest hour, phase 1 the one before it. NaN where the history has no such hour.
    """
    past = _Past(counts, 24, history, excluded)
    rows = np.arange(len(counts))
    use = past.clean(rows, 0, past.depth, 1) & (np.arange(past.depth) >= skip[:, None])
    result = np.full((len(counts), WEEK_HOURS, counts.shape[2]), np.nan)
    summed = np.zeros((len(counts), WEEK_HOURS), np.int64)
    for first in range(0, past.depth, WEEK_HOURS):
        count = min(WEEK_HOURS, past.depth - first)
        take = use[:, first : first + count] & (summed[:, :count] < weeks[:, None])
        before = np.where(summed[:, :count, None] > 0, result[:, :count], 0.0)
        result[:, :count] = np.where(take[:, :, None], before + counts[:, first : first + count], result[:, :count])
        summed[:, :count] += take
    return result


def _at_hour(profile: FloatArray, hours: int, size: int) -> FloatArray:
    """One subject's frozen baseline [W] for a window of `size` hours that ends `hours` hours after its profile.

    A profile that does not know the whole week is taken as one, whatever the hour.
    """
    if np.isnan(profile).any():
        return np.asarray(np.nansum(profile, axis=0))
    return np.asarray(profile[(np.arange(size) - hours) % WEEK_HOURS].sum(axis=0))


@dataclass(frozen=True)
class _Found:
    """What comparing windows of the past has found, filled row by row: [S, W], [S], …"""

    baseline: FloatArray
    ratio: FloatArray  # mean over past windows of PSI / what independent events bring on average
    spread: FloatArray  # its variance over them
    evidence: FloatArray  # days' worth of windows


class _Past:
    """Sums of consecutive blocks, by running totals."""

    def __init__(self, blocks: FloatArray, per_day: int, history: IntArray, excluded: BoolArray | None) -> None:
        self.per_day = per_day
        self.depth = min(blocks.shape[1], HISTORY_DAYS * per_day)
        self.history = np.minimum(history, self.depth)
        blocks = blocks[:, : self.depth]
        self.total = np.zeros((len(blocks), self.depth + 1, blocks.shape[2]))
        np.cumsum(blocks, axis=1, out=self.total[:, 1:])
        self.events = self.total.sum(axis=2)
        self.excluded = np.zeros((len(blocks), self.depth + 1), np.int32)
        if excluded is not None:
            np.cumsum(excluded[:, : self.depth], axis=1, out=self.excluded[:, 1:])

    def windows(self, rows: IntArray, first: int, count: int, size: int) -> FloatArray:
        """Sums of `size` blocks from ages first, first + 1, … [rows, count, W]."""
        total = self.total[rows]
        return total[:, first + size : first + size + count] - total[:, first : first + count]

    def clean(self, rows: IntArray, first: int, count: int, size: int) -> BoolArray:
        """Whether these windows lie in the history and hold nothing of an incident [rows, count]."""
        seen = self.excluded[rows]
        free = seen[:, first + size : first + size + count] == seen[:, first : first + count]
        return np.asarray(free & (np.arange(first, first + count) + size <= self.history[rows, None]))


def _sizes(past: _Past, settings: Settings) -> IntArray:
    """Blocks of each subject's current window: grown by whole days until it holds enough, or as long as it may be."""
    size = np.maximum(settings.current_days * past.per_day, 1)
    for days in range(1, int(settings.max_days.max(initial=1)) + 1):
        longer = days * past.per_day
        held = np.take_along_axis(past.events, np.minimum(size, past.depth)[:, None], axis=1)[:, 0]
        grow = (held < settings.min_samples) & (longer > size) & (days <= settings.max_days) & (longer <= past.history)
        size = np.where(grow, longer, size)
    return size


def _compare(past: _Past, size: IntArray, step: IntArray, wanted: IntArray, chosen: BoolArray, found: _Found) -> None:
    """Sum up baselines of the `chosen` subjects: `wanted` windows `step` blocks apart, the newest that are clean.

    The same is done for each window of the past, which tells what is natural.
    """
    keys = np.stack([size, step, wanted], axis=1)
    for key in np.unique(keys[chosen], axis=0):
        length, apart, most = (int(one) for one in key)
        rows = np.flatnonzero(chosen & (keys == key).all(axis=1))
        count = past.depth - apart - length + 1  # windows that have room for a baseline of one
        if count < 1:
            continue
        current = past.windows(rows, 0, count, length)
        baseline = np.zeros_like(current)
        summed = np.zeros(baseline.shape[:2], np.int64)
        for first in range(apart, past.depth - length + 1, apart):
            have = min(count, past.depth - length + 1 - first)
            use = past.clean(rows, first, have, length) & (summed[:, :have] < most)
            baseline[:, :have] += np.where(use[:, :, None], past.windows(rows, first, have, length), 0.0)
            summed[:, :have] += use
            if (summed >= most).all():
                break
        found.baseline[rows] = baseline[:, 0]
        natural = past.clean(rows, 0, count, length) & (summed > 0)
        natural[:, :1] = False  # the window under judgement
        expected = _expected(baseline, current)
        natural &= expected > 0
        ratio = psi.psi(baseline, current) / np.where(natural, expected, 1.0)
        windows = natural.sum(axis=1)
        mean = np.where(natural, ratio, 0.0).sum(axis=1) / np.maximum(windows, 1)
        found.ratio[rows] = mean
        found.spread[rows] = np.where(natural, (ratio - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(windows, 1)
        found.evidence[rows] = windows / max(length, past.per_day)


def _expected(baseline: FloatArray, current: FloatArray) -> FloatArray:
    """The PSI that independent events bring on average; 0 where there is nothing to compare."""
    n, m = baseline.sum(axis=-1), current.sum(axis=-1)
    with np.errstate(divide="ignore"):
        noise = 1 / n + 1 / m
    return np.where((n > 0) & (m > 0), psi.degrees(baseline, current) * np.where(np.isinf(noise), 0.0, noise), 0.0)


def _judge(
    past: _Past,
    size: IntArray,
    settings: Settings,
    found: _Found,
    young: BoolArray,
    given_phi: FloatArray,
    lasting: IntArray,
    width: int,
) -> Verdicts:
    rows = np.arange(len(size))
    current = past.total[rows, np.minimum(size, past.depth)]
    baseline = found.baseline
    n, m = baseline.sum(axis=1), current.sum(axis=1)
    newest = past.events[rows, np.minimum(np.maximum(settings.current_days * past.per_day, 1), past.depth)]
    judged = (newest > 0) & (n >= settings.min_samples) & (m >= settings.min_samples)
    value, freedom, noise = psi.psi(baseline, current), psi.degrees(baseline, current), _expected(baseline, current)
    with np.errstate(divide="ignore", invalid="ignore"):
        prior = 1 + np.where(noise > 0, PRIOR_VARIATION / noise, 0.0)
        scale = np.where(judged, 1 / n + 1 / m, 0.0)
        least = 2 / np.maximum(freedom, 1)  # what chi-squared varies by
    weight = PRIOR_DAYS**2 / (PRIOR_DAYS + found.evidence)
    days = weight + found.evidence
    phi = np.maximum((weight * prior + found.evidence * found.ratio) / days, 1.0)
    unsure = np.where(np.isnan(given_phi), np.sqrt(np.maximum(found.spread, least) / days), 0.0)
    phi = np.where(np.isnan(given_phi), phi, given_phi)
    floor = noise * phi
    wander = scale + noise * (phi + unsure - 1)  # mean square along the direction in which days differ, at worst
    scale = scale * phi
    limit = np.maximum.reduce(
        [
            floor + settings.warn,
            scale * _QUANTILE[freedom.astype(np.int64)],
            floor + SELDOM * wander,
            np.where(young, floor + UNKNOWN_WEEKDAYS, 0.0),
        ]
    )
    lower, upper = psi.interval(value, scale, freedom)
    adjusted = np.maximum(value - floor, 0.0)
    warning = judged & (value >= limit)
    surely = (np.sqrt(adjusted) + 2 * np.sqrt(wander)) ** 2 < np.maximum(settings.warn, SELDOM / 2 * wander)
    # Days of before an incident in a window that has grown would dilute what it is about.
    fresh = (lasting < 0) | (size * 24 // past.per_day <= lasting)
    state = np.where(warning, np.where(adjusted >= settings.critical, State.CRITICAL, State.WARNING), State.OK)
    state = np.where(judged, state, State.INSUFFICIENT_DATA)
    state = np.where(newest > 0, state, State.NO_DATA)

    def known(values: FloatArray) -> FloatArray:
        return np.where(judged, values, np.nan)

    return Verdicts(
        state=state.astype(np.int8),
        psi=known(value),
        adjusted=known(adjusted),
        lower=known(lower),
        upper=known(upper),
        floor=known(floor),
        limit=known(limit),
        p=known(psi.p_value(np.divide(value, scale, out=np.zeros_like(value), where=scale > 0), freedom)),
        phi=known(phi),
        n_baseline=n,
        n_current=m,
        days=size // past.per_day,
        calm=judged & (adjusted < settings.resolve) & surely & fresh,
        eased=judged & (adjusted < settings.critical * settings.resolve / settings.warn),
        silent=_silent(past, settings),
        baseline_counts=np.pad(baseline, ((0, 0), (0, width - baseline.shape[1]))),
        current_counts=np.pad(current, ((0, 0), (0, width - current.shape[1]))),
    )


def _silent(past: _Past, settings: Settings) -> BoolArray:
    """No events in the current window, where chance would not explain it."""
    rows = np.arange(len(past.events))
    size = np.maximum(settings.current_days * past.per_day, 1)

    def held(first: IntArray | int, length: IntArray | int) -> FloatArray:
        end = np.minimum(first + length, past.depth)
        return np.asarray(past.events[rows, end] - past.events[rows, np.minimum(first, past.depth)])

    weeks, total, least = np.zeros(len(rows)), np.zeros(len(rows)), np.full(len(rows), np.inf)
    for week in range(1, HISTORY_DAYS // WEEK):
        first = week * WEEK * past.per_day
        known = (first + size <= past.history) & (week <= settings.weeks)
        weeks += known
        total += np.where(known, held(first, size), 0.0)
        least = np.where(known, np.minimum(least, held(first, size)), least)
    usual = (least > 0) & (total >= SILENT_EVENTS * weeks)
    quiet = np.maximum(size, YOUNG_SILENCE_DAYS * past.per_day)
    before = np.maximum(past.history - quiet, 1)
    busy = held(quiet, before) * size >= SILENT_EVENTS * before
    return np.asarray((held(0, size) == 0) & np.where(weeks > 0, usual, (held(0, quiet) == 0) & busy))


def _quantiles() -> FloatArray:
    """Where chi-squared with 0, 1, … degrees of freedom has a tail of SURE, by bisection."""
    degrees = np.arange(WIDTH, dtype=float)
    low, high = np.zeros(WIDTH), np.full(WIDTH, 1000.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = psi.p_value(middle, degrees) > SURE
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(degrees > 0, high, 0.0)


_QUANTILE = _quantiles()
