"""Which addresses alerts may be sent to: public ones, and those of `alert_networks`.

Whoever may add a receiver must not be able to reach what only this machine can: its own ports, the neighbours', a
cloud's metadata. A name is resolved here, its addresses are checked, and the connection goes to the checked address, so
that a name that means something else a moment later changes nothing. Redirects are followed nowhere.
"""

import asyncio
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from sentinel_core.errors import PermanentDeliveryError, TransientDeliveryError

KNOWN_SECONDS = 30.0  # how long a name's addresses are reused; one lookup serves all that wait for it
KEPT_CONNECTIONS = 8  # to one host; how many there are at once is the dispatcher's business
_TRIED = 3  # addresses of one name
_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")  # all that was ever given to the internet
_SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")  # a datagram needs no connection
_guard = threading.local()


class Addresses:
    """The rule for one configuration's `alert_networks`."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(text, strict=False) for text in networks]

    def refusal(self, host: str, address: str) -> str | None:
        """Why alerts must not go to an address that a host has; None where they may.

        >>> Addresses().refusal("db", "10.0.0.5")
        'db is 10.0.0.5, which is no public address; the configuration may allow it: alert_networks = ["10.0.0.5/32"]'
        >>> Addresses(["10.0.0.0/8"]).refusal("db", "::ffff:10.0.0.5")
        """
        found = _plain(address)
        if any(found in network for network in self._networks if network.version == found.version):
            return None
        if found.is_global and not found.is_multicast and (found.version == 4 or found in _UNICAST):
            return None
        shown = host if host == str(found) else f"{host} is {found}, which"
        return (
            f"{shown} is no public address; the configuration may allow it: "
            f'alert_networks = ["{found}/{found.max_prefixlen}"]'
        )

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that alerts may go to.

        Raises TransientDeliveryError where it cannot be resolved, PermanentDeliveryError where none is allowed.
        """
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise TransientDeliveryError(f"{host} cannot be resolved ({reason}): check its name and the DNS") from error
        found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        refusals = [self.refusal(host, address) for address in found]
        allowed = [address for address, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not allowed:
            raise PermanentDeliveryError(next(filter(None, refusals)))
        return allowed

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Refuse forbidden connections of the calling thread, whatever library makes them.

        For libraries that resolve and connect by themselves: every `connect` of Python's sockets, and every datagram,
        is checked as it happens. The library sees a PermissionError; PermanentDeliveryError at the end, whatever it
        made of that.
        """
        _install_guard()
        _guard.addresses, _guard.refusal = self, None
        try:
            yield
        finally:
            _guard.addresses = None
            if _guard.refusal is not None:
                raise PermanentDeliveryError(_guard.refusal)


@cache
def _install_guard() -> None:
    sys.addaudithook(_audit)  # for good: Python has no way to remove one, so it is installed when first needed


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    addresses: Addresses | None = getattr(_guard, "addresses", None)
    if addresses is None or event not in _SENDING or arguments[1] is None:  # no address: it is connected already
        return
    target = arguments[1]
    host = str(target[0]) if isinstance(target, tuple) else ""  # a path is a socket of this machine
    try:
        refusal = addresses.refusal(host, host)
    except ValueError:  # a name: the library leaves resolving to the connection, where it cannot be checked
        refusal = f"{target!r} is no address"
    if refusal is not None:
        _guard.refusal = refusal
        raise PermissionError(refusal)


def _plain(address: str) -> IPv4Address | IPv6Address:
    """The address that is meant: IPv6 has several ways to write an IPv4 address, and a scope behind a %."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        return inner or found
    return found


def parse(url: str) -> httpx.URL:
    """An address to send to; ValueError says what is wrong with it.

    >>> parse("ftp://files.example/")
    Traceback (most recent call last):
    ValueError: is not an http:// or https:// address
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"is not an address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("is not an http:// or https:// address")
    if not 0 < _port(parsed) < 65_536:
        raise ValueError(f"is not an address: there is no port {parsed.port}")
    if parsed.userinfo or "@" in parsed.netloc.decode():
        raise ValueError("holds a user name or a password; the settings have a field for a token")
    if parsed.fragment:
        raise ValueError("has a part behind #, which is never sent")
    return parsed


def endpoint(url: str) -> tuple[str, int]:
    """Host and port of an address.

    >>> endpoint("https://hooks.example/T1")
    ('hooks.example', 443)
    """
    parsed = parse(url)
    return parsed.raw_host.decode("ascii"), _port(parsed)


def _port(url: httpx.URL) -> int:
    default = 443 if url.scheme == "https" else 80
    return default if url.port is None else url.port


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to addresses that were checked; certificates and Host header stay those of the name.

    Each host has its own connections: two names at one address must not share one that was made for the other.
    """

    def __init__(self, addresses: Addresses, threads: Executor) -> None:
        self._addresses = addresses
        self._threads = threads
        self._known: dict[str, tuple[float, asyncio.Future[list[str]]]] = {}
        self._inner: dict[tuple[str, str], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send to the first checked address that accepts a connection."""
        url = request.url
        host = url.raw_host.decode("ascii")
        inner = self._transport(url.scheme, host)
        refused: httpx.TransportError | None = None
        for address in (await self._resolved(host, _port(url)))[:_TRIED]:
            request.url = url.copy_with(host=address)
            request.extensions = {**request.extensions, "sni_hostname": host}
            try:
                return await inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused = error
            finally:
                request.url = url
        assert refused is not None
        raise refused

    async def _resolved(self, host: str, port: int) -> list[str]:
        asked, lookup = self._known.get(host, (0.0, None))
        if lookup is None or time.monotonic() - asked > KNOWN_SECONDS or (lookup.done() and lookup.exception()):
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._addresses.resolve, host, port)
            self._known[host] = time.monotonic(), lookup
        return await asyncio.shield(lookup)

    def _transport(self, scheme: str, host: str) -> httpx.AsyncHTTPTransport:
        key = scheme, host
        if key not in self._inner:
            self._inner[key] = httpx.AsyncHTTPTransport(
                verify=_tls() if scheme == "https" else False,  # plain HTTP need not load authorities for 20 ms
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
                trust_env=False,
            )
        return self._inner[key]

    async def aclose(self) -> None:
        """Close the connections."""
        for transport in self._inner.values():
            await transport.aclose()


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
