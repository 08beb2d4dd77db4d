"""Models in production: what is known of them, and what people change about them."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from sentinel_core.apps import commands
from sentinel_core.apps.api.door import Call, Caller, needs
from sentinel_core.apps.api.values import (
    DEFAULT_LIMIT,
    Answer,
    Cursor,
    FilterId,
    Id,
    Limit,
    ModelName,
    Moment,
    Next,
    finite,
    moment,
    moment_or_none,
    page_of,
)
from sentinel_core.errors import NotFoundError
from sentinel_core.monitoring import assessment
from sentinel_core.pipeline import monitored
from sentinel_core.pipeline.monitored import ModelView

router = APIRouter(tags=["Models"])

ModelState = Literal["ok", "warning", "critical", "insufficient_data", "no_data"]
Output = Literal["score", "number", "label"]


class Model(Answer):
    """A model, as the newest evaluation left it."""

    id: int
    project_id: int
    name: str = Field(description="`model_id` of its events")
    enabled: bool = Field(description="Whether it is evaluated; its events are recorded all the same")
    state: ModelState | None = Field(description="null before its first evaluation")
    evaluated_until: Moment | None = Field(description="End of the newest evaluated hour")
    output: Output | None = Field(description="The output that is worst off; the next two are its")
    psi: float | None
    adjusted_psi: float | None = Field(description="PSI less what chance alone would give; what thresholds are for")
    incident_id: int | None = Field(description="The incident that is open or acknowledged")
    incident_severity: Literal["warn", "critical"] | None
    baseline_version: int | None
    events: int
    first_event_at: Moment | None
    last_event_at: Moment | None
    revision: int = Field(description="Of settings and baseline; the ETag of its settings")
    created_at: Moment


class Bin(Answer):
    """One bin of a distribution."""

    name: str
    baseline: float = Field(description="Share of the baseline, 0 to 1")
    current: float = Field(description="Share of the current window, 0 to 1")
    contribution: float | None = Field(description="What it adds to the PSI")


class OutputAssessment(Answer):
    """One output of a model, compared with its baseline; numbers are null where there is no verdict."""

    output: Output
    state: ModelState
    psi: float | None
    adjusted: float | None
    lower: float | None = Field(description="Of the 95 % interval of the true PSI")
    upper: float | None
    floor: float | None = Field(description="The PSI that chance alone gives on average")
    limit: float | None = Field(description="Upper end of the PSI's normal range")
    p: float | None = Field(description="Probability of such a PSI without drift")
    phi: float | None = Field(description="Overdispersion, learned from days without an incident; 1: none")
    n_baseline: int
    n_current: int
    days: int = Field(description="The current window was grown to so many")
    bins: list[Bin]


class Assessment(Answer):
    """The newest evaluation of a model."""

    state: ModelState
    hour: Moment = Field(description="End of the evaluated hour")
    baseline_version: int | None
    outputs: list[OutputAssessment]


class ModelDetail(Model):
    """A model with its newest evaluation."""

    assessment: Assessment | None


class Models(Answer):
    """A page of models."""

    items: list[Model]
    next: Next


class Deleted(Answer):
    """What went with a model."""

    model: str
    tables: dict[str, int] = Field(description="Deleted rows by table")
    rows: int = Field(description="Deleted rows of data files")
    segments: int = Field(description="Data files rewritten or dropped")


def view(one: ModelView) -> Model:
    """A model as lists show it."""
    return Model(**_members(one))


def _members(one: ModelView) -> dict[str, Any]:
    row, worst = one.model, one.assessment.worst if one.assessment else None
    return {
        "id": row.id,
        "project_id": row.project_id,
        "name": row.name,
        "enabled": row.enabled,
        "state": one.state,
        "evaluated_until": moment_or_none(one.hour),
        "output": worst.output if worst else None,
        "psi": finite(worst.psi) if worst else None,
        "adjusted_psi": finite(worst.adjusted) if worst else None,
        "incident_id": one.incident_id,
        "incident_severity": one.incident_severity,
        "baseline_version": row.baseline_version,
        "events": row.events,
        "first_event_at": moment_or_none(row.first_event_at),
        "last_event_at": moment_or_none(row.last_event_at),
        "revision": row.revision,
        "created_at": moment(row.created_at),
    }


def _detail(one: ModelView) -> ModelDetail:
    return ModelDetail(**_members(one), assessment=_assessment(one.assessment) if one.assessment else None)


def _assessment(one: assessment.Assessment) -> Assessment:
    outputs = [
        OutputAssessment(
            output=output.output,  # type: ignore[arg-type]  # one of three
            state=output.state.name.lower(),  # type: ignore[arg-type]
            n_baseline=output.n_baseline,
            n_current=output.n_current,
            days=output.days,
            bins=[
                Bin(
                    name=each.name, baseline=each.baseline, current=each.current, contribution=finite(each.contribution)
                )
                for each in output.bins
            ],
            **{name: finite(getattr(output, name)) for name in _NUMBERS},
        )
        for output in one.outputs
    ]
    return Assessment(
        state=one.state.name.lower(),  # type: ignore[arg-type]
        hour=moment(one.hour),
        baseline_version=one.baseline_version,
        outputs=outputs,
    )


_NUMBERS = ("psi", "adjusted", "lower", "upper", "floor", "limit", "p", "phi")


def find(call: Call, model_id: int) -> ModelView:
    """One of the models that the caller sees; NotFoundError otherwise."""
    with call.services.store.database.read() as conn:
        found = monitored.model(conn, call.services.config(), call.project_id, model_id)
    if found is None:
        raise NotFoundError(f"there is no model {model_id}")
    return found


@router.get("/models", **needs("read"), summary="List models")
def list_models(
    call: Caller,
    state: Annotated[list[ModelState], Query(description="Only in these states", max_length=5)] = [],  # noqa: B006
    enabled: bool | None = None,
    name: Annotated[ModelName | None, Query(description="Only the model that is called so")] = None,
    project_id: FilterId = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Models:
    """The models of your project, oldest first; a model registers itself with its first event."""
    services = call.services
    filtered = bool(state) or enabled is not None or name is not None
    with services.store.database.read() as conn:
        found = monitored.models(
            conn,
            services.config(),
            call.within(project_id),
            after=cursor or 0,
            limit=None if filtered else limit + 1,
        )
    wanted = [
        one
        for one in found
        if (not state or one.state in state)
        and (enabled is None or one.model.enabled == enabled)
        and (name is None or one.model.name == name)
    ]
    return Models(**page_of(wanted, limit, view, lambda one: one.model.id))


@router.get("/models/{model_id}", **needs("read"), summary="Read a model")
def read_model(call: Caller, model_id: Id) -> ModelDetail:
    """A model with its newest evaluation: state, PSI with its interval and normal range, both distributions."""
    return _detail(find(call, model_id))


@router.delete(
    "/models/{model_id}", **needs("administer", s409="It is being evaluated; try again"), summary="Delete a model"
)
def delete_model(call: Caller, model_id: Id) -> Deleted:
    """Delete a model with everything that is stored of it: events, counts, PSI, baselines, incidents.

    Events that arrive later register it anew, under another id.
    """
    return Deleted(**asdict(commands.delete_model(call.services, call.principal, model_id)))


@router.post("/models/{model_id}/enable", **needs("operate"), summary="Enable monitoring")
def enable_model(call: Caller, model_id: Id) -> ModelDetail:
    """Evaluate the model from the next hour on."""
    commands.enable_model(call.services, call.principal, model_id, True)
    return _detail(find(call, model_id))


@router.post("/models/{model_id}/disable", **needs("operate"), summary="Disable monitoring")
def disable_model(call: Caller, model_id: Id) -> ModelDetail:
    """Stop evaluating the model; its events are recorded all the same."""
    commands.enable_model(call.services, call.principal, model_id, False)
    return _detail(find(call, model_id))
