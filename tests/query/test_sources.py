"""Who is asked for which selector, and what callers of one project do not see."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import numpy as np
import pytest

from sentinel_core.errors import ConfigError
from sentinel_core.prometheus import PrometheusClient
from sentinel_core.promql import matchers as matching
from sentinel_core.promql.errors import BadQueryError, TooBusyError
from sentinel_core.promql.limits import Budget
from sentinel_core.promql.parse import parse, parse_selector
from sentinel_core.promql.values import LOOKBACK, Labels, Samples
from sentinel_core.query.sampled import Metadata, SampledSource
from sentinel_core.query.sources import Sources, View
from sentinel_core.query.upstream import Upstream, UpstreamError
from sentinel_core.series import Matcher

FORECAST = (("__name__", "foo_sentinel_predicted"), ("job", "api"))
MASE = (("__name__", "foo_sentinel_mase"), ("job", "api"))
CROSSING = (("__name__", "foo_sentinel_crossing_probability"), ("job", "api"))
ACTUAL = (("__name__", "bar_sentinel_actual"), ("job", "api"))
PSI = (("__name__", "sentinel_model_psi"), ("project", "shop"))
FOREIGN_PSI = (("__name__", "sentinel_model_psi"), ("project", "bank"))
OWN = (("__name__", "sentinel_build_info"),)
FOO = (("__name__", "foo"), ("job", "api"))


class Remembered(SampledSource):
    """Series with one sample each, at one second."""

    lookback = LOOKBACK

    def __init__(self, *series: Labels) -> None:
        self._series = series

    def samples(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> Samples:
        found = self.series(matchers, start, end, budget)
        return Samples.of(found, [np.array([1_000])] * len(found), [np.array([7.0])] * len(found))

    def series(self, matchers: Sequence[Matcher], start: int, end: int, budget: Budget) -> list[Labels]:
        kept = matching.compile(matchers).matches(self._series)
        return [labels for labels, keep in zip(self._series, kept, strict=True) if keep]

    def metadata(self) -> Metadata:
        return {dict(labels)["__name__"]: ("gauge", "ours") for labels in self._series}


class Prometheus:
    """Has foo, and a copy of our forecast from a scrape of our /metrics; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        form = parse_qs(request.content.decode() or request.url.query.decode())
        endpoint = request.url.path.removeprefix("/api/v1/")
        self.asked.append((endpoint, form))
        selectors = form.get("match[]", []) + form.get("query", [])
        series = Remembered(FOO, FORECAST)
        there = {
            one: 0 for text in selectors for one in series.series(parse_selector(text.split("[")[0]), 0, 1, Budget())
        }
        data: object = {
            "series": [dict(labels) for labels in there],
            "labels": ["__name__", "job", "zone"],
            "label/__name__/values": ["foo", "foo_sentinel_predicted"],
            "metadata": {
                name: [{"type": "counter", "help": "", "unit": ""}] for name in ("foo", "sentinel_build_info")
            },
        }.get(
            endpoint, {"resultType": "matrix", "result": [{"metric": dict(one), "values": [[1, "3"]]} for one in there]}
        )
        return httpx.Response(200, json={"status": "success", "data": data})


@pytest.fixture
def prometheus() -> Prometheus:
    """Somebody to ask."""
    return Prometheus()


@pytest.fixture
def sources(prometheus: Prometheus) -> Sources:
    """Everybody."""
    upstream = Upstream(PrometheusClient("http://p", transport=httpx.MockTransport(prometheus), environ={}))

    def production(projects: frozenset[str] | None) -> list[Remembered]:
        return [Remembered(PSI, *(() if projects == {"shop"} else (FOREIGN_PSI,)))]

    forecasts, quality, crossings, actuals = map(Remembered, (FORECAST, MASE, CROSSING, ACTUAL))
    return Sources(forecasts, quality, crossings, actuals, production, Remembered(OWN), lambda: upstream)


