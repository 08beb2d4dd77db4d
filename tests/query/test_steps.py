"""What holds of any expression without asking another engine: a range is a row of instants."""

from dataclasses import replace

import numpy as np
import pytest

from sentinel_core.promql.errors import QueryError
from sentinel_core.promql.evaluate import evaluate, times
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.source import Source
from sentinel_core.promql.values import STALE, Labels, Notes, Scalar, Vector
from tests.query.expressions import END, Expressions, samples
from tests.query.test_differential import InMemory

FIRST, LAST, STEP = (END - 3_000) * 1_000, (END - 1_800) * 1_000, 173_500  # ms
OF_THE_WHOLE = ("start()", "end()", "topk", "bottomk")  # another query is another answer, or which of equals is chance
Points = dict[tuple[Labels, int], float]


def points(source: Source, text: str, start: int, end: int, step: int) -> Points:
    """Every value by series and time."""
    value = evaluate(parse(text), start, end, step, source, Budget(), Notes())
    at = times(start, end, step).tolist()
    if isinstance(value, Scalar):
        return {((), time): one for time, one in zip(at, value.values.tolist(), strict=True)}
    assert isinstance(value, Vector)
    rows, columns = (one.tolist() for one in np.nonzero(value.present))
    return {(value.labels[i], at[j]): float(value.values[i, j]) for i, j in zip(rows, columns, strict=True)}


def test_a_range_is_at_each_step_what_an_instant_is() -> None:
    """120 expressions over series with stale markers have the same values step by step."""
    found = samples()
    ended = np.random.default_rng(3).random(len(found.values)) < 0.05
    source = InMemory(replace(found, values=np.where(ended, STALE, found.values)))
    drawn = Expressions(9)
    texts = [text for text in (drawn.draw() for _ in range(120)) if not any(one in text for one in OF_THE_WHOLE)]
    compared = 0
    for text in texts:
        try:
            whole = points(source, text, FIRST, LAST, STEP)
        except QueryError:
            continue
        single: Points = {}
        for at in times(FIRST, LAST, STEP).tolist():
            single |= points(source, text, at, at, 0)
        assert single == pytest.approx(whole, rel=1e-9, abs=1e-9, nan_ok=True), text
        compared += bool(whole)
    assert compared > 60
