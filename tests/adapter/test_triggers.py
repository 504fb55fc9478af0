"""Triggers: what is accepted, and what Temporal is given."""

from __future__ import annotations

import dataclasses
import re
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import temporalio.client
from cronsim import CronSim
from temporalio.client import Schedule, ScheduleActionStartWorkflow, ScheduleSpec

from steporal import CronTrigger, DefinitionError, EventTrigger, cron_trigger, event_trigger
from steporal.routing.catalog.schedules import CronStart

pytestmark = pytest.mark.outside_runs

SCHEDULES = [
    "* * * * *",
    "0 9 * * *",
    "00 09 * * *",
    "*/15 * * * *",
    "5/15 * * * *",
    "0 9-17/2 * * *",
    "0 9 1,15 * *",
    "0 9 * * MON-FRI",
    "0 9 * * WED",
    "0 9 * * mon,Wed,SUN",
    "0 0 * * 7",
    "0 0 * * 5-7",
    "0 0 * JUL *",
    "0 0 29 2 *",
    "0 0 13 * FRI",
    "0 0 */2 * MON",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "@every 5s",
    "@every 1h30m",
    "@every 1d",
    "@every 2w",
]


# --- events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["order.placed", "order.*", "app/*", "app/user.*", "😀"])
def test_an_event_trigger_has_a_name_or_a_pattern(name: str) -> None:
    assert event_trigger(name) == EventTrigger(name)


@pytest.mark.parametrize("name", ["", " a", "*", "a*", "a.*.b", "inngest/x", "steporal/*", None, 3, "\ud800"])
def test_a_name_that_cannot_be_is_named(name: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"^event_trigger: name is {re.escape(repr(name))}"):
        event_trigger(name)


def test_an_expression_is_kept_as_written() -> None:
    assert event_trigger("order.placed", if_exp="event.data.amount > 100").if_exp == "event.data.amount > 100"


@pytest.mark.parametrize("expression", ["event.data.", "1 +", "", "async.data.id == event.data.id"])
def test_an_expression_that_cannot_be_names_the_event(expression: str) -> None:
    with pytest.raises(DefinitionError, match=r"^if_exp of event_trigger\('order\.placed'\): "):
        event_trigger("order.placed", if_exp=expression)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (
            "event.dta.amount > 100",
            "uses 'event.dta' (did you mean 'data'?); the fields of an event are name, data, id, ts, v",
        ),
        ('event["dta"].amount > 100', "uses 'event.dta' (did you mean 'data'?)"),
        ("has(event.dat) && event.name == 'a'", "uses 'event.dat' (did you mean 'data'?)"),
        ("event.data.items.exists(i, i == event.nam)", "uses 'event.nam' (did you mean 'name'?)"),
        ("event.zzz == 1", "uses 'event.zzz'; the fields of an event are"),
    ],
)
def test_a_field_that_no_event_has_is_named(expression: str, says: str) -> None:
    with pytest.raises(DefinitionError, match=r"^if_exp of event_trigger\('order\.placed'\): ") as refused:
        event_trigger("order.placed", if_exp=expression)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "expression",
    ["event.data.dta == 1", "[event].exists(event, event.dta == 1)", "event[event.data.field] == 1", "event.v == '2'"],
)
def test_other_fields_are_not_looked_at(expression: str) -> None:
    assert event_trigger("order.placed", if_exp=expression).if_exp == expression


# --- the clock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_is_kept_as_written(schedule: str) -> None:
    assert cron_trigger(schedule) == CronTrigger(schedule)


