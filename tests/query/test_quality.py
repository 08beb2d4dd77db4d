"""How good forecasts have been: every formula against a slow loop, over a store as the pipeline leaves it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sentinel_core import drift
from sentinel_core.config import WatchConfig
from sentinel_core.promql.errors import ExecutionError
from sentinel_core.promql.limits import Budget
from sentinel_core.query import quality
from sentinel_core.query.forecast_watches import Watches
from sentinel_core.query.quality import QualitySource, rolling_means
from sentinel_core.series import Matcher, Series
from sentinel_core.storage import forecast_store
from tests import moved_world
from tests.emitter.fleet import NOW, Fleet, Issue
from tests.pipeline.conftest import load, world

__all__ = ["load", "world"]

STEP = 3_600
WINDOW, LEADS = 5, 3
WATCH = WatchConfig(
    metric="hits", model_class="LinearTrendModel", granularity="1h", horizon="3h", lookback="6h", drift_window=WINDOW
)
SERIES = [Series.of("hits", {"job": "api", "pod": pod}) for pod in "abc"]


@dataclass
class World:
    """A fleet with one or more watches, and what is tested."""

    fleet: Fleet

    def __post_init__(self) -> None:
        watches = Watches(self.fleet.store, lambda: self.fleet.config)
        self.source = QualitySource(self.fleet.store, lambda: self.fleet.config, watches)

    def score(self, series: Series, hours: dict[int, tuple[float, int]], watch: WatchConfig = WATCH) -> None:
        """Scores of a series: error and version by hours before NOW."""
        rows = len(hours)
        columns = {
            "watch": np.full(rows, self.fleet.id(watch)),
            "fp": np.full(rows, series.fingerprint),
            "ts": np.array([NOW - hour * STEP for hour in hours]),
            "version": np.array([version for _, version in hours.values()]),
            "mae": np.array([error for error, _ in hours.values()]),
            "scaled": np.array([10 * error for error, _ in hours.values()]),
            **dict.fromkeys(("naive", "seasonal"), np.full(len(hours), np.nan)),
            "anomaly": np.array([error / 2 for error, _ in hours.values()]),
        }
        pending = forecast_store.write_scores(self.fleet.store, watch.step_seconds, columns, now=NOW)
        with self.fleet.store.database.write() as connection:
            self.fleet.store.segments.commit(connection, [pending])
        self.fleet.state(watch, scored_until=NOW)

    def found(self, name: str, *matchers: Matcher, hours: int = 100) -> dict[tuple[str, ...], dict[int, float]]:
        """Values by hours before NOW, by the values of labels: horizon, job, lead if any, pod."""
        selector = [Matcher("__name__", "=", name), *matchers]
        raw = self.source.samples(selector, (NOW - hours * STEP) * 1000 - 1, NOW * 1000, Budget())
        found = {}
        for row, labels in enumerate(raw.labels):
            mine = slice(raw.offsets[row], raw.offsets[row + 1])
            values = dict(
                zip(((NOW - raw.times[mine] // 1000) // STEP).tolist(), raw.values[mine].tolist(), strict=True)
            )
            texts = dict(labels)
            keys = ("sentinel_horizon", "job", "sentinel_lead", "pod")
            found[tuple(texts[key] for key in keys if key in texts)] = values
        return found


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[type[World]]:
    """Makes a world of some watches."""
    opened = []

    def world(*watches: WatchConfig, **settings: object) -> World:
        fleet = Fleet.open(tmp_path, watches or (WATCH,), **settings)
        opened.append(fleet)
        for watch in fleet.config.watches:
            fleet.live(watch, SERIES)
        return World(fleet)

    yield world  # type: ignore[misc]
    for fleet in opened:
        fleet.store.close()


def test_rolling_means_are_those_of_a_loop() -> None:
    """Any groups, gaps and windows: the mean of the last values, however great what came before them was."""
    rng = np.random.default_rng(7)
    for window in (1, 2, 3, 7, 64):
        rows = sorted(
            {(int(g), int(p)) for g, p in zip(rng.integers(0, 4, 300), rng.integers(0, 400, 300), strict=True)}
        )
        group, place = (np.array(column, np.int64) for column in zip(*rows, strict=True))
        values = rng.exponential(1.0, len(group)) * 10.0 ** rng.integers(-6, 13, len(group))
        expected = []
        for at, (g, p) in enumerate(rows):
            near = [i for i in range(at + 1) if rows[i][0] == g and rows[i][1] > p - 2 * window][-window:]
            expected.append(float(np.mean(values[near])))
        (found,) = rolling_means(group, place, window, values)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert rolling_means(group[:0], place[:0], 3, values[:0])[0].shape == (0,)


def test_drift_is_what_the_pipeline_judges_by(worlds) -> None:
    """At every step the rolling mean that drift would have made of it then."""
    world, rng = worlds(), np.random.default_rng(1)
    errors = np.where(rng.random((3, 40)) < 0.3, np.nan, rng.exponential(1.0, (3, 40)))
    for series, row in zip(SERIES, errors, strict=True):
        world.score(series, {hour: (row[39 - hour], 1) for hour in range(40) if np.isfinite(row[39 - hour])})
    found = world.found("hits_sentinel_drift_mae")
    for series, row in zip(SERIES, errors, strict=True):
        expected = {}
        for hour in range(40):
            seen = row[None, max(0, 40 - hour - 2 * WINDOW) : 40 - hour]
            if np.isfinite(seen[0, -1]):
                expected[hour] = drift.rolling_mean(seen, np.array([WINDOW]))[0][0]
        assert found["3h", "api", dict(series.labels)["pod"]] == pytest.approx(expected)


def test_drift_is_of_one_version(worlds) -> None:
    """A new version starts with its own errors; after a rollback those of the version that is back count again."""
    world = worlds()
    world.score(SERIES[0], {5: (1.0, 1), 4: (3.0, 1), 3: (100.0, 2), 2: (300.0, 2), 1: (5.0, 1), 0: (7.0, 1)})
    (found,) = world.found("hits_sentinel_drift_mae").values()
    assert found == {5: 1.0, 4: 2.0, 3: 100.0, 2: 200.0, 1: 3.0, 0: 4.0}


def test_drift_in_the_unit_of_the_watch(worlds) -> None:
    """Multiples of the training MAE where the watch is judged by them."""
    scaled = WatchConfig(metric="hits", model_class="LinearTrendModel", granularity="1h", horizon="3h", lookback="6h",
                         drift_window=WINDOW, drift_unit="scaled")  # fmt: skip
    world = worlds(scaled)
    world.score(SERIES[0], {1: (1.0, 1), 0: (2.0, 1)}, scaled)
    assert list(world.found("hits_sentinel_drift_mae").values()) == [{1: 10.0, 0: 15.0}]


def test_anomaly_scores_are_as_they_were_scored(worlds) -> None:
    """Whatever version the forecasts were made by; where none could tell there is no sample."""
    world = worlds()
    world.score(SERIES[0], {3: (1.0, 1), 2: (6.0, 2), 1: (np.nan, 2), 0: (2.0, 2)})
    found = world.found("hits_sentinel_anomaly_score")
    assert found == {("3h", "api", "a"): {3: 0.5, 2: 3.0, 0: 1.0}}
    assert world.found("hits_sentinel_anomaly_score", Matcher("sentinel_lead", "=", "1h")) == {}


def test_a_sample_stands_for_a_step(worlds) -> None:
    """And for the five minutes that scoring the next one may take."""
    world = worlds()
    world.score(SERIES[0], {1: (1.0, 1), 0: (3.0, 1)})
    selector = [Matcher("__name__", "=", "hits_sentinel_drift_mae")]
    times = np.array([NOW - STEP - 60, NOW - STEP, NOW - 60, NOW, NOW + STEP, NOW + STEP + 299, NOW + STEP + 300])
    found = [world.source.vector(selector, np.array([time * 1000]), Budget()) for time in times]
    values = [one.values[0, 0] if one.present.any() else None for one in found]
    assert values == [None, 1.0, 1.0, 2.0, 2.0, 2.0, None]


def by_lead(world: World, hours: int) -> tuple[np.ndarray, np.ndarray]:
    """Write actuals and forecasts of some hours with gaps; returns actuals [n, hours], forecasts [n, hours, leads]."""
    rng = np.random.default_rng(3)
    actuals = rng.normal(10.0, 2.0, (3, hours)) + 3 * np.sin(np.arange(hours) / 24 * 2 * np.pi)
    actuals[rng.random(actuals.shape) < 0.2] = np.nan
    world.fleet.actuals(WATCH, SERIES, actuals)
    means = rng.normal(10.0, 2.0, (3, hours, LEADS))
    for origin in range(hours):
        if rng.random() < 0.9:  # some ticks are missed
            issue = Issue(WATCH, SERIES, means[:, origin], spread=2.0)
            world.fleet.forecast(issue, origin=NOW - (hours - 1 - origin) * STEP)
        else:
            means[:, origin] = np.nan
    world.fleet.state(WATCH, scored_until=NOW)
    return actuals, means


def rolled(rows: list[tuple[int, float, float]], window: int) -> dict[int, tuple[float, float]]:
    """A slow rolling mean of (hour, a, b) over the last `window` rows, at most twice as many hours back."""
    found = {}
    for at, (hour, _, _) in enumerate(rows):
        near = [row for row in rows[: at + 1] if row[0] > hour - 2 * window][-window:]
        found[hour] = float(np.mean([row[1] for row in near])), float(np.mean([row[2] for row in near]))
    return found


def test_mase_and_coverage_are_those_of_a_loop(worlds) -> None:
    """By series and lead, at every scored step: errors by yesterday's value's, and what was within the bounds."""
    world, hours = worlds(), 60
    actuals, means = by_lead(world, hours)
    mase, coverage = world.found("hits_sentinel_mase"), world.found("hits_sentinel_coverage")
    assert len(mase) == len(coverage) == 3 * LEADS
    for row, pod in enumerate("abc"):
        for lead in range(1, LEADS + 1):
            errors, inside = [], []
            for hour in range(lead, hours):
                actual, mean = actuals[row, hour], means[row, hour - lead, lead - 1]
                before = [value for value in actuals[row, : hour - lead + 1] if np.isfinite(value)]
                naive = actuals[row, hour - 24] if hour >= 24 else np.nan
                if not np.isfinite(naive) and before:
                    naive = before[-1]
                if np.isfinite(actual) and np.isfinite(mean):
                    inside.append((hour, float(abs(actual - mean) <= 2.0), 0.0))
                    if np.isfinite(naive):
                        errors.append((hour, abs(actual - mean), abs(actual - naive)))
            key = ("3h", "api", f"{lead}h", pod)
            expected = {hours - 1 - hour: a / b for hour, (a, b) in rolled(errors, WINDOW).items()}
            assert mase[key] == pytest.approx(expected)
            assert coverage[key] == pytest.approx({hours - 1 - h: a for h, (a, _) in rolled(inside, WINDOW).items()})


def test_neither_the_range_nor_blocks_change_a_value(worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sample depends on is read however short the range is; what is large is judged in parts."""
    world = worlds()
    by_lead(world, 60)
    world.score(SERIES[1], {hour: (float(hour), 1) for hour in range(9)})
    names = ("hits_sentinel_mase", "hits_sentinel_coverage", "hits_sentinel_drift_mae")
    at_once = [world.found(name) for name in names]
    monkeypatch.setattr(quality, "_BLOCK_CELLS", 150)
    assert [world.found(name) for name in names] == at_once
    for name, whole in zip(names, at_once, strict=True):
        for key, values in world.found(name, hours=2).items():
            assert values == pytest.approx({hour: whole[key][hour] for hour in range(3) if hour in whole[key]})


