"""Somebody at a browser, who notices what goes wrong in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

from tests.ui.world import PASSWORD, World

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text(encoding="utf-8")


@dataclass
class Visitor:
    """A page of a browser; `wrong` collects console errors, failed requests and those to others."""

    page: Page
    world: World
    wrong: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed: tuple[int, ...] = ()  # codes of answers that are no mistake in a test

    def go(self, path: str) -> "Visitor":
        """Open a page of the sidecar."""
        self.requests.clear()
        self.page.goto(self.world.url + path)
        return self

    def log_in(self, name: str) -> "Visitor":
        """As a person would."""
        self.go("/login")
        self.page.fill("#name", name)
        self.page.fill("#password", PASSWORD)
        self.page.click("main button")
        self.page.wait_for_url(self.world.url + "/")
        return self

    def text(self, selector: str = "main") -> str:
        """What is written somewhere, with single spaces."""
        return " ".join(self.page.inner_text(selector).split())

    def barriers(self) -> list[str]:
        """What axe finds, in light and in dark."""
        self.page.evaluate(AXE)
        found = []
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            # only contrast can differ between the schemes
            only: dict[str, Any] = {"resultTypes": ["violations"]}
            only |= {"runOnly": {"type": "rule", "values": ["color-contrast"]}} if scheme == "dark" else {}
            result: dict[str, Any] = self.page.evaluate("options => axe.run(document, options)", only)
            for violation in result["violations"]:
                where = "; ".join(node["html"][:160] + " " + node["failureSummary"] for node in violation["nodes"][:3])
                found.append(f"{scheme}: {violation['id']}: {where}")
        return found

    def _console(self, message: ConsoleMessage) -> None:
        expected = any(f"status of {code}" in message.text for code in self.allowed)
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith(self.world.url):
            self.wrong.append(f"asks {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.allowed:
            self.wrong.append(f"{response.status} {response.url}")


@contextmanager
def visiting(browser: Browser, world: World, *, allowed: tuple[int, ...] = (), **options: Any) -> Iterator[Visitor]:
    """A fresh browser profile; at its end nothing may have gone wrong in it."""
    usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}  # colours do not fade over
    context = browser.new_context(**(usual | options))
    try:
        page = context.new_page()
        page.set_default_timeout(10_000)
        visitor = Visitor(page, world, allowed=allowed)
        page.on("console", visitor._console)
        page.on("pageerror", lambda error: visitor.wrong.append(str(error)))
        page.on("request", visitor._request)
        page.on("response", visitor._response)
        yield visitor
        assert visitor.wrong == []
    finally:
        context.close()
