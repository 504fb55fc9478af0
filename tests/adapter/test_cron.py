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
from temporalio.client import ScheduleDescription
from temporalio.service import RPCError

import steporal
from steporal import Context, Step, cron_trigger
from steporal.routing import schedules
from steporal.routing.catalog import Catalog
from steporal.routing.schedules import CronStart

pytestmark = pytest.mark.outside_runs


def daily(client: steporal.Client, *schedules: steporal.CronTrigger) -> steporal.Workflow[Any, None]:
    """The same app with the given cron triggers."""

    @client.workflow(id="report", triggers=list(schedules))
    async def report(ctx: Context[Any], step: Step) -> None:
        return None

    return report


async def schedules_of(client: steporal.Client, app_id: str) -> list[ScheduleDescription]:
    """The schedules of an app, by the catalog's list."""
    catalog = client.dispatcher(client.temporal).catalog
    listed = (await catalog.read(fresh=True)).apps[app_id]
    return [await client.temporal.get_schedule_handle(schedule_id).describe() for schedule_id in listed.schedules]


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


async def test_a_time_of_day_in_two_zones_is_two_schedules(app: steporal.Client, workers: Workers) -> None:
    daily(app, *(cron_trigger("0 9 * * *", timezone=zone) for zone in ("Europe/Paris", "Asia/Tokyo", None)))
    async with workers(app):
        described = await schedules_of(app, app.id)
        listed = (await app.dispatcher(app.temporal).catalog.read()).apps[app.id].workflows[0]
    assert {one.schedule.spec.time_zone_name or "UTC" for one in described} == {"Europe/Paris", "Asia/Tokyo", "UTC"}
    assert [entry.timezone for entry in listed.triggers] == ["Europe/Paris", "Asia/Tokyo", None]


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


async def known_schedules(workers: Workers, app_id: str) -> tuple[str, ...]:
    """The schedules of an app that the catalog knows."""
    return (await Catalog(workers.temporal).read(fresh=True)).apps[app_id].schedules


async def test_schedules_that_have_not_changed_are_left_alone(app: steporal.Client, workers: Workers) -> None:
    async with workers(with_crons(workers, app.id, 1, 2)):
        (first, second) = await known_schedules(workers, app.id)
        await workers.temporal.get_schedule_handle(first).delete()
        await with_crons(workers, app.id, 1, 2).sync(changed_only=True)
        assert await existing(workers, [first, second]) == {second}
        await with_crons(workers, app.id, 1, 2).sync()
        assert await existing(workers, [first, second]) == {first, second}


async def test_a_registration_that_is_cut_off_leaves_no_schedule_that_the_catalog_does_not_know(
    app: steporal.Client, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        pass

    async def create_and_cut_off(temporal: temporalio.client.Client, start: CronStart) -> None:
        await temporal.create_schedule(start.id, start.schedule(indexed=False))
        raise ConnectionAbortedError

    async with workers(with_crons(workers, app.id, 1)):
        with monkeypatch.context() as broken, pytest.raises(ConnectionAbortedError):
            broken.setattr(schedules, "_delete", never)
            broken.setattr(schedules, "_put", create_and_cut_off)
            await with_crons(workers, app.id, 2).sync()
        before = await known_schedules(workers, app.id)
        assert len(await existing(workers, before)) == 2
        await with_crons(workers, app.id, 3).sync(changed_only=True)
        assert await existing(workers, before) == set()
        assert len(await existing(workers, await known_schedules(workers, app.id))) == 1


async def test_many_schedules_are_made_at_once(app: steporal.Client, workers: Workers) -> None:
    async with workers(with_crons(workers, app.id, *range(60))), asyncio.timeout(60):
        ids = await known_schedules(workers, app.id)
        assert len(ids) == 60
        assert len(await existing(workers, ids[:3])) == 3
