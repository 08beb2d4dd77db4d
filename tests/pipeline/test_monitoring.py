"""Models in production live through weeks: drained, evaluated each hour, late, missed, pinned, accepted and silent."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from sentinel_core.errors import ConfigError, NotFoundError, StoreError
from sentinel_core.incidents.findings import silence
from sentinel_core.monitoring.event_columns import decode
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.freezing import Kept
from sentinel_core.storage import event_log, event_store, model_store, schema
from tests.monitored_world import DAY, HOUR, START, MonitoredWorld

NewWorld = Callable[..., MonitoredWorld]


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    """Makes worlds on SQLite, or on the database that is given."""
    with ExitStack() as stack:

        def make(sql_url: str | None = None, **settings: Any) -> MonitoredWorld:
            return MonitoredWorld(tmp_path / "store", stack, sql_url, settings)

        yield make


@pytest.fixture
def world(new_world: NewWorld) -> MonitoredWorld:
    """A model with five weeks behind it, evaluated once."""
    world = new_world()
    world.grow_up()
    return world


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_world(request: pytest.FixtureRequest, new_world: NewWorld) -> MonitoredWorld:
    """The same world on SQLite and on PostgreSQL."""
    world = new_world(None if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    world.grow_up()
    return world


def steps(world: MonitoredWorld, incident_id: int) -> list[str]:
    """The kinds of an incident's transitions."""
    with world.store.database.read() as conn:
        table = schema.incident_transitions
        query = sa.select(table.c.kind).where(table.c.incident_id == incident_id).order_by(table.c.revision)
        return list(conn.scalars(query))


def change(world: MonitoredWorld, **settings: Any) -> None:
    """Change a model's own settings."""
    model_id = world.model()
    with world.store.database.write() as conn:
        model_store.update_settings(conn, model_id, settings, world.engine.config.monitoring)


def history(world: MonitoredWorld, name: str = "fraud") -> monitored.OutputHistory:
    """The scores of a model's only output."""
    config = world.engine.config
    (found,) = monitored.score_history(world.store, config, world.model(name), 0, 2**40)
    return found


def test_drift_opens_escalates_and_resolves(any_world: MonitoredWorld) -> None:
    """A shift for a day is one incident: it opens, becomes critical and resolves when the window is clean again."""
    any_world.live(24, mean=1.0)
    (incident,) = any_world.incidents()
    assert (incident.kind, incident.state, incident.severity) == ("psi", "open", "critical")
    any_world.live(24)
    (incident,) = any_world.incidents()
    assert incident.state == "resolved"
    assert steps(any_world, incident.id) == ["opened", "escalated", "resolved"]
    assert any_world.state() == "ok"


def test_a_lasting_shift_is_not_healed_by_time(world: MonitoredWorld) -> None:
    """A week after a permanent shift the incident is still open, against the baseline of before."""
    world.live(24, mean=1.0)
    world.skip(7 * 24, mean=1.0)
    world.live(1, mean=1.0)
    (incident,) = world.incidents()
    assert (incident.state, incident.baseline_version) == ("open", 1)
    assert history(world).adjusted[-1] > 0.5


def test_missed_hours_are_caught_up_in_order(world: MonitoredWorld) -> None:
    """After two days without an evaluation each hour of them is evaluated, with its transitions at their hours."""
    world.send(t0=START + HOUR, t1=START + 2 * DAY, mean=1.0)
    world.clock.now = START + 2 * DAY + 60.0
    assert (plan := world.engine.monitoring_due()) is not None
    assert (plan.start, plan.end) == (START + 2 * HOUR, START + 2 * DAY)
    world.engine.drain()
    report = world.engine.evaluate()
    assert [hour.hour for hour in report.hours] == list(range(START + 2 * HOUR, START + 2 * DAY + 1, HOUR))
    assert [change.kind for change in report.changes] == ["opened", "escalated"]
    assert report.changes[0].hour is not None
    assert START + 4 * HOUR < report.changes[0].hour < START + 14 * HOUR
    world.clock.now += 5
    assert world.engine.monitoring_due() is None


