"""One POST to one receiver: in time, bounded in size, without redirects, and judged: taken, later, or never."""

import asyncio
import email.utils
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx

from sentinel_core.alerts.addresses import Addresses, CheckedTransport, parse
from sentinel_core.errors import PermanentDeliveryError, TransientDeliveryError

SEND_SECONDS = 10.0  # for one attempt, answer included
MAX_ANSWER_BYTES = 16_384  # nobody has more to say about an alert
MAX_ANSWER_TEXT = 300  # characters of somebody else's words in a message of ours
MAX_RETRY_AFTER_SECONDS = 86_400.0
MAX_THREADS = 256  # for lookups of names, and for libraries that block
_LATER = (408, 425, 429)  # the 4xx that pass by themselves


class Post:
    """Posts to checked addresses. An async context manager of one event loop.

    addresses: which ones are allowed
    threads:   for what blocks
    clock:     unix seconds, for a Retry-After that names a date
    """

    def __init__(self, addresses: Addresses, clock: Callable[[], float]) -> None:
        self.addresses = addresses
        self._clock = clock
        # a receiver that hangs holds as many as it may have alerts under way, and leaves the rest to the others
        self.threads = ThreadPoolExecutor(MAX_THREADS, "alerts")
        self._http = httpx.AsyncClient(
            transport=CheckedTransport(addresses, self.threads),
            timeout=SEND_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> str:
        """Post JSON; returns the status and what was said with it.

        Raises TransientDeliveryError (no connection, no answer in time, 408, 425, 429, 5xx) and PermanentDeliveryError
        (other answers, an address that is not allowed).
        """
        host = parse(url).host
        sent = {
            "content-type": "application/json",
            "user-agent": "sentinel",
            "accept-encoding": "identity",
            **(headers or {}),
        }
        try:
            async with (
                asyncio.timeout(SEND_SECONDS),
                self._http.stream("POST", url, content=body, headers=sent) as response,
            ):
                text = await _beginning(response)
        except TimeoutError:
            raise TransientDeliveryError(f"{host} did not answer within {SEND_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise TransientDeliveryError(f"{host} could not be reached: {reason}") from error
        said = f"HTTP {response.status_code}{f': {text}' if text else ''}"
        if response.is_success:
            return said
        if response.status_code >= 500 or response.status_code in _LATER:
            raise TransientDeliveryError(f"{host} answered {said}", self._retry_after(response))
        if response.is_redirect:
            raise PermanentDeliveryError(f"{host} answered {said}: redirects are not followed, name the final address")
        raise PermanentDeliveryError(f"{host} answered {said}")

    def _retry_after(self, response: httpx.Response) -> float:
        """Seconds that the receiver asks to be left alone, as a number or a date; 0 where it does not ask."""
        text = response.headers.get("retry-after", "").strip()
        try:
            seconds = float(text) if text.isdecimal() else email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return 0.0
        if not text.isdecimal():
            seconds -= self._clock()
        return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


async def _beginning(response: httpx.Response) -> str:
    """The first words of an answer, on one line."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= MAX_ANSWER_BYTES:
            break
    return " ".join(body[:MAX_ANSWER_BYTES].decode(errors="replace").split())[:MAX_ANSWER_TEXT]
