"""Bodies that cancel what is in a set; those that are cancelled clean up, in the order in which they are."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

import steporal
from steporal import Context, Step, StepError

client = steporal.Client("races", park_after="never")

RUNNERS = 12


@client.workflow(id="race")
async def race(ctx: Context[Any], step: Step) -> list[int]:
    """What asyncio.wait returns is a set."""
    runners = scattered(lambda n: asyncio.create_task(runner(step, n)))
    done, pending = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    await asyncio.gather(*runners, return_exceptions=True)
    return [runners.index(task) for task in done]


@client.workflow(id="race of pairs")
async def race_of_pairs(ctx: Context[Any], step: Step) -> list[int]:
    """So do futures of gather."""
    runners = scattered(lambda n: asyncio.gather(runner(step, n), step.sleep(f"with {n}", 1)))
    done, pending = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    await asyncio.gather(*runners, return_exceptions=True)
    return [runners.index(pair) for pair in done]


@client.workflow(id="race of shields")
async def race_of_shields(ctx: Context[Any], step: Step) -> list[int]:
    """And those of shield, and of the event loop."""
    tasks = [asyncio.create_task(runner(step, n)) for n in range(RUNNERS)]
    runners = scattered(lambda n: asyncio.shield(tasks[n]))
    done, pending = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        tasks[runners.index(loser)].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [runners.index(shield) for shield in done]


@client.workflow(id="race of activities")
async def race_of_activities(ctx: Context[Any], step: Step) -> list[int]:
    """And Temporal's own handles."""
    runners = scattered(
        lambda n: workflow.start_activity(
            "pause",
            0.1 if n == RUNNERS - 1 else 60,
            task_queue=f"{client.task_queue} native",
            start_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(minutes=1),
        )
    )
    done, pending = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
        await step.run(f"clean up {runners.index(loser)}", clean_up, local=True)
    return [runners.index(activity) for activity in done]


@activity.defn(name="pause")
async def pause(seconds: float) -> None:
    """An activity of Temporal's own."""
    await asyncio.sleep(seconds)


@client.workflow(id="group")
async def group(ctx: Context[Any], step: Step) -> list[int]:
    """A task group cancels what is in a set."""
    try:
        async with asyncio.TaskGroup() as tasks:
            scattered(lambda n: tasks.create_task(runner(step, n)))
            tasks.create_task(step.run("fails", fails, max_attempts=1))
    except* StepError:
        pass
    return [RUNNERS - 1]


async def runner(step: Step, n: int) -> None:
    try:
        await step.sleep(f"runner {n}", "100ms" if n == RUNNERS - 1 else "1m")
    except asyncio.CancelledError:
        await step.run(f"clean up {n}", clean_up)
        raise


def scattered(make: Any) -> list[Any]:
    """Tasks and futures at addresses that differ from one execution to the next."""
    junk, tasks = [], []
    for n in range(RUNNERS):
        junk.append([bytearray(n) for _ in range(ANY.randrange(200))])
        tasks.append(make(n))
    return tasks


ANY = random.Random(time.time())


def clean_up() -> None:
    """Nothing to do."""


def fails() -> None:
    time.sleep(0.3)
    raise ValueError("on purpose")
