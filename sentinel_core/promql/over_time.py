"""Functions of ranges: rate, sum_over_time and the rest, for every series at every step."""

from collections.abc import Callable, Mapping, Sequence

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.values import Notes, Samples, Vector
from sentinel_core.windows import FloatArray, IntArray


def over_time(
    function: str,
    samples: Samples,
    times: IntArray,
    span: int,
    params: Sequence[FloatArray],
    budget: Budget,
    notes: Notes,
    *,
    at: IntArray | None = None,
) -> Vector:
    """Evaluate a function of OVER_TIME; at a step where a series has too few samples it has no value.

    times:  int64 [T] ms, where the ranges end: offset and @ are in them; evenly spaced
    span:   of the ranges, ms
    params: float64 [T] each, the other arguments in their order, e.g. the quantile of quantile_over_time
    at:     int64 [T] ms, the evaluation's own times where they are not `times`: predict_linear counts from there
    Raises ExecutionError where Prometheus does.
    """
    raise NotImplementedError


OVER_TIME: Mapping[str, Callable[..., FloatArray]] = {}  # by name, lower case
