"""Who may send, how much, and what is durable once it was acknowledged."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client import CollectorRegistry

from sentinel_core.apps import event_writer
from sentinel_core.apps.event_writer import EventWriter
from sentinel_core.errors import ServiceError, StoreError
from sentinel_core.monitoring.events import Submission
from sentinel_core.storage import event_log, model_store
from sentinel_core.storage.store import Store
from tests.apps.server import eventually
from tests.ingest.conftest import Ingest, event
from tests.ingest.ingest_app import logged, model_names, new_key

Serve = Callable[..., Ingest]


def test_a_key_decides_who_may_send(ingest: Ingest) -> None:
    """No key and a wrong one are 401, one without the scope is 403, another method is 405; all of them problems."""
    post = ingest.http.post
    del ingest.http.headers["Authorization"]
    answers = [
        post("/v1/events", json=event()),
        post("/v1/events", json=event(), headers={"Authorization": "Basic abc"}),
        post("/v1/events", json=event(), headers={"Authorization": f"Bearer sml_live_{'0' * 16}_{'0' * 64}"}),
        post("/v1/events", json=event(), headers={"Authorization": f"Bearer {new_key(ingest.store, 'read')}"}),
        ingest.http.get("/v1/events"),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 403, 405]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers[:4])
    assert not len(logged(ingest.store))


def test_a_key_that_was_just_made_is_good_at_once(ingest: Ingest) -> None:
    """Nobody waits for the sidecar to notice."""
    header = {"Authorization": f"Bearer {new_key(ingest.store)}"}
    assert ingest.http.post("/v1/events", json=event(), headers=header).status_code == 202


def test_a_rate_of_next_to_nothing_is_no_error(ingest: Ingest) -> None:
    """Its key is told to come back in a day."""
    slow = {"Authorization": f"Bearer {new_key(ingest.store, rate=1e-320)}"}
    assert ingest.batch(event(), headers=slow).status_code == 202
    refused = ingest.batch(event(), headers=slow)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "86400")


def test_a_rate_is_kept_per_key(ingest: Ingest) -> None:
    """One key that has sent too much waits as long as it is told; another one does not."""
    slow, fast = ({"Authorization": f"Bearer {new_key(ingest.store, rate=rate)}"} for rate in (10.0, None))
    assert ingest.batch(*[event()] * 100, headers=slow).status_code == 202
    refused = ingest.batch(event(), headers=slow)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 9
    assert ingest.batch(event(), headers=fast).status_code == 202
    assert len(logged(ingest.store)) == 101


def test_the_configured_rate_is_of_keys_that_have_none(sqlite_store: Store, serve: Serve) -> None:
    """It holds where the key says nothing else."""
    ingest = serve(sqlite_store, rate=1.0)
    assert [ingest.batch(event(), event()).status_code for _ in range(2)] == [202, 429]


def test_an_event_id_counts_once(store: Store, serve: Serve) -> None:
    """Within a batch, in a later one, as a single event and after a restart; each model has ids of its own."""
    ingest = serve(store)
    first = ingest.batch(event(event_id="a"), event(event_id="a"), event(event_id="b"), event(), event())
    assert first.json() == {"accepted": 4, "duplicates": 1, "rejected": []}
    assert ingest.one(event_id="b").json() == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert ingest.one(event_id="b", model_id="other").json()["accepted"] == 1
    again = serve(store)
    assert again.batch(event(event_id="a"), event(event_id="c")).json() == {
        "accepted": 1,
        "duplicates": 1,
        "rejected": [],
    }
    kept = logged(store)
    assert len(kept) == 6
    assert len(set(kept.id.tolist()) - {0}) == 4


def test_an_event_id_counts_once_across_requests_at_the_same_time(store: Store, serve: Serve) -> None:
    """Twenty threads send the same thousand events in their own order: each is accepted exactly once."""
    ingest = serve(store)
    sent = [event(event_id=str(number), score=number) for number in range(200)]

    def send(shift: int) -> int:
        rotated = sent[shift * 10 :] + sent[: shift * 10]
        with httpx.Client(base_url=ingest.http.base_url, headers=ingest.http.headers) as own:
            return sum(
                own.post("/v1/events/batch", json=rotated[start : start + 20]).json()["accepted"]
                for start in range(0, 200, 20)
            )

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(send, range(20))) == 200
    assert sorted(logged(store).score.tolist()) == list(range(200))


def test_a_new_model_is_registered_once(store: Store, serve: Serve) -> None:
    """However many requests bring it at once, and two sidecars beside each other."""
    sidecars = [serve(store), serve(store)]

    def send(number: int) -> int:
        with httpx.Client(base_url=sidecars[number % 2].http.base_url, headers=sidecars[0].http.headers) as own:
            return own.post("/v1/events/batch", json=[event(model_id=f"m{k}") for k in range(5)]).status_code

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(send, range(30))) == {202}
    assert sorted(model_names(store).values()) == [f"m{k}" for k in range(5)]
    assert len(logged(store)) == 150


def test_a_project_sees_only_its_own_models(ingest: Ingest) -> None:
    """The same name and event_id in two projects are two models and two events; each project says if new ones start."""
    with ingest.store.database.write() as connection:
        quiet = model_store.add_project(connection, "quiet", 0.0, monitor_new_models=False)
    other = {"Authorization": f"Bearer {new_key(ingest.store, project=quiet)}"}
    ingest.one(event_id="a")
    assert ingest.http.post("/v1/events", json=event(event_id="a"), headers=other).json()["accepted"] == 1
    with ingest.store.database.read() as connection:
        models = model_store.models(connection)
    assert [(model.project_id, model.name, model.enabled) for model in models] == [
        (1, "fraud", True),
        (quiet, "fraud", False),
    ]


def test_a_deleted_model_is_a_new_one_when_it_comes_back(ingest: Ingest) -> None:
    """Its events carry the new id, and an event_id of before counts again: nothing of it is there any more."""
    ingest.one(event_id="a")
    (old,) = model_names(ingest.store)
    with ingest.store.database.write() as connection:
        connection.exec_driver_sql("delete from event_log")
        connection.exec_driver_sql("delete from monitored_models")
    assert ingest.one(event_id="a").json()["accepted"] == 1
    (new,) = model_names(ingest.store)
    assert new != old
    assert logged(ingest.store).model.tolist() == [new]


def test_a_store_that_refuses_acknowledges_nothing(sqlite_store: Store, serve: Serve) -> None:
    """While another program locks the database the answer is 503 with Retry-After; afterwards the same event is new."""
    sqlite_store.database.lock_seconds = 0.2
    ingest = serve(sqlite_store)
    ingest.one()
    with sqlite_store.database.write():
        refused = ingest.one(event_id="a")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert ingest.one(event_id="a").json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert len(logged(sqlite_store)) == 2


def test_a_model_whose_registration_failed_takes_no_others_id(
    store: Store, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives the id that was rolled back to the next model, of whatever project; each has its own events."""
    ingest = serve(store)
    with ingest.store.database.write() as connection:
        project = model_store.add_project(connection, "other", 0.0)
    other = {"Authorization": f"Bearer {new_key(ingest.store, project=project)}"}

    def full(*_: object) -> None:
        raise StoreError("no space left on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(event_log, "append", full)
        assert ingest.one(model_id="secret").status_code == 503
    assert ingest.http.post("/v1/events", json=event(model_id="theirs"), headers=other).status_code == 202
    assert ingest.one(model_id="secret").status_code == 202
    names = model_names(ingest.store)
    assert [names[one] for one in logged(ingest.store).model.tolist()] == ["theirs", "secret"]


def test_too_much_that_waits_is_refused(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded: what does not fit is refused at once, and what waited is written at the end."""
    monkeypatch.setattr(event_writer, "MAX_WAITING", 3)
    writer = EventWriter(sqlite_store)

    def submission(count: int) -> Submission:
        return Submission(["m"] * count, [1] * count, [0] * count, [0.5] * count, [0.5] * count, [0] * count)

    async def fill() -> int:
        first = writer.submit(1, submission(2))
        with pytest.raises(ServiceError, match="2 events wait"):
            writer.submit(1, submission(2))
        writer.start()
        await asyncio.to_thread(writer.stop)
        return (await first).accepted

    assert asyncio.run(fill()) == 2
    assert len(logged(sqlite_store)) == 2


def test_events_are_counted_by_model_and_outcome(sqlite_store: Store, serve: Serve) -> None:
    """Accepted, duplicate and rejected; a name that no model has is not invented as a label."""
    registry = CollectorRegistry()
    ingest = serve(sqlite_store, registry=registry)
    ingest.batch(event(event_id="a"), event(event_id="a"), event())
    ingest.batch(event(age=1), event(model_id="typo", age=1))

    def count(model: str, outcome: str) -> float | None:
        labels = {"project": "default", "model": model, "outcome": outcome}
        return registry.get_sample_value("sentinel_events_total", labels)

    eventually(lambda: count("", "rejected") == 1)
    assert [count("fraud", outcome) for outcome in ("accepted", "duplicate", "rejected")] == [2, 1, 1]
    assert registry.get_sample_value("sentinel_events_waiting") == 0