async def test_temporal_takes_every_schedule_that_is_accepted(temporal: temporalio.client.Client) -> None:
    for schedule in SCHEDULES:
        handle = await temporal.create_schedule(
            f"test_triggers {schedule}",
            Schedule(
                action=ScheduleActionStartWorkflow("none", id="none", task_queue="none"),
                spec=ScheduleSpec(cron_expressions=list(cron_trigger(schedule).expressions)),
            ),
        )
        try:
            assert (await handle.describe()).info.next_action_times, schedule
        finally:
            await handle.delete()


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("", "has 0 fields; a schedule has five fields (minute, hour"),
        ("* * * *", "has 4 fields"),
        ("0 0 9 * * *", "has 6 fields; remove the seconds"),
        ("60 * * * *", "the minute is '60'; it takes 0 to 59"),
        ("0 24 * * *", "the hour is '24'; it takes 0 to 23"),
        ("0 22-2 * * *", "the hour is '22-2'"),
        ("0 0 0 * *", "the day of month is '0'; it takes 1 to 31"),
        ("0 0 31 2 *", "month '2' has no day '31', so the schedule is never due"),
        ("0 0 * 13 *", "the month is '13'; it takes 1 to 12, or JAN to DEC"),
        ("0 0 * * FOO", "the day of week is 'FOO'; it takes 0 to 7 (0 and 7 are Sunday), or SUN to SAT"),
        ("*/0 * * * *", "the minute is '*/0'"),
        ("0 0 L * *", "contains 'L', which Temporal's schedules do not support"),
        ("0 0 l * *", "contains 'l', which"),
        ("0 0 1,L * *", "contains 'L', which"),
        ("0 0 LW * *", "contains 'LW', which"),
        ("0 0 W * *", "contains 'W', which"),
        ("0 0 15W * *", "contains '15W', which"),
        ("0 0 * * 5L", "contains '5L', which"),
        ("0 0 * * 5l", "contains '5l', which"),
        ("0 0 * * FRI#2", "contains '#', which"),
        ("0 0 ? * *", "contains '?', which"),
        ("@never", "'@never' is not a valid schedule; write @hourly, @daily"),
        ("@Daily", "write '@daily'"),
        ("@annually", "write '@yearly'"),
        ("@minutely", "write '@every 1m'"),
        ("@every", "the interval is missing; write '@every 30s'"),
        ("@every5m", "write a space after '@every'"),
        ("every 5m", "write '@every 5m'"),
        ("@every 5", "the interval '5' has no unit; write '@every 5m' for minutes or '@every 5s' for seconds"),
        ("@every 5 m", "contains a space; write '@every 5m'"),
        ("@every soon", "the interval 'soon' is not valid; write whole numbers with the units w, d, h, m and s"),
        ("@every 1.5h", "the interval '1.5h' is not valid; write whole numbers"),
        ("@every 250ms", "the interval '250ms' is too short; the shortest is '@every 1s'"),
        ("@every 1s500ms", "Temporal's schedules take whole seconds"),
        ("TZ=Europe/Paris", "has a time zone but no schedule; write 'TZ=Europe/Paris 0 9 * * *'"),
        ("x" * 256, "a schedule is a string of at most 255 characters"),
        (None, "a schedule is a string of at most"),
        (5, "a schedule is a string of at most"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(schedule: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        cron_trigger(schedule)
    assert str(refused.value).startswith(f"cron_trigger({schedule!r})")
    assert says in str(refused.value)


@pytest.mark.parametrize("written", ["TZ=Europe/Paris 0 9 * * *", "CRON_TZ=Europe/Paris   0  9 * * *\n"])
@pytest.mark.parametrize("timezone", [None, "Europe/Paris"])
def test_a_time_zone_before_the_schedule_is_its_time_zone(written: str, timezone: str | None) -> None:
    assert cron_trigger(written, timezone=timezone) == CronTrigger("0 9 * * *", timezone="Europe/Paris")


def test_two_time_zones_are_a_conflict() -> None:
    with pytest.raises(DefinitionError, match="'Europe/Paris', but timezone='Asia/Tokyo'"):
        cron_trigger("TZ=Europe/Paris 0 9 * * *", timezone="Asia/Tokyo")


@pytest.mark.parametrize("timezone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "a\0b", 5, b"UTC"])
def test_a_time_zone_that_is_none_is_named(timezone: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"{re.escape(repr(timezone))} is not a known time zone"):
        cron_trigger("0 9 * * *", timezone=timezone)


@pytest.mark.parametrize("jitter", ["5m", 300_000, timedelta(minutes=5)])
def test_jitter_is_a_duration(jitter: Any) -> None:
    assert cron_trigger("@daily", jitter=jitter).jitter == timedelta(minutes=5)


@pytest.mark.parametrize("jitter", [0, -1, "0s", 1.5, True, "soon"])
def test_jitter_that_is_none_is_named(jitter: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"^cron_trigger\('@daily'\): jitter is {re.escape(repr(jitter))}"):
        cron_trigger("@daily", jitter=jitter)


@pytest.mark.parametrize(
    "schedule",
    ["0 9 * * *", "0 9 1 * *", "0 9 * * MON", "0 9 */1 * MON", "0 9 1 * */1", "0 9 1,* * MON", "0 9 */2 * *", "@daily"],
)
def test_a_schedule_with_one_kind_of_day_is_one_expression(schedule: str) -> None:
    assert cron_trigger(schedule).expressions == (schedule,)


@pytest.mark.parametrize(
    ("schedule", "expressions"),
    [
        ("0 9 13 * FRI", ("0 9 13 * *", "0 9 * * FRI")),
        ("*/5 9-17 1,15 JAN-MAR MON-FRI", ("*/5 9-17 1,15 JAN-MAR *", "*/5 9-17 * JAN-MAR MON-FRI")),
        ("0 9 */2 * MON", ("0 9 */2 * *", "0 9 * * MON")),
        ("0 9 1 * */2", ("0 9 1 * *", "0 9 * * */2")),
    ],
)
def test_either_kind_of_day_fires_where_both_are_restricted(schedule: str, expressions: tuple[str, ...]) -> None:
    assert cron_trigger(schedule).expressions == expressions


@pytest.mark.parametrize(
    ("weekdays", "given"),
    [
        ("7", "0"),
        ("1-7", "0,1,2,3,4,5,6"),
        ("5-7", "0,5,6"),
        ("1-7/3", "0,1,4"),
        ("1/2", "0,1,3,5"),
        ("6,7", "0,6"),
    ],
)
def test_sunday_is_0_where_the_days_of_the_week_reach_to_7(weekdays: str, given: str) -> None:
    assert cron_trigger(f"0 9 * * {weekdays}").expressions == (f"0 9 * * {given}",)


async def due(temporal: temporalio.client.Client, trigger: CronTrigger) -> list[datetime]:
    """The next times at which Temporal starts a run."""
    handle = await temporal.create_schedule(
        f"test_triggers {uuid4()}", CronStart("app", "none", "none", trigger).schedule(indexed=False)
    )
    try:
        return list((await handle.describe()).info.next_action_times)
    finally:
        await handle.delete()


@pytest.mark.parametrize(
    "weekdays", ["1-7", "0-7", "5-7", "7", "6,7", "1-7/2", "*/2", "MON-FRI", "SUN-WED", "1/1", "1/2", "7-7", "MON-7"]
)
async def test_temporal_starts_on_the_days_of_the_week_that_cron_has(
    temporal: temporalio.client.Client, weekdays: str
) -> None:
    schedule = f"0 9 * * {weekdays}"
    times = await due(temporal, cron_trigger(schedule))
    cron = CronSim(schedule, times[0] - timedelta(seconds=1))
    assert times == [next(cron) for _ in times]


def change_of_clocks(month: int, *, last: bool) -> date:
    """The next Sunday on which clocks change: the last, or the first, of a month."""
    today = date.today()
    for year in (today.year, today.year + 1):
        days = (date(year, month, 1) + timedelta(days=number) for number in range(31))
        sundays = [day for day in days if day.isoweekday() == 7 and day.month == month]
        if (found := sundays[-1 if last else 0]) > today:
            return found
    raise AssertionError("next year has one")


@pytest.mark.parametrize(
    ("timezone", "month", "last", "times"),
    [
        # Clocks go from 02:00 to 03:00: what is due between them is not due on that day.
        ("Europe/Paris", 3, True, "01:00+01 01:30+01 03:00+02 03:30+02"),
        # Clocks go from 03:00 to 02:00: 02:00 and 02:30 are due once, and nothing for an hour and a half between them.
        ("Europe/Paris", 10, True, "01:00+02 01:30+02 02:00+02 02:30+01 03:00+01 03:30+01"),
        # Clocks go from 02:00 to 01:00: 01:00 and 01:30 are due twice.
        ("America/New_York", 11, False, "01:00-04 01:30-04 01:00-05 01:30-05 02:00-05 02:30-05 03:00-05 03:30-05"),
    ],
    ids=["spring", "autumn in Paris", "autumn in New York"],
)
async def test_what_is_due_when_clocks_change(
    temporal: temporalio.client.Client, timezone: str, month: int, last: bool, times: str
) -> None:
    day = change_of_clocks(month, last=last)
    found = await due(temporal, cron_trigger(f"*/30 1-3 {day.day} {month} *", timezone=timezone))
    there = [time.astimezone(ZoneInfo(timezone)) for time in found]
    assert [f"{time:%H:%M%z}"[:-2] for time in there if time.date() == day] == times.split()


@pytest.mark.parametrize(("schedule", "given"), [("@every 2w", "@every 14d"), ("@every 90m", "@every 1h30m")])
def test_an_interval_is_given_in_units_that_temporal_knows(schedule: str, given: str) -> None:
    assert cron_trigger(schedule).expressions == (given,)


@pytest.mark.parametrize("trigger", [event_trigger("a"), cron_trigger("@daily")])
def test_a_trigger_does_not_change(trigger: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(trigger, dataclasses.fields(trigger)[0].name, "b")
    assert not hasattr(trigger, "__dict__")
