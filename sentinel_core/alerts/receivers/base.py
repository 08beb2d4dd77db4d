"""What every receiver is: its settings, and how to send one alert."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.posting import Post


class Receiver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields are the settings; decoding refuses unknown, missing and mistyped ones."""

    SECRETS: ClassVar[tuple[str, ...]] = ()  # fields that are shown masked
    REPEAT_SECONDS: ClassVar[float | None] = None  # it forgets an active incident that it is not told of again

    url: str

    def problems(self) -> Mapping[str, str]:
        """What is wrong with the settings besides the addresses of `urls`, by field."""
        return {}

    def urls(self) -> Mapping[str, str]:
        """What it connects to, by field; checked when it is added."""
        return {"url": self.url}

    @abstractmethod
    async def send(self, alert: Alert, post: Post) -> str:
        """Send, and return what the receiver said; TransientDeliveryError or PermanentDeliveryError otherwise."""
