"""Holt's damped exponential smoothing: many parameter sets at once, weighed per series and lead by their own errors.

A level and a trend per series and parameter set follow the samples (Gardner and McKenzie, 1985). The smoothing of the
level is the Kalman gain of a level that wanders: it starts at 1, settles at the set's alpha, and rises again after a
gap or when the newest context is long after what was learnt. While a history is read, every set forecasts from every
few samples, and its mean absolute error at a knot of leads decides what it weighs there.
"""

from typing import Self

import numpy as np

from sentinel_core.models import rows
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.windows import FloatArray, IntArray, Window

ALPHAS = (0.01, 0.05, 0.2, 0.45, 0.75, 1.0)
TRENDS = (
    (0.0, 1.0),
    (0.05, 0.95),
    (0.1, 1.0),
    (0.3, 0.8),
    (0.6, 0.7),
)  # (beta, phi): share of the error, damping per step
ORIGIN_STRIDE = 7  # a forecast is scored from every 7th sample: coprime to the minute, the hour and the day
SHORT_HISTORY = 30 * ORIGIN_STRIDE  # in samples; from shorter ones it is scored from every sample
FEWEST_SCORES = 6  # before the scores of a lead decide its weights
SHARPNESS = 16.0  # weights fall with this power of the error; at 4 an hour ahead is 2 % worse
WANDERING = 1e12  # variance ratio that stands for alpha = 1
NEVER = np.iinfo(np.int64).min  # the time of a state that has seen nothing

_ALPHA, _BETA, _PHI = (
    np.array(column)[:, None] for column in zip(*((a, b, phi) for a in ALPHAS for b, phi in TRENDS), strict=True)
)
_WANDER = np.where(_ALPHA < 1, _ALPHA**2 / np.maximum(1 - _ALPHA, 1e-12), WANDERING)

LAST_VALUE = np.where((_ALPHA == 1) & (_BETA == 0), 1.0, 0.0)[:, 0]  # the weights where nothing was scored
FLOATS_PER_ROW = 12 * len(_ALPHA)


