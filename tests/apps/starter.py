"""An app whose module is also a program that starts its workflows: ``python -m apps.starter ADDRESS``."""

from __future__ import annotations

import asyncio
import enum
import sys
from typing import Any, Literal

import pydantic
import temporalio.client

import steporal
from steporal import Context, Step

client = steporal.Client("starter", max_attempts=1)


class Unit(enum.Enum):
    BOX = "box"


class Line(pydantic.BaseModel):
    unit: Literal[Unit.BOX] = Unit.BOX


class Order(pydantic.BaseModel):
    net: float
    lines: list[Line] = [Line()]
    _note: str = ""

    @pydantic.field_validator("net")
    @classmethod
    def without_tax(cls, value: float) -> float:
        return value / 2


@client.workflow(id="typed", input_schema=Order)
async def typed(ctx: Context[Order], step: Step) -> Order:
    """Return the input, which went through a step."""
    order = ctx.input.data
    return await step.run("copy", lambda: order)


@client.workflow(id="untyped")
async def untyped(ctx: Context[Any], step: Step) -> Any:
    """Return the input, which went through a step."""
    orders = ctx.input.data
    return await step.run("copy", lambda: orders)


async def main(address: str) -> None:
    """Start each workflow with an order, and print what comes back."""
    client.temporal = await temporalio.client.Client.connect(address)
    order = Order(net=2)
    order._note = "first"
    for run in (await typed.start(order), await untyped.start([order])):
        result = await run.result()
        copy = result[0] if isinstance(result, list) else result
        print(type(copy) is Order, copy.net, copy._note, copy.lines[0].unit is Unit.BOX)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
