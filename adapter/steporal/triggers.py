"""What starts a workflow besides being started directly: events, and the clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .durations import Duration, format_duration, parse_duration
from .errors import DefinitionError
from .events import check_event_name

_ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_EVERY = "@every "
_EXTENSION = re.compile(r"[#?]|\bLW?\b|\d+[LW]\b|\bW\b", re.IGNORECASE)
_OPEN_FIELD = re.compile(r"\*(/0*1)?")
_SHORTHANDS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SCHEDULE_LENGTH = 255  # Inngest's


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts a workflow on an event; made by :func:`event_trigger`."""

    event: str
    if_exp: str | None = None


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """Starts a workflow by the clock; made by :func:`cron_trigger`."""

    schedule: str
    timezone: str | None = None
    jitter: timedelta | None = None

    @property
    def described(self) -> str:
        """The schedule with its time zone, for people: ``0 9 * * * (Europe/Paris)``."""
        return self.schedule if self.schedule.startswith(_EVERY) else f"{self.schedule} ({self.timezone or 'UTC'})"

    @property
    def expressions(self) -> tuple[str, ...]:
        """The cron expressions to give to Temporal.

        Where both the day of the month and the day of the week are restricted, cron and Inngest fire when either
        matches; Temporal's calendars take both, so there the schedule is given as two. ``*/2`` restricts a field, as
        in Inngest's parser (``dayMatches`` and ``getRange`` of https://github.com/robfig/cron) and unlike in
        Debian's cron.

        Temporal reads ``1-7`` as Monday to Saturday, so that days of the week that reach to 7 are given one by one.
        """
        if self.schedule.startswith(_EVERY):
            return (_EVERY + format_duration(_interval(self.schedule)),)  # Temporal knows no weeks
        fields = self.schedule.split()
        if len(fields) != 5:
            return (self.schedule,)
        minute, hour, day, month, _ = fields
        weekday = _weekdays(self.schedule)
        if _is_open(day) or _is_open(weekday):
            return (f"{minute} {hour} {day} {month} {weekday}",)
        return (f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {weekday}")


Trigger: TypeAlias = EventTrigger | CronTrigger


def event_trigger(name: str, if_exp: str | None = None) -> EventTrigger:
    """Start a workflow on each event of a name.

    Args:
        name: The event's name, or a pattern with a wildcard at its end, after ``.`` or ``/``: ``order.*``, ``app/*``.
        if_exp: An expression in CEL that must be true of the event, such as ``event.data.amount > 100``; a missing
            field is null, as in Inngest.

    Raises:
        DefinitionError: The name or the expression cannot be right.
    """
    try:
        check_event_name(name, pattern=True)
    except ValueError as err:
        raise DefinitionError(f"event_trigger: {err}") from None
    if if_exp is not None:
        from .routing.expressions import check_expression

        try:
            check_expression(if_exp, allow_async=False)
        except DefinitionError as err:
            raise DefinitionError(f"if_exp of event_trigger({name!r}): {err}") from None
    return EventTrigger(name, if_exp)


def cron_trigger(schedule: str, timezone: str | None = None, jitter: Duration | None = None) -> CronTrigger:
    """Start a workflow by the clock, as a Temporal schedule.

    Args:
        schedule: Cron with five fields, such as ``0 9 * * MON-FRI``; a time zone may stand before it
            (``TZ=Europe/Paris 0 9 * * *``). Also ``@every 5m`` and ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``,
            ``@yearly``, as Temporal has them.
        timezone: A time zone of the IANA database, such as ``Europe/Paris``; UTC by default. A time that the clocks
            skip in spring is not due on that day. A time in the hour that they repeat in autumn is due once or twice,
            by zone, and schedules with several times in that hour may miss some: choose other hours, or UTC.
        jitter: Each start is delayed by a random time of up to this.

    Raises:
        DefinitionError: One of them cannot be right.
    """
    what = f"cron_trigger({schedule!r})"
    if not isinstance(schedule, str) or len(schedule) > _MAX_SCHEDULE_LENGTH:
        raise DefinitionError(f"{what}: a schedule is a string such as '0 9 * * MON-FRI'")
    if match := _ZONE_PREFIX.fullmatch(schedule.strip()):
        if timezone is not None and timezone != match[1]:
            raise DefinitionError(f"{what}: the schedule names the time zone {match[1]!r}, and timezone={timezone!r}")
        timezone, schedule = match[1], match[2]
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
    if schedule.startswith(_EVERY):
        try:
            interval = _interval(schedule)
        except ValueError as err:
            raise DefinitionError(f"{what}: {err}") from None
        if interval % timedelta(seconds=1):
            raise DefinitionError(f"{what}: Temporal's schedules take whole seconds")
        return
    fields = schedule.split()
    accepted = "it takes minute, hour, day of month, month and day of week, such as '0 9 * * MON-FRI'"
    if len(fields) != 5:
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        raise DefinitionError(f"{what} has {count}; {accepted}, or '@every 5m', {', '.join(_SHORTHANDS)}")
    if extension := _EXTENSION.search(schedule):
        raise DefinitionError(f"{what} has {extension[0]!r}, which Temporal's schedules do not know; {accepted}")
    try:
        CronSim(schedule, _EPOCH)
    except CronSimError as err:
        raise DefinitionError(f"{what}: {str(err) or 'no such schedule'}; {accepted}") from None


def _interval(schedule: str) -> timedelta:
    return parse_duration(schedule.removeprefix(_EVERY), what="the interval", minimum=timedelta(seconds=1))


def _weekdays(schedule: str) -> str:
    """The field for the days of the week; with Sunday as 0 where it reaches to 7."""
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
            f"{what}: there is no time zone {timezone!r}; it takes a name of the IANA database, such as 'Europe/Paris'"
        ) from None
