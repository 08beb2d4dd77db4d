"""The default model: one small robust regression per lead on recent averages and seasonal profiles, all series at once.

    value(lead) - last = coefficients(lead) . features        (`models.seasonal_ridge_features`)

Per knot of leads (those between are interpolated) the coefficients have the least absolute error, by reweighted normal
equations (Schlossmacher 1973), which are drawn towards the knot before and, for leads of hours, towards the daily
profile, as strongly as the noise of the series asks for (ridge as a Bayesian prior on shares to believe). Several
strengths of that pull, and the profiles on their own, are compared per series on its newest rows, before those are
learnt as well, and averaged by the inverse of their errors. Since all are linear in the same features, the average is
one set of coefficients.

The equations add up and fade: an update adds its new rows and solves again, and costs what is new.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models import rows
from sentinel_core.models import seasonal_ridge_features as seen
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.models.seasonal_ridge_features import Numbers
from sentinel_core.windows import FloatArray, IntArray, Window

Float32Array = NDArray[np.float32]

F = len(seen.NAMES)
OWN = len(seen.OWN)
MOST_ROWS = 1_300  # of a knot: neighbouring rows say the same
REWEIGHTINGS = 2  # on the older rows
FULL_REWEIGHTINGS = 3  # on all rows, from there
SMALLEST_RESIDUAL = 0.1  # of the mean absolute residual: no row weighs more than ten times the typical one
PULL = 16.0  # a coefficient is thought to be within a quarter of its prior, measured in the noise of one row
LEAD_STEPS = 24.0  # neighbouring rows of so long a lead count half
PULLS = (1.0, 10.0, 100.0)  # times PULL: the strengths that are compared
COMPARED_SHARE = 0.25  # of the history: the newest rows, on which the candidates are compared
POWER = 6.0  # of the inverse error that a candidate's share is
PROFILE_LEAD = 100.0  # steps at which the prior is all profile
FADING = 0.85  # of the distance from the profile an hour later, in the prior
WEEK_SHARE, DAY_SHARE = 0.7, 0.5  # of what last week and the last day were above the profile, in two of the candidates
ROOT_TO_MEAN = np.float32(1.18)  # (mean of roots)^2 to mean size, of normal residuals: spikes hardly count
MOST_ERROR = np.float32(20)  # units that one row counts when candidates are compared
ROOM = 0.1  # forecasts leave the range seen by at most this share of it
SPIKES, SPIKE = 0.01, 3.0  # what is this many times as far out as all but a hundredth is a spike
LARGEST = 1e4  # of a value in units of spread; its square must fit into float32
BLOCK_FLOATS = 1 << 20
MEMORY_STEPS = 4_032  # two weeks of five minutes: an update fades what is older
CANDIDATES = len(PULLS) + 3


class SeasonalRidgeModel(FiveMethods):
    """Robust regression per lead on recent averages and the patterns of hour, day and week.

    model_params: bounds ([lowest, highest], either None): forecasts stay within; a series that was never negative is
    not forecast below zero anyway.

    >>> model = SeasonalRidgeModel("1h", "6h", "4h")
    >>> times = np.arange(480) * 3600
    >>> daily = np.sin(2 * np.pi * times / 86400)
    >>> model.fit_window(Window(np.array([7]), times[:460], daily[None, :460], 3600))
    >>> forecast = model.predict_window(Window(np.array([7]), times[260:460], daily[None, 260:460], 3600), 6)
    >>> bool(np.abs(forecast - daily[460:466]).max() < 0.05)
    True
    """

    def __init__(
        self, granularity: str, horizon: str, lookback: str, bounds: Sequence[float | None] | None = None
    ) -> None:
        super().__init__(granularity, horizon, lookback, bounds=bounds)
        lowest, highest = bounds if bounds is not None else (None, None)
        self.bounds = (-np.inf if lowest is None else float(lowest), np.inf if highest is None else float(highest))
        self.calendar = seen.Calendar(self.step_seconds)
        self.knots = _knots(self.horizon_steps)

    @property
    def context_steps(self) -> int:
        """The averages' memory, or the lookback where that is longer."""
        return max(self.lookback_steps, self.calendar.context_steps)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The regression's columns."""
        return seen.NAMES

    def fit_window(self, window: Window) -> None:
        """Learn every series from scratch."""
        self.parameters = rows.in_blocks(window, lambda part, _: self._fit(part), None, self._floats(window))
        self.fingerprints = window.fingerprints.copy()

    def update_window(self, window: Window, new_steps: int) -> None:
        """Add the rows whose target is among the last `new_steps` columns; what is known fades by as much."""
        self.check_rows(window)
        self.parameters = rows.in_blocks(
            window, lambda part, old: self._update(part, old or {}, new_steps), self.parameters, self._floats(window)
        )

    def predict_window(self, window: Window, steps: int) -> FloatArray:
        """Every lead from the newest features [n, steps]; coefficients between two knots are interpolated."""
        self.check_rows(window)
        n = len(window.fingerprints)
        out = np.full((n, steps), np.nan)
        if len(window.timestamps):
            for block in rows.blocks(n, max(self._floats(window.newest(self.context_steps)), 4 * steps)):
                index = np.arange(block.start, block.stop)
                old = {key: value[block] for key, value in self.parameters.items()}
                out[block] = self._predict(window.rows(index).newest(self.context_steps), old, steps)
        return out

    def adopt(self, window: Window) -> Self:
        """The median coefficients and profiles of the model's series, around the window's own level and spread."""
        n = len(window.fingerprints)
        pooled: dict[str, NDArray[Any]] = {}
        for key, value in self.parameters.items():
            middle = _median(value) if value.dtype == np.float32 else np.max(value, axis=0)
            pooled[key] = np.repeat(np.asarray(middle, value.dtype)[None], n, axis=0)
        pooled["centre"], pooled["scale"] = _level_and_spread(window.values)
        pooled["farthest"] = np.full(n, LARGEST)
        z = self._scaled(window, pooled)
        known = np.nan_to_num(z)
        pooled["low"], pooled["high"] = known.min(axis=1, initial=0.0), known.max(axis=1, initial=0.0)
        return self.with_rows(window.fingerprints, pooled)

    # ---- one block of series at a time
    def _fit(self, window: Window) -> rows.Parameters:
        n, samples = window.values.shape
        centre, scale = _level_and_spread(window.values)
        K = len(self.knots)
        p: rows.Parameters = {
            "centre": centre,
            "scale": scale,
            "farthest": _usual_reach((window.values - centre[:, None]) / scale[:, None]),
            "low": np.zeros(n),  # of z
            "high": np.zeros(n),
            "learnt_until": np.full(n, np.iinfo(np.int64).min, np.int64),
            "equations": np.zeros((n, K, F, F + 1), np.float32),
            "unit": np.zeros((n, K), np.float32),  # mean absolute residual
            "main": np.zeros((n, K, F), np.float32),
            "coefficients": np.zeros((n, K, F), np.float32),
            "errors": np.zeros((n, K, CANDIDATES), np.float32),
            "judged": np.zeros((n, K), np.float32),
            "density": np.ones((n, K), np.float32),  # rows learnt per step of the history
            **seen.start(n, self.calendar),
        }
        z = self._scaled(window, p)
        columns = self._take_in(window, z, p, 0)
        draw = np.random.default_rng(0)
        prior = np.zeros((n, F), np.float32)
        first = min(samples // 8, 2 * seen.MEMORIES[-1])
        began = np.isfinite(z).argmax(axis=1)
        for k, lead in enumerate(self.knots.tolist()):
            usable = samples - lead - first
            if usable < 8:
                p["main"][:, k] = prior
                p["coefficients"][:, k] = prior
                continue
            count = min(MOST_ROWS, usable)
            origins = np.unique(first + ((np.arange(count) + draw.random(count)) * (usable / count)).astype(np.int64))
            p["density"][:, k] = len(origins) / usable
            learnt = _Rows(columns, z, origins, lead, began, self.calendar.season_slots)
            fixed, prior = _priors(prior, lead, learnt.seasonal)
            border = int(samples * (1 - COMPARED_SHARE))
            older, newer = origins + lead < border, origins >= border
            if newer.sum() < 4 or older.sum() < 8:
                older, newer = np.ones(len(origins), bool), np.zeros(len(origins), bool)
            part = learnt.part(older)
            main, unit = prior, part.first_unit(prior)
            weights = part.known
            for _ in range(REWEIGHTINGS + 1):
                equations = part.equations(weights)
                main = _solve(equations, unit, lead, 1.0, prior)
                weights, unit = part.weights(main)
            if newer.any():
                candidates = self._candidates(equations, unit, lead, prior, fixed)
                p["errors"][:, k], p["judged"][:, k] = learnt.part(newer).errors(candidates, unit)
                for _ in range(FULL_REWEIGHTINGS):
                    weights, unit = learnt.weights(main)
                    equations = learnt.equations(weights)
                    main = _solve(equations, unit, lead, 1.0, prior)
            p["equations"][:, k], p["unit"][:, k], p["main"][:, k] = equations, unit[:, 0], main
            p["coefficients"][:, k] = self._blend(p, k, self._candidates(equations, unit, lead, prior, fixed))
            prior = main
        return p

    def _update(self, window: Window, old: rows.Parameters, new_steps: int) -> rows.Parameters:
        p = {key: value.copy() for key, value in old.items()}
        samples = len(window.timestamps)
        if not samples or new_steps < 1:
            return p
        new_steps = min(new_steps, samples)
        z = self._scaled(window, p)
        reach = self.knots[-1] + new_steps + self.context_steps
        columns = self._take_in(window, z, p, samples - new_steps, max(0, samples - reach))
        z = z[:, max(0, samples - reach) :]
        samples = z.shape[1]
        began = np.isfinite(z).argmax(axis=1)
        prior = np.zeros((len(z), F), np.float32)
        fading = np.float32(np.exp(-new_steps / MEMORY_STEPS))
        for k, lead in enumerate(self.knots.tolist()):
            origins = np.arange(max(0, samples - new_steps - lead), samples - lead)
            seasonal = np.ones(len(z), bool)
            if len(origins):
                learnt = _Rows(columns, z, origins, lead, began, 0)
                seasonal = learnt.seasonal
            fixed, prior = _priors(prior, lead, seasonal)
            unit = p["unit"][:, k, None]
            if len(origins):
                count = learnt.known.sum(axis=1)
                candidates = self._candidates(p["equations"][:, k], unit, lead, prior, fixed)
                errors, judged = learnt.errors(candidates, unit)
                before = p["judged"][:, k] * fading
                share = judged / np.maximum(before + judged, np.float32(1e-9))
                p["errors"][:, k] += share[:, None] * (errors - p["errors"][:, k])
                p["judged"][:, k] = before + judged
                weights, fresh_unit = learnt.weights(p["main"][:, k], unit)
                density = p["density"][:, k]
                added = learnt.equations(weights * density[:, None])
                p["equations"][:, k] = fading * p["equations"][:, k] + added
                mass = np.minimum(count / MEMORY_STEPS, 1)[:, None].astype(np.float32)
                unit = np.where(unit > 0, unit + mass * (fresh_unit - unit), fresh_unit)
                p["unit"][:, k] = unit[:, 0]
            main = _solve(p["equations"][:, k], unit, lead, 1.0, prior)
            p["main"][:, k] = main
            p["coefficients"][:, k] = self._blend(
                p, k, self._candidates(p["equations"][:, k], unit, lead, prior, fixed)
            )
            prior = main
        return p

    def _predict(self, window: Window, p: rows.Parameters, steps: int) -> FloatArray:
        z = self._scaled(window, p).astype(np.float64)  # so that a row's forecast does not depend on the others
        leads = np.arange(1, steps + 1)
        calendar = self.calendar
        ahead = min(steps, calendar.week_steps) + max(1, seen.SMOOTH_SECONDS // self.step_seconds)
        profiles = {key: p[key] for key in seen.start(0, calendar)}
        columns, _ = seen.columns(z, window.timestamps, ahead, calendar, profiles, p["learnt_until"])
        newest = np.full(steps, z.shape[1] - 1)
        target, _ = columns.target(newest, leads)
        between = _between(self.knots, leads)
        last = columns.level[:, -1:]
        coefficients = p["coefficients"]
        forecast = (coefficients[:, :, :OWN] @ columns.own[:, :, -1:])[:, :, 0] @ between
        shares = coefficients[:, :, OWN:].transpose(0, 2, 1) @ between
        forecast += np.einsum("nfk,nfk->nk", shares, target)
        forecast = forecast.astype(np.float64)
        low, high = np.minimum(p["low"][:, None], last), np.maximum(p["high"][:, None], last)
        room = ROOM * (high - low)
        newest_value, _ = rows.newest_values(window.values)
        forecast = np.clip(forecast, low - room - last, high + room - last) * p["scale"][:, None]
        forecast += newest_value[:, None]
        lowest = (p["low"] * p["scale"] + p["centre"])[:, None]
        forecast = np.where(lowest >= -1e-9 * p["scale"][:, None], np.maximum(forecast, 0.0), forecast)
        bounded: FloatArray = np.clip(forecast, *self.bounds)
        return bounded

    def _candidates(
        self, equations: Float32Array, unit: Float32Array, lead: int, prior: Float32Array, fixed: list[Float32Array]
    ) -> list[Float32Array]:
        return [*(_solve(equations, unit, lead, strength, prior) for strength in PULLS), *fixed]

    def _blend(self, p: rows.Parameters, k: int, candidates: list[Float32Array]) -> Float32Array:
        """The candidates' mean by their inverse errors; the first alone where they have not been compared."""
        errors = p["errors"][:, k].astype(np.float64)
        best = np.maximum(errors.min(axis=1, keepdims=True), 1e-12)
        weight = (errors / best + 1e-9) ** -POWER
        weight = np.where(p["judged"][:, k, None] > 0, weight, np.eye(1, CANDIDATES))
        weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
        blended: Float32Array = np.einsum("nc,cnf->nf", weight, np.stack(candidates))
        return blended

    def _take_in(self, window: Window, z: Numbers, p: rows.Parameters, first_new: int, start: int = 0) -> seen.Columns:
        """The features of the columns from `start` on; range and profiles of `p` then know the new ones."""
        fresh = np.nan_to_num(z[:, first_new:])
        p["low"] = np.minimum(p["low"], fresh.min(axis=1, initial=0.0))
        p["high"] = np.maximum(p["high"], fresh.max(axis=1, initial=0.0))
        profiles = {key: p[key] for key in seen.start(0, self.calendar)}
        columns, after = seen.columns(
            z[:, start:], window.timestamps[start:], 0, self.calendar, profiles, p["learnt_until"]
        )
        p.update(after)
        if len(window.timestamps):
            p["learnt_until"] = np.maximum(p["learnt_until"], window.last)
        return columns

    def _scaled(self, window: Window, p: rows.Parameters) -> Float32Array:
        z = (window.values - p["centre"][:, None]) / p["scale"][:, None]
        far = p["farthest"][:, None]
        return np.where(np.isfinite(z), np.clip(z, -far, far), np.nan).astype(np.float32)

    def _floats(self, window: Window) -> int:
        """Blocks of a few dozen series: their features, and the rows of one knot."""
        return max(1, rows.BLOCK_FLOATS * len(window.timestamps) * F // (4 * BLOCK_FLOATS))


class _Rows:
    """X [n, F, R] and the change y [n, R] from R origins to one lead; known [n, R] is 1 where a row can be learnt."""

    def __init__(
        self, columns: seen.Columns, z: Numbers, origins: IntArray, lead: int, began: IntArray, enough: int
    ) -> None:
        X, profiled = columns.at(origins, lead)
        y = z[:, origins + lead] - columns.level[:, origins]
        known = np.isfinite(y) & (origins >= began[:, None])
        # Where the profile is known, rows from before it was would teach what it says already.
        often = (known & profiled).sum(axis=1) >= max(1, min(enough, len(origins) // 3))
        known &= profiled | ~often[:, None]
        self.X, self.y = X, np.where(known, y, np.float32(0))
        self.known = known.astype(np.float32)
        self.seasonal = often

    def part(self, mask: NDArray[np.bool_]) -> "_Rows":
        part = object.__new__(_Rows)
        part.X, part.y, part.known = self.X[:, :, mask], self.y[:, mask], self.known[:, mask]
        part.seasonal = self.seasonal
        return part

    def equations(self, weights: Float32Array) -> Float32Array:
        """Gram matrix and right side, [n, F, F + 1]."""
        weighted = self.X * weights[:, None]
        out = np.empty((len(weighted), F, F + 1), np.float32)
        np.matmul(weighted, self.X.transpose(0, 2, 1), out=out[:, :, :F])
        out[:, :, F] = (weighted @ self.y[:, :, None])[:, :, 0]
        return out

    def residual(self, coefficients: Float32Array) -> Float32Array:
        size: Float32Array = np.abs(self.y - (coefficients[:, None] @ self.X)[:, 0]) * self.known
        return size

    def weights(
        self, coefficients: Float32Array, typical: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Weights [n, R] of least absolute deviations, 1 for a typical row, and the mean absolute residual [n, 1]."""
        size = self.residual(coefficients)
        unit = ROOT_TO_MEAN * ((np.sqrt(size)).sum(axis=1) / np.maximum(self.known.sum(axis=1), 1))[:, None] ** 2
        unit = np.where(unit > 0, unit, np.float32(1))
        by = unit if typical is None else np.where(typical > 0, typical, unit)
        return self.known * (by / np.maximum(size, SMALLEST_RESIDUAL * by)), unit

    def first_unit(self, prior: Float32Array) -> Float32Array:
        """A guess of the residual's size, before anything is learnt."""
        _, unit = self.weights(prior)
        change = (
            ROOT_TO_MEAN * (np.sqrt(np.abs(self.y)).sum(axis=1) / np.maximum(self.known.sum(axis=1), 1))[:, None] ** 2
        )
        guess = np.minimum(np.float32(0.7) * unit, change)
        return np.where(guess > 0, guess, np.float32(1))

    def errors(self, candidates: list[Float32Array], unit: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Mean absolute error of each candidate [n, C], and the number of rows [n]."""
        count = self.known.sum(axis=1)
        stacked = np.stack(candidates, axis=1) @ self.X
        size = np.abs(self.y[:, None] - stacked) * self.known[:, None]
        size = np.minimum(size, MOST_ERROR * unit[:, None])
        return size.sum(axis=2) / np.maximum(count, 1)[:, None], count


def _solve(
    equations: Float32Array, unit: Float32Array, lead: int, strength: float, prior: Float32Array
) -> Float32Array:
    """Coefficients [n, F], drawn towards the prior by the noise of a row."""
    gram = equations[:, :, :F].astype(np.float64)
    diagonal = np.einsum("nff->nf", gram)
    pull = strength * PULL * (1 + lead / LEAD_STEPS) * unit.astype(np.float64) ** 2
    pull = pull + 1e-6 * diagonal.max(axis=1, keepdims=True) + 1e-12
    index = np.arange(F)
    wanted = equations[:, :, F] + pull * prior
    gram[:, index, index] += pull
    solved: Float32Array = np.linalg.solve(gram, wanted[:, :, None])[:, :, 0].astype(np.float32)
    return solved


def _priors(before: Float32Array, lead: int, seasonal: NDArray[np.bool_]) -> tuple[list[Float32Array], Float32Array]:
    """The candidates that learn nothing, [n, F] each, and what to draw the others towards."""
    at = {name: index for index, name in enumerate(seen.NAMES)}
    fading = FADING ** (lead / 12)
    profile = np.zeros(F, np.float32)
    profile[at["target_slot"]], profile[at["target_smooth_slot"]] = 0.4, 0.6
    profile[at["smooth_slot"]], profile[at["short_deviation"]] = -fading / 2, fading / 2
    week, day = profile.copy(), profile.copy()
    week[at["target_last_week"]], week[at["last_week"]] = WEEK_SHARE, -fading * WEEK_SHARE
    day[at["target_last_day"]] = DAY_SHARE
    fixed = [np.repeat(each[None], len(before), axis=0) for each in (profile, week, day)]
    share = np.where(seasonal, min(1.0, np.log(lead) / np.log(PROFILE_LEAD)), 0.0).astype(np.float32)[:, None]
    return fixed, (1 - share) * before + share * profile


def _knots(horizon_steps: int) -> IntArray:
    """Leads that have coefficients of their own.

    >>> _knots(30).tolist()
    [1, 2, 4, 8, 12, 24, 30]
    """
    leads = [1, 2, 4, 8, 12]
    while leads[-1] < horizon_steps:
        leads.append(2 * leads[-1])
    return np.array([*(lead for lead in leads if lead < horizon_steps), horizon_steps], np.int64)


def _between(knots: IntArray, leads: IntArray) -> Float32Array:
    """The matrix [K, leads] that interpolates linearly in the logarithm of the lead; the last knot's beyond it."""
    return np.stack([np.interp(np.log(leads), np.log(knots), unit) for unit in np.eye(len(knots))]).astype(np.float32)


def _level_and_spread(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median and mean absolute distance from it per row; spread 1 where that is nothing but rounding."""
    level = rows.nanmedian(values)
    distance = np.abs(values - level[:, None])
    finite = np.isfinite(distance)
    spread = np.where(finite, distance, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return level, np.where(spread > 1e-14 * np.abs(level), spread, 1.0)


def _usual_reach(z: FloatArray) -> FloatArray:
    """The distance beyond which a value [n, T] counts as a spike and is drawn in to, [n]."""
    size = np.sort(np.where(np.isfinite(z), np.abs(z), -1.0), axis=1)
    if not size.shape[1]:
        return np.full(len(z), LARGEST)
    count = (size >= 0).sum(axis=1)
    rank = size.shape[1] - 1 - (count * SPIKES).astype(np.int64)
    usual = SPIKE * size[np.arange(len(z)), rank]
    farthest: FloatArray = np.clip(np.where(usual > 0, usual, size[:, -1]), 1.0, LARGEST)
    return farthest


def _median(values: Float32Array) -> Float32Array:
    """Over the first axis, of what is finite; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=0)
    ordered = np.sort(values, axis=0)  # NaN last
    middle: Float32Array = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    return middle
