"""Prometheus over HTTP: retried, bounded in time and size, and honest about why it could not answer."""

import logging
import math
import os
import random
import ssl
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self, TypeVar

import httpx
import msgspec

from sentinel_core.config import AuthConfig
from sentinel_core.errors import ConfigError, PermanentSourceError, TransientSourceError
from sentinel_core.prometheus.auth import credentials, tls
from sentinel_core.prometheus.decode import (
    Answer,
    Description,
    Labels,
    Matrix,
    MatrixBuilder,
    sample_times,
    successful,
    vector,
)
from sentinel_core.windows import FloatArray, IntArray, grid

Observe = Callable[[str, float, str], None]
T = TypeVar("T")

MAX_POINTS = 11_000  # per series and request: Prometheus answers 400 above
MAX_SAMPLES = 1_500_000  # per request: ~55 MB of JSON; 14.4 M at once peaked at 4.4 GB in Prometheus and here
MAX_ANSWER_BYTES = 256 * 2**20  # four times such an answer: whoever sends more is not answering what we asked
MAX_ERROR_TEXT = 500  # characters of somebody else's words in a message of ours

_METADATA = msgspec.json.Decoder(Answer[dict[str, list[Description]]])
_NAMES = msgspec.json.Decoder(Answer[list[str]])
_BUILD = msgspec.json.Decoder(Answer[dict[str, str]])
_ERROR = msgspec.json.Decoder(Answer[msgspec.Raw])
_OVERLOAD = ("timeout", "canceled", "unavailable")  # errorTypes that pass by themselves, whatever their status

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retry:
    """How often and how long one request is tried: pauses double from base_seconds, halved at random at most."""

    attempts: int = 3
    base_seconds: float = 0.25
    deadline_seconds: float = 30.0  # all attempts and pauses; a longer `timeout` gets one whole attempt


@dataclass(frozen=True)
class Streamed:
    """An answer that is on its way. `pieces` raises as `PrometheusClient.stream`."""

    status: int
    content_type: str
    location: str  # where a redirect leads
    pieces: Iterator[bytes]


