"""Slack, and what understands its incoming webhooks (Mattermost, Rocket.Chat)."""

from typing import Any, ClassVar

import msgspec

from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers.base import Receiver

MAX_HEADER, MAX_SECTION = 150, 3_000  # characters that Slack takes
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # all that has a meaning: links and mentions


class Slack(Receiver, frozen=True):
    """url: of the incoming webhook; whoever knows it may post, so that it is a secret."""

    SECRETS: ClassVar[tuple[str, ...]] = ("url",)

    async def send(self, alert: Alert, post: Post) -> str:
        """See `Receiver`."""
        return await post(self.url, msgspec.json.encode(_body(alert)))


def _body(alert: Alert) -> dict[str, Any]:
    lines = [
        f"*How serious*\n{_escaped(alert.seriousness)}",
        f"*Why*\n{_escaped(alert.why)}",
        f"*What happens next*\n{_escaped(alert.next)}",
        f"<{_escaped(alert.link)}|Open the incident>",
    ]
    header = {"type": "header", "text": {"type": "plain_text", "text": alert.title[:MAX_HEADER], "emoji": False}}
    return {
        "text": _escaped(alert.title),  # of notifications
        "unfurl_links": False,
        "blocks": [header, *(_section(line) for line in lines)],
    }


def _section(text: str) -> dict[str, Any]:
    # verbatim: a model that is called like an address is not made a link
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_SECTION], "verbatim": True}}


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
