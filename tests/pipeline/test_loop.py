from collections.abc import Callable

import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.emitter.snapshot import SnapshotLoader
from sentinel_core.storage import forecast_store, watch_store, windows_store
from tests.moved_world import World
from tests.prometheus_server import PrometheusServer

Watch = Callable[..., WatchConfig]


def test_cold_start_reads_history_and_forecasts_at_once(world: World, load: Watch) -> None:
    """The first training reads the history itself: no buffer to fill, and the forecast stands when it returns."""
    engine = world.engine(load())
    (request,) = engine.decide_actions()
    assert request.kind == "cold_start"
    assert engine.decide_actions() == []  # leased
    (report,) = engine.train(request.slugs, kind=request.kind, reason="cold start", run_id="r1")
    assert report.promoted, report.detail
    assert report.version == 1
    assert report.series == 6
    assert report.coverage == pytest.approx(0.95, abs=0.05)
    assert report.draw is not None
    assert report.draw().startswith(b"\x89PNG")
    (status,) = engine.status().values()
    assert status["ready"]
    assert status["active_version"] == "v1"
    assert status["buffer_fill"] == 1.0
    assert status["series"] == 6
    with engine.store.database.read() as conn:
        state = watch_store.states(conn)[request.slugs[0]]
    assert state.forecast_segment_id is not None
    rows = forecast_store.read_segment(engine.store, state.forecast_segment_id)
    assert len(rows["mean"]) == 6 * 5
    assert set(rows["version"]) == {1}
    assert np.isfinite(rows["mean"]).all()
    assert (rows["lower"] <= rows["mean"]).all()
    assert (rows["mean"] <= rows["upper"]).all()


def test_ticks_neither_lose_nor_repeat_a_sample(world: World, load: Watch, prometheus: PrometheusServer) -> None:
    """An hour of ticks, some of them missed, leaves exactly what one request for the whole hour gives."""
    engine = world.engine(load())
    begin = world.clock.now
    for pause in (60, 60, 60, 600, 60, 1200, 60, 60):
        world.tick(engine, pause)
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    span = int(begin), int(world.clock.now) - 60
    ticked = windows_store.read_window(engine.store, 60, fingerprints, *span)
    other = world.engine(load(), artifact_store=str(world.folder.parent / "other"))
    other.scrape_windows(*span, mode="backfill")
    once = windows_store.read_window(other.store, 60, fingerprints, *span)
    np.testing.assert_array_equal(ticked.values, once.values)
    assert np.isfinite(ticked.values).all()


def test_a_hole_stays_a_hole(world: World, load: Watch, prometheus: PrometheusServer) -> None:
    """Where Prometheus has no sample there is none, and the report says how many are missing."""
    engine = world.engine(load())
    first, last = prometheus.history.hole
    report = engine.scrape_windows(first - 600, last + 600, mode="backfill")
    assert report.gaps == 6 * 10
    with engine.store.database.read() as conn:
        fingerprints = np.array(sorted(watch_store.known_series(conn, 1)))
    window = windows_store.read_window(engine.store, 60, fingerprints, first - 600, last + 600)
    assert np.isnan(window.values).sum() == 60
    assert np.isnan(window.values[:, 10:20]).all()


