"""Durations and deadlines, as users write them.

A duration is a ``timedelta``, an ``int`` of milliseconds (as in Inngest and StepKit), or a string such as ``"90s"``,
``"1h30m"``, ``"7d"``. A deadline is an aware ``datetime``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Duration: TypeAlias = timedelta | int | str

MAX_DURATION = timedelta(days=366 * 100)

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_TEXT = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_ACCEPTED = 'it takes a timedelta, an int of milliseconds, or a string such as "90s", "1h30m", "7d", "250ms"'


def parse_duration(value: object, *, what: str = "duration", minimum: timedelta = timedelta(0)) -> timedelta:
    """Return a duration as a ``timedelta``.

    Args:
        value: A ``timedelta``, an ``int`` of milliseconds, or a string of numbers with units ``w d h m s ms``, the
            largest first.
        what: The name of the value in messages.
        minimum: The shortest duration that is accepted.

    Raises:
        TypeError: The value has another type, such as a float or a bool.
        ValueError: The value is negative, shorter than ``minimum``, longer than a century, or not a valid string.
    """
    if isinstance(value, datetime):
        kind = "a naive datetime" if value.tzinfo is None else "a datetime"
        raise TypeError(f"{what} is {value!r}, {kind}; {_ACCEPTED}. For a time, use sleep_until and an aware datetime")
    if isinstance(value, bool) or not isinstance(value, timedelta | int | str):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}); {_ACCEPTED}")
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, int):
        limit = MAX_DURATION // timedelta(milliseconds=1)
        duration = timedelta(milliseconds=max(min(value, limit + 1), -1))
    else:
        duration = _parse_text(value, what)
    if duration < timedelta(0):
        raise ValueError(f"{what} is {value!r}, which is negative; {_ACCEPTED}")
    if duration < minimum:
        raise ValueError(f"{what} is {value!r}; the minimum is {format_duration(minimum)}")
    if duration > MAX_DURATION:
        raise ValueError(f"{what} is {value!r}; the maximum is a century")
    return duration


def _parse_text(text: str, what: str) -> timedelta:
    match = _TEXT.fullmatch(text)
    if match is None or not text:
        hint = ' (write "1h30m" for an hour and a half)' if "." in text or "," in text else ""
        if text.isdecimal():
            hint = ", which has no unit"
        raise ValueError(f"{what} is {text!r}{hint}; {_ACCEPTED}")
    if any(len(number) > 15 for number in match.groups(default="")):
        raise ValueError(f"{what} is {text!r}; the maximum is a century")
    try:
        return sum(
            (int(number) * unit for number, unit in zip(match.groups("0"), _UNITS.values(), strict=True)), timedelta(0)
        )
    except OverflowError:
        raise ValueError(f"{what} is {text!r}; the maximum is a century") from None


def parse_deadline(value: object, *, what: str = "deadline") -> datetime:
    """Return an aware ``datetime`` in UTC.

    Raises:
        TypeError: The value is not a ``datetime``.
        ValueError: The value is naive, so its time zone is unknown, or UTC has no such year.
    """
    if not isinstance(value, datetime):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}); it takes an aware datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(
            f"{what} is {value!r}, which is naive; give it a time zone: value.replace(tzinfo=timezone.utc)"
        )
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{what} is {value!r}, which in UTC is outside the years 1 to 9999") from None


def delay_of(value: Duration | datetime, *, now: datetime) -> timedelta:
    """Return the time from ``now`` until a deadline, or a duration as a ``timedelta``; never negative."""
    if isinstance(value, datetime):
        return max(parse_deadline(value) - now, timedelta(0))
    return parse_duration(value)


def check_delay(value: object, *, what: str) -> None:
    """Check a duration or an aware ``datetime``.

    Raises:
        TypeError: The value has another type.
        ValueError: The value is out of range, naive, or not a valid string.
    """
    if isinstance(value, datetime):
        parse_deadline(value, what=what)
    elif isinstance(value, timedelta | int | str) and not isinstance(value, bool):
        parse_duration(value, what=what)
    else:
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}); {_ACCEPTED}, or an aware datetime")


def format_duration(duration: timedelta) -> str:
    """Return a duration as :func:`parse_duration` reads it: ``1h30m``, ``250ms``, ``7d``; cut to milliseconds."""
    remaining = duration // timedelta(milliseconds=1) * timedelta(milliseconds=1)
    parts = []
    for name, unit in _UNITS.items():
        if name == "w":
            continue  # people read 14d more easily than 2w
        count, remaining = divmod(remaining, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"
