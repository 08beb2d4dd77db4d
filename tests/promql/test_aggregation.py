"""Aggregation, against loops that are obviously right and numbers worked out by hand."""

import itertools
import math

import numpy as np
import pytest

from sentinel_core.promql import aggregation as module
from sentinel_core.promql.aggregation import aggregate
from sentinel_core.promql.errors import ExecutionError, NotSupportedError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.tree import Aggregation, VectorSelector
from sentinel_core.promql.values import Labels, Notes, Scalar, Text, Vector
from tests.promql.slow_operators import aggregated, steps_of

OPERATORS = ["sum", "avg", "min", "max", "count", "group", "stdvar", "stddev", "quantile", "topk", "bottomk"]
NAN, INF = math.nan, math.inf


def labelled(**labels: str) -> Labels:
    """`name` is the metric's."""
    return tuple(sorted(("__name__" if name == "name" else name, value) for name, value in labels.items()))


def column(*values: float, **labels: str) -> Vector:
    """One step of series that a label `i` tells apart."""
    return Vector.of([labelled(name="x", i=str(i), **labels) for i in range(len(values))], np.array([values]).T)


def run(
    operator: str,
    vector: Vector,
    param: float | list[float] | str | None = None,
    by: tuple[str, ...] = (),
    without: tuple[str, ...] | None = None,
    notes: Notes | None = None,
) -> Vector:
    """Aggregate; a number as parameter is the same at every step."""
    node = Aggregation(operator, VectorSelector(()), None, by if without is None else without, without is not None)
    given: Scalar | Text | None = None
    if isinstance(param, str):
        given = Text(param)
    elif param is not None:
        given = Scalar(np.broadcast_to(np.array(param, float), vector.values.shape[1:]))
    return aggregate(node, vector, given, Budget(), notes or Notes())


def shown(vector: Vector) -> dict[Labels, list[float | None]]:
    """Rows that are there at any step, None where they are not."""
    return {
        labels: [value if there else None for value, there in zip(values.tolist(), present.tolist(), strict=True)]
        for labels, values, present in zip(vector.labels, vector.values, vector.present, strict=True)
        if present.any()
    }


def only(vector: Vector) -> float:
    """The value of the one series at the one step."""
    ((value,),) = shown(vector).values()
    assert value is not None
    return value


def some_vector(seed: int, series: int = 12, steps: int = 7) -> Vector:
    """Series with gaps, values that repeat, and now and then NaN or an infinity."""
    random = np.random.default_rng(seed)
    values = random.integers(-3, 4, (series, steps)) * random.choice([1.0, 0.1, 1e3], (series, steps))
    odd = random.random((series, steps)) < 0.05
    values[odd] = random.choice([NAN, INF, -INF, 1e100, -1e100], odd.sum())
    labels = [labelled(name="x", i=str(i), a=random.choice(["1", "2", "3"])) for i in range(series)]
    return Vector.of(labels, values, random.random((series, steps)) < 0.7)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("by", "without"), [((), None), (("a", "none"), None), ((), ("i",)), ((), ())])
