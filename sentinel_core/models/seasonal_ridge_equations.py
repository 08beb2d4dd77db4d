"""Equations of least absolute error for many series at once: weighted, added up, drawn towards a prior, and solved."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models import seasonal_ridge_features as seen
from sentinel_core.models.seasonal_ridge_averages import Numbers
from sentinel_core.windows import FloatArray, IntArray

Float32Array = NDArray[np.float32]

F = len(seen.NAMES)
OWN = len(seen.OWN)
SHORTER = np.float32(0.3)  # a step after one that led too far
STEPS = 4  # after the first solution, each taken only where it makes the residuals smaller; none is 2-5 % worse
SMALLEST_RESIDUAL = 0.1  # of the mean absolute residual: no row weighs more than ten times the typical one
PULL = 16.0  # a coefficient is thought to be within a quarter of its prior, measured in the noise of one row
LEAD_STEPS = 12.0  # neighbouring rows of so long a lead count half
ROOT_TO_MEAN = 1.18  # (mean of roots)^2 to mean size, of normal residuals: spikes hardly count
MOST_ERROR = np.float32(20)  # units that one row counts when candidates are compared


class Rows:
    """X [n, F, R], the change y [n, R] from R origins to one lead, and known [n, R]: 1 where a row can be learnt.

    number: [n], how many are known

    The origins' own features are gathered once; `aim` adds what depends on the lead, in place.
    """

    def __init__(self, columns: seen.Columns, z: Numbers, origins: IntArray, samples: int) -> None:
        self.columns, self.z, self.origins, self.samples = columns, z, origins, samples
        self.space = np.empty((len(z), F, len(origins)), np.float32)
        at = seen.as_slice(origins)
        if isinstance(at, slice):
            self.space[:, :OWN] = columns.own[:, :, at]
        else:
            for k in range(OWN):
                np.take(columns.own[:, k], origins, axis=1, out=self.space[:, k], mode="clip")
        self.level = columns.level[:, at]
        self.profiled = columns.known[:, at]
        self.began = origins >= np.isfinite(z).argmax(axis=1)[:, None]
        self.X, self.y, self.known, self.number = self.space, self.level, self.level, np.zeros(len(z), np.float32)

    @classmethod
    def newest(cls, columns: seen.Columns, z: Numbers, leads: IntArray, count: int) -> "Rows":
        """The rows whose targets are the last `count` columns, as n * K: the K leads of a series beside each other."""
        n, samples = z.shape
        shape = n, len(leads), count
        X = np.zeros((n, len(leads), F, count), np.float32)
        level, profiled = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for k, lead in enumerate(leads.tolist()):
            first = samples - count - lead
            missing = max(0, -first)
            if missing >= count:
                continue
            origins = np.arange(first + missing, samples - lead)
            at = slice(first + missing, samples - lead)
            X[:, k, :OWN, missing:] = columns.own[:, :, at]
            level[:, k, missing:] = columns.level[:, at]
            aimed = columns.aim(origins, lead, columns.level[:, at], X[:, k, OWN:, missing:])
            profiled[:, k, missing:] = aimed & columns.known[:, at]
        origin = samples - count - leads[:, None] + np.arange(count)
        began = np.maximum(np.isfinite(z).argmax(axis=1), 0)[:, None, None]
        y = z[:, None, samples - count :] - level
        known = np.isfinite(y) & (origin >= 0) & (origin >= began)
        known &= profiled | ~(known & profiled).any(axis=2, keepdims=True)
        rows = object.__new__(cls)
        rows.X = X.reshape(-1, F, count)
        rows.y = np.where(known, y, np.float32(0)).reshape(-1, count)
        rows.known = known.astype(np.float32).reshape(-1, count)
        rows.number = rows.known.sum(axis=1)
        return rows

    def aim(self, lead: int, enough: int) -> NDArray[np.bool_]:
        """Turn to a lead; which series have `enough` rows with a profile [n], and learn from no others."""
        count = int(np.searchsorted(self.origins, self.samples - lead))
        origins = self.origins[:count]
        profiled = self.columns.aim(origins, lead, self.level[:, :count], self.space[:, OWN:, :count])
        profiled &= self.profiled[:, :count]
        y = self.z[:, origins + lead] - self.level[:, :count]
        known = np.isfinite(y) & self.began[:, :count]
        # Where the profile is known, rows from before it was would teach what it says already.
        often: NDArray[np.bool_] = (known & profiled).sum(axis=1) >= max(1, min(enough, count // 3))
        known &= profiled | ~often[:, None]
        self.X = self.space[:, :, :count]
        self.y = np.where(known, y, np.float32(0))
        self.known = known.astype(np.float32)
        self.number = self.known.sum(axis=1)
        return often

    def part(self, some: slice) -> "Rows":
        """Some of the rows, to learn from or to compare on."""
        part = object.__new__(Rows)
        part.X, part.y, part.known = self.X[:, :, some], self.y[:, some], self.known[:, some]
        part.number = part.known.sum(axis=1)
        return part

    def equations(self, weights: Float32Array) -> Float32Array:
        """Gram matrix and right side, [n, F, F + 1]."""
        root = np.sqrt(weights)
        weighted = self.X * root[:, None]
        out = np.empty((len(weighted), F, F + 1), np.float32)
        out[:, :, :F] = weighted @ weighted.transpose(0, 2, 1)  # known to be symmetric, it costs half
        out[:, :, F] = _times(weighted, root * self.y)
        return out

    def signed(self, coefficients: Float32Array) -> Float32Array:
        """The residuals [n, R], NaN where there is no target."""
        return np.where(self.known > 0, self.residual(coefficients), np.float32(np.nan))

    def residual(self, coefficients: Float32Array) -> Float32Array:
        """What the coefficients leave [n, R]; of rows that are not known it means nothing."""
        residual: Float32Array = self.y - (coefficients[:, None] @ self.X)[:, 0]
        return residual

    def weights(self, residual: Float32Array, typical: Float32Array | None = None) -> tuple[Float32Array, Float32Array]:
        """Weights [n, R] of least absolute deviations, 1 for a typical row, and the mean absolute residual [n, 1]."""
        size = np.abs(residual) * self.known
        unit = self._typical(size)
        by = unit if typical is None else np.where(typical > 0, typical, unit)
        weights = self.known * (by / np.maximum(size, SMALLEST_RESIDUAL * by))
        return weights.astype(np.float32, copy=False), unit

    def _typical(self, size: Float32Array) -> Float32Array:
        """The mean absolute residual [n, 1] of those that are no spikes; 1 where all are 0."""
        root = np.sqrt(size).sum(axis=1) / np.maximum(self.number, 1)
        typical: Float32Array = np.asarray(np.where(root > 0, ROOT_TO_MEAN * root**2, 1.0), np.float32)[:, None]
        return typical

    def first_unit(self, prior: Float32Array) -> Float32Array:
        """A guess of the residual's size, before anything is learnt."""
        _, unit = self.weights(self.residual(prior))
        guess: Float32Array = np.minimum(np.float32(0.7) * unit, self._typical(np.abs(self.y)))
        return guess

    def errors(self, candidates: list[Float32Array], unit: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Mean absolute error of each candidate [n, C], and the number of rows [n]."""
        stacked = np.stack(candidates, axis=1) @ self.X
        size = np.abs(self.y[:, None] - stacked) * self.known[:, None]
        size = np.minimum(size, MOST_ERROR * unit[:, None])
        return size.sum(axis=2) / np.maximum(self.number, 1)[:, None], self.number


def _pull(equations: Float32Array, unit: Float32Array, lead: int | IntArray) -> Float32Array:
    """How strongly each coefficient is drawn to its prior [n, 1]: by the noise of a row; lead: one, or [n, 1]."""
    largest = np.einsum("nff->nf", equations[:, :, :F]).max(axis=1, keepdims=True)
    pull: Float32Array = np.asarray(PULL * (1 + lead / LEAD_STEPS), np.float32) * unit**2 + np.float32(1e-6) * largest
    return pull + np.float32(1e-12)


def _inverse(equations: Float32Array, pull: Float32Array) -> Float32Array:
    gram = equations[:, :, :F].astype(np.float64)
    index = np.arange(F)
    gram[:, index, index] += pull
    inverse: Float32Array = np.linalg.inv(gram).astype(np.float32)
    return inverse


def _times(matrix: Float32Array, vector: Float32Array) -> Float32Array:
    product: Float32Array = (matrix @ vector[:, :, None])[:, :, 0]
    return product


def learn(
    learnt: Rows, main: Float32Array, unit: Float32Array, lead: int, prior: Float32Array
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Equations, the size of a residual [n, 1], the coefficients [n, F] of least absolute error, and their weights.

    From a first guess `main`. Weights change less than residuals do: after one set of equations, steps with its inverse
    and the newest weights.
    """
    weights, _ = learnt.weights(learnt.residual(main))
    equations = learnt.equations(weights)
    pull = _pull(equations, unit, lead)
    inverse = _inverse(equations, pull)
    main = _times(inverse, equations[:, :, F] + pull * prior)
    residual = learnt.residual(main)
    weights, unit = learnt.weights(residual)
    share = np.ones_like(unit)
    for _ in range(STEPS):
        pull = _pull(equations, unit, lead)
        slope = _times(learnt.X, weights * residual) + pull * (prior - main)
        new_main = main + share * _times(inverse, slope)
        new_residual = learnt.residual(new_main)
        new_weights, new_unit = learnt.weights(new_residual)
        worse = ~(new_unit <= unit)[:, 0]
        share[worse] *= SHORTER
        for new, old in (new_main, main), (new_residual, residual), (new_weights, weights), (new_unit, unit):
            new[worse] = old[worse]
        main, residual, weights, unit = new_main, new_residual, new_weights, new_unit
    return equations, unit, main, weights


def candidates_of(
    equations: Float32Array, unit: Float32Array, lead: int, prior: Float32Array, strengths: Sequence[float]
) -> list[Float32Array]:
    """The coefficients [n, F] for several strengths of the pull towards the prior."""
    return [solve(equations, unit, lead, strength, prior) for strength in strengths]


def solve(
    equations: Float32Array,
    unit: Float32Array,
    lead: int | IntArray,
    strength: float | FloatArray,
    prior: Float32Array,
) -> Float32Array:
    """Coefficients [n, F], drawn towards the prior by the noise of a row; lead and strength: one, or [n, 1]."""
    gram = equations[:, :, :F].astype(np.float64)
    pull = strength * _pull(equations, unit, lead).astype(np.float64)
    index = np.arange(F)
    wanted = equations[:, :, F] + pull * prior
    gram[:, index, index] += pull
    solved: Float32Array = np.linalg.solve(gram, wanted[:, :, None])[:, :, 0].astype(np.float32)
    return solved
