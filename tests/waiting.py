"""Waiting until runs wait."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.api.enums.v1 import EventType

import steporal

TIMER = EventType.EVENT_TYPE_TIMER_STARTED


async def until_waiting(run: steporal.Run[Any], timers: int = 1) -> None:
    """Wait until a run has started so many timers: each wait for an event has one, when it has subscribed."""
    async with asyncio.timeout(30):
        while await timers_of(run) < timers:
            await asyncio.sleep(0.01)


async def timers_of(run: steporal.Run[Any]) -> int:
    """How many timers a run has started."""
    history = await run.temporal.fetch_history()
    return sum(event.event_type == TIMER for event in history.events)
