"""The pages, as a browser without JavaScript gets them, and what the server refuses."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from sentinel_core.apps import sidecar
from sentinel_core.apps.ui import changes
from sentinel_core.config import WatchConfig
from sentinel_core.security import users
from sentinel_core.series import Series
from sentinel_core.storage import model_store, schema
from tests.apps.server import eventually, free_port
from tests.emitter.fleet import Fleet
from tests.ui.world import (
    CHEAP,
    LATENCY,
    MEMORY,
    NOW,
    PASSWORD,
    PEPPER,
    QUEUE,
    REQUESTS,
    TEST,
    TOP,
    World,
    open_world,
    serving,
)

VOID = {"meta", "link", "img", "input", "br", "wbr"}
HOUR = 3600


class Outline(HTMLParser):
    """Reads a page: that its tags are balanced, what it links to, and that nothing inline runs."""

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
        assert not [name for name in found if name == "style" or name.startswith("on")], "our own policy forbids it"
        self.links += [found[key] or "" for key in ("href", "src", "action", "formaction", "hx-get") if key in found]
        self.ids += [found["id"] or ""] if "id" in found else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        """Every end needs its start."""
        assert self.open.pop() == tag


class Person:
    """Somebody who fills in forms."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client = client
        page = client.get("/login").text
        form = {"csrf": _value(page, "csrf"), "name": name, "password": PASSWORD}
        assert client.post("/login", data=form).status_code == 303

    def post(self, path: str, page: str = "/", **fields: str) -> httpx.Response:
        """Send a form with the token of a page."""
        return self.client.post(path, data={"csrf": _value(self.client.get(page).text, "csrf"), **fields})


