"""Why a query has no answer, in the words and codes of Prometheus' HTTP API.

QueryError (a RequestError)
├── BadQueryError       400 bad_data: it cannot be read, or a parameter is wrong
├── ExecutionError      422 execution: it can be read and has no answer, e.g. many-to-many matching
│   └── NotSupportedError   … and Prometheus might have one: we say so rather than give a wrong number
├── QueryTimeoutError   503 timeout: it took longer than it may
└── TooBusyError        503 unavailable: more queries at once than are answered, or the store does not answer
"""

from sentinel_core.errors import RequestError


class QueryError(RequestError):
    """A query without an answer; `status` and `kind` are its HTTP status and `errorType`, a class's or its own."""

    status: int = 400
    kind: str = "bad_data"


class BadQueryError(QueryError):
    """The text or a parameter is wrong."""


class ExecutionError(QueryError):
    """The query can be read and has no answer."""

    status, kind = 422, "execution"


class NotSupportedError(ExecutionError):
    """Prometheus may have an answer; we have none.

    >>> print(NotSupportedError("native histograms"))
    native histograms: not supported by Sentinel's query API
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: not supported by Sentinel's query API")


class QueryTimeoutError(QueryError):
    """It took longer than it may."""

    status, kind = 503, "timeout"


class TooBusyError(QueryError):
    """Nobody is free to answer, or what has to be asked does not answer."""

    status, kind = 503, "unavailable"
