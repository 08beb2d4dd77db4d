"""Values as JSON: what Prometheus' own server writes for the same numbers."""

import json
import math
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql import answer
from sentinel_core.promql.answer import texts
from sentinel_core.promql.values import Labels, Notes, Samples, Scalar, Text, Vector
from tests.prometheus_server import PrometheusServer

LABELS: tuple[Labels, ...] = ((("__name__", "a"), ("job", 'quo"te')), (("__name__", "b"),), (("z", "ü"),))
TIMES = np.array([0, 1_500, 3_000])


def body(value: Scalar | Text | Vector | Samples, times: np.ndarray = TIMES, **options: Any) -> Any:
    """What a client decodes."""
    pieces = list(answer.answer(value, times, options.pop("notes", Notes()), **{"ranged": True, **options}))
    assert b"".join(pieces).startswith(b'{"status":"success","data":{"resultType":"')
    return json.loads(b"".join(pieces))


def slowly(number: float) -> str:
    """Go's text of a number, digit by digit."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    size = abs(number)
    if size and not 1e-6 <= size < 1e21:
        digits, exponent = repr(number).split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent):+03d}"
    text = f"{Decimal(repr(number)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@given(st.lists(st.floats(), max_size=20))
def test_numbers_are_written_as_go_writes_them(numbers: list[float]) -> None:
    """Every number has the shortest text that is read back as the same, in Go's form."""
    found = [text.decode() for text in texts(np.array(numbers))]
    assert found == [slowly(number) for number in numbers]
    assert all(float(text) == number or number != number for text, number in zip(found, numbers, strict=True))


@pytest.mark.prometheus
def test_prometheus_writes_the_same(own_prometheus: PrometheusServer) -> None:
    """A real server's texts of numbers at every limit of their form."""
    numbers = [1.0, -0.5, 1e-6, 9.99e-7, 1.5e-6, 1e-7, 1e20, 1.2345678901234567e20, 1e21, 1.5e300, 5e-324, 0.1 + 0.2]
    for number in numbers:
        question = {"query": f"vector({number!r})", "time": "1.5"}
        answered = httpx.get(f"{own_prometheus.url}/api/v1/query", params=question).json()
        assert body(Vector.of([()], np.array([[number]])), TIMES[1:2], ranged=False) == answered


def test_a_matrix_has_only_what_is_present() -> None:
    """Each series has its own points; times have a fraction only where there is one."""
    present = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], bool)
    values = np.arange(9.0).reshape(3, 3) + 0.5
    data = body(Vector.of(LABELS, values, present))["data"]
    assert data == {
        "resultType": "matrix",
        "result": [
            {"metric": {"__name__": "a", "job": 'quo"te'}, "values": [[0, "0.5"], [3, "2.5"]]},
            {"metric": {"__name__": "b"}, "values": [[0, "3.5"], [1.5, "4.5"], [3, "5.5"]]},
            {"metric": {"z": "ü"}, "values": [[3, "8.5"]]},
        ],
    }


@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 2**32), st.integers(1, 50))
def test_pieces_are_one_answer(series: int, steps: int, seed: int, piece: int) -> None:
    """However an answer is cut, it holds every present sample once."""
    chance = np.random.default_rng(seed)
    present = chance.random((series, steps)) < 0.6
    present[np.arange(series), chance.integers(0, steps, series)] = True
    values, times = chance.normal(size=present.shape), 1_000 * np.arange(steps)
    labels = [(("n", str(number)),) for number in range(series)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "_PIECE", piece)
        matrix = body(Vector.of(labels, values, present), times)["data"]["result"]
        split = Samples.of(labels, [times[row] for row in present], [values[i][row] for i, row in enumerate(present)])
        samples = body(split, times[:1], ranged=False)["data"]["result"]
        vector = body(Vector.of(labels, values[:, :1]), times[:1], ranged=False)["data"]["result"]
    expected = [
        [[at // 1000, slowly(value)] for at, value in zip(times[row].tolist(), line[row].tolist(), strict=True)]
        for line, row in zip(values, present, strict=True)
    ]
    assert [row["metric"] for row in matrix] == [dict(one) for one in labels]
    assert [row["values"] for row in matrix] == expected
    assert samples == matrix
    assert [row["value"] for row in vector] == [[0, slowly(value)] for value in values[:, 0].tolist()]


def test_a_long_series_comes_in_pieces() -> None:
    """However many points one series has, they are not written at once."""
    samples = Samples.of([(("n", "1"),)], [np.arange(50_000)], [np.ones(50_000)])
    pieces = list(answer.answer(samples, TIMES[:1], Notes(), ranged=False))
    assert max(map(len, pieces)) < 150_000
    assert len(json.loads(b"".join(pieces))["data"]["result"][0]["values"]) == 50_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Scalar(np.array([2.0])), {"resultType": "scalar", "result": [1.5, "2"]}),
        (Text('say "hi"'), {"resultType": "string", "result": [1.5, 'say "hi"']}),
        (
            Vector.of(LABELS[:1], np.array([[np.nan]])),
            {"resultType": "vector", "result": [{"metric": dict(LABELS[0]), "value": [1.5, "NaN"]}]},
        ),
        (Vector.empty(1), {"resultType": "vector", "result": []}),
        (Samples.of([], [], []), {"resultType": "matrix", "result": []}),
    ],
)
def test_each_type_has_its_form(value: Any, expected: Any) -> None:
    """An instant query answers with a scalar, a string, a vector, or a matrix of raw samples."""
    assert body(value, TIMES[1:2], ranged=False)["data"] == expected


def test_a_scalar_over_a_range_is_a_matrix() -> None:
    """It has one series without labels."""
    data = body(Scalar(np.array([1.0, 2.0, np.inf])))["data"]
    assert data["result"] == [{"metric": {}, "values": [[0, "1"], [1.5, "2"], [3, "+Inf"]]}]


def test_what_a_limit_cuts_is_said() -> None:
    """A limit leaves the first series; warnings and infos stand behind the data, where there are any."""
    notes = Notes()
    notes.warn("a")
    notes.inform("b")
    vector = Vector.of(LABELS, np.ones((3, 3)))
    cut = body(vector, limit=2, notes=notes)
    assert [row["metric"] for row in cut["data"]["result"]] == [dict(one) for one in LABELS[:2]]
    assert cut["warnings"] == ["PromQL warning: a", answer.TRUNCATED]
    assert cut["infos"] == ["PromQL info: b"]
    samples = Samples.of(LABELS, [TIMES] * 3, [np.ones(3)] * 3)
    assert len(body(samples, TIMES[:1], ranged=False, limit=1)["data"]["result"]) == 1
    assert "warnings" not in body(vector, limit=3)
