"""Last attempts of steps that the server hands to a worker which never begins them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import temporalio.client
from google.protobuf.field_mask_pb2 import FieldMask
from recording import Workers
from temporalio import activity
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import RetryPolicy, WorkflowExecution
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest, UpdateActivityOptionsRequest
from temporalio.service import RPCError, RPCStatusCode
from waiting import until

import steporal
from steporal import Context, Step, StepError, WorkflowExt
from steporal.activities import announcing
from steporal.history.recovery import rebuild
from steporal.wire.failures import NEVER_BEGAN
from steporal.wire.run_state import read_outcome


@pytest.fixture
def far() -> str:
    """Task queue of the steps."""
    return f"far-{uuid4().hex}"


async def take(temporal: temporalio.client.Client, task_queue: str) -> int:
    """Take an activity as a worker does that ends at once, and return the attempt."""
    request = PollActivityTaskQueueRequest(
        namespace=temporal.namespace, task_queue=TaskQueue(name=task_queue), identity="ends at once"
    )
    taken = await temporal.workflow_service.poll_activity_task_queue(request, timeout=timedelta(minutes=1))
    assert taken.task_token
    return taken.attempt


async def test_the_only_attempt_of_a_step_that_no_worker_began_begins_elsewhere(
    app: steporal.Client, workers: Workers, far: str
) -> None:
    charged: list[int] = []

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="1s"))
    async def charges(ctx: Context[Any], step: Step) -> int:
        def charge() -> int:
            charged.append(ctx.attempt)
            return len(charged)

        return await step.run("charge", charge, max_attempts=1, task_queue=far)

    async with workers(app):
        run = await charges.start()
        assert [await take(workers.temporal, far), await take(workers.temporal, far)] == [1, 1]
        async with workers(app, task_queue=far):
            assert await run.result() == 1
    assert charged == [0]
    rebuilt = await rebuild((await run.temporal.fetch_history()).events, workers.temporal.data_converter)
    assert {key: read_outcome(outcome).value for key, outcome in rebuilt.carried.memo.items()} == {"charge": 1}
    assert rebuilt.in_flight == ()


async def test_a_last_attempt_that_no_worker_began_does_not_count(
    app: steporal.Client, workers: Workers, far: str
) -> None:
    attempts: list[int] = []

    @app.workflow(id="declines", ext=WorkflowExt(heartbeat_timeout="1s"))
    async def declines(ctx: Context[Any], step: Step) -> int:
        def decline() -> None:
            attempts.append(ctx.attempt)
            raise ValueError("declined")

        try:
            await step.run("decline", decline, max_attempts=2, task_queue=far)
        except StepError as err:
            return err.attempts
        return 0

    async with workers(app):
        run = await declines.start()
        assert await take(workers.temporal, far) == 1  # it may have begun: two attempts were left
        async with workers(app, task_queue=far):
            assert await run.result() == 2
    assert len(attempts) == 1


async def test_a_step_that_only_lost_workers_receive_fails(app: steporal.Client, workers: Workers, far: str) -> None:
    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="1s", code_timeout=0))
    async def charges(ctx: Context[Any], step: Step) -> str:
        try:
            await step.run("charge", lambda: None, max_attempts=1, task_queue=far)
        except StepError as err:
            return err.message
        return ""

    async with workers(app):
        run = await charges.start()
        await take(workers.temporal, far)
        assert await run.result() == NEVER_BEGAN


async def test_heartbeats_of_a_step_itself_do_not_make_it_begin_again(
    app: steporal.Client, workers: Workers, far: str
) -> None:
    """After them no heartbeat may be without the name of the worker, which shows that the step has begun."""
    begun: list[str] = []
    may_end = asyncio.Event()

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="1s"))
    async def charges(ctx: Context[Any], step: Step) -> str:
        async def charge() -> None:
            activity.heartbeat()
            begun.append("charge")
            await may_end.wait()

        try:
            await step.run("charge", charge, max_attempts=1, task_queue=far)
        except StepError as err:
            return err.message
        return ""

    async with workers(app), workers(app, task_queue=far):
        run = await charges.start()
        await until(lambda: bool(begun))
        details = await heartbeat_details(run)
        may_end.set()
        assert await run.result() == ""
    assert [each.keys() for each in details] == [{"worker", "attempt"}]


async def test_the_start_is_recorded_though_an_operator_has_given_the_activity_more_attempts(
    app: steporal.Client, workers: Workers, far: str
) -> None:
    details: list[Any] = []

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="30s"))
    async def charges(ctx: Context[Any], step: Step) -> None:
        async def charge() -> None:
            details.extend(await heartbeat_details(run))

        await step.run("charge", charge, max_attempts=1, task_queue=far)

    async with workers(app):
        run = await charges.start()
        while not (await run.temporal.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.02)
        await workers.temporal.workflow_service.update_activity_options(
            UpdateActivityOptionsRequest(
                namespace=workers.temporal.namespace,
                execution=WorkflowExecution(workflow_id=run.temporal.id),
                id="charge",
                activity_options=ActivityOptions(retry_policy=RetryPolicy(maximum_attempts=3)),
                update_mask=FieldMask(paths=["retry_policy.maximum_attempts"]),
            )
        )
        async with workers(app, task_queue=far):
            await run.result()
    assert [each.keys() for each in details] == [{"worker", "attempt"}]


async def heartbeat_details(run: steporal.Run[Any]) -> list[Any]:
    """Return what the last heartbeat of the only pending activity of a run says."""
    description = await run.temporal.describe()
    (pending,) = description.raw_description.pending_activities
    return await description.data_converter.decode(pending.heartbeat_details.payloads)


async def test_a_step_does_not_begin_while_the_server_cannot_record_it(
    app: steporal.Client, workers: Workers, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    asked: list[str] = []

    async def unavailable(*args: Any, **kwargs: Any) -> None:
        asked.append("unavailable")
        raise RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")

    async def denied(*args: Any, **kwargs: Any) -> None:
        asked.append("denied")
        raise RPCError("not allowed", RPCStatusCode.PERMISSION_DENIED, b"")

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="30s"))
    async def charges(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", lambda: begun.append("charge"), max_attempts=1, task_queue=far)

    monkeypatch.setattr(announcing, "_PAUSE_SECONDS", 0.0)
    async with workers(app), workers(app, task_queue=far):
        with monkeypatch.context() as patched:
            service = type(workers.temporal.workflow_service)
            patched.setattr(service, "record_activity_task_heartbeat", unavailable)
            run = await charges.start()
            await until(lambda: len(asked) > 3)
            patched.setattr(service, "record_activity_task_heartbeat", denied)
            await until(lambda: asked.count("denied") > 1)  # the step begins again, and nothing is counted
            assert begun == []
        await run.result()
    assert begun == ["charge"]


async def test_a_step_whose_worker_ends_before_it_begins_begins_elsewhere(
    app: steporal.Client, workers: Workers, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    asked: list[str] = []

    async def silent(*args: Any, **kwargs: Any) -> None:
        asked.append("silent")
        await asyncio.Event().wait()

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="30s"))
    async def charges(ctx: Context[Any], step: Step) -> None:
        await step.run("charge", lambda: begun.append("charge"), max_attempts=1, task_queue=far)

    async with workers(app):
        with monkeypatch.context() as patched:
            patched.setattr(type(workers.temporal.workflow_service), "record_activity_task_heartbeat", silent)
            async with workers(app, task_queue=far):
                run = await charges.start()
                await until(lambda: bool(asked))
        assert begun == []
        async with workers(app, task_queue=far):
            await run.result()
    assert begun == ["charge"]


async def test_a_worker_that_announces_a_step_too_late_does_not_begin_it(
    app: steporal.Client, workers: Workers, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was paused before it announced the step continues after the step has begun again."""
    begun: list[str] = []
    refused: list[RPCStatusCode] = []
    calls: list[str] = []
    has_begun, may_end = asyncio.Event(), asyncio.Event()
    service = type(workers.temporal.workflow_service)
    record = service.record_activity_task_heartbeat

    async def paused(*args: Any, **kwargs: Any) -> Any:
        calls.append("announced")
        if len(calls) == 1:
            with suppress(asyncio.CancelledError):
                await has_begun.wait()
            await has_begun.wait()
        try:
            return await record(*args, **kwargs)
        except RPCError as err:
            refused.append(err.status)
            raise

    @app.workflow(id="charges", ext=WorkflowExt(heartbeat_timeout="1s"))
    async def charges(ctx: Context[Any], step: Step) -> None:
        async def charge() -> None:
            begun.append("charge")
            has_begun.set()
            await may_end.wait()

        await step.run("charge", charge, max_attempts=1, task_queue=far)

    monkeypatch.setattr(service, "record_activity_task_heartbeat", paused)
    async with workers(app), workers(app, task_queue=far):
        run = await charges.start()
        await until(lambda: bool(refused))
        may_end.set()
        await run.result()
    assert refused == [RPCStatusCode.NOT_FOUND]
    assert begun == ["charge"]
