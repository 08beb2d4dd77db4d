"""The demo shop's metrics: the same time always gives the same value, whoever asks and how."""

import re
from pathlib import Path

import numpy as np
import pytest

from sentinel_core.demo.history import write_openmetrics
from sentinel_core.demo.signals import EPISODE_EVERY, INSTANCES, SCRAPE_SECONDS, Signal, signals
from sentinel_core.demo.target import exposition

NOW = 1_790_000_010
WEEK = np.arange(NOW - 7 * 86_400, NOW, SCRAPE_SECONDS, dtype=np.float64)


@pytest.mark.parametrize("signal", signals(), ids=lambda signal: signal.series.selector)
def test_history_and_present_join(signal: Signal) -> None:
    """One time asked alone has the value it has within a week, exactly: no false counter reset where they meet."""
    together = signal.at(WEEK)
    assert np.isfinite(together).all()
    for index in (0, 1, 7_777, len(WEEK) - 1):
        assert signal.at(WEEK[index : index + 1])[0] == together[index]


@pytest.mark.parametrize("signal", [s for s in signals() if s.kind == "counter"], ids=lambda s: s.series.selector)
def test_counters_only_fall_at_restarts(signal: Signal) -> None:
    """Counters are whole, grow, and start again from near nothing a few times a week."""
    values = signal.at(WEEK)
    falls = np.diff(values) < 0
    assert (values == np.floor(values)).all()
    assert 3 <= falls.sum() <= 9
    assert (values[1:][falls] < 0.01 * values.max()).all()


def test_episodes_visit_one_instance_at_a_time() -> None:
    """Within half an hour one instance, and one alone, leaves its habits."""
    load = {
        s.series.labels[0][1]: s.at(np.arange(NOW - EPISODE_EVERY, NOW, 15.0))
        for s in signals()
        if s.family == "demo_cpu_ratio"
    }
    spread = [values.std() / values.mean() for values in load.values()]
    assert sorted(load) == sorted(INSTANCES)
    assert sum(value > 2 * min(spread) for value in spread) == 1


def test_openmetrics_holds_every_scrape_of_the_span(tmp_path: Path) -> None:
    """The file has one line per series and scrape, families in one piece, and its end mark."""
    count = write_openmetrics(tmp_path / "history.om", NOW - 3_600 + 1, NOW)
    lines = (tmp_path / "history.om").read_text().splitlines()
    assert count == len(signals()) * 240 == sum(not line.startswith("#") for line in lines)
    assert lines[-1] == "# EOF"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) >= 6


def test_metrics_show_the_value_of_now_without_the_job() -> None:
    """/metrics shows each series at the time of the request; `job` is the scraper's to add."""
    text = exposition(NOW).decode()
    first = signals()[0]
    labels = ",".join(f'{key}="{value}"' for key, value in first.series.labels if key != "job")
    shown = re.search(re.escape(f"{first.series.name}{{{labels}}}") + " (.+)", text)
    assert shown is not None
    assert float(shown[1]) == first.at(np.array([float(NOW)]))[0]
    assert "job=" not in text
