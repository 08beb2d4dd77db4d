"""What alerts say, in words."""

import msgspec
import pytest

from sentinel_core.alerts import message
from sentinel_core.incidents.findings import ForecastDrift, Reached, Silence, ThresholdForecast
from tests.incidents.situations import assessment

SILENT = Silence(silent=True, last_event_at=1_760_000_040, hours=24, expected=1_234.4).to_json()
FAR_OFF = ForecastDrift(
    severity="high", mae=4.21, threshold=3.0, unit="scaled", series_high=2, series_scored=9, retrained_at=0.0, version=3
)
FULL = ThresholdForecast(
    likeliest=(
        Reached('disk{instance="web-3"}', "above 0.95", 0.921, 14_400),
        Reached("disk", "above 0.95", 0.9, None),
    ),
    crossing=1,
    series=3,
    probability=0.9,
    horizon="6h",
)


@pytest.mark.parametrize(
    ("kind", "found", "sentence"),
    [
        ("psi", assessment(), "the distribution of scores has moved: PSI 0.31, normal up to 0.04"),
        ("psi", assessment("ok", 0.02), "the distribution of scores is near its baseline: PSI 0.02, normal up to 0.04"),
        ("silence", SILENT, "has sent no events since 2025-10-09 08:54 UTC, where it usually sends 1,234 in 1d"),
        (
            "silence",
            Silence(silent=False, last_event_at=1, hours=24, expected=9.0).to_json(),
            "sends events again",
        ),
        (
            "forecast",
            FAR_OFF.to_json(),
            "its forecasts are far off, although its model was trained anew: the error is 4.21 times that of training, "
            "high from 3",
        ),
        (
            "forecast",
            msgspec.structs.replace(FAR_OFF, unit="auto", threshold=4.0).to_json(),
            "its forecasts are far off, although its model was trained anew: the error is 4.21 deviations above its "
            "usual one, high from 4",
        ),
        ("threshold", FULL.to_json(), 'above 0.95 in 4h, 92 %: disk{instance="web-3"}'),
    ],
)
def test_the_headline_says_what_is_found(kind: str, found: str, sentence: str) -> None:
    """One sentence, behind the name."""
    assert message.headline(kind, "fraud-model", found) == f"fraud-model: {sentence}"


def test_how_serious_it_is_has_its_numbers() -> None:
    """The interval and the counts, or what the kind knows."""
    assert message.seriousness("psi", "critical", assessment()) == (
        "Critical: the true PSI lies between 0.25 and 0.36 (95 %), measured on 480 events against 2,016."
    )
    assert message.seriousness("silence", "warn", SILENT).startswith("Warning: nothing can be said about the model")
    assert message.seriousness("forecast", "warn", FAR_OFF.to_json()) == "Warning: 2 of 9 series have high drift."
    assert message.seriousness("threshold", "warn", FULL.to_json()) == (
        "Warning: 1 of 3 series is at 90 % or more to get across within 6h."
    )


def test_why_names_the_bins_that_moved_most() -> None:
    """Behind the reason of the transition."""
    assert message.why("psi", "PSI 0.31", assessment()) == (
        "PSI 0.31. Most of it: [0.8, 0.9) 10.0% -> 25.0%; missing 0.0% -> 2.0%; <&> 10.0% -> 10.0%"
    )
    assert message.why("silence", "no events", SILENT) == "no events"


def test_what_happens_next_depends_on_the_state() -> None:
    """Whether somebody has to do something, and what happens by itself."""
    assert "resolves by itself after 3 calm evaluations" in message.what_next("psi", "open")
    assert "accept it as the new normal" in message.what_next("psi", "open")
    assert "new normal" not in message.what_next("silence", "open")
    assert message.what_next("psi", "acknowledged", "ann").startswith("Acknowledged by ann: it still escalates")
    assert "reopens if this comes back within 1d" in message.what_next("psi", "resolved")
    assert "comes back within 24m" in message.what_next("psi", "resolved", hour_seconds=60)
    quick = Silence(silent=True, last_event_at=1, hours=24, expected=9.0, hour_seconds=60).to_json()
    assert message.headline("silence", "fraud-model", quick).endswith("usually sends 9 in 24m")


def test_names_cannot_break_out_of_their_line() -> None:
    """Line breaks, control characters and reversed text become spaces; what is too long is cut."""
    assert message.headline("silence", "a\r\nb\x00\x1b[31m\u202ec", SILENT).startswith("a b [31m c: has sent")
    assert len(message.clean("x" * 10_000)) == message.MAX_NAME
