"""What people do by hand, in a real Chromium, with and without JavaScript."""

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect

from sentinel_core.storage import model_store, schema
from tests.ui.visitor import Visitor, visiting
from tests.ui.world import World, open_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cheap_passwords: None) -> Iterator[World]:
    """One for all of these tests, each of which changes something else in it."""
    with open_world(tmp_path_factory.mktemp("flows")) as opened:
        yield opened


def steps(world: World, model: str) -> list[str]:
    """The kinds of the transitions of a model's incident, oldest first."""
    table = schema.incident_transitions
    query = sa.select(table.c.kind).where(table.c.incident_id == world.incidents[model]).order_by(table.c.id)
    with world.store.database.read() as connection:
        return list(connection.scalars(query))


def act(visitor: Visitor, button: str, reason: str, then: str) -> None:
    """Give a reason, press a button of an incident's page, and read what it says then."""
    visitor.page.fill("#reason", reason)
    visitor.page.get_by_role("button", name=button, exact=True).click()
    expect(visitor.page.get_by_role("status")).to_contain_text(then)


@pytest.mark.parametrize(("model", "script"), [("fraud-score", True), ("pricing", False)], ids=["JavaScript", "plain"])
def test_an_incident_to_its_end(browser: Browser, world: World, model: str, script: bool) -> None:
    """Acknowledged on the overview, then resolved and closed with reasons that the timeline shows."""
    with visiting(browser, world, java_script_enabled=script) as visitor:
        visitor.log_in("otto")
        visitor.page.get_by_role("button", name=f"Acknowledge the incident of {model}").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("Acknowledged")
        assert visitor.page.url.startswith(f"{world.url}/?said=")
        visitor.page.get_by_role("link", name=re.compile(f"^{model}: ")).click()
        act(visitor, "Resolve", "the feed is back", "Resolved")
        act(visitor, "Close", "see the post mortem", "Closed")
        timeline = visitor.text("#timeline")
        assert "Closed by otto" in timeline
        assert "the feed is back" in timeline
        assert not visitor.page.locator("#reason").count()
    assert steps(world, model)[-3:] == ["acknowledged", "resolved", "closed"]


def test_acknowledging_by_keyboard(browser: Browser, world: World) -> None:
    """From the top of the page: skip link, then on to the button, with a focus that can be seen."""
    with visiting(browser, world) as visitor:
        visitor.log_in("otto")
        visitor.go(f"/incidents/{world.incidents['support-intents']}")
        keyboard, focused = visitor.page.keyboard, visitor.page.locator(":focus")
        keyboard.press("Tab")
        expect(focused).to_have_text("Skip to the content")
        assert visitor.page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
        keyboard.press("Enter")
        for _ in range(12):
            keyboard.press("Tab")
            assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
            if focused.get_attribute("id") == "reason":
                break
        keyboard.type("it is the new campaign")
        keyboard.press("Tab")
        expect(focused).to_have_text("Resolve")
        keyboard.press("Enter")
        expect(visitor.page.get_by_role("status")).to_contain_text("Resolved")
    assert steps(world, "support-intents")[-1] == "resolved"


def test_thresholds(browser: Browser, world: World) -> None:
    """What cannot be is said beside the field, with what was typed kept; what can be is used from then on."""
    with visiting(browser, world, allowed=(422,)) as visitor:
        visitor.log_in("otto")
        visitor.go(f"/models/{world.models['churn']}")
        visitor.page.fill("#settings-warn", "a lot")
        visitor.page.fill("#settings-min_samples", "300")
        visitor.page.get_by_role("button", name="Save").click()
        expect(visitor.page.locator("#settings-warn-wrong")).to_have_text("is not a number")
        expect(visitor.page.locator("#settings-warn")).to_have_value("a lot")
        expect(visitor.page.locator("#settings-min_samples")).to_have_value("300")
        expect(visitor.page.locator("#settings-warn")).to_be_focused()
        assert visitor.barriers() == []
        visitor.page.fill("#settings-warn", "0.9")
        visitor.page.get_by_role("button", name="Save").click()
        assert "warn" in visitor.text("#settings [role=alert]")
        visitor.page.fill("#settings-warn", "0.15")
        visitor.page.get_by_role("button", name="Save").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("Saved")
        expect(visitor.page.locator("#settings-warn")).to_have_value("0.15")
        assert "warning 0.15" in (visitor.page.locator("#psi script").text_content() or "")


