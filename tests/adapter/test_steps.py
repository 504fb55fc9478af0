"""step.run: what may be a step function, and what a step's id means."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any

import pytest
from apps import forms
from recording import Workers

import steporal
from steporal import Context, Step

EVERY_FORM: dict[str, Any] = {
    "lambda": 3,
    "lambda_of_coroutine": 6,
    "nested": 4,
    "nested_async": 5,
    "with_default": 12,
    "inner": 300,
    "module": 20,
    "module_async": 24,
    "partial": 28,
    "partial_of_nested": 4,
    "static_method": "shelf 9",
    "class_method": "Shelf top",
    "made_elsewhere": "loud",
    "loop": [0, 3, 6],
    "gathered": [0, 1, 2],
}


async def test_every_form_of_function_is_a_step_in_the_sandbox(workers: Workers) -> None:
    async with workers(forms.client):
        assert await (await forms.all_forms.start()).result() == EVERY_FORM


async def test_lambdas_keep_the_values_that_they_were_made_with(workers: Workers) -> None:
    async with workers(forms.client):
        assert await (await forms.defaults.start()).result() == [0, 10, 20]


async def test_a_step_function_may_call_itself(workers: Workers) -> None:
    async with workers(forms.client):
        assert await (await forms.recursion.start()).result() == 720


async def test_every_form_of_function_is_a_step_in_a_handler_inside_a_function(
    app: steporal.Client, workers: Workers
) -> None:
    scale = 100

    @app.workflow(id="forms")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        factor = 3

        def nested() -> int:
            return factor * scale

        async def nested_async() -> int:
            return factor * scale + 1

        return [
            await step.run("lambda", lambda: factor + scale),
            await step.run("nested", nested),
            await step.run("nested async", nested_async),
            await step.run("partial", functools.partial(forms.product, 4, b=factor)),
            await step.run("module", forms.product, 4, 5),
        ]

    app.step_packages.add("apps")
    async with workers(app):
        assert await (await handler.start()).result() == [103, 300, 301, 12, 20]


async def test_a_variable_is_sent_with_its_value_of_the_moment_of_the_call(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="moment")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        total = 1
        first = asyncio.ensure_future(step.run("first", lambda: total))
        total = 2
        second = asyncio.ensure_future(step.run("second", lambda: total))
        return [await first, await second]

    async with workers(app):
        assert await (await handler.start()).result() == [1, 2]


async def test_what_is_captured_from_outside_the_handler_is_the_workers_own(
    app: steporal.Client, workers: Workers
) -> None:
    connection = threading.Lock()  # nothing that could be sent
    seen = []

    @app.workflow(id="outside")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("use", lambda: seen.append(connection))

    async with workers(app):
        await (await handler.start()).result()
    assert seen == [connection]


async def test_a_sync_step_runs_in_a_thread_and_an_async_one_on_the_loop(
    app: steporal.Client, workers: Workers
) -> None:
    @app.workflow(id="threads")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        async def on_the_loop() -> str:
            return threading.current_thread().name

        sync = await step.run("sync", lambda: threading.current_thread().name)
        return [sync, await step.run("async", on_the_loop)]

    async with workers(app):
        in_thread, on_loop = await (await handler.start()).result()
    assert in_thread.startswith("steporal-step")
    assert on_loop == threading.current_thread().name


async def test_a_step_id_used_again_is_a_further_step(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="again")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        return [await step.run("page", lambda: number * 10) for number in range(3)]

    async with workers(app):
        run = await handler.start()
        assert await run.result() == [0, 10, 20]
        assert await activity_ids(run) == ["page", "page:1", "page:2"]


async def test_an_id_that_looks_like_a_repeated_one_collides_with_none(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="collision")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        return [
            await step.run("a", lambda: "first a"),
            await step.run("a:1", lambda: "named a:1"),
            await step.run("a", lambda: "second a"),
            await step.run("a", lambda: "third a"),
        ]

    async with workers(app):
        run = await handler.start()
        assert await run.result() == ["first a", "named a:1", "second a", "third a"]
        assert len(set(await activity_ids(run))) == 4


async def test_the_step_id_is_what_temporals_ui_shows(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="shown")
    async def handler(ctx: Context[Any], step: Step) -> None:
        await step.run("charge the card", lambda: None)
        await step.sleep("cool down", 1)

    async with workers(app):
        run = await handler.start()
        await run.result()
        events = (await run.temporal.fetch_history()).events
    shown = [event.user_metadata.summary.data.decode() for event in events if event.user_metadata.HasField("summary")]
    assert shown == ['"charge the card"', '"cool down"']


@pytest.mark.parametrize("count", [0, 25])
async def test_a_run_has_as_many_steps_as_it_likes(app: steporal.Client, workers: Workers, count: int) -> None:
    @app.workflow(id="many")
    async def handler(ctx: Context[Any], step: Step) -> int:
        return sum([await step.run("one", lambda: 1) for _ in range(count)])

    async with workers(app):
        assert await (await handler.start()).result() == count


async def activity_ids(run: steporal.Run[Any]) -> list[str]:
    """The ids of a run's activities, in the order in which they were scheduled."""
    events = (await run.temporal.fetch_history()).events
    scheduled = [event.activity_task_scheduled_event_attributes for event in events]
    return [attributes.activity_id for attributes in scheduled if attributes.activity_id]


@pytest.mark.parametrize("is_recorded", [False, True], ids=["in the same task", "recorded"])
async def test_a_local_step_is_repeated_with_its_workflow_task_until_that_is_done(
    app: steporal.Client, workers: Workers, is_recorded: bool
) -> None:
    ran: list[str] = []
    has_computed: list[bool] = []

    @app.workflow(id="computes")
    async def computes(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", lambda: ran.append("charge"), local=True, max_attempts=1)
        if is_recorded:
            await step.run("ship", lambda: None)
        if not has_computed:
            has_computed.append(True)
            until = time.monotonic() + 30
            while time.monotonic() < until:  # the SDK interrupts it after 2 s
                pass

    async with workers(app):
        await (await computes.start()).result()
    assert len(ran) == (1 if is_recorded else 2)
