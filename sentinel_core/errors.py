"""Everything Sentinel raises on purpose.

SentinelError
├── ConfigError          the configuration is wrong; lists every problem with its remedy
├── SourceError          Prometheus could not answer
│   ├── TransientSourceError   worth a retry: refused, slow, 5xx, truncated
│   └── PermanentSourceError   a retry changes nothing: 4xx, no such metric, too many series
├── StoreError           the SQL or the data store refuses: newer schema, full disk, locked
│   └── ConflictError    somebody else changed it first; read again and decide again
│       └── IllegalTransitionError   an incident's state does not allow that step; says which are
├── ArtifactError        a model file is missing, tampered with, truncated or foreign
├── ModelError           a model raised, hung, or returned NaN or the wrong shape
├── RegistryError        no such version, no predecessor to roll back to
├── RequestError         what somebody asked for cannot be done as asked
│   ├── NotFoundError    no such thing, or none of theirs
│   ├── ForbiddenError   their role or their key's scopes do not allow it
│   └── InvalidError     values that cannot be; names each of them
├── DeliveryError        a receiver did not take an alert
│   ├── TransientDeliveryError   worth a retry: refused, slow, 429, 5xx
│   └── PermanentDeliveryError   a person must act: other 4xx, a redirect, an address that is not allowed
└── ServiceError         a process of ours cannot start or be reached: busy port, second start
"""

from collections.abc import Mapping, Sequence


class SentinelError(Exception):
    """Root of the tree; its message says what happened and what to do about it."""


class ConfigError(SentinelError):
    """Every problem of a configuration at once, each with its remedy.

    >>> print(ConfigError(["watches[0].horizon: '5x' is not a duration; write 30s, 5m, 1h or 7d"]))
    1 problem in the configuration:
      - watches[0].horizon: '5x' is not a duration; write 30s, 5m, 1h or 7d
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__(
            "\n".join([f"{count} in the configuration:", *(f"  - {problem}" for problem in self.problems)])
        )


class SourceError(SentinelError):
    """Prometheus could not answer."""


class TransientSourceError(SourceError):
    """A retry may succeed."""


class PermanentSourceError(SourceError):
    """A retry changes nothing; a person must act."""


class StoreError(SentinelError):
    """The SQL or the data store refuses."""


class ConflictError(StoreError):
    """Somebody else changed the same thing first."""


class IllegalTransitionError(ConflictError):
    """An incident's state does not allow the step."""


class ArtifactError(SentinelError):
    """A model file is missing, tampered with, truncated or foreign."""


class ModelError(SentinelError):
    """A model raised, hung, or returned something that is not a forecast.

    errors: what went wrong by fingerprint, where it went wrong with every series
    """

    def __init__(self, message: str, errors: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.errors = dict(errors or {})


class RegistryError(SentinelError):
    """The registry has no such version, or no predecessor."""


class RequestError(SentinelError):
    """What somebody asked for cannot be done as asked."""


class NotFoundError(RequestError):
    """There is no such thing, or none of theirs: nobody learns which."""


class ForbiddenError(RequestError):
    """A role or a key's scopes do not allow it."""


class InvalidError(RequestError):
    """Values that cannot be.

    problems: what is wrong with each field, by its name ("settings.url"); with the whole, by none ("")

    >>> print(InvalidError({"name": "is empty", "min_severity": "write warn or critical"}))
    name: is empty; min_severity: write warn or critical
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in self.problems.items()))


class DeliveryError(SentinelError):
    """A receiver did not take an alert."""


class TransientDeliveryError(DeliveryError):
    """A retry may succeed.

    retry_after: seconds that the receiver asked to be left alone
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentDeliveryError(DeliveryError):
    """A retry will hardly help; a person must act."""


class ServiceError(SentinelError):
    """A process cannot start or be reached."""


def explain(error: Exception) -> str:
    """What an error says to people: ours are written for them, others need their type's name.

    >>> explain(KeyError("shift"))
    "KeyError: 'shift'"
    """
    return str(error) if isinstance(error, SentinelError) else f"{type(error).__name__}: {error}"
