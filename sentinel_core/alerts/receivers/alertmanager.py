"""Prometheus' Alertmanager, API v2: it tells alerts apart by their labels, and forgets those it does not hear of again.

What is sent is what the incident is now, not what it was at some transition: an alert with the present severity that
ends some minutes ahead, and the one with the other severity ended. So a message may be doubled, and an incident whose
Sentinel has died fades by itself.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from sentinel_core.alerts.message import Alert
from sentinel_core.alerts.posting import Post
from sentinel_core.alerts.receivers.base import Receiver
from sentinel_core.incidents.lifecycle import OF_WATCHES

REPEAT_SECONDS = 300.0
LASTING_SECONDS = 4 * REPEAT_SECONDS  # as Prometheus does: three repetitions may be lost
TEST_SECONDS = 60.0
ENDED_SECONDS = 60.0  # so long ago: where its clock is behind ours, "now" would be a minute of another alert
_NAMES = {
    "psi": "ModelDrift",
    "silence": "ModelSilent",
    "forecast": "ForecastDrift",
    "threshold": "ThresholdForecast",
    "test": "SentinelTest",
}
_SEVERITIES = {"warn": "warning", "critical": "critical"}  # as alerts of Prometheus are labelled


class Alertmanager(Receiver, frozen=True):
    """url: its base, to which /api/v2/alerts is added; labels: added to each alert, for its routes."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    bearer_token: str | None = None

    SECRETS: ClassVar[tuple[str, ...]] = ("bearer_token",)
    REPEAT_SECONDS: ClassVar[float | None] = REPEAT_SECONDS

    def problems(self) -> Mapping[str, str]:
        """See `Receiver`."""
        wrong = [name for name in self.labels if not (name.isascii() and name.isidentifier())]
        return {"labels": f"{wrong[0]!r} is no name of a label"} if wrong else {}

    async def send(self, alert: Alert, post: Post) -> str:
        """See `Receiver`."""
        authorization = {} if self.bearer_token is None else {"authorization": f"Bearer {self.bearer_token}"}
        body = msgspec.json.encode([self._alert(alert, severity) for severity in _SEVERITIES])
        return await post(f"{self.url.rstrip('/')}/api/v2/alerts", body, authorization)

    def _alert(self, alert: Alert, severity: str) -> dict[str, Any]:
        lasts = TEST_SECONDS if alert.kind == "test" else LASTING_SECONDS
        fires = alert.active and severity == alert.severity_now
        ends = alert.sent_at + (lasts if fires else -ENDED_SECONDS)
        return {
            "labels": {
                **self.labels,
                "alertname": _NAMES[alert.kind],
                "project": alert.project,
                "watch" if alert.kind in OF_WATCHES else "model": alert.subject,
                "incident": str(alert.incident_id),
                "severity": _SEVERITIES[severity],
            },
            "annotations": {
                "summary": alert.headline,
                "description": f"{alert.seriousness} {alert.why} {alert.next}",
            },
            "generatorURL": alert.link,
            "startsAt": _time(min(alert.opened_at, alert.sent_at, ends)),
            "endsAt": _time(ends),
        }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
