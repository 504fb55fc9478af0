"""A body of which a task is lost, as if the SDK had interrupted it where its event loop takes up what comes next."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow

import steporal
from steporal import Context, Step

client = steporal.Client("lost", park_after="never")


class Interrupted(BaseException):
    """What stands for the SDK's own."""


@client.workflow(id="lost")
async def lost(ctx: Context[Any], step: Step) -> None:
    await step.run("before", before)
    await asyncio.gather(*(be_lost() for _ in range(3)))


@workflow.defn(name="lost native", sandboxed=False)
class Native:
    """One that runs without a sandbox, as the system workflows do."""

    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(0.01)
        await asyncio.gather(*(be_lost() for _ in range(3)))


async def be_lost() -> None:
    """Let the event loop be interrupted as it takes up this task again.

    Whoever closes it ends the timer, which is a command: the SDK refuses it for a run that is being evicted.
    """
    loop = vars(asyncio.get_running_loop())
    ours = loop.get("call_soon")

    def interrupted(*args: Any, **options: Any) -> None:
        del loop["call_soon"]
        if ours is not None:
            loop["call_soon"] = ours
        raise Interrupted

    async with asyncio.timeout(1000):
        loop["call_soon"] = interrupted
        await asyncio.sleep(0)


@client.workflow(id="next")
async def next_one(ctx: Context[Any], step: Step) -> None:
    """Takes the place of the other in the worker's memory."""
    await step.run("before", before)


def before() -> None:
    """Nothing to do."""
