"""Slows down whoever guesses passwords, without locking anybody out for ever.

An attempt is counted before it is judged, so that a hundred at once are a hundred. After a few failures each one has to
wait twice as long as the one before, a minute at most.
"""

import sqlalchemy as sa

from sentinel_core.storage import schema

MAX_PAUSE_SECONDS = 60.0  # a guesser gets 1,440 a day, and whoever is guessed at never waits longer
FORGET_SECONDS = 3600.0  # without another attempt

_TABLE = schema.login_failures


def claim(connection: sa.Connection, subjects: dict[str, int], *, now: float) -> float:
    """Count an attempt against each subject; returns 0, or the seconds to wait where it must not be made now.

    subjects: name -> attempts that are free, at least one
    """
    connection.execute(_TABLE.delete().where(_TABLE.c.last_at < now - FORGET_SECONDS))
    rows = {row.subject: row for row in connection.execute(sa.select(_TABLE).where(_TABLE.c.subject.in_(subjects)))}
    waits = [float(row.blocked_until) - now for row in rows.values()]
    if waiting := [wait for wait in waits if 0 < wait <= MAX_PAUSE_SECONDS]:  # longer: the clock was set back
        return max(waiting)
    for subject, free in subjects.items():
        failures = 1 + (rows[subject].failures if subject in rows else 0)
        values = {"failures": failures, "blocked_until": now + _pause(failures - free), "last_at": now}
        if subject in rows:
            connection.execute(_TABLE.update().where(_TABLE.c.subject == subject).values(values))
        else:
            connection.execute(_TABLE.insert().values(subject=subject, **values))
    return 0.0


def clear(connection: sa.Connection, subject: str) -> None:
    """Forget the failures of a subject who succeeded."""
    connection.execute(_TABLE.delete().where(_TABLE.c.subject == subject))


def _pause(excess: int) -> float:
    return 0.0 if excess < 0 else min(2.0**excess, MAX_PAUSE_SECONDS)
