"""Decoding: arrays equal what a slow, obviously right loop makes of the same JSON."""

import gc
import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.collector import collector_paused
from sentinel_core.prometheus.decode import Matrix, MatrixBuilder, sample_times, vector
from sentinel_core.windows import grid

T0, STEP, POINTS = 1_700_000_040, 60, 8
TIMES = grid(T0, T0 + (POINTS - 1) * STEP, STEP)

Row = tuple[dict[str, str], dict[int, str]]  # labels, column -> value as Go writes it


def answer(rows: list[Row], result_type: str = "matrix") -> bytes:
    """What Prometheus answers for these rows."""
    result = [
        {"metric": labels, "values": [[T0 + column * STEP, value] for column, value in sorted(samples.items())]}
        for labels, samples in rows
    ]
    data = {"resultType": result_type, "result": result}
    return json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()


def decode(*bodies: bytes, expected_series: int = 2) -> Matrix:
    """Place bodies onto the grid."""
    builder = MatrixBuilder(TIMES, STEP, expected_series)
    for body in bodies:
        builder.add(body)
    return builder.matrix()


def oracle(rows: list[Row]) -> tuple[np.ndarray, int]:
    """One loop per sample: values [n, T] and the number of non-finite samples."""
    values, bad = np.full((len(rows), POINTS), np.nan), 0
    for i, (_, samples) in enumerate(rows):
        for column, text in samples.items():
            number = float(text)
            if math.isfinite(number):
                values[i, column] = number
            else:
                bad += 1
    return values, bad


go_values = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(
    ["NaN", "+Inf", "-Inf", "1e+300"]
)
samples = st.dictionaries(st.integers(0, POINTS - 1), go_values, min_size=1)
label_values = st.text(st.characters(codec="utf-8"), max_size=8)
rows_strategy = st.lists(st.tuples(label_values, samples), min_size=0, max_size=6, unique_by=lambda row: row[0]).map(
    lambda rows: [({"__name__": "m", "a": text}, values) for text, values in rows]
)


@given(rows_strategy)
def test_any_answer_decodes_like_the_slow_loop(rows: list[Row]) -> None:
    """Whatever the holes, labels and values, the arrays are those of a loop over json.loads."""
    matrix = decode(answer(rows))
    values, bad = oracle(rows)
    np.testing.assert_array_equal(matrix.values, values)
    assert matrix.labels == [labels for labels, _ in rows]
    assert matrix.samples.tolist() == [len(samples) for _, samples in rows]
    assert matrix.non_finite.sum() == bad


@given(rows_strategy, st.integers(0, POINTS))
def test_chunks_give_the_same_as_one_answer(rows: list[Row], cut: int) -> None:
    """Series that appear in one chunk only, or in both, land in the same rows as in one answer."""
    before = [(labels, {c: v for c, v in samples.items() if c < cut}) for labels, samples in rows]
    after = [(labels, {c: v for c, v in samples.items() if c >= cut}) for labels, samples in rows]
    chunked = decode(*(answer([row for row in part if row[1]]) for part in (before, after)))
    whole = decode(answer(rows))
    row_of = {json.dumps(labels): i for i, labels in enumerate(chunked.labels)}
    order = [row_of[json.dumps(labels)] for labels in whole.labels]
    np.testing.assert_array_equal(chunked.values[order], whole.values)
    np.testing.assert_array_equal(chunked.samples[order], whole.samples)


@given(rows_strategy.filter(bool), st.data())
def test_a_truncated_answer_is_never_taken_for_a_whole_one(rows: list[Row], data: st.DataObject) -> None:
    """Cut anywhere, the body is a DecodeError and leaves the grid as it was."""
    body = answer(rows)
    builder = MatrixBuilder(TIMES, STEP, 2)
    with pytest.raises(msgspec.DecodeError):
        builder.add(body[: data.draw(st.integers(0, len(body) - 1))])
    assert np.isnan(builder.matrix().values).all()


def test_the_same_labels_in_another_order_are_the_same_series() -> None:
    """A backend that writes labels in another order per chunk does not double its series."""
    matrix = decode(answer([({"a": "1", "b": "2"}, {0: "5"})]), answer([({"b": "2", "a": "1"}, {1: "6"})]))
    assert len(matrix.labels) == 1
    assert matrix.values[0, :2].tolist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('[[1700000041,"1"]]', "not on the grid"),
        ('[[1699999980,"1"]]', "not on the grid"),
        ('[[1700000520,"1"]]', "not on the grid"),
        ('[[null,"NaN"]]', "no numbers"),
        ('[[1e300,"1"]]', "not on the grid"),
        ('[[1700000040,"one"]]', "no numbers"),
        ('[[1700000040,""]]', "no numbers"),
        ("[[1700000040,1]]", "pairs"),
        ('[[1700000040,"1",2]]', "pairs"),
        ('[[1700000040,"1,2"]]', "pairs"),
        ('[["1700000040"]]', "pairs"),
        ('{"a":1}', "no numbers"),
    ],
)
def test_samples_of_another_shape_are_refused(values: str, words: str) -> None:
    """What is not a pair of a grid time and a quoted number is an error that says so, never a wrong number."""
    body = b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":%s}]}}' % values.encode()
    with pytest.raises(msgspec.ValidationError, match=words):
        decode(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (answer([], "vector"), "a vector where a matrix"),
        (b'{"status":"error","errorType":"execution","error":"it broke"}', "it broke"),
        (b'{"status":"success"}', "without data"),
        (b'{"status":"success","data":[]}', "object"),
        (b"[]", "object"),
        (
            b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[]}]}}',
            "native histograms",
        ),
    ],
)
def test_other_answers_are_refused(body: bytes, words: str) -> None:
    """An envelope or a result of another kind is named."""
    with pytest.raises(msgspec.ValidationError, match=words):
        decode(body)


def test_collection_is_paused_and_resumed_even_after_an_error() -> None:
    """The garbage collector runs again after a body that fails, and stays off where it was off."""
    assert gc.isenabled()
    with pytest.raises(msgspec.DecodeError):
        decode(b"{")
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_warnings_come_back() -> None:
    """A partial answer's warnings reach the caller."""
    body = b'{"status":"success","warnings":["a store is down"],"data":{"resultType":"matrix","result":[]}}'
    assert MatrixBuilder(TIMES, STEP, 1).add(body) == ["a store is down"]


def test_instant_answers() -> None:
    """Vectors keep labels and non-finite values; points without a number are left out; matrices are refused."""
    result = (
        '[{"metric":{"a":"1"},"value":[1,"NaN"]},{"metric":{},"value":[1.5,"-2e+06"]},{"metric":{},"histogram":[1,{}]}]'
    )
    body = f'{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}'.encode()
    (labels, nan), (_, number) = vector(body)
    assert labels == {"a": "1"}
    assert math.isnan(nan)
    assert number == -2e6
    with pytest.raises(msgspec.ValidationError, match="a matrix where numbers"):
        vector(answer([]))
    with pytest.raises(msgspec.ValidationError, match="'x' where a number"):
        vector(b'{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}')


def test_raw_samples_give_their_times() -> None:
    """The times of a range selector's samples, fractions of a second kept."""
    result = b'[{"metric":{},"values":[[1.5,"NaN"],[2.25,"7"]]}]'
    body = b'{"status":"success","data":{"resultType":"matrix","result":%s}}' % result
    assert [times.tolist() for times in sample_times(body)] == [[1.5, 2.25]]
