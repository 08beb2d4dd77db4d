"""Baselines that do not slide: pinned, accepted, or what they were when an incident opened, by the hour of the week."""

from collections.abc import Sequence

import msgspec
import numpy as np

from sentinel_core.monitoring.histograms import WIDTH
from sentinel_core.monitoring.monitor import WEEK_HOURS, Frozen
from sentinel_core.windows import FloatArray


class Kept(msgspec.Struct, frozen=True):
    """A baseline that does not slide.

    end:      where the newest hour of the profiles ends, unix seconds
    profiles: output -> counts by hour of the week (see `monitor.profile`); null where the hour is not known
    phi:      output -> natural variation; where one is missing it is learnt
    opened:   end of the hour at which the incident opened that keeps it; null where it is the model's own
    """

    end: int
    profiles: dict[int, list[list[float] | None]]
    phi: dict[int, float] = {}
    opened: int | None = None


def listed(profile: FloatArray) -> list[list[float] | None]:
    """A profile [hours of a week, bins] as JSON can hold it."""
    used = int(np.flatnonzero((profile > 0).any(axis=0)).max(initial=0)) + 1
    return [None if np.isnan(row[0]) else row[:used].tolist() for row in profile]


def stacked(kept: Sequence[tuple[Kept | None, int]], hour: int, hour_seconds: int) -> Frozen | None:
    """What the rows of an evaluation (each a model's and an output) are compared with; None where nothing is kept."""
    found = [(row, one, output) for row, (one, output) in enumerate(kept) if one is not None and output in one.profiles]
    if not found:
        return None
    profile = np.full((len(found), WEEK_HOURS, WIDTH), np.nan)
    for place, (_, one, output) in enumerate(found):
        for phase, counts in enumerate(one.profiles[output]):
            if counts is not None:
                profile[place, phase] = 0.0
                profile[place, phase, : len(counts)] = counts
    return Frozen(
        rows=np.array([row for row, _, _ in found], np.int64),
        profile=profile,
        hours=np.array([(hour - one.end) // hour_seconds for _, one, _ in found], np.int64),
        phi=np.array([one.phi.get(output, np.nan) for _, one, output in found], np.float64),
        lasting=np.array(
            [-1 if one.opened is None else (hour - one.opened) // hour_seconds for _, one, _ in found], np.int64
        ),
    )