def test_a_model_that_comes_back_after_months_is_judged(world: MonitoredWorld) -> None:
    """No bins are made of weeks without events: those of before serve until there are enough."""
    for day in (2, 28, 57):
        world.clock.now = START + day * DAY + 60.0
        world.engine.evaluate()
    world.live(3 * 24)
    assert world.state() == "ok"
    world.live(24, mean=3.0)
    assert [one.kind for one in world.incidents()] == ["silence", "psi"]


def test_an_incident_against_a_pinned_baseline_freezes_what_is_natural(world: MonitoredWorld) -> None:
    """The counts are pinned already; phi is what it was when the incident opened."""
    world.engine.pin_baseline(world.model(), START - 14 * DAY, START, actor="ann", reason="")
    world.live(24, mean=1.0)
    (incident,) = world.incidents()
    assert incident.frozen is not None
    assert msgspec.json.decode(incident.frozen, type=Kept).phi.keys() == {0}


def test_a_clock_that_was_wrong_for_a_while_stops_nothing(any_world: MonitoredWorld) -> None:
    """Once it is right again hours are evaluated again, also of the incident that it opened."""
    right = any_world.clock.now
    any_world.clock.now += 3 * DAY
    any_world.engine.evaluate()
    (silence,) = any_world.incidents()
    any_world.clock.now = right
    assert any_world.engine.monitoring_due() is not None
    any_world.engine.evaluate()
    any_world.live(24, mean=1.0)
    silence, drift = any_world.incidents()
    assert (silence.state, drift.kind, drift.severity) == ("resolved", "psi", "critical")
    assert any_world.engine.monitoring_due() is None


def test_no_more_than_a_week_is_caught_up(world: MonitoredWorld) -> None:
    """After ten days without an evaluation the last seven are made up for."""
    world.clock.now = START + 10 * DAY + 60.0
    report = world.engine.evaluate(end=START + 4 * DAY)
    assert report.hours[0].hour == START + 3 * DAY + HOUR
    assert report.behind == 6 * 24


def test_late_events_land_in_their_hour_and_are_evaluated_again(world: MonitoredWorld) -> None:
    """What comes two days late changes the evaluations whose window holds its hour, and no other."""
    world.live(48)
    before = history(world)
    hour = START + 10 * HOUR
    sent = world.send(t0=hour, t1=hour + HOUR, rate=2_000, mean=3.0)
    report = world.engine.drain()
    assert report.hours == {hour: sent}
    assert report.late_hours == 1
    assert (plan := world.engine.monitoring_due()) is not None
    assert plan.late
    evaluated = world.engine.evaluate()
    assert (evaluated.late_evaluations, evaluated.hours) == (24, ())
    after = history(world)
    assert after.hours.tolist() == before.hours.tolist()
    touched = (before.hours > hour) & (before.hours <= hour + DAY)
    assert (after.psi[touched] > before.psi[touched] + 0.1).all()
    assert (after.psi[~touched] == before.psi[~touched]).all()
    assert not world.incidents()  # they go by evaluations of new hours
    assert world.engine.evaluate().late_evaluations == 0
    config = world.engine.config
    assert monitored.activity(world.store, config, world.model(), hour, hour + HOUR).events.sum() > sent


