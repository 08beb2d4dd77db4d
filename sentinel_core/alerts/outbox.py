"""What is owed to whom: a transition and its alerts are written together, and sent later by `dispatch`."""

import sqlalchemy as sa

from sentinel_core.incidents.lifecycle import Incident, Subject, Transition


def record(
    connection: sa.Connection, subject: Incident | Subject, transition: Transition, *, quiet: bool = False
) -> Incident:
    """Write a transition: the incident (compare-and-set), its timeline and an alert for each receiver it concerns.

    The one door for all three, in the caller's transaction. Returns the incident as it is now.

    subject: what `lifecycle.evaluate` or `act` was given, else the subject of a new incident
    quiet:   nobody is told, as in a replay of the past

    Raises ConflictError where somebody else changed the incident, or opened one about the same subject, since it was
    read: read again and decide again.
    """
    raise NotImplementedError


def resend(connection: sa.Connection, delivery_id: int, now: float, project_id: int | None = None) -> None:
    """Owe a dead alert once more, from now. NotFoundError where there is none, ConflictError where it is not dead."""
    raise NotImplementedError


def next_due(connection: sa.Connection) -> float | None:
    """When the next alert has to be sent or repeated, unix seconds; None when nothing is owed.

    What a dispatcher works on counts from the end of its lease.
    """
    raise NotImplementedError
