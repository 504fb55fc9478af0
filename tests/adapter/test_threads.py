"""Step functions that are not async, and the threads in which they run."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from recording import Workers
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker, WorkerTuner
from waiting import until

import steporal
from steporal import Context, RetryPolicy, Step, StepError
from steporal.activities.threads import StepThreads

pytestmark = pytest.mark.outside_runs

SOON = steporal.durations.parse_duration("100ms")


async def test_a_cancelled_function_is_interrupted_in_its_thread(app: steporal.Client, workers: Workers) -> None:
    began = threading.Event()
    ended: list[str] = []

    @app.workflow(id="gives-up", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def gives_up(ctx: Context[Any], step: Step) -> str:
        def loop() -> None:
            try:
                while True:
                    began.set()
                    time.sleep(0.01)
            except Exception as err:
                ended.append(type(err).__name__)
                raise

        try:
            await asyncio.wait_for(step.run("loop", loop), timeout=0.5)
        except TimeoutError:
            return "given up"
        return "returned"

    async with workers(app, max_heartbeat_throttle_interval=SOON):
        assert await (await gives_up.start()).result() == "given up"
        assert began.is_set()
        await until(lambda: bool(ended))
    assert ended == ["CancelledError"]


async def test_a_function_that_cannot_be_interrupted_keeps_its_slot(app: steporal.Client, workers: Workers) -> None:
    may_end = threading.Event()
    begun: list[str] = []

    @app.workflow(id="hangs", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def hangs(ctx: Context[Any], step: Step) -> str:
        def hang() -> None:
            begun.append("hang")
            may_end.wait()  # a lock is not interrupted

        try:
            await asyncio.wait_for(step.run("hang", hang), timeout=0.5)
        except TimeoutError:
            return "given up"
        return "returned"

    @app.workflow(id="quick")
    async def quick(ctx: Context[Any], step: Step) -> str:
        return await step.run("quick", lambda: "done")

    plugin = app.plugin()
    app.temporal = workers.temporal
    options: dict[str, Any] = {"max_concurrent_activities": 2, "max_heartbeat_throttle_interval": SOON}
    recorder = workers.recorder(app)
    async with Worker(
        workers.temporal, task_queue=app.task_queue, plugins=[plugin], interceptors=[recorder], **options
    ):
        await plugin.registered.wait()
        assert plugin.out_of_steps() is None
        runs = [await hangs.start() for _ in range(2)]
        assert [await run.result() for run in runs] == ["given up", "given up"]
        await until(lambda: plugin.out_of_steps() is not None)
        assert str(plugin.out_of_steps()).startswith("all 2 slots for steps are kept by step functions")
        waiting = await quick.start()
        assert await state_of_activity(waiting) == "SCHEDULED"
        may_end.set()
        assert await waiting.result() == "done"
        await until(lambda: plugin.out_of_steps() is None)
        await workers.forget(app)


async def test_a_function_that_hangs_after_its_step_was_cancelled_does_not_hold_a_worker_that_ends(
    app: steporal.Client, workers: Workers
) -> None:
    may_end = threading.Event()
    ended = threading.Event()

    @app.workflow(id="hangs", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def hangs(ctx: Context[Any], step: Step) -> str:
        def hang() -> None:
            try:
                may_end.wait()
            finally:
                ended.set()

        try:
            await asyncio.wait_for(step.run("hang", hang), timeout=0.5)
        except TimeoutError:
            return "given up"
        return "returned"

    plugin = app.plugin()
    app.temporal = workers.temporal
    options: dict[str, Any] = {"max_concurrent_activities": 1, "max_heartbeat_throttle_interval": SOON}
    recorder = workers.recorder(app)
    async with asyncio.timeout(30):
        async with Worker(
            workers.temporal, task_queue=app.task_queue, plugins=[plugin], interceptors=[recorder], **options
        ):
            await plugin.registered.wait()
            assert await (await hangs.start()).result() == "given up"
            await until(lambda: plugin.out_of_steps() is not None)
            await workers.forget(app)
    assert not ended.is_set()
    may_end.set()
    await until(ended.is_set)


async def state_of_activity(run: steporal.Run[Any]) -> str:
    """The state of a run's one activity, which the server has had the time to hand out."""
    found: list[int] = []
    while len(found) < 10:
        described = await run.temporal.describe()
        found += [activity.state for activity in described.raw_description.pending_activities]
        await asyncio.sleep(0.02)
    (state,) = set(found)
    return PendingActivityState.Name(state).removeprefix("PENDING_ACTIVITY_STATE_")  # type: ignore[arg-type]


