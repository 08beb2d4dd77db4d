"""Forecasts are judged in rounds: what is kept of them is what a loop over every forecast and actual finds."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sentinel_core.config import WatchConfig
from sentinel_core.pipeline import verifying
from sentinel_core.pipeline.context import Context
from sentinel_core.series import Series
from sentinel_core.storage import forecast_store, quality_store, watch_store
from sentinel_core.storage.quality_store import Quality
from tests.emitter.fleet import NOW, Fleet, Issue

STEP = 900
DAY = 86_400
SHORT = WatchConfig(metric="hits", model_class="LinearTrendModel", granularity="15m", horizon="45m", lookback="2h")
LONG = WatchConfig(
    metric="hits",
    model_class="LinearTrendModel",
    granularity="15m",
    horizon="75m",
    lookback="2h",
    level=0.8,
)
SERIES = [Series.of("hits", {"pod": pod}) for pod in "abc"]
STEPS = 4 * 60  # of actuals: a day that is judged, the day before it, and some


@dataclass
class Past:
    """Two watches over the same series with a past, forecast at every step of it from the first one on."""

    fleet: Fleet
    first: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def __post_init__(self) -> None:
        self.actual = np.sin(np.arange(STEPS) / 9) + self.rng.normal(0, 0.3, (3, STEPS))
        self.actual[1, 100:110] = self.actual[0, 180] = np.nan
        self.times = NOW - STEP * np.arange(STEPS)[::-1]
        for watch in (SHORT, LONG):
            self.fleet.live(watch, SERIES)
            self.fleet.actuals(watch, SERIES, self.actual)
        self.issues = {
            watch.slug: self.rng.normal(0, 1, (STEPS, 3, watch.horizon_steps)) for watch in (SHORT, LONG)
        }  # from each step
        self.context = Context(self.fleet.config, self.fleet.store, clock=lambda: float(NOW))
        parts = [
            Issue(watch, SERIES, mean).columns(self.fleet.id(watch), origin, 0)
            for watch in (SHORT, LONG)
            for origin, mean in list(zip(self.times.tolist(), self.issues[watch.slug], strict=True))[self.first :]
        ]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        with self.fleet.store.database.write() as connection:
            self.fleet.store.segments.commit(
                connection, [forecast_store.write_forecasts(self.fleet.store, STEP, columns, now=float(NOW))]
            )

    def verify(self, until: int, *watches: WatchConfig) -> list[Quality]:
        """What a tick finds that has read everything up to a time."""
        for watch in watches or (SHORT, LONG):
            self.fleet.state(watch, scraped_until=until, forecast_origin=until)
        before = verifying.newest(self.context)
        verifying.verify_forecasts(self.context)
        after = verifying.newest(self.context)
        return [one for slug, some in after.items() if some != before.get(slug) for one in some]

    def expected(self, watch: WatchConfig, lead: int, after: int, until: int) -> dict[str, float]:
        """The same by a loop."""
        errors: list[list[float]] = [[], [], []]
        naive: list[list[float]] = [[], [], []]
        inside = []
        for at, time in enumerate(self.times.tolist()):
            if not after < time <= until or at < lead:
                continue
            for row in range(3):
                made = self.issues[watch.slug][at - lead, row, lead - 1]
                actual, before = self.actual[row, at], self.actual[row, at - 96] if at >= 96 else np.nan
                if np.isnan(before):
                    before = next(one for one in self.actual[row, at - lead :: -1] if not np.isnan(one))
                if np.isnan(actual):
                    continue
                errors[row].append(made - actual)
                naive[row].append(abs(actual - before))
                inside.append(abs(actual - made) <= 1)
        mae, base = ([np.abs(one).mean() for one in some] for some in (errors, naive))
        return {
            "samples": len(inside),
            "series": 3,
            "mae": np.median(mae),
            "mase": np.median(np.array(mae) / base),
            "bias": np.median([np.mean(one) for one in errors]),
            "coverage": np.mean(inside),
            "better_share": np.mean(np.array(mae) < base),
        }

    def check(self, found: list[Quality], watch: WatchConfig, after: int, until: int) -> None:
        """That what was found of a watch is what a loop finds."""
        mine = [one for one in found if one.watch_id == self.fleet.id(watch)]
        assert [one.lead_seconds // STEP for one in mine] == ([1, 2, 3] if watch is SHORT else [1, 2, 4, 5])
        for one in mine:
            expected = self.expected(watch, one.lead_seconds // STEP, after, until)
            assert {name: getattr(one, name) for name in expected} == pytest.approx(expected)
            assert (one.ts, one.level) == (until, watch.level)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    """With nothing judged yet."""
    fleet = Fleet.open(tmp_path, [SHORT, LONG])
    yield Past(fleet)
    fleet.store.close()


def test_a_first_round_judges_the_last_day(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each watch at its own leads, in parts that fit in memory; that is kept as what is newest."""
    monkeypatch.setattr(verifying, "BLOCK_CELLS", 60)
    until = NOW - NOW % 3_600
    found = past.verify(until)
    for watch in (SHORT, LONG):
        past.check(found, watch, until - DAY, until)
    with past.fleet.store.database.read() as connection:
        newest = quality_store.newest(connection)
    assert [one for some in newest.values() for one in some] == found
    assert past.verify(until) == []


