"""Operators, against loops that are obviously right and what Prometheus answers to small cases."""

import math

import numpy as np
import pytest

from sentinel_core.promql.binary import combine, negate
from sentinel_core.promql.errors import ExecutionError, NotSupportedError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.matching import merge
from sentinel_core.promql.tree import Binary, Matching, VectorSelector
from sentinel_core.promql.values import Labels, Scalar, Vector
from tests.promql.slow_operators import ARITHMETIC, COMPARISONS, Refused, combined, steps_of

SELECTOR = VectorSelector(())
NAN, INF = math.nan, math.inf


def labelled(name: str = "", **labels: str) -> Labels:
    return tuple(sorted({**labels, **({"__name__": name} if name else {})}.items()))


def series(*rows: tuple[Labels, list[float | None]]) -> Vector:
    """Series with None where they are not there."""
    values = [[NAN if value is None else value for value in row] for _, row in rows]
    present = [[value is not None for value in row] for _, row in rows]
    return Vector.of([labels for labels, _ in rows], np.array(values, float), np.array(present))


def run(
    operator: str,
    left: Scalar | Vector,
    right: Scalar | Vector,
    matching: Matching = Matching(),  # noqa: B008 - frozen
    keep_bool: bool = False,
) -> Scalar | Vector:
    return combine(Binary(operator, SELECTOR, SELECTOR, keep_bool, matching), left, right, Budget())


def shown(value: Scalar | Vector) -> dict[Labels, list[float | None]]:
    """Rows that are there at any step, None where they are not; names that are to be dropped are."""
    assert isinstance(value, Vector)
    rows: dict[Labels, list[float | None]] = {}
    for labels, values, present, nameless in zip(
        value.labels, value.values, value.present, value.nameless, strict=True
    ):
        if present.any():
            named = tuple(pair for pair in labels if not (nameless and pair[0] == "__name__"))
            assert named not in rows
            rows[named] = [number if there else None for number, there in zip(values.tolist(), present, strict=True)]
    return rows


@pytest.mark.parametrize(
    ("operator", "left", "right", "expected"),
    [
        ("+", 1, 2, 3),
        ("-", 1, 2, -1),
        ("*", 3, 2, 6),
        ("/", 1, 0, INF),
        ("/", 0, 0, NAN),
        ("%", -7, 3, -1),
        ("%", 7, -3, 1),
        ("%", 1, 0, NAN),
        ("%", 5, INF, 5),
        ("^", -8, 1 / 3, NAN),
        ("^", 2, -1, 0.5),
        ("^", NAN, 0, 1),
        ("atan2", 10, 20, 0.4636476090008061),
    ],
)
def test_arithmetic_is_that_of_floats_in_go(operator: str, left: float, right: float, expected: float) -> None:
    """The remainder has the sign of the dividend, nothing raises."""
    result = run(operator, Scalar(np.array([left], float)), Scalar(np.array([right], float)))
    assert isinstance(result, Scalar)
    assert result.values[0] == pytest.approx(expected, nan_ok=True)


def test_two_scalars_compare_to_zero_or_one() -> None:
    """At every step of their own; NaN is unequal to everything."""
    left, right = Scalar(np.array([1.0, 2.0, NAN])), Scalar(np.array([2.0, 2.0, NAN]))
    for operator, expected in {"==": [0, 1, 0], "!=": [1, 0, 1], "<": [1, 0, 0], ">=": [0, 1, 0]}.items():
        result = run(operator, left, right, keep_bool=True)
        assert isinstance(result, Scalar)
        assert result.values.tolist() == expected


def test_a_scalar_meets_every_series_at_every_step() -> None:
    """On either side; the name is to be dropped, gaps stay gaps."""
    vector = series((labelled("x", i="1"), [1, None, 3]), (labelled("y", i="1"), [4, 5, NAN]))
    result = run("-", Scalar(np.array([10.0, 20.0, 30.0])), vector)
    assert isinstance(result, Vector)
    assert result.labels == vector.labels
    assert result.nameless.all()
    assert result.present.tolist() == vector.present.tolist()
    assert result.values[0, [0, 2]].tolist() == [9, 27]
    assert shown(run("-", series((labelled("x"), [1, 2])), Scalar(np.array([1.0, 1.0])))) == {(): [0, 1]}


