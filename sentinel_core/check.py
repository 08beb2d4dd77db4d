"""`sentinel check`: what Prometheus has for each watch, and whether the settings make sense, in plain words."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

import numpy as np

from sentinel_core.config import SentinelConfig, WatchConfig, is_loopback
from sentinel_core.durations import format_duration, parse_duration
from sentinel_core.errors import SourceError
from sentinel_core.models.rows import nanmean
from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.prometheus.scrape import (
    SourceFacts,
    as_vector,
    emitted_name,
    expression,
    newest_step,
    scrape,
    source_facts,
)
from sentinel_core.windows import Window

SAMPLED_STEPS = 240  # read to learn the metric's scale; with 10,000 series 2.4 M samples
HISTORY_POINTS = 200  # how finely the start of the history is looked for
NEVER = 20.0  # a threshold this many usual errors high is not reached by a drift that anybody would call small
SUGGESTED = (1.5, 3.0)  # multiples of the usual error


@dataclass(frozen=True)
class WatchCheck:
    """What was found out about one watch; `problems` keep it from working, `advice` does not."""

    watch: WatchConfig
    series: int = 0
    facts: SourceFacts | None = None
    history_seconds: float = 0.0
    usual_error: float = math.nan  # of repeating the last value over the horizon, in the metric's unit
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = field(default=())


def check_watch(client: PrometheusClient, watch: WatchConfig, settle_seconds: float) -> WatchCheck:
    """Ask Prometheus about one watch; its own problems are in the result, SourceError only if Prometheus is away."""
    now = client.now()
    end = newest_step(now, watch.step_seconds, settle_seconds)
    steps = max(SAMPLED_STEPS, 2 * watch.horizon_steps)
    facts = None
    try:
        facts = source_facts(client, watch, now)
        found = scrape(client, watch, facts, end - steps * watch.step_seconds, end)
        history = _history_seconds(client, watch, facts, end)
    except SourceError as error:
        return WatchCheck(watch, facts=facts, problems=(str(error),))
    if not found.series:
        return WatchCheck(
            watch,
            facts=facts,
            problems=(f"no series has had a sample for {format_duration(steps * watch.step_seconds)}; is it scraped?",),
        )
    usual = usual_error(found.window, watch.horizon_steps)
    advice = [*_history_advice(watch, history), *_step_advice(watch, facts), *threshold_advice(watch, usual)]
    if found.duplicates:
        advice.append(
            f"{found.duplicates:,} series are left out: renamed as /metrics wants it, their labels are those of others"
        )
    if found.non_finite:
        advice.append(f"{found.non_finite:,} recent samples are NaN or infinite; they are treated as gaps")
    return WatchCheck(watch, len(found.series), facts, history, usual, advice=tuple(advice))


def usual_error(window: Window, horizon_steps: int) -> float:
    """Median over series of the MAE of repeating the last value over the horizon; NaN where nothing can be compared.

    >>> values = np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> usual_error(Window(np.array([1]), np.arange(4) * 60, values, 60), horizon_steps=2)
    1.5
    """
    per_lead = [
        nanmean(np.abs(window.values[:, lead:] - window.values[:, :-lead]))
        for lead in range(1, min(horizon_steps, window.values.shape[1] - 1) + 1)
    ]
    if not per_lead:
        return math.nan
    per_series = nanmean(np.stack(per_lead, axis=1))
    finite = per_series[np.isfinite(per_series)]
    return float(np.median(finite)) if len(finite) else math.nan


def threshold_advice(watch: WatchConfig, usual: float) -> Iterator[str]:
    """What is wrong with a watch's drift thresholds for a metric with this usual error."""
    low = watch.drift_finetune_threshold
    if watch.drift_unit == "auto":
        return
    if watch.drift_unit == "scaled":
        if low <= 1.0:
            yield (
                f"drift_finetune_threshold = {low:g} is not above the training error itself (1): drift is reported "
                f"all the time; write {SUGGESTED[0]:g} and {SUGGESTED[1]:g}"
            )
        return
    if not math.isfinite(usual):
        return
    if usual == 0:
        yield "the metric has been constant; its thresholds cannot be judged"
        return
    remedy = (
        f"write drift_finetune_threshold = {SUGGESTED[0] * usual:.2g} and drift_retrain_threshold = "
        f'{SUGGESTED[1] * usual:.2g}, or leave both out and write drift_unit = "auto"'
    )
    if low < usual / 2:
        yield (
            f"drift_finetune_threshold = {low:g} is far below the usual error of {usual:.3g}: an ordinary forecast "
            f"counts as drift; {remedy}"
        )
    elif low > NEVER * usual:
        yield (
            f"drift_finetune_threshold = {low:g} is more than {NEVER:g} times the usual error of {usual:.3g}: drift is "
            f"hardly ever reported; {remedy}"
        )


