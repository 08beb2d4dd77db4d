"""The stores of the storage tests."""

from tests.storage.conftest import sql_url, sqlite_store, store

__all__ = ["sql_url", "sqlite_store", "store"]
