"""What a type checker knows of a user's code. Never run: ``make types`` reads it.

An expected error is written as ``# type: ignore[code]``; as unused ones are errors too, each of them is a test.
"""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

import steporal
from steporal import Context, ReceivedEvent, Run, SendEventResult, SentEvent, Step, Workflow, event_trigger

client = steporal.Client("typed")


class Order(BaseModel):
    order_id: str
    amount: float


def price(order: Order, factor: int = 1) -> float:
    return order.amount * factor


async def fetch(order_id: str) -> Order:
    return Order(order_id=order_id, amount=1)


@client.workflow(id="process", input_schema=Order, triggers=[event_trigger("order.placed")])
async def process(ctx: Context[Order], step: Step) -> dict[str, float]:
    assert_type(ctx.input.data, Order)
    assert_type(ctx.attempt, int)
    assert_type(ctx.now(), datetime)
    order = ctx.input.data

    assert_type(await step.run("lambda", lambda: order.amount), float)
    assert_type(await step.run("lambda of a coroutine", lambda: fetch(order.order_id)), Order)
    assert_type(await step.run("function", fetch, order.order_id), Order)
    assert_type(await step.run("arguments", price, order, 2), float)
    assert_type(await step.run("default arguments", price, order), float)
    assert_type(await step.run("partial", functools.partial(price, order, factor=2)), float)
    assert_type(await step.run("output type", lambda: {"order_id": "1"}, output_type=Order), Order)
    assert_type(await step.run("options", price, order, 2, max_attempts=1, timeout="5m", local=True), float)

    def nested() -> str:
        return order.order_id

    async def nested_async() -> list[str]:
        return [order.order_id]

    assert_type(await step.run("nested", nested), str)
    assert_type(await step.run("nested async", nested_async), list[str])
    first, second = await asyncio.gather(step.run("a", nested), step.run("b", nested_async))
    assert_type(first, str)
    assert_type(second, list[str])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.run("task", nested))
    assert_type(task.result(), str)
    assert_type(await asyncio.wait_for(step.run("limited", nested), 5), str)

    await step.sleep("milliseconds", 500)
    await step.sleep("timedelta", timedelta(days=1))
    await step.sleep_until("until", datetime(2030, 1, 1, tzinfo=UTC))
    await step.ext.sleep_until("also until", datetime(2030, 1, 1, tzinfo=UTC))

    assert_type(await step.invoke_workflow("invoke", workflow=total, data=[1, 2], timeout="1h"), int)
    elsewhere = steporal.reference("other-app", "their-workflow", output_type=Order)
    assert_type(await step.invoke_workflow("reference", workflow=elsewhere, data={"any": "JSON"}), Order)
    sent = await step.ext.send_event("send", [{"name": "order.created"}, SentEvent(name="order.priced")])
    assert_type(sent, SendEventResult)
    assert_type(sent.ids, list[str])

    await step.run("too few", fetch)  # type: ignore[call-arg, arg-type]
    await step.run("wrong type", price, "not an order", 2)  # type: ignore[call-arg, arg-type]
    await step.run(5, nested)  # type: ignore[call-overload]
    await step.run("no such option", nested, retries=5)  # type: ignore[call-overload]
    await step.sleep("a float", 1.5)  # type: ignore[arg-type]
    await step.sleep_until("a duration", "1h")  # type: ignore[arg-type]
    step.sleep("not awaited", 5)  # type: ignore[unused-coroutine]
    ctx.input = ctx.input
    return {"amount": 1.0}


@client.workflow(id="total", input_schema=list[int])
async def total(ctx: Context[list[int]], step: Step) -> int:
    return sum(ctx.input.data)


@client.workflow(id="untyped")
async def untyped(ctx: Context, step: Step) -> str:
    assert_type(ctx.input.data, Any)
    return str(ctx.input.data["key"])


@client.workflow(id="wrong schema", input_schema=Order)  # type: ignore[arg-type]
async def wrong_schema(ctx: Context[int], step: Step) -> None: ...


@client.workflow(id="no coroutine", input_schema=Order)  # type: ignore[arg-type]
def no_coroutine(ctx: Context[Order], step: Step) -> None: ...


async def outside() -> None:
    assert_type(process, Workflow[Order, dict[str, float]])
    run = await process.start(Order(order_id="1", amount=2))
    assert_type(run, Run[dict[str, float]])
    assert_type(await run.result(), dict[str, float])
    assert_type(await client.start_workflow(total, [1, 2]), Run[int])
    assert_type(await client.start_workflow(process, {"order_id": "1", "amount": 2}), Run[dict[str, float]])
    assert_type(await client.send_event({"name": "order.placed"}), SendEventResult)
    assert_type(ReceivedEvent(name="a", data={}, id="1", ts=1).v, str | None)
    await client.send_event(5)  # type: ignore[arg-type]