def monitoring_advice(config: SentinelConfig, receivers: int) -> Iterator[str]:
    """What is wrong with the settings of models in production, where so many receivers are told of incidents."""
    if receivers and is_loopback(urlsplit(config.public_url).hostname or ""):
        yield (
            f"receivers of alerts: {receivers}; their links lead to {config.public_url}, which is this "
            'machine alone; write external_url = "https://…", where people reach the page'
        )
    rule = config.monitoring
    past_days = max(7 * rule.baseline_weeks if rule.baseline == "same_weekday" else 0, rule.baseline_days)
    reach = (past_days + rule.max_current_days) * 24 * config.hour_seconds
    if parse_duration(config.event_retention) < reach:
        yield (
            f"event_retention = {config.event_retention} is less than what a model is compared with, "
            f"{format_duration(reach)}; write that much, or shorten baseline_weeks"
        )


def describe(check: WatchCheck, end: float) -> Iterator[str]:
    """The lines for people; `end` is now, unix seconds."""
    watch, facts = check.watch, check.facts
    yield f"{watch.selector}  (slug {watch.slug})"
    if check.series and facts:
        name = emitted_name(watch, facts.kind)
        scraped = "" if watch.query else f", scraped every {facts.scrape_interval:g} s"
        yield f"  {check.series:,} series, {facts.kind}{scraped}; emitted as {name}_sentinel_predicted"
        since = datetime.fromtimestamp(end - check.history_seconds, UTC)
        yield (
            f"  history: {check.history_seconds / 86_400:.1f} days (since {since:%Y-%m-%d %H:%M} UTC), of "
            f"{watch.history} wanted"
        )
        if math.isfinite(check.usual_error):
            yield f"  usual error of the last value over {watch.horizon}: {check.usual_error:.3g}"
    for problem in check.problems:
        yield f"  PROBLEM: {problem}"
    for advice in check.advice:
        yield f"  note: {advice}"
    if not check.problems and not check.advice:
        yield "  good"


def _history_seconds(client: PrometheusClient, watch: WatchConfig, facts: SourceFacts, end: int) -> float:
    """How far back the first sample within `history` lies, to a two-hundredth of it."""
    span = watch.history_steps * watch.step_seconds
    step = max(1, math.ceil(watch.history_steps / HISTORY_POINTS)) * watch.step_seconds
    moment = expression(watch, facts) if watch.query is None else as_vector(client, watch.query, end)[0]
    counts = client.query_range(f"count({moment}\n)", end - span, end, step, 1)
    present = np.flatnonzero(np.isfinite(counts.values).any(axis=0)) if counts.values.size else np.empty(0, np.int64)
    return float(end - counts.timestamps[present[0]]) if len(present) else 0.0


def _history_advice(watch: WatchConfig, history: float) -> Iterator[str]:
    needed = (watch.lookback_steps + watch.horizon_steps) * watch.step_seconds
    if history < needed:
        yield (
            f"lookback + horizon need {format_duration(needed)} of history; the first model is trained in about "
            f"{format_duration(max(watch.step_seconds, math.ceil(needed - history)))}"
        )


def _step_advice(watch: WatchConfig, facts: SourceFacts) -> Iterator[str]:
    if watch.query is None and facts.scrape_interval > 1.5 * watch.step_seconds:
        yield (
            f"granularity {watch.granularity} is shorter than the scrape interval of {facts.scrape_interval:g} s: "
            "values repeat; write a longer granularity"
        )
