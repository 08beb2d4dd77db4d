"""The forecasting loop over a store: read, forecast, score, decide, train, roll back."""

from sentinel_core.pipeline.engine import Engine

__all__ = ["Engine"]
