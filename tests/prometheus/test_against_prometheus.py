"""Scraping a real Prometheus: holes, resets, churn, chunks, limits, and a server that is paused or killed."""

import re
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from sentinel_core.check import check_watch
from sentinel_core.config import WatchConfig
from sentinel_core.errors import PermanentSourceError, TransientSourceError
from sentinel_core.prometheus import (
    PrometheusClient,
    Retry,
    Scrape,
    SourceFacts,
    expression,
    newest_step,
    scrape,
    source_facts,
)
from sentinel_core.prometheus import client as client_module
from tests.prometheus_server import HOUR, MINUTE, PrometheusServer

pytestmark = pytest.mark.prometheus

NO_RETRY = Retry(attempts=1)


def read(server: PrometheusServer, watch: WatchConfig, start: int, end: int) -> Scrape:
    """Facts as of the history's end, then the span."""
    with PrometheusClient(server.url) as client:
        return scrape(client, watch, source_facts(client, watch, server.history.end), start, end)


def promtool_range(
    server: PrometheusServer, query: str, start: int, end: int, step: int
) -> dict[str, dict[int, float]]:
    """What another client of the same server reads: series -> timestamp -> value."""
    output = subprocess.run(
        ["promtool", "query", "range", f"--start={start}", f"--end={end}", f"--step={step}s", server.url, query],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    result: dict[str, dict[int, float]] = {}
    for line in output.splitlines():
        if line.endswith("=>"):
            samples = result.setdefault(line.removesuffix(" =>"), {})
        elif found := re.fullmatch(r"(\S+) @\[(\d+)\]", line):
            samples[int(found[2])] = float(found[1])
    return result


def test_values_are_those_that_promtool_reads(prometheus: PrometheusServer) -> None:
    """Every value of every series, across six hours with a hole, is the server's own."""
    end = prometheus.history.end
    watch = WatchConfig(metric="shop_load")
    result = read(prometheus, watch, end - 6 * HOUR, end)
    asked = expression(watch, SourceFacts("gauge", 60.0))
    for series, row in zip(result.series, result.window.values, strict=True):
        labels = ", ".join(f'{key}="{value}"' for key, value in series.labels)
        theirs = promtool_range(prometheus, asked, end - 6 * HOUR, end, MINUTE)[f"shop_load{{{labels}}}"]
        ours = {int(t): v for t, v in zip(result.window.timestamps, row, strict=True) if np.isfinite(v)}
        assert ours == theirs


def test_a_hole_is_a_hole(prometheus: PrometheusServer) -> None:
    """Exactly the minutes without a scrape are NaN, where a plain range query repeats the last value for five."""
    end, (first, last) = prometheus.history.end, prometheus.history.hole
    result = read(prometheus, WatchConfig(metric="shop_load"), end - 6 * HOUR, end)
    missing = result.window.timestamps[np.isnan(result.window.values).all(axis=0)]
    assert missing.tolist() == list(range(first, last + 1, MINUTE))
    assert result.gaps == np.isnan(result.window.values).sum() == len(missing) * len(result.series)
    plain = read(prometheus, WatchConfig(query="shop_load", name="plain"), end - 6 * HOUR, end)
    assert 0 < plain.gaps < result.gaps


def test_after_the_newest_sample_comes_nothing(prometheus: PrometheusServer) -> None:
    """The newest value is not carried into the minutes after it."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_load"), end - 5 * MINUTE, end + 5 * MINUTE)
    assert np.isfinite(result.window.values).all(axis=0).tolist() == [True] * 6 + [False] * 5


def test_the_grid_is_ours_whatever_span_is_asked(prometheus: PrometheusServer) -> None:
    """Timestamps are multiples of the step although Prometheus evaluates from where it is told to start."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_load", granularity="5m"), end - 3_601, end + 17)
    assert result.window.timestamps.tolist() == list(range(end - 3_600, end + 1, 300))


