"""Every page in a real Chromium: that it loads whole, asks nobody else, bars nobody, and fits a phone."""

import gzip
from pathlib import Path

import httpx
from playwright.sync_api import Browser

from tests.ui.visitor import visiting
from tests.ui.world import REQUESTS, World

STATIC = Path(__file__).parents[2] / "sentinel_core" / "apps" / "static"
PAGES = {
    "overview": "/",
    "model": "/models/{fraud-score}",
    "model of labels": "/models/{support-intents}",
    "model with few events": "/models/{new-recommender}",
    "deletion": "/models/{old-ranker}/delete",
    "incidents": "/incidents",
    "incident": "/incidents/[fraud-score]",
    "silence": "/incidents/[pricing]",
    "threshold": "/incidents/[requests]",
    "watch": f"/watches/{REQUESTS.slug}",
    "keys": "/settings/keys",
    "receivers": "/settings/receivers?kind=alertmanager",
    "users": "/settings/users",
    "projects": "/settings/projects",
    "audit": "/settings/audit",
    "password": "/password",
}
MOST_REQUESTS, MOST_BYTES = 10, 120_000


def path(world: World, page: str) -> str:
    """The address of one of PAGES."""
    text = PAGES[page]
    for name, number in world.models.items():
        text = text.replace(f"{{{name}}}", str(number))
    for name, number in world.incidents.items():
        text = text.replace(f"[{name}]", str(number))
    return text


def test_pages_for_an_admin(browser: Browser, world: World) -> None:
    """Every page loads without an error, asks nobody else, has one heading, and axe finds nothing, light or dark."""
    with visiting(browser, world) as visitor:
        visitor.log_in("ada")
        for page in PAGES:
            visitor.go(path(world, page))
            assert visitor.page.locator("h1").count() == 1, page
            assert visitor.barriers() == [], page
            assert len(set(visitor.requests)) <= MOST_REQUESTS, page


def test_pages_fit_a_phone(browser: Browser, world: World) -> None:
    """At 360 pixels nothing has to be scrolled sideways, and plots are drawn."""
    with visiting(browser, world, viewport={"width": 360, "height": 740}) as visitor:
        visitor.log_in("ada")
        for page in PAGES:
            visitor.go(path(world, page))
            width = visitor.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, page


def test_pages_of_an_empty_installation(browser: Browser, empty_world: World) -> None:
    """Each says what to do next, and bars nobody."""
    with visiting(browser, empty_world) as visitor:
        assert "curl" in visitor.go("/").text()
        assert visitor.barriers() == []
        assert "No incident yet" in visitor.go("/incidents").text()
        assert "Nobody is told" in visitor.go("/settings/receivers").text()
        assert "Log in to change anything" in visitor.text()
        assert visitor.barriers() == []
        visitor.go("/login")
        assert visitor.barriers() == []


def test_a_page_is_light(world: World) -> None:
    """With everything that it loads, a page is at most 120 kB on the wire."""
    with world.client() as client:
        page = client.get(path(world, "model"), headers={"accept-encoding": "gzip"})
        assert page.headers["content-encoding"] == "gzip"
        loaded = [line.split('"')[1] for line in page.text.split() if line.startswith(("src=", 'href="/static'))]
        whole = len(gzip.compress(page.content)) + sum(_transferred(client, address) for address in loaded)
    assert len(loaded) >= 6
    assert whole <= MOST_BYTES


def _transferred(client: httpx.Client, address: str) -> int:
    with client.stream("GET", address, headers={"accept-encoding": "gzip"}) as answer:
        assert answer.status_code == 200
        return sum(len(chunk) for chunk in answer.iter_raw())


def test_a_plot_has_a_cursor(browser: Browser, world: World) -> None:
    """The server's drawing gives way to one that says what stands where."""
    with visiting(browser, world) as visitor:
        visitor.go(path(world, "model"))
        visitor.page.hover("#psi .u-over")
        assert "PSI" in visitor.text("#psi .readout")
        assert "UTC" in visitor.text("#psi .readout")
        assert not visitor.page.is_visible("#psi svg.plot")


def test_vendored_files_are_what_npm_gave() -> None:
    """Licences lie beside what they license, and the README names each file."""
    files = {file.name for file in (STATIC / "vendor").iterdir()}
    readme = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    assert {"htmx-LICENSE", "htmx-ext-sse-LICENSE", "uPlot-LICENSE"} <= files
    assert all(name in readme for name in files if name.endswith(("js", "css")))
