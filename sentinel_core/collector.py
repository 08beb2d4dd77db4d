"""Python's cyclic garbage collector, held back where much is allocated and nothing is let go."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector: it would walk every label set and every artifact again and again.

    Halves the time to decode an answer of 100,000 series, and saves a tick over 1,000 watches a tenth.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
