"""A body of which a task is lost, as if the SDK had interrupted it where its event loop takes up what comes next."""

from __future__ import annotations

import asyncio
from typing import Any

import steporal
from steporal import Context, Step

client = steporal.Client("lost", park_after="never")


class Interrupted(BaseException):
    """What stands for the SDK's own."""


@client.workflow(id="lost")
async def lost(ctx: Context[Any], step: Step) -> None:
    await step.run("before", before)
    loop = vars(asyncio.get_running_loop())

    def interrupted(*args: Any, **options: Any) -> None:
        del loop["call_soon"]
        raise Interrupted

    loop["call_soon"] = interrupted
    await asyncio.sleep(0)


@client.workflow(id="next")
async def next_one(ctx: Context[Any], step: Step) -> None:
    """Takes the place of the other in the worker's memory."""
    await step.run("before", before)


def before() -> None:
    """Nothing to do."""