async def test_an_attempt_over_its_timeout_is_interrupted_before_the_next_one_begins(
    app: steporal.Client, workers: Workers
) -> None:
    running: list[int] = []
    beside: list[int] = []

    @app.workflow(
        id="slow", max_attempts=2, retry=RetryPolicy(initial_interval=steporal.durations.parse_duration("2s"))
    )
    async def slow(ctx: Context[Any], step: Step) -> str:
        def work() -> str:
            beside.append(len(running))
            running.append(ctx.attempt)
            try:
                while ctx.attempt == 0:
                    time.sleep(0.01)
            finally:
                running.remove(ctx.attempt)
            return "in time"

        return await step.run("work", work, timeout="1s", heartbeat_timeout="1s")

    async with workers(app, max_heartbeat_throttle_interval=SOON):
        assert await (await slow.start()).result() == "in time"
    assert beside == [0, 0]


@pytest.mark.parametrize("kind", ["def", "async def", "local"])
async def test_a_function_that_raises_stop_iteration_fails(app: steporal.Client, workers: Workers, kind: str) -> None:
    @app.workflow(id="searches", max_attempts=1)
    async def searches(ctx: Context[str], step: Step) -> list[Any]:
        def first() -> int:
            return next(iter(()))

        async def first_async() -> int:
            return next(iter(()))

        try:
            if ctx.input.data == "async def":
                await step.run("first", first_async)
            await step.run("first", first, local=ctx.input.data == "local")
        except StepError as err:
            return [err.name, err.message, err.attempts]
        return []

    async with workers(app):
        name, message, attempts = await (await searches.start(kind)).result()
    assert (name, attempts) == ("RuntimeError", 1)
    assert "raised StopIteration" in message


async def test_a_users_own_executor_runs_the_step_functions(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="where")
    async def where(ctx: Context[Any], step: Step) -> str:
        return await step.run("where", lambda: threading.current_thread().name.partition("_")[0])

    with ThreadPoolExecutor(2, thread_name_prefix="mine") as executor:
        async with workers(app, activity_executor=executor, max_concurrent_activities=2):
            assert await (await where.start()).result() == "mine"
        assert executor.submit(int).result() == 0  # the worker has not shut it down


async def test_a_tuner_says_how_many_steps_run_at_once(app: steporal.Client, workers: Workers) -> None:
    together = threading.Barrier(120)

    @app.workflow(id="meets")
    async def meets(ctx: Context[Any], step: Step) -> int:
        def meet() -> int:
            together.wait(60)
            return 1

        return sum(await asyncio.gather(*(step.run(f"{n}", meet) for n in range(120))))

    tuner = WorkerTuner.create_fixed(workflow_slots=10, activity_slots=120, local_activity_slots=10)
    async with workers(app, tuner=tuner):
        assert await (await meets.start()).result() == 120


async def test_an_interrupt_never_reaches_the_next_function_of_a_thread() -> None:
    """Whatever the moment of the interruption, also while a function returns or swallows it."""
    chance = random.Random(7)

    def work(lasts: float) -> None:
        with contextlib.suppress(CancelledError) if chance.random() < 0.5 else contextlib.nullcontext():
            until = time.perf_counter() + lasts
            while time.perf_counter() < until:
                pass

    with ThreadPoolExecutor(1) as executor:
        threads = StepThreads(executor)
        for _ in range(500):
            lasts = chance.random() * 0.002
            running = asyncio.ensure_future(threads.run(partial(work, lasts)))
            await asyncio.sleep(chance.random() * 0.002)
            running.cancel()
            await asyncio.wait([running])
            assert await threads.run(lambda: sum(range(100))) == 4950
    assert threads.stuck == 0


async def test_what_a_function_returned_before_its_cancellation_counts() -> None:
    """As in a worker that leaves while its event loop is busy: the step would run again elsewhere."""
    with ThreadPoolExecutor(1) as executor:
        threads = StepThreads(executor)
        running = asyncio.ensure_future(threads.run(lambda: "done"))
        await asyncio.sleep(0)
        executor.submit(lambda: None).result()  # the only thread has finished the function
        running.cancel()
        assert await running == "done"
