"""The two ingest routes as OpenAPI has them: they are decoded by msgspec underneath the API, so it cannot know them."""

from typing import Any

import msgspec

from sentinel_core.apps.api.problems import MEDIA_TYPE
from sentinel_core.monitoring.events import MAX_EVENTS, Event

_EVENT_EXAMPLE = {
    "model_id": "fraud-model",
    "event_time": "2026-01-31T12:00:00Z",
    "score": 0.87,
    "prediction": "decline",
    "event_id": "order-1001",
}

_ACCEPTED = "#/components/schemas/Accepted"
_REFUSED = "#/components/schemas/EventProblem"
_EVENT = {"$ref": "#/components/schemas/Event"}
_EVENTS = {"type": "array", "items": _EVENT}

_PROBLEM: dict[str, Any] = {
    "title": "EventProblem",
    "type": "object",
    "description": "RFC 9457: what was refused and why.",
    "properties": {
        "type": {"type": "string", "examples": ["urn:problem-type:sentinel:no-offset"]},
        "title": {"type": "string", "examples": ["Time without its UTC offset"]},
        "status": {"type": "integer", "examples": [422]},
        "detail": {"type": "string", "description": "What happened, and what to do"},
        "index": {"type": "integer", "description": "Which event of the request, from 0"},
        "field": {"type": "string", "description": "The field that is wrong"},
    },
    "required": ["type", "title", "status", "detail"],
}

SCHEMAS: dict[str, Any] = {
    **msgspec.json.schema_components([Event], ref_template="#/components/schemas/{name}")[1],
    "EventProblem": _PROBLEM,
    "Accepted": {
        "title": "Accepted",
        "type": "object",
        "description": "What became of the events of a request; they are on the disk.",
        "properties": {
            "accepted": {"type": "integer"},
            "duplicates": {"type": "integer", "description": "Events whose event_id had come before; counted once"},
            "rejected": {"type": "array", "items": {"$ref": _REFUSED}, "examples": [[]]},
        },
        "required": ["accepted", "duplicates", "rejected"],
    },
}

_SECONDS = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
_ANSWERS: dict[int, tuple[str, dict[str, Any]]] = {
    400: ("The body is not JSON, not gzip, or ends early", {}),
    401: ("No key, or one that is unknown, expired or revoked", {"WWW-Authenticate": {"schema": {"type": "string"}}}),
    403: ("The key's scopes do not allow to send events", {}),
    408: ("The body does not arrive", {}),
    413: (f"The body is too large, or holds more than {MAX_EVENTS:,} events: send several requests", {}),
    415: ("Another Content-Type or Content-Encoding", {}),
    422: ("The event, or the request as a whole, is not what it should be", {}),
    429: ("The key sends more events a second than it may", _SECONDS),
    503: ("The events could not be written; send them again", _SECONDS),
}


def _operation(name: str, summary: str, description: str, content: dict[str, Any]) -> dict[str, Any]:
    refused = {"content": {MEDIA_TYPE: {"schema": {"$ref": _REFUSED}}}}
    responses: dict[str, Any] = {
        "202": {"description": "On the disk", "content": {"application/json": {"schema": {"$ref": _ACCEPTED}}}}
    }
    for status, (text, headers) in _ANSWERS.items():
        responses[str(status)] = {"description": text, **refused} | ({"headers": headers} if headers else {})
    return {
        "post": {
            "tags": ["Events"],
            "operationId": name,
            "summary": summary,
            "description": description,
            "x-permission": "ingest",
            "requestBody": {"required": True, "content": content},
            "responses": responses,
        }
    }


PATHS: dict[str, Any] = {
    "/v1/events": _operation(
        "send_event",
        "Send an event",
        "One prediction of one model; a new model registers itself. Nothing but these fields is taken and stored. "
        "The body may be compressed, with `Content-Encoding: gzip`.",
        {"application/json": {"schema": _EVENT, "example": _EVENT_EXAMPLE}},
    ),
    "/v1/events/batch": _operation(
        "send_events",
        "Send many events",
        f"A JSON array of up to {MAX_EVENTS:,} events, or one event a line. What is wrong with one refuses it alone: "
        "it is in `rejected`, with its place, and the others are kept. The body may be compressed, with "
        "`Content-Encoding: gzip`.",
        {
            "application/json": {"schema": _EVENTS, "example": [_EVENT_EXAMPLE]},
            "application/x-ndjson": {"schema": {"type": "string", "description": "One Event a line"}},
        },
    ),
}
