"""The same expressions over the same samples, by a real Prometheus and by us: one answer, or a reason why not."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import pytest

from sentinel_core.prometheus import PrometheusClient
from sentinel_core.promql import matchers as matching
from sentinel_core.promql.answer import answer
from sentinel_core.promql.errors import QueryError
from sentinel_core.promql.evaluate import evaluate, times
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.source import Source
from sentinel_core.promql.values import LOOKBACK, Labels, Notes, Samples, without
from sentinel_core.query.sampled import Metadata, SampledSource
from sentinel_core.query.upstream import Upstream
from sentinel_core.series import Matcher
from tests.prometheus_server import PrometheusServer
from tests.query.expressions import END, Expressions, Written, samples

pytestmark = pytest.mark.prometheus

COUNT, SEED = 300, 4
FIRST, LAST, STEP = END - 4_000, END - 600, 60  # of a range query, seconds


class InMemory(SampledSource):
    """A Source over samples that are all there."""

    lookback = LOOKBACK

    def __init__(self, every: Samples) -> None:
        self._every = every
        spans = list(zip(every.offsets[:-1], every.offsets[1:], strict=True))
        self._times = [every.times[first:last] for first, last in spans]
        self._values = [every.values[first:last] for first, last in spans]

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        kept = np.flatnonzero(matching.compile(matchers).matches(self._every.labels)).tolist()
        labels = [self._every.labels[i] for i in kept]
        return Samples.of(labels, [self._times[i] for i in kept], [self._values[i] for i in kept])

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        raise NotImplementedError

    def metadata(self) -> Metadata:
        raise NotImplementedError


@pytest.fixture(scope="module")
def real(prometheus_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus with the samples."""
    server = PrometheusServer(tmp_path_factory.mktemp("differential"), Written(END))
    server.load()
    server.start()
    yield server
    server.stop()


def by_prometheus(client: httpx.Client, text: str, ranged: bool) -> Any:
    """The result, or the errorType where there is none."""
    form = {"start": FIRST, "end": LAST, "step": STEP} if ranged else {"time": LAST}
    text = text.replace("double_exponential_smoothing", "holt_winters")  # as it was called before Prometheus 3
    fields = {"query": text, **{name: str(value) for name, value in form.items()}}
    found = client.post("query_range" if ranged else "query", data=fields).json()
    return found["data"]["result"] if found["status"] == "success" else found["errorType"]


def by_us(source: Source, text: str, ranged: bool) -> Any:
    """Likewise."""
    start, end, step = (FIRST, LAST, STEP) if ranged else (LAST, LAST, 0)
    notes = Notes()
    try:
        value = evaluate(parse(text), start * 1_000, end * 1_000, step * 1_000, source, Budget(), notes)
    except QueryError as error:
        return f"{error.kind}: {error}"
    at = times(start * 1_000, end * 1_000, step * 1_000)
    return json.loads(b"".join(answer(value, at, notes, ranged=ranged)))["data"]["result"]


def difference(text: str, theirs: Any, ours: Any) -> str | None:
    """What is not the same."""
    if isinstance(theirs, str) or isinstance(ours, str):
        same = isinstance(theirs, str) and isinstance(ours, str) and ours.startswith(theirs)
        return None if same else f"{str(theirs)[:200]} | {str(ours)[:200]}"
    left, right = flat(theirs), flat(ours)
    if not alike(left, right):
        different = [key for key in left.keys() | right.keys() if not close(left.get(key), right.get(key))]
        return f"{len(different)} values, e.g. {different[0]}: {left.get(different[0])} {right.get(different[0])}"
    if text.startswith("sort("):  # the order of an instant query; whoever is equal may be in any
        orders = [[float(row["value"][1]) for row in rows if "value" in row] for rows in (theirs, ours)]
        return None if all(map(close, *orders)) else "another order"
    return None


def explanation(text: str, theirs: Any, ours: Any) -> str | None:
    """Why they differ, where it is the version or chance; Prometheus 2.42 is what Debian has."""
    if isinstance(ours, str):
        known = ("the date of NaN", "many-to-one matching must be explicit")
        return next((f"we do not guess, Prometheus 3 refuses: {words}" for words in known if words in ours), None)
    if isinstance(theirs, str):
        return None
    left, right = flat(theirs), flat(ours)
    if "atan2" in text and alike({unnamed(key): value for key, value in left.items()}, right):
        return "before Prometheus 3 atan2 kept the name"
    if "std" in text and left.keys() == right.keys():
        different = [(left[key], right[key]) for key in left if not close(left[key], right[key])]
        if all(old == 0 and math.isnan(new) for old, new in different):
            return "before Prometheus 3 the deviation of one infinity was 0"
    if "topk" in text or "bottomk" in text:
        values = [sorted((key[-1], value) for key, value in side.items()) for side in (left, right)]
        pairs = zip(*values, strict=False)
        if len(left) == len(right) and all(a[0] == b[0] and close(a[1], b[1]) for a, b in pairs):
            return "which of equals is among the largest is chance"
    return None


def flat(result: Any) -> dict[Any, float]:
    """Every value by series and time."""
    if result and not isinstance(result[0], dict):  # a scalar
        return {"scalar": float(result[1])}
    return {
        (tuple(sorted(row["metric"].items())), at): float(value)
        for row in result
        for at, value in row.get("values") or [row["value"]]
    }


def unnamed(key: Any) -> Any:
    """Series and time without the metric's name."""
    return without(key[0], "__name__"), key[1]


def alike(left: Mapping[Any, float], right: Mapping[Any, float]) -> bool:
    """The same values under the same keys."""
    return left.keys() == right.keys() and all(close(value, right[key]) for key, value in left.items())


def close(left: float | None, right: float | None) -> bool:
    """Equal but for the order of additions."""
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(left) and math.isnan(right))


def test_what_prometheus_answers(real: PrometheusServer) -> None:
    """300 expressions, over ranges and at one time, from samples in memory and through Prometheus' API."""
    drawn = Expressions(SEED)
    memory = InMemory(samples())
    unexplained = []
    with (
        httpx.Client(base_url=f"{real.url}/api/v1/", trust_env=False) as client,
        closing(Upstream(PrometheusClient(real.url))) as upstream,
    ):
        for number in range(COUNT):
            text, ranged = drawn.draw(), number % 4 != 0
            theirs = by_prometheus(client, text, ranged)
            ours = by_us(upstream if number % 3 == 0 else memory, text, ranged)
            what = difference(text, theirs, ours)
            if what and not explanation(text, theirs, ours):
                unexplained.append(f"{'range' if ranged else 'instant'} {text}\n    {what}")
    assert not unexplained, "\n".join(unexplained)


@pytest.mark.parametrize(
    ("text", "theirs", "ours"),
    [
        ("count_over_time(vector(1)[5m:1m] @ 1700024580)", "6", "5"),  # ranges were closed on the left
        ("stddev(vector(Inf))", "0", "NaN"),  # of one value, whatever it was
        ("count(timestamp(capacity offset 7m @ 1700020200)) or vector(0)", "0", "3"),  # @ was forgotten
    ],
)
def test_what_prometheus_3_changed(real: PrometheusServer, text: str, theirs: str, ours: str) -> None:
    """Where the versions differ, ours is the newer one's answer."""
    with httpx.Client(base_url=f"{real.url}/api/v1/", trust_env=False) as client:
        assert [row["value"][1] for row in by_prometheus(client, text, False)] == [theirs]
    assert [row["value"][1] for row in by_us(InMemory(samples()), text, False)] == [ours]