def test_a_replay_changes_nothing_but_scores(world: MonitoredWorld) -> None:
    """Past hours are evaluated over the baselines of then: same scores, no alert, no incident, no state."""
    world.live(12)
    world.skip(24 * 30)
    world.live(6)
    world.live(24, mean=1.0)
    with world.store.database.read() as conn:
        versions = [row.version for row in model_store.baselines(conn)]
        states, found = model_store.states(conn), world.incidents()
        timeline = conn.scalar(sa.select(sa.func.count()).select_from(schema.incident_transitions))
    assert len(found) == 1
    assert versions == [1, 2]
    before = history(world)
    (gap,) = np.flatnonzero(np.diff(before.hours) > HOUR)
    for start, end in ((0, gap), (gap + 1, -1)):
        report = world.engine.evaluate(int(before.hours[start]), int(before.hours[end]), mode="replay")
    assert report.states == {"critical": 1}
    after = history(world)
    np.testing.assert_allclose(after.psi, before.psi, rtol=1e-9)
    assert after.baseline.tolist() == before.baseline.tolist()
    assert after.state == before.state
    with world.store.database.read() as conn:
        assert model_store.states(conn) == states
        assert [row.version for row in model_store.baselines(conn)] == versions
        assert conn.scalar(sa.select(sa.func.count()).select_from(schema.incident_transitions)) == timeline
    assert world.incidents() == found


def test_a_replay_uses_the_baseline_that_served_then(world: MonitoredWorld) -> None:
    """Counts of a version that serves no more are made anew from the events."""
    world.live(30)
    before = history(world)
    world.engine.pin_baseline(world.model(), START - DAY, START, actor="ann", reason="a good day")
    world.live(2)
    world.engine.maintain()  # which drops the counts under the former version
    world.engine.evaluate(START + 10 * HOUR, START + 20 * HOUR, mode="replay")
    after = history(world)
    span = slice(8, 20)
    np.testing.assert_allclose(after.psi[span], before.psi[span], rtol=1e-9)
    assert after.baseline.tolist()[-2:] == [2, 2]
    assert set(after.baseline.tolist()[:-2]) == {1}


def test_a_pinned_baseline_stays(world: MonitoredWorld) -> None:
    """Once a week is pinned the model is compared with it, whatever comes, until it is released."""
    model_id = world.model()
    version = world.engine.pin_baseline(model_id, START - 21 * DAY, START - 14 * DAY, actor="ann", reason="good")
    world.live(30)
    assert version == 2
    assert history(world).n_baseline[-1] == pytest.approx(24 * 100, rel=0.1)
    assert world.state() == "ok"
    assert world.engine.unpin_baseline(model_id, actor="ann", reason="enough") == 3
    world.live(1)
    assert history(world).n_baseline[-1] == pytest.approx(4 * 24 * 100, rel=0.1)


@pytest.mark.parametrize(("start", "end"), [(START, START), (START - 400 * DAY, START), (START - 400 * DAY, 0)])
def test_no_span_that_cannot_be_is_pinned(world: MonitoredWorld, start: int, end: int) -> None:
    """An empty, endless or backward span is refused in words."""
    with pytest.raises(ConfigError):
        world.engine.pin_baseline(world.model(), start, end, actor="ann", reason="x")


def test_too_few_events_are_no_baseline(world: MonitoredWorld) -> None:
    """A span with fewer events than min_samples is refused, and so is a model that is not there."""
    with pytest.raises(ConfigError, match="200 are needed"):
        world.engine.pin_baseline(world.model(), START - 1800, START, actor="ann", reason="x")
    with pytest.raises(NotFoundError):
        world.engine.accept_as_new_normal(999, actor="ann", reason="x")


def test_a_new_normal_is_accepted(any_world: MonitoredWorld) -> None:
    """Accepting resolves the incident; the baseline begins at the window and slides on from there, alert to more."""
    any_world.live(24, mean=1.0)
    version = any_world.engine.accept_as_new_normal(any_world.model(), actor="ann", reason="the new release")
    (incident,) = any_world.incidents()
    assert incident.state == "resolved"
    assert steps(any_world, incident.id)[-1] == "accepted"
    any_world.live(1, mean=1.0)
    assert any_world.state() == "ok"
    any_world.skip(3 * 24, mean=1.0)
    any_world.live(1, mean=1.0)
    assert any_world.state() == "ok"
    assert history(any_world).baseline[-1] > version  # it slides by now
    assert len(any_world.incidents()) == 1
    any_world.skip(23, mean=4.0)
    any_world.live(1, mean=4.0)
    assert any_world.state() == "critical"


