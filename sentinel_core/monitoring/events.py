"""Prediction events: what one may hold, what is wrong with one that may not, and the columns that are kept of it.

Nothing but model, time, score, prediction and a digest of event_id leaves this module: an unknown field is refused,
which is what keeps features and names of people out of the store.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec

MAX_NAME = 200  # characters of model_id, of event_id and of a prediction that is text
MAX_EVENTS = 1_000  # of one request
MAX_FUTURE_SECONDS = 300
MAX_LATE_SECONDS = 7 * 86_400

Form = Literal["event", "array", "lines"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event as an application sends it; `score` or `prediction` has to be there, and may be null (missing)."""

    model_id: Annotated[Name, msgspec.Meta(description="The model; it is registered by its first event.")]
    event_time: Annotated[datetime, msgspec.Meta(tz=True, description="When it predicted, with its UTC offset.")]
    score: Annotated[
        float | msgspec.UnsetType | None, msgspec.Meta(description="What the model computed; null: nothing.")
    ] = msgspec.UNSET
    prediction: Annotated[
        Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | bool | float | msgspec.UnsetType | None,
        msgspec.Meta(description="What was decided: a label, a truth value or a number."),
    ] = msgspec.UNSET
    event_id: Annotated[
        Name | None, msgspec.Meta(description="Unique per model: an event that comes again is counted once.")
    ] = None


class Problem(msgspec.Struct, omit_defaults=True, frozen=True):
    """RFC 9457: what was refused and why. `index` counts the events of the request from 0."""

    type: str
    title: str
    status: int
    detail: str
    index: int | None = None
    field: str | None = None


@dataclass(slots=True)
class Submission:
    """The events of one request that may be kept, as columns of equal length, and what was refused of it.

    models: name of each event's model; ts: whole unix seconds; ids: digest of event_id, 0 without one
    scores, numbers: NaN where there is none; labels: fingerprint, 0 where there is none
    texts: label -> what people call it
    refused: name of the model, empty where it cannot be told -> how many of its events were
    """

    models: list[str] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    rejected: list[Problem] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ts)


class Digest:
    """64 bits of a text under a secret, signed, never 0: known event ids can be told, others not guessed."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(digest_size=8, key=blake2b(secret, digest_size=32, person=b"event id").digest())

    def __call__(self, text: str) -> int:
        state = self._keyed.copy()
        state.update(text.encode())
        return int.from_bytes(state.digest(), "big", signed=True) or 1


@lru_cache(maxsize=20_000)
def fingerprint(label: str) -> int:
    """64 bits that stand for a label in the store, signed, never 0.

    >>> fingerprint("approve") == fingerprint("approve") != 0
    True
    """
    return int.from_bytes(blake2b(label.encode(), digest_size=8).digest(), "big", signed=True) or 1


class _Named(msgspec.Struct):
    model_id: str = ""


# ---- reading a body --------------------------------------------------------------------------------------------------

_ONE = msgspec.json.Decoder(Event)
_ARRAY = msgspec.json.Decoder(list[Event])
_NAMED = msgspec.json.Decoder(_Named)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # ValidationError is a DecodeError


def read(body: bytes, form: Form, now: float, digest: Digest) -> Submission | Problem:
    """Judge a request's body; a Problem where it is refused as a whole.

    form: one event, a JSON array of them, or one on each line. now: unix seconds
    """
    try:  # everything is right: one pass in C
        found = [_ONE.decode(body)] if form == "event" else (_ARRAY.decode if form == "array" else _lines)(body)
    except _UNREADABLE:
        return _judged(body, form, now, digest)
    if len(found) > MAX_EVENTS:
        return _too_many(len(found))
    return _columns(found, range(len(found)), now, digest)


def _lines(body: bytes) -> list[Event]:
    return _ONE.decode_lines(body)


def _judged(body: bytes, form: Form, now: float, digest: Digest) -> Submission | Problem:
    """Judge item by item."""
    items = [body] if form == "event" else _array_items(body) if form == "array" else _line_items(body)
    if isinstance(items, Problem):
        return items
    if len(items) > MAX_EVENTS:
        return _too_many(len(items))
    events, places, rejected, names = [], [], [], []
    for index, item in enumerate(items):
        one = _event(item)
        if isinstance(one, Event):
            events.append(one)
            places.append(index)
        else:
            rejected.append(msgspec.structs.replace(one, index=index))
            names.append(_model_of(item))
    kept = _columns(events, places, now, digest)
    kept.rejected = sorted([*rejected, *kept.rejected], key=lambda one: one.index or 0)
    for name in names:
        kept.refused[name] = kept.refused.get(name, 0) + 1
    return kept


def _line_items(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _array_items(body: bytes) -> Sequence[bytes | msgspec.Raw] | Problem:
    try:
        return _ITEMS.decode(body)
    except msgspec.ValidationError:
        return problem("not-an-array", "the body has to be a JSON array of events; one alone goes to /v1/events")
    except _UNREADABLE as error:
        # NaN and Infinity are no JSON, yet many programs write them: the events beside them are still good.
        found = _tolerant(body)
        if not isinstance(found, list):
            return problem("malformed", f"the body is not valid JSON: {_said(error)}", status=400)
        return _too_many(len(found)) if len(found) > MAX_EVENTS else [json.dumps(one).encode() for one in found]


def _model_of(item: bytes | msgspec.Raw) -> str:
    try:
        return _NAMED.decode(item).model_id
    except _UNREADABLE:
        return ""


def _event(item: bytes | msgspec.Raw) -> Event | Problem:
    try:
        return _ONE.decode(item)
    except msgspec.ValidationError as error:
        return _explained(str(error))
    except _UNREADABLE as error:
        found = _tolerant(bytes(item))
        if isinstance(found, dict):
            odd = [name for name, value in found.items() if isinstance(value, float) and not math.isfinite(value)]
            if odd:
                finite = json.dumps({**found, **dict.fromkeys(odd)}).encode()
                refused = _event(finite)
                return refused if isinstance(refused, Problem) else _not_finite(odd[0])
        return problem("malformed", f"not valid JSON: {_said(error)}", status=400)


def _tolerant(text: bytes) -> object:
    """Parse JSON with NaN and Infinity in it; None where it is not even that."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None


