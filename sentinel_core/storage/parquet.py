"""Parquet files through an in-memory DuckDB: numpy columns in, numpy columns out. Never a `.duckdb` file."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.errors import StoreError

if TYPE_CHECKING:
    import duckdb

Columns = dict[str, NDArray[Any]]

# Two threads: ticks are small, and training shares the machine. Spilling is off: nothing here sorts inside DuckDB.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": "2",
    "memory_limit": "2GB",
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class ParquetEngine:
    """One in-memory DuckDB per process, opened on first use; safe to share between threads (a cursor per call)."""

    def __init__(self, *, remote: bool) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def write(self, path: str, columns: Mapping[str, NDArray[Any]], *, row_group: int) -> None:
        """Write columns of equal length, in their row order, to a NEW local file. NaN stays NaN.

        Raises duckdb.IOException where the disk refuses.
        """
        # DuckDB reads NaN in a numpy column as NULL, and a NULL would make every later read a masked array.
        select = ", ".join(
            f'coalesce("{name}", \'nan\'::double) as "{name}"' if column.dtype.kind == "f" else f'"{name}"'
            for name, column in columns.items()
        )
        with self._cursor() as cursor:
            cursor.register("incoming", dict(columns))
            cursor.execute(
                f"copy (select {select} from incoming) to {_quoted(path)} "
                f"(format parquet, compression zstd, compression_level 1, row_group_size {row_group})"
            ).fetchall()  # results stream: an unread one would keep the connection busy

    def read(
        self,
        addresses: Sequence[str],
        columns: Sequence[str],
        where: str | None = None,
        parameters: Sequence[Any] = (),
        *,
        optional: Collection[str] = (),
    ) -> Columns:
        """Read columns of files: all rows of the first, then of the second, …; order within a file only without `in`.

        optional: columns of numbers that some or all of the files may lack; NaN there

        Raises duckdb.Error where a file is missing or is not Parquet.
        """
        condition = f" where {where}" if where else ""
        files = f"[{', '.join(map(_quoted, addresses))}]"
        maybe = [name for name in columns if name in optional]
        if maybe:  # a table without rows has them all
            none = ", ".join(f'null::double as "{name}"' for name in maybe)
            both = f"(select *, file_index from read_parquet({files}, union_by_name = true)"
            source = f"{both} union all by name select {none} where false)"
        else:
            source = f"read_parquet({files})"
        # DuckDB turns `in (…)` and list_contains into a hash join, which forgets the order of files (and of rows).
        asked = [*columns, "file_index"] if where and len(addresses) > 1 else list(columns)
        select = ", ".join(f'"{name}"' for name in asked)  # a column may be called as SQL's words are
        with self._cursor() as cursor:
            result = cursor.execute(f"select {select} from {source}{condition}", list(parameters)).fetchnumpy()
        for name in maybe:
            result[name] = np.ma.filled(result[name], np.nan)
        found = {name: np.asarray(result[name]) for name in asked}
        index = found.pop("file_index", None)
        if index is not None and (index[1:] < index[:-1]).any():
            order = np.argsort(index, kind="stable")
            found = {name: column[order] for name, column in found.items()}
        return found

    def query(self, addresses: Sequence[str], sql: str, tables: Mapping[str, Mapping[str, NDArray[Any]]]) -> Columns:
        """Return the columns of a query over `{files}` and small tables of numpy columns; rows in any order.

        Raises duckdb.Error where a file is missing or is not Parquet.
        """
        files = f"read_parquet([{', '.join(map(_quoted, addresses))}])"
        with self._cursor() as cursor:
            for name, columns in tables.items():
                cursor.register(name, dict(columns))
            result = cursor.execute(sql.replace("{files}", files)).fetchnumpy()
        return {name: np.asarray(column) for name, column in result.items()}

    def close(self) -> None:
        """Free the DuckDB instance."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _cursor(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """A cursor for one query. Ctrl-C in it is KeyboardInterrupt, and nothing that could be taken for a failure."""
        cursor = self._open()
        try:
            yield cursor
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C
                raise KeyboardInterrupt from error
            raise
        finally:
            cursor.close()

    def _open(self) -> "duckdb.DuckDBPyConnection":
        with self._lock:
            if self._connection is None:
                import duckdb  # 80 ms: not for processes that only touch SQL

                self._connection = duckdb.connect(":memory:", config=SETTINGS)
                self._connection.execute("set parquet_metadata_cache = true").fetchall()
                if self._remote:
                    from obstore.fsspec import FsspecStore

                    self._connection.register_filesystem(FsspecStore("s3"))
            return self._connection.cursor()


def _quoted(text: str) -> str:
    if "\0" in text:
        raise StoreError(f"a path must not contain a zero byte: {text!r}")
    return "'" + text.replace("'", "''") + "'"
