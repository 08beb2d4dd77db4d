"""What each step of the pipeline tells whoever ran it: Dagster's metadata, the CLI, the tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sentinel_core.backtest import Advice, Standing
from sentinel_core.storage.quality_store import Quality as Quality  # for who may not ask the store


@dataclass(frozen=True)
class TickPlan:
    """What is due: the watches, and the span of the grid (unix seconds, inclusive) that their tick has to cover."""

    slugs: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class ScrapeReport:
    """One reading of Prometheus; `failures` maps a watch's slug to what went wrong with it alone."""

    watches: int
    series: int
    samples: int
    gaps: int  # grid points without a sample
    non_finite: int  # NaN and Inf samples, kept as gaps
    new_series: int
    vanished_series: int
    clock_skew_seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForecastReport:
    """One issue of forecasts; pooled and naive count series that no version has learnt yet."""

    watches: int
    series: int
    origins: int
    rows: int
    pooled: int
    naive: int
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WatchDrift:
    """A watch's drift: severity of its worst series and how many series stand at each."""

    slug: str
    severity: str  # none | low | high
    drift_mae: float | None  # of the worst series, in the watch's drift_unit
    low: int
    high: int
    scored: int


@dataclass(frozen=True)
class DriftReport:
    """One scoring of forecasts whose time has come.

    quality: how good the forecasts of each watch were over a day, by lead; of watches that have been judged
    """

    rows: int
    watches: tuple[WatchDrift, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, tuple[Quality, ...]] = field(default_factory=dict)

    @property
    def share_low(self) -> float:
        """Share of scored series at low severity or worse, 0 … 1."""
        return self._share(sum(watch.low + watch.high for watch in self.watches))

    @property
    def share_high(self) -> float:
        """Share of scored series at high severity, 0 … 1."""
        return self._share(sum(watch.high for watch in self.watches))

    def _share(self, count: int) -> float:
        return count / max(1, sum(watch.scored for watch in self.watches))


@dataclass(frozen=True)
class ActionRequest:
    """A decision to train some watches in one run; the lease behind it keeps the next evaluation from asking again."""

    kind: str  # cold_start | finetune | retrain
    cause: str  # one of actions.DECIDED
    slugs: tuple[str, ...]
    run_key: str


@dataclass(frozen=True)
class TrainingReport:
    """One watch's training. `version` is None where nothing could be trained; `promoted` says whether it serves."""

    slug: str
    kind: str
    reason: str
    version: int | None
    parent: int | None
    promoted: bool
    detail: str  # why it was promoted or not, for people
    series: int = 0
    series_refitted: int = 0
    span_start: int | None = None
    span_end: int | None = None
    sha256: str | None = None
    mae: float | None = None
    champion_mae: float | None = None
    coverage: float | None = None
    seconds: float = 0.0
    model_class: str = ""
    models: Mapping[str, int] = field(default_factory=dict)  # series by the model that forecasts them
    skipped: bool = False  # a decision that was answered before its run came to it: nothing is wrong
    draw: Callable[[], bytes] | None = None  # the plot as a PNG: drawn only where somebody will look


@dataclass(frozen=True)
class ActivationReport:
    """A change of what serves, or what serves now."""

    slug: str
    action: str  # promote | rollback | release | confirm
    version: int
    previous: int | None
    pinned: bool
    reason: str
    trained_run_id: str | None
    span_start: int
    span_end: int
    sha256: str


@dataclass(frozen=True)
class MonitorPlan:
    """What monitoring has to do: drain the event log, evaluate hours that end in [start, end], make late ones again.

    start, end: ends of hours, unix seconds; None where no hour is due
    """

    drain: bool
    start: int | None
    end: int | None
    late: bool


@dataclass(frozen=True)
class DrainReport:
    """One draining of the event log into segments.

    first_hour, last_hour: starts of the oldest and newest hour that events landed in; None where there were none
    """

    events: int
    duplicates: int
    dropped: int  # events of models that were deleted in between
    log_rows: int
    new_models: tuple[str, ...]  # "<project>/<name>"
    hours: Mapping[int, int] = field(default_factory=dict)  # start of the hour -> events that landed in it
    late_hours: int = 0  # of models: hours evaluated already, that will be again


@dataclass(frozen=True)
class ModelChange:
    """What happened to a model in production, as its partition of Dagster's `monitored_models` records it."""

    model: str  # "<project>/<name>"
    kind: str  # registered | baseline | a transition's kind: opened, escalated, resolved, …
    detail: str  # in a sentence, for people
    hour: int | None = None  # end of the evaluated hour, unix seconds
    baseline_version: int | None = None
    incident_id: int | None = None
    severity: str | None = None  # warn | critical


@dataclass(frozen=True)
class ModelScore:
    """The worst output of a model in the newest evaluated hour."""

    model: str  # "<project>/<name>"
    state: str
    psi: float
    adjusted: float
    warn: float  # thresholds in effect, of the adjusted PSI
    critical: float


@dataclass(frozen=True)
class HourReport:
    """One evaluated hour."""

    hour: int  # its end, unix seconds
    models: int
    states: Mapping[str, int]  # state -> models
    baselines: int  # versions made
    transitions: Mapping[str, int]  # kind -> how many


@dataclass(frozen=True)
class EvaluationReport:
    """What one evaluation did.

    states: state -> enabled models, by the newest evaluation that each has (of a replay: by the last that it made)
    worst: of the same evaluations those with the highest adjusted PSI, at most 20
    """

    hours: tuple[HourReport, ...]
    late_evaluations: int = 0  # (model, hour) made again
    behind: int = 0  # hours that are complete and still not evaluated: the next run goes on
    mode: str = "live"
    changes: tuple[ModelChange, ...] = ()  # in the order in which they happened
    states: Mapping[str, int] = field(default_factory=dict)
    worst: tuple[ModelScore, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeletionReport:
    """What went with a model: rows by table, rows of segments, and segments rewritten or dropped."""

    model: str
    tables: Mapping[str, int]
    rows: int
    segments: int


@dataclass(frozen=True)
class BacktestReport:
    """Every model on one watch's past; the scores are of `leads`, of which `reported` are told in tables.

    own:       the model that the watch has, as in standings, which are in order of their error
    series:    how many were judged; of_series: how many there are
    start:     first origin, end: newest time known to it all, unix seconds
    trained:   how many times each model was
    problem:   why nothing could be judged
    """

    slug: str
    selector: str
    step_seconds: int
    level: float
    own: str
    leads: tuple[int, ...] = ()
    reported: tuple[int, ...] = ()
    series: int = 0
    of_series: int = 0
    start: int = 0
    end: int = 0
    trained: int = 0
    origins: int = 0
    standings: tuple[Standing, ...] = ()
    advice: Advice | None = None
    problem: str | None = None
