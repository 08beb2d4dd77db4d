"""What goes over the wire: an event as JSON, a batch as a request, an answer as what to do next."""

import email.utils
import gzip
import json
import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

MAX_NAME = 200  # characters of model_id, event_id and a prediction that is text
GZIP_FROM = 4_096  # bytes: below it a batch fits into three packets anyway
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds: of a Retry-After


def encode_event(
    model_id: str, score: Any, prediction: Any, event_time: datetime | None, event_id: str | None
) -> bytes:
    """Return one event as JSON; NaN is sent as null: the model answered nothing. ValueError: it cannot be sent."""
    if score is None and prediction is None:
        event: dict[str, Any] = {"score": None}
    else:
        event = {}
    if score is not None:
        event["score"] = _number("score", _plain(score))
    if prediction is not None:
        prediction = _plain(prediction)
        if isinstance(prediction, str):
            event["prediction"] = _text("prediction", prediction, least=0)
        else:
            event["prediction"] = prediction if isinstance(prediction, bool) else _number("prediction", prediction)
    moment = datetime.now(UTC) if event_time is None else event_time
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError("event_time has to be a datetime with a time zone, as datetime.now(UTC)")
    event["model_id"] = _text("model_id", model_id)
    event["event_time"] = moment
    event["event_id"] = uuid.uuid4().hex if event_id is None else _text("event_id", event_id)
    return msgspec.json.encode(event)


def _plain(value: Any) -> Any:
    """Turn a numpy scalar into Python's."""
    return value.item() if hasattr(value, "item") and not isinstance(value, str | float) else value


def _number(name: str, value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {type(value).__name__}; it has to be a number" + " or text" * (name != "score"))
    if math.isinf(number := float(value)):
        raise ValueError(f"{name} is infinite; send None where the model answered nothing")
    return None if math.isnan(number) else number


def _text(name: str, value: Any, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= MAX_NAME:
        raise ValueError(f"{name} has to be text of {least} to {MAX_NAME} characters")
    return value


def request_of(events: Sequence[bytes], key: str) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a batch."""
    body = b"[" + b",".join(events) + b"]"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if len(body) >= GZIP_FROM:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    return body, headers


class _Accepted(msgspec.Struct):
    accepted: int
    duplicates: int
    rejected: list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What became of a batch.

    taken:  whether it is settled: accepted, counted already, or refused for good
    split:  whether it was too large, and smaller ones may not be
    wait:   seconds that the server asks for before the next attempt
    reason: what to tell people; empty where all is well
    """

    taken: bool
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    split: bool = False
    wait: float | None = None
    reason: str = ""


def answer_of(response: httpx.Response, events: int, now: float) -> Answer:
    """Judge a response to a batch of so many events; `now` is in unix seconds."""
    code = response.status_code
    if code == 202:
        try:
            found = msgspec.json.decode(response.content, type=_Accepted)
        except (msgspec.DecodeError, UnicodeDecodeError):  # a proxy's, a login page's: nothing was taken
            return Answer(False, reason="202, but not from Sentinel: something else answers at its address")
        reason = f"refused by Sentinel: {found.rejected[0].get('detail')}" if found.rejected else ""
        return Answer(True, found.accepted, found.duplicates, len(found.rejected), reason=reason)
    reason = f"{code} {_content(response).get('detail') or response.reason_phrase}"
    if code == 413 and events > 1:
        return Answer(False, split=True, reason=reason)
    if code in (400, 413, 415, 422):  # it would be refused again
        return Answer(True, rejected=events, reason=reason)
    return Answer(False, wait=_retry_after(response.headers.get("retry-after"), now), reason=reason)


def pause(attempt: int) -> float:
    """Seconds before attempt 1, 2, …: doubled each time, and spread so that many clients do not come at once."""
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 30))


def _content(response: httpx.Response) -> dict[str, Any]:
    try:
        content = json.loads(response.content)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _retry_after(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    if text.strip().isdigit():
        return min(LONGEST_WAIT, float(text))
    try:
        return min(LONGEST_WAIT, max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now))
    except ValueError:
        return None
