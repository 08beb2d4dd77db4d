"""The series of the Prometheus behind us, and whole requests passed on to it."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np

from sentinel_core.config import SentinelConfig
from sentinel_core.errors import ConfigError, SourceError
from sentinel_core.prometheus.client import MAX_POINTS, MAX_SAMPLES, PrometheusClient, Streamed
from sentinel_core.prometheus.decode import Answer, Description, NativeHistogramsError, Rows, rows, successful
from sentinel_core.promql.errors import NotSupportedError, QueryError, TooBusyError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import LOOKBACK, Labels, Samples, Vector
from sentinel_core.series import LABEL_NAME, Matcher, quote
from sentinel_core.windows import FloatArray, IntArray

Form = Sequence[tuple[str, str]]  # names may repeat, as match[] does
T = TypeVar("T")

HURRIED = 0.5  # of the time
LONGEST_SECONDS = 120.0  # of one request, whatever the budget says
FIRST_POINTS = 300  # of a reading whose number of series nobody knows yet: 10k series answer with 70 MB
FIRST_SPAN = 3_600_000  # ms; likewise of raw samples
GROWTH = 24  # times a span may grow: an hour without samples says little about the day before
_FORMS = ("query", "query_range", "query_exemplars", "labels", "series")  # what Prometheus takes by POST

_DESCRIPTIONS = msgspec.json.Decoder(Answer[dict[str, list[Description]]])
_NAMES = msgspec.json.Decoder(Answer[list[str]])
_SERIES = msgspec.json.Decoder(Answer[list[dict[str, str]]])
_ERROR = msgspec.json.Decoder(Answer[msgspec.Raw])

log = logging.getLogger(__name__)


class UpstreamError(QueryError):
    """What Prometheus answers is no success: its status, errorType and words, passed on as they are."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Forwarded:
    """An answer as it came. `pieces` raises QueryError where it breaks off."""

    status: int
    content_type: str
    pieces: Iterator[bytes]


