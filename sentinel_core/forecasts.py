"""Issue forecasts: many watches' models as one, from the newest window, with bounds and each series' version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.models.base import BatchModel
from sentinel_core.models.rows import newest_values
from sentinel_core.windows import FloatArray, IntArray, Window

NAIVE = 0  # version of a series forecast by its last value; -v is "pooled from version v"


@dataclass(frozen=True)
class Fitted:
    """A model with what its training measured; all arrays have the model's series as their first axis.

    versions: int32 [n], the version that last fitted each series
    offsets:  float64 [n, horizon_steps, 2], added to a forecast to get its lower and upper bound
    mae:      float64 [n, horizon_steps], held-back MAE per lead
    limits:   float64 [n, 2], lowest and highest value that is forecast
    inner:    as offsets, of the watch's inner level; [n, 0, 2] where it has none
    usual:    float64 [n, 3], what its errors are like (see `usual.measure`)
    """

    model: BatchModel
    versions: NDArray[np.int32]
    offsets: FloatArray
    mae: FloatArray
    limits: FloatArray
    inner: FloatArray
    usual: FloatArray

    @classmethod
    def of(cls, model: BatchModel, measured: Mapping[str, NDArray[Any]]) -> "Fitted":
        """From the arrays by name; what the training of an older release did not measure is as it was there."""
        n = len(model.fingerprints)
        unknown = {"limits": np.tile([-np.inf, np.inf], (n, 1)), "inner": np.empty((n, 0, 2))}
        unknown["usual"] = np.full((n, 3), np.nan)
        return cls(model, **{entry.name: (unknown | dict(measured))[entry.name] for entry in fields(cls)[1:]})

    @property
    def measured(self) -> dict[str, NDArray[Any]]:
        """Every array by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)[1:]}

    def take(self, fingerprints: IntArray) -> "Fitted":
        """The same with just these series (each known), in this order."""
        order = np.argsort(self.model.fingerprints, kind="stable")
        rows = order[np.searchsorted(self.model.fingerprints, fingerprints, sorter=order)]
        return Fitted(self.model.take(fingerprints), **{name: array[rows] for name, array in self.measured.items()})

    def widened(self, factors: FloatArray) -> "Fitted":
        """The same with the distances to all bounds multiplied [n, horizon_steps, 2]."""
        inner = self.inner * factors[:, : self.inner.shape[1]]
        return replace(self, offsets=self.offsets * factors, inner=inner)

    def put(self, other: "Fitted") -> "Fitted":
        """This with the other's series added or replaced; fingerprints ascend."""
        keep = self.model.fingerprints[~np.isin(self.model.fingerprints, other.model.fingerprints)]
        return concat([self.take(keep), other]).take(np.union1d(keep, other.model.fingerprints)) if len(keep) else other


def concat(parts: list[Fitted]) -> Fitted:
    """Several watches' models of one class, grid and parameters as one."""
    if len(parts) == 1:
        return parts[0]
    leads = max(part.inner.shape[1] for part in parts)
    measured = [part.measured | {"inner": _until(part.inner, leads)} for part in parts]
    return Fitted(
        type(parts[0].model).concat([part.model for part in parts]),
        **{name: np.concatenate([arrays[name] for arrays in measured]) for name in measured[0]},
    )


def _until(inner: FloatArray, leads: int) -> FloatArray:
    """Offsets [n, leads, 2] of some or no leads, NaN where they are not known."""
    return np.pad(inner, ((0, 0), (0, leads - inner.shape[1]), (0, 0)), constant_values=np.nan)


@dataclass(frozen=True)
class Forecast:
    """All but versions float64 [n, horizon_steps], column k is lead k + 1.

    versions: int32 [n]
    inner_lower, inner_upper: within lower and upper; NaN where the watch has one level only
    """

    mean: FloatArray
    lower: FloatArray
    upper: FloatArray
    versions: NDArray[np.int32]
    inner_lower: FloatArray
    inner_upper: FloatArray

    def rows(self, chosen: slice) -> "Forecast":
        """Those of some series."""
        return Forecast(**{entry.name: getattr(self, entry.name)[chosen] for entry in fields(self)})