def test_a_comparison_with_a_scalar_keeps_the_series_and_their_names() -> None:
    """What is kept is the series' value, also where it stands on the right; `bool` keeps all and drops the name."""
    vector, three = series((labelled("x"), [1, 2, 3, 4, None, NAN])), Scalar(np.full(6, 3.0))
    assert shown(run(">", vector, three)) == {labelled("x"): [None, None, None, 4, None, None]}
    assert shown(run(">", three, vector)) == {labelled("x"): [1, 2, None, None, None, None]}
    assert shown(run(">=", vector, three, keep_bool=True)) == {(): [0, 0, 1, 1, None, 0]}
    assert not shown(run("==", vector, Scalar(np.full(6, NAN))))


def test_a_name_that_is_to_be_dropped_stays_so() -> None:
    """Through comparisons and sets."""
    vector = Vector((labelled("x", i="1"),), np.array([[5.0]]), np.array([[True]]), np.array([True]))
    named = series((labelled("y", i="1"), [1]))
    for result in (
        run(">", vector, Scalar(np.array([1.0]))),
        run(">", vector, named),
        run("and", vector, named),
        run("unless", vector, series((labelled("y"), [1]))),
        run("or", vector, named),
        run("or", vector, Vector.empty(1)),
    ):
        assert shown(result) == {labelled(i="1"): [5]}


def test_negation_drops_the_name() -> None:
    """And leaves scalars scalars."""
    result = negate(series((labelled("x", i="1"), [1, None])), Budget())
    assert shown(result) == {labelled(i="1"): [-1, None]}
    scalar = negate(Scalar(np.array([2.0])), Budget())
    assert isinstance(scalar, Scalar)
    assert scalar.values.tolist() == [-2]


MATCHINGS = [
    Matching(),
    Matching(("a",)),
    Matching(("a", "b"), True),
    Matching((), True),
    Matching(("a",), True),
    Matching(("__name__", "a"), True),
    Matching(("b",), False, "left"),
    Matching(("b",), False, "left", ("b", "c")),
    Matching(("a",), True, "left"),
    Matching(("a",), True, "left", ("b",)),
    Matching(("a",), True, "right", ("b", "none")),
    Matching(("a", "b"), True, "right", ("c",)),
]
SETS = [Matching(), Matching(("a",)), Matching(("a",), True), Matching((), True)]


def some_vector(random: np.random.Generator, steps: int, density: float) -> Vector:
    """Series of two names and few values of three labels, which they may lack."""
    drawn = {
        labelled(name, **{label: value for label, value in zip("abc", values, strict=True) if value})
        for name, *values in random.choice(["", "1", "2"], (8, 4))
        for name in [f"m{name}"]
    }
    labels = [list(drawn)[number] for number in random.permutation(len(drawn))]
    values = random.choice([0.0, 1.0, 2.0, 3.0, NAN, INF], (len(labels), steps))
    present = random.random(values.shape) < density
    return Vector(tuple(labels), values, present, random.random(len(labels)) < 0.2)


@pytest.mark.parametrize("matching", MATCHINGS, ids=str)
def test_vectors_are_paired_at_every_step_as_a_loop_over_their_samples_pairs_them(matching: Matching) -> None:
    """Values, labels and names; where the loop refuses a step, so do we, and only then."""
    answered = refused = 0
    random = np.random.default_rng(MATCHINGS.index(matching))
    for round_ in range(300):
        steps = 1 + round_ % 3
        density = random.choice([0.1, 0.3, 0.9])
        left, right = some_vector(random, steps, density), some_vector(random, steps, density)
        operator = [*ARITHMETIC, *COMPARISONS][round_ % 13]
        node = Binary(operator, SELECTOR, SELECTOR, operator in COMPARISONS and round_ % 2 == 0, matching)
        try:
            slow = [combined(node, *pair) for pair in zip(steps_of(left), steps_of(right), strict=True)]
        except Refused:
            refused += 1
            with pytest.raises(ExecutionError):
                combine(node, left, right, Budget())
            continue
        result = combine(node, left, right, Budget())
        assert isinstance(result, Vector)
        for expected, got in zip(slow, steps_of(result), strict=True):
            assert len(expected) == len(got)
            assert keyed(expected) == pytest.approx(keyed(got), nan_ok=True)
            answered += len(got)
    assert answered
    assert refused


