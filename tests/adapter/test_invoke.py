"""step.invoke_workflow: another workflow as a step."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from pydantic import BaseModel
from recording import Workers
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from waiting import LONG, until_received, until_waiting

import steporal
from steporal import Context, InvokeTimeoutError, RunFailedError, Step, StepError
from steporal.events import new_ulid
from steporal.wire.names import DELIVER, ENDED, REPORT
from steporal_workers.devserver import find_binary


class Order(BaseModel):
    id: str
    amount: float


async def test_an_invoked_workflow_returns_its_typed_result(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="double", input_schema=Order)
    async def double(ctx: Context[Order], step: Step) -> Order:
        return Order(id=ctx.input.data.id, amount=await step.run("double", lambda: ctx.input.data.amount * 2))

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[Any]:
        order = await step.invoke_workflow("double it", workflow=double, data=Order(id="a", amount=2))
        again = await step.invoke_workflow("double it", workflow=double, data={"id": "b", "amount": order.amount})
        return [type(order).__name__, order.amount, again.amount]

    async with workers(app):
        assert await (await parent.start()).result() == ["Order", 4.0, 8.0]


async def test_an_invoked_run_knows_that_it_was_invoked(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> list[Any]:
        return [ctx.input.type, ctx.input.name, ctx.input.data, ctx.ext.workflow_id == f"{app.id}/child/{ctx.input.id}"]

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[Any]:
        return await step.invoke_workflow("child", workflow=child, data={"a": 1})

    async with workers(app):
        assert await (await parent.start()).result() == ["invoke", "inngest/function.invoked", {"a": 1}, True]


async def test_an_invoked_workflow_that_fails_is_a_step_error(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child", max_attempts=1)
    async def child(ctx: Context[Any], step: Step) -> None:
        raise ValueError("the child is ill")

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[Any]:
        try:
            await step.invoke_workflow("call the child", workflow=child)
        except StepError as err:
            return [type(err).__name__, err.step_id, err.name, err.message]
        return []

    async with workers(app):
        result = await (await parent.start()).result()
    assert result == ["StepError", "call the child", "ValueError", "the child is ill"]


async def test_data_that_does_not_fit_starts_nothing(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child", input_schema=Order)
    async def child(ctx: Context[Order], step: Step) -> None:
        return None

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> None:
        await step.invoke_workflow("child", workflow=child, data={"id": "a"})

    async with workers(app):
        run = await parent.start()
        with pytest.raises(RunFailedError, match=r"'child'.*amount: Field required") as failed:
            await run.result()
        events = (await run.temporal.fetch_history()).events
    assert failed.value.name == "InvalidInputError"
    assert not any(e.HasField("start_child_workflow_execution_initiated_event_attributes") for e in events)


async def test_an_invoked_workflow_over_its_timeout_goes_on(app: steporal.Client, workers: Workers) -> None:
    may_end = asyncio.Event()

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> str:
        async def wait() -> str:
            await may_end.wait()
            return "ended later"

        return await step.run("wait", wait)

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[Any]:
        try:
            await step.invoke_workflow("child", workflow=child, timeout="30ms")
        except InvokeTimeoutError as err:
            return [err.step_id, err.name, err.message]
        return []

    async with workers(app):
        run = await parent.start()
        step_id, name, message = await run.result()
        may_end.set()
        started = [
            e.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
            for e in (await run.temporal.fetch_history()).events
            if e.HasField("child_workflow_execution_started_event_attributes")
        ]
        child_run = await app.get_run(started[0], child)
        assert await child_run.result() == "ended later"
    assert (step_id, name) == ("child", "InvokeTimeoutError")
    assert "'child'" in message


async def test_a_body_that_raises_joins_the_invoked_run(app: steporal.Client, workers: Workers) -> None:
    children = []

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> int:
        def count() -> int:
            children.append("child")
            return len(children)

        return await step.run("count", count)

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> int:
        task = asyncio.create_task(step.invoke_workflow("child", workflow=child))
        if ctx.attempt == 0:
            await asyncio.sleep(0.03)
            raise RuntimeError("while the child runs")
        return await task

    async with workers(app):
        assert await (await parent.start()).result() == 1
    assert children == ["child"]


async def test_invoked_workflows_run_at_the_same_time(app: steporal.Client, workers: Workers) -> None:
    barrier = asyncio.Barrier(3)

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> int:
        async def arrive() -> int:
            await barrier.wait()
            return int(ctx.input.data)

        return await step.run("arrive", arrive)

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[int]:
        return await asyncio.gather(*[step.invoke_workflow("child", workflow=child, data=n) for n in range(3)])

    async with workers(app):
        assert await (await parent.start()).result() == [0, 1, 2]


async def test_a_workflow_of_another_app_is_invoked_by_reference(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    @other_app.workflow(id="pack")
    async def pack(ctx: Context[Any], step: Step) -> dict[str, Any]:
        return {"queue": ctx.ext.task_queue, "order": ctx.input.data, "id": "x", "amount": 1}

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> list[Any]:
        plain = await step.invoke_workflow("pack", workflow=steporal.reference(other_app.id, "pack"), data="o-1")
        typed = await step.invoke_workflow(
            "pack again", workflow=steporal.reference(other_app.id, "pack", output_type=Order)
        )
        return [plain["queue"], plain["order"], type(typed).__name__]

    async with workers(other_app, is_listed=True), workers(app):
        assert await (await parent.start()).result() == [other_app.task_queue, "o-1", "Order"]


async def test_a_workflow_of_another_app_is_started_by_reference(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    @other_app.workflow(id="pack")
    async def pack(ctx: Context[Any], step: Step) -> str:
        return f"packed {ctx.input.data}"

    async with workers(other_app, is_listed=True), workers(app):
        run = await app.start_workflow(steporal.reference(other_app.id, "pack", output_type=str), "o-1")
        assert await run.result() == "packed o-1"


async def test_a_workflow_that_the_catalog_does_not_know_is_an_error_that_lists_what_it_knows(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    @other_app.workflow(id="pack")
    async def pack(ctx: Context[Any], step: Step) -> None:
        return None

    @app.workflow(id="parent", input_schema=str)
    async def parent(ctx: Context[str], step: Step) -> list[str]:
        app_id, _, workflow_id = ctx.input.data.partition("#")
        try:
            await step.invoke_workflow("call", workflow=steporal.reference(app_id, workflow_id))
        except StepError as err:
            return [err.step_id, err.name, err.message]
        return []

    async with workers(other_app, is_listed=True), workers(app):
        step_id, name, message = await (await parent.start(f"{other_app.id}#pakc")).result()
        assert (step_id, name) == ("call", "UnknownWorkflowError")
        assert "'pakc'" in message
        assert "'pack'" in message
        _, name, message = await (await parent.start("nobody#pack")).result()
        assert name == "UnknownWorkflowError"
        assert "no app 'nobody'" in message
        with pytest.raises(steporal.UnknownWorkflowError, match="its workflows are: 'pack'"):
            await app.start_workflow(steporal.reference(other_app.id, "pakc"))


async def test_what_is_no_workflow_is_refused(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> None:
        await step.invoke_workflow("call", workflow="pack")  # type: ignore[call-overload]

    async with workers(app):
        with pytest.raises(RunFailedError, match=r"step 'call': workflow is 'pack'.*reference") as failed:
            await (await parent.start()).result()
    assert failed.value.name == "InvalidArgumentError"


async def test_an_invoked_sleep_of_days_is_waited_for(
    app: steporal.Client, workers: Workers, skipping: temporalio.client.Client
) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> str:
        await step.sleep("a day", timedelta(days=1))
        return "rested"

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> str:
        return await step.invoke_workflow("child", workflow=child)

    async with workers(app):
        app.temporal = skipping
        assert await (await parent.start()).result() == "rested"


@pytest.mark.parametrize("child_has_ended", [False, True], ids=["goes on", "has ended"])
async def test_a_run_that_is_reset_by_hand_to_before_an_invoke_waits_for_the_run_that_it_had_invoked(
    app: steporal.Client, workers: Workers, child_has_ended: bool
) -> None:
    ran: list[str] = []
    signal = f"{app.id} {new_ulid()}"

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        await step.run("work", lambda: ran.append("child"))
        received = await step.wait_for_signal("go", signal=signal, timeout="1h")
        return received and received.data

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        answer = await step.invoke_workflow("child", workflow=child)
        await step.wait_for_signal("stop", signal=f"{signal} stop", timeout="1h")
        return answer

    async with workers(app), asyncio.timeout(LONG):
        run = await parent.start()
        while not ran:
            await asyncio.sleep(0.05)
        if child_has_ended:
            await until_received(app, signal, "the same")
            while "in stop" not in str((await run.temporal.fetch_history()).events):
                await asyncio.sleep(0.05)
        process = await asyncio.create_subprocess_exec(
            *(find_binary(), "workflow", "reset", "--workflow-id", run.workflow_id, "--type", "FirstWorkflowTask"),
            *("--reason", "by hand", "--address", workers.temporal.service_client.config.target_host),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        if not child_has_ended:
            await until_received(app, signal, "the same")
        await until_received(app, f"{signal} stop")
        assert await run.result() == "the same"
    assert ran == ["child"]


@pytest.mark.needs_cache("a local activity may be lost with its run's eviction, and each time costs 3 s")
async def test_an_invoked_run_that_ends_while_a_run_that_was_reset_asks_for_its_end_is_heard(
    app: steporal.Client, workers: Workers
) -> None:
    numbers, signal, chance = range(12), f"{app.id} {new_ulid()}", random.Random()
    waiting: list[int] = []

    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        await step.run("begins", lambda: waiting.append(ctx.input.data))
        received = await step.wait_for_signal("go", signal=f"{signal} {ctx.input.data}", timeout="1h")
        return received and received.data

    @app.workflow(id="parent")
    async def parent(ctx: Context[Any], step: Step) -> Any:
        return await step.invoke_workflow("child", workflow=child, data=ctx.input.data)

    async def is_reset_while_its_child_ends(number: int, run: steporal.Run[Any]) -> Any:
        await reset(run)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await until_received(app, f"{signal} {number}", number)
        return await run.result()

    async with workers(app), asyncio.timeout(LONG):
        runs = [await parent.start(number) for number in numbers]
        while len(waiting) < len(numbers):
            await asyncio.sleep(0.05)
        assert await asyncio.gather(*map(is_reset_while_its_child_ends, numbers, runs)) == list(numbers)


async def test_who_asks_for_the_end_of_a_run_with_what_ends_it_is_told(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="child")
    async def child(ctx: Context[Any], step: Step) -> Any:
        event = await step.ext.wait_for_event("wait", event="paid", timeout="1h")
        return event and event.id

    async with workers(app):
        run = await child.start()
        await until_waiting(run)
    event = {"name": "paid", "id": "1", "data": {}, "ts": 0, "v": None}
    await run.temporal.signal(DELIVER, {"run_id": run.run_id, "key": "wait", "event": event})
    await run.temporal.signal(REPORT, {"workflow_id": "a parent", "run_id": "its run"})
    await run.temporal.signal(REPORT, {"workflow_id": "another parent", "run_id": "its run"})
    async with workers(app), asyncio.timeout(LONG):
        assert await run.result() == "1"
    asked = [event.signal_external_workflow_execution_initiated_event_attributes for event in await events_of(run)]
    told = [each.workflow_execution.workflow_id for each in asked if each.signal_name == ENDED]
    assert told == ["a parent", "another parent"]


async def events_of(run: steporal.Run[Any]) -> list[HistoryEvent]:
    """The events of a run's history."""
    return list((await run.temporal.fetch_history()).events)


async def reset(run: steporal.Run[Any]) -> None:
    """Have a run begin again, as Temporal's UI does."""
    temporal = run.temporal._client
    await temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run.workflow_id),
            reason="by hand",
            workflow_task_finish_event_id=4,
            request_id=new_ulid(),
        )
    )