def test_no_error_of_the_naive_forecast_gives_no_mase(worlds) -> None:
    """A series that never moves has no MASE, rather than an infinite one."""
    world = worlds()
    world.fleet.actuals(WATCH, SERIES[:1], np.full((1, 10), 5.0))
    for origin in range(10):
        world.fleet.forecast(Issue(WATCH, SERIES[:1], np.full((1, LEADS), 6.0)), origin=NOW - (9 - origin) * STEP)
    world.fleet.state(WATCH, scored_until=NOW)
    assert world.found("hits_sentinel_mase") == {}
    assert set(world.found("hits_sentinel_coverage")["3h", "api", "1h", "a"].values()) == {1.0}


def test_replays_are_not_counted(worlds) -> None:
    """Forecasts of a backfill tell of the model of today, not of what was said then."""
    world = worlds()
    world.fleet.actuals(WATCH, SERIES, np.arange(30.0).reshape(3, 10))
    world.fleet.forecast(Issue(WATCH, SERIES, np.zeros((3, LEADS))), origin=NOW - 5 * STEP, mode=1)
    world.fleet.state(WATCH, scored_until=NOW)
    assert world.found("hits_sentinel_coverage") == {}


def test_matchers(worlds) -> None:
    """On the series' own labels, on the horizon, on the lead; a label that is not there is empty."""
    world = worlds()
    by_lead(world, 30)
    world.score(SERIES[0], {0: (1.0, 1)})
    name = "hits_sentinel_coverage"
    leads = {key[2] for key in world.found(name, Matcher("sentinel_lead", "=~", "1h|3h"))}
    assert leads == {"1h", "3h"}
    assert {key[3] for key in world.found(name, Matcher("pod", "!=", "b"))} == {"a", "c"}
    assert len(world.found(name, Matcher("sentinel_horizon", "=", "3h"), Matcher("env", "=", ""))) == 9
    for label, value in (("sentinel_horizon", "5h"), ("sentinel_lead", ""), ("env", "prod"), ("sentinel_lead", "60m")):
        assert world.found(name, Matcher(label, "=", value)) == {}
    assert len(world.found("hits_sentinel_drift_mae", Matcher("sentinel_lead", "=", ""))) == 1
    assert world.found("hits_sentinel_drift_mae", Matcher("sentinel_lead", "=", "1h")) == {}
    assert world.found("hits") == world.found("other_sentinel_mase") == {}


