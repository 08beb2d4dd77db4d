"""Who is recognised by what, over HTTP: keys, sessions with their CSRF tokens, and people on this machine."""

from dataclasses import replace

import pytest

from sentinel_core.security import keys
from tests.security.site import BY, Browser, Site


def key(site: Site, *scopes: str) -> str:
    """A key, made as another process would."""
    with site.store.database.write() as connection:
        made = keys.create(connection, BY, site.pepper, project_id=1, name="app", scopes=scopes, now=site.clock.now)
    return made.text


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


# ---- keys


def test_a_key_is_recognised_the_moment_it_was_made(site: Site, browser: Browser) -> None:
    """A key that another process has just made is good, though nobody told this one; scopes limit it."""
    reader, sender, admin = (key(site, scope) for scope in ("read", "ingest", "admin"))
    get, post = browser.http.get, browser.http.post
    assert get("/api", headers=bearer(reader)).json()["kind"] == "key"
    assert get("/page", headers={"authorization": f"bearer  {reader}"}).status_code == 200
    assert post("/page", headers=bearer(reader)).status_code == 403
    assert get("/page", headers=bearer(sender)).status_code == 403
    assert post("/page", headers=bearer(admin)).status_code == 200  # no cookie, hence nothing to forge


def test_a_wrong_key_falls_back_to_nothing(site: Site, browser: Browser) -> None:
    """Where a key is sent, neither a session nor this machine stands in for it."""
    browser.log_in()
    for text in ("x", "sml_live_", key(site, "read") + "0"):
        assert browser.http.get("/api", headers=bearer(text)).status_code == 401
        assert browser.http.get("/page", headers=bearer(text)).status_code == 303
    basic = {"authorization": "Basic YTpi"}  # of a proxy in between
    assert browser.http.get("/api", headers=basic).json()["name"] == "grace"


# ---- sessions


def test_a_write_needs_the_sessions_token(browser: Browser) -> None:
    """As a header or in the form; none, another one and another session's are refused. Reading needs none."""
    browser.log_in()
    token = browser.csrf()
    other = browser.another()
    other.log_in()
    post = browser.http.post
    for path in ("/api", "/page"):
        assert post(path).status_code == 403
        assert post(path, json={"csrf": token}).status_code == 403
        for wrong in ("", "x", "\xfc", token + "x", other.csrf()):
            assert post(path, headers={"x-csrf-token": wrong.encode("latin-1")}).status_code == 403
            assert post(path, data={"csrf": wrong}).status_code == 403
        assert post(path, headers={"x-csrf-token": token}).status_code == 200
        assert post(path, data={"csrf": token, "more": "x"}).status_code == 200
        assert post(path, data={"csrf": token}, headers={"x-csrf-token": "x"}).status_code == 403


def test_roles_are_kept(site: Site, browser: Browser) -> None:
    """A viewer reads, and is told that they may not write."""
    site.user("vera", "viewer")
    browser.log_in("vera")
    assert browser.get("/page").status_code == 200
    refused = browser.http.post("/page", headers={"x-csrf-token": browser.csrf()})
    assert (refused.status_code, refused.text) == (403, "vera may not do that; an admin can change it")


# ---- this machine


def test_on_this_machine_pages_are_read_without_a_login(browser: Browser) -> None:
    """Reading is free, writing leads to the login, and the API knows nobody."""
    assert browser.get("/page").json()["kind"] == "local"
    answer = browser.http.post("/page")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert browser.get("/api").status_code == 401
    assert browser.http.post("/api").status_code == 401


@pytest.mark.parametrize("why", ["require_login", "external_url", "open address", "proxy", "elsewhere"])
def test_elsewhere_reading_needs_a_login(site: Site, why: str) -> None:
    """Where others may reach it, or the configuration says so, a page leads to the login and back."""
    site.user()
    if why == "require_login":
        site.config = replace(site.config, require_login=True)
    elif why == "external_url":
        site.config = replace(site.config, external_url="http://sentinel.example")
    site.private = why != "open address"
    with site.served() as browser:
        if why == "proxy":
            browser = browser.another(via="1.1 proxy")
        elif why == "elsewhere":
            browser = browser.another(x_forwarded_for="203.0.113.9")
        answer = browser.get("/page?a=1&b=%2F")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fpage%3Fa%3D1%26b%3D%252F")
        browser.log_in()
        assert browser.get("/page").json()["name"] == "grace"


def test_an_external_url_of_this_machine_is_still_this_machine(site: Site) -> None:
    """A loopback external_url changes nothing."""
    site.config = replace(site.config, external_url="http://127.0.0.1:8080")
    with site.served() as browser:
        assert browser.get("/page").status_code == 200


def test_htmx_is_led_to_the_login_as_a_whole_page(browser: Browser) -> None:
    """A fragment that needs a login makes the browser go there, and back to the page it was on."""
    answer = browser.http.post("/page", headers={"hx-request": "true", "hx-current-url": "http://x/page?a=1"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login?next=%2Fpage%3Fa%3D1")
