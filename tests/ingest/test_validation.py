"""Each refused event is told by its place, its field and in words; the others beside it are kept."""

import gzip
import json
import socket
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sentinel_core.apps import events
from tests.ingest.conftest import Ingest, event
from tests.ingest.ingest_app import logged

WRONG: list[tuple[dict[str, Any], str, str | None]] = [
    ({"age": 40}, "unknown-field", "age"),
    ({"model_id": ...}, "missing-field", "model_id"),
    ({"event_time": ...}, "missing-field", "event_time"),
    ({"event_time": "2026-03-01T12:00:00"}, "no-offset", "event_time"),
    ({"event_time": "yesterday"}, "invalid-time", "event_time"),
    ({"event_time": 1_700_000_000}, "wrong-type", "event_time"),
    ({"event_time": "0001-01-01T00:00:00+14:00"}, "too-late", "event_time"),
    ({"event_time": timedelta(minutes=6)}, "in-the-future", "event_time"),
    ({"event_time": timedelta(days=-7, minutes=-1)}, "too-late", "event_time"),
    ({"score": "0.5"}, "wrong-type", "score"),
    ({"score": True}, "wrong-type", "score"),
    ({"score": float("nan")}, "not-finite", "score"),
    ({"score": float("inf")}, "not-finite", "score"),
    ({"prediction": float("-inf")}, "not-finite", "prediction"),
    ({"prediction": [1]}, "wrong-type", "prediction"),
    ({"prediction": "x" * 201}, "too-long", "prediction"),
    ({"model_id": "x" * 201}, "too-long", "model_id"),
    ({"model_id": ""}, "invalid-name", "model_id"),
    ({"model_id": "a\x00b"}, "invalid-name", "model_id"),
    ({"model_id": " fraud"}, "invalid-name", "model_id"),
    ({"event_id": "x" * 201}, "too-long", "event_id"),
    ({"event_id": 7}, "wrong-type", "event_id"),
    ({"score": ...}, "empty", "score"),
    ({"age": float("nan")}, "unknown-field", "age"),
]
GOOD: list[dict[str, Any]] = [
    {"event_time": timedelta(minutes=4)},
    {"event_time": timedelta(days=-7, minutes=5)},
    {"event_time": timedelta(0)},
    {"score": None},
    {"score": 5},
    {"score": 1e308, "prediction": -0.0},
    {"score": ..., "prediction": None},
    {"score": ..., "prediction": ""},
    {"prediction": False},
    {"prediction": 10**30},
    {"model_id": "x" * 200, "prediction": "é" * 200, "event_id": "漢" * 200},
]


@pytest.mark.parametrize(
    ("fields", "kind", "field"), WRONG, ids=[f"{kind}-{i}" for i, (_, kind, _f) in enumerate(WRONG)]
)
def test_a_wrong_event_is_refused_alone(ingest: Ingest, fields: dict[str, Any], kind: str, field: str | None) -> None:
    """As a single event, in an array and on a line: the problem says which and why, and its neighbours are kept."""
    wrong = json.dumps(event(**fields))
    single = ingest.http.post("/v1/events", content=wrong, headers={"content-type": "application/json"})
    assert single.status_code == 422
    assert single.headers["content-type"] == "application/problem+json"
    problem = single.json()
    assert problem.pop("detail")
    assert problem.pop("title")
    assert problem == {"type": f"urn:problem-type:sentinel:{kind}", "status": 422, "field": field}
    good = json.dumps(event())
    for content, media in (
        (f"[{good},{wrong},{good}]", "application/json; charset=utf-8"),
        (f"{good}\r\n\r\n{wrong}\n{good}\n", "application/x-ndjson"),
    ):
        answer = ingest.http.post("/v1/events/batch", content=content, headers={"content-type": media})
        assert answer.status_code == 202, answer.text
        assert (answer.json()["accepted"], answer.json()["duplicates"]) == (2, 0)
        (refused,) = answer.json()["rejected"]
        assert refused == single.json() | {"index": 1}
    assert len(logged(ingest.store)) == 4


def test_every_good_form_of_a_field_is_taken(ingest: Ingest) -> None:
    """Limits belong to what is allowed; numbers, labels and missing values keep what they are."""
    answer = ingest.batch(*(event(**fields) for fields in GOOD))
    assert answer.json() == {"accepted": len(GOOD), "duplicates": 0, "rejected": []}
    kept = logged(ingest.store)
    assert set(kept.texts.values()) == {"", "false", "é" * 200}
    assert kept.score[4] == 5.0
    assert kept.number[9] == 1e30


