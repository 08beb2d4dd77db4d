"""GET /: every watch at a glance, worst first. Server-rendered, from the snapshot; only the plots read the store."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from urllib.parse import quote as quote_url
from urllib.parse import urlencode

import jinja2
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from sentinel_core.apps.conditions import WAITING, Condition, age, condition, sentence
from sentinel_core.apps.metrics import Live, Served
from sentinel_core.apps.plot import Curve, Plot, draw, short_number
from sentinel_core.config import SentinelConfig
from sentinel_core.emitter.exposition import version_label
from sentinel_core.emitter.self_metrics import series_by_state
from sentinel_core.emitter.snapshot import Forecasts, WatchView
from sentinel_core.errors import StoreError
from sentinel_core.series import Series, quote
from sentinel_core.windows import FloatArray, IntArray, Window

logger = logging.getLogger(__name__)

CARDS = 20  # a page of a thousand watches would take seconds to make and to read
CURVES = 3
MIN_STEPS, MAX_STEPS = 30, 360  # of actuals in a plot

ReadWindow = Callable[[int, IntArray, int, int], Window]  # step, fingerprints, first and last timestamp


@dataclass(frozen=True)
class Gauge:
    """The drift bar: everything in percent of its width."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Card:
    """What the template shows of one watch."""

    watch: WatchView
    condition: Condition
    version: str | None
    series: str
    tick: str
    gauge: Gauge | None
    plot: Plot | None
    shown: str
    lineage: str


def drift_gauge(watch: WatchView) -> Gauge | None:
    """Where the drift stands between its thresholds; None before there is a verdict."""
    if watch.state.drift_mae is None:
        return None
    low, high = watch.config.drift_finetune_threshold, watch.config.drift_retrain_threshold
    full = max(high * 1.25, watch.state.drift_mae) or 1.0
    return Gauge(*(round(100 * value / full, 1) for value in (watch.state.drift_mae, low, high)))


@dataclass(frozen=True)
class Chosen:
    """The series of one watch that are drawn, with the span of actuals to read (unix seconds)."""

    series: tuple[Series, ...]
    start: int
    end: int
    note: str


