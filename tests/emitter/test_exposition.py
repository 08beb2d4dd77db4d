"""The bytes of /metrics, as the clients of both formats read them."""

import gzip
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from sentinel_core.emitter.exposition import (
    OPENMETRICS,
    OPENMETRICS_END,
    PLAIN,
    ForecastRenderer,
    Section,
    accepts_gzip,
    content_type,
    gzip_of,
    plain,
)
from sentinel_core.emitter.snapshot import Forecasts
from sentinel_core.series import Series
from sentinel_core.thresholds import crossings


def forecasts(*series: Series, slug: str = "w", leads: int = 2, version: int = 3, horizon: str = "5m") -> Forecasts:
    """A block whose value for row i, lead k is 10 i + k, with bounds one below and above."""
    mean = 10.0 * np.arange(len(series))[:, None] + np.arange(1, leads + 1)
    return Forecasts(
        slug=slug,
        name=series[0].name,
        horizon=horizon,
        step_seconds=60,
        origin=600,
        series=series,
        fingerprints=np.array([one.fingerprint for one in series]),
        leads=np.arange(1, leads + 1),
        versions=np.full(len(series), version, np.int32),
        mean=mean,
        lower=mean - 1,
        upper=mean + 1,
        inner_lower=np.full(mean.shape, np.nan),
        inner_upper=np.full(mean.shape, np.nan),
        anomaly=np.full(len(series), np.nan),
    )


def rendered(*blocks: Forecasts, bounds: bool = False, steps: tuple[int, ...] = ()) -> bytes:
    """What a renderer that remembers nothing makes of some blocks."""
    return b"".join(ForecastRenderer(bounds=bounds, steps=steps).render(blocks))


UP = Series.of("up", {"job": "api"})


def test_inner_bounds_are_gauges_where_there_are_any() -> None:
    """Beside the others, of those watches that have an inner level."""
    plain, narrow = forecasts(UP), forecasts(Series.of("load", {}))
    narrow = replace(narrow, inner_lower=narrow.mean - 0.5, inner_upper=narrow.mean + 0.5)
    text = rendered(plain, narrow, bounds=True).decode()
    assert (
        'load_sentinel_predicted_inner_upper{sentinel_horizon="5m",sentinel_step="2",sentinel_version="v3"} 2.5' in text
    )
    assert "load_sentinel_predicted_inner_lower" in text
    assert "up_sentinel_predicted_upper" in text
    assert "up_sentinel_predicted_inner" not in text
    assert "inner" not in rendered(narrow).decode()


def test_anomaly_scores_are_one_gauge_a_series() -> None:
    """With the series' labels and the horizon; a series that has not been scored of late has none."""
    pods = [Series.of("up", {"pod": pod}) for pod in "ab"]
    text = rendered(replace(forecasts(*pods), anomaly=np.array([1.5, np.nan]))).decode()
    assert "# TYPE up_sentinel_anomaly_score gauge" in text
    found = [line for line in text.splitlines() if line.startswith("up_sentinel_anomaly_score")]
    assert found == ['up_sentinel_anomaly_score{pod="a",sentinel_horizon="5m"} 1.5']
    assert "anomaly" not in rendered(forecasts(*pods)).decode()


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels; a line that occurs twice fails."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in parse_plain(text.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def test_a_line_per_lead_with_the_three_labels_of_ours() -> None:
    """A forecast gauge carries the original labels, the horizon, the step and the version, and no timestamp."""
    text = rendered(forecasts(UP))
    assert text.decode().splitlines() == [
        "# HELP up_sentinel_predicted Forecast of up; sentinel_step says how many steps ahead.",
        "# TYPE up_sentinel_predicted gauge",
        'up_sentinel_predicted{job="api",sentinel_horizon="5m",sentinel_step="1",sentinel_version="v3"} 1.0',
        'up_sentinel_predicted{job="api",sentinel_horizon="5m",sentinel_step="2",sentinel_version="v3"} 2.0',
    ]


def test_nothing_to_show_is_no_text() -> None:
    """Without forecasts there are no bytes, not an empty line."""
    assert rendered() == b""


@pytest.mark.parametrize(("version", "label"), [(3, "v3"), (0, "naive"), (-3, "v3-pooled")])
def test_the_version_says_where_a_forecast_comes_from(version: int, label: str) -> None:
    """Fitted, naive and pooled forecasts are told apart by sentinel_version."""
    assert f'sentinel_version="{label}"'.encode() in rendered(forecasts(UP, version=version))


