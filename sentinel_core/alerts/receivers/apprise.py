"""E-mail and a hundred other services, through Apprise (https://github.com/caronc/apprise), an extra.

It resolves and connects by itself, in a thread: every connection is checked as it is made. Nor does it tell a failure
that passes from one that does not, so that all are tried again.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from sentinel_core.alerts.addresses import Addresses
from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers.base import Receiver
from sentinel_core.errors import PermanentDeliveryError, TransientDeliveryError

SECONDS = 20.0  # mail servers think before they greet
MISSING = "needs Apprise, which is not installed: pip install 'sentinel[apprise]'"


class Apprise(Receiver, frozen=True):
    """url: one of Apprise's, such as "mailtos://user:password@mail.example?to=ops@example"; it holds secrets."""

    SECRETS: ClassVar[tuple[str, ...]] = ("url",)

    def problems(self) -> Mapping[str, str]:
        """See `Receiver`."""
        try:
            _plugin(self.url)
        except PermanentDeliveryError as error:
            return {"url": str(error)}
        return {}

    def urls(self) -> Mapping[str, str]:
        """Not known before it connects."""
        return {}

    async def send(self, alert: Alert, post: Post) -> str:
        """See `Receiver`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SECONDS):
                return await loop.run_in_executor(post.threads, _send, self.url, alert, post.addresses)
        except TimeoutError:
            raise TransientDeliveryError(f"Apprise did not come to an end within {SECONDS:g} s") from None


def _plugin(url: str) -> Any:
    try:
        import apprise
    except ImportError:
        raise PermanentDeliveryError(MISSING) from None
    plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if plugin is None:
        raise PermanentDeliveryError("is none of Apprise's addresses; see https://appriseit.com/services")
    return plugin


def _send(url: str, alert: Alert, addresses: Addresses) -> str:
    plugin = _plugin(url)
    kind = {"warn": "warning", "critical": "failure"}[alert.severity] if alert.active else "success"
    body = "\n\n".join((alert.headline, alert.seriousness, alert.why, alert.next, alert.link))
    with addresses.guarded(), _heard() as said:
        taken = plugin.notify(body=body, title=alert.title, notify_type=kind, body_format="text")
    if not taken:
        raise TransientDeliveryError(f"Apprise could not send: {'; '.join(said) or 'it does not say why'}")
    return "sent"


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What Apprise logs in this thread: it tells its callers no more than whether it has sent."""
    said: list[str] = []
    mine = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == mine:
                said.append(record.getMessage())

    logger, listener = logging.getLogger("apprise"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