def issue(fitted: Fitted, window: Window, horizon_steps: int) -> Forecast:
    """Forecast the series of `fitted` from the window's last timestamp; the window has the same series in any order.

    A series whose model failed or whose forecast is not finite gets its last value, marked NAIVE.
    """
    context = window.newest(fitted.model.context_steps)
    mean = fitted.model.predict_window(context, horizon_steps)
    versions = fitted.versions.copy()
    failed = np.isin(fitted.model.fingerprints, list(fitted.model.errors))
    broken = ~np.isfinite(mean).all(axis=1) | failed
    if broken.any():
        mean = np.where(broken[:, None], last_values(context)[:, None], mean)
        versions[broken] = NAIVE
    return _bounded(mean, fitted.offsets, fitted.inner, reached(fitted.limits, context), versions)


def issue_unlearnt(
    fitted: Fitted | None, window: Window, horizon_steps: int, version: int, bounds: Sequence[float] = ()
) -> Forecast:
    """Forecast series that no version has learnt: pooled parameters where the model can, else the last value.

    Their bounds are the median of the learnt series' bounds, scaled by each series' mean absolute step.
    """
    n = len(window.fingerprints)
    mean = np.repeat(last_values(window)[:, None], horizon_steps, axis=1)
    versions = np.zeros(n, np.int32)
    relative, inner = np.zeros((horizon_steps, 2)), np.empty((0, 2))
    if fitted is not None and len(fitted.model.fingerprints):
        pooled = fitted.model.adopt(window).predict_window(window.newest(fitted.model.context_steps), horizon_steps)
        usable = np.isfinite(pooled).all(axis=1) & (np.isfinite(window.values).sum(axis=1) > 1) & fitted.model.pools
        mean[usable] = pooled[usable]
        versions[usable] = -version
        one_step = np.maximum(fitted.mae[:, :1, None], np.finfo(float).tiny)
        relative, inner = (np.median(part / one_step, axis=0) for part in (fitted.offsets, fitted.inner))
    unit = mean_absolute_step(window)[:, None, None]
    return _bounded(mean, relative * unit, inner * unit, limits(window, bounds), versions)


def limits(window: Window, bounds: Sequence[float]) -> FloatArray:
    """Between which values each series' forecasts stay [n, 2]: the watch's `bounds`, [lowest, highest].

    Without any, a series that has never been negative is not forecast below 0, as rates, sizes and times cannot be.
    """
    if bounds:
        return reached(np.tile(np.asarray(bounds, np.float64), (len(window.values), 1)), window)
    natural = reached(np.tile([0.0, np.inf], (len(window.values), 1)), window)
    natural[natural[:, 0] < 0] = -np.inf, np.inf
    return natural


def reached(limits: FloatArray, window: Window) -> FloatArray:
    """The limits [n, 2], moved to where values have been beyond them.

    >>> window = Window(np.array([1]), np.arange(2) * 60, np.array([[0.5, 1.2]]), 60)
    >>> reached(np.array([[0.0, 1.0]]), window)
    array([[0. , 1.2]])
    """
    low = np.fmin.reduce(window.values, axis=1, initial=np.inf)
    high = np.fmax.reduce(window.values, axis=1, initial=-np.inf)
    return np.stack([np.minimum(limits[:, 0], low), np.maximum(limits[:, 1], high)], axis=1)


def _bounded(
    mean: FloatArray, offsets: FloatArray, inner: FloatArray, limits: FloatArray, versions: NDArray[np.int32]
) -> Forecast:
    low, high = limits[:, :1], limits[:, 1:]
    mean = np.clip(mean, low, high)
    lower, upper = (np.clip(mean + offsets[:, :, side], low, high) for side in (0, 1))
    inner = _until(inner, mean.shape[1])
    inner_lower, inner_upper = (np.clip(mean + inner[:, :, side], lower, upper) for side in (0, 1))
    return Forecast(mean, lower, upper, versions, inner_lower, inner_upper)


def last_values(window: Window) -> FloatArray:
    """The newest finite value of each series [n]; NaN where there is none."""
    return newest_values(window.values)[0]


def mean_absolute_step(window: Window) -> FloatArray:
    """Mean absolute difference between neighbouring samples of each series [n]; 0 where there are fewer than two."""
    difference = np.abs(np.diff(window.values, axis=1))
    count = np.isfinite(difference).sum(axis=1)
    return np.where(count > 0, np.nansum(difference, axis=1) / np.maximum(count, 1), 0.0)
