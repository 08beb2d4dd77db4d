"""False incidents of models that do not drift, and how soon drift is found, in simulated years.

    python -m benchmarks.drift [--quick] [--generator module:function] [--models N] [--years Y] [--rates 5,20,200] …

Bins, counts, the rule and the lifecycle of incidents are the product's own; only the store is left out. Every model is
simulated from its first event on: the first weeks count. Beside it stands the plain rule of many monitors, on the same
counts: the PSI of the last day against the week before, every hour, an incident from 0.1 on.

A generator is a function `generator(rng, hours, per_hour) -> (hour, value)`:
    rng       numpy.random.Generator, another one for each model
    hours     how many hours to simulate; hour 0 is a midnight
    per_hour  events an hour on average
    hour      [n] the hour of each event, 0 to hours - 1
    value     [n] scores as numbers (NaN: missing), or labels as text or booleans
Drift is the same world with all scores moved, or with labels and discrete scores replaced, by a PSI of 0.25 for good.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import WORLDS, Generator
from sentinel_core.config import MonitorConfig
from sentinel_core.incidents import lifecycle
from sentinel_core.monitoring import monitor, psi
from sentinel_core.monitoring.histograms import WIDTH, Bins, fit_bins, hourly_counts
from sentinel_core.monitoring.monitor import Frozen, Settings, State, Verdicts
from sentinel_core.windows import FloatArray, IntArray

DAY, WEEK, YEAR = 24, 168, 8760  # hours
REACH = monitor.HISTORY_DAYS * DAY
CHUNK = 72  # hours that are assessed at once, as long as nothing happens in them
DRIFT, WARM_UP, AFTER = 0.25, 8 * WEEK, 4 * WEEK
MOST_FALSE, LEAST_FOUND = 0.5, 0.85
MOST_HEALED = 0.1  # a mean that wanders may come back for a day; time itself heals all
CONFIG = MonitorConfig()


@dataclass(frozen=True)
class Task:
    """One model to simulate; `world` is a name, or module:function."""

    world: str
    rate: float
    seed: int
    hours: int
    drift: float | None = None  # PSI of a shift after WARM_UP and up to a week


@dataclass(frozen=True)
class Outcome:
    """What became of it: incidents that were opened, when and of which kind, those of the plain rule, hours to find."""

    task: Task
    opened: tuple[tuple[int, str], ...]
    plain: int
    found: float | None = None  # hours from the shift to the incident; infinity: never
    healed: bool = False  # an incident of a lasting shift resolved
    plain_healed: bool = False


def generator(world: str) -> Generator:
    """The function that a world's name, or module:function, stands for."""
    if world in WORLDS:
        return WORLDS[world]
    module, _, name = world.partition(":")
    found: Generator = getattr(importlib.import_module(module), name)
    return found


def events(task: Task, rng: np.random.Generator) -> tuple[IntArray, NDArray[np.generic]]:
    """What a world's generator gives, in order of time; text and booleans are labels, all else is scores."""
    given_hour, given_value = generator(task.world)(rng, task.hours, task.rate)
    hour, value = np.asarray(given_hour), np.asarray(given_value)
    if hour.shape != value.shape or hour.ndim != 1 or not len(hour):
        raise ValueError(f"{task.world}: hour {hour.shape} and value {value.shape} are not two arrays of one length")
    if hour.min() < 0 or hour.max() >= task.hours:
        raise ValueError(f"{task.world}: hours go from {hour.min()} to {hour.max()}, not from 0 to {task.hours - 1}")
    order = np.argsort(hour, kind="stable")
    value = value.astype(np.float64) if value.dtype.kind in "fiu" else value.astype(str)
    return hour[order].astype(np.int64), value[order]


