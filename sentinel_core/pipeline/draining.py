"""From the event log to segments: every acknowledged event lands once, in its own hour."""

from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import DrainReport


def drain(context: Context) -> DrainReport:
    """Move everything that the event log holds into segments, in chunks of bounded size; the sidecar may append.

    One transaction per chunk: the events and their counts become visible and their rows leave the log, or nothing
    happens. New models are registered, and hours that were evaluated already are noted to be evaluated again.
    """
    raise NotImplementedError
