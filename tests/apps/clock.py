"""The app of `apps.clock_broken`, corrected."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import BaseModel

import steporal
from steporal import Context, Step, event_trigger

client = steporal.Client("clock")

LOADED_AT = time.monotonic_ns()
"""Another one in each load of this module."""


class Reading(BaseModel):
    loaded_at: int


@client.workflow(id="now")
async def now(ctx: Context[Any], step: Step) -> str:
    before = await step.run("before", lambda: "before")
    return f"{before} {ctx.now():%Y}"


for _id in ("random", "uuid", "sleep", "open", "environment", "thread", "hidden", "helped"):

    @client.workflow(id=_id)
    async def corrected(ctx: Context[Any], step: Step) -> str:
        return "corrected"


@client.workflow(id="reloaded", triggers=[event_trigger("clock.reload")])
async def reloaded(ctx: Context[Any], step: Step) -> list[Any]:
    """What the body sees of this module, and what a step sees of it."""
    reading = Reading(loaded_at=1)
    there = await step.run("read", lambda: Reading(loaded_at=LOADED_AT))
    came_back = await step.run("send", lambda: reading)
    return [
        LOADED_AT,
        there.loaded_at,
        type(there) is Reading,
        came_back == reading,
        httpx.__name__,
        len(client.workflows),
    ]


@client.workflow(id="allowed")
async def allowed(ctx: Context[Any], step: Step) -> list[str]:
    """What a step may do, though a body may not."""

    def everything() -> list[str]:
        time.sleep(0)
        return [str(datetime.now(UTC).year), str(random.random())[:1], str(uuid.uuid4())[8], httpx.__name__]

    return await step.run("everything", everything)
