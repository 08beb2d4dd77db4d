"""Bounds per lead, calibrated on the residuals of held-back origins: offsets that are added to a forecast.

Each residual is measured in units of its series' scale at its lead. A quantile of these units comes in part from the
series' own residuals, at the rank that is honest for so few (conformal prediction: Vovk, 2005), else from those of all
series of the watch, each in units of a scale that left it out. The more origins, the more the series' own count;
where neighbouring origins have the same residuals, as far leads have, many of them count as few.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from sentinel_core.models.rows import between_knots, knots
from sentinel_core.windows import FloatArray, IntArray

FEW_ORIGINS = 60  # so many own origins that say something new count as much as the whole fleet's
FEW_FOR_PROFILE = 4.0  # so many own origins count as much as the fleet's for how the scale rises with the lead
FATTEST = 3.0  # times as far out as the normal distribution's: one of few series may have had an accident
FEW_VALUES = 24  # of the whole fleet count as much as the normal distribution
LEAD_BAND = 1.5  # neighbouring leads up to this factor away speak for a lead
BAND_LEADS = 8  # of which at most so many are looked at
FLEET_VALUES = 50_000  # a quantile of the fleet from so many values is sure to a hundredth
BLOCK_FLOATS = 1 << 21
FEWEST_PAIRS = 3  # of neighbouring origins, to see how alike they are
MOST_ALIKE = 0.98
FEWEST_HALVED = 4  # origins whose older half is measured by the newer one and the other way round
ALLOWANCE = 0.99  # for what conformal ranks and a scale from few origins add; with 1 a little too wide on real series
MEAN_ABSOLUTE_TO_SD = 1.2533  # of a normal distribution


def offsets(errors: FloatArray, level: float, measured_leads: IntArray | None = None) -> FloatArray:
    """Lower and upper offset per series and lead, [n, leads, 2], lower <= upper.

    errors: [n, origins, leads], actual - forecast from origins the model had not seen, oldest first; NaN where unknown
    level:  nominal coverage, in (0, 1)
    measured_leads: the leads of the columns where they are only some, ascending; the last one is the farthest asked for

    A series without a single residual gets 0, as does one whose residuals are all 0.
    """
    return of_levels(errors, [level], measured_leads)[0]


def of_levels(errors: FloatArray, levels: Sequence[float], measured_leads: IntArray | None = None) -> list[FloatArray]:
    """The `offsets` of several levels, which cost little more than one's."""
    for level in levels:
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it is a coverage between 0 and 1, such as 0.95")
    n, origins, leads = errors.shape
    if not (n and origins and leads):
        return [np.zeros((n, leads if measured_leads is None else int(measured_leads[-1]), 2)) for _ in levels]
    tails = np.array([tail for level in levels for tail in ((1 - level) / 2, (1 + level) / 2)])
    if measured_leads is None:
        scale, counts = _scale(errors)
        at, bands = knots(leads), _bands(leads)
        every = np.arange(1, leads + 1)
    else:
        scale, counts = _scale(errors, 1.0)
        at, bands = measured_leads, [np.array([k]) for k in range(leads)]
        every = np.arange(1, int(measured_leads[-1]) + 1)
    scale = _like_the_fleet(scale, counts)
    units = np.empty((n, len(at), len(tails)))
    for k, columns in enumerate(bands):
        told = _told(errors[:, :, columns[len(columns) // 2]])
        fleet = _fleet_quantiles(errors[:, :, columns], tails)
        for start in range(0, n, size := max(1, BLOCK_FLOATS // (origins * len(columns)))):
            rows = slice(start, start + size)
            size_of = np.where(scale > 0, scale, 1.0)[rows, None][:, :, columns]
            own_origins = np.maximum(told * counts[rows], np.minimum(counts[rows], 1))
            own = _own_quantiles(errors[rows][:, :, columns] / size_of, own_origins, tails)
            trust = np.where(counts[rows] > 2, own_origins / (own_origins + FEW_ORIGINS), 0.0)[:, None]
            units[rows, k] = trust * own + (1 - trust) * fleet
    if measured_leads is not None:
        scale = between_knots(scale[:, :, None], at, every[None])[:, :, 0]
    result: FloatArray = between_knots(units, at, every[None]) * (ALLOWANCE * scale)[:, :, None]
    return [result[:, :, 2 * k : 2 * k + 2] for k in range(len(levels))]


def coverage(errors: FloatArray, offsets: FloatArray) -> float:
    """Share of known residuals [n, origins, leads] inside the offsets [n, leads, 2]; NaN where none is known."""
    known = np.isfinite(errors)
    if not known.any():
        return float("nan")
    inside = (errors >= offsets[:, None, :, 0]) & (errors <= offsets[:, None, :, 1])
    return float((inside & known).sum() / known.sum())


def _scale(errors: FloatArray, band: float = LEAD_BAND) -> tuple[FloatArray, IntArray]:
    """Typical size of a residual [n, leads], smooth and rising with the lead; and each series' origins [n]."""
    known = np.isfinite(errors)
    size = np.where(known, np.abs(errors), 0.0).sum(axis=1)
    count = known.sum(axis=1)
    leads = np.arange(errors.shape[2])
    # the mean of a lead's neighbours, from cumulative sums
    first, last = (leads / band).astype(np.int64), np.minimum((leads * band).astype(np.int64), leads[-1]) + 1
    total, seen = (np.pad(np.cumsum(part, axis=1), ((0, 0), (1, 0))) for part in (size, count))
    seen = seen[:, last] - seen[:, first]
    mean = np.where(seen > 0, (total[:, last] - total[:, first]) / np.maximum(seen, 1), 0.0)
    rising = np.maximum.accumulate(mean, axis=1)
    falling = np.minimum.accumulate(np.where(seen > 0, mean, np.inf)[:, ::-1], axis=1)[:, ::-1]
    falling = np.where(np.isfinite(falling), falling, rising)
    return (rising + falling) / 2, count.max(axis=1)


def _like_the_fleet(scale: FloatArray, counts: IntArray) -> FloatArray:
    """Scales [n, leads] that rise with the lead as the fleet's do where a series' own origins [n] are few."""
    size = scale.mean(axis=1, keepdims=True)
    usable = size[:, 0] > 0
    if not usable.any():
        return scale
    profile = (scale[usable] / size[usable]).mean(axis=0)
    trust = (counts / (counts + FEW_FOR_PROFILE))[:, None]
    blended: FloatArray = trust * scale + (1 - trust) * size * profile
    return blended


def _told(errors: FloatArray) -> float:
    """The share of the origins [n, origins] that say something new: neighbours whose residuals are alike say one thing.

    From the fleet's autocorrelation r of residuals, (1 - r) / (1 + r) (Bartlett, 1946).
    """
    known = np.isfinite(errors)
    pairs = known[:, 1:] & known[:, :-1]
    clean = np.where(known, errors, 0.0)
    clean /= np.maximum(np.abs(clean).max(axis=1, keepdims=True, initial=0.0), np.finfo(float).tiny)  # to be squared
    square = (clean**2).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    product = (clean[:, 1:] * clean[:, :-1]).sum(axis=1) / np.maximum(pairs.sum(axis=1), 1)
    usable = (pairs.sum(axis=1) >= FEWEST_PAIRS) & (square > 0)
    if not usable.any():
        return 1.0
    alike = float(np.clip(np.mean(product[usable] / square[usable]), 0.0, MOST_ALIKE))
    return (1 - alike) / (1 + alike)


def _bands(leads: int) -> list[IntArray]:
    """For some leads, the columns of their neighbours and themselves."""
    bands = []
    for lead in knots(leads):
        nearest, farthest = np.ceil(lead / LEAD_BAND), min(leads, lead * LEAD_BAND)
        bands.append(np.unique(np.linspace(nearest, farthest, BAND_LEADS).astype(np.int64)) - 1)
    return bands


def _own_quantiles(units: FloatArray, counts: FloatArray | IntArray, tails: FloatArray) -> FloatArray:
    """Quantiles [n, tails] of each series' own units [n, origins, columns], at ranks widened for few origins."""
    ordered = np.sort(units.reshape(len(units), -1), axis=1)  # NaN last
    number = np.isfinite(ordered).sum(axis=1)
    widened = (counts + 1) / np.maximum(counts, 1)
    out = np.zeros((len(units), len(tails)))
    for k, tail in enumerate(tails):
        share = np.maximum(1 - (1 - tail) * widened, 0.0) if tail < 0.5 else np.minimum(tail * widened, 1.0)
        position = share * np.maximum(number - 1, 0)
        low = position.astype(np.int64)[:, None]
        high = np.minimum(low + 1, np.maximum(number - 1, 0)[:, None])
        below, above = (np.take_along_axis(ordered, index, axis=1)[:, 0] for index in (low, high))
        out[:, k] = np.where(number > 0, below + (position - low[:, 0]) * (above - below), 0.0)
    return out


def _fleet_quantiles(errors: FloatArray, tails: FloatArray) -> FloatArray:
    """Quantiles [tails] over all series, each residual in units of the mean size of its series' others."""
    known = np.isfinite(errors)
    size = np.where(known, np.abs(errors), 0.0).sum(axis=2)
    count = known.sum(axis=2)
    if errors.shape[1] >= FEWEST_HALVED:  # neighbours are alike: the other half judges
        halves = [0, (errors.shape[1] + 1) // 2]
        lengths = np.diff([*halves, errors.shape[1]])
        others, seen = (
            np.repeat(np.add.reduceat(part, halves, axis=1)[:, ::-1], lengths, axis=1) for part in (size, count)
        )
    else:
        others, seen = size.sum(axis=1, keepdims=True) - size, count.sum(axis=1, keepdims=True) - count
    usable = known & ((others > 0) & (seen > 0))[:, :, None]
    units = errors[usable] / (others / np.maximum(seen, 1))[:, :, None].repeat(errors.shape[2], axis=2)[usable]
    known_origins = int(count.astype(bool).sum(axis=1).max())
    assumed = np.array([_normal_quantile(tail, known_origins) for tail in tails])
    if not len(units):
        return assumed
    trust = usable.any(axis=2).sum() / (usable.any(axis=2).sum() + FEW_VALUES)
    found: FloatArray = np.quantile(units[:: 1 + len(units) // FLEET_VALUES], tails)
    found = np.clip(found, -FATTEST * np.abs(assumed), FATTEST * np.abs(assumed))
    blended: FloatArray = trust * found + (1 - trust) * assumed
    return blended


def _normal_quantile(tail: float, origins: int) -> float:
    """Of a normal residual, in mean absolute residuals of so few origins: Student's t, by its expansion.

    As many degrees of freedom as origins: the neighbouring leads and the fleet's profile know more than the mean takes.
    """
    z, degrees = NormalDist().inv_cdf(tail), max(origins, 2)
    t: float = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return MEAN_ABSOLUTE_TO_SD * t
