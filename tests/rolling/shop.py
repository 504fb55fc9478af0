"""The app that all processes serve. Its steps write down that they have happened."""

from __future__ import annotations

from typing import Any

import steporal
from steporal import Context, Step, event_trigger
from tests.chaos.doing import act

client = steporal.Client("rolling", park_after="2s")


@client.workflow(id="order", triggers=[event_trigger("rolling.placed")])
async def order(ctx: Context[Any], step: Step) -> int:
    """Waits for an event, and then for a signal."""
    number, seconds = ctx.input.data["number"], ctx.input.data["seconds"]
    heard = await step.ext.listen("payments", event="rolling.paid", match="data.number", timeout="1h")
    async with heard as payments:
        await step.run("reserve", act, number, seconds)
        await payments.next("paid")
    await step.run("pack", act, number)
    await step.wait_for_signal("picked up", signal=f"pick-up/{number}", timeout="1h")
    await step.ext.send_event("shipped", {"name": "rolling.shipped", "data": {"number": number}})
    return number


@client.workflow(id="notice", triggers=[event_trigger("rolling.shipped")])
async def notice(ctx: Context[Any], step: Step) -> int:
    return await step.run("noted", act, ctx.input.data["number"], 0.0, str(ctx.input.data["number"]))


@client.workflow(id="parcel", triggers=[event_trigger("rolling.parcel")])
async def parcel(ctx: Context[Any], step: Step) -> int:
    """One of many of a request."""
    return await step.run("sorted", act, ctx.input.data["number"])


@client.workflow(id="quote")
async def quote(ctx: Context[Any], step: Step) -> int:
    """Invoked, not started by an event: a request that is sent again starts another."""
    return await step.run("reckon", act, ctx.input.data["number"], 0.0, str(ctx.input.data["number"]))
