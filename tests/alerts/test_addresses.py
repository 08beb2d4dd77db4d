"""Where alerts may go: decided after resolving, kept to when connecting."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.alerts import addresses as module
from sentinel_core.alerts.addresses import Addresses, parse
from sentinel_core.alerts.posting import Post
from sentinel_core.errors import PermanentDeliveryError, TransientDeliveryError
from tests.alerts.receiver_server import Answer, ReceiverServer

LOOPBACK = Addresses(["127.0.0.0/8", "::1/128"])


def post(url: str, addresses: Addresses = LOOPBACK) -> str:
    async def send() -> str:
        async with Post(addresses, lambda: 1_760_000_000.0) as sender:
            return await sender(url, b"{}")

    return asyncio.run(send())


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
        *("64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "::ffff:0:127.0.0.1"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """Private, loopback, link-local, multicast and reserved ones, and IPv6 that means one of them."""
    assert "alert_networks" in (Addresses().refusal("host", address) or "")


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    """Also an IPv4 address in the clothes of IPv6."""
    assert Addresses().refusal("host", address) is None


@given(st.ip_addresses(v=4), st.integers(8, 32))
def test_a_network_that_is_allowed_lets_its_addresses_in(address: Any, length: int) -> None:
    """Whatever it is, and however it is written."""
    allowed = Addresses([f"{address}/{length}"])
    assert allowed.refusal("host", str(address)) is None
    assert allowed.refusal("host", f"::ffff:{address}") is None


@pytest.mark.parametrize("name", ["localhost", "127.1", "2130706433", "0x7f000001", "[::1]"])
def test_names_are_judged_by_what_they_resolve_to(name: str) -> None:
    """However this machine is written, it is found out."""
    with pytest.raises((PermanentDeliveryError, TransientDeliveryError), match=r"no public address|cannot be resolved"):
        post(f"http://{name}:1/", Addresses())


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "is not an http:// or https:// address"),
        ("gopher://x/", "is not an http:// or https:// address"),
        ("//x/", "is not an http:// or https:// address"),
        ("http://", "is not an http:// or https:// address"),
        ("http://user:pass@x.example/", "holds a user name"),
        ("http://good.example@evil.example/", "holds a user name"),
        ("http://x.example/#part", "behind #"),
        ("http://x.example:99999/", "is not an address"),
        ("http://0177.0.0.1/", "is not an address"),
        ("http://x.example\r\nhost: y/", "is not an address"),
    ],
)
def test_addresses_that_nobody_means_are_refused(url: str, problem: str) -> None:
    """Each with what is wrong."""
    with pytest.raises(ValueError, match=problem):
        parse(url)


def test_the_connection_goes_to_the_address_that_was_checked(
    server: ReceiverServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another machine at the second look is not looked up again; Host stays the name."""
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.6.6.6", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = server.url.rpartition(":")[2]
    assert post(f"http://rebind.example:{port}/x", Addresses(["127.0.0.1/32"])) == "HTTP 200: ok"
    assert asked == ["rebind.example"]
    assert server.requests[0].headers["host"] == f"rebind.example:{port}"


