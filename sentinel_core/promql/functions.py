"""Functions of instant vectors and scalars: mathematics, dates, order, absence.

Each takes its evaluated arguments and the steps. S series, T steps; times are milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sentinel_core.promql import histograms, labelling
from sentinel_core.promql.errors import NotSupportedError
from sentinel_core.promql.matching import NAME
from sentinel_core.promql.values import BoolArray, Notes, Scalar, Text, Vector
from sentinel_core.series import Matcher
from sentinel_core.windows import FloatArray, IntArray

Argument = Scalar | Text | Vector
Function = Callable[[Sequence[Argument], IntArray, Notes], Scalar | Vector]

_FARTHEST = 1e15  # seconds: dates beyond are not computed, nor those of NaN and the infinities


def smaller(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the lesser of each two; NaN where one is, but beside -Inf, as in Go."""
    lesser: FloatArray = np.where(np.isneginf(left) | np.isneginf(right), -np.inf, np.minimum(left, right))
    return lesser


def larger(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the greater of each two; NaN where one is, but beside +Inf, as in Go.

    >>> larger(np.array([1.0, np.nan, np.nan]), np.array([2.0, 2.0, np.inf])).tolist()
    [2.0, nan, inf]
    """
    return -smaller(-left, -right)


def _nearest(values: FloatArray, multiple: FloatArray | float = 1.0) -> FloatArray:
    """Round half up to a multiple; one division less than the obvious, so that 0.1 works as in Prometheus."""
    inverse = 1 / np.asarray(multiple)
    rounded: FloatArray = np.floor(values * inverse + 0.5) / inverse
    return rounded


# Of every value alone; further arguments are scalars, [T].
_OF_VALUES: Mapping[str, Callable[..., FloatArray]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "deg": lambda values: values * 180 / np.pi,
    "rad": lambda values: values * np.pi / 180,
    "round": _nearest,
    "clamp_min": larger,
    "clamp_max": smaller,
}


def _days(seconds: IntArray) -> IntArray:
    return seconds // 86_400


def _since(seconds: IntArray, unit: str) -> tuple[IntArray, IntArray]:
    """Return the calendar units since 1970, and the days from the start of each to the date."""
    whole = seconds.astype("M8[s]").astype(f"M8[{unit}]")
    return whole.astype(np.int64), _days(seconds) - whole.astype("M8[D]").astype(np.int64)


def _days_in_month(seconds: IntArray) -> IntArray:
    month = seconds.astype("M8[s]").astype("M8[M]")
    days: IntArray = ((month + 1).astype("M8[D]") - month.astype("M8[D]")).astype(np.int64)
    return days


_OF_DATES: Mapping[str, Callable[[IntArray], IntArray]] = {
    "minute": lambda seconds: seconds // 60 % 60,
    "hour": lambda seconds: seconds // 3600 % 24,
    "day_of_week": lambda seconds: (_days(seconds) + 4) % 7,  # 1970 began on a Thursday
    "day_of_month": lambda seconds: _since(seconds, "M")[1] + 1,
    "day_of_year": lambda seconds: _since(seconds, "Y")[1] + 1,
    "days_in_month": _days_in_month,
    "month": lambda seconds: _since(seconds, "M")[0] % 12 + 1,
    "year": lambda seconds: _since(seconds, "Y")[0] + 1970,
}


def _of_values(function: Callable[..., FloatArray]) -> Function:
    def apply(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
        vector, parameters = _vector(args[0]), [_numbers(one) for one in args[1:]]
        with np.errstate(all="ignore"):  # what is not present holds anything
            values = function(vector.values, *parameters)
        return _renamed(vector, np.asarray(values, np.float64))

    return apply


def _of_dates(function: Callable[[IntArray], IntArray]) -> Function:
    def apply(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
        vector = _vector(args[0]) if args else Vector.of([()], times[None, :] / 1000)
        known = np.abs(vector.values) < _FARTHEST
        if (vector.present & ~known).any():
            raise NotSupportedError("the date of NaN, an infinity or a time more than 30 million years away")
        seconds = np.where(known, vector.values, 0).astype(np.int64)  # toward zero, as in Go
        return _renamed(vector, function(seconds).astype(np.float64))

    return apply


def _clamp(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    vector, least, most = _vector(args[0]), _numbers(args[1]), _numbers(args[2])
    clamped = _renamed(vector, larger(least, smaller(most, vector.values)))
    return replace(clamped, present=vector.present & ~(most < least))


def _scalar(args: Sequence[Argument], times: IntArray, notes: Notes) -> Scalar:
    vector = _vector(args[0])
    if not vector.labels:
        return Scalar(np.full(len(times), np.nan))
    first = vector.values[vector.present.argmax(axis=0), np.arange(len(times))]
    return Scalar(np.where(vector.present.sum(axis=0) == 1, first, np.nan))


def _to_vector(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    return Vector.of([()], _numbers(args[0])[None, :])


def _time(args: Sequence[Argument], times: IntArray, notes: Notes) -> Scalar:
    return Scalar(times / 1000)


def _pi(args: Sequence[Argument], times: IntArray, notes: Notes) -> Scalar:
    return Scalar(np.full(len(times), np.pi))


def _timestamp(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """Of anything but a selector, whose samples have times of their own."""
    vector = _vector(args[0])
    return _renamed(vector, np.broadcast_to(times / 1000, vector.values.shape).copy())


def _nothing(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
    """Functions of native histograms pass by what is a number, and there is nothing else."""
    return Vector.empty(len(times))


def _sort(sign: int) -> Function:
    def apply(args: Sequence[Argument], times: IntArray, notes: Notes) -> Vector:
        vector = _vector(args[0]).seen()  # what is not present may be no number that can be multiplied
        if not labelling.has_order(times, notes):
            return vector
        return vector.rows(np.argsort(sign * vector.values[:, 0], kind="stable"))  # NaN comes last

    return apply


def absent(present: BoolArray, matchers: Sequence[Matcher]) -> Vector:
    """Return 1 where no series is present, labelled by what a selector asks for by equality.

    present:  bool [S, T]
    matchers: of the selector, none where it is no selector; what follows an equality on a label takes the label away

    >>> absent(np.array([[True, False]]), (Matcher("job", "=", "api"), Matcher("env", "!=", "test"))).labels
    ((('job', 'api'),),)
    """
    labels: dict[str, str] = {}
    for number, one in enumerate(matchers):
        again = any((other.label, other.operator) == (one.label, "=") for other in matchers[:number])
        labels[one.label] = "" if again or one.operator != "=" else one.value
    labels = {name: value for name, value in labels.items() if value and name != NAME}
    nowhere = ~np.logical_or.reduce(present, axis=0, keepdims=True)
    return Vector.of([tuple(sorted(labels.items()))], np.ones(nowhere.shape), nowhere)


def _vector(argument: Argument) -> Vector:
    assert isinstance(argument, Vector)  # the parser has checked types
    return argument


def _numbers(argument: Argument) -> FloatArray:
    assert isinstance(argument, Scalar)
    return argument.values


def _renamed(vector: Vector, values: FloatArray) -> Vector:
    """Return other values of the same series; their names go."""
    return replace(vector, values=values, nameless=np.ones(len(vector.labels), bool))


FUNCTIONS: Mapping[str, Function] = {
    **{name: _of_values(function) for name, function in _OF_VALUES.items()},
    **{name: _of_dates(function) for name, function in _OF_DATES.items()},
    "clamp": _clamp,
    "scalar": _scalar,
    "vector": _to_vector,
    "time": _time,
    "pi": _pi,
    "timestamp": _timestamp,
    "sort": _sort(1),
    "sort_desc": _sort(-1),
    "sort_by_label": labelling.sort_by_label(descending=False),
    "sort_by_label_desc": labelling.sort_by_label(descending=True),
    "label_replace": labelling.label_replace,
    "label_join": labelling.label_join,
    "histogram_quantile": histograms.histogram_quantile,
    "histogram_fraction": histograms.histogram_fraction,
    "histogram_avg": _nothing,
    "histogram_count": _nothing,
    "histogram_sum": _nothing,
    "histogram_stddev": _nothing,
    "histogram_stdvar": _nothing,
}