@pytest.fixture
def view(sources: Sources) -> View:
    """What somebody without a project sees."""
    return sources.of(None)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("foo", {FOO: 3.0}),
        ("foo_sentinel_predicted", {FORECAST: 7.0}),
        ("sentinel_model_psi", {PSI: 7.0, FOREIGN_PSI: 7.0}),
        ("foo_sentinel_crossing_probability", {CROSSING: 7.0}),
        ('{job="api"}', {FOO: 3.0, FORECAST: 7.0, MASE: 7.0, CROSSING: 7.0, ACTUAL: 7.0}),
        ('{__name__=~"sentinel.*"}', {PSI: 7.0, FOREIGN_PSI: 7.0, OWN: 7.0}),
        ("redis_sentinel_masters", {}),
    ],
)
def test_each_name_has_one_who_answers(view: View, selector: str, expected: dict[Labels, float]) -> None:
    """By equality one answers; without, everybody, and of Prometheus only what is not ours."""
    matchers, budget = parse_selector(selector), Budget()
    vector = view.vector(matchers, np.array([1_000]), budget)
    assert dict(zip(vector.labels, vector.values[:, 0].tolist(), strict=True)) == expected
    samples = view.samples(matchers, 0, 1_000, budget)
    assert dict(zip(samples.labels, samples.values.tolist(), strict=True)) == expected
    assert set(view.series(matchers, 0, 2_000, budget)) == set(expected)


def test_prometheus_is_not_asked_for_ours(view: View, prometheus: Prometheus) -> None:
    """A dashboard of forecasts works while Prometheus is away."""
    view.vector(parse_selector("foo_sentinel_predicted"), np.array([1_000]), Budget())
    view.series_of([parse_selector("foo_sentinel_mase")], 0, 1, Budget())
    view.label_values("job", [parse_selector("foo_sentinel_predicted")], 0, 1, Budget())
    assert prometheus.asked == []


def test_prometheus_is_away(sources: Sources) -> None:
    """What would be of both is of ours alone, and says so; what is only Prometheus' is an error."""
    away, budget = replace(sources, upstream=lambda: Upstream(ConfigError(["gone"]))), Budget()
    both, foo = parse_selector('{job="api"}'), parse_selector("foo")
    asks: list[tuple[Callable[[View], Iterable[object]], set[object]]] = [
        (lambda view: view.vector(both, np.array([1_000]), budget).labels, {FORECAST, MASE, CROSSING, ACTUAL}),
        (lambda view: view.samples(both, 0, 1_000, budget).labels, {FORECAST, MASE, CROSSING, ACTUAL}),
        (lambda view: view.series_of([parse_selector("foo_sentinel_mase"), foo], 0, 2_000, budget), {MASE}),
        (lambda view: view.label_names([], 0, 2_000, budget), {"__name__", "job", "project"}),
        (lambda view: view.label_values("job", [both], 0, 2_000, budget), {"api"}),
        (lambda view: set(view.metadata(None, budget)) & {"sentinel_build_info", "foo"}, {"sentinel_build_info"}),
    ]
    for ask, expected in asks:
        view = away.of(None)
        assert set(ask(view)) == expected
        assert list(view.warnings) == ["only Sentinel's own series are here: Prometheus cannot be asked: gone"]
    with pytest.raises(TooBusyError, match="gone"):
        away.of(None).vector(foo, np.array([1_000]), budget)
    with pytest.raises(TooBusyError, match="gone"):
        away.of(None).label_names([foo], 0, 1_000, budget)


@pytest.mark.parametrize(("status", "ours_remain"), [(401, True), (503, True), (400, False), (422, False)])
def test_prometheus_refuses(sources: Sources, status: int, ours_remain: bool) -> None:
    """What it says of the question is passed on; what is wrong with itself, or with our credentials, is a warning."""
    answer = httpx.Response(status, json={"status": "error", "errorType": "internal", "error": "no"})
    client = PrometheusClient("http://p", transport=httpx.MockTransport(lambda _: answer), environ={})
    view = replace(sources, upstream=lambda: Upstream(client)).of(None)
    if ours_remain:
        assert view.label_values("job", [], 0, 2_000, Budget()) == ["api"]
        assert list(view.warnings) == ["only Sentinel's own series are here: no"]
    else:
        with pytest.raises(UpstreamError, match="no"):
            view.label_values("job", [], 0, 2_000, Budget())