class Simulation:
    """One model, hour by hour, over events that are known beforehand."""

    def __init__(self, hour: IntArray, value: NDArray[np.generic]) -> None:
        if value.dtype.kind == "f":
            self.value: FloatArray | IntArray = value.astype(np.float64, copy=False)
        else:
            self.value = np.unique(value, return_inverse=True)[1].astype(np.int64) + 1
        self.hour = hour
        self.hours = int(self.hour[-1]) + 1
        self.first = int(self.hour[0])
        self.bins: Bins | None = None
        self.fitted_days = 0
        self.total = np.zeros((self.hours + 1, WIDTH))  # counts under the present bins, summed up from hour 0
        self.status: lifecycle.Status | None = None
        self.frozen: tuple[int, FloatArray, float] | None = None  # hour, profile, phi
        self.spans: list[tuple[int, int]] = []
        self.steps: list[tuple[int, str]] = []
        self.silences: list[int] = []
        self.psi = np.full(self.hours + 1, np.nan)
        self.phi = np.full(self.hours + 1, np.nan)
        self.plain = np.zeros(self.hours + 1)  # what the plain rule sees

    def run(self) -> None:
        """Evaluate each hour after the first event."""
        hour, silent = self.first + 1, False
        while hour <= self.hours:
            self._refit(hour)
            until = min(hour + CHUNK, self.hours + 1)
            if self.bins is None:
                hour += 1
                continue
            hours = np.arange(hour, until)
            days = (hours - self.first) // DAY
            later = np.flatnonzero(monitor.refit_due(days, np.full(len(hours), self.fitted_days))[1:])
            if len(later) and (self.status is None or not self.status.active):
                hours = hours[: later[0] + 1]
            verdicts = self._assess(hours)
            self.plain[hours] = self._plain(hours)
            for index, now in enumerate(hours.tolist()):
                self.psi[now], self.phi[now] = verdicts.psi[index], verdicts.phi[index]
                if verdicts.silent[index] and not silent:
                    self.silences.append(now)
                silent = bool(verdicts.silent[index]) or (silent and verdicts.state[index] == State.NO_DATA)
                if self._step(now, verdicts, index):
                    hour = now + 1
                    break
            else:
                hour = int(hours[-1]) + 1

    def _step(self, hour: int, verdicts: Verdicts, index: int) -> bool:
        """Let the lifecycle decide; whether that changes what the next hours are compared with."""
        active = self.status is not None and self.status.active
        state = State(int(verdicts.state[index]))
        if not active and state not in (State.WARNING, State.CRITICAL):
            return False
        window = max(int(verdicts.days[index]), 1) * DAY
        condition = lifecycle.Condition(
            state=state.name.lower(),
            calm=bool(verdicts.calm[index]),
            eased=bool(verdicts.eased[index]),
            hour=hour,
            since=hour - window,
            reason="",
            assessment="",
        )
        transition = lifecycle.evaluate(self.status, condition, float(hour), hour_seconds=1)
        if transition is None:
            return False
        self.status = transition.after
        if transition.step != "noted":
            self.steps.append((hour, transition.step))
        if transition.step in ("opened", "reopened"):
            counts, hours, excluded = self._blocks(np.array([hour]), 1, REACH)
            profile = monitor.profile(counts, hours, np.array([CONFIG.baseline_weeks]), np.array([window]), excluded)
            self.frozen = (hour, profile[0], float(verdicts.phi[index]))
            return True
        if transition.ends:
            self.frozen = None
            self.spans.append((self.status.from_hour, self.status.until_hour))
            return True
        return False

    def _assess(self, hours: IntArray) -> Verdicts:
        blocks, days, excluded = self._blocks(hours)
        settings = Settings.of([CONFIG] * len(hours))
        frozen = None
        if self.frozen is not None:
            at, profile, phi = self.frozen
            same = np.broadcast_to(profile, (len(hours), *profile.shape))
            frozen = Frozen(np.arange(len(hours)), same, hours - at, np.full(len(hours), phi), hours - at)
        return monitor.assess(blocks, 1, days, settings, frozen, excluded)

    def _blocks(
        self, hours: IntArray, block: int = DAY, depth: int = monitor.HISTORY_DAYS
    ) -> tuple[FloatArray, IntArray, NDArray[np.bool_]]:
        """Counts by age before each hour, whole blocks of history, and which blocks hold hours of an incident."""
        ends = hours[:, None] - block * np.arange(depth + 1)
        blocks = -np.diff(self.total[np.maximum(ends, 0)], axis=1)
        excluded = np.zeros(blocks.shape[:2], bool)
        for start, end in self.spans:
            excluded |= (ends[:, 1:] < end) & (ends[:, :-1] > start)
        return blocks, (hours - self.first) // block, excluded

    def _plain(self, hours: IntArray) -> FloatArray:
        """PSI of the last day against the week before, as it is commonly computed."""
        blocks, days, _ = self._blocks(hours)
        current, baseline = blocks[:, 0], blocks[:, 1:8].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.maximum(current / current.sum(axis=1, keepdims=True), 1e-4)
            q = np.maximum(baseline / baseline.sum(axis=1, keepdims=True), 1e-4)
            value = ((p - q) * np.log(p / q)).sum(axis=1)
        return np.where((days >= 2) & np.isfinite(value), value, 0.0)

    def _refit(self, hour: int) -> None:
        if self.status is not None and self.status.active:
            return
        days = (hour - self.first) // DAY
        if not monitor.refit_due(np.array([days]), np.array([self.fitted_days]))[0]:
            return
        start, end = np.searchsorted(self.hour, [hour - REACH, hour])
        if self.bins is None and end < CONFIG.min_samples:
            return
        value, at = self.value[start:end], self.hour[start:end]
        for first, last in self.spans:
            keep = (at < first) | (at >= last)
            value, at = value[keep], at[keep]
        (bins,) = fit_bins(np.zeros(len(value), np.int64), value, [CONFIG.bins])
        if bins is None:
            return
        self.bins, self.fitted_days = bins, days
        counts = np.zeros((self.hours, WIDTH))
        for lower, upper, fitting in ((start, end, True), (end, len(self.hour), False)):
            rows = slice(lower, upper)
            found = hourly_counts(
                [bins], np.zeros(upper - lower, np.int64), self.hour[rows], self.value[rows], fitting=fitting
            )
            counts[found.hour] = found.counts
        np.cumsum(counts, axis=0, out=self.total[1:])


