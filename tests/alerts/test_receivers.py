"""Each kind of receiver, against the real thing where there is one; and what all of them have in common."""

import asyncio
import builtins
import email
import email.policy
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from sentinel_core.alerts import receivers
from sentinel_core.alerts.addresses import Addresses
from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.message import test_alert as a_test_alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers import KINDS, MASK
from sentinel_core.alerts.receivers.alertmanager import LASTING_SECONDS
from sentinel_core.config import SentinelConfig
from sentinel_core.errors import (
    ConflictError,
    DeliveryError,
    InvalidError,
    NotFoundError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from sentinel_core.storage.store import Store
from tests.alerts.alertmanager_server import running_alertmanager
from tests.alerts.receiver_server import Answer, ReceiverServer
from tests.alerts.smtp_server import Mailbox, running_smtp

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_760_000_040.0
OPENED = Alert(
    id="dlv_17_6",
    incident_id=3,
    project="default",
    kind="psi",
    subject="fraud <!channel> & co",
    step="opened",
    state="open",
    severity="warn",
    actor="sentinel",
    reason="PSI 0.31",
    at=NOW - 60,
    opened_at=NOW - 60,
    active=True,
    severity_now="warn",
    sent_at=NOW,
    link="https://sentinel.example/incidents/3",
    headline="fraud <!channel> & co: the distribution of scores has moved",
    seriousness="Warning: the true PSI lies between 0.25 and 0.36.",
    why="PSI 0.31 <https://evil.example|click>",
    next="It resolves by itself.",
    assessment={"psi": 0.31},
)


def settings_of(kind: str, url: str) -> dict[str, Any]:
    """Settings of each kind that reach a server over HTTP."""
    return {
        "slack": {"url": f"{url}/T1"},
        "webhook": {"url": f"{url}/hook", "secret": SECRET},
        "alertmanager": {"url": f"{url}/", "labels": {"team": "ml"}, "bearer_token": "secret-token"},
        "apprise": {"url": f"{url.replace('http:', 'json:')}/notify"},
    }[kind]


def send(
    kind: str, settings: Mapping[str, Any], alert: Alert = OPENED, networks: tuple[str, ...] = ("127.0.0.0/8",)
) -> str:
    async def sending() -> str:
        async with Post(Addresses(networks), lambda: NOW) as post:
            return await receivers.build(kind, settings).send(alert, post)

    return asyncio.run(sending())


@pytest.fixture(scope="module", autouse=True)
def loaded_apprise() -> None:
    """Apprise loads its hundred services when it is first used, and old modules of Python's with them."""
    import apprise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        apprise.Apprise.instantiate("json://localhost")


# ---- the family ------------------------------------------------------------------------------------------------------

every_kind = pytest.mark.parametrize("kind", list(KINDS))


@every_kind
def test_it_sends_what_a_person_has_to_know(kind: str, server: ReceiverServer) -> None:
    """What happened, how serious, why, what next, and where to look: in one request."""
    assert send(kind, settings_of(kind, server.url))
    (request,) = server.requests
    said = json.dumps(request.json, ensure_ascii=False).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    for part in (OPENED.headline, OPENED.seriousness, OPENED.why, OPENED.next, OPENED.link):
        assert part in said


@every_kind
def test_it_raises_what_failed(kind: str, server: ReceiverServer) -> None:
    """A refusal is told apart from a failure that passes, where the receiver can."""
    server.answer = lambda request: Answer(503)
    with pytest.raises(TransientDeliveryError, match="503"):
        send(kind, settings_of(kind, server.url))
    server.answer = lambda request: Answer(403)
    with pytest.raises(TransientDeliveryError if kind == "apprise" else PermanentDeliveryError, match="403"):
        send(kind, settings_of(kind, server.url))


@every_kind
def test_it_reaches_no_private_address(kind: str, server: ReceiverServer) -> None:
    """Neither when it sends nor, where that can be known, when it is added."""
    with pytest.raises(PermanentDeliveryError, match="alert_networks"):
        send(kind, settings_of(kind, server.url), networks=())
    assert server.requests == []
    if kind != "apprise":
        with pytest.raises(InvalidError, match=r"settings.url: 127.0.0.1 is no public address.*alert_networks"):
            receivers.checked(kind, settings_of(kind, server.url), SentinelConfig())


@every_kind
def test_its_settings_are_validated(kind: str, config: SentinelConfig, server: ReceiverServer) -> None:
    """Unknown, missing and mistyped fields are named; good ones pass as they are."""
    good = settings_of(kind, server.url)
    assert receivers.checked(kind, good, config) == good
    for bad, problem in (
        ({**good, "ulr": "x"}, "settings.ulr: unknown field; did you mean url?"),
        ({}, "settings.url: is missing"),
        ({**good, "url": 5}, "settings.url: Expected `str`, got `int`"),
        ({**good, "url": "ftp://x.example/"}, "settings.url: is n"),
    ):
        with pytest.raises(InvalidError) as raised:
            receivers.checked(kind, bad, config)
        assert problem in str(raised.value)


@every_kind
def test_its_secrets_are_never_shown(kind: str, config: SentinelConfig, server: ReceiverServer) -> None:
    """They are masked; a mask that comes back means the secret that there was."""
    good = settings_of(kind, server.url)
    shown = receivers.shown(kind, good)
    assert shown.keys() == good.keys()
    masked = [name for name, value in shown.items() if value == MASK]
    assert (
        masked == {"slack": ["url"], "webhook": ["secret"], "alertmanager": ["bearer_token"], "apprise": ["url"]}[kind]
    )
    assert receivers.checked(kind, shown, config, before=good) == good


@every_kind
def test_a_test_alert_is_told_apart(kind: str, server: ReceiverServer) -> None:
    """Nobody takes it for an incident."""
    send(kind, settings_of(kind, server.url), a_test_alert("default", "ops", "https://sentinel.example", NOW))
    assert "test of the receiver ops" in server.requests[0].body.decode()


# ---- Slack -----------------------------------------------------------------------------------------------------------


def test_names_inject_nothing_into_slack(server: ReceiverServer) -> None:
    """Mentions and links in a model's name or a reason are text; the only link is ours."""
    send("slack", settings_of("slack", server.url))
    message = server.requests[0].json
    texts = [block["text"] for block in message["blocks"]]
    marked = "\n".join([message["text"], *(text["text"] for text in texts if text["type"] == "mrkdwn")])
    assert marked.count("<") == 1
    assert "<https://sentinel.example/incidents/3|Open the incident>" in marked
    assert "fraud &lt;!channel&gt; &amp; co" in marked
    assert texts[0] == {
        "type": "plain_text",
        "text": "Warning: fraud <!channel> & co: the distribution of scores has moved",
        "emoji": False,
    }
    assert all(text["verbatim"] for text in texts[1:])


def test_long_texts_fit_into_slack(server: ReceiverServer) -> None:
    """What Slack would refuse for its length is cut."""
    send("slack", settings_of("slack", server.url), replace(OPENED, headline="h" * 5_000, why="w&" * 5_000))
    for block in server.requests[0].json["blocks"]:
        assert len(block["text"]["text"]) <= (150 if block["type"] == "header" else 3_000)


# ---- webhook ---------------------------------------------------------------------------------------------------------


def test_webhooks_are_signed_as_the_standard_says(server: ReceiverServer) -> None:
    """The specification's own verification accepts what arrives, and refuses it altered."""
    from sentinel_core.demo.receiver import genuine

    send("webhook", settings_of("webhook", server.url))
    (request,) = server.requests
    assert request.headers["webhook-id"] == "dlv_17_6"
    assert request.headers["webhook-timestamp"] == "1760000040"
    assert genuine(request.headers, request.body, SECRET, NOW)
    assert not genuine(request.headers, request.body + b" ", SECRET, NOW)
    assert request.json["type"] == "incident.opened"
    assert datetime.fromisoformat(request.json["timestamp"]).timestamp() == NOW - 60
    assert request.json["data"]["incident"]["subject"] == "fraud <!channel> & co"
    assert request.json["data"]["assessment"] == {"psi": 0.31}


@pytest.mark.parametrize("secret", ["x", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_webhook_secrets_are_of_the_standard(secret: str, config: SentinelConfig, server: ReceiverServer) -> None:
    """The prefix, base64, and enough of it."""
    with pytest.raises(InvalidError, match=r'settings.secret: is not "whsec_" and the base64 of 24 to 64 bytes'):
        receivers.checked("webhook", {"url": server.url, "secret": secret}, config)


# ---- Alertmanager ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Alertmanager."""
    with running_alertmanager(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


def firing(url: str, incident: int) -> list[Any]:
    answer = httpx.get(f"{url}/api/v2/alerts", params={"filter": f'incident="{incident}"', "active": "true"})
    return [one for one in answer.json() if one["status"]["state"] != "resolved"]


def test_an_alert_in_alertmanager_lives_as_the_incident_does(alertmanager: str) -> None:
    """It fires under its severity, is the same when sent again, moves with the severity, and ends."""
    settings = {"url": alertmanager, "labels": {"team": "ml"}}
    alert = replace(OPENED, incident_id=11, opened_at=time.time() - 3)
    for _ in range(2):
        send("alertmanager", settings, replace(alert, sent_at=time.time()))
        (one,) = firing(alertmanager, 11)
    assert one["labels"] == {
        "alertname": "ModelDrift",
        "project": "default",
        "model": "fraud <!channel> & co",
        "incident": "11",
        "severity": "warning",
        "team": "ml",
    }
    assert one["generatorURL"] == OPENED.link
    assert one["annotations"]["summary"] == OPENED.headline
    ends = datetime.fromisoformat(one["endsAt"].replace("Z", "+00:00")).timestamp()
    assert ends == pytest.approx(time.time() + LASTING_SECONDS, abs=5)
    send("alertmanager", settings, replace(alert, severity_now="critical", sent_at=time.time()))
    assert [one["labels"]["severity"] for one in firing(alertmanager, 11)] == ["critical"]
    send("alertmanager", settings, replace(alert, severity_now="critical", active=False, sent_at=time.time()))
    assert firing(alertmanager, 11) == []


@pytest.mark.parametrize(("kind", "name"), [("forecast", "ForecastDrift"), ("threshold", "ThresholdForecast")])
def test_alertmanager_hears_which_watch_it_is_about(alertmanager: str, kind: str, name: str) -> None:
    """What is wrong with a watch has the watch's slug as a label, and a name of its own."""
    incident = len(name)
    alert = replace(OPENED, kind=kind, subject="disk-1", incident_id=incident, opened_at=time.time() - 3)
    send("alertmanager", {"url": alertmanager}, replace(alert, sent_at=time.time()))
    (one,) = firing(alertmanager, incident)
    assert (one["labels"]["alertname"], one["labels"]["watch"]) == (name, "disk-1")
    assert "model" not in one["labels"]


def test_alertmanager_takes_the_bearer_token_and_bad_labels_are_refused(
    server: ReceiverServer, config: SentinelConfig
) -> None:
    """The token goes with every request."""
    settings = settings_of("alertmanager", server.url)
    send("alertmanager", settings)
    assert server.requests[0].path == "/api/v2/alerts"
    assert server.requests[0].headers["authorization"] == "Bearer secret-token"
    with pytest.raises(InvalidError, match=r"settings\.labels: 'a-b' is no name of a label"):
        receivers.checked("alertmanager", {**settings, "labels": {"a-b": "x"}}, config)


# ---- Apprise ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server."""
    with running_smtp() as box:
        yield box


def mail_url(box: Mailbox) -> str:
    return f"mailto://127.0.0.1:{box.port}?from=sentinel@example.com&to=ops@example.com&mode=insecure"


def test_mail_arrives(mailbox: Mailbox) -> None:
    """Through a real SMTP conversation: title as subject, the rest as text; a name adds no header."""
    assert send("apprise", {"url": mail_url(mailbox)}, replace(OPENED, headline="m: moved")) == "sent"
    (text,) = mailbox.messages
    mail = email.message_from_string(text, policy=email.policy.default)
    assert mail["subject"] == "Warning: m: moved"
    body = mail.get_body(("plain",))
    assert body is not None
    assert OPENED.link in body.get_content()
    assert OPENED.why in body.get_content()


def test_mail_that_is_refused_says_so(mailbox: Mailbox) -> None:
    """What the server answered is in the error."""
    mailbox.answer = "554 no thanks"
    with pytest.raises(TransientDeliveryError, match="Apprise could not send"):
        send("apprise", {"url": mail_url(mailbox)})


def test_without_apprise_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, config: SentinelConfig) -> None:
    """It is an extra."""
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "apprise":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InvalidError, match=r"pip install 'sentinel\[apprise\]'"):
        receivers.checked("apprise", {"url": "mailto://x"}, config)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_receivers_are_kept_changed_and_removed(store: Store) -> None:
    """By id and by name, each project its own."""
    with store.database.write() as conn:
        first = receivers.add(conn, 1, "ops", "slack", {"url": "a"}, NOW)
        second = receivers.add(conn, 1, "b", "webhook", {"url": "b"}, NOW, min_severity="critical", enabled=False)
        with pytest.raises(ConflictError, match="there is a receiver called 'ops' already"):
            receivers.add(conn, 1, "ops", "slack", {}, NOW)
        with pytest.raises(ConflictError, match="called 'ops'"):
            receivers.change(conn, second, name="ops")
        with pytest.raises(InvalidError, match="name: write 1 to 64 visible characters; min_severity: 'bad' is none"):
            receivers.add(conn, 1, " \n", "slack", {}, NOW, min_severity="bad")
        receivers.change(conn, first, settings={"url": "c"}, min_severity="critical", name="team")
        receivers.change(conn, second, enabled=True)
        assert [
            (one.name, one.settings, one.min_severity, one.enabled) for one in receivers.list_receivers(conn, 1)
        ] == [
            ("b", {"url": "b"}, "critical", True),
            ("team", {"url": "c"}, "critical", True),
        ]
        assert receivers.list_receivers(conn, 2) == []
        assert receivers.named(conn, 1, "team").id == first
        with pytest.raises(NotFoundError, match="no receiver called 'ops'; there are: b, team"):
            receivers.named(conn, 1, "ops")
        with pytest.raises(NotFoundError):
            receivers.get(conn, first, 2)
        assert receivers.remove(conn, first) == 0
        assert [one.id for one in receivers.list_receivers(conn)] == [second]


def test_an_unknown_kind_names_those_there_are(config: SentinelConfig) -> None:
    """So that a typing error is found."""
    with pytest.raises(InvalidError, match="kind: 'slak' is none; there are slack, webhook, alertmanager, apprise"):
        receivers.checked("slak", {}, config)


def test_a_test_says_what_the_receiver_said(
    sqlite_store: Store, server: ReceiverServer, config: SentinelConfig, tmp_path: Path
) -> None:
    """At once, and with its refusal where it refuses."""
    with sqlite_store.database.write() as conn:
        mine = receivers.get(conn, receivers.add(conn, 1, "ops", "slack", settings_of("slack", server.url), NOW))
    assert receivers.test(mine, config, NOW) == "HTTP 200: ok"
    assert "test of the receiver ops" in server.requests[0].json["text"]
    server.answer = lambda request: Answer(404, text="no_service")
    with pytest.raises(DeliveryError, match="answered HTTP 404: no_service"):
        receivers.test(mine, config, NOW)