def test_an_incidents_hours_make_no_later_baseline(world: MonitoredWorld) -> None:
    """A week after a bad day that has resolved, the same weekday's baseline does not hold it."""
    world.live(12, mean=2.0)
    world.skip(30)
    world.live(4)
    assert world.incidents()[0].state == "resolved"
    world.skip(133)
    world.live(1)
    shown = history(world)
    assert shown.hours[-1] == START + 13 * HOUR + 7 * DAY
    assert shown.n_baseline[-1] == pytest.approx(4 * 24 * 100, rel=0.05)
    assert shown.adjusted[-1] < 0.01


def test_silence_is_an_incident_and_ends(world: MonitoredWorld) -> None:
    """A model that sends nothing for a day, where it used to, is one incident of silence and none of drift."""
    world.live(26, rate=0.0)
    (incident,) = world.incidents()
    assert (incident.kind, incident.state, incident.severity) == ("silence", "open", "warn")
    assert silence(incident.assessment).expected == pytest.approx(24 * 100, rel=0.1)
    assert world.state() == "no_data"
    world.live(4)
    assert world.incidents()[0].state == "resolved"


def test_no_silence_where_it_is_not_wanted(new_world: NewWorld) -> None:
    """With silence off a quiet model is shown without data, and nobody is told."""
    world = new_world()
    world.grow_up()
    change(world, silence=False)
    world.live(26, rate=0.0)
    assert (world.state(), world.incidents()) == ("no_data", [])


def test_a_disabled_model_is_drained_and_not_evaluated(world: MonitoredWorld) -> None:
    """Its events are kept and counted, so that it goes on where it is enabled again."""
    model_id = world.model()
    with world.store.database.write() as conn:
        model_store.set_enabled(conn, model_id, False)
    reports = world.live(30, mean=1.0)
    assert reports[-1].hours[0].models == 0
    assert world.incidents() == []
    with world.store.database.write() as conn:
        model_store.set_enabled(conn, model_id, True)
    world.live(1, mean=1.0)
    assert world.state() == "critical"


