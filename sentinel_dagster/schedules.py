"""Schedules: what every minute brings, each watch's cron, housekeeping. They translate; the core decides."""

from collections.abc import Callable, Iterable
from datetime import datetime

import dagster as dg

from sentinel_core.actions import SCHEDULE
from sentinel_core.config import SentinelConfig
from sentinel_core.durations import parse_duration
from sentinel_core.pipeline import Engine
from sentinel_dagster import jobs
from sentinel_dagster.resources import LONGEST_WAIT_SECONDS, EngineResource, ask

_WORDS = {"*": "any", "/": "per", ",": "and", "-": "to", "#": "nth", "@": "at", "?": "some", " ": "_"}

Evaluation = dg.RunRequest | dg.SkipReason


@dg.schedule(
    job=jobs.tick,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="One run for every watch that has a new step, over every hour that was missed.",
)
def tick_schedule(context: dg.ScheduleEvaluationContext, engine: EngineResource) -> Evaluation:
    """Ask the core what is due at this minute, counting the step that settles while the run starts."""
    now = context.scheduled_execution_time

    def question(core: Engine) -> Evaluation:
        plan = core.due(now.timestamp() + head_start(core.config))
        if plan is None:
            return dg.SkipReason("no watch has a new step")
        return jobs.tick_request(plan, f"{now:%H%M}", watches=len(core.config.watches))

    if jobs.in_flight(context.instance, "tick"):
        return dg.SkipReason("a tick is queued or running; the next one covers what it does not")
    return ask(engine, question)


@dg.schedule(
    job=jobs.monitor,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Models in production: one run where events wait in the log, or an hour is complete.",
)
def monitor_schedule(context: dg.ScheduleEvaluationContext, engine: EngineResource) -> Evaluation:
    """Ask the core what there is to do."""

    def question(core: Engine) -> Evaluation:
        plan = core.monitoring_due()
        if plan is None:
            return dg.SkipReason("no event waits in the log, and no hour is due")
        return jobs.monitor_request(plan, context.scheduled_execution_time)

    if jobs.in_flight(context.instance, "monitor"):
        return dg.SkipReason("an evaluation is queued or running; the next one covers what it does not")
    return ask(engine, question, about_watches=False)


def head_start(config: SentinelConfig) -> float:
    """Seconds by which to count a step as settled: the run waits for them, where that is not long.

    Without it every forecast of a 1-minute watch would be a minute older: at :00 the newest step has not settled.
    """
    settle = parse_duration(config.settle_delay)
    return settle if settle <= LONGEST_WAIT_SECONDS else 0.0


@dg.schedule(
    job=jobs.compact,
    cron_schedule="7 * * * *",  # the hour before has closed and been scored by then
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compacts the hour that has closed.",
)
def compact_schedule(context: dg.ScheduleEvaluationContext, engine: EngineResource) -> Evaluation:
    """Ask for a run, unless the configuration cannot be read."""
    return ask(engine, lambda core: dg.RunRequest(), about_watches=False)


@dg.schedule(
    job=jobs.maintain,
    cron_schedule="37 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Daily housekeeping: the store, and old runs.",
)
def maintain_schedule(context: dg.ScheduleEvaluationContext, engine: EngineResource) -> Evaluation:
    """Ask for a run, unless the configuration cannot be read."""
    return ask(engine, lambda core: dg.RunRequest(), about_watches=False)


def retrain_schedule(cron: str) -> dg.ScheduleDefinition:
    """Return the schedule of every watch with this cron; which watches these are is read at each evaluation."""

    @dg.schedule(
        name=retrain_name(cron),
        job=jobs.train,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Retrains every watch whose cron is {cron}, whatever its drift.",
    )
    def retrain(context: dg.ScheduleEvaluationContext, engine: EngineResource) -> Evaluation:
        return ask(engine, _retraining(cron, context.scheduled_execution_time))

    return retrain


def _retraining(cron: str, at: datetime) -> Callable[[Engine], Evaluation]:
    def question(core: Engine) -> Evaluation:
        slugs = [watch.slug for watch in core.config.watches if watch.cron == cron]
        if not slugs:
            return dg.SkipReason(f"no watch has the cron {cron} any more")
        return jobs.train_request(
            kind="retrain",
            cause=SCHEDULE,
            reason=f"cron {cron}",
            slugs=slugs,
            run_key=f"cron:{cron}:{at.isoformat()}",
        )

    return question


def retrain_name(cron: str) -> str:
    """Return a schedule's name, distinct for each cron.

    >>> retrain_name("0 */6 * * *")
    'retrain_0_anyper6_any_any_any'
    """
    return "retrain_" + "".join(_WORDS.get(letter, letter) for letter in " ".join(cron.split()))


def build_schedules(crons: Iterable[str]) -> list[dg.ScheduleDefinition]:
    """Return every schedule: the fixed ones, and one for each distinct cron."""
    return [
        tick_schedule,
        monitor_schedule,
        compact_schedule,
        maintain_schedule,
        *(retrain_schedule(cron) for cron in sorted(set(crons))),
    ]
