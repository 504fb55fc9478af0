"""The app of `apps.clock_broken`, corrected."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx

import steporal
from steporal import Context, Step

client = steporal.Client("clock")


@client.workflow(id="now")
async def now(ctx: Context[Any], step: Step) -> str:
    before = await step.run("before", lambda: "before")
    return f"{before} {ctx.now():%Y}"


for _id in ("random", "uuid", "sleep", "open", "environment", "thread", "hidden", "helped"):

    @client.workflow(id=_id)
    async def corrected(ctx: Context[Any], step: Step) -> str:
        return "corrected"


@client.workflow(id="allowed")
async def allowed(ctx: Context[Any], step: Step) -> list[str]:
    """What a step may do, though a body may not."""

    def everything() -> list[str]:
        time.sleep(0)
        return [str(datetime.now(UTC).year), str(random.random())[:1], str(uuid.uuid4())[8], httpx.__name__]

    return await step.run("everything", everything)
