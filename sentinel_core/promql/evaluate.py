"""A tree and a source make values: every node is evaluated for all series and all steps at once."""

from sentinel_core.promql.limits import Budget
from sentinel_core.promql.source import Source
from sentinel_core.promql.tree import Node
from sentinel_core.promql.values import Notes, Samples, Scalar, Text, Vector
from sentinel_core.windows import IntArray

SUBQUERY_STEP = 60_000  # ms: of a subquery that names none, as Prometheus' evaluation_interval


def times(start: int, end: int, step: int) -> IntArray:
    """Return the steps of a query, milliseconds: start, start + step, … up to end; one where start is end.

    >>> times(1000, 2500, 500).tolist(), times(1000, 1000, 0).tolist()
    ([1000, 1500, 2000, 2500], [1000])
    """
    raise NotImplementedError


def evaluate(
    node: Node,
    start: int,
    end: int,
    step: int,
    source: Source,
    budget: Budget,
    notes: Notes,
    *,
    subquery_step: int = SUBQUERY_STEP,
) -> Scalar | Text | Vector | Samples:
    """Return what an expression is from `start` to `end` every `step` milliseconds.

    start == end with step 0 is an instant query: only there may the whole expression be a text (Text) or a range
    (Samples, without stale markers, in start - range < t <= start). A Vector holds no two series with equal labels,
    no series without a value, and no name that an operation took away (`nameless` is all False); its rows are in the
    order of the answer (by labels, but where sort, topk or bottomk order an instant query).
    Raises QueryError; warnings and infos go to `notes`.
    """
    raise NotImplementedError
