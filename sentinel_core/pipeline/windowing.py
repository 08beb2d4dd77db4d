"""From counts to verdicts: which past each model has, its counts as blocks, and what the rule makes of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentinel_core.config import MonitorConfig
from sentinel_core.monitoring import monitor
from sentinel_core.monitoring.assessment import OUTPUTS, Assessment, describe
from sentinel_core.monitoring.histograms import WIDTH, Bins
from sentinel_core.monitoring.monitor import HISTORY_DAYS, WEEK, Settings, Verdicts
from sentinel_core.pipeline.freezing import Kept, listed, stacked
from sentinel_core.storage import event_store
from sentinel_core.storage.event_store import BlockSums, Wanted
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel
from sentinel_core.storage.store import Store
from sentinel_core.windows import FloatArray, IntArray

DAY_HOURS = 24
REACH_HOURS = HISTORY_DAYS * DAY_HOURS  # the past that a verdict looks at
_OUTPUTS = len(OUTPUTS)
Span = tuple[int, int]  # [t0, t1), unix seconds


class Content(msgspec.Struct, frozen=True):
    """What `baselines.bins` holds.

    most:        the setting `bins` that they were made for
    hour:        seconds of an hour (`monitor_step`) that they count by
    fitted_days: how long the history was then
    since:       no earlier event belongs to the history: a new normal began there
    accepted:    version with which it began
    kept:        what is compared with where the baseline does not slide
    """

    outputs: dict[int, Bins]
    most: int
    hour: int
    fitted_days: int
    since: int | None = None
    accepted: int = 0
    kept: Kept | None = None

    @classmethod
    def from_json(cls, text: str) -> "Content":
        """What `to_json` has made."""
        return _CONTENT.decode(text)

    def to_json(self) -> str:
        """JSON, to be stored."""
        return msgspec.json.encode(self).decode()


_CONTENT = msgspec.json.Decoder(Content)


@dataclass(frozen=True)
class Judged:
    """A model as it is judged at some hour.

    spans: hours of drift that no baseline is made of
    kept:  what the baseline and phi are frozen as, while an incident lasts or because they are pinned
    """

    model: MonitoredModel
    settings: MonitorConfig
    baseline: BaselineRow
    content: Content
    spans: Sequence[Span] = ()
    kept: Kept | None = None

    @property
    def version(self) -> int:
        """Of the baseline."""
        return self.baseline.version

    @property
    def per_day(self) -> int:
        """Blocks of a day."""
        return DAY_HOURS // monitor.block_hours(self.settings)

    @property
    def begin(self) -> int:
        """Where its history begins, unix seconds."""
        return max(self.model.first_event_at or 0, self.content.since or 0)

    def block_seconds(self, hour_seconds: int) -> int:
        """Length of a block."""
        return monitor.block_hours(self.settings) * hour_seconds


@dataclass(frozen=True)
class _Group:
    """Models whose blocks have the same length; a row is one output of one of them."""

    judged: Sequence[Judged]
    per_day: int
    rows: Sequence[tuple[int, int]]  # place in `judged`, output
    blocks: FloatArray
    history: IntArray
    excluded: NDArray[np.bool_]
    settings: Settings
    verdicts: Verdicts


@dataclass(frozen=True)
class Evaluated:
    """One model's verdict, and what it was made of."""

    judged: Judged
    assessment: Assessment
    group: _Group = field(repr=False)
    rows: Sequence[int] = field(repr=False)

    def window_seconds(self, hour_seconds: int) -> int:
        """Length of the current window."""
        days = int(self.group.verdicts.days[self.rows].max(initial=0))
        return days * DAY_HOURS * hour_seconds or self.judged.block_seconds(hour_seconds)

    @cached_property
    def expected(self) -> float:
        """Events of a window as long as the setting says, on average over the same hours of the weeks before.

        In the first week over the days before.
        """
        group = self.group
        if not self.rows:
            return 0.0
        size = max(1, self.judged.settings.current_hours // DAY_HOURS * group.per_day)
        events = group.blocks[self.rows].sum(axis=2).max(axis=0)
        known = min(int(group.history[self.rows[0]]), len(events))
        step = WEEK * group.per_day
        starts = [first for first in range(step, known, step) if first + size <= known] or range(size, known, size)
        found = [float(events[first : first + size].sum()) for first in starts]
        return sum(found) / len(found) if found else 0.0


def judge(
    judged: Sequence[Judged],
    sums: BlockSums,
    hour: int,
    hour_seconds: int,
    texts: Mapping[int, Mapping[int, str]],
) -> list[Evaluated]:
    """Judge models at the end of an hour over their counts; in the order of `judged`.

    sums: of all of them, as `block_sums` or `Counted.sums` gives
    texts: of labels, by model id and fingerprint
    """
    by_length: dict[int, list[Judged]] = {}
    for one in judged:
        by_length.setdefault(one.per_day, []).append(one)
    found: dict[int, Evaluated] = {}
    for per_day, members in by_length.items():
        group = _grouped(members, per_day, sums, hour, hour_seconds)
        of_model: list[list[int]] = [[] for _ in members]
        for row, (place, _) in enumerate(group.rows):
            of_model[place].append(row)
        for one, rows in zip(members, of_model, strict=True):
            outputs = [group.rows[row][1] for row in rows]
            bins = [one.content.outputs[output] for output in outputs]
            names = texts.get(one.model.id, {})
            assessment = describe(group.verdicts, rows, outputs, bins, names, hour, one.version)
            found[one.model.id] = Evaluated(one, assessment, group, rows)
    return [found[one.model.id] for one in judged]


def psi_rows(evaluated: Iterable[Evaluated], hour: int, mode: int) -> dict[str, NDArray[Any]]:
    """The rows of the dataset `psi` of one hour, one per output that was judged."""
    parts = []
    for group in {id(one.group): one.group for one in evaluated}.values():
        verdicts, rows = group.verdicts, len(group.rows)
        columns = {
            "model": np.array([group.judged[place].model.id for place, _ in group.rows], np.int32),
            "output": np.array([output for _, output in group.rows], np.int8),
            "ts": np.full(rows, hour, np.int64),
            "baseline": np.array([group.judged[place].version for place, _ in group.rows], np.int32),
            "mode": np.full(rows, mode, np.int8),
        }
        names = ("days", "psi", "adjusted", "lower", "upper", "floor", "limit", "p", "phi", "n_baseline", "n_current")
        parts.append(columns | {name: getattr(verdicts, name) for name in (*names, "state")})
    if not parts:
        return dict(event_store.no_psi())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _grouped(judged: Sequence[Judged], per_day: int, sums: BlockSums, hour: int, hour_seconds: int) -> _Group:
    block = DAY_HOURS // per_day * hour_seconds
    rows = [(place, output) for place, one in enumerate(judged) for output in sorted(one.content.outputs)]
    depth = HISTORY_DAYS * per_day
    blocks = np.zeros((len(rows), depth, WIDTH))
    keys = np.array([judged[place].model.id * _OUTPUTS + output for place, output in rows], np.int64)
    if len(keys) and len(sums.model):
        order = np.argsort(keys)
        wanted = sums.model * _OUTPUTS + sums.output
        at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        target = order[at]
        mine = (keys[target] == wanted) & (sums.age < depth)
        blocks[target[mine], sums.age[mine], : sums.counts.shape[1]] = sums.counts[mine]
    history = [max(0, hour - judged[place].begin // hour_seconds * hour_seconds) // block for place, _ in rows]
    excluded = np.array([_excluded(judged[place].spans, hour, block, depth) for place, _ in rows], bool)
    excluded = excluded.reshape(len(rows), depth)
    configs = [judged[place].settings for place, _ in rows]
    settings, ages = Settings.of(configs), np.array(history, np.int64)
    frozen = stacked([(judged[place].kept, output) for place, output in rows], hour, hour_seconds)
    verdicts = monitor.assess(blocks, per_day, ages, settings, frozen, excluded)
    return _Group(judged, per_day, rows, blocks, ages, excluded, settings, verdicts)


# ---- counts ----------------------------------------------------------------------------------------------------------


def stored_sums(store: Store, judged: Sequence[Judged], hour: int, hour_seconds: int) -> BlockSums:
    """The counts of models under the version that they are judged with, from the segments."""
    return _sums(store, judged, [one.block_seconds(hour_seconds) for one in judged], hour, hour_seconds)


def freeze(store: Store, opening: Sequence[Evaluated], hour: int, hour_seconds: int) -> dict[int, Kept]:
    """What baseline and phi of models are now, to be kept while an incident lasts that opens at this hour; by id."""
    sums = _sums(store, [one.judged for one in opening], [hour_seconds] * len(opening), hour, hour_seconds)
    found = {}
    for one in opening:
        group, rows, judged = one.group, list(one.rows), one.judged
        outputs = [group.rows[row][1] for row in rows]
        phis = zip(outputs, group.verdicts.phi[rows].tolist(), strict=True)
        known = {output: phi for output, phi in phis if phi == phi}
        if judged.kept is not None:  # pinned: what is natural is learnt until then
            found[judged.model.id] = msgspec.structs.replace(judged.kept, phi=known | judged.kept.phi, opened=hour)
            continue
        counts = np.zeros((len(rows), REACH_HOURS, WIDTH))
        mine = (sums.model == judged.model.id) & np.isin(sums.output, outputs)
        place = np.searchsorted(outputs, sums.output[mine])
        counts[place, sums.age[mine], : sums.counts.shape[1]] = sums.counts[mine]
        settings, begin = judged.settings, judged.begin // hour_seconds * hour_seconds
        weekly = settings.baseline == "same_weekday"
        profiles = monitor.profile(
            counts,
            np.full(len(rows), (hour - begin) // hour_seconds),
            np.full(len(rows), settings.baseline_weeks if weekly else -(-settings.baseline_days // WEEK)),
            np.maximum(group.verdicts.days[rows] * DAY_HOURS, monitor.block_hours(settings)),
            _excluded(judged.spans, hour, hour_seconds, REACH_HOURS)[None].repeat(len(rows), axis=0),
        )
        profiles_of = {output: listed(profiles[row]) for row, output in enumerate(outputs)}
        found[judged.model.id] = Kept(hour, profiles_of, known, hour)
    return found


def _sums(
    store: Store, judged: Sequence[Judged], block_seconds: Sequence[int], hour: int, hour_seconds: int
) -> BlockSums:
    wanted = Wanted(
        np.array([one.model.id for one in judged], np.int64),
        np.array([one.version for one in judged], np.int64),
        np.array(block_seconds, np.int64),
        np.array([one.content.since or 0 for one in judged], np.int64),
    )
    width = max((len(bins) for one in judged for bins in one.content.outputs.values()), default=1)
    return event_store.block_sums(store, hour_seconds, hour - REACH_HOURS * hour_seconds, hour, wanted, width)


def _excluded(spans: Sequence[Span], hour: int, block: int, depth: int) -> NDArray[np.bool_]:
    """Which blocks, by age [depth], share an hour with these spans."""
    found = np.zeros(depth, bool)
    for t0, t1 in spans:
        first, last = max(0, (hour - t1) // block), (hour - t0 - 1) // block
        found[first : max(0, last + 1)] = True
    return found


@dataclass(frozen=True)
class Counted:
    """Counts by the hour in memory: of one version per model; arrays of one length, counts [n, WIDTH]."""

    model: IntArray
    output: IntArray
    hour: IntArray
    counts: NDArray[np.int32]

    def sums(self, judged: Sequence[Judged], hour: int, hour_seconds: int) -> BlockSums:
        """The same as `stored_sums`, of these."""
        ids = np.array(sorted(one.model.id for one in judged), np.int64)
        by_id = {one.model.id: one for one in judged}
        lengths = np.array([by_id[one].block_seconds(hour_seconds) for one in ids.tolist()], np.int64)
        since = np.array([by_id[one].content.since or 0 for one in ids.tolist()], np.int64)
        place = np.minimum(np.searchsorted(ids, self.model), len(ids) - 1)
        use = (ids[place] == self.model) & (self.hour < hour) & (self.hour >= since[place])
        use &= self.hour >= hour - REACH_HOURS * hour_seconds
        place = place[use]
        age = (hour - 1 - self.hour[use]) // lengths[place]
        depth = int(age.max(initial=0)) + 1
        key = (place * _OUTPUTS + self.output[use]) * depth + age
        found, row = np.unique(key, return_inverse=True)
        counts = np.zeros((len(found), WIDTH))
        np.add.at(counts, row, self.counts[use])
        return BlockSums(ids[found // depth // _OUTPUTS], found // depth % _OUTPUTS, found % depth, counts)
