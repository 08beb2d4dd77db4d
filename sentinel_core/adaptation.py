"""Bounds that follow what comes: their width is corrected by how many of the newest actuals they missed.

Adaptive conformal inference (Gibbs and Candès, "Adaptive conformal inference under distribution shift", 2021): after
each round the logarithm of a bound's distance from the forecast moves by a gain times what its misses were too many or
too few. All series of a watch correct each lead and side together, far leads at once by what near ones miss, and each
series corrects all of its leads by what it missed beyond that: so few misses tell as much as they can. The gain is that
of a Kalman filter, whose noise is that of so many independent samples: a small one where there are few.
"""

from statistics import NormalDist

import numpy as np

from sentinel_core.windows import FloatArray, IntArray

WANDER = 0.0025  # variance that the logarithm of a width gains in a bucket: 5 % an hour
LEAST, MOST = 0.5, 7.5  # a bound's distance from the forecast is never multiplied by less or more
MOST_AT_ONCE = 1.0  # logarithm; to clip less than what a whole round may come to would leave bounds too narrow
OWN_EXCESS = 1.5  # the misses of one series come in bursts: as noisy as of so many times fewer samples


def adapted(
    widths: FloatArray,
    counts: FloatArray,
    levels: FloatArray,
    watch: IntArray,
    leads: IntArray,
    bucket_steps: int,
    share: float,
) -> FloatArray:
    """Correct the logarithms of widths [n, leads, 2] (lower, upper) after a round.

    counts: [3, n, leads]: judged forecasts, actuals below their lower bounds and above their upper ones
    levels: [n] of the bounds
    watch:  [n], which series are corrected together: 0, 1, …
    leads:  steps, ascending; share: of a bucket (of `bucket_steps`) that the round is long
    """
    if not len(widths):
        return widths
    judged, *missed = counts
    tail = (1 - levels) / 2
    scale = _slope(tail)  # share of misses that a change of the logarithm by 1 makes
    noise = tail * (1 - tail) / scale**2  # of one sample

    watches = int(watch.max()) + 1
    first = np.zeros(watches, np.int64)
    first[watch] = np.arange(len(watch))  # any of a watch's series: they have one level
    members = _per_watch(np.ones(len(watch)), watch, watches)
    total = _per_watch(judged, watch, watches)
    too_many = np.stack(
        [_excess(_per_watch(one, watch, watches), total, tail[first], scale[first]) for one in missed], -1
    )
    # overlapping forecasts err together, and so do series of a watch
    independent = total / leads / np.sqrt(members)[:, None]
    # what makes near leads miss makes far ones miss too, and shows a day earlier
    near = _weights(total, leads)
    common = (near[..., None] * too_many).sum(axis=1, keepdims=True)
    gain = _gain(noise[first], independent.max(axis=1), share)[:, None]
    # what a correction does is only seen a lead later; a higher gain would swing
    of_lead = np.minimum(_gain(noise[first][:, None], independent, share), 0.5 / (1 + leads / bucket_steps))
    together = (gain[..., None] * common + of_lead[..., None] * (too_many - common))[watch]

    of_own = np.mean([_excess(one, judged, tail, scale) for one in missed], axis=0)
    beyond = (_weights(judged, leads) * (of_own - too_many[watch].mean(axis=2))).sum(axis=1)
    own = _gain(OWN_EXCESS * noise / 2, judged.max(axis=1), share) * beyond
    moved = np.clip(together + own[:, None, None], -MOST_AT_ONCE, MOST_AT_ONCE)
    followed: FloatArray = np.clip(widths + moved, np.log(LEAST), np.log(MOST))
    return followed


def _weights(judged: FloatArray, leads: IntArray) -> FloatArray:
    """How much each lead tells of what all have in common [., leads]: far ones less, and later."""
    weight = (judged > 0) / np.sqrt(leads)
    found: FloatArray = weight / np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return found


def _slope(tail: FloatArray) -> FloatArray:
    """How fast the share beyond a bound falls as the logarithm of its distance grows, of normal errors."""
    normal = NormalDist()
    found = {one: normal.inv_cdf(1 - one) for one in set(tail.tolist())}
    return np.array([found[one] * normal.pdf(found[one]) for one in tail.tolist()])


def _per_watch(values: FloatArray, watch: IntArray, watches: int) -> FloatArray:
    """Sums over the series of each watch."""
    found = np.zeros((watches, *values.shape[1:]))
    np.add.at(found, watch, values)
    return found


def _excess(missed: FloatArray, judged: FloatArray, tail: FloatArray, scale: FloatArray) -> FloatArray:
    """By how much a logarithm of widths [., leads] is too small, by the misses of a round; 0 where there were none."""
    share = missed / np.maximum(judged, 1) - tail[:, None]
    return np.where(judged > 0, share / scale[:, None], 0.0)


def _gain(noise: FloatArray, independent: FloatArray, share: float) -> FloatArray:
    """The steady gain of a Kalman filter over rounds of so many independent samples, of which one has this noise."""
    wander, measured = WANDER * share, noise / np.maximum(independent, 1e-6)
    variance = (wander + np.sqrt(wander**2 + 4 * wander * measured)) / 2
    gain: FloatArray = variance / (variance + measured)
    return gain
