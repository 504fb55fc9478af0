"""The workflows that are measured, as a user of Steporal writes them; ``native.py`` has the same by hand."""

from __future__ import annotations

from pydantic import BaseModel

import steporal
from steporal import Context, Step

client = steporal.Client("bench")


class Order(BaseModel):
    order_id: str
    amount: int


async def add(amount: int) -> int:
    return amount + 1


@client.workflow(id="steps-1", input_schema=Order)
async def steps_1(ctx: Context[Order], step: Step) -> int:
    return await step.run("add", add, ctx.input.data.amount)


@client.workflow(id="steps-3", input_schema=Order)
async def steps_3(ctx: Context[Order], step: Step) -> int:
    amount = ctx.input.data.amount
    for name in ("first", "second", "third"):
        amount = await step.run(name, add, amount)
    return amount


@client.workflow(id="steps-10", input_schema=Order)
async def steps_10(ctx: Context[Order], step: Step) -> int:
    amount = ctx.input.data.amount
    for _ in range(10):
        amount = await step.run("add", add, amount)
    return amount


@client.workflow(id="steps-50", input_schema=Order)
async def steps_50(ctx: Context[Order], step: Step) -> int:
    amount = ctx.input.data.amount
    for _ in range(50):
        amount = await step.run("add", add, amount)
    return amount


@client.workflow(id="lambdas-3", input_schema=Order)
async def lambdas_3(ctx: Context[Order], step: Step) -> int:
    amount = ctx.input.data.amount
    for name in ("first", "second", "third"):
        amount = await step.run(name, lambda: add(amount))
    return amount


@client.workflow(id="local-3", input_schema=Order)
async def local_3(ctx: Context[Order], step: Step) -> int:
    amount = ctx.input.data.amount
    for name in ("first", "second", "third"):
        amount = await step.run(name, add, amount, local=True)
    return amount


@client.workflow(id="asleep", input_schema=Order)
async def asleep(ctx: Context[Order], step: Step) -> int:
    amount = await step.run("add", add, ctx.input.data.amount)
    await step.sleep("wait", "1h")
    return amount
