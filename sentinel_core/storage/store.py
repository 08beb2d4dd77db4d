"""The two halves of the store under one name."""

from dataclasses import dataclass
from types import TracebackType

from sentinel_core.storage.database import Database
from sentinel_core.storage.segments import SegmentStore


@dataclass(frozen=True)
class Store:
    """Small state in SQL, bulk numbers in segments. Open one per process; threads may share it."""

    database: Database
    segments: SegmentStore

    @classmethod
    def open(cls, sql_url: str, data_url: str) -> "Store":
        """Open without touching the tables; `store.database.migrate()` creates them.

        Raises StoreError for URLs that no store can have.
        """
        database = Database(sql_url)
        return cls(database, SegmentStore(database, data_url))

    def close(self) -> None:
        """Close connections and free the query engine."""
        self.segments.close()
        self.database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