def _value(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found
    return found[1]


@contextmanager
def logged_in(world: World, name: str) -> Iterator[Person]:
    """A person with a session."""
    with world.client() as client:
        yield Person(client, name)


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """For a test that changes a lot."""
    with open_world(tmp_path) as opened:
        yield opened


def names(page: str) -> list[str]:
    """The models and watches on the overview, in order."""
    table = page[page.index('id="fleet"') :]
    return re.findall(r'<th scope="row"><a id="to[^"]*" href="[^"]*">(.*?)</a>', table)


# ---- the overview ----------------------------------------------------------------------------------------------------


def test_the_worst_comes_first(world: World) -> None:
    """Models and watches stand in one list from critical to not monitored, under a sentence and the open incidents."""
    with world.client() as client:
        page = client.get("/").text
    assert "4 incidents need attention" in page
    assert "7 models in production: 1\xa0critical, 1\xa0warning, 1\xa0silent" in page
    assert "4 watches, 10 series: 1\xa0failing, 1\xa0drifted" in page
    assert "newest forecast 12 s ago" in page
    found = names(page)
    assert found[:4] == ["fraud-score", "latency_seconds", "queue_length{job=~&#34;mail|push&#34;}", "support-intents"]
    assert found[-1] == "old-ranker"
    assert "422: query timed out; narrow the selector" in page
    assert page.index("fraud-score: ") < page.index("pricing: ") < page.index("support-intents: ")


def test_filters(world: World) -> None:
    """By any part of a name or a model's class, by kind, by state; nothing found is said, with the way back."""
    with world.client() as client:
        assert names(client.get("/", params={"find": "arima"}).text) == ["queue_length{job=~&#34;mail|push&#34;}"]
        assert len(names(client.get("/", params={"kind": "watch"}).text)) == 4
        assert names(client.get("/", params={"state": "silent"}).text) == ["pricing"]
        page = client.get("/", params={"kind": "model", "state": "ok"}).text
        assert set(names(page)) == {"churn", "ltv-forecast"}
        assert "2 of 11" in page
        assert "Nothing matches" in client.get("/", params={"find": "nothing"}).text


def test_every_page_is_well_formed_and_asks_nobody_else(world: World) -> None:
    """Tags balance, ids are unique, nothing is inline, only Dagster is elsewhere, and our own links lead somewhere."""
    seen = {"/"}
    waiting = ["/"]
    with logged_in(world, "ada") as person:
        while waiting:
            path = waiting.pop()
            answer = person.client.get(path, follow_redirects=True)
            assert answer.status_code == 200, path
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            if path == "/v1/docs":  # not one of these pages
                continue
            outline = Outline(answer.text)
            assert len(set(outline.ids)) == len(outline.ids), path
            assert all(re.match(r"[/?#]|http://127\.0\.0\.1:3000/", link) for link in outline.links), path
            ours = {link.partition("#")[0] for link in outline.links if re.match(r"/(?!/)", link)}
            posted = set(re.findall(r'(?:method="post" |form)action="([^"]*)"', answer.text))
            fresh = {link for link in ours - posted if "?" not in link} - seen
            seen |= fresh
            waiting += fresh
    assert f"/watches/{QUEUE.slug}" in seen
    assert "/settings/audit" in seen
    assert "/v1/docs" in seen


def test_what_people_type_is_text(world: World) -> None:
    """A filter with markup in it comes back escaped."""
    with world.client() as client:
        for path in ("/", "/incidents"):
            page = client.get(path, params={"find": '"><script>alert(1)</script>', "model": "<script>alert(1)"}).text
            assert "<script>alert" not in page
            Outline(page)


def test_what_others_say_is_text(tmp_path: Path) -> None:
    """Label values, errors, names of models and of labels with markup in them come out escaped."""
    with open_world(tmp_path) as world:
        evil = "<script>alert(1)</script>"
        fleet = Fleet(world.config, world.store)
        fleet.live(LATENCY, [Series.of("latency_seconds", {"path": evil})])
        fleet.actuals(LATENCY, [Series.of("latency_seconds", {"path": evil})], np.ones((1, 9)))
        fleet.state(LATENCY, last_error=evil, last_error_at=float(NOW))
        table = schema.monitored_models
        with world.store.database.write() as connection:
            connection.execute(table.update().where(table.c.id == world.models["churn"]).values(name=evil))
        with world.client() as client:
            eventually(lambda: "alert(1)" in client.get(f"/watches/{LATENCY.slug}").text)
            model = f"/models/{world.models['support-intents']}"
            for path in ("/", f"/watches/{LATENCY.slug}", f"/models/{world.models['churn']}", model):
                page = client.get(path).text
                assert "<script>alert" not in page, path
                assert "<b>bold" not in page, path
                Outline(page)


def test_a_thousand_models_and_watches_fit(tmp_path: Path) -> None:
    """They are paged, with a fixed number of queries; the last page and nonsense numbers work."""
    watches = [WatchConfig(metric=f"m{i:03}", model_class="LinearTrendModel") for i in range(1000)]
    port = free_port()
    fleet = Fleet.open(tmp_path, watches, emitter_port=port)
    with fleet.store as store:
        with store.database.write() as connection:
            model_store.register(connection, [(1, f"model-{i:03}") for i in range(1000)], NOW)
        app = sidecar.create_app(fleet.config, store, status=lambda _: {}, now=lambda: float(NOW), pepper=PEPPER)
        with serving(app, port) as url, httpx.Client(base_url=url, timeout=30) as client:
            asked: list[str] = []
            sa.event.listen(store.database.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
            first = client.get("/").text
            assert len(asked) < 40
            assert len(names(first)) == 50
            assert "page 1 of 40" in first
            assert 'rel="next" href="/?page=2"' in first
            assert "page 40 of 40" in client.get("/?page=999").text
            assert "page 1 of 40" in client.get("/?page=-1x").text
            assert "kind=model&amp;page=2" in client.get("/?kind=model").text


# ---- watches ---------------------------------------------------------------------------------------------------------


def test_a_watch(world: World) -> None:
    """Its page draws up to three series with actuals, forecast and bounds, the drift, and lists its versions."""
    with world.client() as client:
        page = client.get(f"/watches/{MEMORY.slug}").text
        assert "3 of 5 series: the highest, the median and the lowest" in page
        assert page.count('class="line actual"') >= 3
        assert "sentinel rollback" in page
        assert f"http://127.0.0.1:3000/assets/model_versions?view=partitions&amp;partition={MEMORY.slug}" in page
        assert "&#34;10.0.0.3:9090&#34;" in client.get(f"/watches/{MEMORY.slug}?series=0.3:").text
        assert "3 ARIMAModel, 2 LinearTrendModel" in page
        assert re.search(r"serves: 2 SeasonalNaive\b", client.get(f"/watches/{QUEUE.slug}").text)
        assert 'class="figure name">Linear<wbr>Trend<wbr>Model</span>' in page
        assert len(re.findall(r"10\.0\.0\.\d:9090&#34; \((?:ARIMA|LinearTrend)Model\)", page)) >= 3
        assert "No series has nothing" in client.get(f"/watches/{MEMORY.slug}?series=nothing").text
        table = client.get(f"/watches/{REQUESTS.slug}").text.split('id="unusual"')[1].split("</section>")[0]
        shown = [float(text) for text in re.findall(r'class="right">([\d.]+)', table)]
        assert len(shown) == table.count('class="spark"') == 3
        assert shown == sorted(shown, reverse=True)
        assert "finetune 0.1" in client.get(f"/watches/{REQUESTS.slug}").text
        assert "The plot starts with the first samples" in client.get(f"/watches/{LATENCY.slug}").text
        assert client.get("/watches/none").status_code == 404


def test_how_good_forecasts_were(world: World) -> None:
    """A watch tells of each lead how good its forecasts were, over time too, and which bounds are too narrow."""
    with world.client() as client:
        page = client.get(f"/watches/{REQUESTS.slug}").text
        assert re.findall(r">(\w+) ahead</li>", page)[-3:] == ["1m", "8m", "30m"]
        assert "× 0.80" in page
        assert page.count("too narrow") == 1
        assert "level 95%" in page
        assert "Nothing is judged yet" in client.get(f"/watches/{LATENCY.slug}").text


def test_a_threshold_on_its_pages(world: World) -> None:
    """The watch says how likely and when its likeliest series gets across, its incident names the series."""

    def words(path: str) -> str:
        return " ".join(re.sub("<[^>]*>", " ", client.get(path).text).split())

    with world.client() as client:
        page = words(f"/watches/{REQUESTS.slug}")
        assert re.search(r"Above 120 over 99 % likely within 30m, expected in \d+m: {job=&#34;shop&#34;,path=", page)
        assert "above 120 in 20m, 93 %: http_requests_total{job=&#34;shop&#34;,path=&#34;/pay&#34;}" in page
        assert "Above" not in words(f"/watches/{MEMORY.slug}")
        page = words(f"/incidents/{world.incidents['requests']}")
        assert "Warning: 1 of 3 series is at 90 % or more to get across within 30m." in page
        assert "path=&#34;/pay&#34;} above 120 93 % 20m" in page


def test_a_plot_that_cannot_be_drawn_costs_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while drawing leaves the rest of the page there, and says where to look."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sentinel_core.apps.ui.watch.forecast_plot", broken)
    with world.client() as client:
        page = client.get(f"/watches/{MEMORY.slug}").text
    assert "The plots cannot be drawn; the sidecar&#39;s log says why." in page
    assert "sentinel rollback" in page


def test_lost_samples_do_not_take_the_pages(own_world: World) -> None:
    """When the actuals cannot be read, overview and watch show what they have and say what is wrong."""
    for dataset in ("windows", "psi"):
        for file in Path(own_world.store.segments.folder.address(dataset)).rglob("*.parquet"):
            file.unlink()
    with own_world.client() as client:
        for path in ("/", f"/watches/{MEMORY.slug}"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "The store cannot be read." in answer.text
        assert "fraud-score" in names(client.get("/").text)


# ---- models and incidents --------------------------------------------------------------------------------------------


def test_a_baseline_is_pinned_released_and_accepted(own_world: World) -> None:
    """Each by a form with a reason; the page lists who did it; a span without events is refused with what was typed."""
    model = f"/models/{own_world.models['fraud-score']}"
    with logged_in(own_world, "otto") as person:
        span = {"start": "2020-01-01T00:00", "end": "2020-01-02T00:00", "reason": "a quiet day"}
        refused = person.post(f"{model}/baseline", model, do="pin", **span)
        assert refused.status_code == 422
        assert 'value="a quiet day"' in refused.text
        assert 'role="alert"' in refused.text
        unreadable = person.post(f"{model}/baseline", model, do="pin", start="soon", end="")
        assert unreadable.status_code == 422
        assert "is not a date and a time" in unreadable.text
        span = {"start": _field(TOP - 120 * HOUR), "end": _field(TOP - 48 * HOUR), "reason": "a good week"}
        assert person.post(f"{model}/baseline", model, do="pin", **span).status_code == 303
        page = person.client.get(model).text
        assert "a good week" in page
        assert "Release the pinned baseline" in page
        assert person.post(f"{model}/baseline", model, do="unpin", reason="enough").status_code == 303
        incident = f"/incidents/{own_world.incidents['fraud-score']}"
        accepted = person.post(f"{incident}/accept", incident, reason="a new version is out")
        assert accepted.headers["location"] == f"{incident}?said=accepted"
        assert "Accepted by otto" in " ".join(re.sub("<[^>]*>", " ", person.client.get(incident).text).split())


def _field(time: int) -> str:
    return str(np.datetime64(time // 60, "m"))


def test_incidents_are_filtered_and_paged(world: World) -> None:
    """By state, severity, kind and model, newest first."""
    with world.client() as client:

        def found(**asked: str | int) -> list[str]:
            page = client.get("/incidents", params=asked).text
            return re.findall(r'<th scope="row"><a id="[^"]*" href="/incidents/(\d+)">', page)

        assert found() == ["4", "3", "2", "1"]
        assert found(state="open") == ["4", "3", "1"]
        assert found(state="active", severity="warn") == ["4", "3", "2"]
        assert found(kind="silence") == ["3"]
        assert found(kind="threshold") == ["4"]
        assert found(model="fraud-score") == ["1"]
        assert found(model="nobody") == []
        assert found(before=2) == ["1"]
        assert found(state="nonsense") == []


def test_an_incident_says_what_one_needs(world: World) -> None:
    """Headline, severity in words, figures, distributions, what happens next, timeline with receipts."""
    with world.client() as client:
        page = " ".join(re.sub("<[^>]*>", " ", client.get("/incidents/1").text).split())
        for said in (
            "fraud-score: the distribution of scores has moved",
            "critical",
            "95% interval",
            "normal range",
            "resolves below 0.07",
            "80,640",
            "What happens next",
            "Escalated as critical by sentinel",
            "delivered to on-call",
        ):
            assert said in page, said
        assert "given up" in client.get("/incidents/3").text
        assert client.get("/incidents/99").status_code == 404


# ---- who may what ----------------------------------------------------------------------------------------------------

CHANGES = [
    "/incidents/1/acknowledge", "/models/1/settings", "/models/1/enabled", "/models/1/baseline", "/models/1/delete",
    "/deliveries/1/resend", "/settings/keys", "/settings/keys/x/revoke", "/settings/receivers", "/settings/receivers/1",
    "/settings/receivers/1/test", "/settings/receivers/1/remove", "/settings/users", "/settings/users/1",
    "/settings/projects", "/settings/projects/1",
]  # fmt: skip


@pytest.mark.parametrize("path", CHANGES)
def test_changes_need_a_login_a_token_and_a_role(world: World, path: str) -> None:
    """Nobody on this machine is sent to the login; a form without the session's token and a viewer's are refused."""
    with world.client() as client:
        assert client.post(path, data={}).headers["location"].startswith("/login")
    with logged_in(world, "vera") as viewer:
        assert viewer.client.post(path, data={}).status_code == 403
        assert viewer.post(path, enabled="no").status_code == 403


FIELDS = [
    "name", "password", "role", "project", "days", "rate", "hours", "kind", "min_severity", "enabled", "disabled", "do",
    "start", "end", "reason", "warn", "bins", "current_hours", "baseline", "silence", "revision", "scope_read", "back",
    "settings.url", "settings.secret", "settings.urls", "settings.labels", "monitor_new_models",
]  # fmt: skip
ASKED = ["find", "kind", "state", "project", "page", "severity", "model", "before", "span", "series", "said"]
NONSENSE = ("", "x", "-1", "nan", "inf", "1e300", "9" * 30, "9999-12-31T23:59", "😀", "<b>")


def test_nonsense_in_forms_is_no_error_of_ours(own_world: World) -> None:
    """Whatever an admin's forms hold, the answer says what is wrong with it, or it is done."""
    with logged_in(own_world, "ada") as person:
        token = _value(person.client.get("/").text, "csrf")
        for value in NONSENSE:
            for path in CHANGES:
                if path != "/models/1/delete":
                    answer = person.client.post(path, data={"csrf": token, **dict.fromkeys(FIELDS, value)})
                    assert answer.status_code < 500, (path, value)
            for path in (
                "/",
                "/incidents",
                "/models/1",
                f"/watches/{QUEUE.slug}",
                "/settings/audit",
                "/settings/receivers",
            ):
                asked = dict.fromkeys(ASKED, value)
                assert person.client.get(path, params=asked).status_code < 500, (path, value)
        for path in ("/models/99999999999", "/incidents/99999999999999999999", "/watches/%00"):
            assert person.client.get(path).status_code == 404


def test_pages_of_admins_are_refused_to_others(world: World) -> None:
    """Keys, users, the audit and deletion are neither offered to an operator nor shown."""
    with logged_in(world, "otto") as operator:
        for path in ("/settings/keys", "/settings/users", "/settings/audit", "/models/1/delete"):
            answer = operator.client.get(path)
            assert answer.status_code == 403
            assert "otto may not" in answer.text
            assert path not in operator.client.get("/settings/receivers").text


def test_nothing_of_another_project_is_seen(own_world: World) -> None:
    """A user of one project sees no model, incident, watch or key of another, and cannot tell that they are there."""
    with own_world.store.database.write() as connection:
        other = model_store.add_project(connection, "other", NOW)
        hashed = CHEAP.hash(PASSWORD)
        users.create(connection, TEST, name="olga", password_hash=hashed, role="admin", project_id=other, now=NOW)
    with logged_in(own_world, "olga") as olga:
        page = olga.client.get("/").text
        assert "fraud-score" not in page
        assert "queue_length" not in page
        assert "curl" in page
        for path in ("/models/1", "/incidents/1", f"/watches/{QUEUE.slug}", "/models/1/delete"):
            assert olga.client.get(path).status_code == 404, path
        for path in (
            "/models/1/enabled",
            "/incidents/1/acknowledge",
            "/deliveries/1/resend",
            "/settings/receivers/1/test",
        ):
            assert olga.post(path, enabled="no").status_code == 404, path
        assert "on-call" not in olga.client.get("/settings/receivers").text
        assert "default" not in olga.client.get("/settings/projects").text


def test_a_page_that_is_not_there(world: World) -> None:
    """It says so, with the way back."""
    with world.client() as client:
        answer = client.get("/no/such/page")
    assert answer.status_code == 404
    assert "there is no page /no/such/page" in answer.text


# ---- live ------------------------------------------------------------------------------------------------------------


def test_streams_are_bounded_and_end_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the bound is turned away; open ones end cleanly when the server stops."""
    monkeypatch.setattr(changes, "MOST", 2)
    ended: list[bool] = []
    ready = threading.Barrier(3)

    def follow(url: str) -> None:
        with httpx.stream("GET", f"{url}/changes", timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            ready.wait(20)
            ended.append(all(line in ("", ".") or line.startswith((":", "event", "data")) for line in lines))

    with open_world(tmp_path, empty=True) as world:
        threads = [threading.Thread(target=follow, args=(world.url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait(20)
        with world.client() as client:
            assert client.get("/changes").status_code == 503
    for thread in threads:
        thread.join(10)
    assert ended == [True, True]


def test_a_crowd_that_comes_at_once_gets_no_more_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds for those, too, who ask before the first stream has begun."""
    monkeypatch.setattr(changes, "MOST", 2)
    with open_world(tmp_path, empty=True) as world:
        url = httpx.URL(world.url)

        async def code() -> bytes:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(b"GET /changes HTTP/1.1\r\nhost: localhost\r\n\r\n")
            try:
                return (await reader.readline()).split()[1]
            finally:
                await asyncio.sleep(0.5)  # so that none makes room for another
                writer.close()

        async def crowd() -> list[bytes]:
            return await asyncio.gather(*[code() for _ in range(60)])

        assert sorted(asyncio.run(crowd())) == [b"200"] * 2 + [b"503"] * 58
