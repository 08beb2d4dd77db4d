"""Online linear regression of the documented features by stochastic gradient descent, every series and lead at once.

Per series, in units of its own spread (z), one linear head per knot of leads forecasts from the features of the origin
how far the value will be from the newest one. Direct heads take no forecast as an input: nothing can run away, and each
lead has real lags and its own time of day. The time columns enter twice: linearly, and as a daily profile, which is an
intercept per slot of the day (`models.daily_profile`).

    value(lead) - last = share * (profile(target) - last) + slope * (profile(target) - profile(origin)) + weights . X

The gradient is that of Huber's loss, which spikes cannot drown. Neighbouring lags are nearly equal, which makes plain
steps crawl: they are taken in coordinates in which the features are uncorrelated, in units of the head's own mean
change, and the weights of the later ones are averaged (Polyak and Juditsky 1992). On 890 operations series this has
MASE 0.40 / 0.60 / 0.92 (1 step, 12 steps, a day ahead); on a sample of them 0.41 / 0.63 / 0.95, where steps on the
standardised features as they are, fed back recursively, have 0.44 / 0.77 / 1.19. One series of 1,440 samples, 30 lags
and 5 leads takes 1 ms.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core import features
from sentinel_core.models import daily_profile, rows
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.windows import FloatArray, IntArray, Window

Float32Array = NDArray[np.float32]

BATCH_ROWS = 64  # 32 and 128 are 3 % worse at 12 steps
ENOUGH_STEPS = 256  # a week of minutes gets better by none beyond these
HUBER_SHARE = 0.3  # residuals beyond this share of the head's mean change count by their sign only
STEP_DECAY = 5.0  # the first step is this many times the last
LEAD_SLOWS = 0.15  # steps shrink with the lead to this power: far targets overlap and would be learnt by heart
AVERAGED = 0.3  # share of the steps whose weights are averaged: the last ones
SHARES = np.array([0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0], np.float32)  # of the way from the newest value to the profile
ROOM = 0.5  # forecasts leave the range seen by at most this share of it
LARGEST = 1e6  # of a training value in units of spread; its square must fit into float32


@dataclass(frozen=True)
class _Rows:
    """What n series learn from: R origins, one after the other, and K knots of leads."""

    X: Float32Array  # [n, R, F + 2]
    change: Float32Array  # [n, K, R]: target less newest value, NaN where there is no target
    to_profile: Float32Array  # [n, K, R]: profile at the target less newest value, NaN where not known yet
    of_profile: Float32Array  # [n, K, R]: profile at the target less profile at the origin, 0 where not known yet


class SGDRegressorModel(FiveMethods):
    """SGD on lags, rolling mean and spread, hour and weekday; a finetune continues from the current weights.

    model_params: learning_rate (the first step, in units of the series' mean change), epochs (passes over a history,
    fewer over one of weeks), l2 (ridge on the correlations of the features), seed (order of the rows).

    >>> model = SGDRegressorModel("1h", "6h", "4h")
    >>> times = np.arange(480) * 3600
    >>> daily = np.sin(2 * np.pi * times / 86400)
    >>> model.fit_window(Window(np.array([7]), times[:460], daily[None, :460], 3600))
    >>> forecast = model.predict_window(Window(np.array([7]), times[456:460], daily[None, 456:460], 3600), 6)
    >>> bool(np.abs(forecast - daily[460:466]).max() < 0.02)
    True
    """

    def __init__(
        self,
        granularity: str,
        horizon: str,
        lookback: str,
        learning_rate: float = 1.0,
        epochs: int = 4,
        l2: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(granularity, horizon, lookback, learning_rate=learning_rate, epochs=epochs, l2=l2, seed=seed)
        self.learning_rate, self.epochs, self.l2, self.seed = learning_rate, epochs, l2, seed
        self.slots = daily_profile.slots_per_day(self.step_seconds)
        self.knots = _knots(self.horizon_steps)

    def fit_window(self, window: Window) -> None:
        """Learn every series from scratch."""
        self.parameters = rows.in_blocks(window, lambda part, _: self._fit(part), None, self._floats(window))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """One pass over the rows whose target is among the last `new_steps` columns, with the smallest step."""
        self.check_rows(window)
        first_new = max(0, len(window.timestamps) - new_steps)
        self.parameters = rows.in_blocks(
            window, lambda part, old: self._update(part, old or {}, first_new), self.parameters, self._floats(window)
        )

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Every lead from the newest features [n, steps]; weights between two knots are interpolated."""
        self.check_rows(window)
        p = self.parameters
        if not len(window.timestamps):
            return np.full((len(window.fingerprints), steps), np.nan)
        centre, scale = p["centre"][:, None], p["scale"][:, None]
        context = features.complete_context(window.values, self.lookback_steps)
        z = (context - centre) / scale
        last = z[:, -1:]
        leads = np.arange(1, steps + 1)
        profile = np.where(p["days"] > 0, p["profile"], np.nan)
        here = profile[:, daily_profile.slot_of(window.timestamps[-1:], self.slots)]
        there = profile[:, daily_profile.slot_of(window.last + self.step_seconds * leads, self.slots)]
        X = self._inputs(z, window.timestamps[-1:], here)
        between = _between(self.knots, leads)
        heads = (p["weights"] @ X.transpose(0, 2, 1))[:, :, 0]
        forecast = last + heads @ between
        forecast += (p["share"] @ between) * np.nan_to_num(there - last)
        forecast += (p["slope"] @ between) * np.nan_to_num(there - here)
        low, high = np.minimum(p["low"][:, None], last), np.maximum(p["high"][:, None], last)
        room = ROOM * (high - low)
        forecast = np.clip(forecast, low - room, high + room) * scale + centre
        return np.where(np.isfinite(context[:, -1:]), forecast, np.nan)

    def adopt(self, window: Window) -> Self:
        """The median weights and profile of the model's series, around the window's own level and spread."""
        n = len(window.fingerprints)
        pooled = {key: np.repeat(np.median(value, axis=0)[None], n, axis=0) for key, value in self.parameters.items()}
        pooled["centre"], pooled["scale"] = _level_and_spread(window.values)
        return self.with_rows(window.fingerprints, pooled)

    # ---- learning, one block of series at a time
    def _fit(self, window: Window) -> rows.Parameters:
        n, knots = len(window.fingerprints), len(self.knots)
        centre, scale = _level_and_spread(window.values)
        start: rows.Parameters = {
            "centre": centre,
            "scale": scale,
            "low": np.zeros(n),  # of z
            "high": np.zeros(n),
            "profile": np.zeros((n, self.slots), np.float32),
            "days": np.zeros((n, self.slots), np.float32),  # that each slot of the profile has seen
            "weights": np.zeros((n, knots, self.lookback_steps + 8), np.float32),
            "slope": np.zeros((n, knots), np.float32),
            "share": np.zeros((n, knots), np.float32),
        }
        learnt = self._take_in(window, start, 0)
        if learnt is None:
            return start
        start["share"] = _best_share(learnt, self.slots)
        return self._descend(learnt, start, self.epochs, self.learning_rate)

    def _update(self, window: Window, old: rows.Parameters, first_new: int) -> rows.Parameters:
        parameters = dict(old)
        learnt = self._take_in(window, parameters, first_new)
        return parameters if learnt is None else self._descend(learnt, parameters, 1, self.learning_rate / STEP_DECAY)

    def _take_in(self, window: Window, p: rows.Parameters, first_new: int) -> _Rows | None:
        """Let range and profile of `p` learn the columns from `first_new` on; returns the rows to descend on."""
        z = (window.values - p["centre"][:, None]) / p["scale"][:, None]
        z = np.where(np.isfinite(z), np.clip(z, -LARGEST, LARGEST), np.nan)
        fresh = np.nan_to_num(z[:, first_new:])
        p["low"] = np.minimum(p["low"], fresh.min(axis=1, initial=0.0))
        p["high"] = np.maximum(p["high"], fresh.max(axis=1, initial=0.0))
        times = window.timestamps
        before, p["profile"], p["days"] = daily_profile.learn_by_day(
            z[:, first_new:], times[first_new:], p["profile"], p["days"]
        )
        start = self.lookback_steps - 1
        if len(times) <= start + 1 or first_new >= len(times):
            return None
        filled = np.nan_to_num(features.carry_forward(z))  # before a series began, where no row has a target: 0
        began = np.isfinite(z).argmax(axis=1)[:, None] <= np.arange(start, len(times))
        last = filled[:, start:].astype(np.float32)
        now = times[start:]
        day = np.maximum(now // features.DAY_SECONDS - times[first_new] // features.DAY_SECONDS, 0)
        here = before[:, day, daily_profile.slot_of(now, self.slots)]
        X = self._inputs(filled, now, here)
        X[~began] = 0.0
        change = np.full((len(z), len(self.knots), len(now)), np.nan, np.float32)
        there = np.empty_like(change)
        for k, lead in enumerate(self.knots):
            there[:, k] = before[:, day, daily_profile.slot_of(now + lead * self.step_seconds, self.slots)]
            first = max(0, first_new - start - lead)
            end = max(first, len(now) - lead)
            change[:, k, first:end] = z[:, start + lead + first : start + lead + end] - last[:, first:end]
        change = np.where(began[:, None], change, np.float32(np.nan))
        return _Rows(X, change, there - last[:, None], np.nan_to_num(there - here[:, None]))

    def _inputs(self, z: FloatArray, now: IntArray, here: FloatArray | Float32Array) -> Float32Array:
        """X [n, R, F + 2] of z [n, R + lookback_steps - 1]; `now` [R] are the origins, `here` their profile [n, R].

        The documented features, lags and mean as distances from the newest value; its distance from the profile; 1.
        """
        lookback = self.lookback_steps
        last = z[:, lookback - 1 :]
        X = np.empty((len(z), len(now), lookback + 8), np.float32)
        X[:, :, : lookback - 1] = features.lags(z, lookback)[:, :, :-1] - last[:, :, None]
        X[:, :, lookback - 1] = last
        mean, std = features.rolling(z, lookback)
        X[:, :, lookback] = mean - last
        X[:, :, lookback + 1] = std
        X[:, :, lookback + 2 : lookback + 6] = features.time_columns(now + self.step_seconds)
        X[:, :, lookback + 6] = np.nan_to_num(here - last)
        X[:, :, lookback + 7] = 1.0
        return X

    def _descend(self, learnt: _Rows, p: rows.Parameters, epochs: int, first_step: float) -> rows.Parameters:
        """Move weights [n, K, F + 2] and slope [n, K] down the gradient of Huber's loss, in shrinking steps."""
        X, of_profile = learnt.X, learnt.of_profile
        # Where the profile counts, rows from before it was known would teach what it says already.
        known = np.isfinite(learnt.change) & (np.isfinite(learnt.to_profile) | (p["share"][:, :, None] == 0))
        residual = learnt.change - p["share"][:, :, None] * np.nan_to_num(learnt.to_profile)
        residual -= p["weights"] @ X.transpose(0, 2, 1) + of_profile * p["slope"][:, :, None]
        residual = np.where(known, residual, 0.0).astype(np.float32)
        origins = X.shape[1]
        unit = np.abs(residual).sum(axis=2) / np.maximum(known.sum(axis=2), 1) + np.float32(1e-9)  # mean change [n, K]
        limit = HUBER_SHARE * unit[:, :, None]
        pace = unit * (self.knots**-LEAD_SLOWS).astype(np.float32)
        white = _uncorrelated(X, self.l2)
        spread = np.sqrt(np.mean(of_profile**2, axis=2) + np.float32(1e-6))
        # Shuffled once, so that a batch is a slice and not a copy; each epoch takes the batches in another order.
        order = np.random.default_rng(self.seed)
        shuffled = order.permutation(origins)
        W, V = X[:, shuffled] @ white, of_profile[:, :, shuffled] / spread[:, :, None]
        residual, known = residual[:, :, shuffled], known[:, :, shuffled]
        batches = max(1, origins // BATCH_ROWS)
        edges = np.linspace(0, origins, batches + 1).astype(int)
        weights, slope = np.zeros((2, *p["weights"].shape), np.float32), np.zeros((2, *p["slope"].shape), np.float32)
        total = max(batches, min(epochs * batches, ENOUGH_STEPS))
        averaged_from = int(total * (1 - AVERAGED))
        for k, b in enumerate(np.concatenate([order.permutation(batches) for _ in range(epochs)])[:total]):
            batch = slice(edges[b], edges[b + 1])
            w, v = W[:, batch], V[:, :, batch]
            error = residual[:, :, batch] - weights[0] @ w.transpose(0, 2, 1) - v * slope[0][:, :, None]
            gradient = np.clip(error / limit, -1, 1) * known[:, :, batch]
            step = pace * np.float32(first_step / (1 + (STEP_DECAY - 1) * k / total) / len(w[0]))
            weights[0] += step[:, :, None] * (gradient @ w)
            slope[0] += step * (v * gradient).sum(axis=2)
            if k >= averaged_from:
                weights[1] += weights[0]
                slope[1] += slope[0]
        count = total - averaged_from
        p["weights"] = p["weights"] + (weights[1] / count) @ white.transpose(0, 2, 1)
        p["slope"] = p["slope"] + slope[1] / count / spread
        return p

    def _floats(self, window: Window) -> int:
        """Blocks of 16 series, so that each step is one call for many of them; fewer where the history is very long."""
        return max(rows.BLOCK_FLOATS // 16, len(window.timestamps) * (self.lookback_steps + 8) // 32)


def _knots(horizon_steps: int) -> IntArray:
    """Leads that have weights of their own: the first five, then each half as far again, and the horizon.

    >>> _knots(30).tolist()
    [1, 2, 3, 4, 5, 8, 12, 18, 27, 30]
    """
    leads = [lead for lead in range(1, 6) if lead <= horizon_steps]
    while leads[-1] < horizon_steps:
        leads.append(min(horizon_steps, -(-leads[-1] * 3 // 2)))
    return np.array(leads, np.int64)


def _between(knots: IntArray, leads: IntArray) -> FloatArray:
    """The matrix [K, leads] that interpolates linearly in the logarithm of the lead; the last knot's beyond it."""
    return np.stack([np.interp(np.log(leads), np.log(knots), unit) for unit in np.eye(len(knots))])


def _level_and_spread(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median and mean absolute distance from it per row; spread 1 where that is nothing but rounding."""
    level = rows.nanmedian(values)
    distance = np.abs(values - level[:, None])
    finite = np.isfinite(distance)
    spread = np.where(finite, distance, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return level, np.where(spread > 1e-14 * np.abs(level), spread, 1.0)


def _best_share(learnt: _Rows, least_rows: int) -> Float32Array:
    """Of SHARES, the one with the least absolute error [n, K]; 0 where fewer than `least_rows` have a profile."""
    known = np.isfinite(learnt.change) & np.isfinite(learnt.to_profile)
    change, to_profile = (np.where(known, part, np.float32(0)) for part in (learnt.change, learnt.to_profile))
    errors = np.stack([np.abs(change - share * to_profile).sum(axis=2) for share in SHARES])
    return np.where(known.sum(axis=2) >= least_rows, SHARES[errors.argmin(axis=0)], np.float32(0))


def _uncorrelated(X: Float32Array, l2: float) -> Float32Array:
    """The matrix [n, F, F] whose product with X has (nearly) uncorrelated columns of mean square 1.

    l2 is added to the correlations' diagonal, so that directions without movement are not blown up.
    """
    square = X.transpose(0, 2, 1) @ X
    square /= np.maximum(square[:, -1:, -1:], 1.0)  # the last column is 1 in every row since the series began
    size = np.sqrt(np.einsum("nff->nf", square)).astype(np.float64)
    size[size < 1e-9] = 1.0
    correlation = square / size[:, :, None] / size[:, None] + l2 * np.eye(X.shape[2])
    root = np.linalg.inv(np.linalg.cholesky(correlation)).transpose(0, 2, 1)
    white: Float32Array = (root / size[:, :, None]).astype(np.float32)
    return white