class Upstream:
    """A Source over Prometheus' HTTP API; threads may share it.

    Raises UpstreamError for what Prometheus refuses, TooBusyError where it cannot be reached, QueryTimeoutError where
    the budget's time is up, and ExecutionError where it answers with more than the budget allows.
    """

    def __init__(self, client: PrometheusClient | ConfigError, share: float = 1.0) -> None:
        """Make one that takes at most a `share` of the time that a query has left.

        client: or why there is none, which is told to whoever asks: our own series are there all the same
        """
        self._client = client
        self._share = share

    @classmethod
    def of(cls, config: SentinelConfig) -> "Upstream":
        """Make one of the configured Prometheus."""
        try:
            return cls(PrometheusClient(config.prometheus_url, auth=config.auth))
        except ConfigError as error:  # a secret is not in our environment, for example
            return cls(error)

    def hurried(self) -> "Upstream":
        """The same for who can do without its answer, and has something to say before the time is up."""
        return Upstream(self._client, HURRIED)

    def close(self) -> None:
        """Close the connections."""
        if isinstance(self._client, PrometheusClient):
            self._client.close()

    @contextmanager
    def forward(self, endpoint: str, form: Form, budget: Budget) -> Iterator[Forwarded]:
        """Ask /api/v1/{endpoint} as it is and hand on what comes, errors too, while the block runs."""
        fields: dict[str, list[str]] = {}
        for name, value in form:
            fields.setdefault(name, []).append(value)
        with self._open(endpoint, fields, budget) as answer:
            if "json" not in answer.content_type:
                raise _no_prometheus(answer)
            yield Forwarded(answer.status, answer.content_type, answer.pieces)

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source; look-back is that of Prometheus."""
        name = next((one.value for one in matchers if (one.label, one.operator) == ("__name__", "=")), None)
        if timestamps and name is None:  # timestamp() takes the names away, by which these series may differ
            names = self.label_values("__name__", [matchers], int(times[0]) - FIRST_SPAN, int(times[-1]), budget)
            each = ([*matchers, Matcher("__name__", "=", one)] for one in names)
            return union([self.vector(one, times, budget, timestamps=True) for one in each], len(times))
        expression = f"timestamp({_selector(matchers)})" if timestamps else _selector(matchers)
        step = int(times[1] - times[0]) if len(times) > 1 else 1_000
        parts, first, size = _Parts(named=name if timestamps else None), 0, FIRST_POINTS
        while first < len(times):
            some = times[first : first + size]
            fields = {
                "query": expression,
                "start": _seconds(some[0]),
                "end": _seconds(some[-1]),
                "step": f"{step}ms",  # seconds would be cut to whole milliseconds by way of a float
            }
            found = self._ask("query_range", fields, rows, budget)
            parts.add(found, budget)
            first += len(some)
            size = _next(len(some), len(some) * len(found.labels), MAX_POINTS)
        return parts.vector(times, step, budget)

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source; without stale markers, which the API does not show."""
        selector = _selector(matchers)
        parts, last, span = _Parts(), end, FIRST_SPAN
        while last > start:  # the newest first: they are there most often
            span = min(span, last - start)
            fields = {"query": f"{selector}[{span}ms]", "time": _seconds(last)}
            count = parts.add(self._ask("query", fields, rows, budget), budget)
            last -= span
            span = _next(span, count, GROWTH * span)
        return parts.samples()

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        return self.series_of([matchers], start, end, budget)

    def series_of(self, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget) -> list[Labels]:
        """Return the series under any of the selectors."""
        found = self._ask("series", _span(selectors, start, end), _decoder(_SERIES), budget)
        budget.spend(sum(map(len, found)))
        return [tuple(sorted(labels.items())) for labels in found]

    def label_names(self, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget) -> list[str]:
        """Return the labels under any of the selectors; of all series where there is none."""
        return self._ask("labels", _span(selectors, start, end), _decoder(_NAMES), budget)

    def label_values(
        self, name: str, selectors: Sequence[Sequence[Matcher]], start: int, end: int, budget: Budget
    ) -> list[str]:
        """Return the values of one label under any of the selectors; of all series where there is none."""
        return self._ask(f"label/{_path(name)}/values", _span(selectors, start, end), _decoder(_NAMES), budget)

    def metadata(self, metric: str | None, budget: Budget) -> dict[str, list[Description]]:
        """Return what Prometheus' targets say of each metric family, or of one."""
        fields = {} if metric is None else {"metric": metric}
        return self._ask("metadata", fields, _decoder(_DESCRIPTIONS), budget)

    def _ask(
        self,
        endpoint: str,
        fields: Mapping[str, str | Sequence[str]],
        decode: Callable[[bytes], T],
        budget: Budget,
    ) -> T:
        with self._open(endpoint, fields, budget) as answer:
            body = b"".join(answer.pieces)
        try:
            if answer.status != 200:
                failure = _ERROR.decode(body)
                raise UpstreamError(answer.status, failure.errorType, failure.error)
            return decode(body)
        except NativeHistogramsError:
            raise NotSupportedError("native histograms") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _no_prometheus(answer) from None

    @contextmanager
    def _open(self, endpoint: str, fields: Mapping[str, str | Sequence[str]], budget: Budget) -> Iterator[Streamed]:
        """An answer that comes in pieces; what goes wrong on the way is a QueryError."""
        if isinstance(self._client, ConfigError):
            raise TooBusyError(f"Prometheus cannot be asked: {'; '.join(self._client.problems)}")
        budget.check()
        method = "POST" if endpoint in _FORMS else "GET"
        seconds = max(0.001, min(self._share * (budget.deadline - budget.clock()), LONGEST_SECONDS))
        fields = {**fields, "timeout": f"{seconds:.3f}"}  # nobody computes what nobody waits for
        with (
            _as_query_error(budget),
            self._client.stream(endpoint, fields, seconds=seconds, method=method, setting="query_timeout") as answer,
        ):
            yield Streamed(answer.status, answer.content_type, answer.location, _checked(answer.pieces, budget))


