"""Range functions, against loops that are obviously right and numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.promql import over_time as module
from sentinel_core.promql import ranges, sums
from sentinel_core.promql.errors import ExecutionError, QueryTimeoutError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.over_time import OVER_TIME, over_time
from sentinel_core.promql.values import STALE, Notes, Samples, Vector
from tests.promql.slow_over_time import Point, slow

PARAMS = {"quantile_over_time": 1, "predict_linear": 1, "double_exponential_smoothing": 2}


def samples_of(*rows: list[Point], name: str = "x_total") -> Samples:
    return Samples.of(
        [(("__name__", name), ("i", str(i))) for i in range(len(rows))],
        [np.array([at for at, _ in row], np.int64) for row in rows],
        [np.array([value for _, value in row], float) for row in rows],
    )


def regular(*values: float, step: int = 10) -> list[Point]:
    """Samples every 10 s from 0."""
    return [(1000 * step * i, value) for i, value in enumerate(values)]


def evaluate(
    function: str,
    samples: Samples,
    times: list[int],
    span: int,
    *params: float | list[float],
    notes: Notes | None = None,
    at: list[int] | None = None,
) -> Vector:
    """Times and spans in seconds."""
    return over_time(
        function,
        samples,
        np.array(times) * 1000,
        span * 1000,
        [np.broadcast_to(np.array(param, float), len(times)) for param in params],
        Budget(),
        notes or Notes(),
        at=None if at is None else np.array(at) * 1000,
    )


def single(function: str, values: list[float], *params: float, span: int | None = None) -> float | None:
    """The value of one series with samples every 10 s, at its last one, over all of them or over a span (seconds)."""
    end = 10 * (len(values) - 1)
    vector = evaluate(function, samples_of(regular(*values)), [end], end + 1 if span is None else span, *params)
    return float(vector.values[0, 0]) if vector.present.any() else None


VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf, -math.inf, STALE]),
    st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
)
ROW = st.lists(st.tuples(st.integers(0, 200_000), VALUES), max_size=30, unique_by=lambda one: one[0]).map(sorted)


@pytest.mark.parametrize("function", sorted(OVER_TIME))
@given(
    rows=st.lists(ROW, min_size=1, max_size=4),
    start=st.integers(0, 100_000),
    step=st.integers(1, 60_000),
    steps=st.integers(1, 5),
    span=st.integers(1, 150_000),
    params=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
)
def test_a_function_is_what_its_definition_gives_sample_by_sample(
    function: str, rows: list[list[Point]], start: int, step: int, steps: int, span: int, params: tuple[float, float]
) -> None:
    """Any function of any ranges has the same values as a loop over each range's samples."""
    times, given_params = start + step * np.arange(steps), list(params[: PARAMS.get(function, 0)])
    vector = over_time(
        function, samples_of(*rows), times, span, [np.full(steps, one) for one in given_params], Budget(), Notes()
    )
    answered = {labels[-1][1]: row for row, labels in enumerate(vector.labels)}
    for i, series in enumerate(rows):
        fresh = [(t, value) for t, value in series if np.float64(value).view(np.uint64) != 0x7FF0000000000002]
        for column, end in enumerate(times.tolist()):
            points = [(t, value) for t, value in fresh if end - span < t <= end]
            expected = slow(function, points, end - span, end, given_params)
            row = answered.get(str(i))
            if expected is None:
                assert row is None or not vector.present[row, column]
            else:
                assert row is not None
                assert vector.present[row, column]
                largest = max(1.0, *(abs(value) for _, value in points if math.isfinite(value)), 1.0)
                close = pytest.approx(expected, rel=1e-7, abs=1e-9 * largest**2, nan_ok=True)
                assert vector.values[row, column] == close, points


# --- rate and its relatives -------------------------------------------------------------------------------------------


def test_rate_is_stretched_to_ends_that_are_near() -> None:
    """Samples at 0…40 s in (-5, 45]: both ends are within 1.1 distances, so 4 of 40 s become 5 of 50 s."""
    vector = evaluate("increase", samples_of(regular(100, 101, 102, 103, 104)), [45], 50)
    assert vector.values.tolist() == [[pytest.approx(5.0)]]


