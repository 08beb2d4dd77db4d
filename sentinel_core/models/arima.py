"""ARIMA(p, d, q) for all series at once: Hannan and Rissanen's two regressions instead of a likelihood per series.

A long autoregression gives the innovations; the differenced series is then regressed on its own lags, lagged
innovations and a constant (Hannan and Rissanen, 1982). Roots outside what is stationary and invertible are pulled
back. One step ahead that is the forecast. Further ahead one-step coefficients say little, so at each knot of leads the
recursion's move is weighed against a return to the mean of the lookback and to the series' centre, by how each did.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from sentinel_core.models import regression, rows
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.windows import FloatArray, IntArray, Window

LARGEST_ORDERS = {"p": 12, "d": 2, "q": 6}
LONG_ORDER = 8  # lags of the first autoregression beyond p + q
COLLINEAR = 1e-13  # of the largest eigenvalue: directions below are rounding
LARGEST_AR_ROOT = 1.0  # an oscillation may go on, but not grow
LARGEST_MA_ROOT = 0.9  # an innovation is forgotten within a context of 36 steps; 0.97 is 9 % worse an hour ahead
BELIEVE = (1.0, 0.0, 0.0)  # before anything is learnt: the recursion alone


class ARIMAModel(FiveMethods):
    """Autoregressive integrated moving average, one per series.

    p, d, q: orders of autoregression (0..12), differencing (0..2) and moving average (0..6)

    >>> model = ARIMAModel("1m", "3m", "5m", p=1, d=1, q=0)
    >>> window = Window(np.array([7]), np.arange(20) * 60, np.arange(20.0)[None], 60)
    >>> model.fit_window(window)
    >>> model.predict_window(window.newest(5), 3).round(6).tolist()
    [[20.0, 21.0, 22.0]]
    """

    def __init__(self, granularity: str, horizon: str, lookback: str, p: int = 3, d: int = 1, q: int = 1) -> None:
        for name, order in (("p", p), ("d", d), ("q", q)):
            if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= LARGEST_ORDERS[name]:
                raise ValueError(
                    f"ARIMAModel: {name} is {order!r}; use a whole number from 0 to {LARGEST_ORDERS[name]}"
                )
        super().__init__(granularity, horizon, lookback, p=p, d=d, q=q)
        self.p, self.d, self.q = p, d, q

    @property
    def context_steps(self) -> int:
        """The lookback, or what the orders need to tell an innovation."""
        return max(self.lookback_steps, 2 * (self.p + self.d) + self.q)

    def fit_window(self, window: Window) -> None:
        """Learn every series from scratch."""
        self.parameters = rows.in_blocks(window, lambda part, _: self._learn(part, len(part.timestamps), None))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """Add the last `new_steps` columns to the regressions; older samples fade from them."""
        self.check_rows(window)
        window = window.newest(new_steps + self.horizon_steps + self.context_steps)
        self.parameters = rows.in_blocks(window, lambda part, old: self._learn(part, new_steps, old), self.parameters)

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Find the context's innovations, run the recursion on and believe it as far as it was right, [n, steps]."""
        self.check_rows(window)
        context = window.newest(self.context_steps)
        out = np.empty((len(window.fingerprints), steps))
        for block in rows.blocks(len(out), len(context.timestamps) + steps):
            part = {key: value[block] for key, value in self.parameters.items()}
            centre, scale = part["centre"][:, None], part["scale"][:, None]
            z = (context.values[block] - centre) / scale
            unseen = np.full((len(z), steps), np.nan)
            recursion = self._follow(np.hstack([z, unseen]), part)[0][:, -steps:]
            newest, age = rows.newest_values(z)
            now = newest[:, None]
            mean = rows.trailing_mean(z, self.lookback_steps)[:, -1:]
            ahead = np.arange(1, steps + 1) + age[:, None]
            shares = rows.between_knots(part["shares"], rows.knots(self.horizon_steps), ahead)
            moves = shares[..., 0] * (recursion - now) + shares[..., 1] * (mean - now) - shares[..., 2] * now
            out[block] = centre + scale * (now + moves)
        return out

    def adopt(self, window: Window) -> Self:
        """The median coefficients of the learnt series, around the window's own median and without a drift."""
        n = len(window.fingerprints)
        learnt = self.parameters["learnt"]
        own = {key: value[learnt] for key, value in self.parameters.items()} if learnt.any() else self.parameters
        centre, scale = rows.middle_and_scale(window.values)
        parameters = {key: np.zeros((n, *value.shape[1:]), value.dtype) for key, value in self.parameters.items()}
        parameters |= {
            "centre": centre,
            "scale": scale,
            "learnt": np.full(n, learnt.any()),
            "ar": _pulled_back(rows.pooled(own["ar"], n), LARGEST_AR_ROOT),
            "ma": -_pulled_back(-rows.pooled(own["ma"], n), LARGEST_MA_ROOT),
            "shares": rows.pooled(own["shares"], n),
        }
        return self.with_rows(window.fingerprints, parameters)

    def _learn(self, window: Window, new_steps: int, old: rows.Parameters | None) -> rows.Parameters:
        """Parameters of a block of series, in units of `scale` [n] around `centre` [n].

        ar [n, p], ma [n, q], constant [n]; learnt [n], False where the last value is the better forecast
        gram [n, m + 1, m + 1], weight [n]: normal equations of the m regressors of one step, and over how many rows
        shares [n, knots, 3], sums [n, knots, 4, 4]: what to believe of the three moves, and its normal equations
        """
        centre, scale = rows.middle_and_scale(window.values) if old is None else (old["centre"], old["scale"])
        z = (window.values - centre[:, None]) / scale[:, None]
        w = np.diff(z, n=self.d, axis=1)
        if old is not None:
            innovations = self._follow(z, old)[1][:, self.d :]
        else:
            innovations = _long_residuals(w, self.p + self.q) if self.q else w
        start = max(self.p, self.q, w.shape[1] - new_steps)
        columns = [*_lagged(w, self.p, start), *_lagged(innovations, self.q, start)]
        if self.d < 2:  # a constant in second differences is a parabola
            columns.append(np.ones_like(w[:, start:]))
        columns, target, complete = regression.complete(columns, w[:, start:])
        gram, weight = regression.products(columns, target), complete.sum(axis=1)
        faded = None
        if old is not None:
            kept = rows.kept_share(old["weight"], weight, self.lookback_steps)
            gram, weight = gram + kept[:, None, None] * old["gram"], weight + kept * old["weight"]
            faded = kept[:, None, None, None] * old["sums"]
        found = self._coefficients(gram, weight)
        filled, innovations = self._follow(z, found)
        at = rows.knots(self.horizon_steps)
        responses = self._responses(found, at)
        mean = rows.trailing_mean(z, self.lookback_steps)

        # an origin before the recursion has its lags has no forecast
        reach = max(1, self.p + self.d)
        early = np.cumsum(np.isfinite(z), axis=1) < reach
        settled = np.where(early, np.nan, z)

        def moves(k: int, origins: slice) -> Sequence[FloatArray]:
            now = settled[:, origins]
            return responses[k].forecast(filled, innovations, origins) - now, mean[:, origins] - now, -now

        shares, sums = regression.shares(z, moves, BELIEVE, at, new_steps, faded, reach - 1)
        return found | {
            "centre": centre,
            "scale": scale,
            "gram": gram,
            "weight": weight,
            "shares": shares,
            "sums": sums,
        }

    def _coefficients(self, gram: FloatArray, weight: FloatArray) -> rows.Parameters:
        coefficients, certainty = _least_squares(gram, weight)
        learnt = weight > 2 * (self.p + self.q + 1)
        ar, ma, constant = np.split(np.where(learnt[:, None], coefficients, 0.0), [self.p, self.p + self.q], axis=1)
        return {
            "ar": _pulled_back(ar, LARGEST_AR_ROOT),
            "ma": -_pulled_back(-ma, LARGEST_MA_ROOT),
            "constant": constant.sum(axis=1) * (certainty if self.d else 1.0),
            "learnt": learnt,
        }

    def _full_autoregression(self, parameters: rows.Parameters) -> FloatArray:
        """Coefficients of the undifferenced values, [max(1, p + d), n]; the last value where nothing was learnt."""
        ar = parameters["ar"].T
        none = np.zeros((1, ar.shape[1]))
        polynomial = np.vstack([none + 1, -ar])
        for _ in range(self.d):
            polynomial = np.vstack([polynomial, none]) - np.vstack([none, polynomial])
        full = -polynomial[1:] if len(polynomial) > 1 else none
        last_value = np.zeros_like(full)
        last_value[0] = 1.0
        return np.where(parameters["learnt"], full, last_value)

    def _follow(self, z: FloatArray, parameters: rows.Parameters) -> tuple[FloatArray, FloatArray]:
        """z with its gaps filled by one-step forecasts, and the innovations (0 where unknown), both [n, T]."""
        ar, ma, constant = self._full_autoregression(parameters), parameters["ma"].T, parameters["constant"]
        reach, q = len(ar), self.q
        n, samples = z.shape
        finite = np.isfinite(z)
        began = np.where(finite.any(axis=1), finite.argmax(axis=1), 0)
        settled = began + reach  # before, an innovation cannot be told from a start
        first = z[np.arange(n), began] if samples else np.zeros(n)
        known = np.empty((reach + samples, n))
        known[:reach] = first
        innovations = np.zeros((q + samples, n))
        missing = ~finite.T
        simple = ~missing.any(axis=1) & (np.arange(samples) >= settled.max(initial=0))
        z = np.ascontiguousarray(z.T)
        for t in range(samples):
            forecast = constant.copy()
            for j in range(reach):
                forecast += ar[j] * known[reach + t - 1 - j]
            for j in range(q):
                forecast += ma[j] * innovations[q + t - 1 - j]
            if simple[t]:
                known[reach + t] = z[t]
                innovations[q + t] = z[t] - forecast
            else:
                known[reach + t] = np.where(missing[t], np.where(t < began, first, forecast), z[t])
                innovations[q + t] = np.where(missing[t] | (t < settled), 0.0, z[t] - forecast)
        return known[reach:].T, innovations[q:].T

    def _responses(self, parameters: rows.Parameters, at: IntArray) -> list["_Response"]:
        """The recursion's forecast at each lead of `at`, as a linear function of what is known at the origin."""
        ar, ma = self._full_autoregression(parameters), parameters["ma"].T
        reach, q, n = len(ar), self.q, ar.shape[1]
        inputs = reach + q + 1
        values, shocks = np.zeros((reach, inputs, n)), np.zeros((q, inputs, n))  # newest first
        values[np.arange(reach), np.arange(reach)] = 1.0
        shocks[np.arange(q), reach + np.arange(q)] = 1.0
        found = []
        for lead in range(1, int(at[-1]) + 1):
            forecast = np.einsum("in,ijn->jn", ar, values) + np.einsum("in,ijn->jn", ma, shocks)
            forecast[-1] += parameters["constant"]
            values = np.concatenate([forecast[None], values[:-1]])
            shocks = np.concatenate([np.zeros((1, inputs, n)), shocks[:-1]])[:q]
            if lead in at:
                found.append(_Response(forecast[:reach], forecast[reach:-1], forecast[-1]))
        return found


