"""Any program: JSON with a Standard Webhooks signature (https://www.standardwebhooks.com).

    webhook-id: dlv_17_63f…         the same at every attempt of this alert: whoever has seen it ignores the repetition
    webhook-timestamp: 1760000040   of this attempt, unix seconds
    webhook-signature: v1,K5oZ…     base64 of HMAC-SHA256 over "{id}.{timestamp}.{body}"

    {
      "type": "incident.opened",    or escalated, downgraded, reopened, resolved, accepted, closed; "test"
      "timestamp": "2025-10-09T08:54:00+00:00",         of the transition
      "data": {
        "incident": {"id": 3, "kind": "psi", "subject": "fraud-model", "project": "default", "state": "open",
                     "severity": "warn", "opened_at": "2025-10-09T08:00:00+00:00", "url": "https://…/incidents/3"},
        "transition": {"actor": "sentinel", "reason": "…"},
        "message": {"title": "…", "headline": "…", "seriousness": "…", "why": "…", "next": "…"},
        "assessment": {…}           the values it was decided on
      }
    }

State and severity are those after the transition. An incident's kind is psi, silence or forecast.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers.base import Receiver

PREFIX = "whsec_"
KEY_BYTES = (24, 64)  # least and most, as the specification says


class Webhook(Receiver, frozen=True):
    """secret: "whsec_" and the base64 of 24 to 64 random bytes, which the other side knows too."""

    secret: str

    SECRETS: ClassVar[tuple[str, ...]] = ("secret",)

    def problems(self) -> Mapping[str, str]:
        """See `Receiver`."""
        try:
            good = self.secret.startswith(PREFIX) and KEY_BYTES[0] <= len(key(self.secret)) <= KEY_BYTES[1]
        except (binascii.Error, ValueError):
            good = False
        return {} if good else {"secret": 'is not "whsec_" and the base64 of 24 to 64 bytes'}

    async def send(self, alert: Alert, post: Post) -> str:
        """See `Receiver`."""
        body = msgspec.json.encode(_body(alert))
        return await post(self.url, body, headers(self.secret, alert.id, int(alert.sent_at), body))


def key(secret: str) -> bytes:
    """The bytes that sign."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks.

    >>> headers("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
    ...         b'{"test": 2432232314}')["webhook-signature"]
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key(secret), signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{digest}"}


def _body(alert: Alert) -> dict[str, Any]:
    return {
        "type": "test" if alert.kind == "test" else f"incident.{alert.step}",
        "timestamp": _time(alert.at),
        "data": {
            "incident": {
                "id": alert.incident_id,
                "kind": alert.kind,
                "subject": alert.subject,
                "project": alert.project,
                "state": alert.state,
                "severity": alert.severity,
                "opened_at": _time(alert.opened_at),
                "url": alert.link,
            },
            "transition": {"actor": alert.actor, "reason": alert.reason},
            "message": {
                "title": alert.title,
                "headline": alert.headline,
                "seriousness": alert.seriousness,
                "why": alert.why,
                "next": alert.next,
            },
            "assessment": alert.assessment,
        },
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
