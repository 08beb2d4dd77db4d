"""What an incident's assessment holds where it is not a model's PSI: that is `monitoring.assessment.Assessment`."""

from typing import Literal

import msgspec

from sentinel_core.durations import format_duration


class _Finding(msgspec.Struct, frozen=True):
    def to_json(self) -> str:
        """JSON, to be stored."""
        return msgspec.json.encode(self).decode()


class Silence(_Finding, frozen=True):
    """A model that sends nothing, or does so again.

    expected: events of the baseline in the same hours
    hour_seconds: of an hour: a `monitor_step`
    """

    silent: bool
    last_event_at: int | None  # unix seconds
    hours: int  # of the window that is empty
    expected: float
    hour_seconds: int = 3_600

    @property
    def window(self) -> str:
        """How long the window is, on the clock."""
        return format_duration(self.hours * self.hour_seconds)


class ForecastDrift(_Finding, frozen=True):
    """A watch whose forecasts are far off although its model was trained anew."""

    severity: Literal["none", "low", "high"]
    mae: float | None  # of the worst series, in the watch's drift_unit
    threshold: float  # from which it is high
    unit: Literal["mae", "scaled"]
    series_high: int
    series_scored: int
    retrained_at: float | None  # unix seconds; the training that did not help
    version: int | None


def silence(text: str) -> Silence:
    """What `Silence.to_json` has made."""
    return msgspec.json.decode(text, type=Silence)


def forecast_drift(text: str) -> ForecastDrift:
    """What `ForecastDrift.to_json` has made."""
    return msgspec.json.decode(text, type=ForecastDrift)
