"""Functions of ranges: rate, sum_over_time and the rest, for every series at every step.

The rules are Prometheus' own: how rate extrapolates, Kahan-Neumaier sums, means of what overflows, where NaN counts.
What needs the ends of a range only comes from them and from running counts; what needs each sample is computed on dense
matrices of some ranges at a time, so that memory is bounded whatever the ranges' length.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sentinel_core.promql import sums
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.histograms import check_quantile
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.look_back import bounds, within
from sentinel_core.promql.ranges import Compute, Ranges, Recording
from sentinel_core.promql.values import BoolArray, Labels, Notes, Samples, Vector
from sentinel_core.windows import FloatArray, IntArray

BLOCK = 1 << 18  # series x steps whose ranges are looked at together
COUNTERS = ("_total", "_sum", "_count", "_bucket")


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

    times:  int64 [T] ms, where the ranges end: offset and @ are in them; evenly spaced, or all the same
    span:   of the ranges, ms
    params: float64 [T] each, the other arguments in their order, e.g. the quantile of quantile_over_time
    at:     int64 [T] ms, the evaluation's own times where they are not `times`: predict_linear counts from there
    Raises ExecutionError where Prometheus does.
    """
    how, steps = OVER_TIME[function], len(times)
    samples = within(samples, int(times[0]) - span, int(times[-1]))
    series = len(samples.labels)
    budget.spend(series * steps)
    values, present = np.zeros((series, steps)), np.zeros((series, steps), bool)
    rows = max(1, BLOCK // steps)
    for begin in range(0, series, rows):
        budget.check()
        block = _rows(samples, slice(begin, begin + rows))
        first, after = bounds(block, times, span)
        if how.check:
            called = (after > first).any(axis=0)
            how.check([param[called] for param in params], notes)
        there: BoolArray = after - first >= how.least
        step = np.nonzero(there)[1]
        ranges = Ranges(
            Recording(block.times, block.values),
            first[there],
            after[there] - first[there],
            times[step],
            (times if at is None else at)[step],
            tuple(param[step] for param in params),
            span,
            budget,
        )
        with np.errstate(all="ignore"):  # infinities and NaN go through as in Go
            values[begin : begin + rows][there] = how.compute(ranges)
        present[begin : begin + rows] = there
    if how.counter:
        _inform_of_gauges(samples.labels, present, notes)
    return Vector(samples.labels, values, present, np.full(series, not how.named))


def _rows(samples: Samples, rows: slice) -> Samples:
    offsets = samples.offsets[rows.start : rows.stop + 1]
    span = slice(int(offsets[0]), int(offsets[-1]))
    return Samples(
        samples.labels[rows], offsets - span.start, samples.times[span], samples.values[span], samples.lookback[rows]
    )


def _inform_of_gauges(labels: Sequence[Labels], present: BoolArray, notes: Notes) -> None:
    """Say which names do not sound like counters, of series with a value."""
    for row in np.flatnonzero(present.any(axis=1)).tolist():
        name = dict(labels[row]).get("__name__", "")
        if name and not name.endswith(COUNTERS):
            notes.inform(f'metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "{name}"')


# --- Sums -------------------------------------------------------------------------------------------------------------


def _sum_over_time(ranges: Ranges) -> FloatArray:
    return ranges.densely(lambda some: sums.total(some.dense(0.0)))


def _avg_over_time(ranges: Ranges) -> FloatArray:
    def plain(some: Ranges) -> FloatArray:
        total, rest = sums.pairs(some.dense(0.0))
        return total / some.counts + rest / some.counts

    means = ranges.densely(plain)
    overflown = ~np.isfinite(means)
    if overflown.any():
        nans = np.concatenate([[0], np.cumsum(np.isnan(ranges.recording.values))])
        overflown &= nans[ranges.last + 1] == nans[ranges.first]  # a mean of NaN among others is NaN
        means[overflown] = _incremental_mean(ranges.pick(overflown))
    return means


def _incremental_mean(ranges: Ranges) -> FloatArray:
    """Mean of values whose sum overflows, at that point and from there on as Prometheus does it."""
    total, rest = np.zeros(len(ranges.first)), np.zeros(len(ranges.first))
    incremental = np.zeros(len(ranges.first), bool)  # from here on `total` is the mean of what came so far
    for position, values, there in ranges.one_by_one():
        grown, lost = sums.add(total, rest, values)
        if position:
            overflows = there & ~incremental & np.isinf(grown)
            total[overflows] /= position
            rest[overflows] /= position
            incremental |= overflows
        share = position / (position + 1)
        mean, mean_lost = sums.add(share * total, share * rest, values / (position + 1))
        total = np.where(there, np.where(incremental, mean, grown), total)
        rest = np.where(there, np.where(incremental, mean_lost, lost), rest)
        rest[np.isinf(total)] = 0.0
    return np.where(incremental, total + rest, total / ranges.counts + rest / ranges.counts)


def _stdvar_over_time(ranges: Ranges) -> FloatArray:
    def variance(some: Ranges) -> FloatArray:
        # From the first value on: so equal ones vary by 0.0, and not by what rounding leaves.
        values = some.dense(0.0) - np.where(some.mask, some.recording.values[some.first], 0.0)
        apart = np.where(some.mask, values - sums.total(values) / some.counts, 0.0)
        return sums.total(apart * apart) / some.counts

    variances = ranges.densely(variance)
    if (overflown := ~np.isfinite(variances)).any():
        variances[overflown] = _incremental_variance(ranges.pick(overflown))
    return variances


def _incremental_variance(ranges: Ranges) -> FloatArray:
    """Welford's, as Prometheus does it: what comes of infinities and of squares that overflow is its own."""
    mean, mean_rest, squares, squares_rest = np.zeros((4, len(ranges.first)))

    def add(total: FloatArray, rest: FloatArray, value: FloatArray) -> tuple[FloatArray, FloatArray]:
        grown, lost = sums.add(total, rest, value)
        return grown, np.where(np.isinf(grown), 0.0, lost)

    for position, values, there in ranges.one_by_one():
        apart = np.where(there, values - (mean + mean_rest), 0.0)
        mean, mean_rest = add(mean, mean_rest, apart / (position + 1))
        squares, squares_rest = add(squares, squares_rest, np.where(there, apart * (values - (mean + mean_rest)), 0.0))
    return (squares + squares_rest) / ranges.counts


def _stddev_over_time(ranges: Ranges) -> FloatArray:
    return np.sqrt(_stdvar_over_time(ranges))


# --- Order ------------------------------------------------------------------------------------------------------------


def _extreme_over_time(extreme: np.ufunc, when: bool, ranges: Ranges) -> FloatArray:
    """np.fmax or np.fmin of the values, NaN only where there is nothing else; `when`: the time of the last such one."""

    def compute(some: Ranges) -> FloatArray:
        values = some.dense(np.nan)
        found: FloatArray = extreme.reduce(values, axis=0)
        if not when:
            return found
        where = len(values) - 1 - np.argmax((values == found)[::-1], axis=0)
        return some.recording.times[np.where(np.isnan(found), some.last, some.first + where)] / 1000

    return ranges.densely(compute)


def _quantiles(values: FloatArray, mask: BoolArray, quantile: FloatArray) -> FloatArray:
    """Quantiles over the first axis of [K, W]; NaN is below everything, and between two values they are weighed."""
    nans, counts = (np.isnan(values) & mask).sum(axis=0), mask.sum(axis=0)
    filled = np.where(mask, np.where(np.isnan(values), -np.inf, values), np.inf)
    ordered = np.sort(np.ascontiguousarray(filled.T), axis=1)
    rank = np.clip(np.nan_to_num(quantile), 0, 1) * (counts - 1)
    lower = np.floor(rank)
    weight = rank - lower

    def value(place: FloatArray) -> FloatArray:
        found = ordered[np.arange(len(ordered)), place.astype(np.int64)]
        return np.where(place < nans, np.nan, found)

    between = value(lower) * (1 - weight) + value(np.minimum(counts - 1, lower + 1)) * weight
    between[quantile < 0], between[quantile > 1] = -np.inf, np.inf
    return np.where(np.isnan(quantile), np.nan, between)


def _quantile_over_time(ranges: Ranges) -> FloatArray:
    return ranges.densely(lambda some: _quantiles(some.dense(np.nan), some.mask, some.params[0]))


def _mad_over_time(ranges: Ranges) -> FloatArray:
    def deviation(some: Ranges) -> FloatArray:
        values, half = some.dense(np.nan), np.full(len(some.first), 0.5)
        return _quantiles(np.abs(values - _quantiles(values, some.mask, half)), some.mask, half)

    return ranges.densely(deviation)


# --- Slopes -----------------------------------------------------------------------------------------------------------


def _regression(some: Ranges, zero: IntArray) -> tuple[FloatArray, FloatArray]:
    """Least squares over seconds since `zero` (ms [W]): slope [W] and value at zero [W]."""
    x = np.where(some.mask, (some.recording.times[some.index] - zero) / 1000, 0.0)
    y, count = some.dense(0.0), some.counts
    sum_x, sum_y = sums.total(x), sums.total(y)
    covariance = sums.total(x * y) - sum_x * sum_y / count
    slope = covariance / (sums.total(x * x) - sum_x * sum_x / count)
    start = some.recording.values[some.first]
    constant = some.within(some.recording.unequal) == 0
    level = np.where(np.isinf(start), np.nan, start)
    return (
        np.where(constant, np.where(np.isnan(level), np.nan, 0.0), slope),
        np.where(constant, level, sum_y / count - slope * sum_x / count),
    )


def _deriv(ranges: Ranges) -> FloatArray:
    return ranges.densely(lambda some: _regression(some, some.begins)[0])


def _predict_linear(ranges: Ranges) -> FloatArray:
    def predict(some: Ranges) -> FloatArray:
        slope, level = _regression(some, some.at)
        return slope * some.params[0] + level

    return ranges.densely(predict)


def _extrapolated(counter: bool, per_second: bool, ranges: Ranges) -> FloatArray:
    """Growth over whole ranges: rate, increase and delta.

    What was seen between the first and the last sample is stretched to the range's ends; where an end is more than 1.1
    times the samples' mean distance away, by half that distance only, and a counter never to before it was zero.
    """
    start, end = ranges.recording.values[ranges.first], ranges.recording.values[ranges.last]
    seen = (ranges.stops - ranges.begins) / 1000
    distance = seen / (ranges.counts - 1)
    before = (ranges.begins - (ranges.ends - ranges.span)) / 1000
    after = (ranges.ends - ranges.stops) / 1000
    before = np.where(before >= distance * 1.1, distance / 2, before)
    after = np.where(after >= distance * 1.1, distance / 2, after)
    growth = end - start
    if counter:
        reset = ranges.within(ranges.recording.drops) > 0
        if reset.any():
            growth[reset] = ranges.pick(reset).densely(_growth_over_resets)
        to_zero = np.where((growth > 0) & (start >= 0), seen * (start / growth), before)
        before = np.minimum(before, to_zero)
    factor = (seen + before + after) / seen
    return growth * (factor / (ranges.span / 1000) if per_second else factor)


def _growth_over_resets(some: Ranges) -> FloatArray:
    """What the ends differ by, and what each reset took: added one after the other, as Prometheus rounds them."""
    values = some.dense(np.nan)
    lost = np.where(values[1:] < values[:-1], values[:-1], 0.0)
    apart = some.recording.values[some.last] - values[0]
    growth: FloatArray = np.add.accumulate(np.concatenate([apart[None], lost]), axis=0)[-1]
    return growth


def _instant(counter: bool, ranges: Ranges) -> FloatArray:
    """Growth between the last two samples: idelta; of a counter, from zero after a reset, and per second: irate."""
    end, previous = ranges.recording.values[ranges.last], ranges.recording.values[ranges.last - 1]
    if not counter:
        return end - previous
    growth = np.where(end < previous, end, end - previous)
    return growth / ((ranges.stops - ranges.recording.times[ranges.last - 1]) / 1000)


def _double_exponential_smoothing(ranges: Ranges) -> FloatArray:
    smoothing, trending = ranges.params
    smooth = last = trend = np.zeros(len(ranges.first))
    for position, values, there in ranges.one_by_one():
        if not position:
            last, smooth = smooth, values
            continue
        if position == 1:
            trend = values - smooth
        else:
            trend = np.where(there, trending * (smooth - last) + (1 - trending) * trend, trend)
        grown = smoothing * values + (1 - smoothing) * (smooth + trend)
        last, smooth = np.where(there, smooth, last), np.where(there, grown, smooth)
    return smooth


def _check_factors(params: Sequence[FloatArray], _notes: Notes) -> None:
    for name, short, factor in zip(("smoothing", "trend"), ("sf", "tf"), params, strict=True):
        wrong = factor[(factor <= 0) | (factor >= 1)]
        if len(wrong):
            raise ExecutionError(f"invalid {name} factor. Expected: 0 < {short} < 1, got: {wrong[0]:f}")


# --- The functions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverTime:
    """A function: from ranges of at least so many samples to a value each.

    named:   the series keeps its name
    counter: said where a name does not sound like a counter's
    check:   of the other arguments at the steps where any range has samples: warns or raises
    """

    compute: Compute
    least: int = 1
    named: bool = False
    counter: bool = False
    check: Callable[[Sequence[FloatArray], Notes], None] | None = None


OVER_TIME: Mapping[str, OverTime] = {
    "rate": OverTime(partial(_extrapolated, True, True), least=2, counter=True),
    "increase": OverTime(partial(_extrapolated, True, False), least=2, counter=True),
    "delta": OverTime(partial(_extrapolated, False, False), least=2),
    "irate": OverTime(partial(_instant, True), least=2),
    "idelta": OverTime(partial(_instant, False), least=2),
    "deriv": OverTime(_deriv, least=2),
    "predict_linear": OverTime(_predict_linear, least=2),
    "double_exponential_smoothing": OverTime(_double_exponential_smoothing, least=2, check=_check_factors),
    "changes": OverTime(lambda ranges: ranges.within(ranges.recording.changes)),
    "resets": OverTime(lambda ranges: ranges.within(ranges.recording.drops)),
    "sum_over_time": OverTime(_sum_over_time),
    "avg_over_time": OverTime(_avg_over_time),
    "stddev_over_time": OverTime(_stddev_over_time),
    "stdvar_over_time": OverTime(_stdvar_over_time),
    "min_over_time": OverTime(partial(_extreme_over_time, np.fmin, False)),
    "max_over_time": OverTime(partial(_extreme_over_time, np.fmax, False)),
    "quantile_over_time": OverTime(_quantile_over_time, check=lambda params, notes: check_quantile(params[0], notes)),
    "mad_over_time": OverTime(_mad_over_time),
    "count_over_time": OverTime(lambda ranges: ranges.counts.astype(np.float64)),
    "present_over_time": OverTime(lambda ranges: np.ones(len(ranges.first))),
    "first_over_time": OverTime(lambda ranges: ranges.recording.values[ranges.first], named=True),
    "last_over_time": OverTime(lambda ranges: ranges.recording.values[ranges.last], named=True),
    "ts_of_first_over_time": OverTime(lambda ranges: ranges.begins / 1000),
    "ts_of_last_over_time": OverTime(lambda ranges: ranges.stops / 1000),
    "ts_of_min_over_time": OverTime(partial(_extreme_over_time, np.fmin, True)),
    "ts_of_max_over_time": OverTime(partial(_extreme_over_time, np.fmax, True)),
}