class PrometheusClient:
    """A synchronous client of one Prometheus-compatible query API; a context manager; threads may share it.

    url:       base URL, with a path prefix if there is one; user:password in it is used and never shown
    timeout:   seconds for one attempt, answer included
    transport: replaces the network, in tests
    observe:   called with (endpoint, seconds, "ok" | "transient" | "permanent") after every attempt

    Raises ConfigError from the constructor (URL, missing secrets, TLS files); its methods raise TransientSourceError
    after the last retry and PermanentSourceError at once.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        auth: AuthConfig | None = None,
        transport: httpx.BaseTransport | None = None,
        observe: Observe | None = None,
        retry: Retry | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        auth = auth or AuthConfig()
        base = _parse_url(url)
        self._credentials = credentials(auth, environ, (base.username, base.password))
        base = base.copy_with(username=None, password=None, query=None, fragment=None)
        self.url = str(base).rstrip("/")
        self._timeout = timeout
        self._observe = observe
        self._retry = retry or Retry()
        self._http = httpx.Client(
            headers={**self._credentials.headers, "Accept-Encoding": "identity"},  # gzip doubles a request's time
            verify=tls(auth) if base.scheme == "https" else False,  # plain HTTP need not load authorities for 20 ms
            timeout=timeout,
            transport=transport,
            follow_redirects=False,  # credentials go to the configured host, and to no other
            trust_env=base.host
            not in ("localhost", "127.0.0.1", "::1"),  # a proxy from the environment is not for loopback
        )
        self._close = weakref.finalize(self, self._http.close)  # at the latest when nobody holds it any more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._close()

    def now(self) -> float:
        """Prometheus' own clock, unix seconds."""
        answer = self.query("time()")
        if not answer:
            self._permanent("answers time() with nothing; is it a Prometheus?")
        return answer[0][1]

    def query(self, expression: str, at: float | None = None) -> list[tuple[Labels, float]]:
        """Evaluate at one time (None: Prometheus' now); a scalar comes as one value without labels."""
        return self._ask("query", _instant(expression, at), vector)

    def count(self, expression: str, at: float | None = None) -> int:
        """How many series an expression has at one time."""
        return int(sum(value for _, value in self.query(f"count({expression}\n)", at)))

    def sample_times(self, range_selector: str, at: float) -> list[FloatArray]:
        """Timestamps of the raw samples of each series under e.g. `up[5m]`, unix seconds."""
        return self._ask("query", _instant(range_selector, at), sample_times)

    def query_range(
        self,
        expression: str,
        start: int,
        end: int,
        step: int,
        expected_series: int = 1_000,
        check: Callable[[int], None] | None = None,
    ) -> Matrix:
        """Evaluate at every multiple of `step` in [start, end], in requests small enough for both sides.

        expected_series: how many series to expect at one time; it sizes the requests and the memory
        check:           called with the number of series so far after each request; it may raise to end the reading
        """
        times = grid(start, end, step)
        builder = MatrixBuilder(times, step, expected_series)
        for first, last in _chunks(times, expected_series):
            fields = {"query": expression, "start": str(first), "end": str(last), "step": str(step)}
            for warning in self._ask("query_range", fields, builder.add):
                log.warning("Prometheus at %s answers %s with a warning: %s", self.url, expression, warning)
            if check is not None:
                check(builder.series)
        return builder.matrix()

    def metadata_type(self, metric: str) -> str | None:
        """The type that the metric's target declares ("counter", "gauge", …); None where nobody says."""
        answer = self._ask("metadata", {"metric": metric}, _METADATA.decode, method="GET").data or {}
        types = [entry.type for entry in answer.get(metric, [])]
        return types[0] if types and types[0] != "unknown" else None

    def metric_names(self, selector: str) -> list[str]:
        """Metrics that have had a series under a selector at any time within retention; reads the index only."""
        return self._ask(
            "label/__name__/values", {"match[]": selector}, lambda body: successful(_NAMES.decode(body)), method="GET"
        )

    def buildinfo(self) -> dict[str, str]:
        """What /api/v1/status/buildinfo says, `version` among it."""
        return self._ask("status/buildinfo", {}, lambda body: successful(_BUILD.decode(body)), method="GET")

    def _ask(self, endpoint: str, fields: Mapping[str, str], decode: Callable[[bytes], T], method: str = "POST") -> T:
        deadline = time.monotonic() + max(self._retry.deadline_seconds, self._timeout)
        attempt = 0
        while True:
            attempt += 1
            started = time.monotonic()
            outcome = "permanent"
            try:
                answer = self._attempt(endpoint, fields, decode, method, min(self._timeout, deadline - started))
                outcome = "ok"
                return answer
            except TransientSourceError as error:
                outcome = "transient"
                pause = self._retry.base_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
                if attempt >= self._retry.attempts or time.monotonic() + pause >= deadline:
                    times = f"{attempt} times" if attempt > 1 else "once"
                    raise TransientSourceError(f"{error} (tried {times})") from None
            finally:
                if self._observe is not None:
                    self._observe(endpoint, time.monotonic() - started, outcome)
            time.sleep(pause)

    def _attempt(
        self, endpoint: str, fields: Mapping[str, str], decode: Callable[[bytes], T], method: str, seconds: float
    ) -> T:
        status, content_type, location, body = self._exchange(endpoint, fields, method, seconds)
        if status != 200:
            self._refuse(status, location, body)
        try:
            return decode(body)
        except (msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:  # whole, but of no shape we know
            self._permanent(f"answers {endpoint} with {error}")
        except msgspec.DecodeError:
            if body.lstrip()[:1] == b"{":
                raise self._transient("broke off in the middle of an answer") from None
            self._permanent(
                f"answers with {content_type or 'something'} that is not Prometheus' JSON; "
                "is prometheus_url the address of Prometheus itself, and not of a login page or a proxy?"
            )

    def _exchange(
        self, endpoint: str, fields: Mapping[str, str], method: str, seconds: float
    ) -> tuple[int, str, str, bytes]:
        """One request and its whole answer: (status, content type, location, body)."""
        timeout = {} if method == "GET" else {"timeout": f"{math.ceil(seconds)}s"}
        with self.stream(endpoint, {**fields, **timeout}, seconds=seconds, method=method) as answer:
            body = bytearray()
            for piece in answer.pieces:
                body += piece
            return answer.status, answer.content_type, answer.location, bytes(body)

    @contextmanager
    def stream(
        self,
        endpoint: str,
        fields: Mapping[str, str | Sequence[str]],
        *,
        seconds: float,
        method: str = "POST",
        setting: str = "scrape_timeout",
    ) -> Iterator[Streamed]:
        """Send one request, once, and hand on what is answered while the block runs, whatever its status.

        fields:  a form, or with GET the query; several values of one name are a list
        seconds: for the whole answer; what they come from is the `setting` to raise

        Raises TransientSourceError where no answer comes, or not all of it in time, and PermanentSourceError where it
        never would.
        """
        ends = time.monotonic() + seconds
        query, form = (fields, None) if method == "GET" else (None, fields)
        url = f"{self.url}/api/v1/{endpoint}"
        with (
            self._blamed(endpoint, seconds, setting),
            self._http.stream(method, url, params=query, data=form, timeout=seconds) as response,
        ):
            headers = response.headers
            yield Streamed(
                response.status_code,
                headers.get("content-type", ""),
                headers.get("location", "elsewhere"),
                self._pieces(response, endpoint, seconds, ends, setting),
            )

    def _pieces(
        self, response: httpx.Response, endpoint: str, seconds: float, ends: float, setting: str
    ) -> Iterator[bytes]:
        total = 0
        with self._blamed(endpoint, seconds, setting):
            for piece in response.iter_bytes():
                total += len(piece)
                if total > MAX_ANSWER_BYTES:
                    self._permanent(
                        f"sends more than {MAX_ANSWER_BYTES >> 20} MiB for one {endpoint}; narrow the watch or query"
                    )
                if time.monotonic() > ends:  # httpx's timeout is for each read: a dripping answer never meets it
                    raise httpx.ReadTimeout("the answer as a whole took too long")
                yield piece

    @contextmanager
    def _blamed(self, endpoint: str, seconds: float, setting: str) -> Iterator[None]:
        """What goes wrong on the way, in our words."""
        try:
            yield
        except httpx.TimeoutException:
            raise self._transient(
                f"did not answer {endpoint} within {seconds:.3g} s; raise {setting} if it is slow"
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            if reason := _certificate_error(error):
                self._permanent(f"shows a certificate that does not verify ({reason}); set auth.ca_file")
            if isinstance(error, httpx.ConnectError):
                raise self._transient(f"cannot be reached ({error}); is it running?") from None
            raise self._transient(f"broke off ({error or type(error).__name__})") from None

    def _refuse(self, status: int, location: str, body: bytes) -> NoReturn:
        try:
            failure = _ERROR.decode(body)
            words, kind = failure.error, failure.errorType
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            words, kind = body[:MAX_ERROR_TEXT].decode(errors="replace").strip(), ""
        said = f"{status}: {words[:MAX_ERROR_TEXT]}" if words else str(status)
        if status == 429 or status >= 500 or kind in _OVERLOAD:
            raise self._transient(f"answers {said}")
        if status in (401, 403):
            self._permanent(
                f"refuses our credentials ({said}); set auth.bearer_token_env, or auth.username and password_env"
            )
        if 300 <= status < 400:
            target = httpx.URL(location).copy_with(username=None, password=None, query=None)
            self._permanent(f"redirects to {target}, which is not followed; write the final address as prometheus_url")
        if status in (404, 405):
            self._permanent(f"has no query API there ({said}); is a path prefix missing in prometheus_url?")
        self._permanent(f"answers {said}")

    def _transient(self, what: str) -> TransientSourceError:
        return TransientSourceError(self._credentials.redact(f"Prometheus at {self.url} {what}"))

    def _permanent(self, what: str) -> NoReturn:
        raise PermanentSourceError(self._credentials.redact(f"Prometheus at {self.url} {what}"))


def _instant(expression: str, at: float | None) -> dict[str, str]:
    return {"query": expression} if at is None else {"query": expression, "time": f"{at:.3f}"}


def _chunks(times: IntArray, series: int) -> list[tuple[int, int]]:
    points = max(1, min(MAX_POINTS, MAX_SAMPLES // max(1, series)))
    return [(int(times[i]), int(times[min(i + points, len(times)) - 1])) for i in range(0, len(times), points)]


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError([f"prometheus_url: {error}; write http://host:9090"]) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(["prometheus_url: not an http:// or https:// address; write http://host:9090"])
    return parsed


def _certificate_error(error: BaseException) -> str | None:
    """The reason, where a certificate that does not verify is at the bottom of a connection error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None
