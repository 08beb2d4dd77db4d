"""Baseline versions: when a new one is due, and making it with the counts of all the past that windows reach."""

from collections.abc import Callable

import sqlalchemy as sa

from sentinel_core.pipeline.context import Context

Also = Callable[[sa.Connection], None]  # what a caller adds to the same transaction, an audit row for example


def pin(
    context: Context, model_id: int, start: int, end: int, *, actor: str, reason: str, also: Also | None = None
) -> int:
    """Compare a model with its events of [start, end) (unix seconds) from now on; returns the new version.

    Raises ConfigError where the span is not one, or holds fewer events than the model's min_samples.
    """
    raise NotImplementedError


def unpin(context: Context, model_id: int, *, actor: str, reason: str, also: Also | None = None) -> int:
    """Compare a model with its own recent past again, by its settings; returns the new version."""
    raise NotImplementedError


def accept(context: Context, model_id: int, *, actor: str, reason: str, also: Also | None = None) -> int:
    """Take the current window for normal: it resolves the psi incident, and the baseline starts anew from the window.

    Returns the new version. Raises ConfigError where the window holds fewer events than the model's min_samples.
    """
    raise NotImplementedError
