"""Shipped rules that look ahead: for which future they fire, over samples that lie there."""

from collections.abc import Sequence

import pytest
import yaml

from sentinel_core.grafana.files import FOLDER
from sentinel_core.promql.evaluate import evaluate
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse
from sentinel_core.promql.values import Notes, Vector
from tests.promqltest import MemorySource

MINUTE = 60_000
NOW = 600 * MINUTE
RULES = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((FOLDER / "rules/forecasts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
HORIZON = {"sentinel_horizon": "1h", "sentinel_version": "v1"}


def fired(rule: str, *series: tuple[str, dict[str, str], Sequence[float]], before: int = -1) -> list[dict[str, str]]:
    """The labels of the alerts at NOW; each series has a point a minute, of ours from a minute later on, or before."""
    memory = MemorySource()
    for name, labels, points in series:
        pairs = tuple(sorted({"__name__": name, **labels}.items()))
        first = NOW // MINUTE - (before if "_sentinel_" in name else 1)
        memory.load(pairs, MINUTE, [None] * first + list(points))
    found = evaluate(parse(RULES[rule]), NOW, NOW, 0, memory, Budget(), Notes())
    assert isinstance(found, Vector)
    return [dict(labels) for labels in found.labels]


def rising(start: float, slope: float) -> list[float]:
    """A line over ninety minutes."""
    return [start + slope * minute for minute in range(90)]


@pytest.mark.parametrize(("start", "slope", "fires"), [(0.8, 0.002, True), (0.8, 0.001, False), (0.95, -0.01, True)])
def test_a_disk_that_will_be_full_warns_before_it_is(start: float, slope: float, fires: bool) -> None:
    """The greatest forecast of the coming hour counts, and a new version of the model is no new alert."""
    disk = ("demo_disk_used_ratio_sentinel_predicted", {"instance": "web-1", **HORIZON}, rising(start, slope))
    found = fired("ForecastDiskFull", disk)
    assert found == ([{"instance": "web-1", "sentinel_horizon": "1h"}] if fires else [])


@pytest.mark.parametrize(("slope", "fires"), [(-2.0, True), (-1.0, False)])
def test_a_file_system_is_judged_by_its_size(slope: float, fires: bool) -> None:
    """Which only Prometheus knows."""
    labels = {"instance": "db", "mountpoint": "/"}
    available = ("node_filesystem_avail_bytes_sentinel_predicted", {**labels, **HORIZON}, rising(200.0, slope))
    size = ("node_filesystem_size_bytes", labels, [1000.0])
    assert fired("ForecastFilesystemFull", available) == []
    assert fired("ForecastFilesystemFull", available, size) == ([labels] if fires else [])


@pytest.mark.parametrize(("score", "fires"), [(2.5, True), (1.5, False)])
def test_a_value_far_beyond_its_bounds_is_an_alert_for_ten_minutes(score: float, fires: bool) -> None:
    """Although what follows it is quiet; the edge of the bounds is crossed too often for that."""
    labels = {"instance": "db", "sentinel_horizon": "1h"}
    memory = ("load_sentinel_anomaly_score", labels, [score] + 9 * [0.8])
    assert fired("ForecastAnomaly", memory, before=9) == ([labels] if fires else [])
    assert fired("ForecastAnomaly", memory, before=11) == []


def test_no_forecast_for_the_coming_hour_is_a_fault() -> None:
    """Any series that has one is enough."""
    assert fired("ForecastGone", ("x_sentinel_predicted", HORIZON, [1.0])) == []
    assert fired("ForecastGone", ("x", {}, [1.0])) == [{}]