def test_rate_is_stretched_by_half_a_distance_to_ends_that_are_far() -> None:
    """A series that begins and ends well within the range grew for half a distance more on either side."""
    vector = evaluate("increase", samples_of(regular(100, 101, 102, 103, 104)), [100], 200)
    assert vector.values.tolist() == [[pytest.approx(5.0)]]
    assert evaluate("rate", samples_of(regular(100, 101, 102, 103, 104)), [100], 200).values[0, 0] == pytest.approx(
        5 / 200
    )


def test_a_counter_is_not_stretched_to_below_zero() -> None:
    """A counter at 1 that grows by 10 every 10 s was zero one second before: not five."""
    samples = samples_of(regular(1, 11, 21))
    assert evaluate("increase", samples, [20], 100).values[0, 0] == pytest.approx(21.0)
    assert evaluate("delta", samples, [20], 100).values[0, 0] == pytest.approx(25.0)


def test_a_range_does_not_have_the_sample_at_its_start() -> None:
    """(0, 40] of a sample every 10 s has four of them, and their growth is stretched over the fifth distance."""
    assert evaluate("increase", samples_of(regular(100, 110, 120, 130, 140)), [40], 40).values[0, 0] == pytest.approx(
        40
    )
    assert evaluate("count_over_time", samples_of(regular(1, 1, 1, 1, 1)), [40], 40).values[0, 0] == 4


def test_a_counter_that_was_reset_goes_on_from_where_it_was() -> None:
    """0 5 10 | 2 7 grew by 17, of which irate has the last 5; a gauge went up by 7."""
    values = [0.0, 5.0, 10.0, 2.0, 7.0]
    assert single("increase", values, span=50) == pytest.approx(17.0)  # zero at the start: nothing before it
    assert single("irate", values) == 0.5
    assert single("irate", values[:4]) == 0.2
    assert single("idelta", values[:4]) == -8.0
    assert single("resets", values) == 1.0
    assert single("delta", values, span=50) == pytest.approx(7 * 50 / 40)


def test_resets_are_added_one_after_the_other() -> None:
    """What rounding takes, it takes in the order in which Prometheus adds."""
    assert single("increase", [1e17, 1.0, 2.0]) == 0.0  # 2 - 1e17 is -1e17


def test_resets_of_huge_counters_outside_a_range_do_not_blur_it() -> None:
    """After a counter of 1e300 was reset, or was infinite, ranges behind it are as exact as ever."""
    values = [1e300, 0.1, math.inf, 0.1, 0.2, 0.1, 0.2]
    assert single("increase", values, span=35) == pytest.approx(0.3 * 35 / 30, rel=1e-9)


@pytest.mark.parametrize("function", ["rate", "increase", "delta", "irate", "idelta", "deriv"])
def test_one_sample_has_no_slope(function: str) -> None:
    """What needs two samples has no value of one."""
    assert single(function, [1.0]) is None


@pytest.mark.parametrize(("name", "told"), [("foo", True), ("foo_total", False), ("foo_bucket", False), ("", False)])
def test_a_rate_of_what_does_not_sound_like_a_counter_is_remarked_upon(name: str, told: bool) -> None:
    """Prometheus' own words, once, and only where there is a rate."""
    notes = Notes()
    samples = samples_of(regular(1, 2), regular(1, 2), name=name)
    for times in ([1000], [10]):
        evaluate("rate", samples, times, 60, notes=notes)
        if times == [1000]:
            assert not notes.infos
    text = 'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "foo"'
    assert list(notes.infos) == ([text] if told else [])
    evaluate("delta", samples, [10], 60, notes=(quiet := Notes()))
    assert not quiet.infos


def test_names_go_but_for_the_first_and_the_last_sample() -> None:
    """first_over_time and last_over_time answer with samples as they are; whatever else has no name any more."""
    samples = samples_of(regular(1, 2, 3))
    named = {f for f in OVER_TIME if not evaluate(f, samples, [20], 60, *[0.5] * PARAMS.get(f, 0)).nameless.any()}
    assert named == {"first_over_time", "last_over_time"}


