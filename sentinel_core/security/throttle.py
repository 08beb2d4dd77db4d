"""Slows down whoever guesses passwords, without locking anybody out for ever.

An attempt is counted before it is judged, so that a hundred at once are a hundred. After a few failures each one has to
wait twice as long as the one before, a minute at most.
"""

import sqlalchemy as sa

from sentinel_core.storage import schema


def claim(connection: sa.Connection, subjects: dict[str, int], *, now: float) -> float:
    """Count an attempt against each subject; returns 0, or the seconds to wait where it must not be made now.

    subjects: name -> failures that are free
    """
    raise NotImplementedError


def clear(connection: sa.Connection, subject: str) -> None:
    """Forget the failures of a subject who succeeded."""
    raise NotImplementedError
