"""Drains, evaluates and maintains a store at a time that stands still: `python -m … SQL_URL FOLDER NOW BUSY`."""

import sys
from pathlib import Path

from sentinel_core import SentinelConfig
from sentinel_core.pipeline import Engine, draining
from sentinel_core.pipeline.context import Context
from sentinel_core.storage.store import Store


def main(sql_url: str, folder: str, now: str, busy: str) -> None:
    """Work until killed; `busy` exists once the work has begun."""
    draining.MAX_EVENTS = 300  # many transactions to be killed in
    config = SentinelConfig(artifact_store=folder, sql_url=sql_url)
    with Store.open(config.resolved_sql_url, config.resolved_data_url) as store:
        engine = Engine(Context(config, store, lambda: float(now)))
        Path(busy).touch()
        while True:
            engine.drain()
            engine.evaluate()
            engine.maintain()


if __name__ == "__main__":
    main(*sys.argv[1:])
