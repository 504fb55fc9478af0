"""What a type checker knows in a handler. Never run: ``make types`` reads it.

An expected error is written as ``# type: ignore[code]``; as unused ones are errors too, each of them is a test.
"""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

import steporal
from steporal import Context, ReceivedSignal, SendEventResult, SentEvent, Step

client = steporal.Client("typed")


class Order(BaseModel):
    order_id: str
    amount: float


def price(order: Order, factor: int = 1) -> float:
    return order.amount * factor


async def fetch(order_id: str) -> Order:
    return Order(order_id=order_id, amount=1)


class Shelf(BaseModel):
    name: str

    def look(self, depth: int) -> list[str]:
        return [self.name] * depth

    @classmethod
    def named(cls, name: str) -> Shelf:
        return cls(name=name)


def forget(order: Order) -> None: ...


@client.workflow(id="total", input_schema=list[int])
async def total(ctx: Context[list[int]], step: Step) -> int:
    return sum(ctx.input.data)


@client.workflow(id="process", input_schema=Order)
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

    assert_type(await step.run("method", Shelf(name="a").look, 2), list[str])
    assert_type(await step.run("class method", Shelf.named, "a"), Shelf)
    assert_type(await step.run("nothing", forget, order), None)
    assert_type(await step.run("generic output type", lambda: ["1"], output_type=list[int]), list[int])

    def nested() -> str:
        return order.order_id

    async def nested_async() -> list[str]:
        return [order.order_id]

    assert_type(await step.run("nested", nested), str)
    assert_type(await step.run("nested async", nested_async), list[str])
    first, second = await asyncio.gather(step.run("a", nested), step.run("b", nested_async))
    assert_type(first, str)
    assert_type(second, list[str])
    assert_type(await asyncio.gather(*(step.run("each", price, order, n) for n in range(3))), list[float])
    assert_type([await step.run("loop", lambda: n) for n in range(3)], list[int])
    caught = await asyncio.gather(step.run("c", nested), step.run("d", price, order), return_exceptions=True)
    assert_type(caught, tuple[str | BaseException, float | BaseException])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.run("task", nested))
    assert_type(task.result(), str)
    assert_type(await asyncio.wait_for(step.run("limited", nested), 5), str)

    await step.sleep("milliseconds", 500)
    await step.sleep("timedelta", timedelta(days=1))
    await step.sleep_until("until", datetime(2030, 1, 1, tzinfo=UTC))
    await step.ext.sleep_until("also until", datetime(2030, 1, 1, tzinfo=UTC))

    assert_type(await step.invoke_workflow("invoke", workflow=total, data=[1, 2], timeout="1h"), int)
    assert_type(await step.invoke_workflow("as JSON", workflow=total, data="[1, 2]"), int)
    assert_type(await step.invoke_workflow("without data", workflow=total), int)
    unknown = steporal.reference("other-app", "their-workflow")
    assert_type(await step.invoke_workflow("untyped reference", workflow=unknown), Any)
    elsewhere = steporal.reference("other-app", "their-workflow", output_type=Order)
    assert_type(await step.invoke_workflow("reference", workflow=elsewhere, data={"any": "JSON"}), Order)
    sent = await step.ext.send_event("send", [{"name": "order.created"}, SentEvent(name="order.priced")])
    assert_type(sent, SendEventResult)
    assert_type(sent.ids, list[str])

    signal = await step.wait_for_signal("signal", signal="approval", timeout="1h", schema=Order)
    assert_type(signal, ReceivedSignal[Order] | None)
    untyped = await step.wait_for_signal("untyped", signal="approval", timeout=5, on_conflict="replace")
    assert_type(untyped, ReceivedSignal[Any] | None)
    assert_type((await step.send_signal("send it", signal="approval", data=order)).run_id, str | None)

    # An overload whose arguments do not fit is one error or two, depending on what else could fit.
    await step.run("too few", fetch)  # type: ignore[call-arg, arg-type]
    await step.run("too many", nested, 5)  # type: ignore[arg-type]
    await step.run("wrong type", price, "not an order", 2)  # type: ignore[call-arg, arg-type]
    await step.run("a result", price(order))  # type: ignore[call-overload]
    await step.run("a name", "price", order)  # type: ignore[call-overload]
    await step.run("no function")  # type: ignore[call-overload]
    await step.run(5, nested)  # type: ignore[call-overload]
    await step.run("no such option", nested, retries=5)  # type: ignore[call-overload]
    await step.run("wrong option", nested, timeout=1.5)  # type: ignore[call-arg, call-overload]
    wrong: int = await step.run("another type", nested)  # type: ignore[call-arg, arg-type]
    await step.sleep("a float", 1.5)  # type: ignore[arg-type]
    await step.sleep("no duration")  # type: ignore[call-arg]
    await step.sleep_until("a duration", "1h")  # type: ignore[arg-type]
    await step.invoke_workflow("a name", workflow="total", data=[1])  # type: ignore[call-overload]
    await step.invoke_workflow("by position", total, [1])  # type: ignore[call-overload]
    await step.ext.send_event("a name", "order.placed")  # type: ignore[arg-type]
    await step.wait_for_signal("for ever", signal="approval")  # type: ignore[call-overload]
    await step.wait_for_signal("what?", signal="a", timeout=5, on_conflict="queue")  # type: ignore[call-overload]
    await step.send_signal("by position", "approval")  # type: ignore[call-arg]
    order.order_nr = "1"  # type: ignore[attr-defined]
    ctx.attempt = 1  # type: ignore[misc]
    step.sleep("not awaited", 5)  # type: ignore[unused-coroutine]
    return {"amount": wrong}