def test_a_forbidden_address_among_several_is_left_out(server: ReceiverServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones that are allowed are tried, and the next where the first does not answer."""
    real = socket.getaddrinfo

    def several(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "several.example":
            return real(host, port, *args, **kwargs)
        return [one for each in ("10.1.1.1", "127.0.0.9", "127.0.0.1") for one in real(each, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    port = server.url.rpartition(":")[2]
    assert post(f"http://several.example:{port}/", Addresses(["127.0.0.0/8"])) == "HTTP 200: ok"


def test_redirects_are_not_followed(server: ReceiverServer) -> None:
    """Whoever answers with another address gets no second request."""
    server.answer = lambda request: Answer(307, {"location": f"{server.url}/elsewhere"})
    with pytest.raises(PermanentDeliveryError, match="redirects are not followed"):
        post(f"{server.url}/")
    assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_not_asked(server: ReceiverServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would resolve the name again."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(f"{server.url}/") == "HTTP 200: ok"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer(500, text="oh no"), TransientDeliveryError, "answered HTTP 500: oh no"),
        (Answer(408), TransientDeliveryError, "HTTP 408"),
        (Answer(429, {"retry-after": "Thu, 09 Oct 2025 08:54:40 GMT"}), TransientDeliveryError, "HTTP 429"),
        (Answer(lost=True), TransientDeliveryError, "could not be reached"),
        (Answer(400, text="bad\r\n\x1b[31m"), PermanentDeliveryError, "answered HTTP 400: bad"),
        (Answer(410), PermanentDeliveryError, "HTTP 410"),
        (Answer(404, text="x" * 1_000_000), PermanentDeliveryError, "HTTP 404: x{300}$"),
    ],
)
def test_answers_are_judged(server: ReceiverServer, answer: Answer, error: type[Exception], said: str) -> None:
    """What passes by itself is transient, the rest is not; only the beginning of what was said is read."""
    server.answer = lambda request: answer
    with pytest.raises(error, match=said) as raised:
        post(f"{server.url}/")
    if answer.status == 429:
        assert getattr(raised.value, "retry_after", None) == pytest.approx(80.0)


def test_a_receiver_that_dribbles_is_given_up(server: ReceiverServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole answer, not for each part of it."""
    monkeypatch.setattr("sentinel_core.alerts.posting.SEND_SECONDS", 0.3)
    server.answer = lambda request: Answer(seconds=1.0)
    with pytest.raises(TransientDeliveryError, match="did not answer within"):
        post(f"{server.url}/")


def test_a_guarded_thread_connects_to_allowed_addresses_only(server: ReceiverServer) -> None:
    """Whatever library does it; other threads and later connections are free."""
    port = int(server.url.rpartition(":")[2])
    with LOOPBACK.guarded():
        socket.create_connection(("127.0.0.1", port)).close()

    def forbidden() -> None:
        with Addresses().guarded():
            with pytest.raises(PermissionError):
                socket.create_connection(("127.0.0.1", port))
            free = threading.Thread(target=lambda: freed.append(socket.create_connection(("127.0.0.1", port)).close()))
            free.start()
            free.join()

    freed: list[None] = []
    with pytest.raises(PermanentDeliveryError, match=r"127\.0\.0\.1 is no public address"):
        forbidden()
    assert freed == [None]
    socket.create_connection(("127.0.0.1", port)).close()


def test_a_guarded_thread_reaches_no_socket_of_this_machine(tmp_path: Path) -> None:
    """Nor one that is a file."""

    def connect() -> None:
        with LOOPBACK.guarded(), socket.socket(socket.AF_UNIX) as client, suppress(PermissionError):
            client.connect(str(tmp_path / "s"))

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(PermanentDeliveryError, match="is no address"):
            connect()


@pytest.mark.parametrize("send", ["sendto", "sendmsg"])
def test_a_guarded_thread_sends_no_datagram_to_forbidden_addresses(send: str) -> None:
    """rsyslog:// and its like never connect; a connected socket's datagrams were checked with its connection."""

    def forbidden() -> None:
        with Addresses().guarded(), socket.socket(type=socket.SOCK_DGRAM) as client, suppress(PermissionError):
            if send == "sendto":
                client.sendto(b"x", address)
            else:
                client.sendmsg([b"x"], [], 0, address)

    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        address = listening.getsockname()
        with pytest.raises(PermanentDeliveryError, match=r"127\.0\.0\.1 is no public address"):
            forbidden()
        with pytest.raises(BlockingIOError):
            listening.recv(1)
        with LOOPBACK.guarded(), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect(address)
            client.sendmsg([b"x"])


@contextmanager
def tls_server(folder: Path, name: str) -> Iterator[int]:
    """A TLS port with a certificate of a name, which answers 204 once."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda connection, asked, _: names.append(asked)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(10.0)  # a client that never comes fails the test instead of holding it for ever

    def serve() -> None:
        for _ in range(2):
            try:
                plain, _ = listening.accept()
            except TimeoutError:
                return
            plain.settimeout(10.0)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    while connection.recv(65_536):  # closing on unread bytes would reset the answer away
                        pass
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        thread.join()
        listening.close()
        assert names == [name, f"not-{name}"]


def test_certificates_are_those_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS asks for the name and checks it, although the connection goes to an address."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kwargs: real("127.0.0.1" if "hooks" in str(host) else host, *args, **kwargs),
    )
    with tls_server(tmp_path, "hooks.example") as port:
        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        monkeypatch.setattr(module, "_tls", lambda: trusting)
        assert post(f"https://hooks.example:{port}/") == "HTTP 204"
        with pytest.raises(TransientDeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
            post(f"https://not-hooks.example:{port}/")
