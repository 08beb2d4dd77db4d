"""Range functions one sample after the other, in plain Python: slow, and obviously what Prometheus documents."""

import math
from collections.abc import Callable
from itertools import pairwise

Point = tuple[int, float]  # ms, value


def kahan(values: list[float]) -> float:
    """A Kahan-Neumaier sum."""
    total = rest = 0.0
    for value in values:
        grown = total + value
        if math.isinf(grown):
            rest = 0.0
        elif abs(total) >= abs(value):
            rest += (total - grown) + value
        else:
            rest += (value - grown) + total
        total = grown
    return total + rest


def mean(values: list[float]) -> float:
    """The mean, by running means from where the sum overflows."""
    total = 0.0
    for count, value in enumerate(values, 1):
        if count > 1 and math.isinf(total + value):
            running = total / (count - 1)
            for position, later in enumerate(values[count - 1 :], count):
                running = running * ((position - 1) / position) + later / position
            return running
        total += value
    return kahan(values) / len(values)


def variance(values: list[float]) -> float:
    """Welford's."""
    average = squares = 0.0
    for count, value in enumerate(values, 1):
        delta = value - average
        average += delta / count
        squares += delta * (value - average)
    return squares / len(values)


def quantile(q: float, values: list[float]) -> float:
    """Linear between the two values beside the rank; NaN is the smallest value."""
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    rank = q * (len(values) - 1)
    lower = math.floor(rank)
    upper = min(len(values) - 1, lower + 1)
    return ordered[lower] * (1 - (rank - lower)) + ordered[upper] * (rank - lower)


def mad(values: list[float]) -> float:
    """The median distance from the median."""
    middle = quantile(0.5, values)
    return quantile(0.5, [abs(value - middle) for value in values])


def extreme(points: list[Point], sign: int) -> Point:
    """The last of the largest (sign 1) or smallest (-1); NaN only where there is nothing else."""
    best = points[0]
    for point in points:
        if point[1] * sign >= best[1] * sign or math.isnan(best[1]):
            best = point
    return best


def regression(points: list[Point], zero: int) -> tuple[float, float]:
    """Least squares: slope per second and the value at `zero`."""
    values = [value for _, value in points]
    if all(value == values[0] for value in values):
        return (math.nan, math.nan) if math.isinf(values[0]) else (0.0, values[0])
    x = [(at - zero) / 1000 for at, _ in points]
    sum_x, sum_y, count = kahan(x), kahan(values), len(points)
    covariance = kahan([a * b for a, b in zip(x, values, strict=True)]) - sum_x * sum_y / count
    slope = covariance / (kahan([a * a for a in x]) - sum_x * sum_x / count)
    return slope, sum_y / count - slope * sum_x / count


def predicted(points: list[Point], end: int, seconds: float) -> float:
    """The value of the regression so long after the end."""
    slope, level = regression(points, end)
    return slope * seconds + level


def grown(points: list[Point], start: int, end: int, counter: bool) -> float:
    """What a range grows by from its start to its end, stretched beyond the first and the last sample."""
    values = [value for _, value in points]
    growth = values[-1] - values[0]
    if counter:
        growth += sum(before for before, after in pairwise(values) if after < before)
    seen = (points[-1][0] - points[0][0]) / 1000
    distance = seen / (len(points) - 1)
    before, after = (points[0][0] - start) / 1000, (end - points[-1][0]) / 1000
    if before >= 1.1 * distance:
        before = distance / 2
    if after >= 1.1 * distance:
        after = distance / 2
    if counter and growth > 0 and values[0] >= 0:
        before = min(before, seen * (values[0] / growth))
    return growth * ((seen + before + after) / seen)


def instant(points: list[Point], counter: bool) -> float:
    """Growth between the last two samples."""
    (earlier, previous), (later, last) = points[-2:]
    if not counter:
        return last - previous
    return (last if last < previous else last - previous) / ((later - earlier) / 1000)


def smoothed(values: list[float], smoothing: float, trending: float) -> float:
    """Double exponential smoothing."""
    last, smooth, trend = 0.0, values[0], values[1] - values[0]
    for position, value in enumerate(values[1:], 1):
        if position > 1:
            trend = trending * (smooth - last) + (1 - trending) * trend
        last, smooth = smooth, smoothing * value + (1 - smoothing) * (smooth + trend)
    return smooth


def slow(function: str, points: list[Point], start: int, end: int, params: list[float]) -> float | None:
    """The value of a range from start to end (ms), or None where it has too few samples."""
    values = [value for _, value in points]
    two: dict[str, Callable[[], float]] = {
        "rate": lambda: grown(points, start, end, True) / ((end - start) / 1000),
        "increase": lambda: grown(points, start, end, True),
        "delta": lambda: grown(points, start, end, False),
        "irate": lambda: instant(points, True),
        "idelta": lambda: instant(points, False),
        "deriv": lambda: regression(points, points[0][0])[0],
        "predict_linear": lambda: predicted(points, end, params[0]),
        "double_exponential_smoothing": lambda: smoothed(values, *params),
    }
    one: dict[str, Callable[[], float]] = {
        "changes": lambda: sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairwise(values)),
        "resets": lambda: sum(after < before for before, after in pairwise(values)),
        "sum_over_time": lambda: kahan(values),
        "avg_over_time": lambda: mean(values),
        "stddev_over_time": lambda: math.sqrt(variance(values)),
        "stdvar_over_time": lambda: variance(values),
        "min_over_time": lambda: extreme(points, -1)[1],
        "max_over_time": lambda: extreme(points, 1)[1],
        "quantile_over_time": lambda: quantile(params[0], values),
        "mad_over_time": lambda: mad(values),
        "count_over_time": lambda: len(values),
        "present_over_time": lambda: 1,
        "first_over_time": lambda: values[0],
        "last_over_time": lambda: values[-1],
        "ts_of_first_over_time": lambda: points[0][0] / 1000,
        "ts_of_last_over_time": lambda: points[-1][0] / 1000,
        "ts_of_min_over_time": lambda: extreme(points, -1)[0] / 1000,
        "ts_of_max_over_time": lambda: extreme(points, 1)[0] / 1000,
    }
    if function in two:
        return two[function]() if len(points) > 1 else None
    return one[function]() if points else None
