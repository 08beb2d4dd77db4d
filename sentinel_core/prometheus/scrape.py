"""A watch to a Window: which expression to ask so that every value is a fresh sample, and what to call the series.

A plain range query repeats each sample for five minutes: holes vanish and the newest point doubles. Here every grid
point t of a gauge is asked for the newest sample of its own tile (t - step, t], so no sample is ever used twice; only
where targets are scraped more rarely than the step must a value stand for more than one point. Counters become rates
per second, resets handled by Prometheus, and are kept only at points whose tile has a sample.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sentinel_core.config import WatchConfig
from sentinel_core.durations import format_duration
from sentinel_core.errors import PermanentSourceError
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.prometheus.decode import Labels, Matrix
from sentinel_core.series import LABEL_NAME, Series, format_selector, legal_name
from sentinel_core.windows import Window, grid

Kind = Literal["gauge", "counter"]

RATE_SCRAPES = 4  # a rate needs two samples; four scrapes leave it standing when one or two of them fail
SAME_INTERVAL = 1.01  # a measured interval within 1 % of the step is the step: clocks are never exact
SLACK = (
    0.1  # of the scrape interval, so that a late scrape is no hole where targets are scraped more rarely than the step
)
MEASURED_SPANS = ("10m", "1h", "1d")  # how far back to look for three samples in a row
PROBE_SECONDS = (
    3_600  # to count a week's series reads all their samples (6 s for 10k); an hour's, and 20 moments', do not
)
PROBES = 20

_RESERVED_LABEL = re.compile(r"le|quantile|sentinel_.*")  # ours, or the exposition format's
_PARENTS = {"_count": ("histogram", "summary"), "_sum": ("histogram", "summary"), "_bucket": ("histogram",)}


@dataclass(frozen=True)
class SourceFacts:
    """What Prometheus knows about a watch's metric; `scrape_interval` in seconds."""

    kind: Kind
    scrape_interval: float


@dataclass(frozen=True)
class Scrape:
    """One reading of a watch; `series` is aligned with `window.fingerprints`.

    non_finite: samples that were NaN or infinite, kept as gaps
    gaps:       grid points without a sample
    duplicates: series dropped because renaming made them equal to another; the first by original labels stays
    """

    window: Window
    series: list[Series]
    non_finite: int
    gaps: int
    duplicates: int


