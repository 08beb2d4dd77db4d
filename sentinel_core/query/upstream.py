"""The series of the Prometheus behind us, and whole requests passed on to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from sentinel_core.prometheus.client import PrometheusClient
from sentinel_core.promql.errors import QueryError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Labels, Samples, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import IntArray

Form = Sequence[tuple[str, str]]  # names may repeat, as match[] does


class Metadata(msgspec.Struct, frozen=True):
    """One entry of /api/v1/metadata."""

    type: str
    help: str = ""
    unit: str = ""


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
    """A Source over Prometheus' HTTP API.

    Raises UpstreamError for what Prometheus refuses, TooBusyError where it cannot be reached, QueryTimeoutError where
    the budget's time is up, and ExecutionError where it answers with more than the budget allows.
    """

    def __init__(self, client: PrometheusClient) -> None:
        self._client = client

    @contextmanager
    def forward(self, endpoint: str, form: Form, budget: Budget) -> Iterator[Forwarded]:
        """Ask /api/v1/{endpoint} as it is and hand on what comes, errors too, while the block runs."""
        raise NotImplementedError

    def vector(
        self, matchers: Sequence[Matcher], times: IntArray, budget: Budget, *, timestamps: bool = False
    ) -> Vector:
        """As Source; look-back is that of Prometheus."""
        raise NotImplementedError

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        """As Source; without stale markers, which the API does not show."""
        raise NotImplementedError

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        """As Source."""
        raise NotImplementedError
