"""Triggers that start workflows: events and cron schedules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, pairwise
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .durations import Duration, format_duration, parse_duration
from .errors import DefinitionError
from .events import check_event_name

_ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_ZONE_ALONE = re.compile(r"(?:CRON_)?TZ=\S*")
_EVERY = "@every "
_EXTENSION = re.compile(r"[#?]|\bLW?\b|\d+[LW]\b|\bW\b", re.IGNORECASE)
_OPEN_FIELD = re.compile(r"\*(/0*1)?")
_SHORTHANDS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
_PERIODS = dict(zip(_SHORTHANDS, map(timedelta, (1 / 24, 1, 7, 28, 365)), strict=True))
_OTHER_SHORTHANDS = {"@midnight": "@daily", "@annually": "@yearly", "@minutely": "@every 1m"}
_INTERVALS = "'@every 30s', '@every 5m', '@every 1h30m' or '@every 7d'"
_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), or SUN to SAT",
}
"""Fields of a schedule in order, by CronSim's names, with their valid values."""

_FIVE = "a schedule has five fields (minute, hour, day of month, month, day of week), such as '0 9 * * MON-FRI'"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SCHEDULE_LENGTH = 255  # Inngest's


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Trigger that starts a workflow on an event; made by :func:`event_trigger`."""

    event: str
    if_exp: str | None = None


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """Trigger that starts a workflow on a schedule; made by :func:`cron_trigger`."""

    schedule: str
    timezone: str | None = None
    jitter: timedelta | None = None

    @property
    def described(self) -> str:
        """Schedule with its time zone, for people: ``0 9 * * * (Europe/Paris)``."""
        return self.schedule if self.schedule.startswith(_EVERY) else f"{self.schedule} ({self.timezone or 'UTC'})"

    @property
    def expressions(self) -> tuple[str, ...]:
        """Cron expressions for Temporal.

        If both the day of the month and the day of the week are restricted, cron and Inngest fire when either one
        matches, while Temporal's calendars require both. Such a schedule becomes two expressions. ``*/2`` counts as a
        restriction, as in Inngest's parser (``dayMatches`` and ``getRange`` of https://github.com/robfig/cron) and
        unlike in Debian's cron.

        Temporal reads ``1-7`` as Monday to Saturday, so days of the week that reach to 7 are listed one by one.
        """
        if self.schedule.startswith(_EVERY):
            return (_EVERY + format_duration(_interval(self.schedule)),)  # Temporal has no unit for weeks
        fields = self.schedule.split()
        if len(fields) != 5:
            return (self.schedule,)
        minute, hour, day, month, _ = fields
        weekday = _weekdays(self.schedule)
        if _is_open(day) or _is_open(weekday):
            return (f"{minute} {hour} {day} {month} {weekday}",)
        return (f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {weekday}")

    @property
    def shortest_period(self) -> timedelta:
        """Shortest time between two due times of the trigger, by the clock of its time zone."""
        return _shortest_period(self.schedule)


Trigger: TypeAlias = EventTrigger | CronTrigger


def event_trigger(name: str, if_exp: str | None = None) -> EventTrigger:
    """Start a workflow on each event with a matching name.

    Args:
        name: The event's name, or a pattern that ends with a wildcard after ``.`` or ``/``: ``order.*``, ``app/*``.
        if_exp: A CEL expression that must be true for the event, such as ``event.data.amount > 100``; a missing
            field is null, as in Inngest.

    Raises:
        DefinitionError: The name or the expression is not valid.
    """
    try:
        check_event_name(name, pattern=True)
    except ValueError as err:
        raise DefinitionError(f"event_trigger: {err}") from None
    if if_exp is not None:
        from .expressions.expression import check_expression

        try:
            check_expression(if_exp, allow_async=False)
        except DefinitionError as err:
            raise DefinitionError(f"if_exp of event_trigger({name!r}): {err}") from None
    return EventTrigger(name, if_exp)


def cron_trigger(schedule: str, timezone: str | None = None, jitter: Duration | None = None) -> CronTrigger:
    """Start a workflow on a schedule, as a Temporal schedule.

    Args:
        schedule: A cron expression with five fields, such as ``0 9 * * MON-FRI``, optionally after a time zone
            (``TZ=Europe/Paris 0 9 * * *``). Also ``@every 5m`` and ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``
            and ``@yearly``, with Temporal's meaning.
        timezone: An IANA time zone, such as ``Europe/Paris``; UTC by default. A time that the clocks skip in spring is
            not due on that day. A time in the hour that they repeat in autumn is due once or twice, depending on the
            zone, and schedules with several times in that hour may miss some: choose other hours, or UTC.
        jitter: The maximum of the random delay of each start.

    Raises:
        DefinitionError: An argument is not valid.
    """
    what = f"cron_trigger({schedule!r})"
    if not isinstance(schedule, str) or len(schedule) > _MAX_SCHEDULE_LENGTH:
        raise DefinitionError(
            f"{what}: a schedule is a string of at most {_MAX_SCHEDULE_LENGTH} characters, such as '0 9 * * MON-FRI'"
        )
    if match := _ZONE_PREFIX.fullmatch(schedule.strip()):
        if timezone is not None and timezone != match[1]:
            raise DefinitionError(f"{what}: the schedule has the time zone {match[1]!r}, but timezone={timezone!r}")
        timezone, schedule = match[1], match[2]
    elif _ZONE_ALONE.fullmatch(schedule.strip()):
        raise DefinitionError(f"{what} has a time zone but no schedule; write {schedule.strip() + ' 0 9 * * *'!r}")
    schedule = " ".join(schedule.split())
    _check_schedule(schedule, what)
    if timezone is not None:
        _check_timezone(timezone, what)
    try:
        spread = None if jitter is None else parse_duration(jitter, what="jitter", minimum=timedelta(milliseconds=1))
    except (ValueError, TypeError) as err:
        raise DefinitionError(f"{what}: {err}") from None
    return CronTrigger(schedule, timezone, spread)


def _check_schedule(schedule: str, what: str) -> None:
    if schedule in _SHORTHANDS:
        return
    if schedule.startswith("@"):
        _check_shorthand(schedule, what)
        return
    fields = schedule.split()
    if schedule.startswith("every "):
        raise DefinitionError(f"{what} starts with 'every'; write {'@' + schedule!r}")
    if len(fields) != 5:
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        seconds = "; remove the seconds, which Temporal's schedules do not support" if len(fields) == 6 else ""
        raise DefinitionError(
            f"{what} has {count}{seconds}; {_FIVE}. Also valid: '@every 5m', {', '.join(_SHORTHANDS)}"
        )
    if extension := _EXTENSION.search(schedule):
        raise DefinitionError(f"{what} contains {extension[0]!r}, which Temporal's schedules do not support; {_FIVE}")
    try:
        CronSim(schedule, _EPOCH)
    except CronSimError as err:
        raise DefinitionError(f"{what}: {_wrong_field(fields, str(err))}") from None


def _check_shorthand(schedule: str, what: str) -> None:
    """Check a schedule that starts with ``@``."""
    if schedule.partition(" ")[0] != _EVERY.strip():
        meant = _OTHER_SHORTHANDS.get(schedule.lower()) or next(
            iter(get_close_matches(schedule.lower(), _SHORTHANDS, n=1)), None
        )
        advice = f"write {meant!r}" if meant else f"write {', '.join(_SHORTHANDS)}, or an interval such as '@every 5m'"
        if schedule.startswith("@every"):  # @every5m
            advice = "write a space after '@every', as in '@every 5m'"
        raise DefinitionError(f"{what}: {schedule!r} is not a valid schedule; {advice}")
    text = schedule.removeprefix(_EVERY.strip()).strip()
    try:
        interval = _interval(schedule)
    except ValueError:
        raise DefinitionError(f"{what}: {_wrong_interval(text)}") from None
    if interval % timedelta(seconds=1):
        raise DefinitionError(f"{what}: the interval is {text!r}; Temporal's schedules take whole seconds")


def _wrong_interval(text: str) -> str:
    """Return the mistake in the interval of ``@every``, and the remedy."""
    if not text:
        return f"the interval is missing; write {_INTERVALS}"
    if text.isdecimal():
        return f"the interval {text!r} has no unit; write '@every {text}m' for minutes or '@every {text}s' for seconds"
    together = "".join(text.split())
    try:
        parse_duration(together, minimum=timedelta(seconds=1))
    except ValueError:
        pass
    else:
        return f"the interval {text!r} contains a space; write '@every {together}'"
    try:
        parse_duration(text)
    except ValueError:
        return f"the interval {text!r} is not valid; write whole numbers with the units w, d, h, m and s: {_INTERVALS}"
    return f"the interval {text!r} is too short; the shortest is '@every 1s'"


def _wrong_field(fields: list[str], error: str) -> str:
    """Return the mistake in a schedule of five fields, from CronSim's error."""
    name = error.removeprefix("Bad ")
    if name not in _FIELDS:
        return f"it is not a valid schedule ({error}); {_FIVE}" if error else f"it is not a valid schedule; {_FIVE}"
    value = fields[list(_FIELDS).index(name)]
    label = name.replace("-", " ")
    if name == "day-of-month" and _is_valid([*fields[:3], "*", fields[4]]):
        return f"month {fields[3]!r} has no day {value!r}, so the schedule is never due; correct one of them"
    return f"the {label} is {value!r}; it takes {_FIELDS[name]}, lists (1,5), ranges (1-5), steps (*/5) and *"


