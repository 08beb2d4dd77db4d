"""Evaluations and incidents for tests, with the values that do not matter filled in."""

import sqlalchemy as sa

from sentinel_core.alerts import outbox
from sentinel_core.incidents import lifecycle
from sentinel_core.incidents.lifecycle import Condition, Incident, Subject
from sentinel_core.monitoring.assessment import Assessment, BinShare, OutputAssessment
from sentinel_core.monitoring.monitor import State
from sentinel_core.storage import schema

HOUR = 3_600
START = 1_760_000_400  # on the hour


def assessment(state: str = "critical", psi: float = 0.31) -> str:
    """JSON as an evaluation leaves it."""
    found = State[state.upper()]
    bins = (
        BinShare("[0.8, 0.9)", 0.1, 0.25, 0.14),
        BinShare("missing", 0.0, 0.02, 0.01),
        BinShare("<&>", 0.1, 0.1, 0.0),
    )
    numbers = (psi, psi - 0.03, psi - 0.06, psi + 0.05, 0.03, 0.04, 0.001, 1.2)
    output = OutputAssessment("score", found, *numbers, 2_016, 480, 1, bins)
    return Assessment(found, START, 1, state == "ok", state == "ok", False, (output,)).to_json()


def condition(state: str = "critical", hour: int = 0, *, calm: bool = False, eased: bool = False) -> Condition:
    """The evaluation `hour` hours after START."""
    end = START + hour * HOUR
    return Condition(state, calm, eased, end, end - 24 * HOUR, f"found {state}", assessment(state), 1, "{}")


def model(connection: sa.Connection, name: str = "fraud-model", project_id: int = 1) -> Subject:
    """A registered model, as the subject of a PSI incident."""
    inserted = connection.execute(
        schema.monitored_models.insert().values(project_id=project_id, name=name, enabled=True, created_at=0.0)
    )
    assert inserted.inserted_primary_key is not None
    return Subject(project_id, "psi", name, model_id=inserted.inserted_primary_key[0])


def opened(connection: sa.Connection, subject: Subject, state: str = "warning", hour: int = 0) -> Incident:
    """A new incident, with the alerts that it owes."""
    now = float(START + hour * HOUR)
    transition = lifecycle.evaluate(None, condition(state, hour), now)
    assert transition is not None
    return outbox.record(connection, subject, transition)


def evaluated(connection: sa.Connection, incident: Incident, state: str, hour: int, **words: bool) -> Incident:
    """The incident after one more evaluation."""
    transition = lifecycle.evaluate(incident, condition(state, hour, **words), float(START + hour * HOUR))
    return incident if transition is None else outbox.record(connection, incident, transition)


def acted(connection: sa.Connection, incident: Incident, action: lifecycle.Action, hour: float = 0) -> Incident:
    """The incident after a person's action."""
    now = START + hour * HOUR
    return outbox.record(connection, incident, lifecycle.act(incident, action, "ann", "because", now))
