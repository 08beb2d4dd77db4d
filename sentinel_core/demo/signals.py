"""The demo shop's metrics as pure functions of time: history and present are the same function, so they always join.

Every value is drawn from a daily and a weekly season, noise hashed from the time, and episodes: twice an hour or so one
instance leaves its habits for a quarter of an hour, so that drift, finetuning and retraining can be watched live.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sentinel_core.series import Series
from sentinel_core.windows import FloatArray, IntArray

SCRAPE_SECONDS = 15
SCRAPE_PHASE = 7  # seconds after each multiple of it: real scrapes are not on the grid of anybody's queries either
EPISODE_EVERY = 1_800  # seconds between the starts of episodes
EPISODE_LASTS = 900
INSTANCES = ("web-1", "web-2", "web-3")


@dataclass(frozen=True)
class Signal:
    """One series: its metric's metadata, its name and labels, and its values at ascending unix times."""

    family: str  # name of the metric family: a counter's without `_total`
    kind: str  # gauge | counter
    help: str
    series: Series
    at: Callable[[FloatArray], FloatArray]


def signals() -> list[Signal]:
    """Every series of the shop, a family's series together."""
    found = []

    def add(family: str, kind: str, text: str, labels: dict[str, str], at: Callable[[FloatArray], FloatArray]) -> None:
        name = f"{family}_total" if kind == "counter" else family
        found.append(Signal(family, kind, text, Series.of(name, {"job": "shop", **labels}), at))

    for instance in INSTANCES:
        for route, share in (("/search", 1.0), ("/checkout", 0.25)):
            labels = {"instance": instance, "route": route}
            add("demo_requests", "counter", "Requests answered", labels, _requests(instance, route, share))
    for instance in INSTANCES:
        add("demo_latency_seconds", "gauge", "95th percentile", {"instance": instance}, _latency(instance))
    for instance in INSTANCES:
        add("demo_cpu_ratio", "gauge", "Share of the CPU in use", {"instance": instance}, _cpu(instance))
    for queue in ("mail", "orders"):
        labels = {"instance": "broker-1", "queue": queue}
        add("demo_queue_depth", "gauge", "Messages waiting", labels, _queue(queue))
    for instance in INSTANCES:
        add("demo_memory_bytes", "gauge", "Memory in use", {"instance": instance}, _memory(instance))
    for instance in INSTANCES:
        add("demo_disk_used_ratio", "gauge", "Share of the disk in use", {"instance": instance}, _disk(instance))
    return found


# ---- the shop


def _traffic(instance: str, t: FloatArray) -> FloatArray:
    """Load of one instance around 1: busy afternoons, quiet nights and Sundays, and its episodes."""
    day = np.sin(2 * math.pi * (t - 9 * 3600 - _unit(instance) * 1800) / 86_400)
    week = np.sin(2 * math.pi * (t - 86_400) / 604_800)
    return (1 + 0.45 * day + 0.12 * week) * (1 + 0.8 * _episode(instance, t))


def _requests(instance: str, route: str, share: float) -> Callable[[FloatArray], FloatArray]:
    """Requests since the last restart; whole numbers in each bucket of 15 s, so that any two spans agree exactly."""
    every = (4_800 + int(_unit(instance) * 4_320)) * SCRAPE_SECONDS  # an instance restarts every 20 to 38 hours

    def at(t: FloatArray) -> FloatArray:
        if not len(t):
            return t
        restart = np.floor(t / every).astype(np.int64) * every // SCRAPE_SECONDS  # as bucket numbers, like `bucket`
        bucket = np.floor(t / SCRAPE_SECONDS).astype(np.int64)
        first = int(restart.min())
        times = np.arange(first, int(bucket.max()) + 1, dtype=np.float64) * SCRAPE_SECONDS
        rate = 40 * share * _traffic(instance, times) * (1 + 0.08 * _noise(f"requests{instance}{route}", times))
        gained = np.floor(np.maximum(rate, 0) * SCRAPE_SECONDS)
        before = np.concatenate([[0.0], np.cumsum(gained)])
        inside = np.floor((t / SCRAPE_SECONDS - bucket) * gained[bucket - first])
        return np.asarray(before[bucket - first] + inside - before[restart - first], np.float64)

    return at


def _latency(instance: str) -> Callable[[FloatArray], FloatArray]:
    def at(t: FloatArray) -> FloatArray:
        load = _traffic(instance, t)
        return 0.08 + 0.05 * load**2 + 0.006 * _noise(f"latency{instance}", t) * load

    return at


def _cpu(instance: str) -> Callable[[FloatArray], FloatArray]:
    def at(t: FloatArray) -> FloatArray:
        return np.clip(0.1 + 0.3 * _traffic(instance, t) + 0.02 * _noise(f"cpu{instance}", t), 0.01, 0.99)

    return at


def _queue(queue: str) -> Callable[[FloatArray], FloatArray]:
    def at(t: FloatArray) -> FloatArray:
        batch = np.maximum(0, 1 - (t % 3600) / 1200)  # every hour a batch that takes 20 minutes to work off
        return np.floor(np.maximum(0, 20 + 120 * batch * _traffic(queue, t) + 4 * _noise(f"queue{queue}", t)))

    return at


def _memory(instance: str) -> Callable[[FloatArray], FloatArray]:
    def at(t: FloatArray) -> FloatArray:
        leak = ((t + _unit(instance) * 28_800) % 28_800) / 28_800  # eight hours of growth, then a full collection
        return np.floor(1e9 * (1.6 + 0.7 * leak + 0.1 * _traffic(instance, t)) + 4e6 * _noise(f"memory{instance}", t))

    return at


def _disk(instance: str) -> Callable[[FloatArray], FloatArray]:
    empty, full = (0.92, 0.97) if instance == INSTANCES[-1] else (0.35, 0.85)  # one that ForecastDiskFull is about

    def at(t: FloatArray) -> FloatArray:
        fill = ((t + _unit(instance) * 864_000) % 864_000) / 864_000  # ten days, then old logs are deleted
        return empty + (full - empty) * fill + 0.0005 * _noise(f"disk{instance}", t)

    return at


# ---- chance without a state: the same time always draws the same number


def _episode(instance: str, t: FloatArray) -> FloatArray:
    """0, or up to 1 while the instance is the one that misbehaves: a higher level, swinging every 4 minutes."""
    if instance not in INSTANCES:
        return np.zeros_like(t)
    number = np.floor(t / EPISODE_EVERY).astype(np.int64)
    chosen = (_hash(_key("episode"), number) % np.uint64(len(INSTANCES))).astype(np.int64) == INSTANCES.index(instance)
    inside = (t % EPISODE_EVERY) >= EPISODE_EVERY - EPISODE_LASTS
    return np.where(chosen & inside, 0.6 + 0.4 * np.sin(2 * math.pi * t / 240), 0.0)


def _noise(name: str, t: FloatArray) -> FloatArray:
    """About standard normal, constant within a bucket of 15 s: the sum of four uniforms, scaled."""
    bucket = np.floor(t / SCRAPE_SECONDS).astype(np.int64)
    hashed = _hash(_key(name), bucket)
    total = sum(
        (((hashed >> np.uint64(16 * part)) & np.uint64(0xFFFF)) / 65_536.0 for part in range(4)), np.zeros(len(t))
    )
    return (total - 2.0) * math.sqrt(3.0)


def _unit(name: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    return (_key(name) >> 11) / 2**53


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _hash(key: int, number: IntArray) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """splitmix64 (Steele, Lea, Flood 2014) of key + number: 64 well-mixed bits each."""
    with np.errstate(over="ignore"):
        z = np.uint64(key) + number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
