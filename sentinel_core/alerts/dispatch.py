"""Send what the outbox owes."""

from collections.abc import Callable
from dataclasses import dataclass

from sentinel_core.config import SentinelConfig
from sentinel_core.storage.database import Database


@dataclass(frozen=True)
class DeliveryReport:
    """What one run of the dispatcher did."""

    delivered: int = 0
    repeated: int = 0  # Alertmanager forgets what is not told again
    failed: int = 0  # attempts that will be made again
    dead: int = 0
    next_at: float | None = None  # when there is something to send again


def deliver(
    database: Database, config: SentinelConfig, *, clock: Callable[[], float], patience_seconds: float = 10.0
) -> DeliveryReport:
    """Send everything that is due, and what falls due within `patience_seconds` of the last success."""
    raise NotImplementedError
