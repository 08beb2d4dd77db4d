"""Drains a store again and again: `python -m tests.ingest.drain_loop SQL_URL DATA_URL`."""

import sys
import time
from contextlib import suppress

from sentinel_core.config import SentinelConfig
from sentinel_core.errors import ConflictError
from sentinel_core.pipeline.engine import Engine

if __name__ == "__main__":
    sql_url, data_url = sys.argv[1:]
    with Engine.open(SentinelConfig(sql_url=sql_url, data_url=data_url), migrate=False) as engine:
        while True:
            with suppress(ConflictError):
                engine.drain()
            time.sleep(0.02)