def _columns(events: Sequence[Event], places: Sequence[int], now: float, digest: Digest) -> Submission:
    kept = Submission()
    latest, earliest = now + MAX_FUTURE_SECONDS, now - MAX_LATE_SECONDS
    absent, nothing, good_name = msgspec.UNSET, math.nan, ""
    for place, event in zip(places, events, strict=True):
        score, prediction, name = event.score, event.prediction, event.model_id
        time = event.event_time.timestamp()
        wrong = None
        if name != good_name:
            if name.isprintable() and name == name.strip():
                good_name = name
            else:
                wrong = problem("invalid-name", _NAME, field="model_id")
        if not earliest <= time <= latest:
            wrong = wrong or (_FUTURE if time > latest else _LATE)
        if score is absent and prediction is absent:
            wrong = wrong or problem("empty", _EMPTY, field="score")
        if wrong:
            kept.rejected.append(msgspec.structs.replace(wrong, index=place))
            kept.refused[name] = kept.refused.get(name, 0) + 1
            continue
        number, label = nothing, 0
        if type(prediction) is float:
            number = prediction
        elif isinstance(prediction, str | bool):
            text = prediction if isinstance(prediction, str) else "true" if prediction else "false"
            label = fingerprint(text)
            if label not in kept.texts:
                kept.texts[label] = text if text.isprintable() else _shown(text)
        kept.models.append(name)
        kept.ts.append(math.floor(time))
        kept.ids.append(digest(event.event_id) if event.event_id is not None else 0)
        kept.scores.append(score if type(score) is float else nothing)
        kept.numbers.append(number)
        kept.labels.append(label)
    return kept


def _shown(text: str) -> str:
    """A label as it may be stored and shown: PostgreSQL takes no zero, a page no control characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


# ---- what is wrong, in words -----------------------------------------------------------------------------------------

TITLES = {
    "malformed": "Not valid JSON",
    "not-an-array": "Not an array of events",
    "too-many-events": "Too many events in one request",
    "unknown-field": "Unknown field",
    "missing-field": "Missing field",
    "no-offset": "Time without its UTC offset",
    "invalid-time": "Not a time",
    "in-the-future": "Event in the future",
    "too-late": "Event too late",
    "too-long": "Text too long",
    "invalid-name": "Name that cannot be",
    "not-finite": "Not a finite number",
    "wrong-type": "Wrong type",
    "empty": "Event without score and prediction",
}
_NAME = "model_id has to be printable text without space around it"
_EMPTY = "give score or prediction; null says that the model answered nothing, and is counted as missing"


def problem(kind: str, detail: str, *, status: int = 422, field: str | None = None) -> Problem:
    """Build a problem of one of TITLES' kinds."""
    return Problem(f"urn:problem-type:sentinel:{kind}", TITLES[kind], status, detail, field=field)


_FUTURE = problem(
    "in-the-future",
    f"event_time is more than {MAX_FUTURE_SECONDS // 60} minutes in the future: check the clock that made it",
    field="event_time",
)
_LATE = problem(
    "too-late",
    f"event_time is more than {MAX_LATE_SECONDS // 86_400} days ago: events that old are not counted any more",
    field="event_time",
)


def _not_finite(name: str) -> Problem:
    return problem("not-finite", f"{name} is not a finite number; send null for a missing one", field=name)


def _too_many(count: int) -> Problem:
    detail = f"{count} events in one request, at most {MAX_EVENTS} are taken: send several requests"
    return problem("too-many-events", detail, status=413)


_PLACE = re.compile(r" - at `\$\.?(\w*).*`$")
_FIELD = re.compile(r"field `(.*)`")


def _explained(said: str) -> Problem:
    """Turn the decoder's words into ours."""
    place = _PLACE.search(said)
    name = place[1] if place else ""
    field = _FIELD.search(said)
    if field and "unknown field" in said:
        known = ", ".join(Event.__struct_fields__)
        return problem(
            "unknown-field", f"nothing but {known} is taken and stored: leave it out", field=_short(field[1])
        )
    if field:
        return problem("missing-field", f"{field[1]} is missing", field=field[1])
    if "timezone" in said:
        return problem("no-offset", f"{name} needs its UTC offset, as 2026-03-01T12:00:00Z or …+01:00", field=name)
    if "RFC3339" in said:
        return problem("invalid-time", f"{name} is not a time; write it as 2026-03-01T12:00:00Z", field=name)
    if "length <=" in said:
        return problem("too-long", f"{name} has more than {MAX_NAME} characters", field=name)
    if "length >=" in said:
        return problem("invalid-name", f"{name} is empty", field=name)
    if "out of range" in said:
        return _not_finite(name)
    return problem("wrong-type", _PLACE.sub("", said).replace("`", ""), field=name or None)


def _short(name: str) -> str:
    return _shown(name if len(name) <= 80 else f"{name[:79]}…")


def _said(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).removeprefix("JSON is malformed: ")
