"""Logging in and out over HTTP: cookies, CSRF, throttling, redirects, the first admin's link, one's password."""

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from sentinel_core.apps import login
from sentinel_core.security import audit, sessions, users
from sentinel_core.security.passwords import Passwords
from sentinel_core.storage import schema
from tests.security.site import BY, PASSWORD, Browser, Clock, Site, set_cookies

# ---- cookies and sessions


def test_logging_in_gives_a_session_that_scripts_do_not_see(site: Site, browser: Browser) -> None:
    """The right password leads to the page, with cookies HttpOnly and SameSite; the store has only a hash of them."""
    assert browser.get("/api").status_code == 401
    asked = set_cookies(browser.get("/login"))["login"]
    assert asked[2:] == ["httponly", "path=/", "samesite=strict"]
    answer = browser.log_in(" Grace ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    name, token, *attributes = set_cookies(answer)["session"]
    assert name == "sentinel_8080_session"
    assert attributes == ["httponly", "path=/", "samesite=lax"]
    assert browser.get("/api").json()["name"] == "grace"
    with site.store.database.read() as connection:
        assert token not in str(connection.execute(sa.select(schema.sessions)).all())
        assert [entry.action for entry in audit.entries(connection)] == ["user.login", "user.create"]


@pytest.mark.parametrize("by", ["proxy", "external_url"])
def test_on_tls_cookies_go_no_other_way(site: Site, browser: Browser, by: str) -> None:
    """Behind TLS, as a proxy or the configuration tells, every cookie is Secure and bound to the host."""
    if by == "external_url":
        site.config = replace(site.config, external_url="https://sentinel.example")
    tls = browser.another(x_forwarded_proto="https") if by == "proxy" else browser
    nonce = set_cookies(tls.get("/login"))["login"]
    form = {"name": "grace", "password": PASSWORD, "csrf": site.pepper.digest("login", nonce[1])}
    found = set_cookies(tls.http.post("/login", data=form, headers={"cookie": f"{nonce[0]}={nonce[1]}"}))
    assert set(found) == {"session", "device"}
    for name, _, *attributes in [nonce, *found.values()]:
        assert name.startswith("__Host-")
        assert {"secure", "httponly", "path=/"} <= set(attributes)


def test_a_session_that_somebody_planted_is_not_adopted(browser: Browser) -> None:
    """A login has a fresh token, whatever the browser had before."""
    browser.http.cookies.set("sentinel_8080_session", "planted", domain="127.0.0.1", path="/")
    token = set_cookies(browser.log_in())["session"][1]
    assert len(token) == 43
    assert browser.another(cookie="sentinel_8080_session=planted").get("/api").status_code == 401
    assert browser.another(cookie=f"sentinel_8080_session={token}").get("/api").status_code == 200


def test_a_login_ends_the_session_before_it(site: Site, browser: Browser) -> None:
    """The same browser, logged in once more from an old tab, has one session; a new tab needs no login."""
    tab = browser.fields("/login") | {"name": "grace", "password": PASSWORD}
    first, second = (set_cookies(browser.http.post("/login", data=tab)) for _ in range(2))
    assert first["session"][1] != second["session"][1]
    with site.store.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.sessions)) == 1
    page = browser.get("/login?next=/page")
    assert (page.status_code, page.headers["location"]) == (303, "/page")


def test_sessions_end_when_they_rest(site: Site, browser: Browser, clock: Clock) -> None:
    """Use prolongs a session; eight hours without it end it, and so does a week."""
    browser.log_in()
    began = clock.now
    while clock.now < began + sessions.ABSOLUTE_SECONDS - 7 * 3600:
        clock.now += 7 * 3600
        assert browser.get("/api").status_code == 200
    clock.now = began + sessions.ABSOLUTE_SECONDS
    assert browser.get("/api").status_code == 401
    browser.log_in()
    clock.now += sessions.IDLE_SECONDS
    assert browser.get("/api").status_code == 401