def test_every_group_at_every_step_has_what_a_loop_over_its_series_has(
    operator: str, by: tuple[str, ...], without: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped in every way, in pieces of a few steps, with a parameter of each step's own."""
    monkeypatch.setattr(module, "_PIECE", 30)
    for seed in range(15):
        vector = some_vector(seed)
        parameters = [2.0] * 7 if operator.endswith("k") else [0.0, 0.25, 0.5, 0.9, 1.0, 0.33, 0.75]
        got = run(operator, vector, parameters, by, without)
        node = Aggregation(operator, VectorSelector(()), None, by if without is None else without, without is not None)
        for step, samples, parameter in zip(steps_of(got), steps_of(vector), parameters, strict=True):
            slow = {tuple(sorted(labels.items())): value for labels, _, value in aggregated(node, samples, parameter)}
            fast = {tuple(sorted(labels.items())): value for labels, _, value in step}
            assert fast == pytest.approx(slow, rel=1e-9, abs=1e-12, nan_ok=True)


def test_sums_keep_what_is_small_beside_what_cancels() -> None:
    """In every order in which four series may come."""
    for values in itertools.permutations([2.0, 8.0, 1e100, -1e100]):
        assert only(run("sum", column(*values))) == 10
        assert only(run("avg", column(*values))) == 2.5


def test_a_sum_that_overflows_is_infinite_and_its_mean_is_not() -> None:
    """Four times 1e308 one way, and two of them each way."""
    assert only(run("sum", column(1e308, 1e308, -1e308, -1e308))) == INF
    assert only(run("avg", column(1e308, 1e308, -1e308, -1e308))) == 0
    assert only(run("avg", column(-1e308, -1e308, -1e308, -1e308))) == -1e308


def test_infinities_are_added_as_arithmetic_has_it() -> None:
    """One sign stays, two signs are no number."""
    for operator in ("sum", "avg"):
        assert only(run(operator, column(1, INF, 2, INF))) == INF
        assert only(run(operator, column(-INF, 1, 2))) == -INF
        assert math.isnan(only(run(operator, column(-INF, 1, INF))))
        assert math.isnan(only(run(operator, column(1, NAN, INF))))


def test_equal_values_have_themselves_as_mean_and_do_not_vary() -> None:
    """To the last digit: rules compare them."""
    for count in range(1, 20):
        assert only(run("avg", column(*[52.0] * count))) == 52
        assert only(run("stddev", column(*[13.3] * count))) == 0


def test_groups_come_in_the_order_of_their_first_series_and_lose_the_name() -> None:
    """A label that a series lacks is in no group's labels."""
    vector = Vector.of(
        [labelled(name="x", a="2"), labelled(name="y", b="1"), labelled(name="z", a="1")], np.ones((3, 1))
    )
    assert run("sum", vector, by=("a",)).labels == (labelled(a="2"), (), labelled(a="1"))
    assert run("sum", vector, without=("b",)).labels == (labelled(a="2"), (), labelled(a="1"))
    assert run("sum", vector, by=("__name__",)).labels == (labelled(name="x"), labelled(name="y"), labelled(name="z"))


def test_groups_by_name_lose_it_in_the_end_where_their_series_do() -> None:
    """A group of both kinds has no answer that is surely Prometheus'."""
    vector = Vector.of([labelled(name="x", i="1"), labelled(name="x", i="2")], np.ones((2, 1)))
    lost = Vector(vector.labels, vector.values, vector.present, np.array([True, True]))
    assert run("sum", lost, by=("__name__",)).nameless.tolist() == [True]
    assert run("topk", lost, 1, by=("__name__",)).nameless.tolist() == [True]
    assert run("sum", lost, by=("i",)).nameless.tolist() == [False, False]
    mixed = Vector(vector.labels, vector.values, vector.present, np.array([True, False]))
    assert run("sum", mixed).nameless.tolist() == [False]
    with pytest.raises(NotSupportedError, match="aggregation by __name__"):
        run("sum", mixed, by=("__name__",))


def test_topk_orders_by_value_within_each_group_and_takes_numbers_before_nan() -> None:
    """Of equal ones the first come."""
    vector = column(3, NAN, 5, 3, -INF)
    assert [dict(labels)["i"] for labels in run("topk", vector, 9).labels] == ["2", "0", "3", "4", "1"]
    assert [dict(labels)["i"] for labels in run("bottomk", vector, 9).labels] == ["4", "0", "3", "2", "1"]
    assert [dict(labels)["i"] for labels in run("topk", vector, 2.9).labels] == ["2", "0"]
    pair = Vector.of([labelled(a=a, i=str(i)) for i, a in enumerate("1221")], np.array([[1.0], [2.0], [3.0], [4.0]]))
    assert run("topk", pair, 2, by=("a",)).values[:, 0].tolist() == [4, 1, 3, 2]


def test_topk_has_its_own_number_at_each_step() -> None:
    """Less than one is none; series that are never chosen are not there."""
    vector = Vector.of([labelled(i="1"), labelled(i="2"), labelled(i="3")], np.array([[1.0] * 3, [2.0] * 3, [0.0] * 3]))
    assert shown(run("topk", vector, [0.9, 1, 2])) == {
        labelled(i="1"): [None, None, 1.0],
        labelled(i="2"): [None, 2.0, 2.0],
    }


def test_limitk_takes_as_many_of_each_group_as_it_is_told() -> None:
    """Also NaN: it does not ask what values there are."""
    vector = column(NAN, -INF, 3)
    assert len(run("limitk", vector, 2).labels) == 2
    assert run("limitk", vector, 1).labels == vector.labels[:1]
    assert len(run("limitk", vector, 1, without=()).labels) == 3


def test_limit_ratio_takes_all_or_nothing_and_leaves_the_rest_to_prometheus() -> None:
    """A ratio between would need Prometheus' hash of the labels."""
    notes = Notes()
    assert len(shown(run("limit_ratio", column(1, 2), 1, notes=notes))) == 2
    assert len(shown(run("limit_ratio", column(1, 2), -1, notes=notes))) == 2
    assert not shown(run("limit_ratio", column(1, 2), 0, notes=notes))
    assert not notes.warnings
    run("limit_ratio", column(1, 2), -1.5, notes=notes)
    assert list(notes.warnings) == ["PromQL warning: ratio value should be between -1 and 1, got -1.5, capping to -1"]
    with pytest.raises(NotSupportedError, match="limit_ratio"):
        run("limit_ratio", column(1, 2), 0.5)


@pytest.mark.parametrize(
    ("operator", "parameter", "message"),
    [
        ("topk", NAN, "Parameter value is NaN"),
        ("bottomk", INF, r"Scalar value \+Inf overflows int64"),
        ("limitk", [1.0, -1e19], r"Scalar value -1e\+19 underflows int64"),
        ("limit_ratio", NAN, "Ratio value is NaN"),
        ("count_values", "", 'invalid label name ""'),
    ],
)
def test_parameters_that_prometheus_refuses_are_refused(
    operator: str, parameter: float | list[float] | str, message: str
) -> None:
    """In its words; a wrong one of limit_ratio and topk even where there is nothing to choose from."""
    vector = Vector.of([labelled(name="x")], np.zeros((1, 2)))
    with pytest.raises(ExecutionError, match=message):
        run(operator, vector, parameter)


def test_nothing_aggregates_to_nothing() -> None:
    """Whatever the operator."""
    for operator in [*OPERATORS, "limitk"]:
        assert run(operator, Vector.empty(3), 1).labels == ()
    assert run("count_values", Vector.empty(3), "v").labels == ()
    with pytest.raises(ExecutionError, match="NaN"):
        run("topk", Vector.empty(3), NAN)


def test_quantiles_outside_of_their_range_are_infinite_with_a_warning() -> None:
    """Each once, however many steps have it."""
    notes = Notes()
    vector = Vector.of([labelled(i="1")], np.ones((1, 5)))
    got = run("quantile", vector, [-1, 1.5, 1.5, NAN, 0.5], notes=notes)
    assert got.values[0].tolist() == pytest.approx([-INF, INF, INF, NAN, 1], nan_ok=True)
    assert list(notes.warnings) == [
        f"PromQL warning: quantile value should be between 0 and 1, got {value}" for value in ("-1", "1.5", "NaN")
    ]


def test_count_values_makes_a_series_of_each_value_and_writes_it_in_full() -> None:
    """No exponents, as Prometheus; every NaN is the same, and 0 is not -0."""
    vector = column(1e21, 1e21, 1e-7, NAN, -NAN, INF, 0.0, -0.0, 2.5)
    assert shown(run("count_values", vector, "v")) == {
        labelled(v="1000000000000000000000"): [2],
        labelled(v="0.0000001"): [1],
        labelled(v="NaN"): [2],
        labelled(v="+Inf"): [1],
        labelled(v="0"): [1],
        labelled(v="-0"): [1],
        labelled(v="2.5"): [1],
    }


def test_count_values_counts_step_by_step_and_group_by_group() -> None:
    """Its label takes the place of one of that name, and goes with `without` of it."""
    vector = Vector.of(
        [labelled(name="x", a="1", i="1"), labelled(name="x", a="1", i="2"), labelled(name="x", a="2", i="1")],
        np.array([[6.0, 6.0], [6.0, 7.0], [6.0, 6.0]]),
        np.array([[True, True], [True, True], [True, False]]),
    )
    assert shown(run("count_values", vector, "v", by=("a",))) == {
        labelled(a="1", v="6"): [2, 1],
        labelled(a="1", v="7"): [None, 1],
        labelled(a="2", v="6"): [1, None],
    }
    assert shown(run("count_values", vector, "a", without=("i",))) == {
        labelled(a="6"): [3, 1],
        labelled(a="7"): [None, 1],
    }
    assert shown(run("count_values", vector, "a", by=("a", "i"))) == {
        labelled(a="6", i="1"): [2, 1],
        labelled(a="6", i="2"): [1, None],
        labelled(a="7", i="2"): [None, 1],
    }
    assert shown(run("count_values", vector, "i", without=("i",))) == {
        labelled(a="1"): [2, 2],
        labelled(a="2"): [1, None],
    }


def test_what_is_not_known_is_not_answered() -> None:
    """A new aggregation of Prometheus, and count_values by a name that is still to go."""
    with pytest.raises(NotSupportedError, match="aggregation mode"):
        run("mode", column(1))
    vector = column(1)
    lost = Vector(vector.labels, vector.values, vector.present, np.array([True]))
    with pytest.raises(NotSupportedError, match="count_values by __name__"):
        run("count_values", lost, "v", by=("__name__",))


def test_an_aggregation_costs_what_it_reads() -> None:
    """And is refused beforehand."""
    for operator in ("sum", "topk", "count_values"):
        node = Aggregation(operator, VectorSelector(()))
        param = Text("v") if operator == "count_values" else Scalar(np.ones(1))
        with pytest.raises(ExecutionError, match="too many samples"):
            aggregate(node, column(1, 2, 3), param, Budget(cells=2), Notes())