@pytest.mark.parametrize("matching", SETS, ids=str)
@pytest.mark.parametrize("operator", ["and", "or", "unless"])
def test_sets_are_of_what_is_there_at_a_step(operator: str, matching: Matching) -> None:
    """Nothing of a series goes but where it has to."""
    random = np.random.default_rng(5)
    for density in [0.1, 0.3, 0.9] * 20:
        left, right = some_vector(random, 3, density), some_vector(random, 3, density)
        node = Binary(operator, SELECTOR, SELECTOR, matching=matching)
        result = combine(node, left, right, Budget())
        assert isinstance(result, Vector)
        for ours, *theirs in zip(steps_of(result), steps_of(left), steps_of(right), strict=True):
            assert keyed(ours) == pytest.approx(keyed(combined(node, *theirs)), nan_ok=True)


def keyed(samples: list[tuple[dict[str, str], bool, float]]) -> dict[tuple[object, ...], float]:
    """Samples by what they are of; of a series without a name it makes no difference whether that goes."""
    return {(*sorted(labels.items()), nameless and "__name__" in labels): value for labels, nameless, value in samples}


def test_duplicates_on_the_one_side_are_named() -> None:
    """In Prometheus' words, in order."""
    one = series((labelled("dup", l="b", j="x"), [1]), (labelled("dup", l="a", j="x"), [2]))
    many = series((labelled("m", j="x"), [3]))
    pair = '[{__name__="dup", j="x", l="a"}, {__name__="dup", j="x", l="b"}]'
    for group, side, left, right in (("none", "right", many, one), ("right", "left", one, many)):
        with pytest.raises(ExecutionError) as caught:
            run("+", left, right, Matching(("j",), True, group))  # type: ignore[arg-type] # one of three
        assert str(caught.value) == (
            f'found duplicate series for the match group {{j="x"}} on the {side} hand-side of the operation: {pair};'
            "many-to-many matching not allowed: matching labels must be unique on one side"
        )


def test_series_that_are_never_there_at_once_do_not_clash() -> None:
    """A process that comes back with another label is one series after matching, on either side."""
    old_new = series(
        (labelled("x", pod="old", j="1"), [1, 2, None]), (labelled("x", pod="new", j="1"), [None, None, 3])
    )
    fixed = series((labelled("y", j="1"), [10, 20, 30]))
    on_j = Matching(("j",), True)
    assert shown(run("+", old_new, fixed, on_j)) == {labelled(j="1"): [11, 22, 33]}
    assert shown(run("+", fixed, old_new, on_j)) == {labelled(j="1"): [11, 22, 33]}
    copied = run("+", fixed, old_new, Matching(("j",), True, "left", ("pod",)))
    assert shown(copied) == {labelled(j="1", pod="old"): [11, 22, None], labelled(j="1", pod="new"): [None, None, 33]}


def test_duplicates_clash_only_where_the_other_side_has_anything() -> None:
    """Where it is empty at a step, Prometheus does not look; where it has another group, it does."""
    twice = series((labelled("x", i="1"), [1, 1]), (labelled("y", i="1"), [2, 2]))
    assert not shown(run("+", series((labelled("z", i="1"), [None, None])), twice))
    with pytest.raises(ExecutionError, match="found duplicate series"):
        run("+", series((labelled("z", i="2"), [None, 1])), twice)


def test_many_to_one_has_to_be_asked_for_also_where_a_filter_leaves_one() -> None:
    """A comparison does not hide what is wrong with the query."""
    many = series((labelled("m", l="a", j="x"), [0]), (labelled("m", l="b", j="x"), [1]))
    for limit in (0.0, 0.5, 2.0):
        with pytest.raises(ExecutionError, match="multiple matches for labels: many-to-one matching must be explicit"):
            run(">", many, series((labelled("one", j="x"), [limit])), Matching(("j",), True))


