"""step.ext.listen: no event is lost between acting and waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import temporalio.client
from recording import Workers
from waiting import until_waiting

import steporal
from steporal import Context, Step
from steporal.events import new_ulid


@pytest.fixture
def name() -> str:
    """A name of events that no other test uses."""
    return f"paid.{new_ulid()}"


async def test_what_comes_while_a_run_does_something_else_is_kept_in_order(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        async with await step.ext.listen("listen", event=name, timeout="1h") as payments:
            await step.ext.send_event("pay", [{"name": name, "data": {"n": n}} for n in range(5)])
            events = [await payments.next("payment") for _ in range(5)]
        return [event and event.data["n"] for event in events]

    async with workers(app):
        assert await (await handler.start()).result() == [0, 1, 2, 3, 4]


async def test_each_of_several_calls_that_wait_at_once_gets_an_event(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        events = await asyncio.gather(*(listener.next("payment") for _ in range(3)))
        return [event and event.data["n"] for event in events]

    async with workers(app):
        run = await handler.start()
        await until_waiting(run, 3)
        for number in range(3):
            await app.send_event({"name": name, "data": {"n": number}})
        assert await run.result() == [0, 1, 2]


async def test_only_what_matches_is_kept(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, match="data.order", timeout="1h")
        await step.ext.send_event("pay", [{"name": name, "data": {"order": o, "n": n}} for n, o in enumerate("abca")])
        events = [await listener.next("payment"), await listener.next("payment")]
        return [event and event.data["n"] for event in events]

    async with workers(app):
        assert await (await handler.start({"order": "a"})).result() == [0, 3]


async def test_next_is_none_when_the_time_is_over_and_after_closing(
    app: steporal.Client, workers: Workers, name: str, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1d")
        started = ctx.now()
        first = await listener.next("first", timeout="1h")
        hours = [round((ctx.now() - started).total_seconds() / 3600)]
        second = await listener.next("second")
        hours.append(round((ctx.now() - started).total_seconds() / 3600))
        await listener.close()
        return [first, second, await listener.next("third"), hours]

    async with workers(app):
        app.temporal = skipping
        assert await (await handler.start()).result() == [None, None, None, [1, 24]]


async def test_a_body_that_is_attempted_again_goes_on_listening(
    app: steporal.Client, workers: Workers, name: str
) -> None:
    @app.workflow(id="listens", max_attempts=3)
    async def handler(ctx: Context[Any], step: Step) -> Any:
        async with await step.ext.listen("listen", event=name, timeout="1h") as payments:
            await step.ext.send_event("pay", [{"name": name, "data": {"n": n}} for n in range(3)])
            first = await payments.next("payment")
            if ctx.attempt == 0:
                raise RuntimeError("no luck")
            events = [first, await payments.next("payment"), await payments.next("payment")]
        return [event and event.data["n"] for event in events]

    async with workers(app):
        assert await (await handler.start()).result() == [0, 1, 2]


async def test_overlapping_patterns_deliver_an_event_once(app: steporal.Client, workers: Workers, name: str) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        events = [name, f"{name.partition('.')[0]}.*", f"{name}.*"]
        listener = await step.ext.listen("listen", event=events, if_exp=f"async.data.by == '{name}'", timeout="1h")
        ids = []
        for sent in (name, f"{name}.more"):
            await step.ext.send_event("pay", {"name": sent, "data": {"by": name}})
            event = await listener.next("payment")
            ids.append(event and event.name)
        ids.append(await listener.next("payment", timeout="1s"))
        return ids

    async with workers(app):
        assert await (await handler.start()).result() == [name, f"{name}.more", None]


async def test_a_listener_is_closed_when_its_run_ends(
    app: steporal.Client, workers: Workers, name: str, temporal: temporalio.client.Client
) -> None:
    @app.workflow(id="listens")
    async def handler(ctx: Context[Any], step: Step) -> Any:
        listener = await step.ext.listen("listen", event=name, timeout="1h")
        event = await listener.next("payment")
        return event and event.id

    async with workers(app):
        run = await handler.start()
        await until_waiting(run)
        await app.send_event({"name": name})
        await run.result()
        topic = temporal.get_workflow_handle(f"steporal.topic/{name}")
        assert (await topic.query("steporal.subscriptions"))["count"] == 0
