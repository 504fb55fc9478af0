"""Steps in plain asyncio: gather, TaskGroup, wait, wait_for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from recording import Workers

import steporal
from steporal import Context, RunFailedError, Step, StepError


async def test_gathered_steps_run_at_the_same_time(app: steporal.Client, workers: Workers) -> None:
    barrier = asyncio.Barrier(5)

    @app.workflow(id="gather")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        async def arrive(number: int) -> int:
            await barrier.wait()
            return number

        return await asyncio.gather(*[step.run("arrive", arrive, number) for number in range(5)])

    async with workers(app):
        assert await (await handler.start()).result() == [0, 1, 2, 3, 4]


async def test_steps_run_in_a_task_group(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="group")
    async def handler(ctx: Context[Any], step: Step) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step.run(f"square {n}", lambda: n * n)) for n in range(4)]
        return [task.result() for task in tasks]

    async with workers(app):
        assert await (await handler.start()).result() == [0, 1, 4, 9]


async def test_a_step_that_fails_in_a_task_group_fails_the_run_at_once(app: steporal.Client, workers: Workers) -> None:
    bodies = []

    @app.workflow(id="group")
    async def handler(ctx: Context[Any], step: Step) -> None:
        bodies.append(ctx.attempt)

        async def forever() -> None:
            await asyncio.sleep(60)

        def broken() -> None:
            raise steporal.NonRetryableError("out of order")

        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("forever", forever))
            group.create_task(step.run("broken", broken))

    async with workers(app, max_cached_workflows=1000):
        with pytest.raises(RunFailedError, match="out of order"):
            await (await handler.start()).result()
    assert bodies == [0]


async def test_the_first_of_several_steps_wins(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="race")
    async def handler(ctx: Context[Any], step: Step) -> str:
        async def slow() -> str:
            await asyncio.sleep(60)
            return "slow"

        racers = [
            asyncio.create_task(step.run("slow", slow)),
            asyncio.create_task(step.run("fast", lambda: "fast")),
        ]
        done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return next(iter(done)).result()

    async with workers(app):
        assert await (await handler.start()).result() == "fast"


async def test_as_completed_yields_steps_in_the_order_in_which_they_end(app: steporal.Client, workers: Workers) -> None:
    second_is_done = asyncio.Event()

    @app.workflow(id="as-completed")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        async def first() -> str:
            await second_is_done.wait()
            return "first"

        coroutines = [step.run("first", first), step.run("second", lambda: "second")]
        steps = [asyncio.create_task(coroutine) for coroutine in coroutines]
        results = []
        for finished in asyncio.as_completed(steps):
            results.append(await finished)
            if results == ["second"]:
                await step.run("release", lambda: second_is_done.set())
        return results

    async with workers(app):
        assert await (await handler.start()).result() == ["second", "first"]


async def test_a_timed_out_wait_cancels_the_step(app: steporal.Client, workers: Workers) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    @app.workflow(id="wait-for")
    async def handler(ctx: Context[Any], step: Step) -> str:
        async def endless() -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        try:
            await asyncio.wait_for(step.run("endless", endless), timeout=0.05)
        except TimeoutError:
            return "timed out"
        return "finished"

    async with workers(app):
        run = await handler.start()
        assert await run.result() == "timed out"
        events = (await run.temporal.fetch_history()).events
    assert any(e.HasField("activity_task_cancel_requested_event_attributes") for e in events)


async def test_a_cancelled_sleep_really_ends(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="wait-for")
    async def handler(ctx: Context[Any], step: Step) -> str:
        try:
            await asyncio.wait_for(step.sleep("a week", "7d"), timeout=0.01)
        except TimeoutError:
            return "woken"
        return "slept"

    async with workers(app):
        run = await handler.start()
        assert await run.result() == "woken"
        events = (await run.temporal.fetch_history()).events
    assert any(e.HasField("timer_canceled_event_attributes") for e in events)


async def test_a_step_that_is_awaited_late_has_run_meanwhile(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="late")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        task = asyncio.create_task(step.run("early", lambda: "early"))
        late = await step.run("late", lambda: "late")
        return [late, await task]

    async with workers(app):
        assert await (await handler.start()).result() == ["late", "early"]


async def test_gather_returns_the_errors_of_steps_when_asked(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="errors")
    async def handler(ctx: Context[Any], step: Step) -> list[str]:
        def fail() -> int:
            raise ValueError("no")

        results = await asyncio.gather(
            step.run("good", lambda: 1), step.run("bad", fail, max_attempts=1), return_exceptions=True
        )
        return [r.step_id if isinstance(r, StepError) else str(r) for r in results]

    async with workers(app):
        assert await (await handler.start()).result() == ["1", "bad"]


async def test_cancelling_a_run_cancels_its_steps(app: steporal.Client, workers: Workers) -> None:
    started = asyncio.Event()

    @app.workflow(id="cancelled")
    async def handler(ctx: Context[Any], step: Step) -> None:
        async def endless() -> None:
            started.set()
            await asyncio.sleep(60)

        await step.run("endless", endless)

    async with workers(app):
        run = await handler.start()
        await started.wait()
        await run.cancel()
        with pytest.raises(steporal.RunCancelledError):
            await run.result()


async def test_sync_steps_run_at_the_same_time(app: steporal.Client, workers: Workers) -> None:
    arrived: list[int] = []

    @app.workflow(id="threads")
    async def handler(ctx: Context[Any], step: Step) -> int:
        def arrive(number: int) -> int:
            arrived.append(number)
            deadline = time.monotonic() + 30
            while len(arrived) < 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            return len(arrived)

        return min(await asyncio.gather(*[step.run("arrive", arrive, number) for number in range(3)]))

    async with workers(app):
        assert await (await handler.start()).result() == 3
