"""What is known about one model at one hour: stored with incidents, shown to people, sent in alerts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from sentinel_core.monitoring import psi
from sentinel_core.monitoring.histograms import Bins
from sentinel_core.monitoring.monitor import WEEK, Frozen, State, Verdicts
from sentinel_core.windows import FloatArray

OUTPUTS = ("score", "number", "label")  # by their stored number
_WORST_LAST = (State.NO_DATA, State.INSUFFICIENT_DATA, State.OK, State.WARNING, State.CRITICAL)


@dataclass(frozen=True)
class BinShare:
    """One bin: its name, its share of the baseline and of the current window (0 to 1), what it adds to the PSI."""

    name: str
    baseline: float
    current: float
    contribution: float


@dataclass(frozen=True)
class OutputAssessment:
    """One output of the model; numbers are None where there is no verdict (JSON knows no NaN)."""

    output: str  # score | number | label
    state: State
    psi: float | None
    adjusted: float | None
    lower: float | None
    upper: float | None
    floor: float | None
    limit: float | None
    p: float | None
    phi: float | None
    n_baseline: int
    n_current: int
    days: int  # length of the current window; 0: less than a day
    bins: tuple[BinShare, ...]


@dataclass(frozen=True)
class Assessment:
    """The model's state is that of its worst output; an output without a verdict does not hide one with."""

    state: State
    hour: int  # end of the evaluated hour, unix seconds
    baseline_version: int | None
    calm: bool  # every output with a verdict is low enough for an incident to resolve, and there is one
    eased: bool  # likewise for a critical incident to become a warning
    silent: bool  # no events, where there used to be some at this time of the week
    outputs: tuple[OutputAssessment, ...]

    @property
    def worst(self) -> OutputAssessment | None:
        """The output that people are shown first; None where the model has none yet."""

        def badness(one: OutputAssessment) -> tuple[int, float]:
            return _WORST_LAST.index(one.state), one.adjusted or 0.0

        return max(self.outputs, key=badness, default=None)

    def to_json(self) -> str:
        """JSON, to be stored."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Assessment":
        """What `to_json` has made."""
        return msgspec.json.decode(text, type=cls)


@dataclass(frozen=True)
class Reference:
    """What a model is compared with while its baseline is frozen or pinned; stored with the incident or the baseline.

    hour:     end of the newest block of the profiles, unix seconds
    profiles: by output; blocks of the week [7 * per_day], each its counts, or None where the span had no such block
    phi:      by output; empty where it is learnt all the same (a pinned baseline)
    """

    hour: int
    profiles: dict[str, tuple[tuple[float, ...] | None, ...]]
    phi: dict[str, float]

    @classmethod
    def of(cls, hour: int, profiles: Mapping[str, FloatArray], phi: Mapping[str, float]) -> "Reference":
        """Make one of arrays [7 * per_day, W] as `monitor.profile` gives them."""
        rows = {
            output: tuple(None if np.isnan(block).any() else tuple(np.trim_zeros(block, "b").tolist()) for block in one)
            for output, one in profiles.items()
        }
        return cls(hour, rows, dict(phi))

    def to_json(self) -> str:
        """JSON, to be stored."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Reference":
        """What `to_json` has made."""
        return msgspec.json.decode(text, type=cls)


def frozen(
    references: Sequence[tuple[Reference, str] | None], hour: int, block_seconds: int, per_day: int, width: int
) -> Frozen | None:
    """Stack what subjects (a model's reference and an output of it, or None) are compared with at `hour`.

    None where nobody has a reference: the usual case, and the fastest.
    """
    if not any(references):
        return None
    profile = np.full((len(references), WEEK * per_day, width), np.nan)
    blocks, phi = np.zeros(len(references)), np.full(len(references), np.nan)
    for row, one in enumerate(references):
        if one is None:
            continue
        reference, output = one
        for phase, counts in enumerate(reference.profiles.get(output, ())):
            if counts is not None:
                profile[row, phase] = 0.0
                profile[row, phase, : len(counts)] = counts
        blocks[row] = (hour - reference.hour) / block_seconds
        phi[row] = reference.phi.get(output, math.nan)
    return Frozen(profile, blocks, phi)


def describe(
    verdicts: Verdicts,
    rows: Sequence[int],
    outputs: Sequence[int],
    bins: Sequence[Bins],
    texts: Mapping[int, str],
    hour: int,
    baseline_version: int | None,
) -> Assessment:
    """One model's assessment out of its rows of the verdicts, one per monitored output.

    texts: of labels, by fingerprint
    """
    found = tuple(
        _output(verdicts, row, OUTPUTS[output], one, texts)
        for row, output, one in zip(rows, outputs, bins, strict=True)
    )
    judged = [row for row in rows if verdicts.state[row] <= State.CRITICAL]
    return Assessment(
        state=max((one.state for one in found), key=_WORST_LAST.index, default=State.NO_DATA),
        hour=hour,
        baseline_version=baseline_version,
        calm=bool(judged) and all(bool(verdicts.calm[row]) for row in judged),
        eased=bool(judged) and all(bool(verdicts.eased[row]) for row in judged),
        silent=any(bool(verdicts.silent[row]) for row in rows),
        outputs=found,
    )


def _output(verdicts: Verdicts, row: int, output: str, bins: Bins, texts: Mapping[int, str]) -> OutputAssessment:
    baseline, current = verdicts.baseline_counts[row], verdicts.current_counts[row]
    n, m = baseline.sum(), current.sum()
    adds = psi.contributions(baseline, current) if n and m else np.zeros(len(baseline))

    def number(values: FloatArray) -> float | None:
        return None if math.isnan(values[row]) else float(values[row])

    return OutputAssessment(
        output=output,
        state=State(int(verdicts.state[row])),
        psi=number(verdicts.psi),
        adjusted=number(verdicts.adjusted),
        lower=number(verdicts.lower),
        upper=number(verdicts.upper),
        floor=number(verdicts.floor),
        limit=number(verdicts.limit),
        p=number(verdicts.p),
        phi=number(verdicts.phi),
        n_baseline=round(n),
        n_current=round(m),
        days=int(verdicts.days[row]),
        bins=tuple(
            BinShare(name, float(b / max(n, 1)), float(c / max(m, 1)), float(add))
            for name, b, c, add in zip(bins.names(texts), baseline, current, adds, strict=False)
        ),
    )
