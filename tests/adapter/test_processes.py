"""Several workers of one app: what one schedules, another may run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import temporalio.client
from apps import pair, starter
from recording import Workers
from waiting import until

import steporal
from steporal import Context, RetryPolicy, Step, StepError

pytestmark = pytest.mark.outside_runs


@pytest.fixture
async def other_process(temporal: temporalio.client.Client) -> AsyncIterator[int]:
    """A second worker process of the app `pair`; its process id."""
    tests = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "apps.pair",
        temporal.service_client.config.target_host,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"serving\n"
    yield process.pid
    process.stdin.close()
    assert await process.wait() == 0


async def test_steps_of_a_run_run_in_two_processes(workers: Workers, other_process: int, tmp_path: Path) -> None:
    async with workers(pair.client, max_concurrent_activities=1):
        run = await pair.meet.start(str(tmp_path))
        assert sorted(await run.result()) == sorted([os.getpid(), other_process])
        workers.saw(pair.client, run.workflow_id, run.run_id)


async def test_classes_of_a_module_that_is_run_as_a_program_are_those_of_the_module(workers: Workers) -> None:
    tests = Path(__file__).parents[1]
    async with workers(starter.client):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "apps.starter",
            workers.temporal.service_client.config.target_host,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)])},
        )
        printed, _ = await process.communicate()
    assert printed.decode().splitlines() == ["True 1.0 first True"] * 2


async def test_a_step_that_this_code_does_not_have_waits_for_a_worker_that_has(
    app: steporal.Client, workers: Workers
) -> None:
    # Time for the first worker to end before the next attempt: one given to a worker that ends counts as lost.
    retry = RetryPolicy(initial_interval=timedelta(seconds=2), backoff_coefficient=1)
    edited = steporal.Client(app.id)

    @edited.workflow(id="edited")
    async def with_another_lambda(ctx: Context[Any], step: Step) -> str:
        return await step.run("greet", lambda: "good evening")

    queue = f"{app.id} steps"
    patient = steporal.Client(app.id, retry=retry, max_attempts=1000)

    @patient.workflow(id="edited")
    async def handler(ctx: Context[Any], step: Step) -> str:
        return await step.run("greet", lambda: "hello", task_queue=queue)

    async with workers(patient):
        run = await handler.start()
        async with workers(edited, task_queue=queue):
            message = await first_failure(run)
        assert "workflow 'edited' has no '<lambda>'" in message
        assert "another version of the code" in message
        async with workers(patient, task_queue=queue):
            assert await run.result() == "hello"


async def test_a_lambda_that_fails_is_repaired_by_an_edit(app: steporal.Client, workers: Workers) -> None:
    tried: list[str] = []
    retry = RetryPolicy(initial_interval=timedelta(milliseconds=200), backoff_coefficient=1)
    broken = steporal.Client(app.id, retry=retry, max_attempts=4)

    @broken.workflow(id="repaired")
    async def before(ctx: Context[Any], step: Step) -> str:
        return await step.run("charge", lambda: tried.append("broken") or 1 / 0)  # type: ignore[func-returns-value]

    edited = steporal.Client(app.id, retry=retry, max_attempts=4)

    @edited.workflow(id="repaired")
    async def after(ctx: Context[Any], step: Step) -> str:
        return await step.run("charge", lambda: tried.append("repaired") or "charged")  # type: ignore[func-returns-value]

    async with workers(broken):
        run = await before.start()
        await pending_failure(run)
    async with workers(edited):
        assert await run.result() == "charged"
    assert "broken" in tried
    assert tried.count("repaired") == 1


async def test_a_step_whose_code_no_worker_has_waits_for_one_that_has_it(
    app: steporal.Client, workers: Workers
) -> None:
    retry = RetryPolicy(initial_interval=timedelta(milliseconds=10), backoff_coefficient=1)
    edited = steporal.Client(app.id)
    queue = f"{app.id} steps"

    @edited.workflow(id="edited")
    async def with_another_lambda(ctx: Context[Any], step: Step) -> str:
        return await step.run("greet", lambda: "good evening")

    current = steporal.Client(app.id, retry=retry, max_attempts=1)

    @current.workflow(id="edited")
    async def handler(ctx: Context[Any], step: Step) -> str:
        return await step.run("greet", lambda: "hello", task_queue=queue)

    async with workers(current):
        run = await handler.start()
        async with workers(edited, task_queue=queue):
            async with asyncio.timeout(30):
                while not await has_paused(run):
                    await asyncio.sleep(0.02)
        async with workers(current, task_queue=queue):
            assert await run.result() == "hello"


async def test_a_step_that_no_worker_can_begin_fails_in_the_end_and_says_why(
    app: steporal.Client, workers: Workers
) -> None:
    queue = f"{app.id} steps"
    edited = steporal.Client(app.id)

    @edited.workflow(id="edited")
    async def with_another_lambda(ctx: Context[Any], step: Step) -> str:
        return await step.run("greet", lambda: "good evening")

    @app.workflow(id="edited", max_attempts=1, ext=steporal.WorkflowExt(code_timeout="2s"))
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        try:
            return [await step.run("greet", lambda: "hello", task_queue=queue)]
        except StepError as err:
            return [err.name, err.message]

    async with workers(app), workers(edited, task_queue=queue):
        name, message = await (await handler.start()).result()
    assert name == "StepCodeNotFoundError"
    reason = "no worker could begin the step within 2s; the last one says: workflow 'edited' has no '<lambda>' with the"
    assert message.startswith(reason)


async def test_attempts_that_find_no_code_give_a_step_no_further_attempts(
    app: steporal.Client, workers: Workers
) -> None:
    queue, attempts = f"{app.id} far", list[int]()
    edited = steporal.Client(app.id)

    @edited.workflow(id="edited")
    async def with_another_lambda(ctx: Context[Any], step: Step) -> None:
        await step.run("decline", lambda: None)

    def decline(number: int) -> None:
        attempts.append(number)
        raise ValueError("declined")

    @app.workflow(id="edited")
    async def handler(ctx: Context[Any], step: Step) -> int:
        try:
            await step.run("decline", lambda: decline(ctx.attempt + 1), task_queue=queue, max_attempts=3)
        except StepError as err:
            return err.attempts
        return 0

    async with workers(app):
        async with workers(app, task_queue=queue):
            run = await handler.start()
            await until(lambda: bool(attempts))
        async with workers(edited, task_queue=queue):
            while not await has_paused(run):
                await asyncio.sleep(0.05)
        async with workers(app, task_queue=queue):
            assert await run.result() == 3
    assert attempts == [1, 2, 3]


async def has_paused(run: steporal.Run[Any]) -> bool:
    """Whether a step waits before it begins again with the run's code."""
    history = await run.temporal.fetch_history()
    return any(event.HasField("timer_started_event_attributes") for event in history.events)


async def pending_failure(run: steporal.Run[Any]) -> str:
    """The message of the last failure of a step that is being tried again."""
    while True:
        described = (await run.temporal.describe()).raw_description
        for activity in described.pending_activities:
            if activity.HasField("last_failure"):
                return activity.last_failure.message
        await asyncio.sleep(0.005)


async def first_failure(run: steporal.Run[Any]) -> str:
    """The message of the first activity of a run that has failed for good."""
    while True:
        async for event in run.temporal.fetch_history_events():
            if event.HasField("activity_task_failed_event_attributes"):
                return event.activity_task_failed_event_attributes.failure.message
        await asyncio.sleep(0.005)


async def test_a_run_moves_to_another_worker_when_its_own_ends(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="moves")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        first = await step.run("first", lambda: "first")
        await step.sleep("until the next worker", "300ms")
        return [first, await step.run("second", lambda: "second")]

    async with workers(app):
        run = await handler.start()
        async for event in run.temporal.fetch_history_events(wait_new_event=True):
            if event.HasField("timer_started_event_attributes"):
                break
    async with workers(app):
        assert await run.result() == ["first", "second"]
