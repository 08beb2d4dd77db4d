"""The page, as a browser without JavaScript gets it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sentinel_core.apps.sidecar import create_app
from sentinel_core.config import WatchConfig
from sentinel_core.series import Series
from tests.apps.server import eventually, running
from tests.emitter.fleet import NOW, Fleet, Issue, many

GOOD = WatchConfig(metric="memory", model_class="LinearTrendModel")
DRIFTED = WatchConfig(metric="queue", labels={"job": "=~a|b"}, model_class="ARIMAModel")
FAILING = WatchConfig(metric="latency", model_class="LinearTrendModel")
VOID = {"meta", "link", "img", "input", "br"}


class Outline(HTMLParser):
    """Reads a page: that its tags are balanced, what it links to, and the headings of its cards."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what opens and where it leads."""
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        assert "style" not in found, "inline styles are forbidden by our own policy"
        self.links += [found[key] or "" for key in ("href", "src", "action") if key in found]
        self.ids += [found["id"] or ""] if "id" in found else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        """Every end needs its start."""
        assert self.open.pop() == tag


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Three watches: one forecasting, one drifted, one failing before its first sample."""
    fleet = Fleet.open(tmp_path, [GOOD, DRIFTED, FAILING])
    memory, queue = many("memory", 5), [Series.of("queue", {"job": job}) for job in "ab"]
    for watch, series in ((GOOD, memory), (DRIFTED, queue)):
        fleet.live(watch, series)
        fleet.actuals(watch, series, np.arange(40.0) + np.arange(len(series))[:, None])
        fleet.serve(watch, 3)
    levels = 100.0 + np.arange(5)[:, None]
    fleet.forecast(Issue(GOOD, memory, levels + np.zeros(5)), Issue(DRIFTED, queue, np.ones((2, 5))))
    fleet.state(GOOD, severity="none", drift_mae=0.05, drift_scored=5)
    fleet.state(DRIFTED, severity="high", drift_mae=0.42, drift_high=1, drift_scored=2)
    fleet.state(FAILING, last_error="422: query timed out; narrow the selector", last_error_at=float(NOW))
    yield fleet
    fleet.store.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    """A browser, 12 s after the last tick."""
    with opened(fleet) as client:
        yield client


def opened(fleet: Fleet) -> Any:
    """A server over the fleet, once its snapshot is there."""
    app = create_app(fleet.config, fleet.store, status=lambda _: {}, now=lambda: NOW + 12.0)

    class Browser:
        def __enter__(self) -> httpx.Client:
            self.server = running(app)
            client = self.server.__enter__()
            eventually(lambda: "sentinel_store_up 1.0" in client.get("/metrics").text)
            return client

        def __exit__(self, *error: Any) -> None:
            self.server.__exit__(*error)

    return Browser()


def headings(page: str) -> list[str]:
    """The watches on a page, in order."""
    return re.findall(r"<h2[^>]*><code>(.*?)</code>", page)


def test_the_worst_watch_comes_first(client: httpx.Client) -> None:
    """The page opens with the state in a sentence; cards go from failing through drifted to fine."""
    page = client.get("/").text
    assert "3 watches, 7 series:" in page
    assert "newest forecast 12 s ago" in page
    assert headings(page) == ["latency", "queue{job=~&#34;a|b&#34;}", "memory"]
    assert "422: query timed out; narrow the selector" in page
    assert re.search(r"▲</span> high</span>\s*<small>MAE 0.42 in the worst series", page)


def test_the_page_is_well_formed_and_asks_nobody_else(client: httpx.Client) -> None:
    """Tags balance, ids are unique, and only links to Dagster lead away."""
    outline = Outline(client.get("/").text)
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(re.match(r"[/?#]|http://127\.0\.0\.1:3000/", link) for link in outline.links)
    assert f"http://127.0.0.1:3000/assets/model_versions?view=partitions&partition={GOOD.slug}" in outline.links
    for link in ("/static/page.css", "/static/page.js", "/static/icon.svg", "/readme", "/metrics"):
        assert link in outline.links
        assert client.get(link).status_code == 200


def test_plots_show_actuals_and_forecast(client: httpx.Client) -> None:
    """A card draws up to three series with actuals, forecast and bounds, and says which ones."""
    page = client.get("/?watch=memory").text
    assert page.count('class="actual" d="M') >= 3
    assert "3 of 5 series: the highest, the median and the lowest" in page
    assert re.findall(r"<code>(instance=.*?)</code>", page) == [
        f"instance=&#34;10.0.0.{i}:9090&#34;" for i in (4, 2, 0)
    ]
    assert "forecast from" in page


def test_filters(client: httpx.Client) -> None:
    """`watch` finds by selector or model, `series` by labels; nothing found is said, with the way back."""
    assert headings(client.get("/", params={"watch": "arima"}).text) == ["queue{job=~&#34;a|b&#34;}"]
    page = client.get("/", params={"series": "10.0.0.3"}).text
    assert headings(page) == ["memory"]
    assert "1 of 3 watches match" in page
    assert "memory{instance=&#34;10.0.0.3:9090&#34;}" in page
    assert "No watch matches" in client.get("/", params={"watch": "nothing"}).text


def test_what_people_type_is_text(client: httpx.Client) -> None:
    """A filter with markup in it comes back escaped."""
    page = client.get("/", params={"watch": '"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    Outline(page)


def test_what_prometheus_says_is_text(fleet: Fleet) -> None:
    """Label values and errors with markup in them come out escaped."""
    fleet.live(FAILING, [Series.of("latency", {"path": "<script>alert(1)</script>"})])
    fleet.actuals(FAILING, [Series.of("latency", {"path": "<script>alert(1)</script>"})], np.ones((1, 9)))
    fleet.state(FAILING, last_error="<script>alert(2)</script>")
    with opened(fleet) as client:
        page = client.get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;script&gt;alert(2)" in page
    Outline(page)


def test_without_samples_the_card_is_there(client: httpx.Client) -> None:
    """A watch without samples has a card with its buffer and no plot."""
    page = client.get("/?watch=latency").text
    assert "The plot starts with the first samples" in page
    assert "0% of 30m" in page


def test_a_plot_that_cannot_be_drawn_costs_itself(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while drawing leaves every card there, and says where to look."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sentinel_core.apps.page.draw", broken)
    page = client.get("/").text
    assert len(headings(page)) == 3
    assert "The plot cannot be drawn; the sidecar&#39;s log says why." in page


def test_without_watches_the_page_says_what_to_do(fleet: Fleet) -> None:
    """An empty configuration gives a page that says how to begin."""
    fleet.config = type(fleet.config)(artifact_store=fleet.config.artifact_store)
    with opened(fleet) as client:
        page = client.get("/").text
    assert "Nothing is watched yet" in page
    assert "Add a watch to the configuration" in page


def test_lost_samples_do_not_take_the_page(fleet: Fleet) -> None:
    """When the actuals cannot be read, the page shows the forecasts and says what is wrong."""
    for file in Path(fleet.store.segments.folder.address("windows")).rglob("*.parquet"):
        file.unlink()
    with opened(fleet) as client:
        answer = client.get("/")
    assert answer.status_code == 200
    assert "The store cannot be read." in answer.text
    assert headings(answer.text)[-1] == "memory"


def test_a_thousand_watches_fit(tmp_path: Path) -> None:
    """A thousand watches are paged; the last page and nonsense numbers work."""
    watches = [WatchConfig(metric=f"m{i}", model_class="LinearTrendModel") for i in range(1000)]
    fleet = Fleet.open(tmp_path, watches)
    with fleet.store, opened(fleet) as client:
        first = client.get("/").text
        assert len(headings(first)) == 20
        assert "page 1 of 50" in first
        assert 'rel="next" href="?page=2"' in first
        assert headings(client.get("/?page=50").text)[-1] == "m999"
        assert "page 50 of 50" in client.get("/?page=999").text
        assert "page 1 of 50" in client.get("/?page=-1x").text
