"""Numbers, times and states as people read them: filters of the templates."""

import math
import re
from datetime import UTC, datetime

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup


def plural(count: int, one: str, many: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "watch", "watches"), plural(1000, "watch", "watches")
    ('1 watch', '1,000 watches')
    """
    return f"{count:,} {one if count == 1 else many}"


def age(seconds: float) -> str:
    """How long ago, in one unit.

    >>> [age(seconds) for seconds in (0.4, 12, 200, 7300, 400000)]
    ['0 s', '12 s', '3 min', '2 h', '4 d']
    """
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 60 and seconds >= 90):
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 1:.0f} s"


def error_unit(unit: str) -> str:
    """What a rolling error counts, behind its number, by drift_unit."""
    return {"mae": "", "scaled": " × trained", "auto": " deviations above usual"}[unit]


def breakable(name: str) -> Markup:
    """A class's name that breaks between its words where it does not fit.

    >>> breakable("ARIMAModel<"), breakable("SeasonalRidgeModel")
    (Markup('ARIMA<wbr>Model&lt;'), Markup('Seasonal<wbr>Ridge<wbr>Model'))
    """
    return Markup("<wbr>").join(re.split("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=_)", name))


def psi(value: float | None) -> str:
    """A PSI, to the digit that anybody acts on.

    >>> psi(0.3149), psi(0.004), psi(0.0), psi(None)
    ('0.31', '0.004', '0', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.01:
        return f"{value:.1g}" if abs(value) >= 0.0005 else "0"
    return f"{value:.2f}" if value else "0"


def share(value: float) -> str:
    """A share of one in percent.

    >>> share(0.1234), share(0.0004), share(0.0), share(1.0)
    ('12.3%', '<0.1%', '0%', '100%')
    """
    if 0 < value < 0.001:
        return "<0.1%"
    return f"{100 * value:.1f}%" if 0 < value < 0.9995 else f"{100 * value:.0f}%"


def count(value: float) -> str:
    """A count in few digits.

    >>> count(30_240), count(241_920), count(12_345_678)
    ('30,240', '242k', '12.3M')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 1e5 and value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:,.0f}"


def whole(value: float) -> str:
    """A count with its thousands apart.

    >>> whole(12345.0)
    '12,345'
    """
    return f"{value:,.0f}"


def moment(time: float) -> str:
    """A time in UTC, to the minute.

    >>> moment(1_800_000_000)
    '15 Jan 2027, 08:00'
    """
    at = datetime.fromtimestamp(time, UTC)
    return f"{at.day} {at:%b %Y, %H:%M}"


def iso(time: float) -> str:
    """A time as HTML and JavaScript read it.

    >>> iso(1_800_000_000)
    '2027-01-15T08:00:00Z'
    """
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_moment(text: str) -> int | None:
    """Unix seconds of what a datetime-local field holds, in UTC; None where it is no time.

    >>> parse_moment("2027-01-15T08:00"), parse_moment("soon")
    (1800000000, None)
    """
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def field_moment(time: float) -> str:
    """What a datetime-local field holds.

    >>> field_moment(1_800_000_000)
    '2027-01-15T08:00'
    """
    return iso(time)[:16]


def absolute(time: float) -> Markup:
    """A time as an element, in UTC."""
    return Markup('<time datetime="{}">{} UTC</time>').format(iso(time), moment(time))


@pass_context
def ago(context: Context, time: float | None) -> Markup:
    """How long ago, as an element that holds the time itself; "never" for None."""
    if time is None:
        return Markup("never")
    text = f"{age(context['now'] - time)} ago"
    return Markup('<time datetime="{}" title="{} UTC" data-ago>{}</time>').format(iso(time), moment(time), text)