def test_bounds_are_families_of_their_own() -> None:
    """With bounds there are three contiguous families for each metric, also when two watches share the metric."""
    blocks = [forecasts(UP), forecasts(Series.of("down", {})), forecasts(Series.of("up", {"job": "web"}), slug="v")]
    text = rendered(*blocks, bounds=True)
    names = [line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")]
    suffixes = ("", "_lower", "_upper")
    assert names == [f"{name}_sentinel_predicted{suffix}" for name in ("down", "up") for suffix in suffixes]
    labels = (("job", "web"), ("sentinel_horizon", "5m"), ("sentinel_step", "1"), ("sentinel_version", "v3"))
    assert samples(text)["up_sentinel_predicted_upper", labels] == 2.0


def test_only_the_configured_leads() -> None:
    """With emit_steps the other leads have no line."""
    text = rendered(forecasts(UP, leads=6), steps=(1, 5))
    assert [dict(labels)["sentinel_step"] for _, labels in samples(text)] == ["1", "5"]


def test_a_nan_has_no_line() -> None:
    """A forecast that is NaN is left out; its neighbours stay with their own labels."""
    block = forecasts(UP, Series.of("up", {"job": "web"}))
    block.mean[0, 1] = block.mean[1, 0] = np.nan
    found = {(dict(labels)["job"], dict(labels)["sentinel_step"]): value for (_, labels), value in samples(
        rendered(block)).items()}  # fmt: skip
    assert found == {("api", "1"): 1.0, ("web", "2"): 12.0}


def test_thresholds_have_a_line_per_series() -> None:
    """How likely each series gets across each threshold of its watch over all leads, and when, if it does."""
    block = forecasts(UP, Series.of("up", {"job": "web"}), leads=5)
    met = crossings(block.mean, block.lower, block.upper, 0.95, {"above": 12.5, "below": 0})
    other = forecasts(Series.of("up", {"job": "other"}), slug="v")  # of a watch without thresholds
    found = samples(rendered(replace(block, crossings=met), other, steps=(1,)))
    own = ("sentinel_horizon", "5m")
    likely, soon = "up_sentinel_crossing_probability", "up_sentinel_time_to_threshold_seconds"
    above, below = ("sentinel_threshold", "above 12.5"), ("sentinel_threshold", "below 0")
    assert {labels for name, labels in found if name == likely} == {
        (("job", job), own, threshold) for job in ("api", "web") for threshold in (above, below)
    }
    assert found[likely, (("job", "web"), own, above)] == pytest.approx(1.0)
    assert found[likely, (("job", "api"), own, above)] == 0.0
    assert 0 < found[likely, (("job", "api"), own, below)] < 0.05
    assert {labels: value for (name, labels), value in found.items() if name == soon} == {
        (("job", "web"), own, above): 180.0
    }


def test_labels_are_remembered_only_while_they_are_true() -> None:
    """A new version, horizon, series or lead shows at the next rendering; old lines are gone."""
    renderer = ForecastRenderer()
    first = forecasts(UP)
    renderer.render([first])
    assert b" 99.0" in b"".join(renderer.render([replace(first, mean=np.full((1, 2), 99.0))]))
    for changed in (
        forecasts(UP, version=4),
        forecasts(UP, horizon="10m"),
        forecasts(UP, leads=3),
        forecasts(Series.of("up", {"job": "new"})),
    ):
        assert b"".join(renderer.render([changed])) == rendered(changed)


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), st.text(max_size=12), max_size=4),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
)
def test_both_parsers_read_back_any_label_and_value(labels: dict[str, str], values: list[float]) -> None:
    """Whatever the labels and values are, both formats give them back exactly."""
    series = Series.of("m", labels)
    block = replace(forecasts(series, leads=len(values)), mean=np.array([values]))
    text = rendered(block).decode()
    for families in (parse_plain(text), parse_openmetrics(text + OPENMETRICS_END.decode())):
        (family,) = families
        assert [sample.value for sample in family.samples] == values
        assert all(labels.items() <= sample.labels.items() for sample in family.samples)


def test_more_gauges_than_one_chunk() -> None:
    """Chunks of a large block join without losing or doubling a line."""
    many = [Series.of("m", {"i": str(i)}) for i in range(6_000)]
    assert len(samples(rendered(forecasts(*many)))) == 12_000


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_sections_make_one_gzip_member(texts: list[bytes]) -> None:
    """Sections compressed apart decompress as one stream, also for clients that read one member only."""
    sections = [Section.of(text) for text in texts]
    assert plain(sections) == b"".join(texts)
    assert gzip.decompress(gzip_of(sections)) == b"".join(texts)
    assert zlib.decompressobj(wbits=31).decompress(gzip_of(sections)) == b"".join(texts)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain", PLAIN),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.9", PLAIN),
        ("application/openmetrics-text;q=nonsense", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, expected: str) -> None:
    """OpenMetrics goes only to a client that names it and does not prefer the text format."""
    assert content_type(accept) == expected


def test_gzip_follows_the_accept_encoding_header() -> None:
    """gzip goes only to a client that asks for it."""
    assert [accepts_gzip(header) for header in ("gzip", "br, GZIP;q=0.5", "", "gzip;q=0", "identity")] == [
        True, True, False, False, False,
    ]  # fmt: skip
