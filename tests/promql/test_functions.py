"""Functions of values, dates, labels and classic histograms, against loops that are obviously right."""

import bisect
import calendar
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql.errors import ExecutionError, NotSupportedError
from sentinel_core.promql.functions import FUNCTIONS
from sentinel_core.promql.histograms import fractions, quantiles
from sentinel_core.promql.values import Labels, Notes, Scalar, Text, Vector

TIMES = np.array([0, 60_000], np.int64)
DATES = {
    "minute": lambda date: date.minute,
    "hour": lambda date: date.hour,
    "day_of_week": lambda date: date.isoweekday() % 7,
    "day_of_month": lambda date: date.day,
    "day_of_year": lambda date: date.timetuple().tm_yday,
    "days_in_month": lambda date: calendar.monthrange(date.year, date.month)[1],
    "month": lambda date: date.month,
    "year": lambda date: date.year,
}
counts = st.lists(st.integers(0, 20), min_size=2, max_size=6)


def of_values(*values: float) -> Vector:
    """One series for each value, at one time."""
    return Vector.of([(("n", str(number)),) for number in range(len(values))], np.array(values)[:, None])


def call(function: str, *args: Vector | Scalar | str, notes: Notes | None = None) -> Vector:
    """Call one at one time."""
    given_args = [Text(one) if isinstance(one, str) else one for one in args]
    result = FUNCTIONS[function](given_args, TIMES[:1], notes or Notes())
    assert isinstance(result, Vector)
    return result


def labelled(*labels: Labels) -> Vector:
    """One series for each label set."""
    return Vector.of(labels, np.arange(float(len(labels)))[:, None])


@pytest.mark.parametrize("function", DATES)
@given(seconds=st.integers(-(10**10), 2 * 10**11))
def test_dates_are_those_of_the_calendar(function: str, seconds: int) -> None:
    """Parts of dates are what Python's calendar says, before 1970 and in leap years too."""
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert call(function, of_values(float(seconds))).values[0, 0] == DATES[function](date)


def test_no_date_of_what_is_no_time() -> None:
    """NaN has no date, and one that is nowhere present does not matter."""
    with pytest.raises(NotSupportedError, match="the date of NaN"):
        call("year", of_values(math.nan))
    absent = Vector.of([()], np.array([[math.nan]]), np.array([[False]]))
    assert not call("year", absent).present.any()


def test_bounds_that_are_nan() -> None:
    """Clamping to NaN is NaN, but an infinity that no bound could move stays, as in Go."""
    nan = Scalar(np.array([math.nan]))
    assert np.isnan(call("clamp_min", of_values(1.0), nan).values[0, 0])
    assert call("clamp_min", of_values(math.inf), nan).values[0, 0] == math.inf
    assert call("clamp_max", of_values(-math.inf), nan).values[0, 0] == -math.inf


def test_functions_take_the_name_away() -> None:
    """Series lose their names at the end of the evaluation; what only orders or labels keeps them."""
    vector = labelled((("__name__", "up"),))
    assert call("abs", vector).nameless.all()
    assert call("day_of_week", vector).nameless.all()
    assert not call("sort", vector).nameless.any()
    assert not call("label_replace", vector, "a", "b", "", "").nameless.any()


@given(replacement=st.text("$ab1{}_\\", max_size=8), value=st.text("ab1", max_size=4))
def test_replacements_expand_as_in_go(replacement: str, value: str) -> None:
    """`$1`, `${1}`, `$name`, `${name}` and `$$` are expanded, whatever else stands there stays."""
    match = re.fullmatch("(?P<a>.)(?P<b>.*)", value)
    by_name = {} if match is None else {"1": match[1], "2": match[2], "a": match["a"], "b": match["b"]}

    def expand(text: str) -> str:
        expanded = ""
        while text:
            found = re.match(r"\$(?:(\$)|([0-9A-Za-z_]+)|\{([0-9A-Za-z_]+)\})", text)
            if found is None:
                expanded, text = expanded + text[0], text[1:]
            else:
                expanded += "$" if found[1] else by_name.get(found[2] or found[3], "")
                text = text[found.end() :]
        return expanded

    result = call("label_replace", labelled((("l", value),)), "to", replacement, "l", "(?P<a>.)(?P<b>.*)")
    expected = "" if match is None else expand(replacement)
    assert dict(result.labels[0]).get("to", "") == expected


