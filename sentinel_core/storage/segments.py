"""The catalogue of segments: immutable Parquet files that exist for readers once their row has committed.

Writing has two steps. `write` puts the files on the disk for good (and nobody sees them); `commit`, inside a write
transaction, makes them visible and drops what they replace. Between the two a crash leaves an orphan, which
`collect_garbage` removes. Rows of one dataset overlay each other in `position` order: the later commit wins.
"""

import errno
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sentinel_core.errors import ConflictError, StoreError
from sentinel_core.storage.data_folder import DataFolder, open_folder
from sentinel_core.storage.database import Database
from sentinel_core.storage.parquet import Columns, ParquetEngine
from sentinel_core.storage.schema import segments as table
from sentinel_core.storage.schema import watch_state
from sentinel_core.storage.statements import in_lists

DATASETS: Mapping[str, Mapping[str, type[np.generic]]] = {
    "windows": {"fp": np.int64, "ts": np.int64, "v": np.float64},
    "forecasts": {
        "watch": np.int32,
        "fp": np.int64,
        "origin": np.int64,
        "ts": np.int64,  # the target: origin + lead * step
        "lead": np.int16,
        "mean": np.float64,
        "lower": np.float64,
        "upper": np.float64,
        "version": np.int32,  # last fitted the series; 0: last value; negative: pooled by that version
        "mode": np.int8,  # 0 live, 1 replay
        "inner_lower": np.float64,  # of the inner level; NaN without one
        "inner_upper": np.float64,
    },
    "scores": {
        "watch": np.int32,
        "fp": np.int64,
        "ts": np.int64,
        "version": np.int32,
        "mae": np.float64,  # mean |residual| over the leads that target ts, in the metric's unit
        "scaled": np.float64,  # the same, each lead divided by that lead's held-back training MAE
        "naive": np.float64,  # the same as mae of repeating the last value, and
        "seasonal": np.float64,  # the day before; NaN where drift_unit is not "auto"
        "anomaly": np.float64,  # how unusual the value is: 1 at the edge of the bounds; NaN: no forecast could tell
    },
    "verified": {  # of a round of steps, what forecasts of one series and lead turned out to be; rounds add up
        "watch": np.int32,
        "fp": np.int64,
        "ts": np.int64,  # end of the round
        "lead": np.int16,
        "n": np.int32,
        "below": np.int32,  # actuals below the lower bound
        "above": np.int32,
        "error": np.float64,  # sum of |actual - forecast|
        "bias": np.float64,  # sum of forecast - actual
        "naive": np.float64,  # sum of |actual - seasonal naive|
        "version": np.int32,  # that served the series at the end of the round
        "lower": np.float64,  # logarithm of what the distance to its bounds is multiplied by from then on
        "upper": np.float64,
    },
    "events": {
        "model": np.int32,
        "ts": np.int64,  # event time, whole seconds
        "id": np.int64,  # 64-bit digest of the model and event_id, 0: none
        "score": np.float64,  # NaN: missing
        "number": np.float64,  # a prediction that is a number; NaN: none
        "label": np.int64,  # fingerprint of a prediction that is text or a boolean, 0: none
    },
    "counts": {  # of one hour's events in the bins of a baseline version; several rows of the same hour add up
        "model": np.int32,
        "output": np.int8,
        "baseline": np.int32,
        "ts": np.int64,  # start of the hour
        **{f"n{index:02d}": np.int32 for index in range(26)},
    },
    "psi": {
        "model": np.int32,
        "output": np.int8,
        "ts": np.int64,  # end of the evaluated hour
        "baseline": np.int32,
        "days": np.int16,  # length of the current window, 0: less than a day
        "psi": np.float64,
        "adjusted": np.float64,
        "lower": np.float64,  # 95 % interval of the true PSI
        "upper": np.float64,
        "floor": np.float64,  # what noise alone brings on average
        "limit": np.float64,  # upper end of the normal range of psi
        "p": np.float64,
        "phi": np.float64,  # how much more days differ than independent events would
        "n_baseline": np.float64,
        "n_current": np.float64,
        "state": np.int8,
        "mode": np.int8,  # 0 live, 1 replay
    },
}
# Columns that files of earlier releases do not have; all NaN there.
ADDED_LATER = frozenset({"anomaly", "inner_lower", "inner_upper", "naive", "seasonal"})
# Rows per Parquet row group, the unit that a reader can skip. Windows are sorted by series, so a group is some series
# over the whole span; forecasts by target time, of which a tick reads one step: small groups.
# Events, counts and PSI are sorted by model, and often a few models are asked for.
ROW_GROUPS = {"windows": 122_880, "forecasts": 20_480, "scores": 122_880, "verified": 122_880}
ROW_GROUPS |= {"events": 20_480, "counts": 20_480, "psi": 20_480}
GRACE_SECONDS = 3600.0  # a reader that listed a file has this long to open it
_PROBED = 5  # of the newest files; one or two may be lost to a crash or to a person
_ATTEMPTS = 5  # of a read whose files are compacted and collected under it

