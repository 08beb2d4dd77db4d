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
    unit: Literal["mae", "scaled", "auto"]
    series_high: int
    series_scored: int
    retrained_at: float | None  # unix seconds; the training that did not help
    version: int | None


class Reached(msgspec.Struct, frozen=True):
    """A series that may get across a threshold."""

    series: str
    threshold: str  # "above 0.9"
    probability: float  # within the horizon
    seconds: int | None  # median time to it; None: beyond the horizon

    @property
    def percent(self) -> str:
        """The probability as people read it.

        >>> Reached("disk", "above 0.9", 0.924, 60).percent, Reached("disk", "above 0.9", 0.9999, 60).percent
        ('92 %', 'over 99 %')
        """
        return "over 99 %" if self.probability > 0.995 else f"{100 * self.probability:.0f} %"


class ThresholdForecast(_Finding, frozen=True):
    """A watch of which some series are likely to get across a threshold, or are not any more."""

    likeliest: tuple[Reached, ...]  # a few, at least one; of equally likely ones the soonest first
    crossing: int  # series that are at least as likely as `probability`
    series: int
    probability: float  # the watch's threshold_probability
    horizon: str

    @property
    def outlook(self) -> str:
        """What the likeliest series is expected to do: "above 0.9 in 4h, 92 %"."""
        first = self.likeliest[0]
        when = f"within {self.horizon}" if first.seconds is None else f"in {format_duration(first.seconds)}"
        return f"{first.threshold} {when}, {first.percent}"

    @property
    def scale(self) -> str:
        """How many series it is about."""
        verb = "is" if self.crossing == 1 else "are"
        share = f"{100 * self.probability:.3g} %"
        return (
            f"{self.crossing:,} of {self.series:,} series {verb} at {share} or more to get across within {self.horizon}"
        )


def silence(text: str) -> Silence:
    """What `Silence.to_json` has made."""
    return msgspec.json.decode(text, type=Silence)


def forecast_drift(text: str) -> ForecastDrift:
    """What `ForecastDrift.to_json` has made."""
    return msgspec.json.decode(text, type=ForecastDrift)


def threshold_forecast(text: str) -> ThresholdForecast:
    """What `ThresholdForecast.to_json` has made."""
    return msgspec.json.decode(text, type=ThresholdForecast)