def test_monitoring_off_and_on(browser: Browser, world: World) -> None:
    """One button switches the evaluation of a model off, and on again."""
    with visiting(browser, world) as visitor:
        visitor.log_in("otto")
        visitor.go(f"/models/{world.models['churn']}")
        visitor.page.get_by_role("button", name="Stop monitoring").click()
        expect(visitor.page.locator("h1 + .chip")).to_contain_text("not monitored")
        visitor.page.get_by_role("button", name="Monitor it").click()
        expect(visitor.page.locator("h1 + .chip")).to_contain_text("ok")


def test_keys(browser: Browser, world: World) -> None:
    """A key is shown once when it is made, works, and is refused as soon as it is revoked."""
    with visiting(browser, world, allowed=(422,)) as visitor, world.client() as application:
        visitor.log_in("ada")
        visitor.go("/settings/keys")
        visitor.page.fill("#key-name", "fraud-service")
        visitor.page.get_by_label("read the API (read)").check()
        visitor.page.get_by_role("button", name="Make the key").click()
        key = visitor.text("#fresh-key")
        headers = {"authorization": f"Bearer {key}"}
        assert application.get("/v1/models", headers=headers).status_code == 200
        assert visitor.barriers() == []
        assert key not in visitor.go("/settings/keys").page.content()
        visitor.page.get_by_role("button", name="Revoke fraud-service").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("revoked")
        assert application.get("/v1/models", headers=headers).status_code == 401


def test_a_key_of_every_project(browser: Browser, world: World) -> None:
    """Somebody who sees every project makes a key of them all, which the list tells from the others."""
    with visiting(browser, world, allowed=(422,)) as visitor, world.client() as application:
        visitor.log_in("ada")
        visitor.go("/settings/keys")
        visitor.page.fill("#key-name", "grafana")
        visitor.page.get_by_label("send events (ingest)").uncheck()
        visitor.page.get_by_label("read the API (read)").check()
        visitor.page.locator("#key-project").select_option("every")
        visitor.page.get_by_role("button", name="Make the key").click()
        headers = {"authorization": f"Bearer {visitor.text('#fresh-key')}"}
        assert application.get("/v1/projects", headers=headers).json()["items"]
        expect(visitor.page.get_by_role("row", name="grafana")).to_contain_text("every project")
        visitor.page.get_by_role("button", name="Revoke grafana").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("revoked")


