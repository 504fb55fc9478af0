"""Steps whose worker lives, but is cut off from Temporal."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from recording import Workers
from waiting import until

import steporal
from steporal import Context, Step
from steporal.runtime.step_activity import JOIN_STEP
from steporal_workers.devserver import DevServer, dev_server

HEARTBEAT_TIMEOUT = "1s"
OUTAGE_SECONDS = 7.0
"""Longer than the heartbeat timeout and the 5 s after it in which Temporal's core gives an attempt up."""


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    async with dev_server() as server:
        yield server


@asynccontextmanager
async def outage(server: DevServer) -> AsyncIterator[None]:
    """Temporal does not answer while the context lasts, which is at least :data:`OUTAGE_SECONDS`."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
        await asyncio.sleep(OUTAGE_SECONDS)
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.takes_long
async def test_a_step_that_runs_through_an_outage_begins_once_and_its_result_counts(server: DevServer) -> None:
    app = steporal.Client("outage", heartbeat_timeout=HEARTBEAT_TIMEOUT)
    begun: list[str] = []
    may_end = {name: threading.Event() for name in ("ends in the outage", "ends after it")}
    async_may_end = asyncio.Event()

    @app.workflow(id="waits")
    async def waits(ctx: Context[Any], step: Step) -> list[str]:
        def work(name: str) -> str:
            begun.append(name)
            may_end[name].wait()
            return f"{name}, done"

        async def work_async() -> str:
            begun.append("async")
            await async_may_end.wait()
            return "async, done"

        names = ["ends in the outage", "ends after it"]
        steps = [step.run(name, work, name, max_attempts=1) for name in names]
        return list(await asyncio.gather(*steps, step.run("async", work_async, max_attempts=1)))

    async with Workers(server.client, 100)(app):
        run = await waits.start()
        await until(lambda: len(begun) == 3)
        await asyncio.sleep(1.5)  # until the first heartbeats have named the worker
        async with outage(server):
            may_end["ends in the outage"].set()
        joined = await pending(run, JOIN_STEP)
        may_end["ends after it"].set()
        async_may_end.set()
        result = await asyncio.wait_for(run.result(), 60)
    assert result == ["ends in the outage, done", "ends after it, done", "async, done"]
    assert len(begun) == 3
    assert joined


async def pending(run: steporal.Run[Any], activity_type: str) -> int:
    """Wait until a run has an activity of this type in flight, and return how many."""
    while True:
        described = await run.temporal.describe()
        kinds = [each.activity_type.name for each in described.raw_description.pending_activities]
        if count := kinds.count(activity_type):
            return count
        await asyncio.sleep(0.05)