def newest_step(now: float, step_seconds: int, settle_delay: float) -> int:
    """The newest grid timestamp that has settled by Prometheus' clock.

    >>> newest_step(now=124.0, step_seconds=60, settle_delay=5.0)
    60
    """
    return int((now - settle_delay) // step_seconds) * step_seconds


def source_facts(client: PrometheusClient, watch: WatchConfig, now: float) -> SourceFacts:
    """Ask for the metric's type and measure how often it is scraped; `now` is Prometheus' clock.

    The watch's `kind` overrides; a query's values are taken as they are. Where nothing can be measured (no sample for a
    day) the step stands in for the interval.
    """
    if watch.metric is None:
        return SourceFacts("gauge", watch.step_seconds)
    interval = _scrape_interval(client, watch.metric, watch.selector, now)
    kind = _kind(client, watch.metric) if watch.kind == "auto" else watch.kind
    return SourceFacts("counter" if kind == "counter" else "gauge", interval or watch.step_seconds)


def expression(watch: WatchConfig, facts: SourceFacts) -> str:
    """The PromQL to evaluate at each grid point.

    >>> expression(WatchConfig(metric="up"), SourceFacts("gauge", 15.0))
    'last_over_time(up[59999ms])'
    >>> expression(WatchConfig(metric="hits_total"), SourceFacts("counter", 15.0))
    'rate(hits_total[1m])'
    >>> expression(WatchConfig(metric="hits_total"), SourceFacts("counter", 60.0))
    'rate(hits_total[4m]) and last_over_time(hits_total[59999ms])'
    """
    if watch.query is not None:
        return watch.query
    newest = _newest_sample(watch, facts)
    if facts.kind == "gauge":
        return newest
    rate_seconds = max(watch.step_seconds, math.ceil(RATE_SCRAPES * facts.scrape_interval))
    rate = f"rate({watch.selector}[{format_duration(rate_seconds)}])"
    return f"{rate} and {newest}" if rate_seconds > watch.step_seconds else rate


def emitted_name(watch: WatchConfig, kind: Kind) -> str:
    """The name under which a watch's series travel: the metric's, `_rate` appended to a counter's, a query's `name`.

    >>> emitted_name(WatchConfig(metric="job:hits:sum"), "gauge")
    'job_hits_sum'
    """
    name = watch.metric or watch.name or ""
    return legal_name(f"{name}_rate" if kind == "counter" else name)


def scrape(client: PrometheusClient, watch: WatchConfig, facts: SourceFacts, start: int, end: int) -> Scrape:
    """Read every grid point of [start, end], unix seconds.

    An existing metric without samples in the span gives no series. PermanentSourceError for a metric that Prometheus
    has never seen, and for more series than `watch.max_series`: before any is fetched where they exist at one time, and
    as soon as the reading comes to them where series replace one another.
    """
    times = grid(start, end, watch.step_seconds)
    if not len(times):
        raise ValueError(f"no multiple of {watch.step_seconds} s lies in [{start}, {end}]")
    first, last = int(times[0]), int(times[-1])
    expected = _expect_series(client, watch, facts, first, last)
    if expected == 0 and watch.metric is not None and watch.metric not in client.metric_names(watch.selector):
        raise PermanentSourceError(
            f"Prometheus at {client.url} has no series {watch.selector}; check the metric's name and the labels"
        )
    matrix = client.query_range(
        expression(watch, facts),
        first,
        last,
        watch.step_seconds,
        expected,
        check=lambda count: _check_limit(watch, count, "at least "),
    )
    return _assemble(matrix, emitted_name(watch, facts.kind), watch.step_seconds)


def as_vector(client: PrometheusClient, query: str, at: int) -> tuple[str, int]:
    """A query as an aggregation takes it, and how many series it has at one time: a number becomes a vector of one.

    Here and wherever a query is wrapped, the bracket is closed on a line of its own: it may end in a comment.
    """
    try:
        return query, client.count(query, at)
    except PermanentSourceError as error:
        if "got scalar" not in str(error):
            raise
        return f"vector({query}\n)", 1


def _newest_sample(watch: WatchConfig, facts: SourceFacts) -> str:
    """The newest sample in a grid point's tile; where scrapes are rarer than the step, in the time between two."""
    if facts.scrape_interval > SAME_INTERVAL * watch.step_seconds:
        tile = format_duration(math.ceil(facts.scrape_interval * (1 + SLACK)))
    else:  # before Prometheus 3 ranges are closed on both sides: a millisecond less, or two tiles share a sample
        tile = f"{watch.step_seconds * 1_000 - 1}ms"
    return f"last_over_time({watch.selector}[{tile}])"


def _kind(client: PrometheusClient, metric: str) -> Kind:
    """From the target's metadata; `_total` where it is silent. OpenMetrics declares `hits_total` under `hits`."""
    try:
        declared = client.metadata_type(metric)
        if declared is None and metric.endswith("_total"):
            declared = client.metadata_type(metric.removesuffix("_total"))
        if declared is None:
            for suffix, parents in _PARENTS.items():
                if metric.endswith(suffix) and client.metadata_type(metric.removesuffix(suffix)) in parents:
                    declared = "counter"
    except PermanentSourceError:  # not every backend offers metadata; the queries themselves will tell what is wrong
        declared = None
    if declared is None:
        return "counter" if metric.endswith("_total") else "gauge"
    return "counter" if declared == "counter" else "gauge"


def _scrape_interval(client: PrometheusClient, metric: str, selector: str, now: float) -> float | None:
    """Median spacing of the samples of the most rarely scraped series, seconds; None without three samples in a day.

    Of the most rarely: two jobs may expose one metric, and a rate must find two samples in the slower one too.
    """
    for span in MEASURED_SPANS:
        counted = [
            (count, sorted((k, v) for k, v in labels.items() if LABEL_NAME.fullmatch(k)))
            for labels, count in client.query(f"count_over_time({selector}[{span}])", now)
            if count >= 3
        ]
        if not counted:
            continue
        _, labels = min(counted)
        times = max(client.sample_times(f"{format_selector(metric, labels)}[{span}]", now), key=len)
        interval = float(np.median(np.diff(times)))
        whole = round(interval)
        return float(whole) if abs(interval - whole) < (SAME_INTERVAL - 1) * interval else interval
    return None


def _expect_series(client: PrometheusClient, watch: WatchConfig, facts: SourceFacts, first: int, last: int) -> int:
    """How many series to expect at one time; PermanentSourceError above the watch's limit."""
    span = last - first + watch.step_seconds
    if watch.query is not None:
        moment, count = as_vector(client, watch.query, last)
    else:
        moment = _newest_sample(watch, facts)
        count = client.count(f"present_over_time({watch.selector}[{min(span, PROBE_SECONDS)}s])", last)
    _check_limit(watch, count)
    if span > PROBE_SECONDS:
        spacing = max(PROBE_SECONDS, span // PROBES)
        counts = client.query_range(f"count({moment}\n)", first, last, spacing, expected_series=1).values
        count = max(count, int(np.nan_to_num(counts).max(initial=0)))
        _check_limit(watch, count)
    return count


def _check_limit(watch: WatchConfig, count: int, quantifier: str = "") -> None:
    if count > watch.max_series:
        raise PermanentSourceError(
            f"{watch.selector} has {quantifier}{count} series, more than max_series = {watch.max_series}; "
            "narrow its labels, aggregate it in a query, or raise max_series"
        )


def _renamed(labels: Labels) -> Labels:
    """Labels that neither clash with ours nor with the exposition format: `exported_` before, as Prometheus does it."""
    result: Labels = {}
    for label, value in sorted(labels.items()):
        if label == "__name__":
            continue
        name = legal_name(label)
        if _RESERVED_LABEL.fullmatch(name):
            name = f"exported_{name}"
        while name in result or (name != label and name in labels):
            name = f"exported_{name}"
        result[name] = value
    return result


def _assemble(matrix: Matrix, name: str, step_seconds: int) -> Scrape:
    series = [Series.of(name, _renamed(labels)) for labels in matrix.labels]
    original = [sorted(labels.items()) for labels in matrix.labels]
    order = sorted(range(len(series)), key=lambda i: (series[i].fingerprint, original[i]))
    kept = [
        i for rank, i in enumerate(order) if rank == 0 or series[i].fingerprint != series[order[rank - 1]].fingerprint
    ]
    fingerprints = np.array([series[i].fingerprint for i in kept], dtype=np.int64)
    values = matrix.values[kept]
    return Scrape(
        window=Window(fingerprints, matrix.timestamps, values, step_seconds),
        series=[series[i] for i in kept],
        non_finite=int(matrix.non_finite[kept].sum()),
        gaps=values.size - int(matrix.samples[kept].sum()),
        duplicates=len(order) - len(kept),
    )
