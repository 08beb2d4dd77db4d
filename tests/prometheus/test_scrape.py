"""A watch to a window, without a network: expressions, names, labels, and the order of things."""

from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_core.config import WatchConfig
from sentinel_core.errors import PermanentSourceError
from sentinel_core.prometheus import (
    PrometheusClient,
    SourceFacts,
    emitted_name,
    expression,
    newest_step,
    scrape,
    source_facts,
)
from sentinel_core.series import LABEL_NAME

NO_DATA = {"resultType": "vector", "result": []}


class FakePrometheus:
    """Answers from fixed label sets: a sample at each grid point, its value the row's number; records what is asked."""

    def __init__(self, labels: list[dict[str, str]], metadata: dict[str, str] | None = None) -> None:
        self.labels = labels
        self.metadata = metadata
        self.asked: list[tuple[str, str]] = []

    def client(self) -> PrometheusClient:
        """A client of this fake."""
        return PrometheusClient("http://p:9090", transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        endpoint = request.url.path.removeprefix("/api/v1/")
        form = {key: value[0] for key, value in parse_qs(request.content.decode()).items()}
        self.asked.append((endpoint, form.get("query", "")))
        if endpoint == "metadata":
            if self.metadata is None:
                return httpx.Response(404)
            kind = self.metadata.get(request.url.params["metric"])
            return self._success({request.url.params["metric"]: [{"type": kind}]} if kind else {})
        if endpoint == "label/__name__/values":
            return self._success([])
        if endpoint == "query" and form["query"].startswith("count("):
            return self._success(
                {"resultType": "vector", "result": [{"metric": {}, "value": [0, str(len(self.labels))]}]}
            )
        if endpoint == "query":
            return self._success(NO_DATA)
        if endpoint == "query_range" and form["query"].startswith("count("):
            sample = [int(form["end"]), str(len(self.labels))]
            return self._success({"resultType": "matrix", "result": [{"metric": {}, "values": [sample]}]})
        times = range(int(form["start"]), int(form["end"]) + 1, int(form["step"]))
        rows = [{"metric": labels, "values": [[t, str(i)] for t in times]} for i, labels in enumerate(self.labels)]
        return self._success({"resultType": "matrix", "result": rows})

    def _success(self, data: object) -> httpx.Response:
        return httpx.Response(200, json={"status": "success", "data": data})


GAUGE = SourceFacts("gauge", 15.0)


@pytest.mark.parametrize(
    ("granularity", "kind", "interval", "expected"),
    [
        ("1m", "gauge", 15.0, "last_over_time(m[59999ms])"),
        ("1m", "gauge", 60.3, "last_over_time(m[59999ms])"),
        ("15s", "gauge", 60.0, "last_over_time(m[1m6s])"),
        ("15s", "gauge", 15.0, "last_over_time(m[14999ms])"),
        ("1m", "counter", 15.0, "rate(m[1m])"),
        ("1m", "counter", 60.0, "rate(m[4m]) and last_over_time(m[59999ms])"),
        ("15s", "counter", 10.0, "rate(m[40s]) and last_over_time(m[14999ms])"),
        ("1h", "counter", 60.0, "rate(m[1h])"),
    ],
)
def test_windows_come_from_step_and_scrape_interval(
    granularity: str, kind: str, interval: float, expected: str
) -> None:
    """A gauge's tiles never share a sample; a rate spans four scrapes and needs a sample in its own tile."""
    facts = SourceFacts("counter" if kind == "counter" else "gauge", interval)
    assert expression(WatchConfig(metric="m", granularity=granularity), facts) == expected


def test_a_query_is_asked_as_it_is() -> None:
    """The expression and the name are the person's."""
    watch = WatchConfig(query="sum by (job) (rate(hits_total[5m]))", name="job:hits:rate")
    assert expression(watch, GAUGE) == watch.query
    assert emitted_name(watch, "gauge") == "job_hits_rate"


@given(now=st.floats(0, 4e9), step=st.integers(1, 86_400), delay=st.floats(0, 600))
def test_the_newest_step_is_settled_aligned_and_newest(now: float, step: int, delay: float) -> None:
    """It is on the grid, at least the delay old, and the next one is not yet."""
    newest = newest_step(now, step, delay)
    assert newest % step == 0
    assert newest <= now - delay < newest + step


@pytest.mark.parametrize(
    ("metric", "metadata", "kind"),
    [
        ("hits_total", {}, "counter"),
        ("hits_total", {"hits_total": "gauge"}, "gauge"),
        ("hits_total", {"hits": "counter"}, "counter"),
        ("hits_total", None, "counter"),
        ("load", None, "gauge"),
        ("load", {"load": "counter"}, "counter"),
        ("load_count", {"load": "histogram"}, "counter"),
        ("load_sum", {"load": "summary"}, "counter"),
        ("load_bucket", {"load": "histogram"}, "counter"),
        ("load_count", {"load": "gauge"}, "gauge"),
        ("load_count", {}, "gauge"),
    ],
)
def test_the_kind_comes_from_metadata_then_from_the_name(
    metric: str, metadata: dict[str, str] | None, kind: str
) -> None:
    """Declared types win; `_total` decides where nobody declares; a histogram's parts are counters."""
    with FakePrometheus([], metadata).client() as client:
        assert source_facts(client, WatchConfig(metric=metric), 0.0) == SourceFacts(kind, 60)  # type: ignore[arg-type]


def test_the_configured_kind_wins() -> None:
    """Neither name nor metadata override what a person says."""
    fake = FakePrometheus([], {"hits_total": "counter"})
    with fake.client() as client:
        assert source_facts(client, WatchConfig(metric="hits_total", kind="gauge"), 0.0).kind == "gauge"
    assert "metadata" not in [endpoint for endpoint, _ in fake.asked]


def test_too_many_series_are_refused_before_any_is_fetched() -> None:
    """The error has the count and the remedies, and no range query was made."""
    fake = FakePrometheus([{"i": str(i)} for i in range(7)])
    with (
        fake.client() as client,
        pytest.raises(
            PermanentSourceError, match=r"m has 7 series, more than max_series = 6; narrow.*raise max_series"
        ),
    ):
        scrape(client, WatchConfig(metric="m", max_series=6), GAUGE, 0, 600)
    assert {endpoint for endpoint, _ in fake.asked} == {"query"}


def test_a_metric_that_never_was_is_an_error() -> None:
    """It says which selector, and what to check."""
    with (
        FakePrometheus([]).client() as client,
        pytest.raises(PermanentSourceError, match=r'no series m\{job="x"\}; check the metric\'s name and the labels'),
    ):
        scrape(client, WatchConfig(metric="m", labels={"job": "x"}), GAUGE, 0, 600)


def test_a_query_without_results_gives_no_series() -> None:
    """An expression such as `x > 5` may rightly be empty."""
    with FakePrometheus([]).client() as client:
        result = scrape(client, WatchConfig(query="x > 5", name="hot"), GAUGE, 0, 600)
    assert result.window.values.shape == (0, 11)
    assert result.series == []


def test_a_span_without_a_grid_point_is_a_mistake() -> None:
    """There is nothing to ask."""
    with (
        FakePrometheus([]).client() as client,
        pytest.raises(ValueError, match=r"no multiple of 60 s lies in \[61, 119\]"),
    ):
        scrape(client, WatchConfig(metric="m"), GAUGE, 61, 119)


def test_labels_that_clash_are_renamed() -> None:
    """`le`, `quantile`, ours, and what no exposition format can carry get another name, never one that is taken."""
    labels = {"le": "1", "quantile": "2", "sentinel_step": "3", "exported_le": "4", "a.b": "5", "a_b": "6", "job": "7"}
    with FakePrometheus([labels]).client() as client:
        (series,) = scrape(client, WatchConfig(metric="m"), GAUGE, 0, 0).series
    assert dict(series.labels) == {
        "exported_exported_le": "1",
        "exported_quantile": "2",
        "exported_sentinel_step": "3",
        "exported_le": "4",
        "exported_a_b": "5",
        "a_b": "6",
        "job": "7",
    }


def test_series_that_become_equal_keep_the_first() -> None:
    """Two names under one query collapse to the first by its original labels, however Prometheus orders them."""
    labels = [{"__name__": "b", "x": "1"}, {"__name__": "a", "x": "1"}, {"__name__": "a", "x": "2"}]
    watch = WatchConfig(query='{__name__=~"a|b"}', name="both")
    for order in (labels, labels[::-1]):
        with FakePrometheus(order).client() as client:
            result = scrape(client, watch, GAUGE, 0, 60)
        assert result.duplicates == 1
        kept = {series.selector: int(row[0]) for series, row in zip(result.series, result.window.values, strict=True)}
        assert kept == {'both{x="1"}': order.index(labels[1]), 'both{x="2"}': order.index(labels[2])}
        assert (result.gaps, result.non_finite) == (0, 0)


label_names = st.sampled_from(["le", "quantile", "exported_le", "sentinel_x", "a", "a.b", "a_b", "é", "0", "__name__"])


@given(
    st.lists(
        st.dictionaries(label_names, st.sampled_from("xy"), max_size=6),
        max_size=8,
        unique_by=lambda d: str(sorted(d.items())),
    )
)
def test_any_labels_become_legal_distinct_series(labels: list[dict[str, str]]) -> None:
    """Fingerprints ascend without repeats, belong to their series, and no label is lost or illegal."""
    with FakePrometheus(labels).client() as client:
        result = scrape(client, WatchConfig(query="q", name="n"), GAUGE, 0, 60)
    fingerprints = result.window.fingerprints
    assert (fingerprints[1:] > fingerprints[:-1]).all()
    assert [series.fingerprint for series in result.series] == fingerprints.tolist()
    for series, row in zip(result.series, result.window.values, strict=True):
        original = labels[int(row[0])]
        assert len(series.labels) == len(original) - ("__name__" in original)
        assert all(LABEL_NAME.fullmatch(name) and name not in ("le", "quantile") for name, _ in series.labels)
    assert len(result.series) + result.duplicates == len(labels)