def test_what_a_watch_ignores_is_not_judged(past: Past) -> None:
    """Nothing of a span that it names is in its numbers; another watch of the same series is not touched."""
    until = NOW - NOW % 3_600
    span = "/".join(datetime.fromtimestamp(second, UTC).isoformat() for second in (until - DAY, until - 7_200))
    watches = [replace(SHORT, ignore=[span]), LONG]
    past.context = replace(past.context, config=replace(past.fleet.config, watches=watches))
    found = past.verify(until)
    past.check(found, SHORT, until - 7_200, until)
    past.check(found, LONG, until - DAY, until)


def test_rounds_add_up_to_a_day(past: Past) -> None:
    """After rounds of any length, of watches that come along at different times, a day is told of, and no more."""
    end = NOW - NOW % 3_600
    ends = [end - 3_600 * hours for hours in (14, 9, 8, 0)]
    past.verify(end - 3_600 * 16, LONG)
    for until in ends[:-1]:
        assert past.verify(until, LONG)
    past.fleet.state(LONG, scraped_until=ends[-1])
    found = past.verify(end)
    past.check(found, LONG, end - DAY, end)
    past.check(found, SHORT, end - DAY, end)
    with past.fleet.store.database.read() as connection:
        rounds = quality_store.history(connection, past.fleet.id(LONG), end - DAY, end)
        first = quality_store.first_rounds(connection)
    assert sorted({one.ts for one in rounds}) == list(range(end - DAY, end + 1, 3_600))
    assert first == {past.fleet.id(LONG): end - 3_600 * 39, past.fleet.id(SHORT): end - 3_600 * 23}


def test_rounds_are_hours_once_a_watch_has_a_first_one(tmp_path: Path) -> None:
    """In its first hour a watch is told about at each step, later when an hour is over."""
    fleet = Fleet.open(tmp_path, [SHORT, LONG])
    past = Past(fleet, first=STEPS - 13)  # three hours ago
    told = [bool(past.verify(NOW - 3 * 3_600 + STEP * k)) for k in range(13)]
    assert told == [False] + [True] * 4 + [False, False, False, True] * 2
    fleet.store.close()


def test_a_round_is_judged_once(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two processes judge the same steps, what the slower one found is dropped."""
    until = NOW - NOW % 3_600
    judge = verifying._judge

    def slow(context: Context, this: object) -> object:
        found = judge(context, this)  # type: ignore[arg-type]
        monkeypatch.setattr(verifying, "_judge", judge)
        assert past.verify(until)
        return found

    monkeypatch.setattr(verifying, "_judge", slow)
    past.check(past.verify(until), LONG, until - DAY, until)


def test_a_watch_that_is_removed_meanwhile_stops_no_other(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round goes on without it."""
    until = NOW - NOW % 3_600
    judge = verifying._judge

    def retiring(context: Context, this: object) -> object:
        with past.fleet.store.database.write() as connection:
            watch_store.sync_watches(connection, [(LONG.slug, LONG.selector)], NOW)
        return judge(context, this)  # type: ignore[arg-type]

    monkeypatch.setattr(verifying, "_judge", retiring)
    past.check(past.verify(until), LONG, until - DAY, until)


def test_old_rounds_are_forgotten(past: Past) -> None:
    """Rows older than the forecasts' retention go."""
    until = NOW - NOW % 3_600
    past.verify(until)
    with past.fleet.store.database.write() as connection:
        assert quality_store.forget(connection, until - 22 * 3_600) == 7
        assert quality_store.forget(connection, until) == 22 * 7
        assert len(quality_store.newest(connection)) == 2
