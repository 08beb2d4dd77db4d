"""What the statements of every table share: lists of any length in an IN (…), and INSERT … ON CONFLICT."""

from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa

_IN_LIST = 1000  # values in one IN (…): far below SQLite's limit
T = TypeVar("T")


def in_lists(values: Collection[T]) -> Iterator[list[T]]:
    """Cut values into lists that one IN (…) takes.

    >>> [len(some) for some in in_lists(range(2_500))]
    [1000, 1000, 500]
    """
    listed = list(values)
    return (listed[start : start + _IN_LIST] for start in range(0, len(listed), _IN_LIST))


def insert_or(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT that can say ON CONFLICT, which SQLite and PostgreSQL spell alike and SQLAlchemy does not."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
