"""Sentinel's own metrics, as a Prometheus would read them."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from sentinel_core.config import WatchConfig
from sentinel_core.emitter.exposition import OPENMETRICS, OPENMETRICS_END, PLAIN
from sentinel_core.emitter.self_metrics import COUNTED, PER_WATCH, SidecarMetrics, SnapshotCollector, encode
from sentinel_core.emitter.snapshot import UNSEEN, Forecasts, Snapshot, WatchView
from sentinel_core.series import Series
from sentinel_core.storage.quality_store import Quality
from sentinel_core.storage.watch_store import CounterKey

REQUESTS = WatchConfig(metric="requests", model_class="LinearTrendModel")


def collected(snapshot: Snapshot, now: float = 1000.0) -> dict[str, list[tuple[dict[str, str], float]]]:
    """What the text format shows: labels and values by sample name. Both formats must be readable."""
    collector = SnapshotCollector(snapshot, now)
    list(parse_openmetrics((encode(collector, OPENMETRICS) + OPENMETRICS_END).decode()))
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parse_plain(encode(collector, PLAIN).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def counters(**values: float) -> Snapshot:
    """A snapshot with nothing but counters."""
    return Snapshot(counters={(name, ()): value for name, value in values.items()})


def view(**state: object) -> WatchView:
    """A watch with this state."""
    return WatchView(REQUESTS, UNSEEN.__class__(**{**vars(UNSEEN), **state}))


def test_counters_of_other_processes_are_shown_with_their_labels() -> None:
    """A row of the counters table becomes a sample; a summary's two rows become one family."""
    rows: dict[CounterKey, float] = {
        ("sentinel_trainings_total", (("kind", "retrain"), ("outcome", "promoted"))): 2.0,
        ("sentinel_source_request_seconds_sum", (("endpoint", "query"),)): 0.5,
        ("sentinel_source_request_seconds_count", (("endpoint", "query"),)): 4.0,
    }
    found = collected(Snapshot(counters=rows))
    assert found["sentinel_trainings_total"] == [({"kind": "retrain", "outcome": "promoted"}, 2.0)]
    assert found["sentinel_source_request_seconds_sum"] == [({"endpoint": "query"}, 0.5)]
    assert found["sentinel_source_request_seconds_count"] == [({"endpoint": "query"}, 4.0)]


def test_a_counter_that_nobody_declared_is_not_lost() -> None:
    """A name that the table does not know is shown as what its suffix says."""
    found = collected(counters(sentinel_surprises_total=3.0, sentinel_surprise=1.0))
    assert found["sentinel_surprises_total"] == [({}, 3.0)]
    assert found["sentinel_surprise"] == [({}, 1.0)]


def test_every_declared_counter_can_be_shown() -> None:
    """Each name of the table is valid in both formats."""
    rows = {
        f"{name}{suffix}": 1.0
        for name, (kind, _) in COUNTED.items()
        for suffix in (("_sum", "_count") if kind == "summary" else ("",))
    }
    assert rows.keys() <= collected(counters(**rows)).keys()


def test_the_state_of_a_watch() -> None:
    """Last success, staleness, drift and series by state and severity are gauges labelled with the watch's slug."""
    watch = view(last_tick_at=990.0, series_live=4, severity="low", drift_mae=0.2, drift_low=1, drift_scored=3)
    found = collected(Snapshot((watch,)))
    slug = {"watch": REQUESTS.slug}
    assert found["sentinel_watch_last_success_timestamp_seconds"] == [(slug, 990.0)]
    assert found["sentinel_watch_staleness_seconds"] == [(slug, 10.0)]
    assert found["sentinel_drift_mae"] == [(slug, 0.2)]
    assert found["sentinel_drift_severity"] == [(slug, 1.0)]
    assert [(labels["severity"], value) for labels, value in found["sentinel_drift_series"]] == [
        ("none", 2.0),
        ("low", 1.0),
        ("high", 0.0),
    ]
    info = {"selector": "requests", "model": "LinearTrendModel", "horizon": "5m"}
    assert found["sentinel_watch_info"] == [(slug | info, 1.0)]


def test_how_good_forecasts_were() -> None:
    """Each lead has its gauges, labelled with its duration; MASE is missing where the seasonal naive made no error."""
    near = Quality(1, 960, 60, 50, 5, 2.0, 0.5, -0.1, 0.94, 0.02, 0.95, 0.8)
    far = replace(near, lead_seconds=300, mase=None)
    found = collected(Snapshot((replace(view(), quality=(near, far)),)))
    labels = [{"watch": REQUESTS.slug, "lead": lead} for lead in ("1m", "5m")]
    assert found["sentinel_forecast_mae"] == [(labels[0], 2.0), (labels[1], 2.0)]
    assert found["sentinel_forecast_mase"] == [(labels[0], 0.5)]
    assert [found[f"sentinel_forecast_{name}"][0][1] for name in ("bias", "coverage", "better_share")] == [
        -0.1,
        0.94,
        0.8,
    ]


def test_a_watch_that_is_read_but_not_forecast_is_stale() -> None:
    """Staleness counts from the tick that forecast, however often the watch was read since."""
    read = {"last_tick_at": 990.0, "series_live": 1, "scraped_until": 960}
    for state, staleness in (({"forecast_origin": 960}, 10.0), ({"forecast_origin": 660}, 310.0), ({}, 10.0)):
        found = collected(Snapshot((view(**read, **state),)))
        assert found["sentinel_watch_staleness_seconds"][0][1] == staleness
        assert found["sentinel_watch_last_success_timestamp_seconds"][0][1] == 1000 - staleness


def test_series_are_counted_by_what_forecasts_them() -> None:
    """Fitted, pooled, naive and waiting series add up to the live ones."""
    series = tuple(Series.of("requests", {"i": str(i)}) for i in range(4))
    values = np.zeros((4, 1))
    versions = np.array([3, 2, -3, 0], np.int32)
    fingerprints = np.array([one.fingerprint for one in series])
    grid = (60, 600, series, fingerprints, np.array([1]), versions)
    block = Forecasts(REQUESTS.slug, "requests", "5m", *grid, *[values] * 5, values[:, 0])
    watch = WatchView(REQUESTS, view(series_live=6).state, forecasts=(block,))
    found = {labels["state"]: value for labels, value in collected(Snapshot((watch,)))["sentinel_watch_series"]}
    assert found == {"fitted": 2.0, "pooled": 1.0, "naive": 1.0, "waiting": 2.0}


def test_what_a_watch_does_not_have_yet_has_no_sample() -> None:
    """A watch before its first tick shows no time, no version and no drift, rather than zeros."""
    found = collected(Snapshot((view(),)))
    shown = {name for name in PER_WATCH if name in found}
    assert shown == {"sentinel_watch_buffer_fill_ratio", "sentinel_watch_pinned", "sentinel_watch_readable"}


@pytest.mark.parametrize("media_type", [PLAIN, OPENMETRICS])
def test_the_sidecars_own_metrics(media_type: str) -> None:
    """Build, configuration and requests are shown in both formats."""
    metrics = SidecarMetrics("1.2.3")
    metrics.requests.labels("/metrics", "200").inc()
    text = encode(metrics.registry, media_type).decode()
    assert 'sentinel_build_info{python="3.' in text
    assert 'version="1.2.3"' in text
    assert "sentinel_config_last_reload_successful 1.0" in text
    assert 'sentinel_http_requests_total{code="200",route="/metrics"} 1.0' in text
