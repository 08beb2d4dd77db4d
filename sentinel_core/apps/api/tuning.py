"""What a model is compared with, and how: its settings and its baselines."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header
from pydantic import Field
from starlette.responses import Response

from sentinel_core.apps import commands
from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.models import find
from sentinel_core.apps.api.problems import StaleError
from sentinel_core.apps.api.values import (
    DEFAULT_LIMIT,
    Answer,
    Because,
    Body,
    Cursor,
    Id,
    Limit,
    Moment,
    MomentIn,
    Next,
    example,
    moment,
    page_of,
)
from sentinel_core.config import MonitorConfig
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.monitored import ModelView
from sentinel_core.storage.model_store import BaselineRow

router = APIRouter(tags=["Models"])


class Settings(Answer):
    """How models are compared with their past; see `sentinel.toml`."""

    current_hours: int
    max_current_days: int
    baseline: str
    baseline_weeks: int
    baseline_days: int
    bins: int
    min_samples: int
    warn: float
    critical: float
    resolve: float
    silence: bool


class SettingsChange(Body):
    """Settings of one model; null gives one back to the configuration."""

    model_config = example(warn=0.15, critical=0.3)

    current_hours: Annotated[int, Field(ge=1, le=168)] | None = Field(
        None, description="Length of the current window; divides a day, or is whole days"
    )
    max_current_days: Annotated[int, Field(ge=1, le=7)] | None = Field(
        None, description="The window grows by whole days up to this where it holds too few samples"
    )
    baseline: Literal["same_weekday", "preceding"] | None = Field(
        None, description="Compare with the same weekdays of the weeks before, or with the days just before"
    )
    baseline_weeks: Annotated[int, Field(ge=2, le=8)] | None = None
    baseline_days: Annotated[int, Field(ge=1, le=28)] | None = None
    bins: Annotated[int, Field(ge=4, le=15)] | None = None
    min_samples: Annotated[int, Field(ge=50, le=1_000_000)] | None = None
    warn: Annotated[float, Field(gt=0, le=1000)] | None = Field(None, description="Threshold of the adjusted PSI")
    critical: Annotated[float, Field(gt=0, le=1000)] | None = Field(None, description="More than warn")
    resolve: Annotated[float, Field(gt=0, le=1000)] | None = Field(None, description="Less than warn")
    silence: bool | None = Field(None, description="Whether falling silent is an incident")


class ModelSettings(Answer):
    """The settings of one model."""

    own: dict[str, Any] = Field(description="What differs from the configuration")
    effective: Settings
    revision: int


class Baseline(Answer):
    """What a model is compared with; a version never changes."""

    version: int
    kind: Literal["sliding", "pinned", "accepted"]
    start: Moment
    end: Moment
    actor: str
    reason: str
    created_at: Moment
    in_use: bool


class Baselines(Answer):
    """A page of baseline versions, newest first."""

    items: list[Baseline]
    next: Next


class Span(Because):
    """The events of [start, end)."""

    model_config = example(start="2026-01-05T00:00:00Z", end="2026-01-12T00:00:00Z", reason="a quiet week")

    start: MomentIn
    end: MomentIn


class BaselineVersion(Answer):
    """The baseline that is in use from now on."""

    version: int


# ---- settings --------------------------------------------------------------------------------------------------------

IfMatch = Annotated[str | None, Header(description="The ETag that was read: nobody's change in between gets lost")]


@router.get("/monitoring", **needs("read"), summary="Read the default settings")
def read_defaults(call: Caller) -> Settings:
    """The configuration's settings of monitoring; a model's own may differ in any field."""
    return _settings(call.services.config().monitoring)


@router.get("/models/{model_id}/settings", **needs("read"), summary="Read a model's settings")
def read_settings(call: Caller, model_id: Id, response: Response) -> ModelSettings:
    """What differs from the configuration, and what is in effect; with an ETag."""
    return _settings_of(find(call, model_id), response)


_CHANGED = {"s409": "Somebody else changed it at the same time", "s412": "It is not what If-Match says any more"}


@router.patch("/models/{model_id}/settings", **needs("operate", **_CHANGED), summary="Change a model's settings")
def patch_settings(
    call: Caller, model_id: Id, change: SettingsChange, response: Response, if_match: IfMatch = None
) -> ModelSettings:
    """Change what is named; the next evaluation uses it."""
    return _change(call, model_id, change, response, if_match, merge=True)


@router.put("/models/{model_id}/settings", **needs("operate", **_CHANGED), summary="Replace a model's settings")
def put_settings(
    call: Caller, model_id: Id, change: SettingsChange, response: Response, if_match: IfMatch = None
) -> ModelSettings:
    """Change what is named, and give everything else back to the configuration."""
    return _change(call, model_id, change, response, if_match, merge=False)


def _change(
    call: Call, model_id: int, change: SettingsChange, response: Response, if_match: str | None, *, merge: bool
) -> ModelSettings:
    before = find(call, model_id)
    revision = None
    if if_match is not None and if_match.strip() != "*":
        revision = before.model.revision
        if f'"{revision}"' not in (tag.strip() for tag in if_match.split(",")):
            raise StaleError(f'the settings are at revision "{revision}" by now: read them again')
    changes = change.model_dump(exclude_unset=True)
    commands.change_settings(call.services, call.principal, model_id, changes, merge=merge, revision=revision)
    return _settings_of(find(call, model_id), response)


def _settings_of(one: ModelView, response: Response) -> ModelSettings:
    response.headers["etag"] = f'"{one.model.revision}"'
    return ModelSettings(own=dict(one.model.settings), effective=_settings(one.settings), revision=one.model.revision)


def _settings(config: MonitorConfig) -> Settings:
    return Settings(**asdict(config))


# ---- baselines -------------------------------------------------------------------------------------------------------


@router.get("/models/{model_id}/baselines", **needs("read"), summary="List a model's baselines")
def list_baselines(call: Caller, model_id: Id, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> Baselines:
    """Every version that the model was compared with, newest first."""
    one = find(call, model_id)
    with call.services.store.database.read() as conn:
        rows = monitored.baselines(conn, model_id)
    before = [row for row in rows if cursor is None or row.version < cursor]

    def shown(row: BaselineRow) -> Baseline:
        return Baseline(
            version=row.version,
            kind=row.kind,  # type: ignore[arg-type]  # one of three
            start=moment(row.t0),
            end=moment(row.t1),
            actor=row.actor,
            reason=row.reason,
            created_at=moment(row.created_at),
            in_use=row.version == one.model.baseline_version,
        )

    return Baselines(**page_of(before, limit, shown, lambda row: row.version))


_BASELINE = {"s409": "The model is being evaluated, or somebody else changed it; try again"}


@router.post("/models/{model_id}/baseline/pin", **needs("operate", **_BASELINE), summary="Pin the baseline")
def pin_baseline(call: Caller, model_id: Id, span: Span) -> BaselineVersion:
    """Compare the model with the events of a span, from now on and until it is unpinned."""
    start, end = int(span.start), int(span.end)
    version = commands.pin_baseline(call.services, call.principal, model_id, start, end, span.reason)
    return BaselineVersion(version=version)


@router.post("/models/{model_id}/baseline/unpin", **needs("operate", **_BASELINE), summary="Unpin the baseline")
def unpin_baseline(call: Caller, model_id: Id, why: Because | None = None) -> BaselineVersion:
    """Compare the model with its own recent past again, by its settings."""
    version = commands.unpin_baseline(call.services, call.principal, model_id, why.reason if why else "")
    return BaselineVersion(version=version)


@router.post("/models/{model_id}/baseline/accept", **needs("operate", **_BASELINE), summary="Accept as new normal")
def accept_as_new_normal(call: Caller, model_id: Id, why: Because | None = None) -> BaselineVersion:
    """Take the current window for normal: an open incident resolves, and the baseline starts anew from there."""
    version = commands.accept_as_new_normal(call.services, call.principal, model_id, why.reason if why else "")
    return BaselineVersion(version=version)
