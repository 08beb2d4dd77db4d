"""The default model: one small robust regression per lead on recent averages and seasonal profiles, all series at once.

    value(lead) - last = coefficients(lead) . features        (`models.seasonal_ridge_features`)

Per knot of leads (those between are interpolated) the coefficients have the least absolute error, by reweighted normal
equations (Schlossmacher 1973), which are drawn towards the knot before and, for leads of hours, towards the daily
profile, as strongly as the noise of the series asks for (ridge as a Bayesian prior on shares to believe). Several
strengths of that pull, and the profiles on their own, are compared per series on its newest rows, before those are
learnt as well, and averaged by the inverse of their errors. Since all are linear in the same features, the average is
one set of coefficients.

The equations add up and fade: an update adds its new rows and solves again, and costs what is new. On 890 operations
series this has MASE 0.34 / 0.53 / 0.77 (1 step, 12 steps, a day ahead) where the seasonal naive has 0.85 / 0.91 / 1.07;
a fit of two weeks of five minutes takes 2 ms a series, an hour's update 0.1 ms.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentinel_core import features
from sentinel_core.models import rows
from sentinel_core.models import seasonal_ridge_features as seen
from sentinel_core.models.base import Residuals
from sentinel_core.models.five_methods import FiveMethods
from sentinel_core.models.seasonal_ridge_averages import Numbers
from sentinel_core.models.seasonal_ridge_candidates import CANDIDATES, PULLS, averaged, priors, towards, unlearnt
from sentinel_core.models.seasonal_ridge_equations import OWN, F, Float32Array, Rows, candidates_of, learn, solve
from sentinel_core.models.seasonal_ridge_scale import LARGEST, level_and_spread, usual_reach
from sentinel_core.windows import FloatArray, IntArray, Window

MOST_ROWS = 640  # of a knot: neighbouring rows say the same, and more of them cost time
WARM_UP = seen.MEMORIES[-1]  # columns before an update's first origin, for its averages
UPDATE_ROWS = 160  # series updated at once: fewer are slower, more leave the caches
TURNS = 6  # an update solves a sixth of the far leads and strong pulls again
MANY_ROWS = 20  # new ones for each step of the lead: everything is solved again
FIRST_KNOTS, KNOT_RATIO = (1, 3, 7, 14), 3.0  # leads with coefficients of their own; twice as many are no better
FEWEST_ROWS = 8  # of a knot; below, its prior is the answer
OLDER_ROWS = 150  # of fewer, 23 coefficients know too much for their residuals to tell anything
KNOWS_MORE = 0.98  # of the errors of what learnt the older part alone: the fit has learnt the newest one too
COMPARED_SHARE = 0.25  # of the history: the newest rows, on which the candidates are compared
ROOM = 0.1  # forecasts leave the range seen by at most this share of it
BLOCK_FLOATS = 1 << 20
MEMORY_STEPS = 4_032  # at least, and at least two weeks: an update fades what is older


class SeasonalRidgeModel(FiveMethods):
    """Robust regression per lead on recent averages and the patterns of hour, day and week.

    A watch's `holidays` are learnt and forecast as the last day of a weekend.

    >>> model = SeasonalRidgeModel("1h", "6h", "4h")
    >>> times = np.arange(480) * 3600
    >>> daily = np.sin(2 * np.pi * times / 86400)
    >>> model.fit_window(Window(np.array([7]), times[:460], daily[None, :460], 3600))
    >>> forecast = model.predict_window(Window(np.array([7]), times[260:460], daily[None, 260:460], 3600), 6)
    >>> bool(np.abs(forecast - daily[460:466]).max() < 0.05)
    True
    """

    def __init__(
        self, granularity: str, horizon: str, lookback: str, holidays: str | None = None, timezone: str = "UTC"
    ) -> None:
        special = {} if holidays is None else {"holidays": holidays, "timezone": timezone}
        super().__init__(granularity, horizon, lookback, **special)
        self.calendar = seen.Calendar(self.step_seconds, holidays, timezone)
        self.knots = _knots(self.horizon_steps)
        self.memory_steps = max(MEMORY_STEPS, 14 * features.DAY_SECONDS // self.step_seconds)

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

    def fit_and_judge(self, window: Window) -> Residuals | None:
        """`fit_window`; residuals of the rows it learnt.

        Of the newest rows they are those that candidates learnt from the older part alone had when they were compared.
        Those of the older rows are the fit's own: too small, and made larger by as much as its own of the newest rows
        are too small, the median over series. A calibration from them costs no second fit and knows the whole history.
        """
        n, K = len(window.fingerprints), len(self.knots)
        samples = len(window.timestamps)
        origins = _origins(samples)
        found: Float32Array = np.full((n, len(origins), K), np.nan, np.float32)
        too_small: FloatArray = np.full((n, K), np.nan)
        position = {int(fingerprint): row for row, fingerprint in enumerate(window.fingerprints)}

        def learn(part: Window, _: rows.Parameters | None) -> rows.Parameters:
            first = position[int(part.fingerprints[0])] if len(part.fingerprints) else 0
            block = slice(first, first + len(part.fingerprints))
            return self._fit(part, found[block], too_small[block])

        self.parameters = rows.in_blocks(window, learn, None, self._floats(window))
        self.fingerprints = window.fingerprints.copy()
        if not np.isfinite(found).any(axis=(0, 1)).all():
            return None  # too short a history to compare anything at the longest leads, and to cost much
        larger = np.maximum(1.0, np.exp(rows.nanmedian(np.log(too_small).T)))
        for k, lead in enumerate(self.knots.tolist()):
            _, newer, count = _parts(origins, samples, lead)
            found[:, : newer - count, k] *= np.float32(larger[k])
        used = np.isfinite(found).any(axis=(0, 2))
        scale = KNOWS_MORE * self.parameters["scale"][:, None, None]
        errors: FloatArray = found[:, used].astype(np.float64) * scale
        return Residuals(errors, self.knots, int(used.sum()) * (samples - int(origins[0])) // len(origins))

    def update_window(self, window: Window, new_steps: int) -> None:
        """Add the rows whose target is among the last `new_steps` columns; what is known fades by as much."""
        self.check_rows(window)
        part = window.newest(int(self.knots[-1]) + new_steps + WARM_UP)
        self.parameters = rows.in_blocks(
            part,
            lambda some, old: self._update(some, old or {}, new_steps),
            self.parameters,
            max(self._floats(part), rows.BLOCK_FLOATS // UPDATE_ROWS, F * len(self.knots) * new_steps // 12),
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

    def forecast_from(self, window: Window, origins: IntArray, leads: IntArray) -> FloatArray:
        """What `predict_window` says at each of some columns of the window [n, origins, leads], all in one pass."""
        self.check_rows(window)
        start = max(0, int(origins[0]) + 1 - self.context_steps)
        seen_part = window.columns(slice(start, int(origins[-1]) + 1))
        out = np.empty((len(window.fingerprints), len(origins), len(leads)))
        for block in rows.blocks(len(out), max(self._floats(seen_part), len(origins) * len(leads))):
            index = np.arange(block.start, block.stop)
            old = {key: value[block] for key, value in self.parameters.items()}
            out[block] = self._forecast(seen_part.rows(index), old, origins - start, leads)
        return out

    def adopt(self, window: Window) -> Self:
        """The median coefficients and profiles of the model's series, around the window's own level and spread."""
        n = len(window.fingerprints)
        pooled: dict[str, NDArray[Any]] = {}
        for key, value in self.parameters.items():
            middle = _median(value) if value.dtype == np.float32 else np.max(value, axis=0)
            pooled[key] = np.repeat(np.asarray(middle, value.dtype)[None], n, axis=0)
        pooled["centre"], pooled["scale"] = level_and_spread(window.values)
        pooled["farthest"] = np.full(n, LARGEST)
        z = self._scaled(window, pooled)
        known = np.nan_to_num(z)
        pooled["low"], pooled["high"] = known.min(axis=1, initial=0.0), known.max(axis=1, initial=0.0)
        return self.with_rows(window.fingerprints, pooled)

    # ---- one block of series at a time
    def _fit(
        self, window: Window, found: Float32Array | None = None, too_small: FloatArray | None = None
    ) -> rows.Parameters:
        n, samples = window.values.shape
        centre, scale = level_and_spread(window.values)
        K = len(self.knots)
        p: rows.Parameters = {
            "centre": centre,
            "scale": scale,
            "farthest": usual_reach((window.values - centre[:, None]) / scale[:, None]),
            "low": np.zeros(n),  # of z
            "high": np.zeros(n),
            "learnt_until": np.full(n, np.iinfo(np.int64).min, np.int64),
            "equations": np.zeros((n, K, F, F + 1), np.float32),
            "unit": np.zeros((n, K), np.float32),  # mean absolute residual
            "candidates": np.zeros((n, K, len(PULLS), F), np.float32),
            "coefficients": np.zeros((n, K, F), np.float32),
            "errors": np.zeros((n, K, CANDIDATES), np.float32),
            "judged": np.zeros((n, K), np.float32),
            "density": np.ones((n, K), np.float32),  # rows learnt per step of the history
            **seen.start(n, self.calendar),
        }
        z = self._scaled(window, p)
        columns = self._take_in(window, z, p, 0)
        prior = np.zeros((n, F), np.float32)
        origins = _origins(samples)
        learnt = Rows(columns, z, origins, samples)
        for k, lead in enumerate(self.knots.tolist()):
            older, newer, count = _parts(origins, samples, lead)
            if count < FEWEST_ROWS:
                p["candidates"][:, k] = prior[:, None]
                p["coefficients"][:, k] = prior
                continue
            p["density"][:, k] = count / (samples - lead - origins[0])
            seasonal = learnt.aim(lead, self.calendar.season_slots)
            fixed, prior = priors(prior, lead, seasonal)
            main, unit, held_back = prior, learnt.first_unit(prior), None
            if count - newer >= 4 and older >= 8:
                older_rows = learnt.part(slice(0, older))
                equations, unit, main, _ = learn(older_rows, main, unit, lead, prior)
                candidates = [main, *candidates_of(equations, unit, lead, prior, PULLS[1:])]
                compared = learnt.part(slice(newer, count))
                half = (count - newer) // 2
                halves = compared.part(slice(0, half)), compared.part(slice(half, None))
                judged = [part.errors([*candidates, *fixed], unit) for part in halves]
                p["judged"][:, k] = judged[0][1] + judged[1][1]
                total = judged[0][0] * judged[0][1][:, None] + judged[1][0] * judged[1][1][:, None]
                p["errors"][:, k] = total / np.maximum(p["judged"][:, k, None], 1)
                if found is not None:  # averaged by their errors on the other half of the rows
                    averages = [averaged(*each, [*candidates, *fixed]) for each in judged[::-1]]
                    signed = [part.signed(each) for part, each in zip(halves, averages, strict=True)]
                    held_back = np.concatenate(signed, axis=1)
            _, unit, main, weights = learn(learnt, main, unit, lead, prior)
            equations = learnt.equations(weights)
            p["equations"][:, k], p["unit"][:, k] = equations, unit[:, 0]
            candidates = candidates_of(equations, unit, lead, prior, PULLS)
            p["candidates"][:, k] = np.stack(candidates, axis=1)
            p["coefficients"][:, k] = self._blend(p, k, [*candidates, *fixed])
            prior = main
            if found is not None and too_small is not None and held_back is not None:
                own = learnt.signed(p["coefficients"][:, k])
                too_small[:, k] = _ratio(held_back, own[:, newer:])
                if newer >= OLDER_ROWS:
                    found[:, -count : newer - count, k] = own[:, :newer]
                found[:, newer - count :, k] = held_back
        return p

    def _update(self, window: Window, old: rows.Parameters, new_steps: int) -> rows.Parameters:
        p = dict(old)
        samples = len(window.timestamps)
        if not samples or new_steps < 1:
            return p
        new_steps = min(new_steps, samples)
        self._reach_farther(window.newest(new_steps), window, p)
        z = self._scaled(window, p)
        columns = self._take_in(window, z, p, samples - new_steps)
        n, K = len(z), len(self.knots)
        equations, candidates, errors, judged, unit, density = (
            p[key].reshape(n * K, *p[key].shape[2:])
            for key in ("equations", "candidates", "errors", "judged", "unit", "density")
        )
        fixed = np.stack([unlearnt(lead) for lead in self.knots.tolist()])
        compared = [*candidates.transpose(1, 0, 2), *np.tile(fixed, (n, 1, 1)).transpose(1, 0, 2)]
        learnt = Rows.newest(columns, z, self.knots, new_steps)
        fading = np.float32(np.exp(-new_steps / self.memory_steps))
        fresh_errors, count = learnt.errors(compared, unit[:, None])
        known, fresh = judged * fading, count * density
        share = fresh / np.maximum(known + fresh, np.float32(1e-9))
        errors, judged = errors + share[:, None] * (fresh_errors - errors), known + fresh
        weights, fresh_unit = learnt.weights(learnt.residual(candidates[:, 0]), unit[:, None])
        added = learnt.equations(weights * density[:, None])
        added += fading * equations
        mass = np.where(unit > 0, np.minimum(count / self.memory_steps, 1), count > 0).astype(np.float32)
        unit = unit + mass * (fresh_unit[:, 0] - unit)

        at, strength = self._due(int(window.last // self.step_seconds // new_steps), new_steps)
        seasonal = np.asarray(np.isfinite(p["season_now"][:, 0]).any(axis=1), bool)
        before = np.concatenate([np.zeros((n, 1, F), np.float32), p["candidates"][:, :-1, 0]], axis=1)
        drawn = np.stack([towards(before[:, k], self.knots[k], fixed[k], seasonal) for k in at], axis=1)
        solved = solve(
            added.reshape(n, K, F, F + 1)[:, at].reshape(-1, F, F + 1),
            unit.reshape(n, K)[:, at].reshape(-1, 1),
            np.tile(self.knots[at], n)[:, None],
            np.tile(np.take(PULLS, strength), n)[:, None],
            drawn.reshape(-1, F),
        )
        p["candidates"] = p["candidates"].copy()
        p["candidates"][:, at, strength] = solved.reshape(n, len(at), F)
        compared[: len(PULLS)] = p["candidates"].reshape(n * K, len(PULLS), F).transpose(1, 0, 2)
        blended = averaged(errors, judged, compared)
        new = {"equations": added, "errors": errors, "judged": judged, "unit": unit, "coefficients": blended}
        return p | {key: value.reshape(p[key].shape) for key, value in new.items()}

    def _due(self, turn: int, new_steps: int) -> tuple[IntArray, IntArray]:
        """Which knots an update solves again, and with which pull: what a few rows change is little.

        Each near lead for its main candidate, and whatever has many new rows; of the others each in its turn.
        """
        knot, strength = (index.ravel() for index in np.indices((len(self.knots), len(PULLS))))
        due = (self.knots[knot] <= new_steps) & (strength == 0) | (new_steps >= MANY_ROWS * self.knots[knot])
        others = np.flatnonzero(~due)
        due[others[turn % TURNS :: TURNS]] = True
        return knot[due], strength[due]

    def _predict(self, window: Window, p: rows.Parameters, steps: int) -> FloatArray:
        newest = np.array([len(window.timestamps) - 1])
        return self._forecast(window, p, newest, np.arange(1, steps + 1))[:, 0]

    def _forecast(self, window: Window, p: rows.Parameters, origins: IntArray, leads: IntArray) -> FloatArray:
        """From some columns of the window, [n, origins, leads]."""
        z = self._scaled(window, p)
        newest = bool((origins == len(window.timestamps) - 1).all())
        if newest:
            z = z.astype(np.float64)  # so that a row's forecast does not depend on the rows beside it
        calendar = self.calendar
        ahead = min(int(leads[-1]), calendar.week_steps) + max(1, seen.SMOOTH_SECONDS // self.step_seconds)
        profiles = {key: p[key] for key in seen.start(0, calendar)}
        columns, _ = seen.columns(z, window.timestamps, ahead, calendar, profiles, p["learnt_until"], newest=newest)
        between = _between(self.knots, leads)
        last = columns.level[:, origins]
        coefficients = p["coefficients"]
        forecast = (coefficients[:, :, :OWN] @ (columns.own if newest else columns.own[:, :, origins])).transpose(
            0, 2, 1
        ) @ between
        shares = coefficients[:, :, OWN:].transpose(0, 2, 1) @ between
        target = np.empty((len(z), len(seen.TARGET), len(leads)), z.dtype)
        for k, origin in enumerate(origins):
            columns.aim(np.full(len(leads), origin), leads, last[:, k : k + 1], target)
            forecast[:, k] += (shares * target).sum(axis=1)
        low, high = (p[key][:, None] for key in ("low", "high"))
        low, high = np.minimum(low, last)[:, :, None], np.maximum(high, last)[:, :, None]
        room = ROOM * (high - low)
        change = np.clip(forecast.astype(np.float64), low - room - last[:, :, None], high + room - last[:, :, None])
        values = features.carry_forward(window.values)[:, origins, None] + change * p["scale"][:, None, None]
        lowest = p["low"] * p["scale"] + p["centre"]
        positive = lowest >= -1e-9 * p["scale"]
        return np.where(positive[:, None, None], np.maximum(values, 0.0), values)

    def _blend(self, p: rows.Parameters, k: int, candidates: list[Float32Array]) -> Float32Array:
        return averaged(p["errors"][:, k], p["judged"][:, k], candidates)

    def _take_in(self, window: Window, z: Numbers, p: rows.Parameters, first_new: int) -> seen.Columns:
        """The features of all columns; range and profiles of `p` then know the new ones."""
        fresh = np.nan_to_num(z[:, first_new:])
        p["low"] = np.minimum(p["low"], fresh.min(axis=1, initial=0.0))
        p["high"] = np.maximum(p["high"], fresh.max(axis=1, initial=0.0))
        profiles = {key: p[key] for key in seen.start(0, self.calendar)}
        columns, after = seen.columns(z, window.timestamps, 0, self.calendar, profiles, p["learnt_until"])
        p.update(after)
        if len(window.timestamps):
            p["learnt_until"] = np.maximum(p["learnt_until"], window.last)
        return columns

    def _reach_farther(self, fresh: Window, window: Window, p: rows.Parameters) -> None:
        """Where new values are beyond what counts as usual, see whether they are no spikes but a new level."""
        centre, scale = p["centre"][:, None], p["scale"][:, None]
        beyond = np.abs(fresh.values - centre) > p["farthest"][:, None] * scale
        if beyond.any():
            p["farthest"] = np.maximum(p["farthest"], usual_reach((window.values - centre) / scale))

    def _scaled(self, window: Window, p: rows.Parameters) -> Float32Array:
        z = (window.values - p["centre"][:, None]) / p["scale"][:, None]
        far = p["farthest"][:, None]
        return np.where(np.isfinite(z), np.clip(z, -far, far), np.nan).astype(np.float32)

    def _floats(self, window: Window) -> int:
        """Blocks of a few dozen series: their features, and the rows of one knot."""
        return max(1, rows.BLOCK_FLOATS * len(window.timestamps) * F // (4 * BLOCK_FLOATS))


def _origins(samples: int) -> IntArray:
    """Columns to learn from, evenly spread but for chance: a stride would always see the same minutes of the hour."""
    first = min(samples // 8, 2 * seen.MEMORIES[-1])
    usable = max(0, samples - 1 - first)
    count = min(MOST_ROWS, usable)
    jitter = np.random.default_rng(0).random(count)
    return first + ((np.arange(count) + jitter) * (usable / max(1, count))).astype(np.int64)


def _parts(origins: IntArray, samples: int, lead: int) -> tuple[int, int, int]:
    """How many rows have a target before the newest part of the history, an origin before it, and a target at all."""
    border = int(samples * (1 - COMPARED_SHARE))
    older, newer, count = np.searchsorted(origins, [border - lead, border, samples - lead]).tolist()
    return older, min(newer, count), count


def _ratio(one: Float32Array, other: Float32Array) -> FloatArray:
    """How many times larger than the other's the residuals of one are [n]; NaN where either has none but zeros."""
    size, of = (np.abs(np.nan_to_num(each)).sum(axis=1, dtype=np.float64) for each in (one, other))
    return np.where((size > 0) & (of > 0), size / np.where(of > 0, of, 1.0), np.nan)


def _knots(horizon_steps: int) -> IntArray:
    """Leads that have coefficients of their own.

    >>> _knots(30).tolist()
    [1, 3, 7, 14, 30]
    """
    leads = list(FIRST_KNOTS)
    while leads[-1] < horizon_steps:
        leads.append(round(KNOT_RATIO * leads[-1]))
    return np.array([*(lead for lead in leads if lead < horizon_steps), horizon_steps], np.int64)


def _between(knots: IntArray, leads: IntArray) -> Float32Array:
    """The matrix [K, leads] that interpolates linearly in the logarithm of the lead; the last knot's beyond it."""
    return np.stack([np.interp(np.log(leads), np.log(knots), unit) for unit in np.eye(len(knots))]).astype(np.float32)


def _median(values: Float32Array) -> Float32Array:
    """Over the first axis, of what is finite; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=0)
    ordered = np.sort(values, axis=0)  # NaN last
    middle: Float32Array = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    return middle
