"""Temporal's own clients and workers, on both sides of a workflow of ours."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from recording import Workers
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

import steporal
from steporal import Context, RunFailedError, Step
from steporal_workers.devserver import find_binary

pytestmark = pytest.mark.outside_runs


class Order(BaseModel):
    order_id: str
    amount: float


@activity.defn
async def shout(text: str) -> str:
    return text.upper()


@workflow.defn(name="native")
class Native:
    @workflow.run
    async def run(self, text: str) -> str:
        shouted: str = await workflow.execute_activity(shout, text, start_to_close_timeout=timedelta(seconds=10))
        return shouted


@workflow.defn(name="native parent")
class NativeParent:
    @workflow.run
    async def run(self, data: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = await workflow.execute_child_workflow("process-order", data)
        return result


@pytest.fixture
def process_order(app: steporal.Client) -> steporal.Workflow[Order, dict[str, Any]]:
    @app.workflow(id="process-order", input_schema=Order)
    async def handler(ctx: Context[Order], step: Step) -> dict[str, Any]:
        total = await step.run("total", lambda: ctx.input.data.amount * 2)
        return {"order": ctx.input.data.order_id, "total": total, "type": ctx.input.type, "id": ctx.input.id}

    return handler


async def temporal_cli(address: str, *arguments: str) -> dict[str, Any]:
    """Run Temporal's CLI."""
    process = await asyncio.create_subprocess_exec(
        find_binary(),
        *arguments,
        "--address",
        address,
        "--output",
        "json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output, errors.decode()
    result: dict[str, Any] = json.loads(output)
    return result


async def test_temporals_cli_starts_a_workflow_with_plain_json(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app):
        result = await temporal_cli(
            workers.temporal.service_client.config.target_host,
            "workflow",
            "execute",
            "--type",
            "process-order",
            "--task-queue",
            app.task_queue,
            "--workflow-id",
            f"{app.id} by hand",
            "--input",
            '{"order_id": "1", "amount": 3}',
        )
    assert result["status"] == "COMPLETED"
    assert result["result"] == {"order": "1", "total": 6, "type": "invoke", "id": f"{app.id} by hand"}


async def test_input_from_temporals_cli_that_does_not_fit_fails_the_run(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app):
        result = await temporal_cli(
            workers.temporal.service_client.config.target_host,
            "workflow",
            "execute",
            "--type",
            "process-order",
            "--task-queue",
            app.task_queue,
            "--workflow-id",
            f"{app.id} by hand",
            "--input",
            '{"amount": "much"}',
        )
    assert result["status"] == "FAILED"
    assert "order_id: Field required" in json.dumps(result)


async def test_a_plain_temporal_client_starts_a_workflow(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app):
        result = await workers.temporal.execute_workflow(
            "process-order", {"order_id": "2", "amount": 1.5}, id=f"{app.id} plain", task_queue=app.task_queue
        )
    assert result["total"] == 3.0


async def test_a_plain_temporal_client_sees_our_errors_as_application_errors(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app):
        with pytest.raises(WorkflowFailureError) as failed:
            await workers.temporal.execute_workflow(
                "process-order", {"order_id": 5}, id=f"{app.id} plain", task_queue=app.task_queue
            )
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.non_retryable) == ("InvalidInputError", True)


async def test_a_plain_start_without_input_is_none(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="empty")
    async def empty(ctx: Context[Any], step: Step) -> str:
        return repr(ctx.input.data)

    async with workers(app):
        result = await workers.temporal.execute_workflow("empty", id=f"{app.id} plain", task_queue=app.task_queue)
    assert result == "None"


async def test_native_workflows_and_activities_run_beside_ours(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app, workflows=[Native, NativeParent], activities=[shout]):
        temporal, queue = workers.temporal, app.task_queue
        assert await temporal.execute_workflow(Native.run, "hello", id=f"{app.id} native", task_queue=queue) == "HELLO"
        result = await temporal.execute_workflow(
            NativeParent.run, {"order_id": "3", "amount": 1}, id=f"{app.id} parent", task_queue=queue
        )
        assert result["total"] == 2
        assert (await (await process_order.start(Order(order_id="4", amount=2))).result())["total"] == 4
    workers.drop(f"{app.id} native", f"{app.id} parent")


async def test_a_worker_takes_the_plugin_of_one_client(
    app: steporal.Client, other_app: steporal.Client, workers: Workers
) -> None:
    with pytest.raises(steporal.DefinitionError, match="one steporal client"):
        Worker(workers.temporal, task_queue=app.task_queue, plugins=[app.plugin(), other_app.plugin()])


async def test_a_run_of_a_native_workflow_can_be_waited_for(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app, workflows=[Native], activities=[shout]):
        await workers.temporal.start_workflow(Native.run, "hi", id=f"{app.id} native", task_queue=app.task_queue)
        run = await app.get_run(f"{app.id} native")
        assert await run.result() == "HI"
    workers.drop(f"{app.id} native")


async def test_an_unknown_workflow_type_fails_no_other_run(
    app: steporal.Client, workers: Workers, process_order: steporal.Workflow[Order, dict[str, Any]]
) -> None:
    async with workers(app):
        stray = await workers.temporal.start_workflow("no-such", id=f"{app.id} stray", task_queue=app.task_queue)
        assert (await (await process_order.start({"order_id": "5", "amount": 1})).result())["total"] == 2
        await stray.terminate()


@pytest.mark.parametrize("data", [{"order_id": "a"}, None, "text"])
async def test_input_that_does_not_fit_is_refused_before_anything_starts(
    app: steporal.Client,
    workers: Workers,
    process_order: steporal.Workflow[Order, dict[str, Any]],
    data: Any,
) -> None:
    async with workers(app):
        with pytest.raises(steporal.InvalidInputError, match=r"workflow 'process-order' does not fit"):
            await process_order.start(data, id=f"{app.id} refused")
        with pytest.raises(Exception, match="not found"):
            await workers.temporal.get_workflow_handle(f"{app.id} refused").describe()


async def test_input_that_is_no_json_is_refused(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="any")
    async def handler(ctx: Context[Any], step: Step) -> None:
        return None

    async with workers(app):
        with pytest.raises(steporal.InvalidInputError, match="workflow 'any' cannot be sent"):
            await handler.start({"connection": object()})


async def test_an_error_of_a_run_has_the_type_that_was_raised(app: steporal.Client, workers: Workers) -> None:
    @app.workflow(id="raises", max_attempts=1)
    async def handler(ctx: Context[Any], step: Step) -> None:
        raise ApplicationError("Temporal's own", type="Mine", non_retryable=True)

    async with workers(app):
        with pytest.raises(RunFailedError) as failed:
            await (await handler.start()).result()
    assert (failed.value.name, failed.value.message) == ("Mine", "Temporal's own")