def test_a_label_is_shown_without_control_characters(ingest: Ingest) -> None:
    """A label with a zero in it counts as itself; its text is one that every database and page can hold."""
    ingest.one(prediction="a\x00b")
    assert list(logged(ingest.store).texts.values()) == ["a\N{REPLACEMENT CHARACTER}b"]


JSON = {"content-type": "application/json"}
REFUSED: list[tuple[str, bytes, dict[str, str], int]] = [
    ("/v1/events", b"{", JSON, 400),
    ("/v1/events", b"", JSON, 400),
    ("/v1/events", b"[]", JSON, 422),
    ("/v1/events", b'{"model_id":"\xff"}', JSON, 400),
    ("/v1/events", b'{"model_id":"\\ud800"}', JSON, 400),
    ("/v1/events", b"{}", {"content-type": "text/plain"}, 415),
    ("/v1/events", b"{}", {"content-type": "application/x-ndjson"}, 415),
    ("/v1/events", b"{}", {}, 415),
    ("/v1/events/batch", b"[{}", JSON, 400),
    ("/v1/events/batch", b"[" * 100_000, JSON, 400),
    ("/v1/events/batch", b"{}", JSON, 422),
    ("/v1/events/batch", b"[" + b"{}," * 1000 + b"{}]", JSON, 413),
    ("/v1/events/batch", b"{}\n" * 1001, {"content-type": "application/x-ndjson"}, 413),
    ("/v1/events/batch", b" " * (2 * 2**20 + 1), JSON, 413),
    ("/v1/events/batch", gzip.compress(b" " * (2 * 2**20 + 1)), JSON | {"content-encoding": "gzip"}, 413),
    ("/v1/events/batch", b"[]", JSON | {"content-encoding": "gzip"}, 400),
    ("/v1/events/batch", gzip.compress(b"[]" * 100)[:-9], JSON | {"content-encoding": "gzip"}, 400),
    ("/v1/events/batch", gzip.compress(b"") * 1001, JSON | {"content-encoding": "gzip"}, 413),
    ("/v1/events/batch", gzip.compress(b"[" + b"{}," * 690_000 + b"NaN]"), JSON | {"content-encoding": "gzip"}, 413),
    ("/v1/events/batch", b"[]", JSON | {"content-encoding": "br"}, 415),
]


@pytest.mark.parametrize(("path", "body", "headers", "status"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_a_request_that_cannot_be_read_is_a_problem(
    ingest: Ingest, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Malformed, too large, of another type or coding: the status says which, the body is problem+json."""
    answer = ingest.http.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


def test_a_body_without_an_announced_length_is_bounded(ingest: Ingest) -> None:
    """A chunked body is cut off where it grows too large."""
    parts = (b" " * 100_000 for _ in range(60))
    assert ingest.http.post("/v1/events/batch", content=parts, headers=JSON).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that is announced and never begins, nor one that stops in the middle."""
    monkeypatch.setattr(events, "BODY_SECONDS", 0.1)
    url = ingest.http.base_url
    head = f"POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: {ingest.http.headers['authorization']}\r\n"
    head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    for begun in ("", "{"):
        with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
            connection.sendall((head + begun).encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_gzip_of_several_members_is_one_body(ingest: Ingest) -> None:
    """What `cat a.gz b.gz` makes is read whole."""
    lines = [json.dumps(event(score=score)).encode() + b"\n" for score in (0.1, 0.2)]
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    content = b"".join(map(gzip.compress, lines))
    answer = ingest.http.post("/v1/events/batch", content=content, headers=headers)
    assert answer.json()["accepted"] == 2


def test_an_empty_batch_is_nothing_to_do(ingest: Ingest) -> None:
    """No event is no error."""
    assert ingest.batch().json() == {"accepted": 0, "duplicates": 0, "rejected": []}


def test_a_time_is_kept_to_the_second_whatever_its_offset(ingest: Ingest) -> None:
    """Nanoseconds are cut off, and an offset east of Greenwich is the same moment."""
    india = datetime.now(timezone(timedelta(hours=5, minutes=30)))
    ingest.one(event_time=f"{india:%Y-%m-%dT%H:%M:%S}.987654321+05:30")
    assert logged(ingest.store).ts.tolist() == [int(india.timestamp())]
