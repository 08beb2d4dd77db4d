from collections.abc import Callable

import pytest
import sqlalchemy as sa

from sentinel_core import WatchConfig
from sentinel_core.pipeline import Engine, deciding
from sentinel_core.pipeline.deciding import LEASE_SECONDS, QUEUE_SECONDS
from sentinel_core.storage import schema, watch_store
from tests.moved_world import World

Watch = Callable[..., WatchConfig]
DRIFTS = {"drift_finetune_threshold": 1e-6, "drift_retrain_threshold": 2e-6, "drift_cooldown": "1m"}


@pytest.fixture
def drifting(world: World, load: Watch) -> Engine:
    """An engine whose one watch is at high drift."""
    engine = world.engine(load(**DRIFTS))
    engine.train(engine.sync_watches(), kind="cold_start", reason="test")
    for _ in range(14):
        world.tick(engine)
    return engine


def outcomes(engine: Engine) -> list[tuple[str, str | None]]:
    """(cause, outcome) of every action, oldest first."""
    table = schema.actions
    with engine.store.database.read() as conn:
        return [(row.cause, row.outcome) for row in conn.execute(sa.select(table).order_by(table.c.id))]


def test_a_tick_that_was_killed_is_made_up_for_within_the_step(world: World, load: Watch) -> None:
    """On a grid of an hour what was read and neither forecast nor scored is due at once, not with the next hour."""
    engine = world.engine(load(granularity="1h", horizon="2h", lookback="6h", history="5d"))
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")
    world.tick(engine, 3600)
    assert engine.due() is None
    world.clock.now += 3600
    plan = engine.due()
    assert plan is not None
    engine.scrape_windows(plan.start, plan.end)
    for step in (engine.issue_forecasts, engine.score_drift):
        world.clock.now += 300
        plan = engine.due()
        assert plan is not None
        assert plan.start == plan.end
        step(plan.start, plan.end)
    assert engine.due() is None
    with engine.store.database.read() as conn:
        state = watch_store.states(conn)[slug]
    assert state.forecast_origin == state.scored_until == state.scraped_until == plan.end


def test_a_watch_that_cannot_be_read_does_not_tick_for_ever(world: World, load: Watch) -> None:
    """A metric that is not there is asked for again after a rest, and no other watch is dragged along."""
    hour = {"granularity": "1h", "horizon": "2h", "lookback": "6h"}
    engine = world.engine(load(**hour), load(metric="misspelt", **hour))
    _, bad = engine.sync_watches()
    report, _, _ = world.tick(engine)
    assert list(report.failures) == [bad]
    assert engine.due() is None
    world.clock.now += 301
    plan = engine.due()
    assert plan is not None
    assert plan.slugs == (bad,)


def test_a_cron_does_not_keep_drift_from_being_answered(world: World, drifting: Engine) -> None:
    """However often a cron trains and is rejected, high drift is decided as if it had not."""
    (slug,) = drifting.sync_watches()
    with drifting.store.database.write() as conn:
        watch_id = watch_store.watch_ids(conn)[slug]
        for k in range(9):
            at = world.clock.now - k
            row = {"kind": "retrain", "cause": "schedule", "run_id": "cron", "outcome": "rejected"}
            times = {"decided_at": at, "lease_until": at, "finished_at": at}
            conn.execute(sa.insert(schema.actions).values(watch_id=watch_id, **row, **times))
    (request,) = drifting.decide_actions()
    assert (request.kind, request.cause) == ("retrain", "drift")


def test_a_decision_is_answered_once(world: World, drifting: Engine) -> None:
    """Its run came so late that it was decided anew: the first run trains, the second has nothing to do."""
    (early,) = drifting.decide_actions()
    assert drifting.decide_actions() == []
    world.clock.now += QUEUE_SECONDS + 1
    (late,) = drifting.decide_actions()
    assert late.run_key != early.run_key
    first, second = [
        drifting.train(run.slugs, kind=run.kind, cause=run.cause, reason="x", run_id=run.run_key)[0]
        for run in (early, late)
    ]
    assert (first.version, first.reason, first.skipped) == (2, "high drift", False)
    assert (second.version, second.detail, second.skipped) == (None, "its decision was answered meanwhile", True)
    assert outcomes(drifting) == [("person", "promoted"), ("drift", "superseded"), ("drift", "promoted")]


def test_a_person_comes_before_a_decision(drifting: Engine) -> None:
    """A training by hand has its own scope and answers the decision that waits."""
    (request,) = drifting.decide_actions()
    (report,) = drifting.train(request.slugs, kind="retrain", reason="by hand")
    assert (report.version, report.reason) == (2, "by hand")
    (report,) = drifting.train(request.slugs, kind=request.kind, cause=request.cause, reason="x")
    assert report.skipped


def test_decisions_wait_while_their_run_works(world: World, load: Watch) -> None:
    """What was decided together is kept for its run; a worker that dies leaves it to the retry."""
    engine = world.engine(load(), load(horizon="10m"), load(horizon="15m"))
    (request,) = engine.decide_actions()
    ask = {"kind": request.kind, "reason": "x", "cause": request.cause}
    world.clock.now += QUEUE_SECONDS - 1
    assert engine.train(request.slugs[:1], **ask, run_id="killed")[0].promoted
    world.clock.now += QUEUE_SECONDS - 1
    watch_id = engine.context.watch_ids()[request.slugs[1]]
    with deciding.leased(engine.context, watch_id, **ask, run_id="killed"):
        assert engine.decide_actions() == []
    world.clock.now += LEASE_SECONDS + 1
    reports = engine.train(request.slugs, **ask, run_id="retry")
    assert [report.skipped for report in reports] == [True, False, False]
    assert outcomes(engine) == [("first", "promoted")] * 3


def test_a_replay_that_raises_leaves_the_tick_whole(world: World, load: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a person's model raises over missed origins, the live forecast stands and the watch is named."""
    engine = world.engine(load())
    (slug,) = engine.sync_watches()
    engine.train([slug], kind="cold_start", reason="test")

    def surprise(*arguments: object) -> None:
        raise KeyError("shape")

    monkeypatch.setattr("sentinel_core.pipeline.issuing._replay_origins", surprise)
    _, forecast, _ = world.tick(engine, 600)
    assert forecast.failures == {slug: "KeyError: 'shape'"}
    assert forecast.origins == 1
