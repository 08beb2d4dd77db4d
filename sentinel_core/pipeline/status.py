"""What stands where: one entry for each watch, for people and for machines."""

from dataclasses import asdict, dataclass

from sentinel_core import registry
from sentinel_core.pipeline.context import Context
from sentinel_core.storage import series_models, watch_store


@dataclass(frozen=True)
class WatchStatus:
    """One watch. Times are unix seconds; errors are in the metric's unit; `buffer_fill` is 0 … 1 of the lookback."""

    slug: str
    model_class: str
    models: dict[str, int]  # live series by the model that forecasts them, which "auto" chooses for each
    ready: bool  # forecasts are served
    active_version: str | None
    active_version_mae: float | None
    pinned: bool
    drift_mae: float | None
    severity: str
    buffer_fill: float
    series: int
    last_tick: float | None  # that read and forecast it
    staleness_seconds: float | None
    last_error: str | None


def status(context: Context) -> dict[str, dict[str, object]]:
    """Every configured watch by its canonical selector; where two share one, their slugs are appended. Only reads."""
    now = context.clock()
    with context.store.database.read() as conn:
        states = watch_store.states(conn)
        serving = registry.serving(conn)
        models = series_models.counts(conn, [state.watch_id for state in states.values()])
    found: dict[str, dict[str, object]] = {}
    selectors = [watch.selector for watch in context.config.watches]
    for watch in context.config.watches:
        state = states.get(watch.slug)
        active = None if state is None else serving.get(state.watch_id)
        entry = WatchStatus(
            slug=watch.slug,
            model_class=watch.model_path,
            models={} if state is None else models.get(state.watch_id, {}),
            ready=active is not None and state is not None and state.forecast_origin is not None,
            active_version=None if active is None else f"v{active[1].version}",
            active_version_mae=None if active is None else active[1].mae,
            pinned=active is not None and active[0].pinned,
            drift_mae=None if state is None else state.drift_mae,
            severity=(None if state is None else state.severity) or "none",
            buffer_fill=0.0 if state is None else state.buffer_fill,
            series=0 if state is None else state.series_live,
            last_tick=None if state is None else state.fresh_at,
            staleness_seconds=None if state is None or state.fresh_at is None else now - state.fresh_at,
            last_error=None if state is None else state.last_error,
        )
        key = watch.selector if selectors.count(watch.selector) == 1 else f"{watch.selector} ({watch.slug})"
        found[key] = asdict(entry)
    return found