class _Parts:
    """Puts the answers of several requests together.

    named: the name of the series where the expression has taken it away
    """

    def __init__(self, named: str | None = None) -> None:
        self._named: Labels = () if named is None else (("__name__", named),)
        self._rows: dict[Labels, int] = {}
        self._series: list[IntArray] = [np.empty(0, np.int64)]
        self._pairs: list[FloatArray] = [np.empty(0)]

    def add(self, found: Rows, budget: Budget) -> int:
        """Take an answer; return how many samples it has."""
        for warning in found.warnings:
            log.warning("Prometheus answers with a warning: %s", warning)
        lengths = [len(pairs) // 2 for pairs in found.pairs]
        budget.spend(2 * sum(lengths))
        numbers = [self._rows.setdefault(self._named + labels, len(self._rows)) for labels in found.labels]
        self._series.append(np.repeat(np.array(numbers, np.int64), lengths))
        self._pairs += found.pairs
        return sum(lengths)

    def vector(self, times: IntArray, step: int, budget: Budget) -> Vector:
        """Place every sample at its step."""
        series, stamps, values = self._flat()
        shape = (len(self._rows), len(times))
        budget.spend(2 * shape[0] * shape[1])
        result, present = np.zeros(shape), np.zeros(shape, bool)
        columns = (stamps - times[0]) // step
        if not np.array_equal(times.take(columns, mode="clip"), stamps):
            raise TooBusyError("Prometheus answers a range query with samples at other times than it was asked for")
        result[series, columns], present[series, columns] = values, True
        return Vector.of(list(self._rows), result, present)

    def samples(self) -> Samples:
        """Put every series' samples in a row, each once: ranges were closed on both sides until Prometheus 3."""
        series, stamps, values = self._flat()
        order = np.lexsort((stamps, series))
        series, stamps, values = series[order], stamps[order], values[order]
        again = np.zeros(len(series), bool)
        again[1:] = (series[1:] == series[:-1]) & (stamps[1:] == stamps[:-1])
        series, stamps, values = series[~again], stamps[~again], values[~again]
        offsets = np.searchsorted(series, np.arange(len(self._rows) + 1))
        return Samples(tuple(self._rows), offsets, stamps, values, np.full(len(self._rows), LOOKBACK))

    def _flat(self) -> tuple[IntArray, IntArray, FloatArray]:
        flat = np.concatenate(self._pairs)
        return np.concatenate(self._series), np.rint(flat[0::2] * 1_000).astype(np.int64), flat[1::2]


def union(parts: Sequence[Vector], steps: int) -> Vector:
    """Return the series of all parts, one part after the other; a series is in one part only."""
    parts = [part for part in parts if part.labels]
    if len(parts) < 2:
        return parts[0] if parts else Vector.empty(steps)
    return Vector(
        tuple(labels for part in parts for labels in part.labels),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
        np.concatenate([part.nameless for part in parts]),
    )


def _next(size: int, samples: int, most: int) -> int:
    """How much to ask for after `size` brought so many samples, so that no answer has more than MAX_SAMPLES."""
    return max(1, min(most, size * MAX_SAMPLES // max(1, samples)))


def _no_prometheus(answer: Streamed) -> TooBusyError:
    return TooBusyError(
        f"prometheus_url answers {answer.status} with {answer.content_type or 'something'} that is not Prometheus' "
        "JSON; is it the address of Prometheus itself, with the right credentials?"
    )


def _checked(pieces: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    with _as_query_error(budget):
        for piece in pieces:
            budget.check()
            yield piece


@contextmanager
def _as_query_error(budget: Budget) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        budget.check()  # it may have been our patience
        raise TooBusyError(str(error)) from None


def _decoder(decoder: "msgspec.json.Decoder[Answer[T]]") -> Callable[[bytes], T]:
    return lambda body: successful(decoder.decode(body))


def _selector(matchers: Sequence[Matcher]) -> str:
    r"""Return matchers as PromQL; a name that only UTF-8 allows is quoted, as in Prometheus 3.

    >>> print(_selector([Matcher("__name__", "=", "up"), Matcher("host.name", "=~", "a|b")]))
    {__name__="up","host.name"=~"a|b"}
    """
    parts = (
        str(one) if LABEL_NAME.fullmatch(one.label) else f"{quote(one.label)}{one.operator}{quote(one.value)}"
        for one in matchers
    )
    return f"{{{','.join(parts)}}}"


def _path(label: str) -> str:
    """Return a label as a segment of a path: U__ and code points where it is not a plain one.

    >>> _path("host.name_")
    'U__host_2e_name__'
    """
    if LABEL_NAME.fullmatch(label):
        return label
    return "U__" + re.sub(r"[^a-zA-Z0-9]", lambda one: "__" if one[0] == "_" else f"_{ord(one[0]):x}_", label)


def _span(selectors: Sequence[Sequence[Matcher]], start: int, end: int) -> dict[str, str | list[str]]:
    return {"match[]": [_selector(one) for one in selectors], "start": _seconds(start), "end": _seconds(end)}


def _seconds(time: int | np.int64) -> str:
    """Return milliseconds as seconds, without a float in between.

    >>> _seconds(1_700_000_000_007), _seconds(-1)
    ('1700000000.007', '-0.001')
    """
    return f"{'-' if time < 0 else ''}{abs(int(time)) // 1000}.{abs(int(time)) % 1000:03d}"
