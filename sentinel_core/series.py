"""Series and selectors: names, labels, matchers, and the fingerprints that stand for them."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES = {"n": "\n", "t": "\t"}


def legal_name(name: str) -> str:
    """Return a name as every exposition format takes it.

    >>> legal_name("job:hits:sum")
    'job_hits_sum'
    """
    name = _FORBIDDEN.sub("_", name)
    return f"_{name}" if name[:1].isdigit() else name


def quote(value: str) -> str:
    r"""Return a label value as PromQL and the exposition format write it.

    >>> print(quote('a "b"\n'))
    "a \"b\"\n"
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def unescape(text: str) -> str:
    r"""Return what stands between the quotes of a label value: the other way round.

    >>> unescape(r'a \"b\"\n')
    'a "b"\n'
    """
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), text)


@dataclass(frozen=True)
class Series:
    """One metric name with one label set; `labels` is sorted by name and has no `__name__`.

    >>> Series.of("up", {"job": "api"}).selector
    'up{job="api"}'
    """

    name: str
    labels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str]) -> "Series":
        """Build from a Prometheus metric object; `__name__` in it is ignored in favour of `name`."""
        return cls(name, tuple(sorted((k, v) for k, v in labels.items() if k != "__name__")))

    @cached_property
    def selector(self) -> str:
        """The canonical text: name and sorted labels."""
        return format_selector(self.name, self.labels)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of BLAKE2b over the canonical text, signed so that SQL and Parquet hold it."""
        digest = hashlib.blake2b(self.selector.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def format_selector(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """Return `name{a="b",c="d"}`, or the bare name without labels."""
    inner = ",".join(f"{key}={quote(value)}" for key, value in labels)
    return f"{name}{{{inner}}}" if inner else name


@dataclass(frozen=True)
class Matcher:
    """One condition on a label: `=`, `!=`, `=~` or `!~`."""

    label: str
    operator: str
    value: str

    @classmethod
    def parse(cls, label: str, text: str) -> "Matcher":
        """Read the value of a `labels` entry: `api` is an equality, `=~api.*` a regular expression.

        >>> Matcher.parse("job", "!~test.*")
        Matcher(label='job', operator='!~', value='test.*')
        """
        for operator in ("=~", "!~", "!="):
            if text.startswith(operator):
                return cls(label, operator, text[len(operator) :])
        return cls(label, "=", text)

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{quote(self.value)}"


@dataclass(frozen=True)
class Selector:
    """A metric name and matchers, in canonical order.

    >>> str(Selector.of("up", {"job": "=~a|b", "env": "prod"}))
    'up{env="prod",job=~"a|b"}'
    """

    metric: str
    matchers: tuple[Matcher, ...] = ()

    @classmethod
    def of(cls, metric: str, labels: Mapping[str, str]) -> "Selector":
        """Build from a watch's `metric` and `labels`."""
        return cls(metric, tuple(Matcher.parse(k, v) for k, v in sorted(labels.items())))

    def __str__(self) -> str:
        inner = ",".join(map(str, self.matchers))
        return f"{self.metric}{{{inner}}}" if inner else self.metric