@pytest.mark.parametrize(
    ("query", "foreign"),
    [
        ("foo", True),
        ("sum by (job) (rate(foo[5m])) / 2", True),
        ("topk(scalar(foo), bar)", True),
        ('max_over_time((-{__name__=~"node_.*"})[1h:5m])', True),
        ("holt_winters(foo[5m], 0.5, 0.5)", True),
        ("rate(foo[5m] smoothed)", True),
        ("1 + 1", False),
        ("time()", False),
        ("foo - foo_sentinel_predicted", False),
        ("topk(scalar(sentinel_build_info), foo)", False),
        ("max_over_time((-foo_sentinel_mase)[1h:5m])", False),
        ('{job="api"}', False),
    ],
)
def test_what_has_none_of_ours_is_passed_on_whole(sources: Sources, query: str, foreign: bool) -> None:
    """Nothing is passed on that asks for one of ours; what only our parser cannot read is."""
    assert (sources.of(None).read(query, Budget()) is None) is foreign


@pytest.mark.parametrize("query", ["foo", "foo_sentinel_predicted"])
def test_nothing_is_passed_on_where_nobody_is_behind_us(sources: Sources, query: str) -> None:
    """Callers of a project have an answer of ours, which may be empty."""
    assert sources.of(frozenset({"shop"})).read(query, Budget()) == parse(query)


@pytest.mark.parametrize(
    ("query", "project"),
    [("foo +", False), ("rollup(foo_sentinel_predicted)", False), ("rollup(foo)", True), ("(" * 5_000, False)],
)
def test_what_cannot_be_read_is_an_error_here(sources: Sources, query: str, project: bool) -> None:
    """Wrong grammar, and what nobody else may be asked."""
    with pytest.raises(BadQueryError, match="parse error"):
        sources.of(frozenset({"shop"}) if project else None).read(query, Budget())


def test_lists_are_of_both(view: View, prometheus: Prometheus) -> None:
    """Series, labels, values and metadata of ours and Prometheus', each once; names of ours are ours."""
    budget, everything = Budget(), parse_selector('{__name__!=""}')
    assert view.series_of([everything, parse_selector("foo")], 0, 2_000, budget) == sorted(
        [FOO, FORECAST, MASE, CROSSING, ACTUAL, PSI, FOREIGN_PSI, OWN]
    )
    assert view.label_names([], 0, 2_000, budget) == ["__name__", "job", "project", "zone"]
    assert prometheus.asked[-1][1].get("match[]") is None  # its index alone is quick
    assert view.label_values("project", [parse_selector("sentinel_model_psi")], 0, 2_000, budget) == ["bank", "shop"]
    names = sorted(dict(labels)["__name__"] for labels in (FOO, ACTUAL, FORECAST, MASE, CROSSING, PSI, OWN))
    assert view.label_values("__name__", [], 0, 2_000, budget) == names
    assert {name: one[0].type for name, one in view.metadata(None, budget).items()} == {
        **dict.fromkeys(names, "gauge"),
        "foo": "counter",
    }
    assert list(view.metadata("foo", budget)) == ["foo"]
    assert list(view.metadata("sentinel_build_info", budget)) == ["sentinel_build_info"]


def test_a_project_sees_its_models_alone(sources: Sources, prometheus: Prometheus) -> None:
    """No forecasts, no metrics of Sentinel, nothing of Prometheus, and no models of others."""
    view, budget = sources.of(frozenset({"shop"})), Budget()
    everything = parse_selector('{__name__!=""}')
    assert view.series_of([everything], 0, 2_000, budget) == [PSI]
    assert view.vector(everything, np.array([1_000]), budget).labels == (PSI,)
    for name in ("foo", "foo_sentinel_predicted", "sentinel_build_info"):
        assert view.samples(parse_selector(name), 0, 1_000, budget).labels == ()
    assert view.label_names([], 0, 2_000, budget) == ["__name__", "project"]
    assert list(view.metadata(None, budget)) == ["sentinel_model_psi"]
    assert view.upstream is None
    assert prometheus.asked == []