class _Response:
    """One lead's forecast: coefficients of newest values [reach, n] and innovations [q, n], and a constant [n]."""

    def __init__(self, values: FloatArray, innovations: FloatArray, constant: FloatArray) -> None:
        self._values, self._innovations, self._constant = values, innovations, constant

    def forecast(self, filled: FloatArray, innovations: FloatArray, origins: slice) -> FloatArray:
        """Forecasts [n, origins] from columns of the series (its gaps filled) and its innovations, both [n, T]."""
        columns = np.arange(origins.start, origins.stop)
        out = np.repeat(self._constant[:, None], len(columns), axis=1)
        for series, coefficients in ((filled, self._values), (innovations, self._innovations)):
            for back, coefficient in enumerate(coefficients):
                out += coefficient[:, None] * series[:, np.maximum(columns - back, 0)]
        return out


def _lagged(w: FloatArray, lags: int, start: int) -> list[FloatArray]:
    """The columns of w [n, T] that lie 1..lags before those from `start` on."""
    end = max(w.shape[1], start)
    return [w[:, start - lag : end - lag] for lag in range(1, lags + 1)]


def _long_residuals(w: FloatArray, orders: int) -> FloatArray:
    """First guess of the innovations [n, T]: what a long autoregression leaves; 0 where its lags are unknown."""
    order = min(LONG_ORDER + orders, w.shape[1] // 4)
    columns, target, known = regression.complete(_lagged(w, order, order), w[:, order:])
    coefficients, _ = _least_squares(regression.products(columns, target), known.sum(axis=1))
    found = np.zeros_like(w)
    found[:, order:] = regression.residuals(columns, target, coefficients)
    return found


def _least_squares(gram: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients [n, m], the shortest where many fit; and the share of the last that its noise leaves [n]."""
    m = gram.shape[1] - 1
    if not m:
        return np.zeros((len(gram), 0)), np.ones(len(gram))
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    size = np.where(size > 0, size, 1.0)
    normal = gram / (size[:, :, None] * size[:, None, :])
    inverse = np.linalg.pinv(normal[:, :m, :m], rcond=COLLINEAR, hermitian=True)
    scaled = np.einsum("nij,nj->ni", inverse, normal[:, :m, m])
    noise = np.maximum(normal[:, m, m] - (scaled * normal[:, :m, m]).sum(axis=1), 0.0) / np.maximum(weight - m, 1.0)
    sure = rows.SURE * (1 + rows.FEW_SAMPLES / np.maximum(weight - m, 1.0))
    square, variance = scaled[:, -1] ** 2, sure * noise * inverse[:, -1, -1]
    certainty = np.where(square > variance, 1 - variance / np.where(square > 0, square, 1.0), 0.0)
    return scaled / size[:, :m] * size[:, m:], certainty


def _pulled_back(coefficients: FloatArray, largest_root: float) -> FloatArray:
    """Coefficients [n, m] of a recursion, with its roots at most `largest_root` in modulus."""
    n, m = coefficients.shape
    if not m or not n:
        return coefficients
    companion = np.zeros((n, m, m))
    companion[:, 0] = coefficients
    companion[:, np.arange(1, m), np.arange(m - 1)] = 1.0
    root = np.abs(np.linalg.eigvals(companion)).max(axis=1)
    shrink = np.minimum(1.0, largest_root / np.maximum(root, np.finfo(float).tiny))
    pulled: FloatArray = coefficients * shrink[:, None] ** np.arange(1, m + 1)
    return pulled