def test_a_counter_is_a_rate_through_its_resets(prometheus: PrometheusServer) -> None:
    """Restarts every six hours never make a negative or absurd rate, and the name says that it is one."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_requests_total"), end - 24 * HOUR, end)
    assert {series.name for series in result.series} == {"shop_requests_total_rate"}
    finite = result.window.values[np.isfinite(result.window.values)]
    assert len(finite) == result.window.values.size
    assert finite.min() >= 0.5  # 60 … 360 a minute are written; a reset inside the range loses one step of four
    assert finite.max() <= 6.5


def test_a_rate_stops_where_the_samples_stop(prometheus: PrometheusServer) -> None:
    """A rate over four minutes is not carried past the counter's last sample."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_requests_total"), end - 2 * MINUTE, end + 3 * MINUTE)
    assert np.isfinite(result.window.values).all(axis=0).tolist() == [True, True, True, False, False, False]


def test_what_is_no_number_is_a_gap_and_counted(prometheus: PrometheusServer) -> None:
    """NaN and both infinities are NaN in the window; a series of numbers beside them is whole."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_odd"), end - HOUR, end)
    whole = {
        dict(series.labels)["kind"]: np.isfinite(row).all()
        for series, row in zip(result.series, result.window.values, strict=True)
    }
    assert whole == {"nan": False, "pinf": False, "ninf": False, "finite": True}
    assert (result.non_finite, result.gaps) == (3 * 61, 0)
    assert not np.isinf(result.window.values).any()


def test_series_that_come_and_go_each_have_their_time(prometheus: PrometheusServer) -> None:
    """A day of pods, each six hours long: every minute belongs to one of them."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_sessions"), end - 24 * HOUR, end - MINUTE)
    assert len(result.series) == 4
    assert (np.isfinite(result.window.values).sum(axis=0) == 1).all()


def test_every_fast_sample_is_used_once(prometheus: PrometheusServer) -> None:
    """At 15 s, scraped each 15 s off the grid, no sample is missing and none stands twice."""
    end = prometheus.history.end
    watch = WatchConfig(metric="shop_fast", granularity="15s")
    result = read(prometheus, watch, end - HOUR, end)
    assert result.window.values.shape == (2, 241)
    assert result.gaps == 0
    raw = httpx.get(
        f"{prometheus.url}/api/v1/query", params={"query": "shop_fast[1h]", "time": end}, trust_env=False
    ).json()["data"]["result"]
    rows = {dict(series.labels)["shard"]: row for series, row in zip(result.series, result.window.values, strict=True)}
    for series in raw:
        assert rows[series["metric"]["shard"]][1:].tolist() == [float(value) for _, value in series["values"]]


def test_what_is_scraped_rarely_stands_until_the_next_sample(prometheus: PrometheusServer) -> None:
    """A metric of five minutes on a grid of one has a value everywhere, each for five minutes."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_slow"), end - HOUR, end)
    assert result.gaps == 0
    row = result.window.values[0]
    assert (row[0:60].reshape(12, 5) == row[0:60:5, None]).all()


def test_chunks_give_the_same_as_one_request(prometheus: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days in one request and in dozens are bit for bit the same, churn and hole included."""
    end = prometheus.history.end
    for watch in (
        WatchConfig(metric="shop_load"),
        WatchConfig(metric="shop_sessions"),
        WatchConfig(metric="shop_requests_total"),
    ):
        whole = read(prometheus, watch, end - 48 * HOUR, end)
        with monkeypatch.context() as patch:
            patch.setattr(client_module, "MAX_SAMPLES", 700)
            chunked = read(prometheus, watch, end - 48 * HOUR, end)
        assert chunked.series == whole.series
        np.testing.assert_array_equal(chunked.window.values, whole.window.values)
        assert (chunked.gaps, chunked.non_finite) == (whole.gaps, whole.non_finite)


def test_more_than_eleven_thousand_points_are_read(prometheus: PrometheusServer) -> None:
    """A week at 30 s is twice what one request may have."""
    history = prometheus.history
    result = read(
        prometheus,
        WatchConfig(metric="shop_load", granularity="30s", labels={"zone": "z0"}),
        history.start,
        history.end,
    )
    assert result.window.values.shape == (2, 7 * 2_880 + 1)
    assert np.isfinite(result.window.values[:, 2]).all()