def test_a_prediction_counts_from_the_evaluation_time() -> None:
    """With an offset or @, the range ends elsewhere, and `seconds` are still counted from the evaluation."""
    samples = samples_of(regular(0, 10, 20, 30))
    assert evaluate("predict_linear", samples, [30, 30], 60, 10.0, at=[30, 90]).values.tolist() == [
        [pytest.approx(40.0), pytest.approx(100.0)]
    ]


def test_a_line_through_equal_values_is_flat() -> None:
    """Equal values have slope zero exactly, infinite ones none."""
    assert single("deriv", [0.1] * 7) == 0.0
    assert single("predict_linear", [0.1] * 7, 1e9) == 0.1
    assert math.isnan(single("deriv", [math.inf] * 3) or 0.0)


# --- Sums, means and deviations ---------------------------------------------------------------------------------------


def test_sums_lose_nothing_to_rounding() -> None:
    """1 + 1e100 + 1 - 1e100 is 2, in a long range as in a short one."""
    assert single("sum_over_time", [1.0, 1e100, 1.0, -1e100]) == 2.0
    assert single("avg_over_time", [1.0, 1e100, 1.0, -1e100]) == 0.5
    assert single("sum_over_time", [1.0, 1e100, *[1.0] * 1000, -1e100]) == 1001.0


def test_infinities_and_nan_go_through_sums() -> None:
    """An infinite sum is infinite whatever rounding took; opposite infinities and NaN leave NaN."""
    for function in ("sum_over_time", "avg_over_time"):
        assert single(function, [1.0, math.inf, 2.0]) == math.inf
        assert single(function, [-math.inf]) == -math.inf
        assert math.isnan(single(function, [math.inf, -math.inf, 1.0]) or 0.0)
        assert math.isnan(single(function, [math.nan, 1.0]) or 0.0)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([9.9e307] * 5, 9.9e307),
        ([-9.9e307] * 5, -9.9e307),
        ([-9.9e307, -9.9e307, 9.9e307, 9.9e307], 0.0),
        ([1.7e308, 1.7e308, -math.inf], -math.inf),
    ],
)
def test_a_mean_survives_a_sum_that_overflows(values: list[float], mean: float) -> None:
    """Where the sum of finite values is not finite, their mean is all the same."""
    assert single("avg_over_time", values) == pytest.approx(mean, abs=1e292)


def test_equal_values_do_not_vary() -> None:
    """A standard deviation of equal values is zero, not what rounding of their mean leaves."""
    assert single("stddev_over_time", [1.5990505637277868] * 3) == 0.0
    assert single("stdvar_over_time", [0.1] * 1000) == 0.0


@pytest.mark.parametrize(
    ("values", "variance"),
    [
        ([1e200, -1e200], math.inf),  # of squares
        ([1e308, -1e308], -math.inf),  # of a distance: Prometheus' algorithm makes this of it
        ([1.0, math.inf], math.nan),
    ],
)
def test_what_varies_too_much_varies_as_in_prometheus(values: list[float], variance: float) -> None:
    """Infinities come of Welford's algorithm, not of another."""
    assert single("stdvar_over_time", values) == pytest.approx(variance, nan_ok=True)


def test_long_ranges_are_summed_as_short_ones_are() -> None:
    """A range of 700 samples beside one of three has the sum and the deviation of numpy."""
    values = np.random.default_rng(7).normal(1e6, 1.0, 700)
    samples = samples_of(regular(*values.tolist(), step=1), regular(1, 2, 3, step=300))
    assert evaluate("sum_over_time", samples, [699], 700).values[:, 0] == pytest.approx(
        [math.fsum(values), 6.0], rel=1e-15
    )
    assert evaluate("stddev_over_time", samples, [699], 700).values[0, 0] == pytest.approx(values.std(), rel=1e-9)


# --- Order ------------------------------------------------------------------------------------------------------------