def test_the_first_watch_of_a_horizon_is_told_of(worlds) -> None:
    """As on /metrics: never two series with the same labels."""
    twin = WatchConfig(metric="hits", labels={"job": "api"}, model_class="LinearTrendModel", granularity="1h",
                       horizon="3h", lookback="6h", drift_window=WINDOW)  # fmt: skip
    world = worlds(WATCH, twin)
    world.score(SERIES[0], {0: (1.0, 1)})
    world.score(SERIES[0], {0: (2.0, 1)}, twin)
    world.score(SERIES[1], {0: (3.0, 1)}, twin)
    assert list(world.found("hits_sentinel_drift_mae").values()) == [{0: 1.0}]


def test_series_and_metadata(worlds) -> None:
    """What has been scored and lived then, without reading a sample."""
    world = worlds()

    def series(start: int, end: int) -> list[tuple[str, str]]:
        selector = [Matcher("__name__", "=~", ".*_sentinel_(mase|drift_mae)"), Matcher("sentinel_lead", "!~", "[12]h")]
        found = world.source.series(selector, start * 1000, end * 1000, Budget())
        return sorted((dict(one)["__name__"], dict(one)["pod"]) for one in found)

    assert series(NOW, NOW + 60) == []
    world.fleet.state(WATCH, scored_until=NOW)
    assert series(NOW, NOW + 60) == [(f"hits_sentinel_{kind}", pod) for kind in ("drift_mae", "mase") for pod in "abc"]
    assert series(NOW - 60, NOW - 1) == []
    assert len(series(NOW + STEP, NOW + STEP)) == 6  # the newest sample stands for as long
    assert series(NOW + 2 * STEP, NOW + 3 * STEP) == []
    world.fleet.vanish(WATCH, SERIES[1])
    assert {pod for _, pod in series(NOW + 1, NOW + 60)} == {"a", "c"}
    metadata = world.source.metadata()
    assert metadata["hits_sentinel_mase"] == (
        "gauge",
        "MAE of the forecasts of hits by that of a seasonal naive forecast, by lead.",
    )
    assert len(metadata) == 4


