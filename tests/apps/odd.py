"""Workflows that other programs start with anything."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

import steporal
from steporal import Context, Step

client = steporal.Client("odd", max_attempts=1)


sink = client.event_sink("odd.sunk", "http://127.0.0.1:9/", id="odd-sink", allow_private=True, give_up_after="1s")


class Count(BaseModel):
    count: int


@client.workflow(id="odd-echo")
async def echo(ctx: Context[Any], step: Step) -> Any:
    given = ctx.input.data
    return await step.run("echo", lambda: given)


@client.workflow(id="odd-counted", input_schema=Count)
async def counted(ctx: Context[Count], step: Step) -> int:
    return ctx.input.data.count


@client.workflow(id="odd-waits")
async def waits(ctx: Context[Any], step: Step) -> Any:
    event = await step.ext.wait_for_event("wait", event="odd.done", match="data.key", timeout="1h")
    return event and event.data