def simulate(task: Task) -> Outcome:
    """Run one model."""
    rng = np.random.default_rng([task.seed, zlib.crc32(task.world.encode()), int(task.rate * 1000)])
    hour, value = events(task, rng)
    shift = 0
    if task.drift is not None:
        shift = WARM_UP + int(rng.integers(WEEK))
        value = drifted(rng, hour, value, shift, task.drift)
    one = Simulation(hour, value)
    one.run()
    opened = [(at, "psi") for at, step in one.steps if step == "opened"] + [(at, "silence") for at in one.silences]
    high = one.plain >= 0.1
    begins = np.flatnonzero(high & ~np.concatenate([[False], high[:-1]]))
    if task.drift is None:
        return Outcome(task, tuple(opened), len(begins))
    after = [at for at, step in one.steps if step in ("opened", "reopened") and at > shift]
    healed = any(step == "resolved" and at > shift for at, step in one.steps)
    found = min(after, default=np.inf) - shift
    if one.status is not None and one.status.active and not after:
        found = 0.0  # a false incident was open already
    return Outcome(task, tuple(opened), len(begins), float(found), healed, bool(len(begins)) and not high[-1])


def drifted(
    rng: np.random.Generator, hour: IntArray, value: NDArray[np.generic], shift: int, amount: float
) -> NDArray[np.generic]:
    """Values that have another distribution from an hour on: its PSI against the four weeks before is `amount`.

    Scores are moved up; where that does not reach the amount (labels, ties), so many are replaced by one of the upper
    half as is needed.
    """
    before = value[(hour >= shift - 4 * WEEK) & (hour < shift)]
    text = value.dtype.kind != "f"
    codes = np.unique(before, return_inverse=True)[1] + 1 if text else before.astype(float)
    (bins,) = fit_bins(np.zeros(len(codes), np.int64), codes, [CONFIG.bins])
    assert bins is not None
    present = codes == codes
    upper = np.flatnonzero(codes > np.median(codes[present]))
    if not len(upper):
        upper = np.flatnonzero(present)
    baseline = np.bincount(bins.index(codes), minlength=WIDTH).astype(float)

    def distance(changed: FloatArray | IntArray) -> float:
        return float(psi.psi(baseline, np.bincount(bins.index(changed), minlength=WIDTH).astype(float)))

    def solve(change: object, most: float) -> float:
        low, high = 0.0, most
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if distance(change(middle)) < amount else (low, middle)  # type: ignore[operator]
        return high

    late = hour >= shift
    if not text:
        step = solve(lambda by: codes + by, 10 * float(np.nanstd(codes)) + 1e-9)
        if abs(distance(codes + step) - amount) < 0.02:
            return np.where(late, value.astype(float) + step, value.astype(float))
    order, draw = rng.random(len(codes)), rng.choice(upper, len(codes))
    share = solve(lambda part: np.where((order < part) & present, codes[draw], codes), 1.0)
    replace_at = late & (rng.random(len(value)) < share)
    return np.where(replace_at, before[rng.choice(upper, len(value))], value)


