"""The rule: current windows and their baselines out of blocks of counts, natural variation, and what state that is.

Time is cut into blocks that end at the end of the evaluated hour: age 0 is the newest, a block is as long as the current
window but at most a day. A window is a sum of blocks, so all subjects (one output of one model each) whose blocks have
the same length are assessed at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

if TYPE_CHECKING:
    from sentinel_core.config import MonitorConfig

WEEK = 7  # days


class State(IntEnum):
    """What an evaluation found; the numbers are stored."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    INSUFFICIENT_DATA = 3  # too few events for a verdict
    NO_DATA = 4  # none at all in the current window


@dataclass(frozen=True)
class Settings:
    """MonitorConfig of each subject, as arrays [S]; block lengths are the caller's business (see `block_hours`)."""

    current_days: IntArray  # 0: less than a day, one block
    max_days: IntArray
    same_weekday: NDArray[np.bool_]
    weeks: IntArray
    days: IntArray
    min_samples: FloatArray
    warn: FloatArray
    critical: FloatArray
    resolve: FloatArray

    @classmethod
    def of(cls, configs: Sequence["MonitorConfig"]) -> "Settings":
        """Stack the settings of subjects."""
        raise NotImplementedError


@dataclass(frozen=True)
class Frozen:
    """What a subject is compared with instead of its past: a pinned baseline, or what it was when an incident opened.

    counts: float64 [S, W], NaN in the rows of subjects with a sliding baseline
    phi:    float64 [S], NaN where it is learnt (also of pinned baselines)
    """

    counts: FloatArray
    phi: FloatArray

    @classmethod
    def none(cls, subjects: int, width: int) -> "Frozen":
        """Nothing is frozen."""
        return cls(np.full((subjects, width), np.nan), np.full(subjects, np.nan))


@dataclass(frozen=True)
class Verdicts:
    """One evaluation of S subjects; arrays [S] and [S, W]. Numbers are NaN (p: 1) where there is no verdict."""

    state: NDArray[np.int8]
    psi: FloatArray
    adjusted: FloatArray  # above what is natural on average; never negative
    lower: FloatArray  # 95 % interval of the true PSI
    upper: FloatArray
    floor: FloatArray  # what is natural on average
    limit: FloatArray  # upper end of the normal range of psi: from here on it is a warning
    p: FloatArray
    phi: FloatArray
    n_baseline: FloatArray
    n_current: FloatArray
    days: IntArray  # length of the current window; 0: less than a day
    calm: NDArray[np.bool_]  # low enough for an incident to resolve
    silent: NDArray[np.bool_]  # no events, where there used to be some at this time of the week
    baseline_counts: FloatArray
    current_counts: FloatArray


def block_hours(config: "MonitorConfig") -> int:
    """Length of a block: the current window, but at most a day."""
    return min(24, config.current_hours)


def blocks_needed(config: "MonitorConfig") -> int:
    """How many blocks of the past `assess` looks at; more do no harm."""
    raise NotImplementedError


def refit_due(history_days: IntArray, fitted_days: IntArray) -> NDArray[np.bool_]:
    """Whether new bins are due, where the history was `fitted_days` long when the present ones were made (-1: none).

    A day of history makes the first ones; they are made again each time the history has doubled, and every four weeks
    from then on, because a distribution that wanders leaves its quantiles.
    """
    raise NotImplementedError


def assess(
    blocks: FloatArray,
    per_day: int,
    history: IntArray,
    settings: Settings,
    frozen: Frozen | None = None,
) -> Verdicts:
    """Judge each subject's current window.

    blocks:  float64 [S, K, W], counts by age; hours of past incidents are zeroed by the caller, except in the current
             window; K may be anything, see `blocks_needed`
    per_day: blocks of a day
    history: int64 [S], whole blocks since the subject's first event (or since a new normal was accepted)
    """
    raise NotImplementedError
