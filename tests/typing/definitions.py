"""What a type checker knows of workflows and runs, outside a handler. Never run: ``make types`` reads it.

An expected error is written as ``# type: ignore[code]``; as unused ones are errors too, each of them is a test.
"""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel
from temporalio.worker import Worker

import steporal
from steporal import Context, ReceivedEvent, Run, SendEventResult, Step, Workflow, cron_trigger, event_trigger

client = steporal.Client("typed")


class Order(BaseModel):
    order_id: str


# --- definitions ---------------------------------------------------------------------------------------------------


@client.workflow(
    id="process", input_schema=Order, triggers=[event_trigger("order.placed"), cron_trigger("@daily", jitter="5m")]
)
async def process(ctx: Context[Order], step: Step) -> dict[str, float]:
    assert_type(ctx.input.data, Order)
    return {}


@client.workflow(id="total", input_schema=list[int], max_attempts=2, retry=steporal.RetryPolicy())
async def total(ctx: Context[list[int]], step: Step) -> int:
    assert_type(ctx.input.data, list[int])
    return sum(ctx.input.data)


@client.workflow(id="union", input_schema=int | str)
async def union(ctx: Context[int | str], step: Step) -> None:
    assert_type(ctx.input.data, int | str)


@client.workflow(id="untyped")
async def untyped(ctx: Context, step: Step) -> str:
    assert_type(ctx.input.data, Any)
    return str(ctx.input.data["key"])


@client.workflow(id="annotated alone")
async def annotated_alone(ctx: Context[dict[str, int]], step: Step) -> None:
    assert_type(ctx.input.data, dict[str, int])


@client.workflow(id="wrong schema", input_schema=Order)  # type: ignore[arg-type]
async def wrong_schema(ctx: Context[int], step: Step) -> None: ...


@client.workflow(id="no coroutine", input_schema=Order)  # type: ignore[arg-type]
def no_coroutine(ctx: Context[Order], step: Step) -> None: ...


@client.workflow(id="three parameters")  # type: ignore[arg-type]
async def three_parameters(ctx: Context, step: Step, more: int) -> None: ...


@client.workflow(id="no trigger", triggers=["order.placed"])  # type: ignore[list-item]
async def no_trigger(ctx: Context, step: Step) -> None: ...


steporal.cron_trigger(5)  # type: ignore[arg-type]
steporal.event_trigger("order.placed", if_exp=True)  # type: ignore[arg-type]
steporal.Client("typed", max_attempts="4")  # type: ignore[arg-type]


# --- runs ----------------------------------------------------------------------------------------------------------


async def outside() -> None:
    assert_type(process, Workflow[Order, dict[str, float]])
    assert_type(untyped, Workflow[Any, str])
    run = await process.start(Order(order_id="1"))
    assert_type(run, Run[dict[str, float]])
    assert_type(await run.result(), dict[str, float])
    assert_type(await client.start_workflow(total, [1, 2]), Run[int])
    assert_type(await client.start_workflow(process, {"order_id": "1"}), Run[dict[str, float]])
    elsewhere = steporal.reference("other-app", "their-workflow", output_type=Order)
    assert_type(await client.start_workflow(elsewhere, {"any": "JSON"}), Run[Order])
    assert_type(await client.get_run("process/1", process), Run[dict[str, float]])
    assert_type(await client.get_run("process/1"), Run[Any])

    assert_type(await client.send_event({"name": "order.placed"}), SendEventResult)
    assert_type(ReceivedEvent(name="a", data={}, id="1", ts=1).v, str | None)
    Worker(await client.connect(), task_queue=client.task_queue, plugins=[client.plugin()])

    await client.send_event(5)  # type: ignore[arg-type]
    await client.start_workflow("process", {})  # type: ignore[call-overload]
    wrong: str = await run.result()  # type: ignore[assignment]
    run.result()  # type: ignore[unused-coroutine]
    process(wrong, wrong)  # type: ignore[operator]


def blocking() -> None:
    assert_type(client.send_event_sync({"name": "order.placed"}), SendEventResult)
    assert_type(client.start_workflow_sync(total, [1, 2]).result_sync(), int)
    assert_type(client.start_workflow_sync(process, {"order_id": "a"}), Run[dict[str, float]])
    assert_type(client.get_run_sync("total/1", total), Run[int])
    assert_type(total.start_sync([1, 2]), Run[int])
    client.send_event_sync(5)  # type: ignore[arg-type]
    client.start_workflow_sync(total, [1, 2], run_id="a")  # type: ignore[call-overload]
