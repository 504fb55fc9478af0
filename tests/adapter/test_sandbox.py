"""The sandbox: a body that is not deterministic is caught, and nothing but the modules of workflows is loaded again."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apps import clock, clock_broken, kinds
from recording import Workers

import steporal
from steporal import Context, Step
from steporal.events import new_ulid


async def start(workers: Workers, workflow: steporal.Workflow[Any, Any]) -> steporal.Run[Any]:
    """Start a run whose failed workflow tasks are tried again after a second, where ten are the default."""
    handle = await workers.temporal.start_workflow(
        workflow.id,
        id=f"{workflow.id}/{new_ulid()}",
        task_queue=workflow.client.task_queue,
        task_timeout=timedelta(seconds=1),
    )
    return await workflow.client.get_run(handle.id, workflow)


async def task_failure(run: steporal.Run[Any]) -> str:
    """The message of a run's first failed workflow task."""
    while True:
        async for event in run.temporal.fetch_history_events():
            if event.HasField("workflow_task_failed_event_attributes"):
                return event.workflow_task_failed_event_attributes.failure.message
        await asyncio.sleep(0.01)


async def test_the_clock_in_a_body_is_caught_and_the_run_goes_on_after_the_fix(workers: Workers) -> None:
    async with workers(clock_broken.client):
        run = await start(workers, clock_broken.now)
        message = await task_failure(run)
    assert "the body of workflow 'now' calls datetime.datetime.now" in message
    assert "put it in a step" in message
    assert "ctx.now()" in message
    assert re.search(r"apps/clock_broken\.py:\d+", message)
    async with workers(clock.client):
        assert await run.result() == f"before {datetime.now(UTC):%Y}"


@pytest.mark.parametrize(
    ("workflow", "call"),
    [
        (clock_broken.random_number, "random.random"),
        (clock_broken.uuid4, "uuid.uuid4"),
        (clock_broken.sleep, "time.sleep"),
        (clock_broken.open_file, "open"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_else_is_not_deterministic_in_a_body_is_caught(
    workers: Workers, workflow: steporal.Workflow[Any, Any], call: str
) -> None:
    async with workers(clock_broken.client):
        run = await start(workers, workflow)
        message = await task_failure(run)
    assert f"the body of workflow {workflow.id!r} calls {call}" in message
    async with workers(clock.client):
        await run.temporal.result()


async def test_a_step_may_do_what_a_body_may_not(workers: Workers) -> None:
    async with workers(clock.client):
        year, zero, dash, module = await (await clock.allowed.start()).result()
    assert (year, zero, dash, module) == (f"{datetime.now(UTC):%Y}", "0", "-", "httpx")


async def test_the_module_of_a_workflow_is_loaded_again_for_each_run(workers: Workers) -> None:
    async with workers(clock.client):
        first = await (await clock.reloaded.start()).result()
        second = await (await clock.reloaded.start()).result()
    assert len({first[0], second[0], clock.LOADED_AT}) == 3
    assert first[1] == second[1] == clock.LOADED_AT, "steps run outside the sandbox"


async def test_values_of_the_modules_classes_cross_the_sandbox(workers: Workers) -> None:
    async with workers(clock.client):
        *_, same_class, came_back, module, _ = await (await clock.reloaded.start()).result()
    assert (same_class, came_back, module) == (True, True, "httpx")


async def test_classes_that_are_only_data_are_shared_and_all_others_are_each_runs_own(workers: Workers) -> None:
    async with workers(kinds.client):
        results = [await (await kinds.kinds.start(kinds.Order())).result() for _ in range(2)]
    for result in results:
        assert set(result["shared"]) == kinds.SHARED
        assert result["crossed"] == [True] * 4
        assert result["seen"] == 1
    assert kinds.Counted.seen == {}


async def test_decorators_that_run_again_do_not_touch_the_real_client(workers: Workers) -> None:
    before = list(clock.client.workflows)
    httpx = sys.modules["httpx"]
    async with workers(clock.client):
        await (await clock.reloaded.start()).result()
    assert clock.client.workflows == before
    assert sys.modules["apps.clock"] is clock
    assert sys.modules["httpx"] is httpx


async def test_a_handler_inside_a_function_runs_unsandboxed(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="unsandboxed")
    async def handler(ctx: Context[Any], step: Step) -> int:
        return datetime.now(UTC).year

    async with workers(app):
        assert await (await handler.start()).result() == datetime.now(UTC).year


async def test_code_that_changed_under_a_run_in_flight_fails_the_task_and_not_the_run(
    app: steporal.Client, workers: Workers
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer() -> str:
        asked.set()
        await may_answer.wait()
        return "answer"

    changed = steporal.Client(app.id, retry=app.retry)

    @app.workflow(id="edited")
    async def first_version(ctx: Context[Any], step: Step) -> str:
        async def ask() -> str:
            return await answer()

        return await step.run("ask", ask)

    @changed.workflow(id="edited")
    async def second_version(ctx: Context[Any], step: Step) -> str:
        async def ask() -> str:
            return await answer()

        await step.sleep("new", 1)
        return await step.run("ask", ask)

    async with workers(app, max_cached_workflows=0):
        run = await start(workers, first_version)
        await asked.wait()
    may_answer.set()
    async with workers(changed, max_cached_workflows=0):
        message = await task_failure(run)
    assert "ondeterminism" in message
    async with workers(app):
        assert await run.result() == "answer"