def test_too_much_is_refused(worlds) -> None:
    """Before it is read."""
    world = worlds()
    world.fleet.state(WATCH, scored_until=NOW)
    for name in ("hits_sentinel_mase", "hits_sentinel_drift_mae"):
        with pytest.raises(ExecutionError, match="too many samples"):
            world.source.samples([Matcher("__name__", "=", name)], 0, NOW * 1000, Budget(cells=10_000))


def test_what_the_pipeline_leaves(world: moved_world.World, load: Callable[..., WatchConfig]) -> None:
    """After some real ticks the worst series is at the drift that /metrics has, and every lead has been judged."""
    watch = load()
    engine = world.engine(watch)
    engine.train([watch.slug], kind="cold_start", reason="test")
    for _ in range(12):
        world.tick(engine)
    watches = Watches(engine.store, lambda: engine.config)
    source = QualitySource(engine.store, lambda: engine.config, watches)
    now = np.array([int(world.clock.now) * 1000])
    found = {
        name: source.vector([Matcher("__name__", "=", f"shop_load_sentinel_{name}")], now, Budget())
        for name in ("drift_mae", "mase", "coverage")
    }
    (status,) = engine.status().values()
    assert found["drift_mae"].values.max() == pytest.approx(status["drift_mae"])
    assert [one.present.sum() for one in found.values()] == [6, 6 * 5, 6 * 5]
    assert (found["mase"].values > 0).all()
    assert ((found["coverage"].values >= 0) & (found["coverage"].values <= 1)).all()