T = TypeVar("T")


@dataclass(frozen=True)
class Segment:
    """A live file: `t0` and `t1` are the least and greatest timestamp inside, `position` its place in overlay order."""

    id: int
    dataset: str
    key: str
    t0: int
    t1: int
    path: str
    rows: int
    bytes: int
    position: int
    thinned: bool


@dataclass(frozen=True)
class Part:
    """A file that is on the disk and not yet in the catalogue."""

    dataset: str
    key: str
    t0: int
    t1: int
    path: str
    rows: int
    bytes: int
    position: int | None  # None: where its id puts it, after everything committed so far
    thinned: bool


@dataclass(frozen=True)
class Pending:
    """Files waiting for one commit; empty where there was nothing to write."""

    parts: tuple[Part, ...]
    created_at: float

    @classmethod
    def joined(cls, pendings: Iterable["Pending"], created_at: float) -> "Pending":
        """Make one of several."""
        return cls(tuple(part for pending in pendings for part in pending.parts), created_at)


class SegmentGoneError(ConflictError):
    """A listed file was compacted away and collected; list again."""


class SegmentStore:
    """Writes, commits, finds, reads and collects segments below one data URL."""

    def __init__(self, database: Database, data_url: str) -> None:
        self.database = database
        self.folder: DataFolder = open_folder(data_url)
        self._parquet = ParquetEngine(remote=self.folder.url.startswith("s3://"))

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(
        self,
        dataset: str,
        key: str,
        columns: Mapping[str, NDArray[Any]],
        t0: int,
        t1: int,
        now: float,
        *,
        position: int | None = None,
        thinned: bool = False,
    ) -> Pending:
        """Put one file on the disk; no row of it is visible before `commit`. No rows, no file.

        columns: every column of the dataset, equal lengths, in the dataset's row order; t0, t1: span of `ts`
        Raises StoreError for a full or failing disk.
        """
        typed = {name: np.ascontiguousarray(columns[name], kind) for name, kind in DATASETS[dataset].items()}
        rows = len(typed["ts"])
        if rows == 0:
            return Pending((), now)
        path = f"{dataset}/{key}/{t0}-{t1}-{uuid.uuid4().hex}.parquet"  # never twice: a reader may hold the old one
        with self._translated():
            size = self.folder.publish(
                path, lambda local: self._parquet.write(local, typed, row_group=ROW_GROUPS[dataset])
            )
        return Pending((Part(dataset, key, t0, t1, path, rows, size, position, thinned),), now)

    def keep(self, name: str, content: bytes) -> None:
        """Put a file beside the segments, for good. Raises StoreError for a full or failing disk."""
        with self._translated():
            self.folder.publish(name, lambda local: _write(local, content))

    def commit(self, connection: sa.Connection, pendings: Sequence[Pending], drop: Sequence[int] = ()) -> list[int]:
        """Make files visible and drop others, all or nothing, inside `Database.write()`; return the new ids in order.

        Raises ConflictError where one of `drop` is already dropped, or where a file waited for so long that it was
        collected as an orphan.
        """
        ids = []
        for pending in pendings:
            for part in pending.parts:
                values = {**vars(part), "created_at": pending.created_at}
                try:
                    row = connection.execute(table.insert().values(values))
                except sa.exc.IntegrityError as error:  # the collector has claimed this path
                    raise ConflictError(_TOO_LATE.format(path=part.path)) from error
                # In this order: the collector claims, deletes the file, then forgets the claim.
                if not self.folder.exists(part.path):
                    raise ConflictError(_TOO_LATE.format(path=part.path))
                assert row.inserted_primary_key is not None
                ids.append(int(row.inserted_primary_key[0]))
        if drop:
            self.drop(connection, drop, max(pending.created_at for pending in pendings))
        return ids

    def drop(self, connection: sa.Connection, ids: Sequence[int], now: float) -> None:
        """Hide segments from every later listing. Raises ConflictError where one is hidden already."""
        dropped = 0
        for chunk in in_lists(ids):
            live = table.c.id.in_(chunk) & table.c.dropped_at.is_(None)
            dropped += connection.execute(table.update().where(live).values(dropped_at=now)).rowcount
        if dropped != len(set(ids)):
            raise ConflictError(
                f"{len(set(ids)) - dropped} of {len(set(ids))} segments were replaced meanwhile: read again"
            )

    # -- reading ---------------------------------------------------------------------------------------------------

    def segments(
        self, dataset: str, key: str | None = None, t0: int | None = None, t1: int | None = None
    ) -> list[Segment]:
        """Return the live segments that overlap [t0, t1], oldest position first."""
        condition = (table.c.dataset == dataset) & table.c.dropped_at.is_(None)
        if key is not None:
            condition &= table.c.key == key
        if t0 is not None:
            condition &= table.c.t1 >= t0
        if t1 is not None:
            condition &= table.c.t0 <= t1
        with self.database.read() as connection:
            return _listed(connection, condition)

    def get(self, segment_id: int) -> Segment:
        """Return one segment. Raises SegmentGoneError where it was replaced."""
        with self.database.read() as connection:
            found = _listed(connection, (table.c.id == segment_id) & table.c.dropped_at.is_(None))
        if not found:
            raise SegmentGoneError(f"segment {segment_id} was replaced meanwhile: read the state again")
        return found[0]

    def read(
        self,
        segments: Sequence[Segment],
        columns: Sequence[str],
        where: str | None = None,
        parameters: Sequence[Any] = (),
    ) -> Columns:
        """Read columns, rows in the order of the list; no segments give empty columns.

        Raises SegmentGoneError where a file has been collected since the list was made (see `live`), StoreError where
        one is damaged.
        """
        if not segments:
            kinds = {name: kind for dataset in DATASETS.values() for name, kind in dataset.items()}
            return {name: np.empty(0, kinds[name]) for name in columns}
        addresses = [self.folder.address(segment.path) for segment in segments]
        with self._translated(segments):
            return self._parquet.read(addresses, columns, where, parameters, optional=ADDED_LATER)

    def query(
        self, segments: Sequence[Segment], sql: str, tables: Mapping[str, Mapping[str, NDArray[Any]]] = {}
    ) -> Columns:
        """Return the columns of a query over the rows of at least one segment (`{files}` in it) and of small tables.

        Raises what `read` raises.
        """
        addresses = [self.folder.address(segment.path) for segment in segments]
        with self._translated(segments):
            return self._parquet.query(addresses, sql, tables)

    def live(self, dataset: str, key: str, t0: int, t1: int, reader: Callable[[list[Segment]], T]) -> T:
        """Return `reader(live segments in [t0, t1])`, with a fresh list whenever a file was collected under it."""
        listed = self.segments(dataset, key, t0, t1)
        for _ in range(_ATTEMPTS):
            try:
                return reader(listed)
            except SegmentGoneError:
                fresh = self.segments(dataset, key, t0, t1)
                if fresh == listed:  # nobody replaced it: it is lost
                    raise
                listed = fresh
        return reader(listed)

    # -- upkeep ----------------------------------------------------------------------------------------------------

    def collect_garbage(self, now: float, grace_seconds: float = GRACE_SECONDS) -> int:
        """Delete files dropped, or written and never committed, longer than the grace ago; return how many."""
        before = now - grace_seconds
        # List the folder BEFORE the catalogue: a file committed in between is then known, not an orphan.
        with self._translated():
            aged = [name for name, modified in self.folder.files() if modified < before and _OURS.fullmatch(name)]
        with self.database.read() as connection:
            known = set(connection.execute(sa.select(table.c.path)).scalars())
        orphans = [name for name in aged if name not in known]
        for chunk in in_lists(orphans):
            claims = [_claim(name, before) for name in chunk]
            with self.database.write() as connection:  # a writer that commits later than this runs into the unique path
                present = set(connection.execute(sa.select(table.c.path).where(table.c.path.in_(chunk))).scalars())
                if claims := [claim for claim in claims if claim["path"] not in present]:
                    connection.execute(table.insert(), claims)
        with self.database.read() as connection:
            dropped = connection.execute(sa.select(table.c.id, table.c.path).where(table.c.dropped_at <= before)).all()
        for rows in in_lists(dropped):
            with self._translated():
                self.folder.delete([row.path for row in rows])  # the file first: a row without a file is only untidy
            ids = [row.id for row in rows]
            with self.database.write() as connection:
                named = watch_state.c.forecast_segment_id.in_(ids)
                connection.execute(watch_state.update().where(named).values(forecast_segment_id=None))
                connection.execute(table.delete().where(table.c.id.in_(ids)))
        return len(dropped)

    def require_files(self) -> None:
        """Raise StoreError where the newest files are all elsewhere: data_url has changed, and they have not moved."""
        query = sa.select(table.c.path).where(table.c.dropped_at.is_(None)).order_by(table.c.id.desc()).limit(_PROBED)
        with self.database.read() as connection:
            newest = connection.execute(query).scalars().all()
        with self._translated():
            if newest and not any(map(self.folder.exists, newest)):
                raise StoreError(
                    f"{self.folder.url} has none of the files that {self.database.shown_url} names: "
                    "move them there, or set data_url (or artifact_store) back to where they are"
                )

    def close(self) -> None:
        """Free the query engine."""
        self._parquet.close()

    @contextmanager
    def _translated(self, reading: Sequence[Segment] = ()) -> Iterator[None]:
        """Turn what the disk or DuckDB says into a StoreError with a remedy; leave everything else alone."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            import duckdb  # here: most processes have loaded it by now, and those that have not cannot raise its errors

            if not isinstance(error, OSError | duckdb.Error):
                raise
            for segment in reading:
                if not self.folder.exists(segment.path):
                    raise SegmentGoneError(
                        f"{segment.path} (segment {segment.id}) is missing from {self.folder.url}: "
                        "restore it from a backup, or backfill its span"
                    ) from error
            reason = str(error).split("\n")[0]  # DuckDB adds the query, with every path in it
            full = "No space left on device" in str(error) or "Disk quota" in str(error)
            if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
                text = f"no space left on {self.folder.url}: free space or move artifact_store (data_url)"
                raise StoreError(text) from error
            raise StoreError(f"{self.folder.url} refuses: {reason}; check its permissions and its disk") from error


# Only what `write` has named is ever deleted: a person may point data_url at a folder with other things in it.
_OURS = re.compile(rf"({'|'.join(DATASETS)})/[^/]+/-?\d+--?\d+-[0-9a-f]{{32}}\.parquet")
_TOO_LATE = "{path} waited too long for its commit and was collected as an orphan: write it again"


def _listed(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Segment]:
    c = table.c
    position = sa.func.coalesce(c.position, c.id).label("position")
    columns = (c.id, c.dataset, c.key, c.t0, c.t1, c.path, c.rows, c.bytes, position, c.thinned)
    rows = connection.execute(sa.select(*columns).where(condition).order_by(position, c.id))
    return [Segment(**row._mapping) for row in rows]


def _claim(path: str, dropped_at: float) -> dict[str, Any]:
    """Return the catalogue row that marks an orphan as dropped, so that its writer cannot commit it any more."""
    return {
        "dataset": "orphan", "key": "", "t0": 0, "t1": 0, "path": path, "rows": 0, "bytes": 0,
        "created_at": dropped_at, "dropped_at": dropped_at,
    }  # fmt: skip


def _write(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
