"""Credentials: read from the environment, checked before they travel, absent from every message."""

import base64
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from sentinel_core.config import AuthConfig
from sentinel_core.errors import ConfigError, PermanentSourceError, SourceError
from sentinel_core.prometheus import PrometheusClient
from sentinel_core.prometheus.auth import credentials, tls

TIME = b'{"status":"success","data":{"resultType":"scalar","result":[4,"4"]}}'


def sent_headers(url: str, auth: AuthConfig, environ: dict[str, str]) -> httpx.Headers:
    """The headers of a request that a client makes."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=TIME)

    with PrometheusClient(url, auth=auth, environ=environ, transport=httpx.MockTransport(handle)) as client:
        client.now()
    return seen[0].headers


def basic(user: str, password: str) -> str:
    """RFC 7617."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_bearer_token_travels() -> None:
    """The variable's value, without the newline that a file left behind, is the bearer token."""
    headers = sent_headers("http://p:9090", AuthConfig(bearer_token_env="TOKEN"), {"TOKEN": "s3cret\n"})
    assert headers["authorization"] == "Bearer s3cret"


def test_basic_authentication_travels() -> None:
    """User and password from the configuration win over those in the URL."""
    auth = AuthConfig(username="ops", password_env="PASSWORD")
    headers = sent_headers("http://a:b@p:9090", auth, {"PASSWORD": "p:ss"})
    assert headers["authorization"] == basic("ops", "p:ss")


def test_the_urls_user_is_used_and_not_shown() -> None:
    """A password inside the URL authenticates, and no address that is shown has it."""
    assert sent_headers("http://ops:hidden@p:9090/prom/", AuthConfig(), {})["authorization"] == basic("ops", "hidden")
    with PrometheusClient("http://ops:hidden@p:9090/prom/") as client:
        assert client.url == "http://p:9090/prom"


def test_headers_from_the_environment_travel() -> None:
    """Tenancy headers are sent beside the rest."""
    headers = sent_headers("http://p:9090", AuthConfig(headers_env={"X-Scope-OrgID": "TENANT"}), {"TENANT": "blue"})
    assert headers["x-scope-orgid"] == "blue"


def test_every_missing_variable_is_named() -> None:
    """One ConfigError lists all the variables that are not set, and those that no header can carry."""
    auth = AuthConfig(bearer_token_env="TOKEN", headers_env={"X-A": "A", "X-B": "B"})
    with pytest.raises(ConfigError) as caught:
        credentials(auth, {"B": "two\nlines"})
    assert len(caught.value.problems) == 3
    assert "TOKEN is not set" in str(caught.value)
    assert "A is not set" in str(caught.value)
    assert "B holds characters" in str(caught.value)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("status", [302, 401, 422, 503])
def test_no_message_shows_a_secret(status: int) -> None:
    """A server that echoes what it was sent does not bring the secret into our errors."""

    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            status, text=f"denied {request.headers['authorization']}", headers={"location": "http://u:pw@x/"}
        )

    auth = AuthConfig(bearer_token_env="TOKEN")
    transport, environ = httpx.MockTransport(echo), {"TOKEN": "s3cret"}
    with (
        PrometheusClient("http://p:9090", auth=auth, environ=environ, transport=transport) as client,
        pytest.raises(SourceError, match="Prometheus at http://p:9090") as caught,
    ):
        client.now()
    assert "s3cret" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_tls_files_that_are_missing_or_no_pem_are_named(tmp_path: Path) -> None:
    """Paths are checked at once, with the setting's name."""
    with pytest.raises(ConfigError, match=r"auth\.ca_file: there is no file /nowhere"):
        tls(AuthConfig(ca_file="/nowhere"))
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match="does not load"):
        tls(AuthConfig(ca_file=str(tmp_path / "ca.pem")))


class _Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(TIME)))
        self.end_headers()
        self.wfile.write(TIME)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A TLS server with a certificate of its own: (url, certificate file)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = HTTPServer(("127.0.0.1", 0), _Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", certificate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_unknown_certificate_is_permanent_and_says_what_to_set(https: tuple[str, str]) -> None:
    """A certificate that does not verify is not retried."""
    outcomes: list[str] = []
    with (
        PrometheusClient(https[0], observe=lambda endpoint, seconds, outcome: outcomes.append(outcome)) as client,
        pytest.raises(PermanentSourceError, match=r"does not verify.*auth\.ca_file"),
    ):
        client.now()
    assert outcomes == ["permanent"]


@pytest.mark.parametrize("trusting", [False, True])
def test_a_private_authority_or_no_verification_reach_it(https: tuple[str, str], trusting: bool) -> None:
    """`ca_file` trusts a private authority; `insecure_skip_verify` trusts anyone."""
    auth = AuthConfig(insecure_skip_verify=True) if trusting else AuthConfig(ca_file=https[1])
    with PrometheusClient(https[0], auth=auth) as client:
        assert client.now() == 4.0