def choose(watch: WatchView, wanted: str) -> Chosen | None:
    """Pick the series to draw: those that contain `wanted`, else the highest, median and lowest forecast."""
    end = watch.state.scraped_until or watch.state.forecast_origin
    if end is None:
        return None
    config = watch.config
    # Enough to see what the model sees, not so much that the forecast becomes a sliver at the edge.
    steps = min(MAX_STEPS, max(MIN_STEPS, 3 * config.lookback_steps // 2, 6 * config.horizon_steps))
    matching = [series for series in _ordered(watch) if wanted.lower() in series.selector.lower()]
    picked, note = matching[:CURVES], ""
    if len(matching) > CURVES and wanted:
        note = f"The first {CURVES} of {len(matching):,} series that match"
    elif len(matching) > CURVES:
        picked = [matching[0], matching[len(matching) // 2], matching[-1]]
        note = f"{CURVES} of {len(matching):,} series: the highest, the median and the lowest"
    return Chosen(tuple(picked), end - (steps - 1) * config.step_seconds, end, note) if picked else None


def _ordered(watch: WatchView) -> list[Series]:
    """A watch's series, highest next forecast first; by name before there is a forecast."""
    if not watch.forecasts:
        return sorted(watch.live.values(), key=lambda series: series.labels)
    heights = np.concatenate([block.mean[:, 0] for block in watch.forecasts])
    every = [series for block in watch.forecasts for series in block.series]
    return [every[i] for i in np.argsort(-heights, kind="stable")]


def curves(watch: WatchView, chosen: Chosen, actuals: Window | None) -> list[Curve]:
    """The chosen series with what was measured (`actuals`, of at least them) and what is forecast."""
    shown = []
    for series, label in zip(chosen.series, distinguishing(chosen.series), strict=True):
        times, actual = np.empty(0, np.int64), np.empty(0)
        if actuals is not None:
            row = np.searchsorted(actuals.fingerprints, series.fingerprint)
            inside = (actuals.timestamps >= chosen.start) & (actuals.timestamps <= chosen.end)
            times, actual = actuals.timestamps[inside], actuals.values[row, inside]
            begun = slice(int(np.argmax(np.isfinite(actual))), None)  # a young watch's plot starts where it does
            times, actual = times[begun], actual[begun]
        shown.append(Curve(label, series.selector, times, actual, *_forecast_of(watch.forecasts, series.fingerprint)))
    return shown


def _forecast_of(blocks: Iterable[Forecasts], fingerprint: int) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Timestamps, mean, lower and upper of one series; all empty where it has no forecast."""
    for block in blocks:
        at = int(np.searchsorted(block.fingerprints, fingerprint))
        if at < len(block.fingerprints) and block.fingerprints[at] == fingerprint:
            ahead = block.origin + block.leads * block.step_seconds
            return ahead, block.mean[at], block.lower[at], block.upper[at]
    return np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)


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


class StatusPage:
    """Answers GET /. `read_window` reads actuals from the store; it runs beside the event loop."""

    def __init__(
        self, live: Live, config: Callable[[], SentinelConfig], read_window: ReadWindow, now: Callable[[], float]
    ) -> None:
        self._live = live
        self._config = config
        self._read_window = read_window
        self._now = now
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("sentinel_core.apps"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["number"] = short_number
        self._template = environment.get_template("page.html")
        self._read: tuple[Served | None, dict[tuple[object, ...], Window]] = (None, {})

    async def page(self, request: Request) -> Response:
        """GET /, with `watch` and `series` to filter by and `page` to turn."""
        return HTMLResponse(await run_in_threadpool(self._render, request))

    def _render(self, request: Request) -> str:
        served, config, now = self._live.served, self._config(), self._now()
        query = {key: request.query_params.get(key, "").strip() for key in ("watch", "series")}
        everything = served.snapshot.watches
        found = [watch for watch in everything if _matches(watch, **query)]
        found.sort(key=lambda watch: condition(watch, now).rank)  # stable: configuration order within a rank
        pages = max(1, -(-len(found) // CARDS))
        number = min(pages, max(1, _whole(request.query_params.get("page", ""))))
        shown = found[(number - 1) * CARDS : number * CARDS]
        problem = served.problem
        chosen = [choose(watch, query["series"]) for watch in shown]
        try:
            actuals = self._actuals(served, shown, chosen)
        except StoreError as error:
            actuals, problem = {}, problem or str(error)
        host = request.url.hostname or config.bind_address
        dagster = f"http://{f'[{host}]' if ':' in host else host}:{config.dagster_port}"
        cards = [
            _card(watch, one, actuals.get(watch.config.step_seconds), dagster, now)
            for watch, one in zip(shown, chosen, strict=True)
        ]
        return self._template.render(
            sentence=sentence(everything, now),
            worst=min((condition(watch, now) for watch in everything), key=lambda worst: worst.rank, default=WAITING),
            cards=cards,
            query=query,
            total=len(everything),
            found=len(found),
            page=number,
            pages=pages,
            turn=lambda to: "?" + urlencode({**{key: text for key, text in query.items() if text}, "page": to}),
            problem=problem,
            seen=age(now - served.snapshot.read_at) if served.snapshot.read_at else None,
            dagster=dagster,
            now=now,
            age=age,
        )

    def _actuals(
        self, served: Served, watches: Sequence[WatchView], chosen: Sequence[Chosen | None]
    ) -> dict[int, Window]:
        """One window per granularity with all the series that are drawn, remembered while the snapshot lasts."""
        wanted: dict[int, list[Chosen]] = {}
        for watch, one in zip(watches, chosen, strict=True):
            if one is not None:
                wanted.setdefault(watch.config.step_seconds, []).append(one)
        if self._read[0] is None or self._read[0].snapshot.watches is not served.snapshot.watches:
            self._read = (served, {})
        known, windows = self._read[1], {}
        for step, some in wanted.items():
            fingerprints = sorted({series.fingerprint for one in some for series in one.series})
            span = min(one.start for one in some), max(one.end for one in some)
            key = (step, *fingerprints, *span)
            if key not in known:
                known[key] = self._read_window(step, np.array(fingerprints, np.int64), *span)
            windows[step] = known[key]
        return windows


def _card(watch: WatchView, chosen: Chosen | None, actuals: Window | None, dagster: str, now: float) -> Card:
    state = watch.state
    plot, note = None, ""
    if chosen is not None:
        origin = max((block.origin for block in watch.forecasts), default=chosen.end)
        try:
            plot = draw(curves(watch, chosen, actuals), origin)
            note = chosen.note if plot else ""
        except Exception:  # the others' cards are worth more than this one's plot
            logger.exception("the plot of %s cannot be drawn", watch.config.slug)
            note = "The plot cannot be drawn; the sidecar's log says why"
    counts = [f"{count:,} {kind}" for kind, count in series_by_state(watch).items() if count]
    return Card(
        watch=watch,
        condition=condition(watch, now),
        version=version_label(watch.serving[0].version) if watch.serving else None,
        series=f"{state.series_live:,} live" + (f": {', '.join(counts)}" if counts else ""),
        tick=f"{age(now - state.fresh_at)} ago" if state.fresh_at else "never",
        gauge=drift_gauge(watch),
        plot=plot,
        shown=note,
        lineage=f"{dagster}/assets/model_versions?view=partitions&partition={quote_url(watch.config.slug)}",
    )


def _matches(view: WatchView, watch: str, series: str) -> bool:
    config = view.config
    if watch and not any(watch.lower() in text.lower() for text in (config.selector, config.slug, config.model_path)):
        return False
    return not series or any(series.lower() in one.selector.lower() for one in view.live.values())


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


async def readme(_: Request) -> Response:
    """GET /readme: the README that this installation was built from."""
    return PlainTextResponse(str(metadata("sentinel").json.get("description", "")))
