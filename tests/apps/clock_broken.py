"""Bodies that are not deterministic; `apps.clock` has the same app corrected."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import steporal
from steporal import Context, Step

client = steporal.Client("clock")


@client.workflow(id="now")
async def now(ctx: Context[Any], step: Step) -> str:
    before = await step.run("before", lambda: "before")
    return f"{before} {datetime.now(UTC):%Y}"


@client.workflow(id="random")
async def random_number(ctx: Context[Any], step: Step) -> float:
    return random.random()


@client.workflow(id="uuid")
async def uuid4(ctx: Context[Any], step: Step) -> str:
    return str(uuid.uuid4())


@client.workflow(id="sleep")
async def sleep(ctx: Context[Any], step: Step) -> None:
    time.sleep(0)  # noqa: ASYNC251


@client.workflow(id="open")
async def open_file(ctx: Context[Any], step: Step) -> str:
    with open(__file__) as file:  # noqa: ASYNC230
        return file.read()


@client.workflow(id="environment")
async def environment(ctx: Context[Any], step: Step) -> str:
    return os.environ["PATH"]


@client.workflow(id="thread")
async def thread(ctx: Context[Any], step: Step) -> int:
    return await asyncio.to_thread(len, "thread")


@client.workflow(id="hidden")
async def hidden(ctx: Context[Any], step: Step) -> float:
    try:
        return time.time()
    except Exception as err:
        raise ValueError("no time") from err


@client.workflow(id="helped")
async def helped(ctx: Context[Any], step: Step) -> float:
    return reading()


def reading() -> float:
    return time.monotonic()