def test_forecasts_are_scored_at_their_own_time(world: World, load: Watch) -> None:
    """Every score equals the mean absolute difference between the actual and the forecasts made for that minute."""
    engine = world.engine(load(inner_level=0.8))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(12):
        _, _, drift = world.tick(engine)
    assert drift.watches[0].scored == 6
    end = int(world.clock.now) // 60 * 60
    scores = forecast_store.read_scores(engine.store, 60, end - 3600, end)
    rows = forecast_store.forecasts_for(engine.store, 60, end - 3600, end)
    window = windows_store.read_window(engine.store, 60, np.unique(scores["fp"]), end - 3600, end)
    checked = 0
    for fp, ts, mae in zip(scores["fp"], scores["ts"], scores["mae"], strict=True):
        actual = window.values[list(window.fingerprints).index(fp), (ts - window.timestamps[0]) // 60]
        made = rows["mean"][(rows["fp"] == fp) & (rows["ts"] == ts)]
        assert mae == pytest.approx(np.abs(actual - made).mean())
        checked += 1
    assert checked == 6 * 12
    inner = rows["inner_upper"] - rows["inner_lower"]
    assert ((inner > 0) & (inner <= rows["upper"] - rows["lower"])).all()
    assert np.isfinite(scores["anomaly"]).all()
    assert (scores["anomaly"] < 1).mean() > 0.5
    scored = zip(scores["fp"], scores["ts"], scores["anomaly"], strict=True)
    (block,) = SnapshotLoader(engine.store, engine.config).load(world.clock.now).forecasts
    shown = dict(zip(block.fingerprints, block.anomaly, strict=True))
    assert shown == {fp: score for fp, ts, score in scored if ts == scores["ts"].max()}


def test_drift_leads_to_training_and_back(world: World, load: Watch) -> None:
    """High drift is decided and leased, a retraining serves, and the series' residuals start anew."""
    engine = world.engine(load(drift_finetune_threshold=1e-6, drift_retrain_threshold=2e-6, drift_cooldown="1m"))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(14):
        _, _, drift = world.tick(engine)
    assert drift.watches[0].severity == "high"
    assert drift.share_high == 1.0
    (request,) = engine.decide_actions()
    assert (request.kind, request.slugs) == ("retrain", (slug,))
    (report,) = engine.train([slug], kind=request.kind, cause=request.cause, reason="x", run_id="run")
    assert report.reason == "high drift"
    assert report.version == 2
    assert report.promoted
    assert engine.status()["shop_load"]["severity"] == "none"
    assert engine.status()["shop_load"]["drift_mae"] is None
    _, _, drift = world.tick(engine)
    assert drift.watches[0].scored == 0


def test_low_drift_is_finetuned(world: World, load: Watch) -> None:
    """Between the thresholds the champion is continued, not replaced."""
    engine = world.engine(load(drift_finetune_threshold=1e-6, drift_retrain_threshold=1e9, drift_cooldown="1m"))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(14):
        world.tick(engine)
    (request,) = engine.decide_actions()
    assert request.kind == "finetune"
    (report,) = engine.train([slug], kind="finetune", reason="x")
    assert report.kind == "finetune"
    assert report.version == 2
    assert report.parent == 1


def test_rollback_is_shown_at_once_and_holds(world: World, load: Watch) -> None:
    """The previous version serves without waiting for a tick; a training meanwhile is recorded and does not serve."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test", run_id="first")
    world.tick(engine)
    # a configured change serves whether or not it is better: so there is a second version to roll back from
    engine = world.engine(load(lookback="20m"))
    (request,) = engine.decide_actions()
    assert request.kind == "retrain"
    engine.train([slug], kind="retrain", reason="test", run_id="second")
    assert engine.serving(slug).version == 2
    report = engine.roll_back(slug, reason="it looks wrong")
    assert (report.version, report.previous, report.pinned) == (1, 2, True)
    assert report.trained_run_id == "first"
    with engine.store.database.read() as conn:
        state = watch_store.states(conn)[slug]
    assert state.forecast_segment_id is not None
    assert set(forecast_store.read_segment(engine.store, state.forecast_segment_id)["version"]) == {1}
    (held,) = engine.train([slug], kind="retrain", reason="cron")
    assert not held.promoted
    assert engine.status()["shop_load"]["active_version"] == "v1"


def test_a_restart_goes_on_where_it_stopped(world: World, load: Watch) -> None:
    """Another process opens the store and serves the same version without training."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    again = world.engine(load())
    assert again.decide_actions() == []
    _, forecast, _ = world.tick(again)
    assert forecast.series == 6
    assert again.status()["shop_load"]["active_version"] == "v1"


def test_series_come_and_go(world: World) -> None:
    """A new pod is forecast by its watch's model at once, marked as such; the one that ended leaves."""
    world.clock.now -= 4 * 3600 + 600  # ten minutes before a pod hands over to the next
    engine = world.engine(
        WatchConfig(metric="shop_sessions", model_class="LinearTrendModel", history="1d", drift_cooldown="1m")
    )
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    assert engine.status()["shop_sessions"]["series"] == 1
    seen, versions = [], set()
    for _ in range(25):
        _, forecast, _ = world.tick(engine)
        seen.append(engine.status()["shop_sessions"]["series"])
        versions |= {forecast.pooled, forecast.naive}
    assert max(seen) == 2  # for five minutes the old pod may still be only late
    assert seen[-1] == 1
    assert versions == {0, 1}


def test_a_counter_becomes_a_rate(world: World) -> None:
    """Its series are called {metric}_rate and are per second, restarts included."""
    engine = world.engine(WatchConfig(metric="shop_requests_total", model_class="LinearTrendModel", history="1d"))
    (slug,) = engine.sync_watches()
    (report,) = engine.train([slug], kind="cold_start", reason="test")
    assert report.promoted, report.detail
    with engine.store.database.read() as conn:
        members = watch_store.series_of(conn, [1])
        _, fingerprints = watch_store.live_series(conn)
    assert {member.series.name for member in members} == {"shop_requests_total_rate"}
    end = int(world.clock.now)
    window = windows_store.read_window(engine.store, 60, fingerprints, end - 12 * 3600, end - 60)
    assert np.nanmin(window.values) >= 0
    assert np.nanmax(window.values) < 10


def test_two_watches_of_one_metric_do_not_disturb_each_other(world: World, load: Watch) -> None:
    """Overlapping watches with different horizons each have their own version and forecasts."""
    engine = world.engine(load(), load(horizon="10m", labels={"zone": "z0"}))
    slugs = engine.sync_watches()
    reports = engine.train(slugs, kind="cold_start", reason="test")
    assert [report.series for report in reports] == [6, 2]
    _, forecast, _ = world.tick(engine)
    assert forecast.rows == 6 * 5 + 2 * 10


def test_sub_minute_granularity(world: World, prometheus: PrometheusServer) -> None:
    """A 15 s watch ticks every 15 s."""
    world.clock.now = prometheus.history.end - 900 + 8.0
    engine = world.engine(
        WatchConfig(
            metric="shop_fast",
            model_class="LinearTrendModel",
            granularity="15s",
            horizon="1m",
            lookback="5m",
            history="1h",
        )
    )
    (slug,) = engine.sync_watches()
    (report,) = engine.train([slug], kind="cold_start", reason="test")
    assert report.promoted, report.detail
    for _ in range(8):
        _, forecast, _ = world.tick(engine, 15)
        assert forecast.series == 2
    end = int(world.clock.now) // 15 * 15 - 15
    with engine.store.database.read() as conn:
        _, fingerprints = watch_store.live_series(conn)
    window = windows_store.read_window(engine.store, 15, fingerprints, end - 300, end)
    assert np.isfinite(window.values).all()


def test_missed_hours_are_caught_up(world: World, load: Watch) -> None:
    """After two hours of silence one tick reads all of it and keeps the missed origins as replays."""
    world.clock.now -= 4 * 3600
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    scraped, forecast, _ = world.tick(engine, 2 * 3600)
    assert scraped.samples >= 6 * 120
    assert forecast.origins == 120
    end = int(world.clock.now) // 60 * 60
    replays = forecast_store.read_forecasts(engine.store, 60, mode=1)
    assert len(np.unique(replays["origin"])) == 119
    live = forecast_store.read_forecasts(engine.store, 60, origin=end)
    assert len(live["mean"]) == 30


def test_a_replay_of_the_past_sees_only_the_past(world: World, load: Watch) -> None:
    """Origins before any version are forecast by a model refitted on data before them; nothing live changes."""
    engine = world.engine(load(history="6h"))
    end = int(world.clock.now) // 3600 * 3600
    engine.scrape_windows(end - 8 * 3600, end - 60, mode="backfill")
    report = engine.issue_forecasts(end - 3600, end - 60, mode="replay")
    assert report.failures == {}
    assert report.origins == 60
    assert engine.status()["shop_load"]["ready"] is False
    (request,) = engine.decide_actions()
    engine.train(request.slugs, kind=request.kind, reason="test")
    drift = engine.score_drift(end - 3600, end - 60, mode="replay")
    assert drift.watches[0].scored == 6
    assert engine.status()["shop_load"]["drift_mae"] is None


@pytest.mark.postgres
def test_the_loop_on_postgresql(world: World, load: Watch, postgres_url: str) -> None:
    """Cold start, ticks, a retraining, a rollback and a release are the same on PostgreSQL."""
    engine = world.engine(load(), sql_url=postgres_url)
    (request,) = engine.decide_actions()
    engine.train(request.slugs, kind=request.kind, reason="test")
    for _ in range(3):
        _, forecast, drift = world.tick(engine)
        assert forecast.series == 6
    assert drift.rows > 0
    changed = world.engine(load(lookback="20m"), sql_url=postgres_url)
    (request,) = changed.decide_actions()
    (report,) = changed.train(request.slugs, kind=request.kind, reason="test")
    assert (report.version, report.promoted) == (2, True)
    assert changed.roll_back(report.slug, reason="test").version == 1
    assert changed.release(report.slug, reason="test").version == 1
    assert changed.maintain()["conflicts"] == 0


def test_after_a_rollback_the_older_version_is_scored_at_once(world: World, load: Watch) -> None:
    """Forecasts of the version that was rolled back do not hide those of the one that serves."""
    engine = world.engine(load(horizon="20m", drift_window=30))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    engine = world.engine(load(horizon="20m", drift_window=30, lookback="20m"))
    (request,) = engine.decide_actions()
    engine.train(request.slugs, kind=request.kind, reason="test")
    for _ in range(12):
        world.tick(engine)
    assert engine.roll_back(slug, reason="test").version == 1
    for _ in range(12):
        _, _, drift = world.tick(engine)
    assert drift.watches[0].scored == 6


def test_scoring_again_keeps_what_an_older_version_was_scored(world: World, load: Watch) -> None:
    """A backfill of drift scores never destroys one, and a tick after weeks away reads only what its verdict needs."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(12):
        world.tick(engine)
    end = int(world.clock.now)
    before = forecast_store.read_scores(engine.store, 60, end - 3600, end)
    engine = world.engine(load(lookback="20m"))
    (request,) = engine.decide_actions()
    engine.train(request.slugs, kind=request.kind, reason="test")
    engine.score_drift(end - 3600, end, mode="replay")
    after = forecast_store.read_scores(engine.store, 60, end - 3600, end)
    np.testing.assert_array_equal(after["scaled"], before["scaled"])
    assert np.isfinite(after["scaled"]).all()
    np.testing.assert_array_equal(after["anomaly"], before["anomaly"])


def test_a_series_that_is_gone_no_longer_counts(world: World, load: Watch) -> None:
    """A pod that misbehaved and died leaves its watch's severity with it."""
    engine = world.engine(load(drift_finetune_threshold=1e-6, drift_retrain_threshold=2e-6))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    for _ in range(12):
        _, _, drift = world.tick(engine)
    assert drift.watches[0].high == 6
    with engine.store.database.write() as conn:
        watch_id, fingerprints = watch_store.live_series(conn)
        watch_store.mark_vanished(conn, int(watch_id[0]), fingerprints[:5], int(world.clock.now))
    report = engine.score_drift(0, int(world.clock.now))
    assert (report.watches[0].high, report.watches[0].scored) == (1, 1)
