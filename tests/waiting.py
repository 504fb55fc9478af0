"""Waiting until runs wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio.api.enums.v1 import EventType

import steporal

PARKS = b"until the run parks"
TIMER = EventType.EVENT_TYPE_TIMER_STARTED

LONG = 90
"""Without cached workflows, a local activity may be lost with its run's eviction, and again; each time costs 3 s."""

MOST_PENDING = 1_010
"""Activities of one run that the tests' server takes at a time: half of Temporal's own 2,000, which take long."""

MEGABYTES = "megabytes of history, from their start for each workflow task"
"""Why a test needs a cache."""


async def until_waiting(run: steporal.Run[Any], timers: int = 1) -> None:
    """Wait until a run has started so many timers: each wait for an event has one, when it has subscribed."""
    async with asyncio.timeout(LONG):
        while await timers_of(run) < timers:
            await asyncio.sleep(0.05)


async def until_received(app: steporal.Client, signal: str, data: Any = None) -> str:
    """Send a signal until a run that waits has received it; returns which."""
    async with asyncio.timeout(LONG):
        while (received := (await app.send_signal(signal, data)).run_id) is None:
            await asyncio.sleep(0.05)
        return received


async def timers_of(run: steporal.Run[Any]) -> int:
    """How many timers a run has started, without those that park it."""
    history = await run.temporal.fetch_history()
    started = [event for event in history.events if event.event_type == TIMER]
    return sum(PARKS not in event.user_metadata.summary.data for event in started)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(LONG):
        while not condition():
            await asyncio.sleep(0.02)