def test_nan_is_an_extreme_only_of_nothing_else() -> None:
    """min and max pass NaN over; the last of several equal extremes says when."""
    values = [math.nan, 3.0, 1.0, 3.0, 1.0, math.nan]
    assert [single(f"{one}_over_time", values) for one in ("min", "max", "ts_of_min", "ts_of_max")] == [1, 3, 40, 30]
    assert math.isnan(single("max_over_time", [math.nan, math.nan]) or 0.0)
    assert single("ts_of_max_over_time", [math.nan, math.nan]) == 10.0


def test_quantiles_lie_between_samples() -> None:
    """The median of an even number is half-way, NaN is the smallest value, and half of infinity is infinity."""
    assert single("quantile_over_time", [1.0, 2.0, 4.0, 3.0], 0.5) == 2.5
    assert single("quantile_over_time", [3.0, math.nan, 2.0], 0.5) == 2.0
    assert single("quantile_over_time", [math.inf, 1.0], 0.5) == math.inf
    assert single("mad_over_time", [4.0, 6.0, 2.0, 1.0, 999.0, 1.0, 2.0]) == 1.0


def test_a_quantile_that_is_none_is_warned_of() -> None:
    """Below 0 is -Inf, above 1 is +Inf, NaN is NaN, each with a warning, at the steps that have samples."""
    notes = Notes()
    quantiles = [-1.0, 1.5, math.nan, 0.5, 7.0]
    vector = evaluate(
        "quantile_over_time", samples_of(regular(1, 1, 1, 1)), [0, 10, 20, 30, 40], 9, quantiles, notes=notes
    )
    assert vector.values[0, :4].tolist() == pytest.approx([-math.inf, math.inf, math.nan, 1.0], nan_ok=True)
    said = "PromQL warning: quantile value should be between 0 and 1, got"
    assert list(notes.warnings) == [f"{said} -1", f"{said} 1.5", f"{said} NaN"]
    assert vector.present.tolist() == [[True, True, True, True, False]]


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((0.0, 0.5), r"invalid smoothing factor\. Expected: 0 < sf < 1, got: 0\.000000"),
        ((0.5, 1.0), r"invalid trend factor\. Expected: 0 < tf < 1, got: 1\.000000"),
    ],
)
def test_factors_of_smoothing_lie_between_zero_and_one(factors: tuple[float, float], words: str) -> None:
    """A wrong factor is an error where there is a sample to smooth, even a single one."""
    with pytest.raises(ExecutionError, match=words):
        single("double_exponential_smoothing", [1.0], *factors)
    assert evaluate("double_exponential_smoothing", samples_of(), [0], 10, *factors).labels == ()


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_ranges_are_the_same_whatever_is_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of series, batches of ranges and pieces of sums leave no trace in the values."""
    rng = np.random.default_rng(3)
    rows = [
        [(int(t), float(rng.random())) for t in np.sort(rng.choice(90_000, n, replace=False))] for n in (40, 0, 7, 90)
    ]

    def answer() -> list[np.ndarray]:
        vectors = [
            evaluate(f, samples_of(*rows), list(range(0, 99, 9)), 33, *[0.3] * PARAMS.get(f, 0)) for f in OVER_TIME
        ]
        return [np.where(vector.present, vector.values, -1.0) for vector in vectors]

    at_once = answer()
    monkeypatch.setattr(module, "BLOCK", 12)
    monkeypatch.setattr(ranges, "BATCH", 50)
    monkeypatch.setattr(sums, "PIECE", 4)
    for here, there in zip(answer(), at_once, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-12)


def test_a_range_function_ends_when_its_time_is_up() -> None:
    """What is recursive looks at the clock as it goes on."""
    ticks = iter(range(1000))
    budget = Budget(deadline=5.0, clock=lambda: float(next(ticks)))
    samples = samples_of(regular(*range(1000)))
    with pytest.raises(QueryTimeoutError):
        over_time(
            "double_exponential_smoothing",
            samples,
            np.array([10_000_000]),
            10_000_000,
            [np.array([0.5]), np.array([0.5])],
            budget,
            Notes(),
        )
