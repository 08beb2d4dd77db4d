"""Projects, models, settings, baselines, labels and progress, on SQLite and PostgreSQL."""

import threading

import pytest

from sentinel_core.config import MonitorConfig
from sentinel_core.errors import ConfigError, ConflictError
from sentinel_core.storage import model_store
from sentinel_core.storage.model_store import BaselineRow, MonitoredModel, StateRow
from sentinel_core.storage.store import Store

DEFAULTS = MonitorConfig()


def registered(store: Store, name: str = "fraud", project_id: int = 1) -> MonitoredModel:
    with store.database.write() as conn:
        return model_store.register(conn, [(project_id, name)], 5.0)[project_id, name]


def baseline(model_id: int, version: int, created_at: float = 0.0) -> BaselineRow:
    return BaselineRow(model_id, version, "sliding", 0, 10, "{}", "sentinel", "test", created_at)


def test_a_name_registered_by_many_at_once_is_one_model(store: Store) -> None:
    """Eight threads that have never heard of a model get the same id for it."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(registered(store).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert registered(store).enabled


def test_a_project_says_whether_its_models_start_enabled(store: Store) -> None:
    """The same name in another project is another model, and a project that is not there has none."""
    with store.database.write() as conn:
        quiet = model_store.add_project(conn, "quiet", 1.0, monitor_new_models=False)
        found = model_store.register(conn, [(1, "fraud"), (quiet, "fraud"), (99, "fraud")], 5.0)
    assert {key: one.enabled for key, one in found.items()} == {(1, "fraud"): True, (quiet, "fraud"): False}
    with store.database.read() as conn:
        assert model_store.model_named(conn, quiet, "fraud") == found[quiet, "fraud"]
        assert model_store.model(conn, found[quiet, "fraud"].id, 1) is None
        assert [one.project_id for one in model_store.models(conn, quiet)] == [quiet]


def test_names_of_projects_are_taken_once(store: Store) -> None:
    """A second project of a name is refused, by adding and by renaming; its own name is its own."""
    with store.database.write() as conn:
        other = model_store.add_project(conn, "other", 1.0)
        model_store.change_project(conn, other, name="other", monitor_new_models=False)
        for attempt in (
            lambda: model_store.add_project(conn, "default", 1.0),
            lambda: model_store.change_project(conn, other, name="default"),
        ):
            with pytest.raises(ConflictError, match="default"):
                attempt()
        assert [(one.name, one.monitor_new_models) for one in model_store.projects(conn)] == [
            ("default", True),
            ("other", False),
        ]


def test_models_are_paged_by_id(store: Store) -> None:
    """`after` and `limit` give each model once."""
    for name in "abcde":
        registered(store, name)
    with store.database.read() as conn:
        first = model_store.models(conn, limit=2)
        rest = model_store.models(conn, after=first[-1].id)
    assert "".join(one.name for one in first + rest) == "abcde"


def test_counters_of_events_grow(store: Store) -> None:
    """Events add up; the span of their times only widens."""
    model = registered(store)
    with store.database.write() as conn:
        model_store.note_events(conn, [(model.id, 3, 100, 200)])
        model_store.note_events(conn, [(model.id, 2, 50, 150)])
        found = model_store.model(conn, model.id)
    assert found is not None
    assert (found.events, found.first_event_at, found.last_event_at) == (5, 50, 200)


def test_settings_are_merged_replaced_and_given_back(store: Store) -> None:
    """A model's own settings lie over the configuration's; None gives one back."""
    model = registered(store)
    with store.database.write() as conn:
        model_store.update_settings(conn, model.id, {"bins": 5, "warn": 0.2}, DEFAULTS)
        merged = model_store.update_settings(conn, model.id, {"bins": 6, "warn": None}, DEFAULTS)
        replaced = model_store.update_settings(conn, model.id, {"min_samples": 500}, DEFAULTS, merge=False)
    assert merged.settings == {"bins": 6}
    assert merged.monitor_config(DEFAULTS) == MonitorConfig(bins=6)
    assert (replaced.settings, replaced.revision) == ({"min_samples": 500}, 3)


def test_impossible_settings_are_refused_with_every_problem(store: Store) -> None:
    """Unknown names and impossible values are all named, and nothing changes."""
    model = registered(store)
    with (
        store.database.write() as conn,
        pytest.raises(ConfigError, match=r"binz[\s\S]*bins: 99"),
    ):
        model_store.update_settings(conn, model.id, {"binz": 5, "bins": 99}, DEFAULTS)
    with store.database.read() as conn:
        assert model_store.model(conn, model.id) == model


def test_settings_read_before_somebody_elses_change_are_refused(store: Store) -> None:
    """Of two people who read the same revision the second is told to read again."""
    model = registered(store)
    with store.database.write() as conn:
        model_store.update_settings(conn, model.id, {"bins": 5}, DEFAULTS, revision=model.revision)
        with pytest.raises(ConflictError, match="read it again"):
            model_store.update_settings(conn, model.id, {"bins": 6}, DEFAULTS, revision=model.revision)


def test_settings_of_another_version_do_not_stop_the_evaluation(store: Store) -> None:
    """What is unknown or impossible by now is taken from the configuration."""
    model = registered(store)
    for settings in ({"gone": 1}, {"bins": 99}):
        odd = MonitoredModel(**{**vars(model), "settings": settings})
        assert odd.monitor_config(DEFAULTS) == DEFAULTS


def test_versions_are_never_reused(store: Store) -> None:
    """The newest of each model is known, the serving one is joined to it, and old ones are forgotten."""
    model = registered(store)
    with store.database.write() as conn:
        model_store.add_baselines(conn, [baseline(model.id, 1)])
        model_store.add_baselines(conn, [baseline(model.id, 2, 50.0)])
        assert model_store.newest_versions(conn, [model.id, 99]) == {model.id: 2}
        assert model_store.current_baselines(conn)[model.id].version == 2
        assert model_store.baseline_versions(conn) == {model.id: 2}
        assert model_store.forget_baselines(conn, 100.0) == 1
        assert [row.version for row in model_store.baselines(conn, [model.id])] == [2]


def test_only_the_first_thousand_labels_of_a_model_are_named(store: Store) -> None:
    """A model whose labels never repeat does not fill the store."""
    model = registered(store)
    with store.database.write() as conn:
        for start in range(0, 2_400, 600):
            model_store.add_labels(conn, {model.id: {label: str(label) for label in range(start, start + 600)}})
        found = model_store.labels(conn, [model.id])[model.id]
    assert sorted(found) == list(range(model_store.MAX_LABEL_NAMES))


def test_of_two_who_read_the_same_progress_one_commits(store: Store) -> None:
    """Drain and evaluation never commit work on the same rows."""
    with store.database.read() as conn:
        read = model_store.progress(conn)
    with store.database.write() as conn:
        after = model_store.advance(conn, read, 3_600)
        assert model_store.progress(conn) == after
        with pytest.raises(ConflictError, match="faster"):
            model_store.advance(conn, read)
        assert model_store.advance(conn, after).evaluated_until == 3_600


def test_late_hours_are_noted_once(store: Store) -> None:
    """However often events come for an hour, it is evaluated again once."""
    model = registered(store)
    with store.database.write() as conn:
        assert not model_store.has_late_hours(conn)
        for _ in range(2):
            model_store.add_late_hours(conn, [(model.id, 7_200), (model.id, 3_600)])
        assert model_store.late_hours(conn) == [(model.id, 3_600), (model.id, 7_200)]
        model_store.clear_late_hours(conn, [(model.id, 3_600)])
        assert model_store.has_late_hours(conn)


def test_a_deleted_model_leaves_no_row(store: Store) -> None:
    """Its state, baselines, labels and late hours go with it."""
    model, other = registered(store), registered(store, "other")
    with store.database.write() as conn:
        for one in (model, other):
            model_store.put_states(conn, [StateRow(one.id, 10, "ok", "{}")])
            model_store.add_baselines(conn, [baseline(one.id, 1)])
            model_store.add_labels(conn, {one.id: {7: "x"}})
            model_store.add_late_hours(conn, [(one.id, 0)])
        deleted = model_store.delete(conn, model.id)
        assert set(deleted.values()) == {1}
        assert model_store.model(conn, model.id) is None
        assert set(model_store.states(conn)) == {other.id}
        assert set(model_store.labels(conn, [model.id, other.id])) == {other.id}