def test_receivers(browser: Browser, world: World) -> None:
    """One is added, refused with the reason, tested, switched off and removed."""
    with visiting(browser, world, allowed=(422,)) as visitor:
        visitor.log_in("ada")
        visitor.go("/settings/receivers")
        visitor.page.get_by_role("link", name="Webhook", exact=True).click()
        visitor.page.fill("#receiver-name", "pager")
        visitor.page.fill("#receiver-settings-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        visitor.page.fill("#receiver-settings-url", "http://10.0.0.1/hook")
        visitor.page.get_by_role("button", name="Add it").click()
        expect(visitor.page.locator("#receiver-settings-url")).to_have_attribute("aria-invalid", "true")
        expect(visitor.page.locator("#receiver-name")).to_have_value("pager")
        visitor.page.fill("#receiver-settings-url", "http://127.0.0.1:9/hook")
        visitor.page.get_by_role("button", name="Add it").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("Send it a test message")
        visitor.page.get_by_role("button", name="Test pager").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("did not arrive")
        visitor.page.get_by_role("button", name="Switch off pager").click()
        expect(visitor.page.get_by_role("button", name="Switch on pager")).to_be_visible()
        visitor.page.get_by_text("Remove pager").click()
        visitor.page.get_by_role("button", name="Remove it with its alerts").locator("visible=true").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("removed")
        expect(visitor.page.get_by_role("button", name="Test pager")).to_have_count(0)


def test_a_dead_alert_is_sent_again(browser: Browser, world: World) -> None:
    """What was given up is listed with the reason, and owed again at a click."""
    with visiting(browser, world) as visitor:
        visitor.log_in("otto")
        assert "503 from 127.0.0.1:9" in visitor.go("/settings/receivers").text()
        visitor.page.get_by_role("button", name="Send again").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("owed again")
        assert "None: every alert arrived" in visitor.text()


def test_users(browser: Browser, world: World) -> None:
    """A user is added, a short password refused, and the new one can log in until disabled."""
    with visiting(browser, world, allowed=(422, 403)) as visitor:
        visitor.log_in("ada")
        visitor.go("/settings/users")
        visitor.page.fill("#user-name", "nora")
        visitor.page.locator("#user-password").evaluate("field => field.removeAttribute('minlength')")
        visitor.page.fill("#user-password", "short")
        visitor.page.get_by_role("button", name="Add the user").click()
        expect(visitor.page.locator("#user-password")).to_have_attribute("aria-invalid", "true")
        visitor.page.fill("#user-password", "several words are good")
        visitor.page.select_option("#user-role", "operator")
        visitor.page.get_by_role("button", name="Add the user").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("can log in now")
        with visiting(browser, world) as nora:
            assert "nora" in nora.log_in("nora").text(".account")
        row = visitor.page.get_by_role("row").filter(has_text="nora")
        row.get_by_text("Change nora").click()
        row.get_by_role("button", name="Disable").click()
        expect(visitor.page.get_by_role("row").filter(has_text="nora")).to_contain_text("disabled")


def test_projects_and_audit(browser: Browser, world: World) -> None:
    """A project is added, and the audit says who did it."""
    with visiting(browser, world) as visitor:
        visitor.log_in("ada")
        visitor.go("/settings/projects")
        visitor.page.fill("#project-name", "search")
        visitor.page.get_by_role("button", name="Add the project").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("Make a key for it")
        audit = visitor.go("/settings/audit").text("tbody tr >> nth=0")
        assert "project.create" in audit
        assert "ada" in audit


def test_a_viewer_is_offered_nothing(browser: Browser, world: World) -> None:
    """Who may only read sees no form but to log out and to look for things."""
    with visiting(browser, world) as visitor:
        visitor.log_in("vera")
        for path in (
            "/",
            f"/models/{world.models['churn']}",
            "/incidents/1",
            "/settings/receivers",
            "/settings/projects",
        ):
            visitor.go(path)
            forms = visitor.page.locator("form[method=post]")
            assert [forms.nth(i).get_attribute("action") for i in range(forms.count())] == ["/logout"], path
        assert "Keys" not in visitor.text(".tabs")


def test_open_pages_follow_the_store(browser: Browser, world: World) -> None:
    """What changes elsewhere shows on an open page, without taking the focus or closing what was opened."""
    with visiting(browser, world) as visitor:
        visitor.log_in("otto")
        visitor.go(f"/models/{world.models['ltv-forecast']}")
        visitor.page.get_by_text("Pin a baseline").click()
        visitor.page.fill("#pin-reason", "half a sent")
        expect(visitor.page.locator("#state .chip")).to_contain_text("ok")
        with world.store.database.write() as connection:
            model_store.set_enabled(connection, world.models["ltv-forecast"], False)
        expect(visitor.page.locator("#state .chip")).to_contain_text("not monitored", timeout=20_000)
        expect(visitor.page.locator("#pin-reason")).to_have_value("half a sent")
        expect(visitor.page.locator("#pin-reason")).to_be_focused()
        expect(visitor.page.locator("figure.drawn")).to_have_count(2)


def test_deletion_says_what_goes(browser: Browser, world: World) -> None:
    """Only an admin is asked, in words that name what is deleted; then the model is gone."""
    with visiting(browser, world) as visitor:
        visitor.log_in("ada")
        visitor.go(f"/models/{world.models['old-ranker']}")
        visitor.page.get_by_role("link", name="Delete this model").click()
        assert "events, from" in visitor.text()
        visitor.page.get_by_role("button", name="Delete old-ranker").click()
        expect(visitor.page.get_by_role("status")).to_contain_text("Deleted")
        assert "old-ranker" not in visitor.text("#fleet")
