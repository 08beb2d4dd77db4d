"""Whole expressions over samples in memory; most of what they answer is in cases/*.test."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from sentinel_core.promql.errors import ExecutionError, NotSupportedError, QueryTimeoutError
from sentinel_core.promql.evaluate import evaluate
from sentinel_core.promql.limits import MAX_DEPTH, MAX_OPERATORS, Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.values import Notes, Samples, Scalar, Text, Vector
from tests.promqltest import MemorySource

MINUTE = 60_000


def source(**series: Sequence[float | None]) -> MemorySource:
    """Series of these names, a point a minute from 0."""
    memory = MemorySource()
    for name, points in series.items():
        memory.load((("__name__", name), ("job", "api")), MINUTE, points)
    return memory


def ask(
    text: str,
    memory: MemorySource,
    start: int = 0,
    end: int | None = None,
    *,
    budget: Budget | None = None,
    subquery_step: int = MINUTE,
) -> Scalar | Text | Vector | Samples:
    """Evaluate at one time, or every minute up to `end` (minutes)."""
    last = start if end is None else end
    step = 0 if end is None else MINUTE
    return evaluate(
        parse(text),
        start * MINUTE,
        last * MINUTE,
        step,
        memory,
        budget or Budget(),
        Notes(),
        subquery_step=subquery_step,
    )


def vector(text: str, memory: MemorySource, start: int = 0, end: int | None = None) -> Vector:
    """Likewise, of an instant vector."""
    value = ask(text, memory, start, end)
    assert isinstance(value, Vector)
    return value


def test_an_answer_has_no_series_without_values() -> None:
    """What a comparison leaves nowhere is no series of the answer."""
    assert vector("up > 2 or down", source(up=[1, 1], down=[0, 0]), 0, 1).labels == (
        (("__name__", "down"), ("job", "api")),
    )


def test_rows_of_a_range_are_ordered_by_labels() -> None:
    """Whatever sort says, a range's series come in the order of their labels."""
    found = vector('sort_desc({job="api"})', source(b=[1, 2], a=[3, 1], c=[2, 3]), 0, 1)
    assert [dict(labels)["__name__"] for labels in found.labels] == ["a", "b", "c"]


def test_rows_of_an_instant_query_are_ordered_by_sort() -> None:
    """At one time, sort orders."""
    found = vector('sort_desc({job="api"})', source(b=[1], a=[3], c=[2]))
    assert [dict(labels)["__name__"] for labels in found.labels] == ["a", "c", "b"]


@pytest.mark.parametrize(
    "text", ["+".join(["up"] * (MAX_OPERATORS + 1)), "abs(" * (MAX_DEPTH - 1) + "up" + ")" * (MAX_DEPTH - 1)]
)
def test_the_longest_and_the_deepest_expression_are_evaluated(text: str) -> None:
    """What the guard lets through does not overflow the stack of a thread."""
    memory, found = source(up=[1, 1]), list[float]()
    thread = threading.Thread(target=lambda: found.append(vector(text, memory, 0, 1).values[0, 0]))
    thread.start()
    thread.join()
    assert found == [401.0 if "+" in text else 1.0]


def test_the_longest_chain_of_numbers_is_evaluated_once() -> None:
    """What is the same at every step is computed at one and repeated."""
    value = ask("+".join(["1"] * 400), source(), 0, 2)
    assert isinstance(value, Scalar)
    assert value.values.tolist() == [400.0] * 3


def test_a_subquery_costs_its_steps_before_it_is_made() -> None:
    """A subquery of a billion steps is refused at once."""
    with pytest.raises(ExecutionError, match="too many samples"):
        ask("max_over_time(up[30d:1ms])", source(up=[1]))


def test_a_query_ends_at_its_deadline() -> None:
    """Time is looked at wherever arrays are made."""
    with pytest.raises(QueryTimeoutError):
        ask("sum(up)", source(up=[1]), budget=Budget(deadline=0, clock=lambda: 1.0))


def test_subqueries_without_a_step_take_the_default() -> None:
    """The default step of subqueries is a parameter."""
    found = ask("up[10m:]", source(up=list(range(11))), 10, subquery_step=5 * MINUTE)
    assert isinstance(found, Samples)
    assert found.times.tolist() == [5 * MINUTE, 10 * MINUTE]


def test_a_range_as_an_answer_is_ordered_and_has_no_stale_markers() -> None:
    """The samples of a range are those in it, series by their labels."""
    found = ask('{job="api"}[2m]', source(b=[1, 2, float("nan")], a=[None, 4, 5]), 2)
    assert isinstance(found, Samples)
    assert [dict(labels)["__name__"] for labels in found.labels] == ["a", "b"]
    assert found.times.tolist() == [MINUTE, 2 * MINUTE, MINUTE, 2 * MINUTE]
    np.testing.assert_array_equal(found.values, [4, 5, 2, np.nan])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("info(up)", r"info\(\)"),
        ("max_over_time(vector(start())[5m:1m])", r"start\(\) in a subquery"),
        ('histogram_quantiles(up, "q", 0.5)', r"histogram_quantiles\(\)"),
        ('abs({job="api"})[5m:1m]', "differ only by a name"),
    ],
)
def test_what_is_not_supported_is_named(text: str, what: str) -> None:
    """Where we are not sure, there is no answer."""
    with pytest.raises(NotSupportedError, match=what):
        ask(text, source(up=[1], down=[1]))


def test_a_name_at_some_steps_only() -> None:
    """A series that keeps its name at one step and loses it at another has no answer as a range."""
    memory = source(up=[1, 5])
    with pytest.raises(NotSupportedError, match="a name at some steps"):
        ask("up > 3 or -up", memory, 0, 1)
    with pytest.raises(NotSupportedError, match="a name at some steps"):
        ask("last_over_time((up > 3 or -up)[2m:1m])", memory, 1)
    assert vector("up > 3 or -up", memory, 1).labels == ((("__name__", "up"), ("job", "api")),)


@pytest.mark.parametrize("text", ["up", "rate(up[5m])"])
def test_labels_that_stand_for_metadata(text: str) -> None:
    """Prometheus drops __type__ and __unit__ with the name, in ways of its own."""
    memory = MemorySource()
    memory.load((("__name__", "up"), ("__type__", "gauge")), MINUTE, [1.0])
    with pytest.raises(NotSupportedError, match="__type__"):
        ask(text, memory)
