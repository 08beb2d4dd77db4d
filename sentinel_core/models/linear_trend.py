"""A straight line per series, and the way back to it.

The line is least squares over the history. A forecast from a value off the line starts at that value and returns to
the line as fast as the series' own past deviations did: for each knot of leads, the move is regressed on the distance
to the line and to the mean deviation of the lookback. So the forecast is exactly the line where the series is one, and
cannot run away where it is not.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from sentinel_core.models import regression, rows
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.windows import FloatArray, Window

LARGEST_ALIKE = 0.98  # beyond, neighbouring deviations are taken for a wandering level: fifty count as one
MEMORY_SHARES = (1, 4)  # of the lookback: deviations are averaged over so much of it
STAY = (0.0,) * (len(MEMORY_SHARES) + 1)  # before anything is learnt, a deviation stays where it is


class LinearTrendModel(FiveMethods):
    """Least-squares line with fading deviations, one per series and on its own scale.

    >>> model = LinearTrendModel("1m", "3m", "5m")
    >>> window = Window(np.array([7]), np.arange(20) * 60, np.arange(20.0)[None], 60)
    >>> model.fit_window(window)
    >>> model.predict_window(window.newest(5), 3).round(6).tolist()
    [[20.0, 21.0, 22.0]]
    """

    def fit_window(self, window: Window) -> None:
        """Learn every series from scratch."""
        samples = len(window.timestamps)
        self.parameters = rows.in_blocks(window, lambda part, _: self._learn(part, samples, None))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """Continue with the last `new_steps` columns; older sums fade, so that the line follows the series."""
        self.check_rows(window)
        memory = int(rows.MEMORY * max(new_steps, self.lookback_steps))
        window = window.newest(memory + self.horizon_steps + self.context_steps)
        self.parameters = rows.in_blocks(window, lambda part, old: self._learn(part, new_steps, old), self.parameters)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """The line, and what is left of the newest deviations from it at each lead, [n, steps]."""
        self.check_rows(window)
        context, p = window.newest(self.context_steps), self.parameters
        now = (window.last - p["time"]) / self.step_seconds  # in steps since the line's reference time
        columns = np.arange(1.0 - len(context.timestamps), 1.0)
        deviation = context.values - _line(p, now[:, None] + columns)
        newest, age = rows.newest_values(deviation)
        means = [rows.trailing_mean(deviation, steps)[:, -1] - newest for steps in self._memories()]
        leads = np.arange(1, steps + 1)
        shares = rows.between_knots(p["shares"], rows.knots(self.horizon_steps), leads + age[:, None])
        left = newest[:, None] + np.einsum("nkm,nm->nk", shares, np.stack([*means, -newest], axis=1))
        forecast: FloatArray = _line(p, now[:, None] + leads) + left
        return forecast

    def adopt(self, window: Window) -> Self:
        """The pooled way back, to a level line through the window's median."""
        n = len(window.fingerprints)
        _, scale = rows.centre_and_scale(window.values)
        parameters = {key: np.zeros((n, *value.shape[1:]), value.dtype) for key, value in self.parameters.items()}
        parameters |= {
            "centre": rows.nanmedian(window.values),
            "scale": scale,
            "time": np.full(n, window.last),
            "level": rows.nanmedian(window.values),
            "shares": rows.pooled(self.parameters["shares"], n),
        }
        return self.with_rows(window.fingerprints, parameters)

    def _memories(self) -> list[int]:
        """Over how many of the newest steps deviations are averaged, long to short."""
        return [max(1, self.lookback_steps // share) for share in MEMORY_SHARES]

    def _learn(self, window: Window, new_steps: int, old: rows.Parameters | None) -> rows.Parameters:
        """Parameters of a block of series.

        level, slope [n]: the line at `time` [n], unix seconds, and per step, in the metric's own unit
        line [n, 6]: sums of weight, t, t^2, v, tv, v^2; alike [n]: correlation of neighbouring deviations
        sums [n, knots, 3, 3]: normal equations of the way back; both in units of `scale` [n] around `centre` [n]
        """
        values = window.values
        centre, scale = rows.centre_and_scale(values) if old is None else (old["centre"], old["scale"])
        z = (values - centre[:, None]) / scale[:, None]
        samples = z.shape[1]
        first_new = max(0, samples - new_steps)
        t = np.arange(1.0 - samples, 1.0)
        line = _line_sums(z[:, first_new:], t[first_new:])
        faded = None
        if old is not None:
            kept = rows.kept_share(old["line"][:, 0], line[:, 0], self.lookback_steps)
            line += kept[:, None] * _moved(old["line"], (window.last - old["time"]) / self.step_seconds)
            faded = kept[:, None, None, None] * old["sums"]
        slope, middle_t, middle_v, spread = _least_squares(line)
        deviation = z - (middle_v[:, None] + slope[:, None] * (t - middle_t[:, None]))
        alike = _dot(deviation[:, 1:], deviation[:, :-1]) / np.maximum(_dot(deviation, deviation), np.finfo(float).tiny)
        if old is not None:  # a few samples say nothing about it
            alike = np.where(np.isfinite(deviation).sum(axis=1) > self.lookback_steps, alike, old["alike"])
        slope = slope * _certainty(line, slope, spread, alike)
        level = middle_v - slope * middle_t
        deviation = z - (level[:, None] + slope[:, None] * t)
        means = [rows.trailing_mean(deviation, steps) for steps in self._memories()]

        def back(_: int, origins: slice) -> Sequence[FloatArray]:
            now = deviation[:, origins]
            return [*(mean[:, origins] - now for mean in means), -now]

        at = rows.knots(self.horizon_steps)
        shares, sums = regression.shares(deviation, back, STAY, at, new_steps, faded)
        return {
            "centre": centre,
            "scale": scale,
            "time": np.full(len(z), window.last),
            "level": centre + scale * level,
            "slope": scale * slope,
            "line": line,
            "alike": alike,
            "sums": sums,
            "shares": shares,
        }


def _line(parameters: rows.Parameters, steps: FloatArray) -> FloatArray:
    """The line's value `steps` [n, m] steps after its reference time."""
    line: FloatArray = parameters["level"][:, None] + parameters["slope"][:, None] * steps
    return line


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Row sums of products of two arrays [n, T]; NaN counts as absent."""
    product = a * b
    total: FloatArray = np.where(np.isfinite(product), product, 0.0).sum(axis=1)
    return total


def _line_sums(z: FloatArray, t: FloatArray) -> FloatArray:
    known = np.isfinite(z)
    v, w = np.where(known, z, 0.0), known.astype(np.float64)
    return np.stack([w.sum(axis=1), w @ t, w @ (t * t), v.sum(axis=1), v @ t, (v * v).sum(axis=1)], axis=1)


def _moved(sums: FloatArray, steps: FloatArray) -> FloatArray:
    """The same sums with time counted from `steps` [n] later."""
    w, t, tt, v, tv, _ = sums.T
    moved = sums.copy()
    moved[:, 1] = t - steps * w
    moved[:, 2] = tt - 2 * steps * t + steps**2 * w
    moved[:, 4] = tv - steps * v
    return moved


def _least_squares(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Slope, the line's middle (time and value), and the spread of times; two samples are no slope."""
    w, t, tt, v, tv, _ = sums.T
    count = np.maximum(w, 1.0)
    middle_t, middle_v = t / count, v / count
    spread = np.where(w > 2, tt - t * middle_t, 0.0)
    slope = np.where(spread > 0, (tv - t * middle_v) / np.where(spread > 0, spread, 1.0), 0.0)
    return slope, middle_t, middle_v, spread


def _certainty(sums: FloatArray, slope: FloatArray, spread: FloatArray, alike: FloatArray) -> FloatArray:
    """The share of a slope that its noise lets us believe, in [0, 1]; 1 where there is no noise.

    Neighbouring deviations are alike, so they count for fewer: the variance is inflated by (1 + r) / (1 - r).
    """
    w, _, _, v, _, vv = sums.T
    signal = slope**2 * spread
    noise = np.maximum(vv - v * v / np.maximum(w, 1.0) - signal, 0.0)
    r = np.clip(alike, 0.0, LARGEST_ALIKE)
    variance = noise / np.maximum(w - 2, 1.0) * (1 + r) / (1 - r)
    variance = variance * (1 + rows.FEW_SAMPLES / np.maximum(w - 2, 1.0))
    return np.where(signal > 0, np.maximum(0.0, 1 - rows.SURE * variance / np.where(signal > 0, signal, 1.0)), 0.0)
