"""The workflows of many steps that ``long_run.py`` measures."""

from __future__ import annotations

import asyncio

import steporal
from steporal import Context, Step

client = steporal.Client("bench long runs")


async def book(number: int) -> dict[str, object]:
    return {"number": number, "amount": number * 7 % 1000, "booked": True}


@client.workflow(id="one-by-one")
async def one_by_one(ctx: Context[int], step: Step) -> int:
    """Steps one after the other, each with a result of some fifty bytes."""
    total = 0
    for number in range(ctx.input.data):
        booked = await step.run("book", book, number)
        total += booked["amount"]  # type: ignore[operator]
    return total


@client.workflow(id="side-by-side")
async def side_by_side(ctx: Context[int], step: Step) -> int:
    """The same, a hundred at a time."""
    total = 0
    for first in range(0, ctx.input.data, 100):
        numbers = range(first, min(first + 100, ctx.input.data))
        booked = await asyncio.gather(*(step.run("book", book, number) for number in numbers))
        total += sum(each["amount"] for each in booked)  # type: ignore[misc]
    return total
