"""A series that is likely to get across a threshold is an incident of its watch, tick by tick."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from sentinel_core import WatchConfig
from sentinel_core.alerts.message import headline, seriousness
from sentinel_core.forecasts import Forecast
from sentinel_core.incidents import store as incidents
from sentinel_core.incidents.findings import ThresholdForecast, threshold_forecast
from sentinel_core.incidents.lifecycle import act
from sentinel_core.pipeline.threshold_incidents import Expected, follow_thresholds
from sentinel_core.series import Series
from sentinel_core.storage import watch_store
from tests.monitored_world import HOUR, START, MonitoredWorld
from tests.moved_world import World

DISK = WatchConfig(
    metric="disk_used_ratio", model_class="LinearTrendModel", horizon="10m", history="1d", thresholds={"above": 0.9}
)
SERIES = [Series.of("disk_used_ratio", {"instance": f"web-{n}"}) for n in range(8)]
LEADS = 10


@dataclass
class Disks:
    """A watch that is forecast as a test wants it."""

    world: MonitoredWorld
    watch: WatchConfig = DISK
    origin: int = START
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.engine.sync_watches()
        with self.world.store.database.write() as conn:
            self.watch_id = watch_store.watch_ids(conn)[self.watch.slug]
            watch_store.add_series(conn, self.watch_id, SERIES, START)

    def tick(self, *lasts: float, spread: float = 0.05, again: bool = False) -> None:
        """Each series rises from 0.5 to a value at the last lead; `again`: from the same origin."""
        self.origin += 0 if again else 60
        self.world.clock.now = self.origin + 5.0
        mean = 0.5 + (np.array(lasts)[:, None] - 0.5) * np.arange(1, LEADS + 1) / LEADS
        fingerprints = np.array([one.fingerprint for one in SERIES[: len(lasts)]])
        forecast = Forecast(mean, mean - spread, mean + spread, np.ones(len(lasts), np.int32), mean, mean)
        expected = [  # as issuing has them: what a version knows, and what is new to it
            Expected(
                self.watch, self.watch_id, self.origin, fingerprints[part],
                forecast.rows(part),
            )
            for part in (slice(0, 1), slice(1, None))
        ]  # fmt: skip
        self.found += [one.step for one in follow_thresholds(self.world.engine.context, expected)]

    @property
    def finding(self) -> ThresholdForecast:
        return threshold_forecast(self.world.incidents()[-1].assessment)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """Nothing is wrong yet."""
    with ExitStack() as stack:
        yield Disks(MonitoredWorld(tmp_path, stack, settings={"watches": [DISK]}))


def test_it_opens_with_the_tick_that_says_so_and_resolves_after_three_calm_ones(disks: Disks) -> None:
    """Below threshold_probability nothing opens; between 0.7 of it and it an incident lasts; below that it resolves."""
    disks.tick(0.6, 0.9)
    disks.tick(0.6, 0.915)
    assert disks.world.incidents() == []
    disks.tick(0.6, 1.0)
    (incident,) = disks.world.incidents()
    assert (incident.kind, incident.subject, incident.state, incident.severity, incident.opened_at) == (
        "threshold",
        DISK.slug,
        "open",
        "warn",
        disks.origin,
    )
    for _ in range(4):
        disks.tick(0.6, 0.915)
        assert 0.63 < disks.finding.likeliest[0].probability < 0.9
    disks.tick(0.6, 0.6)
    disks.tick(0.6, 0.6)
    disks.tick(0.6, 0.6, again=True)  # a rollback forecasts from the same origin once more
    assert disks.found == ["opened"]
    disks.tick(0.6, 0.6)
    assert disks.found == ["opened", "resolved"]
    disks.tick(0.6, 1.0)
    assert disks.found == ["opened", "resolved", "reopened"]
    assert len(disks.world.incidents()) == 1


def test_it_says_which_series_when_and_how_likely(disks: Disks) -> None:
    """The likeliest first, of equally likely ones the soonest; how many there are beyond those that are named."""
    disks.tick(0.5, 0.92, 1.2, 0.6, 1.5, 1.5, 1.5, 1.5)
    found = disks.finding
    assert (found.crossing, found.series, found.horizon, len(found.likeliest)) == (5, 8, "10m", 5)
    assert [one.seconds for one in found.likeliest[:4]] == [240] * 4
    assert found.likeliest[4].series == 'disk_used_ratio{instance="web-2"}'
    (incident,) = disks.world.incidents()
    assert headline("threshold", "disk", incident.assessment).startswith(
        'disk: above 0.9 in 4m, over 99 %: disk_used_ratio{instance="web-'
    )
    assert headline("threshold", "disk", incident.assessment).endswith('"} and 4 more')
    serious = "Warning: 5 of 8 series are at 90 % or more to get across within 10m."
    assert seriousness("threshold", "warn", incident.assessment) == serious
    disks.tick(0.5)
    (incident,) = disks.world.incidents()
    assert headline("threshold", "disk", incident.assessment) == "disk: no threshold is likely to be crossed any more"


def test_what_is_not_known_is_no_verdict(disks: Disks) -> None:
    """An incident neither opens nor resolves on forecasts that are not there."""
    disks.tick(float("nan"), float("nan"))
    assert disks.found == []
    disks.tick(1.0, float("nan"))
    for _ in range(4):
        disks.tick(float("nan"), float("nan"))
    assert disks.found == ["opened"]
    assert (disks.finding.crossing, disks.finding.series) == (1, 1)


def test_a_person_may_resolve_it_and_it_comes_back_while_it_lasts(disks: Disks) -> None:
    """As any incident."""
    disks.tick(1.0)
    (incident,) = disks.world.incidents()
    with disks.world.store.database.write() as conn:
        incidents.save(conn, incident, act(incident, "resolve", "ann", "cleaning up", disks.world.clock.now))
    disks.tick(1.0, again=True)
    assert disks.found == ["opened"]
    disks.tick(1.0)
    assert disks.found == ["opened", "reopened"]


@pytest.mark.parametrize("watches", [[], [replace(DISK, thresholds={})]])
def test_it_ends_with_its_thresholds(disks: Disks, watches: list[WatchConfig]) -> None:
    """Without the watch, or its thresholds, the hourly evaluation ends it; with them it leaves it alone."""
    disks.tick(1.0)
    for _ in range(4):
        disks.world.clock.now += HOUR
        disks.world.engine.evaluate()
    assert disks.found == ["opened"]
    assert disks.world.incidents()[0].state == "open"
    other = disks.world.another(watches=watches)
    for _ in range(3):
        disks.world.clock.now += HOUR
        other.evaluate()
    assert disks.world.incidents()[0].state == "resolved"


def test_the_loop_opens_and_resolves_it(world: World, load: Callable[..., WatchConfig]) -> None:
    """Ticks over a real Prometheus: a threshold that is crossed now, then one that never will be."""
    watch = load(thresholds={"below": 1e6})
    engine = world.engine(watch)
    (request,) = engine.decide_actions()
    engine.train(request.slugs, kind=request.kind, reason=request.cause, cause=request.cause)
    world.tick(engine)

    def found() -> list[tuple[str, str]]:
        with engine.store.database.read() as conn:
            return [(one.kind, one.state) for one in incidents.list_incidents(conn)]

    assert found() == [("threshold", "open")]
    other = world.engine(replace(watch, thresholds={"above": 1e6}))
    for _ in range(3):
        world.tick(other)
    assert found() == [("threshold", "resolved")]