@dataclass(frozen=True)
class Cell:
    """A row of the table: what the models of one world and rate came to."""

    world: str
    rate: float
    years: float
    false: int
    young: int  # of them within 14 days of the first event
    plain: int
    found: tuple[float, ...]
    healed: int
    plain_healed: int

    @property
    def failed(self) -> list[str]:
        """What misses its limit."""
        found = sum(one <= DAY for one in self.found) / max(len(self.found), 1)
        return [
            *(["false"] if self.false / self.years > MOST_FALSE else []),
            *(["found"] if self.rate >= 20 and self.found and found < LEAST_FOUND else []),
            *(["healed"] if self.healed > MOST_HEALED * len(self.found) else []),
        ]


HEADER = (
    f"{'world':<22}{'events/h':>9} | {'incidents/year':>14} {'(14 days)':>9} {'plain':>7} | "
    f"{'found 24 h':>10} {'median h':>8} {'healed':>7} {'plain healed':>12}"
)


def line(cell: Cell) -> str:
    """A row as text."""
    text = f"{cell.world:<22}{cell.rate:>9g} | {cell.false / cell.years:>14.2f} {cell.young / cell.years:>9.2f} "
    text += f"{cell.plain / cell.years:>7.1f} | "
    if cell.found:
        count = len(cell.found)
        share = sum(one <= DAY for one in cell.found) / count
        text += f"{share:>10.0%} {np.median(cell.found):>8.0f} "
        text += f"{cell.healed / count:>7.0%} {cell.plain_healed / count:>12.0%}"
    return text + (f"   MISSED: {', '.join(cell.failed)}" if cell.failed else "")


def summed(world: str, rate: float, outcomes: Sequence[Outcome]) -> Cell:
    """One cell's models taken together."""
    calm = [one for one in outcomes if one.task.drift is None]
    moved = [one for one in outcomes if one.task.drift is not None]
    return Cell(
        world,
        rate,
        sum(one.task.hours for one in calm) / YEAR,
        sum(len(one.opened) for one in calm),
        sum(at <= 14 * DAY for one in calm for at, _ in one.opened),
        sum(one.plain for one in calm),
        tuple(one.found for one in moved if one.found is not None),
        sum(one.healed for one in moved),
        sum(one.plain_healed for one in moved),
    )


def main() -> int:
    """Print the table; 1 where a cell misses a limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--generator", action="append", metavar="MODULE:FUNCTION", help="a world of your own; repeatable"
    )
    parser.add_argument(
        "--worlds", default=",".join(WORLDS), help="built-in ones; default: all, or none with --generator"
    )
    parser.add_argument("--rates", default="5,20,200", help="events an hour")
    parser.add_argument("--models", type=int, default=24, help="simulated models of each cell")
    parser.add_argument("--years", type=float, default=1.0, help="how long each of them runs")
    parser.add_argument("--shifts", type=int, default=40, help="models of each cell that drift by a PSI of 0.25")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="6 models and 12 shifts of each cell, and no 200 an hour")
    asked = parser.parse_args()
    if asked.quick:
        asked.models, asked.shifts, asked.rates = 6, 12, "5,20"
    named = list(asked.generator or [])
    if not named or asked.worlds != parser.get_default("worlds"):
        named += asked.worlds.split(",")
    sys.path.insert(0, str(Path.cwd()))  # where a person's own module is
    for world in named:
        generator(world)
    cells: dict[tuple[str, float], list[Task]] = {}
    for world in named:
        for rate in (float(one) for one in asked.rates.split(",")):
            tasks = [Task(world, rate, asked.seed * 100_000 + k, int(asked.years * YEAR)) for k in range(asked.models)]
            span = WARM_UP + WEEK + AFTER
            tasks += [
                Task(world, rate, asked.seed * 100_000 + 50_000 + k, span, drift=DRIFT) for k in range(asked.shifts)
            ]
            cells[world, rate] = tasks
    began = time.monotonic()
    print(
        f"{asked.models} models of {asked.years:g} years and {asked.shifts} shifts to PSI {DRIFT:g} in each cell",
        flush=True,
    )
    print(HEADER, flush=True)
    missed = False
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, 8)) as pool:
        for (world, rate), tasks in cells.items():
            outcomes = []
            for one in pool.imap_unordered(simulate, sorted(tasks, key=lambda task: -task.hours)):
                outcomes.append(one)
                if sys.stderr.isatty():
                    print(f"\r{world} {rate:g}/h: {len(outcomes)} of {len(tasks)}\033[K", end="", file=sys.stderr)
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr)
            cell = summed(world, rate, outcomes)
            print(line(cell), flush=True)
            missed |= bool(cell.failed)
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