class ExponentialSmoothingModel(FiveMethods):
    """Damped Holt over a grid of parameter sets.

    >>> model = ExponentialSmoothingModel("1m", "3m", "5m")
    >>> window = Window(np.array([7]), np.arange(20) * 60, np.arange(20.0)[None], 60)
    >>> model.fit_window(window)
    >>> model.predict_window(window.newest(5), 3).round(6).tolist()
    [[20.0, 21.0, 22.0]]
    """

    def fit_window(self, window: Window) -> None:
        """Learn every series from scratch."""
        self.parameters = rows.in_blocks(window, lambda part, _: self._learn(part, len(part.timestamps), None))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """Follow the last `new_steps` columns and go on scoring; older errors fade."""
        self.check_rows(window)
        self.parameters = rows.in_blocks(window, lambda part, old: self._learn(part, new_steps, old), self.parameters)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Follow the context from where learning ended, and forecast [n, steps]."""
        self.check_rows(window)
        context = window.newest(self.context_steps)
        out = np.empty((len(window.fingerprints), steps))
        for block in rows.blocks(len(out), FLOATS_PER_ROW):
            part = {key: value[block] for key, value in self.parameters.items()}
            z = (context.values[block] - part["centre"][:, None]) / part["scale"][:, None]
            states = _States(z, context, part)
            for column in z.T:
                states.follow(column)
            out[block] = part["centre"][:, None] + part["scale"][:, None] * self._weighed(
                states, part["weights"], steps
            )
            out[block][~np.isfinite(context.values[block]).any(axis=1)] = np.nan
        return out

    def adopt(self, window: Window) -> Self:
        """The pooled weights; the states start with the window's own values."""
        n = len(window.fingerprints)
        centre, scale = rows.centre_and_scale(window.values)
        parameters = {
            key: np.repeat(np.median(value, axis=0, keepdims=True), n, axis=0) for key, value in self.parameters.items()
        }
        sets = len(_ALPHA)
        unknown = np.full(n, NEVER)
        return self.with_rows(
            window.fingerprints,
            parameters
            | {
                "centre": centre,
                "scale": scale,
                "slope": np.zeros(n),
                "time": unknown,
                "errors": 0 * parameters["errors"],
            }
            | {"level": np.zeros((n, sets)), "trend": np.zeros((n, sets)), "variance": np.zeros((n, sets))},
        )

    def _learn(self, window: Window, new_steps: int, old: rows.Parameters | None) -> rows.Parameters:
        """Parameters of a block of series; levels, trends and errors are in units of `scale` around `centre`.

        level, trend, variance [n, sets]: the states at `time`, unix seconds, per parameter set
        errors [n, knots, sets], count [n, knots]: sums of absolute errors, and of how many forecasts
        """
        if old is None:
            centre, scale = rows.centre_and_scale(window.values)
            z = (window.values - centre[:, None]) / scale[:, None]
            start = {"slope": _slope(z), "time": np.full(len(z), NEVER)}
        else:
            centre, scale, start = old["centre"], old["scale"], old
            z = (window.values - centre[:, None]) / scale[:, None]
        at = rows.knots(self.horizon_steps)
        states = _States(z, window, start)
        errors = np.zeros((len(at), len(_ALPHA), len(z)))
        count = np.zeros((len(at), len(z)))
        damped = _damping(int(at[-1]))[at - 1]
        samples = z.shape[1]
        stride = ORIGIN_STRIDE if new_steps >= SHORT_HISTORY else 1
        for column in range(samples):
            states.follow(z[:, column])
            if column % stride:
                continue
            for k, lead in enumerate(at):
                if max(samples - new_steps, column + 1) <= column + lead < samples:
                    missed = np.abs(states.level + damped[k] * states.trend - z[:, column + lead])
                    seen = np.isfinite(missed[0]) & states.live
                    errors[k] += np.where(seen, missed, 0.0)
                    count[k] += seen
        errors, count = errors.transpose(2, 0, 1), count.T
        if old is not None:
            kept = rows.kept_share(old["count"][:, :1], count[:, :1], self.lookback_steps // stride)
            errors, count = errors + kept[:, :, None] * old["errors"], count + kept * old["count"]
        return {
            "centre": centre,
            "scale": scale,
            "slope": start["slope"],
            "time": np.full(len(z), window.last),
            "level": states.level.T,
            "trend": states.trend.T,
            "variance": states.variance.T,
            "errors": errors,
            "count": count,
            "weights": _weights(errors, count),
        }

    def _weighed(self, states: "_States", weights: FloatArray, steps: int) -> FloatArray:
        """The sets' forecasts [n, steps], each weighed by its weight at the lead."""
        out = np.empty((len(weights), steps))
        damped = _damping(steps)
        at = rows.knots(self.horizon_steps)
        for k in range(steps):
            weight = rows.between_knots(weights, at, np.array([[k + 1]]))[:, 0].T
            out[:, k] = (weight * (states.level + damped[k] * states.trend)).sum(axis=0)
        return out


class _States:
    """Level, trend and variance [sets, n] of every parameter set while samples pass."""

    def __init__(self, z: FloatArray, window: Window, start: rows.Parameters) -> None:
        n, timestamps = len(z), window.timestamps
        shape = (len(_ALPHA), n)
        finite = np.isfinite(z)
        self._began = np.where(finite.any(axis=1), finite.argmax(axis=1), 0)
        first = np.where(finite.any(axis=1), z[np.arange(n), self._began], 0.0) if z.shape[1] else np.zeros(n)
        self.level = np.broadcast_to(first, shape).copy()
        self.trend = np.broadcast_to(start["slope"], shape).copy()
        self.variance = np.ones(shape)
        if len(timestamps):
            # columns up to the one at which learning ended are in the state already
            known = (start["time"] != NEVER) & (start["time"] <= timestamps[-1])
            behind = (start["time"] - timestamps[0]) // window.step_seconds
            if known.any():
                self.level[:, known] = start["level"][known].T
                self.trend[:, known] = start["trend"][known].T
                self.variance[:, known] = start["variance"][known].T
                missed = np.where(known, np.maximum(-1 - behind, 0), 0)
                if missed.any():
                    self._pass(missed)
            self._began = np.where(known, behind, self._began)
        self._column = -1
        self.live = np.zeros(n, bool)

    def follow(self, z: FloatArray) -> None:
        """One more sample of each series [n]; a NaN moves the level along its trend and makes it less sure."""
        self._column += 1
        self.live = self._column > self._began
        if not self.live.all():
            before = self.level.copy(), self.trend.copy(), self.variance.copy()
            self._step(z)
            self.level, self.trend, self.variance = (
                np.where(self.live, now, was)
                for now, was in zip((self.level, self.trend, self.variance), before, strict=True)
            )
            self.live = self._column >= self._began
        else:
            self._step(z)

    def _step(self, z: FloatArray) -> None:
        self.trend *= _PHI
        self.level += self.trend
        self.variance += _WANDER
        error = z - self.level
        missing = np.isnan(error[0])
        gain = self.variance / (self.variance + 1)
        if missing.any():
            error[:, missing] = 0.0
            self.variance = np.where(missing, self.variance, gain)
        else:
            self.variance = gain
        self.level += gain * error
        error *= _ALPHA * _BETA
        self.trend += error

    def _pass(self, missed: IntArray) -> None:
        """Steps [n] that nobody saw."""
        self.variance += _WANDER * missed
        most = int(missed.max())
        self.level += np.vstack([np.zeros_like(_PHI.T), _damping(most)[:, :, 0]])[missed].T * self.trend
        self.trend *= _PHI**missed


def _damping(steps: int) -> FloatArray:
    """phi + phi^2 + ... + phi^k for k = 1..steps, per parameter set: [steps, sets, 1]."""
    return np.cumsum(_PHI[None] ** np.arange(1, steps + 1)[:, None, None], axis=0)


def _slope(z: FloatArray) -> FloatArray:
    """Mean step from the first to the newest sample [n], as far as the spread of the steps lets us believe it."""
    finite = np.isfinite(z)
    n, samples = z.shape
    if not samples:
        return np.zeros(n)
    first, last = finite.argmax(axis=1), samples - 1 - finite[:, ::-1].argmax(axis=1)
    every = np.arange(n)
    count = np.where(finite.any(axis=1), last - first, 0)
    slope = np.where(finite.sum(axis=1) > 2, (z[every, last] - z[every, first]) / np.maximum(count, 1), 0.0)
    noise = np.diff(z, axis=1) - slope[:, None]
    known = np.isfinite(noise)
    variance = (np.where(known, noise, 0.0) ** 2).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    doubt = rows.SURE * (1 + rows.FEW_SAMPLES / np.maximum(count, 1)) * variance / np.maximum(count, 1)
    square = slope**2
    return np.where(square > doubt, slope * (1 - doubt / np.where(square > 0, square, 1.0)), 0.0)


def _weights(errors: FloatArray, count: FloatArray) -> FloatArray:
    """Weights [n, knots, sets] that sum to 1; a knot that was hardly scored has those of the knot before."""
    mean = errors / np.maximum(count, 1.0)[:, :, None]
    best = mean.min(axis=2, keepdims=True)
    ratio = np.where(mean > best, best / np.where(mean > best, mean, 1.0), 1.0)
    weights = ratio**SHARPNESS
    weights /= weights.sum(axis=2, keepdims=True)
    weights[count[:, 0] < FEWEST_SCORES, 0] = LAST_VALUE
    for k in range(1, weights.shape[1]):
        unscored = count[:, k] < FEWEST_SCORES
        weights[unscored, k] = weights[unscored, k - 1]
    return weights
