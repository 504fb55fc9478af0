"""Steps whose worker lives, but is cut off from Temporal."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from gateway import Wire
from recording import Workers
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from test_versioning import deployed, make_current
from waiting import until, until_received

import steporal
from steporal import Context, NonRetryableError, RetryPolicy, Step, StepError
from steporal.activities.executions import Executions
from steporal.history.recovery import rebuild
from steporal.wire.names import JOIN_STEP
from steporal.wire.run_state import read_outcome
from steporal_workers.devserver import DevServer, dev_server

pytestmark = pytest.mark.outside_runs

HEARTBEAT_TIMEOUT = "1s"
QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=1))
OUTAGE_SECONDS = 7.0
"""Longer than the heartbeat timeout and the 5 s after it in which Temporal's core gives an attempt up."""


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    async with dev_server() as server:
        yield server


@asynccontextmanager
async def outage(server: DevServer) -> AsyncIterator[None]:
    """Temporal does not answer while the context lasts, which is at least :data:`OUTAGE_SECONDS`."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
        await asyncio.sleep(OUTAGE_SECONDS)
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.takes_long
async def test_a_step_that_runs_through_an_outage_begins_once_and_its_result_counts(server: DevServer) -> None:
    app = steporal.Client("outage", heartbeat_timeout=HEARTBEAT_TIMEOUT)
    begun: list[str] = []
    may_end = {name: threading.Event() for name in ("ends in the outage", "ends after it")}
    async_may_end = asyncio.Event()

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> list[str]:
        def work(name: str) -> str:
            begun.append(name)
            may_end[name].wait()
            return f"{name}, done"

        async def work_async() -> str:
            begun.append("async")
            await async_may_end.wait()
            return "async, done"

        names = ["ends in the outage", "ends after it"]
        steps = [step.run(name, work, name, max_attempts=1) for name in names]
        return list(await asyncio.gather(*steps, step.run("async", work_async, max_attempts=1)))

    workers = Workers(server.client, 100)
    other = Workers(await temporalio.client.Client.connect(server.address), 100)
    async with workers(app), other(app):  # the steps are joined where they run, and not at the other worker
        run = await waits.start()
        await until(lambda: len(begun) == 3)
        await asyncio.sleep(1.5)  # until the first heartbeats have named the worker
        async with outage(server):
            may_end["ends in the outage"].set()
        joined = await pending(run, JOIN_STEP)
        may_end["ends after it"].set()
        async_may_end.set()
        result = await asyncio.wait_for(run.result(), 60)
    assert result == ["ends in the outage, done", "ends after it, done", "async, done"]
    assert len(begun) == 3
    assert joined
    await workers.replay()
    rebuilt = await rebuild((await run.temporal.fetch_history()).events, server.client.data_converter)
    assert {key: read_outcome(outcome).value for key, outcome in rebuilt.carried.memo.items()} == {
        "ends in the outage": "ends in the outage, done",
        "ends after it": "ends after it, done",
        "async": "async, done",
    }
    assert rebuilt.in_flight == ()


@pytest.mark.takes_long
async def test_a_step_that_fails_in_an_outage_fails_with_its_own_error_and_does_not_begin_again(
    server: DevServer,
) -> None:
    app = steporal.Client("outage", heartbeat_timeout=HEARTBEAT_TIMEOUT, retry=QUICKLY)
    begun: list[str] = []
    may_fail = asyncio.Event()

    @app.workflow(id="fails")
    async def fails(ctx: Context[Any], step: Step) -> list[Any]:
        async def decline() -> None:
            begun.append("declined")
            await may_fail.wait()
            raise NonRetryableError("the card is declined")

        async def refuse() -> None:
            begun.append("refused")
            await may_fail.wait()
            raise ConnectionError("refused")

        steps = step.run("decline", decline), step.run("refuse", refuse, max_attempts=1)
        ended = await asyncio.gather(*steps, return_exceptions=True)
        return [[err.name, err.message, err.attempts] for err in ended if isinstance(err, StepError)]

    workers = Workers(server.client, 100)
    async with workers(app):
        run = await fails.start()
        await until(lambda: len(begun) == 2)
        await asyncio.sleep(1.5)  # until the first heartbeats have named the worker
        async with outage(server):
            may_fail.set()
        result = await asyncio.wait_for(run.result(), 60)
    assert result == [["NonRetryableError", "the card is declined", 1], ["ConnectionError", "refused", 1]]
    assert sorted(begun) == ["declined", "refused"]
    await workers.replay()


@pytest.mark.parametrize(("is_final", "begun"), [(True, [1]), (False, [1, 2])])
async def test_an_attempt_after_a_final_failure_that_temporal_did_not_receive_fails_as_the_one_before(
    is_final: bool, begun: list[int]
) -> None:
    executions = Executions()
    attempts: list[int] = []

    async def fail() -> RawValue:
        attempts.append(activity.info().attempt)
        raise ApplicationError("declined", non_retryable=is_final)

    for attempt in (1, 2):
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, attempt=attempt)
        with pytest.raises(ApplicationError, match="declined"):
            await environment.run(executions.run, "charge", {}, fail)
    assert attempts == begun


@pytest.mark.takes_long
async def test_a_step_of_a_versioned_worker_is_joined_after_an_outage(server: DevServer) -> None:
    app = steporal.Client("outage", heartbeat_timeout=HEARTBEAT_TIMEOUT)
    begun: list[int] = []
    may_end = threading.Event()

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> str:
        def work() -> str:
            begun.append(ctx.attempt)
            may_end.wait()
            return "done"

        return await step.run("work", work, max_attempts=1)

    workers = Workers(server.client, 100)
    async with workers(app, deployment_config=deployed(app.id, "1")):
        await make_current(app, "1")
        run = await waits.start()
        await until(lambda: len(begun) == 1)
        await asyncio.sleep(1.5)
        async with outage(server):
            pass
        await pending(run, JOIN_STEP)
        may_end.set()
        assert await asyncio.wait_for(run.result(), 60) == "done"
    assert begun == [0]


@pytest.mark.takes_long
async def test_after_an_outage_a_step_is_cancelled_or_tried_again_as_without_one(server: DevServer) -> None:
    app = steporal.Client("outage", heartbeat_timeout=HEARTBEAT_TIMEOUT, retry=QUICKLY)
    attempts: list[int] = []
    ended: list[str] = []
    may_fail = asyncio.Event()

    @app.workflow(id="fails")
    async def fails(ctx: Context[Any], step: Step) -> list[Any]:
        async def work() -> None:
            attempts.append(ctx.attempt)
            await may_fail.wait()
            raise ConnectionError(f"attempt {ctx.attempt}")

        try:
            await step.run("work", work, max_attempts=2)
        except StepError as err:
            return [err.name, err.message, err.attempts]
        return []

    @app.workflow(id="gives-up")
    async def gives_up(ctx: Context[Any], step: Step) -> str:
        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        hanging = asyncio.create_task(step.run("hang", hang))
        await step.wait_for_signal("until", signal="give up", timeout="1h")
        hanging.cancel()
        return "given up"

    workers = Workers(server.client, 100)
    async with workers(app):
        failing, hanging = await fails.start(), await gives_up.start()
        await until(lambda: len(attempts) == 1)
        await asyncio.sleep(1.5)
        async with outage(server):
            pass
        await pending(failing, JOIN_STEP)
        await pending(hanging, JOIN_STEP)
        may_fail.set()
        assert await asyncio.wait_for(failing.result(), 60) == ["ConnectionError", "attempt 1", 2]
        assert attempts == [0, 1]
        assert not ended
        await until_received(app, "give up")
        assert await asyncio.wait_for(hanging.result(), 60) == "given up"
        await until(lambda: ended == ["cancelled"])
    await workers.replay()


@pytest.mark.takes_long
async def test_a_step_whose_worker_is_cut_off_begins_elsewhere_and_ends_where_it_was_when_the_connection_is_back(
    server: DevServer,
) -> None:
    app = steporal.Client("cut", heartbeat_timeout=HEARTBEAT_TIMEOUT)
    begun: list[int] = []
    ended: list[int] = []

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> str:
        async def work() -> str:
            begun.append(ctx.attempt)
            try:
                if ctx.attempt == 0:
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append(ctx.attempt)
                raise
            await may_end.wait()
            return f"attempt {ctx.attempt}"

        return await step.run("work", work)

    may_end = asyncio.Event()
    async with asyncio.timeout(120), Wire(server.address) as wire:
        cut_off = Workers(await temporalio.client.Client.connect(wire.address), 100)
        async with cut_off(app):
            run = await waits.start()
            await until(lambda: begun == [0])
            await asyncio.sleep(1.5)
            wire.cut()
            async with Workers(server.client, 100)(app):
                await until(lambda: begun == [0, 1])
                assert not ended
                wire.mend()
                await until(lambda: ended == [0])
                may_end.set()
                handle = server.client.get_workflow_handle(run.workflow_id)
                assert await handle.result() == "attempt 1"
    assert begun == [0, 1]


async def test_a_step_that_keeps_pythons_lock_for_longer_than_the_heartbeat_timeout_begins_once(
    app: steporal.Client, workers: Workers
) -> None:
    begun: list[int] = []

    @app.workflow(id="holds", ext=steporal.WorkflowExt(heartbeat_timeout="1s"))
    async def holds(ctx: Context[Any], step: Step) -> str:
        def hold() -> str:
            begun.append(ctx.attempt)
            ctypes.PyDLL(None).sleep(3)
            return "held"

        return await step.run("hold", hold, max_attempts=1)

    async with workers(app):
        assert await (await holds.start()).result() == "held"
    assert begun == [0]


async def pending(run: steporal.Run[Any], activity_type: str) -> int:
    """Wait until a run has an activity of this type in flight, and return how many."""
    while True:
        described = await run.temporal.describe()
        kinds = [each.activity_type.name for each in described.raw_description.pending_activities]
        if count := kinds.count(activity_type):
            return count
        await asyncio.sleep(0.05)