def test_the_first_days(new_world: NewWorld) -> None:
    """A model has too little data at first, then a baseline after a day, renewed as its history doubles."""
    world = new_world()
    world.live(5, rate=50.0)
    assert world.state() == "insufficient_data"
    for _ in range(8):
        world.skip(22, rate=50.0)
        world.live(2, rate=50.0)
    assert world.state() == "ok"
    with world.store.database.read() as conn:
        made = [(row.t1 - START) // DAY for row in model_store.baselines(conn)]
    assert made == [1, 2, 4, 8]
    assert world.incidents() == []


def test_other_bins_make_a_new_version(world: MonitoredWorld) -> None:
    """A change of the setting makes a version with the past counted anew."""
    change(world, bins=5)
    world.live(1)
    shown = history(world)
    assert shown.baseline.tolist() == [1, 1, 2][-len(shown.baseline) :]
    (distribution,) = monitored.distributions(world.store, world.engine.config, world.model())
    assert len(distribution.bins) in (5, 6)
    assert sum(distribution.baseline) == pytest.approx(1.0)
    assert shown.n_baseline[-1] == pytest.approx(shown.n_baseline[-2], rel=0.05)


def test_another_length_of_the_hour_counts_anew(world: MonitoredWorld) -> None:
    """Where monitor_step changes the past is counted by the new hour, and nothing is silent because of it."""
    half = world.another(monitor_step="30m")
    world.send(t0=START + HOUR, t1=START + 2 * HOUR)
    world.clock.now = START + 2 * HOUR + 60.0
    half.drain()
    assert [hour.hour for hour in half.evaluate().hours] == [START + HOUR + 1800, START + 2 * HOUR]
    assert world.state() == "ok"
    assert world.incidents() == []


def test_labels_and_numbers_beside_scores(new_world: NewWorld) -> None:
    """Labels have their texts in the distributions; a model may have any of the three outputs."""
    world = new_world()
    mix = {"approve": 0.7, "review": 0.2, "deny": 0.1}
    world.send("mix", t0=START - 35 * DAY, t1=START, labels=mix)
    count = 24 * 35 * 50
    world.send("price", t0=START - 35 * DAY, t1=START, numbers=world.rng.lognormal(size=count), scores=np.zeros(count))
    world.live(2, "mix", labels=mix)
    (labels,) = monitored.distributions(world.store, world.engine.config, world.model("mix"))
    assert (labels.output, set(labels.bins) & set(mix)) == (2, set(mix))
    shown = dict(zip(labels.bins, labels.current, strict=True))
    assert shown["approve"] == pytest.approx(0.7, abs=0.03)
    outputs = {one.output for one in monitored.score_history(world.store, world.engine.config, 2, 0, 2**40)}
    assert outputs == {0, 1}


def test_views_are_a_projects_own(world: MonitoredWorld) -> None:
    """Lists and single models of one project hold nothing of another."""
    with world.store.database.write() as conn:
        other = model_store.add_project(conn, "other", 0.0)
    world.send("fraud", t0=START + HOUR, t1=START + 2 * HOUR, project_id=other)
    world.live(1)
    config = world.engine.config
    with world.store.database.read() as conn:
        (mine,) = monitored.models(conn, config, 1)
        (theirs,) = monitored.models(conn, config, other)
        assert (mine.model.name, theirs.model.name) == ("fraud", "fraud")
        assert monitored.model(conn, config, other, mine.model.id) is None
        assert mine.assessment is not None
        assert (mine.state, theirs.state) == ("ok", "insufficient_data")


def test_events_of_a_deleted_model_are_gone_for_good(world: MonitoredWorld) -> None:
    """Rows, segments and the waiting log lose the model; what is left of others is untouched, byte for byte."""
    world.send("other", t0=START - 3 * DAY, t1=START + HOUR)
    world.live(2, "other")
    config, fraud = world.engine.config, world.model()
    world.send("fraud", t0=START + 2 * HOUR, t1=START + 3 * HOUR)
    other = event_store.read_events(world.store, 0, 2**40, ["ts", "score"], [world.model("other")])
    report = world.engine.delete_model(fraud)
    assert report.model == "fraud"
    assert report.rows > 84_000
    assert report.segments >= 36
    assert report.tables["event_log"] == 100
    world.engine.drain()
    assert not len(event_store.read_events(world.store, 0, 2**40, ["ts"], [fraud])["ts"])
    kept = event_store.read_events(world.store, 0, 2**40, ["ts", "score"], [world.model("other")])
    assert sorted(kept["score"].tolist()) == sorted(other["score"].tolist())
    assert monitored.score_history(world.store, config, fraud, 0, 2**40) == []
    with world.store.database.read() as conn:
        assert [one.name for one in model_store.models(conn)] == ["other"]
    with pytest.raises(NotFoundError):
        world.engine.delete_model(fraud)
    world.clock.now += DAY
    world.store.segments.collect_garbage(2.0**40)
    for name, _ in world.store.segments.folder.files():
        listed = [one for one in world.store.segments.segments(name.split("/")[0]) if one.path == name]
        assert listed
        assert fraud not in world.store.segments.read(listed, ["model"])["model"]
    assert b"fraud" not in b"".join(path.read_bytes() for path in world.folder.glob("sentinel.db*"))


def test_what_comes_after_a_deletion_is_a_new_model(world: MonitoredWorld) -> None:
    """Events that were on their way are dropped; later ones register the name under another id."""
    old = world.model()
    world.engine.delete_model(old)
    assert world.model() != old
    assert world.send(t0=START + HOUR, t1=START + 2 * HOUR) == 100
    assert world.engine.drain().new_models == ("default/fraud",)


def test_an_unreadable_row_stays_and_stops_nobody(world: MonitoredWorld) -> None:
    """Other rows of the log are drained, and the error names the one that stays."""
    with world.store.database.append() as conn:
        event_log.append(conn, 0.0, 1, b"nonsense")
    sent = world.send(t0=START + HOUR, t1=START + 2 * HOUR)
    with pytest.raises(StoreError, match="1 rows of the event log cannot be read"):
        world.engine.drain()
    with world.store.database.read() as conn:
        assert event_log.backlog(conn).rows == 1
        (model,) = model_store.models(conn)
    assert model.events == 84_000 + 100 + sent


def test_an_event_that_comes_again_is_counted_once(world: MonitoredWorld) -> None:
    """Also where the door has let it through, in the same drain or a later one."""
    world.send(t0=START + HOUR, t1=START + 2 * HOUR)
    with world.store.database.read() as conn:
        (row,) = event_log.read(conn)
    columns = decode(row.payload)
    world.append(columns)
    report = world.engine.drain()
    assert (report.events, report.duplicates) == (100, 100)
    world.append(columns)
    assert world.engine.drain().duplicates == 100
    world.append(replace(columns, id=np.zeros(100, np.int64)))
    assert world.engine.drain().events == 100  # without an id each is its own


def test_retention(world: MonitoredWorld) -> None:
    """Events, scores, incidents and baselines go after their days, and evaluation goes on from the counts."""
    world.live(24, mean=1.0)
    world.live(30)
    other = world.another(event_retention="7d", incident_retention="1d")
    assert other.maintain()["incidents_forgotten"] == 0
    oldest = event_store.read_events(world.store, 0, 2**40, ["ts"])["ts"].min()
    assert oldest >= START - 6 * DAY
    world.live(1)
    assert history(world).n_baseline[-1] > 5_000
    world.clock.now += 3 * DAY
    assert other.maintain()["incidents_forgotten"] == 1
    assert world.incidents() == []


def test_compaction_keeps_every_sum(world: MonitoredWorld) -> None:
    """Scores are the same before and after the small files of a day have become one."""
    world.live(30)
    config = world.engine.config
    before = monitored.distributions(world.store, config, world.model(), START + 20 * HOUR)
    for _ in range(5):
        world.live(1)
    count = len(world.store.segments.segments("counts"))
    world.clock.now += 2 * DAY
    assert world.engine.maintain()["merged"] > 10
    assert len(world.store.segments.segments("counts")) < count / 2
    assert monitored.distributions(world.store, config, world.model(), START + 20 * HOUR) == before


def test_nothing_is_due_where_nothing_is(new_world: NewWorld) -> None:
    """A store without models and watches asks for nothing; a waiting event does after some seconds."""
    world = new_world()
    assert world.engine.monitoring_due() is None
    world.clock.now += 10 * DAY
    assert world.engine.monitoring_due() is None
    world.send(t0=world.clock.now - 60, t1=world.clock.now)
    assert world.engine.monitoring_due() is None
    assert (plan := world.engine.monitoring_due(world.clock.now + 5)) is not None
    assert (plan.drain, plan.start, plan.late) == (True, None, False)


def test_a_shorter_hour(new_world: NewWorld) -> None:
    """The rule knows integer hours: with a step of a minute its days pass in 24 minutes."""
    world = new_world(monitor_step="1m")
    world.send(t0=START - 840 * 60, t1=START, rate=60 * 200.0)
    world.clock.now = START + 61.0
    world.engine.drain()
    world.send(t0=START, t1=START + 24 * 60, rate=60 * 200.0, mean=1.0)
    world.clock.now = START + 24 * 60 + 31.0
    world.engine.drain()
    report = world.engine.evaluate()
    assert report.hours[-1].hour == START + 24 * 60
    assert [change.kind for change in report.changes if change.kind != "baseline"] == ["opened", "escalated"]
