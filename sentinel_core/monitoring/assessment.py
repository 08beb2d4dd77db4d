"""What is known about one model at one hour: stored with incidents, shown to people, sent in alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentinel_core.monitoring.histograms import Bins
from sentinel_core.monitoring.monitor import State, Verdicts

OUTPUTS = ("score", "number", "label")  # by their stored number


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
    days: int
    bins: tuple[BinShare, ...]


@dataclass(frozen=True)
class Assessment:
    """The model's state is that of its worst output; an output without a verdict does not hide one with."""

    state: State
    hour: int  # end of the evaluated hour, unix seconds
    baseline_version: int | None
    calm: bool  # every output is low enough for an incident to resolve
    silent: bool
    outputs: tuple[OutputAssessment, ...]

    @property
    def worst(self) -> OutputAssessment | None:
        """The output that people are shown first; None where the model has none yet."""
        raise NotImplementedError

    def to_json(self) -> str:
        """JSON, to be stored."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, text: str | bytes) -> "Assessment":
        """What `to_json` has made."""
        raise NotImplementedError


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
    raise NotImplementedError