@pytest.mark.parametrize(
    ("labels", "hosts"),
    [
        ({"instance": "host-00001"}, {1}),
        ({"instance": "=~host-0000[0-2]"}, {0, 1, 2}),
        ({"instance": "!~host-0000[0-2]"}, {3, 4, 5}),
        ({"zone": "!=z0", "instance": "!=host-00001"}, {2, 4, 5}),
        ({"absent": ""}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_matchers_select(prometheus: PrometheusServer, labels: dict[str, str], hosts: set[int]) -> None:
    """All four operators reach Prometheus as written."""
    end = prometheus.history.end
    result = read(prometheus, WatchConfig(metric="shop_load", labels=labels), end - HOUR, end)
    assert {int(dict(series.labels)["instance"][-5:]) for series in result.series} == hosts


def test_too_many_series_are_counted_over_the_span(prometheus: PrometheusServer) -> None:
    """Churn counts: eight pods lived in two days, although one at a time; and so do a query's series."""
    end = prometheus.history.end
    watch = WatchConfig(metric="shop_sessions", max_series=5)
    assert len(read(prometheus, watch, end - 6 * HOUR, end - MINUTE).series) <= 2
    with pytest.raises(PermanentSourceError, match="shop_sessions has at least 8 series, more than max_series = 5"):
        read(prometheus, watch, end - 48 * HOUR + MINUTE, end - MINUTE)
    query = WatchConfig(query="shop_sessions * 2", name="doubled", max_series=5)
    with pytest.raises(PermanentSourceError, match="doubled has at least 8 series"):
        read(prometheus, query, end - 48 * HOUR + 10 * MINUTE, end - MINUTE)


def test_a_metric_that_is_gone_is_empty_now_and_there_in_its_time(prometheus: PrometheusServer) -> None:
    """Gone is not the same as never seen."""
    end = prometheus.history.end
    gone = WatchConfig(metric="shop_gone")
    assert read(prometheus, gone, end - HOUR, end).window.values.shape == (0, 61)
    assert np.isfinite(read(prometheus, gone, end - 14 * HOUR, end).window.values).sum() == 120
    with pytest.raises(PermanentSourceError, match="has no series shop_lod; check"):
        read(prometheus, WatchConfig(metric="shop_lod"), end - HOUR, end)
    with pytest.raises(PermanentSourceError, match=r'has no series shop_load\{zone="nowhere"\}; check'):
        read(prometheus, WatchConfig(metric="shop_load", labels={"zone": "nowhere"}), end - HOUR, end)


def test_names_and_labels_are_fit_to_emit(prometheus: PrometheusServer) -> None:
    """Colons and clashing labels are renamed; a query has its own name and Prometheus' labels."""
    end = prometheus.history.end
    (rule,) = read(prometheus, WatchConfig(metric="shop:load:avg"), end - HOUR, end).series
    assert rule.selector == 'shop_load_avg{zone="z0"}'
    quota = read(prometheus, WatchConfig(metric="shop_quota"), end - HOUR, end).series
    assert dict(quota[0].labels).keys() == {"exported_le", "exported_quantile", "exported_sentinel_x"}
    zones = read(prometheus, WatchConfig(query="sum by (zone) (shop_load)", name="zone_load"), end - HOUR, end)
    assert {series.selector for series in zones.series} == {f'zone_load{{zone="z{i}"}}' for i in range(3)}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sum(", r"answers 400: .*parse error: unclosed left parenthesis"),
        ("shop_load / on (zone) shop_load", r"answers 422: .*many-to-many matching not allowed"),
    ],
)
def test_prometheus_own_words_reach_people(prometheus: PrometheusServer, query: str, words: str) -> None:
    """A query that does not parse or evaluate fails with the server's explanation."""
    end = prometheus.history.end
    with pytest.raises(PermanentSourceError, match=words):
        read(prometheus, WatchConfig(query=query, name="broken"), end - HOUR, end)


def test_the_scrape_interval_is_measured(prometheus: PrometheusServer) -> None:
    """From raw samples: 15 s, a minute, the slower of two jobs, five minutes; nothing for a day leaves the step."""
    expected = {"shop_fast": 15.0, "shop_load": 60.0, "shop_mixed": 60.0, "shop_slow": 300.0, "shop_lod": 60.0}
    with PrometheusClient(prometheus.url) as client:
        measured = {
            metric: source_facts(client, WatchConfig(metric=metric), prometheus.history.end).scrape_interval
            for metric in expected
        }
    assert measured == expected


def test_live_metadata_clock_and_build(prometheus: PrometheusServer) -> None:
    """A live target's counter is one by its metadata, scraped each second; clock and version are Prometheus'."""
    prometheus.wait_for("count_over_time(prometheus_http_requests_total[1m]) > 3")
    with PrometheusClient(prometheus.url) as client:
        now = client.now()
        assert abs(now - time.time()) < 5
        assert source_facts(client, WatchConfig(metric="prometheus_http_requests_total"), now) == SourceFacts(
            "counter", 1.0
        )
        assert client.metadata_type("process_open_fds") == "gauge"
        assert re.match(r"\d+\.\d+", client.buildinfo()["version"])


def test_late_samples_are_there_on_the_next_reading(own_prometheus: PrometheusServer) -> None:
    """Steps that had not come are NaN; read again when settled they have values, and the others have not changed."""
    own_prometheus.wait_for("count_over_time(up[1m]) > 3")
    watch, facts = WatchConfig(metric="up", granularity="1s", horizon="5s", lookback="30s"), SourceFacts("gauge", 1.0)
    with PrometheusClient(own_prometheus.url) as client:
        now = int(client.now())
        early = scrape(client, watch, facts, now - 2, now + 3).window.values[0]
        assert np.isnan(early[-2:]).all()
        while newest_step(client.now(), 1, settle_delay=1.5) < now + 3:
            time.sleep(0.2)
        late = scrape(client, watch, facts, now - 2, now + 3).window.values[0]
    assert np.isfinite(late).all()
    np.testing.assert_array_equal(late[np.isfinite(early)], early[np.isfinite(early)])


def test_a_paused_server_is_slow_then_itself_again(own_prometheus: PrometheusServer) -> None:
    """While frozen it is a transient timeout; the same client works after it thaws."""
    with PrometheusClient(own_prometheus.url, timeout=0.3, retry=NO_RETRY) as client:
        client.now()
        own_prometheus.pause()
        with pytest.raises(TransientSourceError, match=r"did not answer query within 0\.3 s"):
            client.now()
        own_prometheus.resume()
        assert abs(client.now() - time.time()) < 5


def test_a_killed_server_is_refused_then_found_again(own_prometheus: PrometheusServer) -> None:
    """A crash and a restart cost errors, not a new client."""
    with PrometheusClient(own_prometheus.url, retry=NO_RETRY) as client:
        client.now()
        own_prometheus.kill()
        with pytest.raises(TransientSourceError, match="Prometheus at"):
            client.now()
        own_prometheus.start()
        assert abs(client.now() - time.time()) < 5


def test_the_log_of_a_server_that_cannot_start_is_shown(prometheus_programs: None, tmp_path: Path) -> None:
    """A test's own Prometheus that fails says why."""
    server = PrometheusServer(tmp_path)
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(RuntimeError, match="err="):
        server.start()


def test_grafana_style_reading_sees_the_same_series(prometheus: PrometheusServer) -> None:
    """The series are those that the plain API lists for the selector."""
    end = prometheus.history.end
    listed = httpx.get(
        f"{prometheus.url}/api/v1/series",
        params={"match[]": "shop_load", "start": end - HOUR, "end": end},
        trust_env=False,
    ).json()["data"]
    result = read(prometheus, WatchConfig(metric="shop_load"), end - HOUR, end)
    assert {series.labels for series in result.series} == {
        tuple(sorted((k, v) for k, v in labels.items() if k != "__name__")) for labels in listed
    }


@pytest.mark.parametrize("query", ["scalar(sum(shop_load))", "sum(shop_load) # of all shops"])
def test_any_query_can_be_read_and_checked(prometheus: PrometheusServer, query: str) -> None:
    """A query that gives a number, and one that ends in a comment, are one series over any span."""
    watch = WatchConfig(query=query, name="load", drift_unit="scaled", drift_finetune_threshold=1.5)
    end = prometheus.history.end
    with PrometheusClient(prometheus.url) as client:
        for span in (10 * MINUTE, 6 * HOUR):
            found = scrape(client, watch, source_facts(client, watch, end), end - span, end)
            assert [series.selector for series in found.series] == ["load"]
        checked = check_watch(client, watch, settle_seconds=time.time() - end)
    assert (checked.problems, checked.series) == ((), 1)
    assert checked.history_seconds > 5 * HOUR