def test_rights_are_those_of_the_moment(site: Site, browser: Browser) -> None:
    """A role that changes and a user who is disabled are noticed with the next request."""
    browser.log_in()
    user_id, csrf = 1, browser.csrf()
    assert browser.http.post("/page", headers={"x-csrf-token": csrf}).status_code == 200
    site.user("ada", "admin")
    site.change(lambda connection: users.set_role(connection, BY, user_id, "viewer", now=1.0))
    assert browser.http.post("/page", headers={"x-csrf-token": csrf}).status_code == 403
    site.change(lambda connection: users.set_disabled(connection, BY, user_id, True, now=1.0))
    assert browser.get("/api").status_code == 401
    site.change(lambda connection: users.set_disabled(connection, BY, user_id, False, now=1.0))
    assert browser.get("/api").status_code == 401  # being let in again brings no session back


def test_logging_out_ends_the_session(site: Site, browser: Browser) -> None:
    """The cookie is dropped, and worth nothing to whoever kept it; logging out needs the session's token."""
    browser.log_in()
    kept = browser.another(cookie=f"sentinel_8080_session={browser.http.cookies['sentinel_8080_session']}")
    assert browser.http.post("/logout").status_code == 403
    assert browser.get("/logout").status_code == 405
    assert kept.get("/api").status_code == 200
    answer = browser.http.post("/logout", data={"csrf": browser.csrf()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert set_cookies(answer)["session"][1] == ""
    assert [one.get("/api").status_code for one in (browser, kept)] == [401, 401]
    assert browser.http.post("/logout").status_code == 303  # there is nothing to protect any more
    with site.store.database.read() as connection:
        assert audit.entries(connection)[0].action == "user.logout"


# ---- who is refused, and how


def test_nobody_learns_which_users_there_are(site: Site, browser: Browser) -> None:
    """A wrong name, a wrong password and a disabled user get the same answer, and cost a hash each."""
    site.user("gone")
    site.change(lambda connection: users.set_disabled(connection, BY, 2, True, now=1.0))
    verified: list[bool] = []
    real = site.passwords.verify
    site.passwords.verify = lambda *given: (verified.append(True), real(*given))[1]  # type: ignore[method-assign]
    tries = (("nobody", PASSWORD), ("grace", "wrong password"), ("gone", PASSWORD), ("g\0", PASSWORD), ("", ""))
    answers = [browser.another().log_in(*one) for one in tries[:3]]
    assert {answer.status_code for answer in answers} == {403}
    pages = {answer.text.replace(name, "?") for answer, (name, _) in zip(answers, tries, strict=False)}
    assert len({page.split('name="csrf"')[0] for page in pages}) == 1
    assert "The name or the password is wrong." in answers[0].text
    assert len(verified) == 3
    assert browser.another().log_in(*tries[3]).status_code == 400
    assert browser.another().log_in(*tries[4]).status_code == 403
    assert not any(PASSWORD in answer.text for answer in answers)


def test_another_site_cannot_log_anybody_in(browser: Browser) -> None:
    """A login without the form's token and its cookie is refused, with a fresh form to try again."""
    theirs = browser.another().fields("/login")["csrf"]
    form = {"name": "grace", "password": PASSWORD}
    assert browser.http.post("/login", data=form).status_code == 403
    assert browser.http.post("/login", data=form | {"csrf": theirs}).status_code == 403
    browser.get("/login")
    answer = browser.http.post("/login", data=form | {"csrf": theirs})
    assert answer.status_code == 403
    assert "Please try again" in answer.text
    assert "session" not in set_cookies(answer)
    assert browser.log_in().status_code == 303


def test_guessing_is_slowed_down_and_ends_by_waiting(site: Site, browser: Browser, clock: Clock) -> None:
    """After five wrong passwords the right one has to wait too, a minute at most; unknown names are no different."""
    for name in ("nobody", "grace"):
        guesser = browser.another(x_forwarded_for=f"203.0.113.{len(name)}")
        assert [guesser.log_in(name, "a wrong one").status_code for _ in range(5)] == [403] * 5
        refused = guesser.log_in(name)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert "Too many attempts. Please try again in 2 s." in refused.text
    clock.now += 2
    assert browser.another().log_in().status_code == 303
    for _ in range(20):
        clock.now += 60
        assert browser.another().log_in("grace", "a wrong one").status_code == 403
    clock.now += 60
    assert browser.another().log_in().status_code == 303


def test_nobody_is_locked_out_by_those_who_guess(site: Site, browser: Browser) -> None:
    """A browser that has logged in as somebody before is let in while others are made to wait."""
    browser.log_in()
    browser.http.cookies.delete("sentinel_8080_session")
    for _ in range(7):
        assert browser.another().log_in("grace", "a wrong one").status_code in (403, 429)
    assert browser.another().log_in().status_code == 429
    assert browser.log_in().status_code == 303
    device = browser.http.cookies["sentinel_8080_device"]
    site.user("ada")
    thief = browser.another(cookie=f"sentinel_8080_device={device}")
    assert [thief.log_in("ada", "a wrong one").status_code for _ in range(6)][-1] in (403, 429)
    browser.http.cookies.delete("sentinel_8080_session")
    own = [browser.log_in("grace", "a wrong one").status_code for _ in range(6)]
    assert own == [403] * 5 + [429]  # a device that guesses waits too


def test_an_address_that_tries_many_names_waits(site: Site, browser: Browser, clock: Clock) -> None:
    """Twenty attempts of one address, whatever the names; another address is not concerned."""
    codes = [browser.another().log_in(f"user{n}", "a wrong one").status_code for n in range(21)]
    assert codes == [403] * 20 + [429]
    far = browser.another(x_forwarded_for="203.0.113.9")
    assert far.log_in().status_code == 303
    near = [browser.another(x_forwarded_for=f"2001:db8::{n}") for n in range(21)]
    assert [one.log_in(f"other{n}", "a wrong one").status_code for n, one in enumerate(near)][-1] == 429


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "\x01//evil.example",
        "/login?next=/login",
        "/logout",
        "page",
        "",
    ],
)
def test_a_login_leads_to_no_other_site(browser: Browser, target: str) -> None:
    """What could be taken for another site, or for the login itself, leads to the overview."""
    assert browser.log_in(next=target).headers["location"] == "/"


