"""What every part of the sidecar works with; assembled once, by `sidecar.create_app`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentinel_core.config import SentinelConfig
from sentinel_core.security.keys import KeyRing
from sentinel_core.security.passwords import Passwords
from sentinel_core.storage.store import Store

if TYPE_CHECKING:
    from sentinel_core.apps.access import Access
    from sentinel_core.apps.event_writer import EventWriter
    from sentinel_core.apps.metrics import Live


@dataclass(frozen=True)
class Backend:
    """What a command needs: the store, the configuration in use, the clock and the keys. The CLI has one too."""

    store: Store
    config: Callable[[], SentinelConfig]  # a reload changes it while the process runs: ask each time
    now: Callable[[], float]  # unix seconds
    keyring: KeyRing
    passwords: Passwords


@dataclass(frozen=True)
class Services(Backend):
    """What a page or an endpoint needs besides: who asks, where events go, and the newest snapshot."""

    access: "Access"
    writer: "EventWriter"
    live: "Live"