def _is_valid(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), _EPOCH)
    except CronSimError:
        return False
    return True


def _interval(schedule: str) -> timedelta:
    return parse_duration(schedule.removeprefix(_EVERY), what="the interval", minimum=timedelta(seconds=1))


_COMPARED_TIMES = 64
"""Number of due times that are compared: two months of days, or five years of months."""


@lru_cache(maxsize=4096)
def _shortest_period(schedule: str) -> timedelta:
    if schedule.startswith(_EVERY):
        return _interval(schedule)
    if schedule in _PERIODS:
        return _PERIODS[schedule]
    due = list(islice(CronSim(schedule, _EPOCH), _COMPARED_TIMES))
    return min((after - before for before, after in pairwise(due)), default=timedelta(days=1))


def _weekdays(schedule: str) -> str:
    """Return the field for the days of the week, with Sunday as 0 where the field reaches to 7."""
    field = schedule.split()[4]
    days = [day for day in CronSim(schedule, _EPOCH).weekdays if isinstance(day, int)]
    if _is_open(field) or 7 not in days:
        return field
    return ",".join(str(day) for day in sorted({day % 7 for day in days}))


def _is_open(field: str) -> bool:
    return any(_OPEN_FIELD.fullmatch(part) for part in field.split(","))


def _check_timezone(timezone: str, what: str) -> None:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise DefinitionError(
            f"{what}: {timezone!r} is not a known time zone; use an IANA name, such as 'Europe/Paris'"
        ) from None
