"""Small regressions for many series at once by their normal equations, which add up, fade and are solved in batch."""

from collections.abc import Callable, Sequence

import numpy as np

from sentinel_core.windows import FloatArray, IntArray

REWEIGHTINGS = 2  # after the plain least squares; a third changes the error by under half a percent
SMALLEST_RESIDUAL = 0.1  # of the mean absolute residual: no row weighs more than ten times the typical one
PRIOR_SAMPLES = 4.0  # a prior coefficient counts as much as this many samples of the series' mean square
FEWEST_SAMPLES = 4  # per coefficient; below, the prior is the answer
TINY = 1e-30  # keeps a constant series' equations regular; series are scaled to 1


def complete(columns: Sequence[FloatArray], target: FloatArray) -> tuple[list[FloatArray], FloatArray, FloatArray]:
    """Regressors and target [n, T], zeroed in all where anything is NaN, and 1 where nothing is [n, T]."""
    known = np.isfinite(target)
    for column in columns:
        known &= np.isfinite(column)
    if known.all():
        return list(columns), target, known.astype(np.float64)
    zeroed = [np.where(known, column, 0.0) for column in (*columns, target)]
    return zeroed[:-1], zeroed[-1], known.astype(np.float64)


def products(columns: Sequence[FloatArray], target: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Gram matrix [n, m + 1, m + 1] of m regressors and the target (last), each [n, T] and `complete`."""
    stacked = [*columns, target]
    gram = np.empty((len(target), len(stacked), len(stacked)))
    for i, left in enumerate(stacked):
        weighted = left if weights is None else left * weights
        for j, right in enumerate(stacked[: i + 1]):
            gram[:, i, j] = gram[:, j, i] = np.einsum("nt,nt->n", weighted, right)
    return gram


def ridge(gram: FloatArray, prior: FloatArray, pull: FloatArray) -> FloatArray:
    """Coefficients [n, m] of least squares, drawn towards `prior` [n, m] by `pull` [n] > 0."""
    m = prior.shape[1]
    pulled = gram[:, :m, :m] + pull[:, None, None] * np.eye(m)
    wanted = gram[:, :m, m] + pull[:, None] * prior
    return np.asarray(np.linalg.solve(pulled, wanted[..., None])[..., 0], np.float64)


def residuals(columns: Sequence[FloatArray], target: FloatArray, coefficients: FloatArray) -> FloatArray:
    """The target less its regression, [n, T]."""
    left = target.copy()
    for column, coefficient in zip(columns, coefficients.T, strict=True):
        left -= coefficient[:, None] * column
    return left


def absolute_weights(residual: FloatArray, count: FloatArray) -> FloatArray:
    """Weights that turn least squares over `count` [n] samples into least absolute deviations, 1 for a typical one."""
    size = np.abs(residual)
    typical = size.sum(axis=1) / np.maximum(count, 1.0)
    typical = np.where(typical > 0, typical, 1.0)[:, None]
    weights: FloatArray = typical / np.maximum(size, SMALLEST_RESIDUAL * typical, out=size)
    return weights


def shares(
    series: FloatArray,
    candidates: Callable[[int, slice], Sequence[FloatArray]],
    prior: Sequence[float],
    leads: IntArray,
    new_steps: int,
    old_sums: FloatArray | None = None,
    earliest: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """How much of each candidate move to believe at each lead: shares [n, leads, m] and their sums, for `old_sums`.

    series:     [n, T], scaled to about 1
    candidates: (index of the lead, origin columns) -> m moves away from the origins' values, each [n, origins]
    prior:      [m] shares at the first lead; those of a later lead are drawn to the lead's before
    new_steps:  only targets in the newest columns count; `old_sums` (already faded) speak for those before
    earliest:   the first column that can be an origin
    """
    n, samples = series.shape
    m = len(prior)
    sums = np.zeros((n, len(leads), m + 1, m + 1))
    out = np.empty((n, len(leads), m))
    known = np.isfinite(series)
    square = np.where(known, series, 0.0) ** 2
    pull = np.maximum(PRIOR_SAMPLES * square.sum(axis=1) / np.maximum(known.sum(axis=1), 1), TINY)
    before = np.tile(np.asarray(prior, np.float64), (n, 1))
    for k, lead in enumerate(leads):
        first = max(samples - new_steps, int(lead) + earliest)
        origins = slice(first - int(lead), max(samples, first) - int(lead))
        moves, target, known = complete(candidates(k, origins), series[:, first:] - series[:, origins])
        count = known.sum(axis=1)
        found, weights = before, None
        for attempt in range(REWEIGHTINGS + 1):
            if attempt:
                weights = absolute_weights(residuals(moves, target, found), count)
            sums[:, k] = products(moves, target, weights)
            if old_sums is not None:
                sums[:, k] += old_sums[:, k]
            found = ridge(sums[:, k], before, pull)
        if old_sums is None:
            found = np.where((count >= FEWEST_SAMPLES * m)[:, None], found, before)
        before = out[:, k] = found
    return out, sums
