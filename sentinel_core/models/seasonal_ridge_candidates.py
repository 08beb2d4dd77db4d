"""What the default model compares per series: what learns nothing, what others are drawn towards, and their average."""

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models import seasonal_ridge_features as seen
from sentinel_core.models.seasonal_ridge_equations import F, Float32Array

PULLS = (1.0, 10.0, 100.0)  # times PULL: the strengths that are compared
CANDIDATES = len(PULLS) + 4
POWER = 16.0  # of the inverse error that a candidate's share is
PROFILE_LEAD = 100.0  # steps at which the prior is all profile
FADING = 0.85  # of the distance from the profile an hour later, in the prior
WEEK_SHARE, DAY_SHARE = 0.7, 0.5  # of what last week and the last day were above the profile, in two of the candidates
MEAN_SHARE = np.float32(0.8)  # of the way to recent means, in the prior of a series without a season


def averaged(errors: Float32Array, judged: Float32Array, candidates: list[Float32Array]) -> Float32Array:
    """The candidates' mean by their inverse errors; the first alone where they have not been compared."""
    exact = errors.astype(np.float64)
    best = np.maximum(exact.min(axis=1, keepdims=True), 1e-12)
    weight = (exact / best + 1e-9) ** -POWER
    weight = np.where(judged[:, None] > 0, weight, np.eye(1, CANDIDATES))
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    mean: Float32Array = np.einsum("nc,cnf->nf", weight, np.stack(candidates))
    return mean


def priors(before: Float32Array, lead: int, seasonal: NDArray[np.bool_]) -> tuple[list[Float32Array], Float32Array]:
    """The candidates that learn nothing, [n, F] each, and what to draw the others towards."""
    fixed = unlearnt(lead)
    return [np.repeat(each[None], len(before), axis=0) for each in fixed], towards(before, lead, fixed, seasonal)


def unlearnt(lead: int) -> Float32Array:
    """The candidates that learn nothing: the profile, with the last week, with the last day, and the recent means."""
    at = {name: index for index, name in enumerate(seen.NAMES)}
    fading = FADING ** (lead / 12)
    profile = np.zeros(F, np.float32)
    profile[at["target_slot"]], profile[at["target_smooth_slot"]] = 0.4, 0.6
    profile[at["smooth_slot"]], profile[at["short_deviation"]] = -fading / 2, fading / 2
    week, day = profile.copy(), profile.copy()
    week[at["target_last_week"]], week[at["last_week"]] = WEEK_SHARE, -fading * WEEK_SHARE
    day[at["target_last_day"]] = DAY_SHARE
    mean = np.zeros(F, np.float32)
    for name in ("mean_12", "mean_36", "mean_144", "middle"):
        mean[at[name]] = 0.25
    return np.stack([profile, week, day, mean])


def towards(before: Float32Array, lead: int, fixed: Float32Array, seasonal: NDArray[np.bool_]) -> Float32Array:
    """What coefficients are drawn towards [n, F]: those of the knot before, and for leads of hours the profile."""
    share = np.float32(min(1.0, np.log(lead) / np.log(PROFILE_LEAD)))
    prior: Float32Array = (1 - share) * before + share * np.where(seasonal[:, None], fixed[0], MEAN_SHARE * fixed[3])
    return prior
