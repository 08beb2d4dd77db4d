"""Sentinel: forecasts of what production will do, and drift of what production models do."""

from sentinel_core.config import AuthConfig, MonitorConfig, SentinelConfig, WatchConfig
from sentinel_core.sentinel import Sentinel

__version__ = "0.1.0"

__all__ = ["AuthConfig", "MonitorConfig", "Sentinel", "SentinelConfig", "WatchConfig", "__version__"]
