"""Cron triggers, as Temporal schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
import temporalio.service
from recording import Workers
from temporalio.client import ScheduleDescription, ScheduleUpdate, ScheduleUpdateInput
from temporalio.service import RPCError

import steporal
from steporal import Context, Step, cron_trigger
from steporal.routing.catalog import schedules
from steporal.routing.catalog.arbiter import arbiter_id
from steporal.routing.catalog.defined import list_of
from steporal.routing.catalog.reading import Catalog
from steporal.routing.catalog.schedules import CronStart

pytestmark = pytest.mark.outside_runs


def daily(client: steporal.Client, *schedules: steporal.CronTrigger) -> steporal.Workflow[Any, None]:
    """The same app with the given cron triggers."""

    @client.workflow(id="report", triggers=list(schedules))
    async def report(ctx: Context[Any], step: Step) -> None:
        return None

    return report


async def schedules_of(client: steporal.Client, app_id: str) -> list[ScheduleDescription]:
    """The schedules of an app, by the catalog's list."""
    ids = await known_schedules(client.temporal, app_id)
    return [await client.temporal.get_schedule_handle(schedule_id).describe() for schedule_id in ids]


async def test_a_schedule_appears_when_a_worker_starts(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * MON-FRI", timezone="Europe/Paris", jitter="5m"))
    async with workers(app):
        (described,) = await schedules_of(app, app.id)
    assert described.id.startswith(f"steporal/{app.id}/report/")
    spec = described.schedule.spec
    assert spec.time_zone_name == "Europe/Paris"
    assert spec.jitter == timedelta(minutes=5)
    due = [time.astimezone() for time in described.info.next_action_times[:7]]
    assert len(due) == 7


async def test_a_schedule_with_other_jitter_is_changed(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * *", jitter="1m"))
    changed = steporal.Client(app.id)
    daily(changed, cron_trigger("0 9 * * *", jitter="5m"))
    async with workers(app):
        (before,) = await schedules_of(app, app.id)
        changed.temporal = app.temporal
        await changed.sync()
        (after,) = await schedules_of(app, app.id)
    assert before.id == after.id
    assert (before.schedule.spec.jitter, after.schedule.spec.jitter) == (timedelta(minutes=1), timedelta(minutes=5))


@pytest.mark.parametrize(
    ("schedule", "window"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("*/5 * * * *", timedelta(minutes=5)),
        ("0,10 * * * *", timedelta(minutes=10)),
        ("0 9 * * *", timedelta(days=1)),
        ("0 9 * * 1-5", timedelta(days=1)),
        ("0 9 * * 1", timedelta(days=7)),
        ("0 0 1 * *", timedelta(days=28)),
        ("0 0 29 2 *", timedelta(days=4 * 365 + 1)),
        ("@every 90s", timedelta(seconds=90)),
        ("@every 1s", timedelta(seconds=10)),
        ("@hourly", timedelta(hours=1)),
        ("@daily", timedelta(days=1)),
        ("@weekly", timedelta(days=7)),
        ("@monthly", timedelta(days=28)),
        ("@yearly", timedelta(days=365)),
    ],
)
def test_the_last_run_that_was_due_is_made_up_for(schedule: str, window: timedelta) -> None:
    assert CronStart("app", "daily", "queue", cron_trigger(schedule)).catchup_window == window


async def test_a_schedule_that_makes_up_for_more_is_changed(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * *"))
    async with workers(app):
        (described,) = await schedules_of(app, app.id)
        assert described.schedule.policy.catchup_window == timedelta(days=1)
        schedule = app.temporal.get_schedule_handle(described.id)
        await schedule.update(with_the_window_of_a_year)
        await app.sync()
        (described,) = await schedules_of(app, app.id)
        assert described.schedule.policy.catchup_window == timedelta(days=1)


def with_the_window_of_a_year(existing: ScheduleUpdateInput) -> ScheduleUpdate:
    """What Temporal does by default, and schedules of an earlier form."""
    schedule = existing.description.schedule
    schedule.policy.catchup_window = timedelta(days=365)
    return ScheduleUpdate(schedule=schedule)


async def test_a_time_of_day_in_two_zones_is_two_schedules(app: steporal.Client, workers: Workers) -> None:
    daily(app, *(cron_trigger("0 9 * * *", timezone=zone) for zone in ("Europe/Paris", "Asia/Tokyo", None)))
    async with workers(app):
        described = await schedules_of(app, app.id)
        registered = await Catalog(app.temporal).read_app(app.id)
    assert {one.schedule.spec.time_zone_name or "UTC" for one in described} == {"Europe/Paris", "Asia/Tokyo", "UTC"}
    assert registered is not None and registered.app is not None
    assert [entry.timezone for entry in registered.app.workflows[0].triggers] == ["Europe/Paris", "Asia/Tokyo", None]


async def test_a_schedule_with_another_expression_takes_the_old_ones_place(
    app: steporal.Client, workers: Workers
) -> None:
    daily(app, cron_trigger("0 9 * * *"))
    changed = steporal.Client(app.id)
    daily(changed, cron_trigger("0 10 * * *"), cron_trigger("@daily"))
    async with workers(app):
        (before,) = await schedules_of(app, app.id)
        changed.temporal = app.temporal
        await changed.sync()
        after = await schedules_of(app, app.id)
        assert len(after) == 2
        assert before.id not in {described.id for described in after}
        assert await is_gone(app.temporal, before.id)


async def test_a_schedule_disappears_with_its_trigger(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * *"))
    without = steporal.Client(app.id)
    daily(without)
    async with workers(app):
        (before,) = await schedules_of(app, app.id)
        without.temporal = app.temporal
        await without.sync()
        assert await schedules_of(app, app.id) == []
        assert await is_gone(app.temporal, before.id)


async def test_a_paused_schedule_stays_paused(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * *"))
    async with workers(app):
        (before,) = await schedules_of(app, app.id)
        schedule = app.temporal.get_schedule_handle(before.id)
        await schedule.pause(note="on holiday")
        async with asyncio.timeout(60):
            while not (await schedule.describe()).schedule.state.paused:
                await asyncio.sleep(0.01)
        await app.sync()
        (after,) = await schedules_of(app, app.id)
    assert after.schedule.state.paused
    assert after.schedule.state.note == "on holiday"


async def test_a_paused_schedule_that_is_changed_stays_paused(app: steporal.Client, workers: Workers) -> None:
    daily(app, cron_trigger("0 9 * * *", jitter="1m"))
    changed = steporal.Client(app.id)
    daily(changed, cron_trigger("0 9 * * *", jitter="5m"))
    async with workers(app):
        (before,) = await schedules_of(app, app.id)
        schedule = app.temporal.get_schedule_handle(before.id)
        await schedule.pause(note="on holiday")
        async with asyncio.timeout(60):
            while not (await schedule.describe()).schedule.state.paused:
                await asyncio.sleep(0.01)
        changed.temporal = app.temporal
        await changed.sync()
        (after,) = await schedules_of(app, app.id)
    assert after.schedule.spec.jitter == timedelta(minutes=5)
    assert after.schedule.state.paused
    assert after.schedule.state.note == "on holiday"


async def test_a_schedule_starts_runs(app: steporal.Client, workers: Workers) -> None:
    inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @app.workflow(id="tick", triggers=[cron_trigger("@every 1s")])
    async def tick(ctx: Context[Any], step: Step) -> None:
        kind, name, cron, event_id = ctx.input.type, ctx.input.name, ctx.input.ext.cron, ctx.input.id

        async def report() -> None:
            inputs.put_nowait({"type": kind, "name": name, "cron": cron, "data": ctx.input.data, "id": event_id})

        await step.run("report", report)

    async with workers(app):
        first, second = await inputs.get(), await inputs.get()
    assert (first["type"], first["name"], first["cron"]) == ("cron", "inngest/scheduled.timer", "@every 1s")
    assert first["data"]["cron"] == "@every 1s"
    assert set(first["data"]) == {"cron", "scheduledAt", "fireAt"}
    assert first["id"] != second["id"]
    assert first["data"]["scheduledAt"] < second["data"]["scheduledAt"]


async def test_what_is_due_at_one_moment_is_a_run_each(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    due: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()
    workflow_id = f"{app.id} tick"

    def ticking(client: steporal.Client, *schedules: str) -> None:
        @client.workflow(id=workflow_id, triggers=[cron_trigger(schedule) for schedule in schedules])
        async def tick(ctx: Context[Any], step: Step) -> None:
            async def report() -> None:
                due.put_nowait((ctx.input.data["scheduledAt"], client.id, ctx.input.data["cron"]))

            await step.run("report", report)

    ticking(app, "@every 2s", "@every 4s")
    ticking(other_app, "@every 2s")
    by_moment: dict[str, set[tuple[str, str]]] = {}
    async with workers(app), workers(other_app), asyncio.timeout(60):
        while {(app.id, "@every 2s"), (app.id, "@every 4s"), (other_app.id, "@every 2s")} not in by_moment.values():
            moment, client_id, schedule = await due.get()
            by_moment.setdefault(moment, set()).add((client_id, schedule))


async def is_gone(temporal: temporalio.client.Client, schedule_id: str) -> bool:
    """Whether there is no such schedule any more."""
    try:
        await temporal.get_schedule_handle(schedule_id).describe()
    except temporalio.service.RPCError as err:
        return err.status == temporalio.service.RPCStatusCode.NOT_FOUND
    return False


def with_crons(workers: Workers, app_id: str, *minutes: int) -> steporal.Client:
    """An app with a cron workflow for each minute."""
    client = steporal.Client(app_id, temporal=workers.temporal)
    for minute in minutes:

        @client.workflow(id=f"at {minute}", triggers=[cron_trigger(f"{minute} 0 1 1 *")])
        async def handler(ctx: Context[Any], step: Step) -> None:
            pass

    return client


async def existing(workers: Workers, ids: Iterable[str]) -> set[str]:
    """Those of some schedules that exist."""
    found = set()
    for id in ids:
        with suppress(RPCError):
            await workers.temporal.get_schedule_handle(id).describe()
            found.add(id)
    return found


async def known_schedules(temporal: temporalio.client.Client, app_id: str) -> tuple[str, ...]:
    """The schedules in the list of an app that is in force."""
    registered = await Catalog(temporal).read_app(app_id)
    assert registered is not None and registered.app is not None
    return registered.app.schedules


async def test_schedules_that_have_not_changed_are_left_alone(app: steporal.Client, workers: Workers) -> None:
    async with workers(with_crons(workers, app.id, 1, 2)):
        (first, second) = await known_schedules(workers.temporal, app.id)
        await workers.temporal.get_schedule_handle(first).delete()
        await with_crons(workers, app.id, 1, 2).sync(changed_only=True)
        assert await existing(workers, [first, second]) == {second}
        await with_crons(workers, app.id, 1, 2).sync()
        assert await existing(workers, [first, second]) == {first, second}


async def schedules_in_temporal(temporal: temporalio.client.Client, app_id: str) -> list[str]:
    """The schedules of an app that exist, whoever knows them; Temporal lists one a moment after its creation."""
    listed = [schedule.id async for schedule in await temporal.list_schedules()]
    return sorted(id for id in listed if id.startswith(f"steporal/{app_id}/"))


async def create_and_cut_off(temporal: temporalio.client.Client, start: CronStart) -> None:
    await temporal.create_schedule(start.id, start.schedule(indexed=False))
    raise ConnectionAbortedError("the process has died")


async def test_a_registration_that_is_cut_off_leaves_no_orphan(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers(with_crons(workers, app.id, 1)):
        first = await known_schedules(workers.temporal, app.id)
        cut_off = with_crons(workers, app.id, 2)
        with monkeypatch.context() as broken, pytest.raises(steporal.errors.TemporalCallError, match="has died"):
            broken.setattr(schedules, "_put", create_and_cut_off)
            await cut_off.sync()
        orphans = list_of(cut_off.app).schedules
        assert await known_schedules(workers.temporal, app.id) == first
        assert await existing(workers, orphans) == set(orphans)
        await with_crons(workers, app.id, 3).sync(changed_only=True)
        assert await existing(workers, [*first, *orphans]) == set()
        assert len(await existing(workers, await known_schedules(workers.temporal, app.id))) == 1


async def test_a_registration_after_the_loss_of_all_that_was_known_leaves_no_orphan(
    app: steporal.Client, workers: Workers
) -> None:
    async with workers(with_crons(workers, app.id, 1, 2)):
        before = list(await known_schedules(workers.temporal, app.id))
        async with asyncio.timeout(30):
            while await schedules_in_temporal(workers.temporal, app.id) != before:
                await asyncio.sleep(0.05)
        await workers.temporal.get_workflow_handle(arbiter_id(app.id)).terminate()
        await with_crons(workers, app.id, 2, 3).sync(changed_only=True)
        after = await known_schedules(workers.temporal, app.id)
        assert await existing(workers, [*before, *after]) == set(after)


async def test_many_schedules_are_made_at_once(app: steporal.Client, workers: Workers) -> None:
    async with workers(with_crons(workers, app.id, *range(60))), asyncio.timeout(60):
        ids = await known_schedules(workers.temporal, app.id)
        assert len(ids) == 60
        assert len(await existing(workers, ids[:3])) == 3
