"""Delete a model: its rows, and its part of every segment."""

from sentinel_core.pipeline.baselining import Also
from sentinel_core.pipeline.context import Context
from sentinel_core.pipeline.reports import DeletionReport


def delete_model(context: Context, model_id: int, *, also: Also | None = None) -> DeletionReport:
    """Delete what is stored of a model; after the next garbage collection no byte of it is left.

    Raises StoreError where there is no such model. Events that arrive later register it anew, under another id.
    """
    raise NotImplementedError