def test_a_login_leads_back_to_where_it_was_asked_for(browser: Browser) -> None:
    """A page of ours is kept through the login, query included."""
    page = browser.get("/login?next=/page%3Fa%3D1%26b%3D2")
    assert 'name="next" value="/page?a=1&amp;b=2"' in page.text
    assert page.headers["cache-control"] == "no-store"
    assert browser.log_in(next="/page?a=1&b=2").headers["location"] == "/page?a=1&b=2"


def test_forms_are_bounded(browser: Browser) -> None:
    """Large bodies, many fields, other encodings and unprintable bytes are refused with a page."""
    post = browser.http.post
    assert post("/login", data={"password": "x" * 70_000}).status_code == 413
    assert post("/login", content=iter([b"a=" + b"x" * 40_000] * 2)).status_code == 413
    assert post("/login", data={f"f{n}": "" for n in range(201)}).status_code == 400
    assert post("/login", files={"name": b"grace"}).status_code == 415
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"name=\xff", b"name=%ff", b"name=%00"):
        answer = post("/login", content=body, headers=form)
        assert answer.status_code == 400
        assert "That cannot be done" in answer.text


def test_few_hashes_run_and_wait_at_once(site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue full a login is asked to come back, rather than to wait."""
    monkeypatch.setattr(login, "HASHES_WAITING", 0)
    answer = browser.log_in()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_hash_of_other_parameters_is_renewed(site: Site, browser: Browser) -> None:
    """Logging in brings a password's hash up to today's parameters; the password stays."""
    old = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)).hash(PASSWORD)
    user_id = site.user("ada", password_hash=old)
    assert browser.log_in("ada").status_code == 303
    with site.store.database.read() as connection:
        fresh = users.password_hash(connection, user_id)
    assert fresh != old
    assert not site.passwords.outdated(fresh)
    assert site.passwords.verify(fresh, PASSWORD)


# ---- the first admin


def test_the_printed_link_makes_the_first_admin(site: Site) -> None:
    """Looking at it is free; mistakes are said; then it makes the admin, logs them in, and is worth nothing."""
    with site.store.database.write() as connection:
        token = users.first_link(connection, now=site.clock.now)
    with site.served() as browser:
        assert "Nobody can log in yet" in browser.get("/login").text
        page = f"/setup?token={token}"
        assert [browser.get(page).status_code for _ in range(2)] == [200, 200]
        typed = {"name": "Ada", "password": PASSWORD, "again": PASSWORD}
        for wrong, said in (
            ({"again": "another one here"}, "The two passwords differ."),
            ({"password": "short", "again": "short"}, "takes 12 to 1024 characters"),
            ({"name": "a b"}, "name: takes 1 to 64 letters"),
        ):
            answer = browser.submit("/setup", page, **typed | wrong)
            assert (answer.status_code, said in answer.text) == (422, True)
        answer = browser.submit("/setup", page, **typed)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert browser.get("/api").json()["name"] == "ada"
        with site.store.database.read() as connection:
            assert users.list_users(connection)[0].role == "admin"
        other = browser.another()
        assert other.get(page).status_code == 410
        spent = other.http.post("/setup", data={"token": token, **typed, "name": "eve"})
        assert spent.status_code == 410
        assert "this link is used, too old" in spent.text
        assert "Nobody can log in yet" not in other.get("/login").text


def test_a_link_that_is_none_or_too_old_is_said(site: Site) -> None:
    """Without the token, with another one or after an hour there is no form."""
    with site.store.database.write() as connection:
        token = users.first_link(connection, now=site.clock.now)
    with site.served() as browser:
        for page in ("/setup", "/setup?token=x", f"/setup?token={token}x"):
            answer = browser.get(page)
            assert (answer.status_code, "<form" in answer.text) == (410, False)
        site.clock.now += 3600
        assert browser.get(f"/setup?token={token}").status_code == 410


# ---- one's password


def test_people_change_their_own_password(site: Site, browser: Browser) -> None:
    """It takes the current one; their other sessions end, this one goes on, and only the new password is good."""
    browser.log_in()
    elsewhere = browser.another()
    elsewhere.log_in()
    fresh = {"current": PASSWORD, "password": "another good one", "again": "another good one"}
    for wrong, code, said in (
        ({"current": "a wrong one"}, 403, "The current password is wrong."),
        ({"again": "yet another one"}, 422, "The two new passwords differ."),
        ({"password": "short", "again": "short"}, 422, "takes 12 to 1024 characters"),
    ):
        answer = browser.submit("/password", **fresh | wrong)
        assert (answer.status_code, said in answer.text) == (code, True)
    assert browser.http.post("/password", data=fresh).status_code == 403  # without the session's token
    assert browser.submit("/password", **fresh).status_code == 303
    assert [one.get("/api").status_code for one in (browser, elsewhere)] == [200, 401]
    assert elsewhere.log_in().status_code == 403
    assert elsewhere.log_in(password="another good one").status_code == 303


def test_guessing_the_current_password_is_slowed_down(browser: Browser) -> None:
    """Whoever finds a browser logged in cannot try passwords at will."""
    browser.log_in()
    typed = {"current": "a wrong one", "password": "another good one", "again": "another good one"}
    codes = [browser.submit("/password", **typed).status_code for _ in range(6)]
    assert codes == [403] * 5 + [429]


def test_a_password_is_of_those_who_logged_in(browser: Browser) -> None:
    """On this machine pages can be read without a login; this one leads to it."""
    answer = browser.get("/password")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fpassword")


def test_a_store_that_refuses_is_a_page(site: Site, browser: Browser, tmp_path: Path) -> None:
    """A store without its tables is said on a page with 503."""
    with site.store.database.write() as connection:
        connection.execute(sa.text("drop table login_failures"))
    answer = browser.log_in()
    assert answer.status_code == 503
    assert "has not the tables" in answer.text
