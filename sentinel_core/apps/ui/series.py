"""Which series of a watch are drawn, with their actuals and forecasts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinel_core.apps.ui.plot import Curve
from sentinel_core.emitter.snapshot import VALUES, Forecasts, WatchView
from sentinel_core.series import Series, quote
from sentinel_core.windows import Window

CURVES = 3
MIN_STEPS, MAX_STEPS = 30, 360  # of actuals in a plot


@dataclass(frozen=True)
class Chosen:
    """The series of one watch that are drawn, with the span of actuals to read (unix seconds)."""

    series: tuple[Series, ...]
    start: int
    end: int
    note: str


def choose(watch: WatchView, wanted: str, most: int = CURVES) -> Chosen | None:
    """Pick the series to draw: those that contain `wanted`, else the highest, median and lowest forecast."""
    end = watch.state.scraped_until or watch.state.forecast_origin
    if end is None:
        return None
    config = watch.config
    # Enough to see what the model sees, not so much that the forecast becomes a sliver at the edge.
    steps = min(MAX_STEPS, max(MIN_STEPS, 3 * config.lookback_steps // 2, 6 * config.horizon_steps))
    matching = [series for series in _ordered(watch) if wanted.lower() in series.selector.lower()]
    picked, note = matching[:most], ""
    if len(matching) > most and wanted:
        note = f"The first {most} of {len(matching):,} series that match"
    elif len(matching) > most == CURVES:
        picked = [matching[0], matching[len(matching) // 2], matching[-1]]
        note = f"{most} of {len(matching):,} series: the highest, the median and the lowest"
    return Chosen(tuple(picked), end - (steps - 1) * config.step_seconds, end, note) if picked else None


def _ordered(watch: WatchView) -> list[Series]:
    """A watch's series, highest next forecast first; by name before there is a forecast."""
    if not watch.forecasts:
        return sorted(watch.live.values(), key=lambda series: series.labels)
    heights = np.concatenate([block.mean[:, 0] for block in watch.forecasts])
    every = [series for block in watch.forecasts for series in block.series]
    return [every[i] for i in np.argsort(-heights, kind="stable")]


def curves(
    watch: WatchView, chosen: Chosen, actuals: Window | None, models: Mapping[int, str] | None = None
) -> list[Curve]:
    """The chosen series with what was measured (`actuals`, of at least them) and what is forecast.

    models: by fingerprint, named where they are not all the same
    """
    shown = []
    for series, label in zip(chosen.series, distinguishing(chosen.series), strict=True):
        times, actual = np.empty(0, np.int64), np.empty(0)
        if actuals is not None:
            row = np.searchsorted(actuals.fingerprints, series.fingerprint)
            inside = (actuals.timestamps >= chosen.start) & (actuals.timestamps <= chosen.end)
            times, actual = actuals.timestamps[inside], actuals.values[row, inside]
            begun = slice(int(np.argmax(np.isfinite(actual))), None)  # a young watch's plot starts where it does
            times, actual = times[begun], actual[begun]
        if models and series.fingerprint in models:
            label += f" ({models[series.fingerprint]})"
        shown.append(Curve(label, series.selector, times, actual, **_forecast_of(watch.forecasts, series.fingerprint)))
    return shown


def _forecast_of(blocks: Iterable[Forecasts], fingerprint: int) -> dict[str, NDArray[Any]]:
    """Timestamps ahead and VALUES of one series; all empty where it has no forecast."""
    for block in blocks:
        at = int(np.searchsorted(block.fingerprints, fingerprint))
        if at < len(block.fingerprints) and block.fingerprints[at] == fingerprint:
            ahead = block.origin + block.leads * block.step_seconds
            return {"ahead": ahead} | {name: getattr(block, name)[at] for name in VALUES}
    return {"ahead": np.empty(0, np.int64)} | {name: np.empty(0) for name in VALUES}


def distinguishing(series: Sequence[Series]) -> list[str]:
    """Short names: the labels in which these series differ, or the whole selector of a single one.

    >>> distinguishing([Series.of("up", {"job": "api", "pod": pod}) for pod in "ab"])
    ['pod="a"', 'pod="b"']
    """
    if len(series) == 1:
        return [series[0].selector]
    common = set.intersection(*(set(one.labels) for one in series))
    return [
        ", ".join(f"{key}={quote(value)}" for key, value in one.labels if (key, value) not in common) or one.name
        for one in series
    ]