def test_group_left_has_to_leave_series_apart() -> None:
    """Where a label that tells them apart is overwritten, it does not; where a filter would help, nobody knows."""
    many = series((labelled("m", l="a", j="x"), [0]), (labelled("m", l="b", j="x"), [1]))
    one = series((labelled("one", l="c", j="x"), [0.5]))
    matching = Matching(("j",), True, "left", ("l",))
    with pytest.raises(ExecutionError, match="multiple matches for labels: grouping labels must ensure unique"):
        run("+", many, one, matching)
    with pytest.raises(NotSupportedError, match="a comparison that leaves one of several"):
        run(">", many, one, matching)


def test_group_right_keeps_the_left_value_and_the_right_labels() -> None:
    """Of a comparison that filters."""
    one = series((labelled("limit", j="x", team="t"), [5]))
    many = series((labelled("m", j="x", l="a"), [3]), (labelled("m", j="x", l="b"), [7]))
    result = run(">", one, many, Matching(("j",), True, "right", ("team",)))
    assert shown(result) == {labelled("m", j="x", l="a", team="t"): [5]}


def test_a_name_is_copied_by_group_left_unless_it_is_to_be_dropped() -> None:
    """Then nobody knows."""
    many, one = series((labelled("m", l="a"), [1])), series((labelled("info"), [2]))
    matching = Matching((), True, "left", ("__name__",))
    assert shown(run("*", many, one, matching)) == {labelled("info", l="a"): [2]}
    with pytest.raises(NotSupportedError, match="__name__"):
        run("*", many, negate(one, Budget()), matching)


def test_rows_of_the_same_labels_are_joined_and_clash_at_the_same_step() -> None:
    """To the bit: -0 stays what it is."""
    vector = series((labelled("x"), [-0.0, None, NAN, None]), (labelled("x"), [None, 2, None, None]))
    joined = merge(vector)
    assert joined.labels == (labelled("x"),)
    assert joined.present.tolist() == [[True, True, True, False]]
    assert str(joined.values[0, :3].tolist()) == "[-0.0, 2.0, nan]"
    with pytest.raises(ExecutionError, match="vector cannot contain metrics with the same labelset"):
        merge(series((labelled("x"), [1, None]), (labelled("x"), [2, 3])))
    different = Vector(vector.labels, vector.values, vector.present, np.array([True, False]))
    assert merge(different).labels == vector.labels


def test_nothing_pairs_with_nothing() -> None:
    """Sets are the exception."""
    vector = series((labelled("x"), [1, 2]))
    for operator in (*ARITHMETIC, *COMPARISONS, "and"):
        assert not shown(run(operator, vector, Vector.empty(2)))
        assert not shown(run(operator, Vector.empty(2), vector))
    for operator in ("or", "unless"):
        assert shown(run(operator, vector, Vector.empty(2))) == {labelled("x"): [1, 2]}
    assert shown(run("or", Vector.empty(2), vector)) == {labelled("x"): [1, 2]}


def test_every_operator_pays_for_its_result() -> None:
    """Before it is made."""
    vector = series((labelled("x"), [1, 2, 3]))
    for operator, right in (("+", Scalar(np.ones(3))), ("+", vector), ("or", vector)):
        with pytest.raises(ExecutionError, match="too many samples"):
            combine(Binary(operator, SELECTOR, SELECTOR), vector, right, Budget(cells=2))
    with pytest.raises(ExecutionError, match="too many samples"):
        negate(vector, Budget(cells=2))


def test_pairs_are_paid_for_before_they_are_made() -> None:
    """A million of them, of a thousand series on each side that are never there at once, are too many."""
    many = Vector.of([labelled("x", i=str(i)) for i in range(1000)], np.eye(1000), np.eye(1000, dtype=bool))
    with pytest.raises(ExecutionError, match="too many samples"):
        run("+", many, many, Matching((), True, "left", ("i",)))
    assert shown(run("+", many, many, Matching((), True))) == {(): [2.0] * 1000}
