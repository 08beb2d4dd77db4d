"""What is known about one model at one hour: stored with incidents, shown to people, sent in alerts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sentinel_core.monitoring.histograms import Bins
from sentinel_core.monitoring.monitor import State, Verdicts
from sentinel_core.windows import FloatArray

OUTPUTS = ("score", "number", "label")  # by their stored number
LABEL = OUTPUTS.index("label")
WORST_LAST = (State.NO_DATA, State.INSUFFICIENT_DATA, State.OK, State.WARNING, State.CRITICAL)


class BinShare(msgspec.Struct, frozen=True):  # a dataclass takes ten times as long to make, and there are ten a model
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
            return WORST_LAST.index(one.state), one.adjusted or 0.0

        return max(self.outputs, key=badness, default=None)

    def to_json(self) -> str:
        """JSON, to be stored."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Assessment":
        """What `to_json` has made."""
        return msgspec.json.decode(text, type=cls)


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
        state=max((one.state for one in found), key=WORST_LAST.index, default=State.NO_DATA),
        hour=hour,
        baseline_version=baseline_version,
        calm=bool(judged) and all(bool(verdicts.calm[row]) for row in judged),
        eased=bool(judged) and all(bool(verdicts.eased[row]) for row in judged),
        silent=any(bool(verdicts.silent[row]) for row in rows),
        outputs=found,
    )


def _output(verdicts: Verdicts, row: int, output: str, bins: Bins, texts: Mapping[int, str]) -> OutputAssessment:
    baseline, current = verdicts.baseline_counts[row], verdicts.current_counts[row]
    n, m = float(verdicts.n_baseline[row]), float(verdicts.n_current[row])
    columns = baseline / max(n, 1), current / max(m, 1), verdicts.contributions[row]

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
        bins=tuple(map(BinShare, bins.names(texts), *(column.tolist() for column in columns))),
    )
