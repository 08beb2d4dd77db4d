"""What a watch ignores: an outage that is neither learnt, nor remembered, nor held against the model."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.pipeline import Engine
from sentinel_core.storage import forecast_store, watch_store, windows_store
from sentinel_core.windows import Window, grid
from tests.moved_world import World

Watch = Callable[..., WatchConfig]


def suffer(engine: Engine, start: int, end: int) -> None:
    """Overwrite what is stored of every series in [start, end]."""
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    times = grid(start, end, 60)
    outage = Window(np.sort(fingerprints), times, np.full((len(fingerprints), len(times)), 5_000.0), 60)
    pending = windows_store.write_windows(engine.store, 60, [outage])
    with engine.store.database.write() as conn:
        engine.store.segments.commit(conn, [pending])


def forecast(engine: Engine) -> np.ndarray:
    """The newest forecasts' means, of all series and leads."""
    with engine.store.database.read() as conn:
        (state,) = watch_store.states(conn).values()
    assert state.forecast_segment_id is not None
    return np.asarray(forecast_store.read_segment(engine.store, state.forecast_segment_id)["mean"])


def span(start: int, end: int) -> str:
    """As it is written in the configuration."""
    return "/".join(datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M") for second in (start, end))


def test_an_ignored_outage_leaves_no_trace(world: World, load: Watch) -> None:
    """Forecast, retraining and drift are as if it had not been; without the line it is in all of them."""
    engine = world.engine(load(drift_unit="scaled", drift_finetune_threshold=5.0, drift_retrain_threshold=10.0))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    calm = forecast(engine)
    for _ in range(12):
        world.tick(engine)
    end = int(world.clock.now) // 60 * 60
    outage = end - 9 * 60, end - 60
    suffer(engine, *outage)
    engine.issue_forecasts(0, 0)
    engine.score_drift(outage[0], end)
    assert forecast(engine).max() > 400
    (before,) = engine.score_drift(outage[0], end).watches
    assert before.severity == "high"

    ignoring = world.engine(
        load(drift_unit="scaled", drift_finetune_threshold=5.0, drift_retrain_threshold=10.0, ignore=[span(*outage)])
    )
    ignoring.issue_forecasts(0, 0)
    assert forecast(ignoring) == pytest.approx(calm, abs=10)
    (after,) = ignoring.score_drift(outage[0], end).watches
    assert after.severity == "none"
    with ignoring.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    stored = windows_store.read_window(ignoring.store, 60, np.sort(fingerprints), *outage)
    assert (stored.values == 5_000.0).all()  # only what the model is shown has a gap


def test_what_was_learnt_of_an_ignored_span_is_learnt_anew(world: World, load: Watch) -> None:
    """The line asks for one retraining, after which all is well; a span that is yet to come asks for none."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    now = int(world.clock.now)
    engine.train([slug], kind="cold_start", reason="test")
    to_come = load(ignore=[span(now + 7200, now + 9000)])
    assert world.engine(to_come).decide_actions() == []
    ignoring = world.engine(load(ignore=[span(now - 7200, now - 3600)]))
    (request,) = ignoring.decide_actions()
    assert request.kind == "retrain"
    (report,) = ignoring.train(request.slugs, kind=request.kind, reason="x", cause=request.cause)
    assert report.promoted, report.detail
    assert ignoring.decide_actions() == []


def test_a_context_that_is_all_ignored_holds_the_value_before(world: World, load: Watch) -> None:
    """While a long span lasts, the forecast is what was known when it began, and not nothing."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    end = int(world.clock.now) // 60 * 60
    calm = forecast(engine)
    suffer(engine, end - 3600, end)
    ignoring = world.engine(load(ignore=[span(end - 3600, end + 3600)]))
    ignoring.issue_forecasts(0, 0)
    held = forecast(ignoring)
    assert np.isfinite(held).all()
    assert held == pytest.approx(calm, abs=50)  # of an hour ago
