"""A straight line per series, and the way back to it.

The line is least squares over the history. A forecast from a value off the line starts at that value and returns to
the line as fast as the series' own past deviations did: for each knot of leads, the later deviation is regressed on the
newest one and on the mean deviation of the lookback. So the forecast is exactly the line where the series is one, and
cannot run away where it is not.
"""

from typing import Any, Self

import numpy as np

from sentinel_core.models import rows
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.windows import FloatArray, IntArray, Window

RIDGE_SAMPLES = 4.0  # the previous knot's coefficients count as much as this many samples
SURE_SLOPE = 4.0  # a slope whose squared t value is below this is noise and counts as level


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
        new = len(window.timestamps)
        self.parameters = rows.in_blocks(window, lambda part, _: self._learn(part, new, None))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """Continue with the last `new_steps` columns; older sums fade, so that the line follows the series."""
        self.check_rows(window)
        self.parameters = rows.in_blocks(window, lambda part, old: self._learn(part, new_steps, old), self.parameters)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """The line, plus the share of the newest deviations that is left at each lead [n, steps]."""
        self.check_rows(window)
        p = self.parameters
        values = window.newest(self.context_steps).values
        newest, age = rows.newest_values(values)
        ahead = np.arange(1, steps + 1)[None] + age[:, None]
        now = (window.last - p["time"]) / self.step_seconds  # steps since the line's reference time
        columns = np.arange(1 - values.shape[1], 1) + now[:, None]
        deviation = values - _line(p, columns)
        known = np.isfinite(deviation)
        mean = np.where(known, deviation, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        last = newest - _line(p, (now - age)[:, None])[:, 0]
        shares = rows.between_knots(p["shares"], rows.knots(self.horizon_steps), ahead)
        left = shares[..., 0] * last[:, None] + shares[..., 1] * mean[:, None]
        return _line(p, now[:, None] + np.arange(1, steps + 1)) + left

    def adopt(self, window: Window) -> Self:
        """The pooled way back, to a level line through the window's median."""
        centre, scale = rows.centre_and_scale(window.values)
        n = len(centre)
        parameters = {
            key: np.repeat(np.median(value, axis=0, keepdims=True), n, axis=0).astype(value.dtype)
            for key, value in self.parameters.items()
        }
        parameters["centre"], parameters["scale"] = centre, scale
        parameters["time"] = np.full(n, window.last, np.int64)
        parameters["level"] = rows.nanmedian(window.values)
        parameters["slope"] = np.zeros(n)
        parameters["sums"] = np.zeros_like(parameters["sums"])
        return self.with_rows(window.fingerprints, parameters)

    def _learn(self, window: Window, new_steps: int, old: rows.Parameters | None) -> rows.Parameters:
        """Parameters of a block of series.

        sums [n, 8]: weight, t, t^2, v, tv, v^2 of the line; r_t^2 and r_t r_(t-1) of its deviations
        gram [n, knots, 2, 2], cross [n, knots, 2]: normal equations of the deviations; both in units of `scale`
        """
        values = window.values
        if old is None:
            centre, scale = rows.centre_and_scale(values)
        else:
            centre, scale = old["centre"], old["scale"]
        at = rows.knots(self.horizon_steps)
        z = (values - centre[:, None]) / scale[:, None]
        samples = z.shape[1]
        first_new = max(0, samples - new_steps)
        t = np.arange(1.0 - samples, 1.0)
        sums = _line_sums(z[:, first_new:], t[first_new:])
        kept = np.ones(len(z))
        if old is not None:
            kept = rows.kept_share(old["sums"][:, 0], sums[:, 0], self.lookback_steps)
            steps = (window.last - old["time"]) / self.step_seconds
            sums += kept[:, None] * _moved(old["sums"], steps)
        level, slope, middle, spread = _least_squares(sums)
        deviation = z - (level[:, None] + slope[:, None] * t)
        sums[:, 6] += _dot(deviation[:, first_new:], deviation[:, first_new:])
        before = max(first_new, 1)
        sums[:, 7] += _dot(deviation[:, before:], deviation[:, before - 1 : -1])
        slope = slope * _certainty(sums, slope, spread)
        level = middle[0] - slope * middle[1]
        deviation = z - (level[:, None] + slope[:, None] * t)
        gram, cross = _normal_equations(deviation, self.lookback_steps, at, first_new)
        if old is not None:
            gram += kept[:, None, None, None] * old["gram"]
            cross += kept[:, None, None] * old["cross"]
        return {
            "centre": centre,
            "scale": scale,
            "time": np.full(len(z), window.last, np.int64),
            "level": centre + scale * level,
            "slope": scale * slope,
            "sums": sums,
            "gram": gram,
            "cross": cross,
            "shares": _shares(gram, cross),
        }


def _line(parameters: rows.Parameters, steps: FloatArray) -> FloatArray:
    """The line's value `steps` [n or 1, m] steps after its reference time."""
    line: FloatArray = parameters["level"][:, None] + parameters["slope"][:, None] * steps
    return line


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Row sums of products of two arrays; NaN counts as absent."""
    product = a * b
    return np.where(np.isfinite(product), product, 0.0).sum(axis=1)


def _line_sums(z: FloatArray, t: FloatArray) -> FloatArray:
    known = np.isfinite(z)
    v = np.where(known, z, 0.0)
    w = known.astype(np.float64)
    empty = np.zeros(len(z))
    return np.stack([w.sum(axis=1), w @ t, w @ (t * t), v.sum(axis=1), v @ t, (v * v).sum(axis=1), empty, empty], axis=1)


def _moved(sums: FloatArray, steps: FloatArray) -> FloatArray:
    """The same sums with time counted from `steps` [n] later."""
    w, t, tt, v, tv = sums[:, :5].T
    moved = sums.copy()
    moved[:, 1] = t - steps * w
    moved[:, 2] = tt - 2 * steps * t + steps**2 * w
    moved[:, 4] = tv - steps * v
    return moved


def _least_squares(sums: FloatArray) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray], FloatArray]:
    """Level at time 0, slope, the line's middle (value, time) and the spread of times; no slope from two samples."""
    w, t, tt, v, tv = sums[:, :5].T
    count = np.maximum(w, 1.0)
    mean_t, mean_v = t / count, v / count
    spread = tt - t * mean_t
    steep = (w > 2) & (spread > 0)
    slope = np.where(steep, (tv - t * mean_v) / np.where(steep, spread, 1.0), 0.0)
    return mean_v - slope * mean_t, slope, (mean_v, mean_t), np.where(steep, spread, 0.0)


def _certainty(sums: FloatArray, slope: FloatArray, spread: FloatArray) -> FloatArray:
    """The share of a slope that its noise lets us believe, in [0, 1]; exactly 1 where there is no noise.

    Neighbouring deviations are alike, so their number counts less: the variance is inflated by (1 + r) / (1 - r).
    """
    noise, alike = sums[:, 6], sums[:, 7]
    r = np.clip(alike / np.where(noise > 0, noise, 1.0), 0.0, 0.999)
    variance = noise / np.maximum(sums[:, 0] - 2, 1.0) * (1 + r) / (1 - r)
    signal = slope**2 * spread
    return np.where(signal > 0, np.maximum(0.0, 1 - SURE_SLOPE * variance / np.where(signal > 0, signal, 1.0)), 0.0)


def _normal_equations(
    deviation: FloatArray, lookback: int, at: IntArray, first_new: int
) -> tuple[FloatArray, FloatArray]:
    """Sums that regress the deviation `lead` steps on (newest, mean of the lookback) deviation, per knot.

    Only targets from column `first_new` on count: those before were counted by an earlier call.
    """
    n, samples = deviation.shape
    known = np.isfinite(deviation)
    r = np.where(known, deviation, 0.0)
    total = np.cumsum(r, axis=1)
    count = np.cumsum(known, axis=1)
    if samples > lookback:
        total[:, lookback:] -= total[:, :-lookback].copy()
        count[:, lookback:] -= count[:, :-lookback].copy()
    mean = np.where(known, total / np.maximum(count, 1), 0.0)
    gram, cross = np.zeros((n, len(at), 2, 2)), np.zeros((n, len(at), 2))
    for k, lead in enumerate(at):
        origin = slice(max(0, first_new - lead), max(0, samples - lead))
        target = slice(max(first_new, lead), samples)
        hit = known[:, target]
        x, m, y = r[:, origin] * hit, mean[:, origin] * hit, r[:, target]
        gram[:, k, 0, 0] = np.einsum("nt,nt->n", x, x)
        gram[:, k, 0, 1] = gram[:, k, 1, 0] = np.einsum("nt,nt->n", x, m)
        gram[:, k, 1, 1] = np.einsum("nt,nt->n", m, m)
        cross[:, k, 0] = np.einsum("nt,nt->n", x, y)
        cross[:, k, 1] = np.einsum("nt,nt->n", m, y)
    return gram, cross


def _shares(gram: FloatArray, cross: FloatArray) -> FloatArray:
    """Coefficients [n, knots, 2] by ridge towards the previous knot's; the first towards "it stays where it is"."""
    n, knots = cross.shape[:2]
    shares = np.empty((n, knots, 2))
    before = np.tile([1.0, 0.0], (n, 1))
    energy = gram[:, :1].trace(axis1=2, axis2=3)[:, 0] / 2
    for k in range(knots):
        pull = np.where(energy > 0, RIDGE_SAMPLES / 100 * energy, 1.0)
        a, b, d = gram[:, k, 0, 0] + pull, gram[:, k, 0, 1], gram[:, k, 1, 1] + pull
        e, f = cross[:, k, 0] + pull * before[:, 0], cross[:, k, 1] + pull * before[:, 1]
        determinant = a * d - b * b
        before = np.stack([d * e - b * f, a * f - b * e], axis=1) / determinant[:, None]
        shares[:, k] = before
    return shares
