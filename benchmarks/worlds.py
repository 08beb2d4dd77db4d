"""Simulated models in production, none of which drifts: what they score and when, for `benchmarks.drift`.

A world is a function `generator(rng, hours, per_hour) -> (hour, value)`: the hour of each event, int64 [n] ascending
within 0 … hours - 1, and its score, float64 [n] (NaN: missing), or its label, an array of text [n]. Hour 0 is midnight.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sentinel_core.windows import FloatArray, IntArray

Generator = Callable[[np.random.Generator, int, float], tuple[IntArray, NDArray[np.generic]]]


def iid(rng: np.random.Generator, hours: int, per_hour: float) -> tuple[IntArray, FloatArray]:
    """Independent normal scores."""
    hour = _events(rng, np.full(hours, per_hour))
    return hour, rng.standard_normal(len(hour))


def daily(rng: np.random.Generator, hours: int, per_hour: float) -> tuple[IntArray, FloatArray]:
    """The mean swings by a standard deviation through the day, and traffic with it."""
    hour = _events(rng, per_hour * _day(hours))
    return hour, rng.standard_normal(len(hour)) + np.sin(2 * np.pi * hour / 24)


def weekly(rng: np.random.Generator, hours: int, per_hour: float) -> tuple[IntArray, FloatArray]:
    """At weekends a third of the traffic, and scores half a standard deviation higher; a daily swing."""
    weekend = _weekend(hours)
    hour = _events(rng, per_hour * _day(hours) * _week(hours))
    return hour, rng.standard_normal(len(hour)) + 0.5 * weekend[hour] + 0.5 * np.sin(2 * np.pi * hour / 24)


def wandering(rng: np.random.Generator, hours: int, per_hour: float) -> tuple[IntArray, FloatArray]:
    """The mean wanders with a memory of two days and a standard deviation of 0.08; traffic differs from day to day."""
    traffic = np.repeat(rng.lognormal(-0.02, 0.2, hours // 24 + 1), 24)[:hours]
    hour = _events(rng, per_hour * _day(hours) * traffic)
    return hour, rng.standard_normal(len(hour)) + ornstein(rng, hours, 0.08, 48.0)[hour]


def lively(rng: np.random.Generator, hours: int, per_hour: float) -> tuple[IntArray, FloatArray]:
    """All of it at once: a bounded score with a daily swing, other weekends, a wandering mean, 2 % missing."""
    weekend = _weekend(hours)
    traffic = np.repeat(rng.lognormal(-0.02, 0.2, hours // 24 + 1), 24)[:hours]
    hour = _events(rng, per_hour * _day(hours) * _week(hours) * traffic)
    mean = ornstein(rng, hours, 0.08, 48.0)[hour] + 0.5 * weekend[hour] + 0.5 * np.sin(2 * np.pi * hour / 24)
    score = 1 / (1 + np.exp(-(rng.standard_normal(len(hour)) + mean - 1)))
    return hour, np.where(rng.random(len(hour)) < 0.02, np.nan, score)


WORLDS: dict[str, Generator] = {
    "iid": iid, "daily": daily, "weekly": weekly, "wandering": wandering, "lively": lively,
}  # fmt: skip


def ornstein(rng: np.random.Generator, hours: int, spread: float, memory: float) -> FloatArray:
    """A mean that wanders and is drawn back (Ornstein-Uhlenbeck): its standard deviation, and its memory in hours."""
    keep = np.exp(-1 / memory)
    steps = rng.standard_normal(hours) * spread
    steps[1:] *= np.sqrt(1 - keep**2)
    # x[t] = keep * x[t-1] + step[t], in pieces short enough that keep ** -t stays a number
    walk = np.empty(hours)
    last, size = 0.0, max(1, int(memory * 20))
    for start in range(0, hours, size):
        piece = steps[start : start + size]
        powers = keep ** np.arange(1, len(piece) + 1)
        walk[start : start + size] = powers * (last + np.cumsum(piece / powers))
        last = walk[start + len(piece) - 1]
    return walk


def _events(rng: np.random.Generator, rates: FloatArray) -> IntArray:
    return np.repeat(np.arange(len(rates)), rng.poisson(rates))


def _day(hours: int) -> FloatArray:
    return 1 + 0.6 * np.sin(2 * np.pi * (np.arange(hours) - 8) / 24)


def _weekend(hours: int) -> NDArray[np.bool_]:
    return np.arange(hours) // 24 % 7 >= 5


def _week(hours: int) -> FloatArray:
    return np.where(_weekend(hours), 1.0, 3.0) * 7 / 17
