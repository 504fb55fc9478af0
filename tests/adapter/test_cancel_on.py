"""ext.cancel_on: events that cancel runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import CancelOn, Context, DefinitionError, RunCancelledError, Step, WorkflowExt, event_trigger
from steporal.events import new_ulid


@pytest.fixture
def name() -> str:
    """A name of events that no other test uses."""
    return f"order.{new_ulid()}"


async def test_an_event_cancels_the_runs_that_it_matches(app: steporal.Client, workers: Workers, name: str) -> None:
    ext = WorkflowExt(cancel_on=[CancelOn(f"{name}.cancelled", match="data.order")])

    @app.workflow(id="cancelled", triggers=[event_trigger(f"{name}.placed")], ext=ext)
    async def handler(ctx: Context[Any], step: Step) -> str:
        await step.sleep("wait", "1s" if ctx.input.data["order"] == "b" else "1h")
        return "done"

    async with workers(app):
        sent = await app.send_event([{"name": f"{name}.placed", "data": {"order": o}} for o in ("a", "b")])
        runs = [await app.get_run(f"{app.id}/cancelled/{id}", handler) for id in sent.ids]
        for run in runs:
            await until_waiting(run)
        await app.send_event({"name": f"{name}.cancelled", "data": {"order": "a"}})
        with pytest.raises(RunCancelledError):
            await runs[0].result()
        assert await runs[1].result() == "done"


@pytest.mark.takes_long
async def test_a_cancelled_run_cleans_up_with_steps_and_its_running_step_is_cancelled(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    running, ended, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def long() -> None:
        running.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def clean() -> None:
        cleaned.set()

    @app.workflow(id="cancelled", ext=WorkflowExt(cancel_on=[CancelOn(name)]))
    async def handler(ctx: Context[Any], step: Step) -> None:
        async def work() -> None:
            await long()

        async def undo() -> None:
            await clean()

        try:
            await step.run("long", work)
        finally:
            await step.run("clean", undo)

    async with workers(app, default_heartbeat_throttle_interval=steporal.durations.parse_duration("100ms")):
        run = await handler.start()
        await asyncio.wait_for(running.wait(), 60)
        await app.send_event({"name": name})
        with pytest.raises(RunCancelledError):
            await run.result()
        assert cleaned.is_set()
        await asyncio.wait_for(ended.wait(), 30)


async def test_the_event_that_started_a_run_does_not_cancel_it(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="cancelled", triggers=[event_trigger(name)], ext=WorkflowExt(cancel_on=[CancelOn(name)]))
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.sleep("wait", "1h")

    async with workers(app):
        first = await app.send_event({"name": name})
        run = await app.get_run(f"{app.id}/cancelled/{first.ids[0]}", handler)
        await until_waiting(run)
        await app.send_event({"name": name, "id": first.ids[0]})
        second = await app.send_event({"name": name})
        with pytest.raises(RunCancelledError):
            await run.result()
        await until_waiting(await app.get_run(f"{app.id}/cancelled/{second.ids[0]}", handler))
        await (await app.get_run(f"{app.id}/cancelled/{second.ids[0]}", handler)).cancel()


async def test_after_its_timeout_an_event_cancels_no_more(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="cancelled", ext=WorkflowExt(cancel_on=[CancelOn(name, timeout="1ms")]))
    async def handler(ctx: Context[Any], step: Step) -> str:
        await step.sleep("a moment", "300ms")
        await step.ext.send_event("cancel", {"name": name})
        await step.sleep("another", "300ms")
        return "done"

    async with workers(app):
        assert await (await handler.start()).result() == "done"


@pytest.mark.parametrize(
    ("cancel_on", "message"),
    [
        ([CancelOn("")], r"ext of workflow 'w': CancelOn\(''\): name is ''"),
        ([CancelOn("a", if_exp="async.")], "if_exp"),
        ([CancelOn("a", match="a b")], "match is 'a b'"),
        ([CancelOn("a", match="dta.x")], r"match is 'dta.x'; .*: 'data.x'"),
        ([CancelOn("a", if_exp="async.data.x == event.dta.x")], r"uses 'event.dta' \(did you mean 'data'\?\)"),
        ([CancelOn("a", timeout=-1)], "timeout"),
        (["a"], "cancel_on has 'a'; write CancelOn"),
        (CancelOn("a"), "it takes a list"),
        ([CancelOn("a")] * 6, "the maximum is 5"),
    ],
)
def test_what_cannot_be_right_is_said_where_it_is_defined(app: steporal.Client, cancel_on: Any, message: str) -> None:
    async def handler(ctx: Context[Any], step: Step) -> None: ...

    with pytest.raises(DefinitionError, match=message):
        app.workflow(id="w", ext=WorkflowExt(cancel_on=cancel_on))(handler)
