"""AuthConfig to headers and TLS: secrets are read from the environment once, and checked before they travel."""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sentinel_core.config import AuthConfig
from sentinel_core.errors import ConfigError


@dataclass(frozen=True)
class Credentials:
    """Headers to send, and the secret texts that no message may show."""

    headers: Mapping[str, str]
    secrets: tuple[str, ...]

    def redact(self, text: str) -> str:
        """Replace every secret in a text that came from elsewhere (a proxy may echo what it was sent)."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def credentials(auth: AuthConfig, environ: Mapping[str, str], url_user: tuple[str, str] = ("", "")) -> Credentials:
    """Read what the configuration names; `url_user` is the user:password of the URL, used where `auth` says nothing.

    ConfigError lists every variable that is missing or cannot travel in a header.

    >>> credentials(AuthConfig(bearer_token_env="TOKEN"), {"TOKEN": "s3cret"}).headers
    {'Authorization': 'Bearer s3cret'}
    """
    problems: list[str] = []

    def read(setting: str, variable: str) -> str:
        value = environ.get(variable, "").strip()  # files and shells leave a newline behind
        if not value:
            problems.append(f"auth.{setting}: the environment variable {variable} is not set; export it")
        elif not (value.isascii() and value.isprintable()):
            problems.append(f"auth.{setting}: {variable} holds characters that no HTTP header can carry; set it again")
        return value

    headers: dict[str, str] = {}
    secrets: list[str] = []
    user, password = url_user
    if auth.username is not None:
        user = auth.username
        password = read("password_env", auth.password_env) if auth.password_env else ""
    if auth.bearer_token_env:
        token = read("bearer_token_env", auth.bearer_token_env)
        headers["Authorization"] = f"Bearer {token}"
        secrets.append(token)
    elif user or password:
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
        secrets += [encoded, password]
    for header, variable in auth.headers_env.items():
        headers[header] = read(f"headers_env.{header}", variable)
        secrets.append(headers[header])
    if problems:
        raise ConfigError(problems)
    return Credentials(headers, tuple(sorted(filter(None, secrets), key=len, reverse=True)))


def tls(auth: AuthConfig) -> ssl.SSLContext:
    """TLS as configured: `ca_file` replaces the system's authorities; ConfigError for files that do not load."""
    problems = [
        f"auth.{setting}: there is no file {path}; correct the path"
        for setting, path in (("ca_file", auth.ca_file), ("cert_file", auth.cert_file), ("key_file", auth.key_file))
        if path is not None and not Path(path).is_file()
    ]
    if problems:
        raise ConfigError(problems)
    try:
        context = ssl.create_default_context(cafile=auth.ca_file)
        if auth.cert_file is not None:
            context.load_cert_chain(auth.cert_file, auth.key_file)
    except ssl.SSLError as error:
        raise ConfigError(
            [f"auth: a TLS file does not load ({error.reason}); ca_file, cert_file, key_file are PEM"]
        ) from error
    if auth.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
