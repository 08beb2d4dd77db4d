"""Sensors: what cannot wait for a cron. They translate a decision of the core into run requests."""

import dagster as dg

from sentinel_core.errors import ConfigError
from sentinel_core.pipeline import Engine
from sentinel_dagster import jobs
from sentinel_dagster.partitions import MODELS, WATCHES, model_key
from sentinel_dagster.resources import EngineResource, ask

QUICK_SECONDS = 5  # the daemon looks no more often
WATCHES_SECONDS = 15

_MINUTE = 60


@dg.sensor(
    job=jobs.train,
    minimum_interval_seconds=QUICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Cold starts, finetunes on low drift, retrains on high drift: one run for each kind and cause.",
)
def actions_sensor(context: dg.SensorEvaluationContext, engine: EngineResource) -> dg.SensorResult | dg.SkipReason:
    """Request the trainings that the core decided on; its lease keeps it from deciding twice."""

    def question(core: Engine) -> dg.SensorResult | dg.SkipReason:
        requests = [
            jobs.train_request(
                kind=action.kind,
                cause=action.cause,
                reason="decided from the state of the watch",  # the lease of each watch knows better
                slugs=list(action.slugs),
                run_key=action.run_key,
            )
            for action in core.decide_actions()
        ]
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("nothing to train")

    return ask(engine, question)


@dg.sensor(
    minimum_interval_seconds=WATCHES_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps partitions in step with the configured watches, and drops those of deleted models.",
)
def watches_sensor(context: dg.SensorEvaluationContext, engine: EngineResource) -> dg.SensorResult | dg.SkipReason:
    """Add a partition for each new watch, delete those of removed ones; their versions and events stay.

    A model in production gets its partition with its first event, see `assets.monitoring`.
    """
    known = set(context.instance.get_dynamic_partitions(str(WATCHES.name)))
    known_models = set(context.instance.get_dynamic_partitions(str(MODELS.name)))
    try:
        if not engine.configuration().watches and not known and not known_models:
            return dg.SkipReason("no watch is configured; add one to sentinel.toml")
    except ConfigError as error:
        return dg.SkipReason(f"the configuration cannot be read: {error}")
    with engine.open() as core:
        active = set(core.sync_watches())
        gone_models = known_models - {model_key(name) for name in core.model_names()}
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if active - known:
        requests.append(WATCHES.build_add_request(sorted(active - known)))
    if known - active:
        requests.append(WATCHES.build_delete_request(sorted(known - active)))
    if gone_models:
        requests.append(MODELS.build_delete_request(sorted(gone_models)))
    if not requests:
        return dg.SkipReason(f"{len(active)} watches, none new, none removed")
    return dg.SensorResult(dynamic_partitions_requests=requests)


@dg.sensor(
    job=jobs.tick,
    minimum_interval_seconds=QUICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ticks of watches with a granularity below a minute, and the first tick of any watch.",
)
def sub_minute_tick_sensor(
    context: dg.SensorEvaluationContext, engine: EngineResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a run for all that is due where one of them cannot wait for the minute."""

    def question(core: Engine) -> dg.RunRequest | dg.SkipReason:
        plan = core.due()
        if plan is None or not impatient(core).intersection(plan.slugs):
            return dg.SkipReason("no watch below a minute has a new step, and none is new")
        return jobs.tick_request(plan, "sensor", watches=len(core.config.watches))

    if jobs.in_flight(context.instance, "tick"):
        return dg.SkipReason("a tick is queued or running; the next one covers what it does not")
    return ask(engine, question)


def impatient(core: Engine) -> set[str]:
    """Return the slugs of watches below a minute and of those that were never tried."""
    quick = {watch.slug for watch in core.config.watches if watch.step_seconds < _MINUTE}
    fresh = {
        str(status["slug"])
        for status in core.status().values()
        if status["last_tick"] is None and status["last_error"] is None
    }
    return quick | fresh


@dg.sensor(
    job=jobs.deliver,
    minimum_interval_seconds=QUICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts that are owed, and those that a receiver wants to hear again.",
)
def outbox_sensor(context: dg.SensorEvaluationContext, engine: EngineResource) -> dg.RunRequest | dg.SkipReason:
    """Request a run where anything is due; no key, as what failed falls due again."""
    if jobs.in_flight(context.instance, "deliver"):
        return dg.SkipReason("alerts are being sent")
    return ask(
        engine,
        lambda core: dg.RunRequest() if core.deliveries_due() else dg.SkipReason("no alert is owed"),
        about_watches=False,
    )


SENSORS = [actions_sensor, watches_sensor, sub_minute_tick_sensor, outbox_sensor]
