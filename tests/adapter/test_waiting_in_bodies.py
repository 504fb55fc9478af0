"""Bodies that wait for what cannot happen in a run, and calls that only work outside a body."""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import temporalio.client
from apps import shared_lock
from recording import Workers
from temporalio import workflow

import steporal
from steporal import Context, NotInBodyError, RunFailedError, Step

Body = Callable[[Context[Any], Step], Awaitable[Any]]


async def failure(app: steporal.Client, workers: Workers, body: Body) -> RunFailedError:
    """The error that a run of this body fails with."""
    handled = app.workflow(id="waits")(body)
    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handled.start()).result()
    return failed.value


# --- clients -------------------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Callable[[steporal.Client, Any], Awaitable[Any]], str]] = {
    "client.send_event": (lambda app, own: app.send_event({"name": "x"}), "step.ext.send_event"),
    "client.send_signal": (lambda app, own: app.send_signal("x"), "step.send_signal"),
    "client.start_workflow": (lambda app, own: app.start_workflow(own), "step.invoke_workflow"),
    "client.get_run": (lambda app, own: app.get_run("waits/1"), "step.invoke_workflow"),
    "client.sync": (lambda app, own: app.sync(), "outside the workflow"),
    "client.temporal": (lambda app, own: app.temporal.count_workflows(), "outside the workflow"),
    "client.connect": (lambda app, own: app.connect(), "outside the workflow"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_of_the_client_in_a_body_fails_the_run_with_the_step_to_use(
    app: steporal.Client, workers: Workers, call: str
) -> None:
    function, instead = CALLS[call]

    async def body(ctx: Context[Any], step: Step) -> None:
        await function(app, app.get_workflow("waits"))

    failed = await failure(app, workers, body)
    assert failed.name == "NotInBodyError"
    assert f"workflow 'waits' calls {call} in its body (adapter/test_waiting_in_bodies.py:" in failed.message
    assert instead in failed.message


async def test_a_run_that_a_body_has_got_hold_of_cannot_be_awaited_in_it(
    app: steporal.Client, workers: Workers
) -> None:
    runs: list[steporal.Run[Any]] = []

    @app.workflow(id="other")
    async def other(ctx: Context[Any], step: Step) -> None: ...

    async def body(ctx: Context[Any], step: Step) -> str:
        try:
            await runs[0].cancel()
        except NotInBodyError as err:
            assert "run.cancel" in str(err)
        await runs[0].result()
        return "unreachable"

    handled = app.workflow(id="waits")(body)
    async with workers(app):
        runs.append(await other.start())
        with pytest.raises(RunFailedError) as failed:
            await (await handled.start()).result()
    assert failed.value.name == "NotInBodyError"
    assert "calls run.result in its body" in failed.value.message


async def test_a_client_may_be_called_in_a_step(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> int:
        async def send() -> int:
            return len((await app.send_event({"name": "x"})).ids)

        return await step.run("send", send)

    async with workers(app):
        assert await (await handler.start()).result() == 1


# --- what no run can wait for --------------------------------------------------------------------------------------


async def a_future_that_nobody_completes(step: Step) -> None:
    await asyncio.get_running_loop().create_future()


async def an_event_that_nobody_sets(step: Step) -> None:
    await step.run("before", lambda: None)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.Event().wait())
        group.create_task(step.run("beside", lambda: None))


async def a_queue_that_nobody_fills(step: Step) -> None:
    await step.sleep("nap", "10ms")
    await asyncio.Queue[int]().get()


async def two_that_wait_for_each_other(step: Step) -> None:
    first, second = asyncio.Lock(), asyncio.Lock()

    async def branch(one: asyncio.Lock, other: asyncio.Lock, name: str) -> None:
        async with one:
            await step.run(name, lambda: None)
            async with other:
                pass

    await asyncio.gather(branch(first, second, "a"), branch(second, first, "b"))


async def the_sdks_own_client(step: Step) -> None:
    await CONNECTIONS[-1].get_workflow_handle("none").describe()


CONNECTIONS: list[temporalio.client.Client] = []


@pytest.mark.parametrize(
    "waits",
    [
        a_future_that_nobody_completes,
        an_event_that_nobody_sets,
        a_queue_that_nobody_fills,
        two_that_wait_for_each_other,
        the_sdks_own_client,
    ],
)
async def test_a_body_that_nothing_can_wake_fails(
    app: steporal.Client,
    workers: Workers,
    temporal: temporalio.client.Client,
    waits: Callable[[Step], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    CONNECTIONS.append(temporal)

    async def body(ctx: Context[Any], step: Step) -> None:
        await waits(step)

    failed = await failure(app, workers, body)
    assert failed.name == "DeadlockError"
    assert "the body of workflow 'waits' waits at adapter/test_waiting_in_bodies.py:" in failed.message
    assert "step.wait_for_signal" in failed.message
    (found,) = re.findall(r"waits at \S+:(\d+) ", failed.message)
    assert re.findall(r'^ *File ".*", line (\d+), in (\w+)$', failed.stack, re.MULTILINE)[-1] == (found, waits.__name__)
    (logged,) = [record.exc_info for record in caplog.records if record.exc_info and "failed" in record.getMessage()]
    assert logged[2] is not None
    assert traceback.extract_tb(logged[2])[-1].name == waits.__name__


async def test_a_body_that_waits_for_a_lock_that_others_hold_fails(app: steporal.Client, workers: Workers) -> None:
    async def body(ctx: Context[Any], step: Step) -> None:
        async with shared_lock.lock:
            await step.run("inside", lambda: None)

    if not shared_lock.lock.locked():
        await shared_lock.lock.acquire()  # and keep it, as the run is replayed after the test
    assert (await failure(app, workers, body)).name == "DeadlockError"


async def test_a_body_that_waits_for_a_future_of_another_loop_fails_at_once(
    app: steporal.Client, workers: Workers
) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def body(ctx: Context[Any], step: Step) -> None:
        await future

    failed = await failure(app, workers, body)
    assert failed.name == "DeadlockError"
    assert "another event loop" in failed.message


async def test_a_body_may_wait_for_what_its_own_tasks_and_timers_do(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="waits")
    async def handler(ctx: Context[Any], step: Step) -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        done = asyncio.Event()

        async def produce() -> None:
            await asyncio.sleep(0.02)
            await queue.put(1)
            await queue.put(await step.run("two", lambda: 2))
            done.set()

        producing = asyncio.create_task(produce())
        got = [await queue.get(), await queue.get()]
        await done.wait()
        await producing
        turns: list[int] = []

        async def take_turns(number: int) -> None:
            await workflow.wait_condition(lambda: len(turns) == number)
            turns.append(number)

        await asyncio.gather(*map(take_turns, range(5)))
        for number in range(5):
            await workflow.wait_condition(lambda: len(turns) >= number)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        except TimeoutError:
            got.append(3)
        return got

    async with workers(app):
        assert await (await handler.start()).result() == [1, 2, 3]


async def test_a_failed_deadlock_takes_no_attempts_of_the_body(app: steporal.Client, workers: Workers) -> None:
    began: set[int] = set()

    async def body(ctx: Context[Any], step: Step) -> None:
        began.add(ctx.attempt)
        await asyncio.Event().wait()

    before = time.monotonic()
    await failure(app, workers, body)
    assert began == {0}
    assert time.monotonic() - before < 30