def test_series_that_become_one() -> None:
    """Two series of one label set are an error where both have a value at a step, and one series otherwise."""
    vector = labelled((("l", "1"),), (("l", "2"),))
    with pytest.raises(ExecutionError, match="vector cannot contain metrics with the same labelset"):
        call("label_join", vector, "l", "")
    apart = Vector.of(vector.labels, np.array([[1.0, 0.0], [0.0, 2.0]]), np.eye(2, dtype=bool))
    joined = FUNCTIONS["label_join"]([apart, Text("l"), Text("")], TIMES, Notes())
    assert isinstance(joined, Vector)
    assert (joined.labels, joined.values.tolist(), joined.present.all()) == (((),), [[1.0, 2.0]], True)


def test_series_that_are_nowhere_clash_with_nothing() -> None:
    """What has no value at any step is no second series."""
    vector = Vector.of([(("l", "1"),), (("l", "2"),)], np.zeros((2, 1)), np.array([[True], [False]]))
    assert call("label_join", vector, "l", "").labels == ((),)


def slow_quantile(share: float, bounds: Sequence[float], cumulated: Sequence[float]) -> float:
    """One histogram, bucket by bucket."""
    mended = [max(cumulated[: place + 1]) for place in range(len(cumulated))]
    if not mended[-1]:
        return math.nan
    rank = share * mended[-1]
    place = min(bisect.bisect_left(mended, rank), len(bounds) - 1)
    if place == len(bounds) - 1:
        return bounds[-2]
    if place == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[place - 1], mended[place - 1]) if place else (0.0, 0.0)
    with np.errstate(all="ignore"):
        return float(start + (bounds[place] - start) * np.float64(rank - below) / (mended[place] - below))


@given(cumulated=counts, share=st.floats(0, 1), first=st.sampled_from([-1.0, 0.0, 0.5]))
def test_quantiles_of_buckets(cumulated: list[int], share: float, first: float) -> None:
    """Quantiles are those of a loop over the buckets, whose counts never fall once they are mended."""
    bounds = [first + number for number in range(len(cumulated) - 1)] + [math.inf]
    with np.errstate(all="ignore"):
        found, falls = quantiles(np.array(bounds), np.array([cumulated], float), [np.array([share])])
    np.testing.assert_allclose(found[0], slow_quantile(share, bounds, cumulated), rtol=1e-9, atol=1e-12)
    assert (falls is not None and bool(falls.any())) == (sorted(cumulated) != cumulated)


@given(steps=counts, share=st.floats(0.01, 0.99))
def test_fractions_turn_quantiles_around(steps: list[int], share: float) -> None:
    """The share of the observations below a quantile is the quantile's, where it lies inside a bucket."""
    cumulated = np.cumsum([[step + 1.0 for step in steps]], axis=1)
    cumulated[:, -1] = cumulated[:, -2]  # nothing beyond the last finite bound
    bounds = np.array([*range(1, len(steps)), math.inf])
    quantile, _ = quantiles(bounds, cumulated, [np.array([share])])
    found, _ = fractions(bounds, cumulated, [np.array([-math.inf]), quantile])
    np.testing.assert_allclose(found, share, rtol=1e-9)


def test_fractions_that_nobody_knows() -> None:
    """Below zero and below the lowest bound, and where counts fall, there is no answer."""
    for lowest in (-1.0, 1.0):
        with pytest.raises(NotSupportedError, match="lowest bucket"):
            fractions(np.array([lowest, np.inf]), np.array([[1.0, 2.0]]), [np.array([-2.0]), np.array([0.5])])
    with pytest.raises(NotSupportedError, match="counts fall"):
        fractions(np.array([1.0, np.inf]), np.array([[2.0, 1.0]]), [np.array([0.0]), np.array([1.0])])
